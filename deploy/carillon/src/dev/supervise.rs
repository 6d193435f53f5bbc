//! Keeps one process alive until it is told to stop, and reports what happens to it in words.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::process::{Running, Spec};
use super::terminal::write_line;

/// What a person should hear about.
#[derive(Debug)]
pub(super) enum News {
    Died { name: &'static str, how: String, again_in: Duration },
    Back { name: &'static str, pid: u32, took: Duration },
    NotBack { name: &'static str, why: String },
}

impl News {
    pub(super) fn new_pid(&self) -> Option<(&'static str, u32)> {
        match self {
            Self::Back { name, pid, .. } => Some((name, *pid)),
            Self::Died { .. } | Self::NotBack { .. } => None,
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Died { name, how, again_in } => {
                write!(f, "{name} {how}. Starting it again in {:.1} s.", again_in.as_secs_f32())
            }
            Self::Back { name, pid, took } => {
                write!(f, "{name} is back after {:.1} s (process {pid}).", took.as_secs_f32())
            }
            Self::NotBack { name, why } => write!(f, "{name} did not come back: {why}"),
        }
    }
}

#[derive(Debug)]
pub(super) struct Supervised {
    pub(super) name: &'static str,
    stop: oneshot::Sender<()>,
    watcher: JoinHandle<()>,
}

impl Supervised {
    pub(super) fn watch(spec: Spec, running: Running, news: mpsc::Sender<News>) -> Self {
        let name = spec.name;
        let (stop, stopped) = oneshot::channel();
        let watcher = tokio::spawn(async move {
            let mut current = Some(running);
            tokio::select! {
                () = keep_alive(&spec, &mut current, &news) => {}
                _ = stopped => {}
            }
            if let Some(running) = current {
                running.stop().await;
            }
        });
        Self { name, stop, watcher }
    }

    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.watcher.await;
    }
}

/// `current` holds the live process, so that whoever cancels this can end it well. Returns when nobody listens.
async fn keep_alive(spec: &Spec, current: &mut Option<Running>, news: &mpsc::Sender<News>) {
    let name = spec.name;
    let mut backoff = Backoff::default();
    let mut started = Instant::now();
    loop {
        let how = match current {
            Some(running) => running.ended().await,
            None => "is not running".to_owned(),
        };
        *current = None;
        let died = Instant::now();
        let again_in = backoff.after_a_run_of(died - started);
        if news.send(News::Died { name, how, again_in }).await.is_err() {
            return;
        }
        sleep(again_in).await;
        started = Instant::now();
        let outcome = match restart(spec, current).await {
            Ok(pid) => News::Back { name, pid, took: died.elapsed() },
            Err(error) => News::NotBack { name, why: crate::in_full(&error) },
        };
        if news.send(outcome).await.is_err() {
            return;
        }
    }
}

async fn restart(spec: &Spec, current: &mut Option<Running>) -> anyhow::Result<u32> {
    let running = current.insert(Running::spawn(spec)?);
    let pid = running.pid();
    let outcome = running.until(spec, &spec.ready).await;
    if outcome.is_err()
        && let Some(running) = current.take()
    {
        running.stop().await;
    }
    outcome.map(|()| pid)
}

/// Copies what is added to a log to the terminal, with the name of the process in front.
pub(super) async fn show_log(name: &'static str, log: PathBuf) {
    const POLL: Duration = Duration::from_millis(200);
    let Ok(mut file) = tokio::fs::File::open(&log).await else { return };
    if file.seek(std::io::SeekFrom::Start(0)).await.is_err() {
        return;
    }
    let mut unfinished = Vec::new();
    let mut chunk = vec![0; 16 * 1024];
    loop {
        match file.read(&mut chunk).await {
            Ok(0) => sleep(POLL).await,
            Ok(len) => {
                unfinished.extend_from_slice(&chunk[..len]);
                while let Some(end) = unfinished.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = unfinished.drain(..=end).collect();
                    write_line(&format!("  {name:<12} | {}", String::from_utf8_lossy(&line).trim_end()));
                }
            }
            Err(_) => return,
        }
    }
}
