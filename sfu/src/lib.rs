//! The media node as a process: threads, sockets and clocks around [`sfu_core::Node`], and the control link by which
//! signalling commands it. What a packet means is decided in `sfu-core`; what a room or a user may do is decided in
//! `signaling`; here is only what needs an operating system.
//!
//! [`run`] is the whole process, [`start`] the same without settings layers, log set-up and signals.

mod accept;
mod advertise;
mod announce;
mod args;
mod certificate;
mod config;
mod control;
mod hub;
mod metrics;
mod node;
mod placement;
mod shard;
mod status;
mod translate;

pub use args::Args;
pub use config::{Config, ConfigError};
pub use node::{Node, StartError, start};

use admin::settings::SettingsError;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Logs(#[from] admin::logs::LogsError),
    #[error("runtime cannot be built: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("signals cannot be listened to: {0}")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("node has failed: {0}")]
    Failed(String),
}

/// Runs a node until SIGINT, SIGTERM or a failure that it cannot live with. The control plane runs on this thread, each
/// shard on one of its own.
#[expect(clippy::needless_pass_by_value, reason = "an entry point that consumes what main has parsed")]
pub fn run(args: Args) -> Result<(), RunError> {
    let config = Config::load(&args)?;
    admin::logs::init(config.log, &config.log_filter)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let mut node = start(config).await?;
        let failure = tokio::select! {
            signal = admin::shutdown::signal() => {
                tracing::info!(signal = signal.map_err(RunError::Signals)?, "Ending");
                None
            }
            failure = node.failed() => Some(failure),
        };
        node.end().await;
        failure.map_or(Ok(()), |reason| Err(RunError::Failed(reason)))
    })
}
