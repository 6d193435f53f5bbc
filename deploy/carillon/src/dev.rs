//! `carillon dev`: the whole system on one machine, for trying and for developing. It makes up the secrets, picks the
//! ports, starts the processes, waits until each is ready, prints the links, then watches: a process that dies is
//! started again with the same secrets and ports, so that running calls go on. The state folder (certificate, logs,
//! cookie) is removed at the end unless it was named; of a run that went wrong the logs stay.
//!
//! Not for production: one machine, secrets that end with the process.

mod backoff;
mod desktop;
mod links;
mod ports;
mod process;
mod relaying;
mod secrets;
mod stack;
mod state;
mod supervise;
mod terminal;

use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;

use links::ReadyReport;
use secrets::Secrets;
use stack::Stack;
use state::StateFolder;
use supervise::News;
use terminal::Terminal;

/// Each process has at most a few things to tell at once; when nobody reads them, the watcher may wait.
const NEWS_QUEUE: usize = 16;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Ends with 0 after Ctrl-C or SIGTERM, with 1 when something could not be started.\n\
    CARILLON_TOKEN_KEY=kid:secret, with a secret of at least 32 bytes, keeps the links of one run good for the next.")]
pub(crate) struct Args {
    /// Room that the links lead to
    #[arg(long, default_value = "demo", value_name = "NAME", value_parser = crate::token::room_name)]
    pub(super) room: String,
    /// No PulseAudio desktop and no audio-bridge
    #[arg(long)]
    pub(super) no_desktop: bool,
    /// Addresses at which browsers reach the media node [default: this machine's network address, and loopback]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub(super) advertise: Vec<IpAddr>,
    /// Write one JSON object here when everything is ready: links, tokens, process ids, addresses
    #[arg(long, value_name = "FILE")]
    pub(super) ready_file: Option<PathBuf>,
    /// Keep certificate, logs and sockets in this folder
    #[arg(long, value_name = "FOLDER")]
    pub(super) state_dir: Option<PathBuf>,
    /// How long the tokens in the links are good
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = crate::duration::parse)]
    pub(super) token_ttl: Duration,
    /// First media port; one a shard is used from here on
    #[arg(long, default_value_t = 40000, value_name = "PORT")]
    pub(super) media_port: u16,
    /// Media threads [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) shards: Option<u16>,
    /// Port of the page over plain HTTP, on loopback only
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub(super) http_port: u16,
    /// Port of the page over HTTPS, for other devices
    #[arg(long, default_value_t = 8443, value_name = "PORT")]
    pub(super) https_port: u16,
    /// Name of this machine for other devices, in links and for the relay: Firefox takes a relay over TLS by name only
    /// [default: the first address advertised]
    #[arg(long, value_name = "NAME", value_parser = crate::local::host_name)]
    pub(super) host: Option<String>,
    /// Port of the relay
    #[arg(long, default_value_t = 3478, value_name = "PORT")]
    pub(super) relay_port: u16,
    /// Port of the relay over TLS
    #[arg(long, default_value_t = 5349, value_name = "PORT")]
    pub(super) relay_tls_port: u16,
    /// Certificate chain (PEM) of page and relay [default: one signed by itself]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Show the logs of the processes here as well
    #[arg(long, short)]
    pub(super) verbose: bool,
}

pub(crate) fn main(args: Args) -> anyhow::Result<ExitCode> {
    // One thread: the kernel ties a child to the THREAD that started it, and this one lives as long as the process.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut stop = std::pin::pin!(stop_signal()?);
    let terminal = Terminal::new();
    forget_ready_file(&args);
    // Before anything is made: what a person gets wrong here needs no logs.
    check_files(&args)?;
    let secrets = Secrets::generate(std::env::var("CARILLON_TOKEN_KEY").ok().as_deref())?;
    let mut state = StateFolder::open(args.state_dir.as_deref())?;
    let (news, mut incoming) = mpsc::channel(NEWS_QUEUE);
    let mut stack = Stack::default();
    let started = tokio::select! {
        started = stack.start(&args, secrets, state.path(), &terminal, news) => started,
        () = &mut stop => {
            terminal.say("Stopping before everything was up.");
            stop_all(&mut stack, &terminal).await?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let outcome = match started {
        Ok(ready) => watch(&args, ready, &state, &terminal, &mut incoming, stop).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        stop_all(&mut stack, &terminal).await?;
        if !state.has_logs() {
            return Err(error);
        }
        state.keep_logs();
        bail!("{}\nThe logs are in {}", crate::in_full(&error), state.logs().display());
    }
    terminal.say("Stopping.");
    stop_all(&mut stack, &terminal).await?;
    forget_ready_file(&args);
    terminal.say("Everything is stopped.");
    Ok(ExitCode::SUCCESS)
}

/// In order; at once when someone asks a second time, for the kernel then ends what is left.
async fn stop_all(stack: &mut Stack, terminal: &Terminal) -> anyhow::Result<()> {
    let asked_again = stop_signal()?;
    tokio::select! {
        () = stack.stop(terminal) => {}
        () = asked_again => terminal.say("Stopping at once."),
    }
    Ok(())
}

/// Tells what there is, then what happens, until someone stops it.
async fn watch(
    args: &Args,
    mut ready: ReadyReport,
    state: &StateFolder,
    terminal: &Terminal,
    incoming: &mut mpsc::Receiver<News>,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> anyhow::Result<()> {
    ready.write_file(args.ready_file.as_deref())?;
    terminal.block(&ready.closing_words(&state.logs()));
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            Some(news) = incoming.recv() => {
                terminal.say(&news.to_string());
                if let Some((name, pid)) = news.new_pid() {
                    ready.set_pid(name, pid);
                    ready.write_file(args.ready_file.as_deref())?;
                }
            }
        }
    }
}

/// Whoever waits for the file must not take that of another run for ours.
fn forget_ready_file(args: &Args) {
    if let Some(file) = &args.ready_file {
        let _ = std::fs::remove_file(file);
    }
}

/// The files that the flags name, before they are needed.
fn check_files(args: &Args) -> anyhow::Result<()> {
    if let Some(file) = &args.ready_file {
        links::check_place(file).with_context(|| format!("--ready-file {}", file.display()))?;
    }
    for (flag, file) in [("--tls-cert", &args.tls_cert), ("--tls-key", &args.tls_key)] {
        if let Some(file) = file {
            std::fs::File::open(file).with_context(|| format!("{flag} {} cannot be read", file.display()))?;
        }
    }
    Ok(())
}

/// Listens from the moment of the call, so that an early Ctrl-C is not lost.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}
