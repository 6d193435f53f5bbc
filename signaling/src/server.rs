//! Puts the parts together and runs them until a signal comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use admin::Readiness;
use admin::failure::port_remedy;
use prometheus_client::registry::Registry as MetricsRegistry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::announce::{self, Announcements};
use crate::hub::Hub;
use crate::ice::IceServers;
use crate::listen::{self, Connections};
use crate::metrics::Metrics;
use crate::nodes::{Embedded, Registry};
use crate::rooms::Rooms;
use crate::session::Context;
use crate::web::{self, Web};
use crate::{Args, Config, ConfigError, tls};

/// How often gauges and readiness are brought up to date.
const OBSERVE_INTERVAL: Duration = Duration::from_millis(250);
/// How long closed sockets may take at the end.
const STOP_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Logs(#[from] admin::logs::LogsError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// `port` is the key as well.
    #[error("{port} port {address} cannot be opened: {source}; {}", port_remedy(source, port, port))]
    Bind { port: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("runtime cannot start: {0}")]
    Runtime(#[source] std::io::Error),
}

/// Runs the process: settings, logs, server, until SIGINT or SIGTERM. Blocks the calling thread.
pub fn run(args: Args) -> Result<(), RunError> {
    let config = Config::load(args)?;
    admin::logs::init(config.log, &config.log_filter)?;
    let runtime = tokio::runtime::Runtime::new().map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let server = Server::start(config).await?;
        let signal = admin::shutdown::signal().await.map_err(RunError::Runtime)?;
        tracing::info!(signal, "Ending");
        server.stop().await;
        Ok(())
    })
}

/// A running server on real ports; for tests port 0 gives each its own.
#[derive(Debug)]
pub struct Server {
    http: SocketAddr,
    https: Option<SocketAddr>,
    admin: admin::server::Server,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    observer: JoinHandle<()>,
}

impl Server {
    pub async fn start(config: Config) -> Result<Self, RunError> {
        let metrics = Arc::new(Metrics::default());
        let mut series = MetricsRegistry::default();
        metrics.register(&mut series);
        let nodes = Arc::new(Embedded::default());
        let rooms = Rooms::new(config.limits, Instant::now());
        let hub = Hub::start(rooms, Arc::clone(&nodes) as Arc<dyn Registry>, Arc::clone(&metrics));
        let context = Arc::new(Context {
            hub: Arc::clone(&hub),
            keys: config.token_keys,
            ice: IceServers::new(config.broker, Arc::clone(&metrics)),
            metrics: Arc::clone(&metrics),
            resume_grace: config.limits.resume_grace,
        });
        let router = web::router(Web { context, origins: Arc::new(config.origins) });
        let connections =
            Connections::new(config.connections_max, config.connections_per_address_max, Arc::clone(&metrics));
        let (stop, stopping) = watch::channel(false);

        let (listener, http) = bind("http", config.http).await?;
        tokio::spawn(listen::serve(listener, None, router.clone(), Arc::clone(&connections), stopping.clone()));
        let https = match config.https {
            None => None,
            Some((address, files)) => {
                let acceptor = tls::acceptor(files, Arc::clone(&metrics))?;
                let (listener, https) = bind("https", address).await?;
                tokio::spawn(listen::serve(listener, Some(acceptor), router, connections, stopping));
                Some(https)
            }
        };

        let readiness = Readiness::new(&["media_nodes"]);
        let announcements =
            announce::router(Announcements { token: config.control_token, hub: Arc::clone(&hub), registry: nodes });
        let admin = admin::server::serve(config.admin, Arc::new(series), readiness.clone(), Some(announcements))
            .await
            .map_err(|source| RunError::Bind { port: "admin", address: config.admin, source })?;
        let observer = tokio::spawn(observe(Arc::clone(&hub), Arc::clone(&metrics), readiness));
        tracing::info!(%http, https = ?https, admin = %admin.local_addr(), "Signaling is running");
        Ok(Self { http, https, admin, hub, metrics, stop, observer })
    }

    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    #[must_use]
    pub fn https_addr(&self) -> Option<SocketAddr> {
        self.https
    }

    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Takes no more connections, closes the sockets with 1001 so that clients resume elsewhere, and waits a little.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.hub.shut_down();
        let closed = async {
            while self.metrics.sockets.get() > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(STOP_GRACE, closed).await;
        self.observer.abort();
        self.admin.stop().await;
    }
}

async fn bind(port: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Bind { port, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn observe(hub: Arc<Hub>, metrics: Arc<Metrics>, readiness: Readiness) {
    let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    loop {
        let counts = hub.counts();
        metrics.rooms.set(signed(counts.rooms));
        metrics.members.set(signed(counts.members));
        metrics.members_away.set(signed(counts.away));
        if hub.linked_nodes() > 0 {
            readiness.ready("media_nodes");
        } else {
            readiness.not_ready("media_nodes", "no media node has announced itself and is linked");
        }
        tokio::time::sleep(OBSERVE_INTERVAL).await;
    }
}
