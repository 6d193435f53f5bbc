//! The command line. Flags go over what the scenario file says. Exit codes: 0 when all thresholds hold, 1 when one is
//! broken, 2 when nothing could be measured.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::sync::watch;

use crate::engine::bare::Order;
use crate::engine::{self, EngineError};
use crate::report::{self, ReportError};
use crate::results::{Joins, Results, Snapshot};
use crate::scenario::{Scenario, ScenarioError, TalkPattern, TargetKind};
use crate::targets::{Access, Secret, TokenKey};
use crate::view;

#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about = "Synthetic participants: they join, send and hear, count and judge")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario
    Run(Box<Run>),
    /// What a run starts for its floor: reads an order from standard input
    #[command(hide = true)]
    BareSend,
    /// Compare the results of two runs: figures and ratios. Exit code 1 when they are not comparable
    Compare {
        /// What --out-json wrote
        before: PathBuf,
        after: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Scenario in TOML; without one, the flags say it all
    scenario: Option<PathBuf>,
    #[arg(long, value_enum)]
    target: Option<Kind>,
    /// ws:// or wss:// address: of signalling, of a node's control link, of Janus
    #[arg(long)]
    url: Option<String>,
    #[arg(long)]
    rooms: Option<u32>,
    /// Who send, in each room
    #[arg(long)]
    publishers: Option<u32>,
    /// Who only listen, in each room
    #[arg(long)]
    listeners: Option<u32>,
    /// Publishers hear too
    #[arg(long)]
    publishers_listen: bool,
    /// Voices that each listener can hear at a time
    #[arg(long)]
    slots: Option<u32>,
    #[arg(long, value_name = "SECONDS")]
    duration: Option<f64>,
    #[arg(long, value_name = "SECONDS")]
    warmup: Option<f64>,
    /// Joins begun each second; 0: as fast as they go
    #[arg(long, value_name = "RATE")]
    joins_per_s: Option<f64>,
    #[arg(long, value_enum)]
    talk: Option<Pattern>,
    /// Processes of the server on this machine, to report their CPU time and memory
    #[arg(long = "server-pid", value_name = "PID")]
    server_pids: Vec<u32>,
    #[arg(long, value_name = "PREFIX")]
    room_prefix: Option<String>,
    /// Threads of the bulk clients; 0: one for each core
    #[arg(long)]
    threads: Option<u32>,
    /// Share of the listeners that are complete peers of a foreign stack
    #[arg(long, value_name = "SHARE")]
    realistic_share: Option<f64>,
    /// Signs room tokens, as kid:secret. Better given by environment, where other users of the machine cannot read it
    #[arg(long, env = "CARILLON_TOKEN_KEY", hide_env_values = true, value_name = "KID:SECRET")]
    token_key: Option<String>,
    /// Opens the control link of a node
    #[arg(long, env = "SFU_CONTROL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    control_token: Option<String>,
    /// The target is mine although it is not on loopback
    #[arg(long)]
    i_own_the_target: bool,
    #[arg(long, value_name = "FILE")]
    out_json: Option<PathBuf>,
    #[arg(long, value_name = "FILE")]
    out_html: Option<PathBuf>,
    /// No live view
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Carillon,
    Node,
    Janus,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Pattern {
    All,
    Conversational,
    Churn,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error(transparent)]
    TokenKey(#[from] crate::targets::TokenKeyError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("runtime cannot be built: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("order of the bare sender cannot be read: {0}")]
    Order(#[source] serde_json::Error),
    #[error("bare sender failed: {0}")]
    BareSend(#[source] std::io::Error),
    #[error("nobody could join ({reasons}), so nothing was measured: {hint}")]
    NobodyJoined { reasons: String, hint: &'static str },
    #[error("output cannot be written: {0}")]
    Output(#[source] std::io::Error),
}

#[must_use]
pub fn main(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Run(run) => execute(&run).map(|ok| if ok { ExitCode::SUCCESS } else { ExitCode::from(1) }),
        Command::BareSend => bare_send().map(|()| ExitCode::SUCCESS),
        Command::Compare { before, after } => {
            compare(&before, &after).map(|ok| if ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
    };
    done.unwrap_or_else(|failure| {
        let _ = writeln!(std::io::stderr(), "loadgen: {failure}");
        ExitCode::from(2)
    })
}

fn execute(run: &Run) -> Result<bool, Failure> {
    let scenario = run.scenario()?;
    let access = run.access()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let results = runtime.map_err(Failure::Runtime)?.block_on(measure(scenario, access, run.quiet))?;
    if let Some(path) = &run.out_json {
        report::write_json(path, &results)?;
    }
    if let Some(path) = &run.out_html {
        report::write_html(path, &results)?;
    }
    print(&report::summary(&results))?;
    for broken in results.verdict.iter().filter(|judged| !judged.ok) {
        let _ = writeln!(std::io::stderr(), "loadgen: broken threshold {}", report::Line(broken));
    }
    somebody_joined(&results.joins)?;
    Ok(results.ok())
}

fn somebody_joined(joins: &Joins) -> Result<(), Failure> {
    if joins.connected > 0 || joins.failed == 0 {
        return Ok(());
    }
    let reasons: Vec<_> = joins.failures.iter().map(|(reason, count)| format!("{count} x {reason}")).collect();
    let is = |start: &str| joins.failures.keys().any(|reason| reason.starts_with(start));
    let hint = if is("token") {
        "give loadgen the key that the server checks tokens with, in CARILLON_TOKEN_KEY=kid:secret"
    } else if is("signalling_unreachable") {
        "is the server running, and is the url right?"
    } else {
        "the log of the server may say more"
    };
    Err(Failure::NobodyJoined { reasons: reasons.join(", "), hint })
}

/// Until the end of the scenario, or Ctrl-C, or SIGTERM.
async fn measure(scenario: Scenario, access: Access, quiet: bool) -> Result<Results, EngineError> {
    let (snapshots, live) = watch::channel(Snapshot::default());
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        stop_signal().await;
        stop.send_replace(true);
        // Kept until the end: a dropped sender would read as a stop.
        std::future::pending::<()>().await;
    });
    let shown = (!quiet).then(|| tokio::spawn(view::show(live, scenario.clone())));
    let results = engine::run(scenario, access, snapshots, stopped).await;
    if let Some(shown) = shown {
        // It ends with the sender of snapshots, and gives the terminal back.
        let _ = shown.await;
    }
    results
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => if pressed.is_err() { std::future::pending::<()>().await },
        _ = terminate.recv() => {}
    }
}

fn bare_send() -> Result<(), Failure> {
    let order: Order = serde_json::from_reader(std::io::stdin().lock()).map_err(Failure::Order)?;
    let sent = engine::bare::send(&order).map_err(Failure::BareSend)?;
    print(&serde_json::to_string(&sent).map_err(Failure::Order)?)
}

fn compare(before: &Path, after: &Path) -> Result<bool, Failure> {
    let comparison = report::compare(&report::read_json(before)?, &report::read_json(after)?);
    print(&comparison.text)?;
    Ok(comparison.comparable)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

impl Run {
    fn scenario(&self) -> Result<Scenario, ScenarioError> {
        let Some(path) = &self.scenario else {
            let mut scenario = Scenario { name: "from the command line".to_owned(), ..Scenario::default() };
            self.apply(&mut scenario);
            return scenario.checked(None);
        };
        let text = Scenario::read(path)?;
        let mut scenario = Scenario::parse(path, &text)?;
        self.apply(&mut scenario);
        scenario.checked(Some((path, &text)))
    }

    fn apply(&self, scenario: &mut Scenario) {
        let Scenario { target, rooms, ramp, talk, run, engine, .. } = scenario;
        set(&mut target.kind, self.target.map(Kind::kind));
        set(&mut target.url, self.url.clone());
        set(&mut target.room_prefix, self.room_prefix.clone());
        set(&mut target.server_pids, (!self.server_pids.is_empty()).then(|| self.server_pids.clone()));
        set(&mut rooms.count, self.rooms);
        set(&mut rooms.publishers, self.publishers);
        set(&mut rooms.listeners, self.listeners);
        set(&mut rooms.slots, self.slots.map(Some));
        set(&mut rooms.publishers_listen, self.publishers_listen.then_some(true));
        set(&mut ramp.joins_per_s, self.joins_per_s);
        set(&mut talk.pattern, self.talk.map(Pattern::pattern));
        set(&mut run.duration_s, self.duration);
        set(&mut run.warmup_s, self.warmup);
        set(&mut engine.threads, self.threads);
        set(&mut engine.realistic_share, self.realistic_share);
    }

    fn access(&self) -> Result<Access, Failure> {
        let token_key = self.token_key.as_deref().map(TokenKey::parse).transpose()?;
        let control_token = self.control_token.clone().map(Secret);
        Ok(Access { token_key, control_token, owns_target: self.i_own_the_target })
    }
}

fn set<T>(value: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *value = given;
    }
}

impl Kind {
    fn kind(self) -> TargetKind {
        match self {
            Self::Carillon => TargetKind::Carillon,
            Self::Node => TargetKind::Node,
            Self::Janus => TargetKind::Janus,
        }
    }
}

impl Pattern {
    fn pattern(self) -> TalkPattern {
        match self {
            Self::All => TalkPattern::All,
            Self::Conversational => TalkPattern::Conversational,
            Self::Churn => TalkPattern::Churn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Run {
        let cli = Cli::try_parse_from(["loadgen", "run"].iter().chain(arguments)).expect("parses");
        match cli.command {
            Command::Run(run) => *run,
            Command::Compare { .. } | Command::BareSend => panic!("not a run"),
        }
    }

    #[test]
    fn flags_go_over_the_file() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/one-room.toml");
        let scenario = run(&[file, "--listeners", "7", "--talk", "churn"]).scenario().expect("a scenario");
        assert_eq!((scenario.rooms.publishers, scenario.rooms.listeners), (8, 7));
        assert_eq!(scenario.talk.pattern, TalkPattern::Churn);
    }

    #[test]
    fn a_flag_out_of_range_is_refused() {
        let refused = run(&["--url", "ws://127.0.0.1:1", "--publishers", "5000"]).scenario();
        assert_eq!(refused.expect_err("refused").to_string(), "rooms.publishers must be 0 to 4096");
    }

    #[test]
    fn every_scenario_that_is_shipped_can_be_run() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios")).expect("a folder");
        let files: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
        assert!(files.len() >= 5);
        for file in files {
            let text = Scenario::read(&file).expect("readable");
            let scenario = Scenario::parse(&file, &text).and_then(|s| s.checked(Some((&file, &text))));
            assert!(!scenario.expect("valid").name.is_empty(), "{}", file.display());
        }
    }
}
