//! The broker as a process: two ports, files that are looked at each second, signals.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use admin::Readiness;
use admin::failure::port_remedy;
use admin::server::{Limits, Server};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Args;
use super::config::{Config, ConfigError};
use super::desk::Desk;
use super::routes;

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
    let mut watch = Watch::new(&config.files);
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
            _ = hangup.recv() => broker.reload(args, &mut watch),
            _ = ticks.tick() => {
                broker.look_at_relays();
                if watch.has_changed() {
                    broker.reload(args, &mut watch);
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

    fn reload(&self, args: &Args, watch: &mut Watch) {
        let result = match Config::load(args) {
            Ok(config) => {
                *watch = Watch::new(&config.files);
                self.update(config);
                "ok"
            }
            Err(error) => {
                watch.look_again();
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

/// Files by what changes when they are written or replaced.
#[derive(Debug)]
struct Watch(Vec<(PathBuf, Option<Seen>)>);

type Seen = (SystemTime, u64);

impl Watch {
    fn new(files: &[PathBuf]) -> Self {
        Self(files.iter().map(|path| (path.clone(), seen(path))).collect())
    }

    fn has_changed(&self) -> bool {
        self.0.iter().any(|(path, before)| seen(path) != *before)
    }

    /// What could not be loaded is tried again when it changes.
    fn look_again(&mut self) {
        for (path, before) in &mut self.0 {
            *before = seen(path);
        }
    }
}

fn seen(path: &Path) -> Option<Seen> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len()))
}

#[cfg(test)]
mod tests;
