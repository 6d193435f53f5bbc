//! The relay as a process: sockets, threads, clocks and settings around [`relay_core::Server`]. What a message means and
//! who may do what is decided in `relay-core`; here is only what needs an operating system.
//!
//! [`run`] is the whole process, [`Relay::start`] the same without log set-up and signals.

mod args;
pub mod broker;
mod check;
mod config;
mod metrics;
mod process;
mod registry;
mod relays;
mod streams;
mod tls;
mod watch;
mod worker;

pub use args::Args;
pub use config::{Config, ConfigError, CoturnError, ExternalError, SecretsError};
pub use process::{Listeners, Relay, StartError};
pub use registry::BadRegistry;
pub use tls::TlsError;
pub use worker::{Order, Worker};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("standard output cannot be written: {0}")]
    Output(#[source] std::io::Error),
    #[error(transparent)]
    Logs(#[from] admin::logs::LogsError),
    #[error("runtime cannot be built: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("signals cannot be listened to: {0}")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("relay has failed: {0}")]
    Failed(String),
}

/// Runs a relay until SIGINT, SIGTERM or a failure. SIGHUP loads the settings again. The admin port runs on this thread,
/// clients on threads of their own.
pub fn run(args: &Args) -> Result<(), RunError> {
    let config = Config::load(args)?;
    if args.check_config {
        return check::explain(&config, &mut std::io::stdout().lock()).map_err(RunError::Output);
    }
    admin::logs::init(config.log, &config.log_filter)?;
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(process::serve(args, config))
}

/// Each allocation and each connection is a file descriptor, and the usual soft limit of 1024 is for programs that still
/// use select(2).
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "Kept the limit of open files");
    }
}
