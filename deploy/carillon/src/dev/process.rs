//! One child process: how it is started, when it counts as ready, how it is ended.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use admin::Secret;
use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// A process that is not ready by then will not be: the slowest of them needs a second on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(25);
/// Time to say goodbye to clients before SIGKILL.
const GOODBYE: Duration = Duration::from_secs(5);
/// Of a process that could not start, this much of its log is shown.
const LOG_TAIL_LINES: usize = 12;
const LOG_TAIL_BYTES: usize = 4096;

/// Everything needed to start a process, again and again in the same way.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, OsString)>,
    /// Never in `arguments`, which every user of the machine can read.
    pub(super) secrets: Vec<(&'static str, Secret)>,
    pub(super) ready: Ready,
    pub(super) log: PathBuf,
}

/// What shows that a process can be used.
#[derive(Clone, Debug)]
pub(super) enum Ready {
    /// `GET` of this path answers 200.
    Http(SocketAddr, &'static str),
    /// Somebody listens at this unix socket.
    Socket(PathBuf),
}

impl Ready {
    async fn holds(&self) -> bool {
        match self {
            Self::Http(address, path) => crate::local::http_status(*address, path).await == Some(200),
            Self::Socket(path) => tokio::net::UnixStream::connect(path).await.is_ok(),
        }
    }
}

/// A started process. Dropped without [`Running::stop`], it is killed.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pid: u32,
}

impl Running {
    /// Starts the process; it ends with this one whatever happens.
    pub(super) fn spawn(spec: &Spec) -> anyhow::Result<Self> {
        if let Ready::Socket(path) = &spec.ready {
            // Left over from a killed predecessor, which would look ready and make the new one refuse.
            let _ = std::fs::remove_file(path);
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&spec.log);
        let log = log.with_context(|| format!("cannot write {}", spec.log.display()))?;
        let mut command = Command::new(std::env::current_exe().context("cannot find this program's file")?);
        command.arg("tied").arg(std::process::id().to_string()).arg(&spec.program).args(&spec.arguments);
        command.envs(spec.environment.iter().map(|(key, value)| (key, value)));
        command.envs(spec.secrets.iter().map(|(key, secret)| (key, secret.expose())));
        command.stdin(Stdio::null()).stdout(log.try_clone().context("log")?).stderr(log);
        // Its own group: Ctrl-C in the terminal reaches this process only, which then stops the others in order.
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", spec.name))?;
        let pid = child.id().context("a process that was just started has an id")?;
        Ok(Self { child, pid })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for what shows that the process can be used; an error when it ends first or takes too long.
    pub(super) async fn until(&mut self, spec: &Spec, ready: &Ready) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        while !ready.holds().await {
            if let Some(status) = self.child.try_wait().context("cannot watch the process")? {
                bail!("{} {}; the last it said:\n{}", spec.name, ended_words(status), log_tail(&spec.log));
            }
            if Instant::now() >= deadline {
                let seconds = READY_TIMEOUT.as_secs();
                bail!("{} is not ready after {seconds} s; the last it said:\n{}", spec.name, log_tail(&spec.log));
            }
            sleep(READY_POLL).await;
        }
        Ok(())
    }

    /// Waits for the end, and says how it came.
    pub(super) async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => ended_words(status),
            Err(error) => format!("cannot be watched any more ({error})"),
        }
    }

    /// Asks the process to end, and makes it.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(GOODBYE, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

fn ended_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.signal(), status.code()) {
        (Some(9), _) => "was killed (signal 9)".to_owned(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(0)) => "ended by itself".to_owned(),
        (None, code) => format!("ended with an error (exit code {})", code.unwrap_or(-1)),
    }
}

fn log_tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail: Vec<String> = lines.iter().rev().take(LOG_TAIL_LINES).rev().map(|line| format!("    {line}")).collect();
    if tail.is_empty() { "    (nothing)".to_owned() } else { tail.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn an_end_is_told_in_words() {
        assert_eq!(ended_words(ExitStatus::from_raw(9)), "was killed (signal 9)");
        assert_eq!(ended_words(ExitStatus::from_raw(15)), "was ended by signal 15");
        assert_eq!(ended_words(ExitStatus::from_raw(0)), "ended by itself");
        assert_eq!(ended_words(ExitStatus::from_raw(1 << 8)), "ended with an error (exit code 1)");
    }

    #[test]
    fn the_tail_of_a_log_is_its_last_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(log_tail(file.path()), "    (nothing)");
        let lines: Vec<String> = (0..1000).map(|n| format!("line {n}")).collect();
        std::fs::write(file.path(), lines.join("\n\n")).unwrap();
        let tail = log_tail(file.path());
        assert_eq!(tail.lines().count(), LOG_TAIL_LINES);
        assert!(tail.ends_with("    line 999"));
    }
}
