//! The broker as a process: two ports, files that are looked at each second, signals.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admin::Readiness;
use admin::failure::port_remedy;
use admin::server::{Limits, Server};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Args;
use super::config::{Config, ConfigError};
use super::desk::Desk;
use super::routes;
use crate::watch::Files;

/// How often files are looked at and relays counted: a new secret signs within that time.
const INTERVAL: Duration = Duration::from_secs(1);
/// Pages and programs keep their connections for seconds at most.
const CONNECTIONS_MAX: usize = 4_096;
/// Requests have no body that is read.
const BODY_BYTES_MAX: usize = 16 * 1024;

const RELAYS: &str = "relays";

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Logs(#[from] admin::logs::LogsError),
    #[error("runtime cannot be built: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("signals cannot be listened to: {0}")]
    Signals(#[source] std::io::Error),
    #[error("{port} port {address} cannot be bound: {source}; {}", port_remedy(source, key, key))]
    Port { port: &'static str, address: SocketAddr, key: &'static str, source: std::io::Error },
}

/// Runs a broker until SIGINT or SIGTERM. SIGHUP loads the settings again.
pub fn run(args: &Args) -> Result<(), RunError> {
    let config = Config::load(args)?;
    admin::logs::init(config.log, &config.log_filter)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(serve(args, config))
}

async fn serve(args: &Args, config: Config) -> Result<(), RunError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let mut files = Files::look(&config.files);
    let broker = Broker::start(config).await?;
    let mut ticks = tokio::time::interval(INTERVAL);
    let end = admin::shutdown::signal();
    tokio::pin!(end);
    loop {
        tokio::select! {
            signal = &mut end => {
                tracing::info!(signal = signal.map_err(RunError::Signals)?, "Ending");
                break;
            }
            _ = hangup.recv() => broker.reload(args, &mut files),
            _ = ticks.tick() => {
                broker.look_at_relays();
                if files.has_changed() {
                    broker.reload(args, &mut files);
                }
            }
        }
    }
    broker.stop().await;
    Ok(())
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    desk: Arc<Desk>,
    http: Server,
    admin: Server,
    readiness: Readiness,
}

impl Broker {
    /// Starts a broker. Must be called inside a tokio runtime.
    pub async fn start(config: Config) -> Result<Self, RunError> {
        let (http, admin) = (config.http, config.admin);
        let secrets = config.policy.minter.secret_ids().join(" ");
        let (now, _) = routes::system_clock();
        let desk = Arc::new(Desk::new(config, now));
        let readiness = Readiness::new(&[RELAYS]);
        let at = |port, key, address| move |source| RunError::Port { port, address, key, source };
        let registry = Arc::new(desk.meters.registry());
        let admin = admin::server::serve(admin, registry, readiness.clone(), None)
            .await
            .map_err(at("admin", "admin", admin))?;
        let listener = TcpListener::bind(http).await.map_err(at("HTTP", "http", http))?;
        let limits = Limits { connections_max: CONNECTIONS_MAX, body_bytes_max: BODY_BYTES_MAX, ..Limits::default() };
        let router = routes::router(Arc::clone(&desk), routes::system_clock);
        let http = admin::server::serve_router(listener, router, limits).map_err(at("HTTP", "http", http))?;
        let broker = Self { desk, http, admin, readiness };
        broker.look_at_relays();
        tracing::info!(http = %broker.http_addr(), admin = %broker.admin_addr(), secrets, "Broker is running");
        Ok(broker)
    }

    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Takes the settings of another load; the ports stay.
    pub fn update(&self, config: Config) {
        let secrets = config.policy.minter.secret_ids().join(" ");
        self.desk.update(config);
        tracing::info!(secrets, "Settings are loaded again");
    }

    fn reload(&self, args: &Args, files: &mut Files) {
        let before = files.look_again();
        let result = match Config::load(args) {
            Ok(config) => {
                *files = before.choose(&config.files);
                self.update(config);
                "ok"
            }
            Err(error) => {
                *files = before;
                tracing::error!(%error, "Settings cannot be loaded again, the old ones stay");
                "failed"
            }
        };
        self.desk.meters.reloaded(result);
    }

    fn look_at_relays(&self) {
        let (good, bad) = self.desk.live().count();
        self.desk.meters.relays(good, bad);
        match (good, bad) {
            (0, 1..) => self.readiness.not_ready(RELAYS, "no relay answers"),
            _ => self.readiness.ready(RELAYS),
        }
    }

    pub async fn stop(self) {
        self.readiness.not_ready(RELAYS, "ending");
        self.http.stop().await;
        self.admin.stop().await;
    }
}

#[cfg(test)]
mod tests;
