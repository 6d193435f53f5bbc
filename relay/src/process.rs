//! Puts the parts together: sockets first, so that a port in use stops the start; then threads and the admin port. Then it
//! waits: for files that change, for names that move, for signals.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use admin::Readiness;
use admin::failure::port_remedy;
use admin::server::Server as AdminServer;
use rand::TryRngCore;
use relay_core::{AddressRange, Server, Settings, SettingsError, Shared};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use udp::{Options, Socket, Waker};

use crate::RunError;
use crate::args::Args;
use crate::check;
use crate::config::{Config, Drain, Streams};
use crate::metrics::{self, ProcessMeters, Published};
use crate::registry::Nodes;
use crate::streams::{self, Listener, Setup};
use crate::tls::{self, TlsError};
use crate::watch::{Files, Watch};
use crate::worker::{ORDERS_WAITING_MAX, Order, Worker, unix_s};

/// How often files are looked at, for a new secret to be good within seconds.
const FILES_INTERVAL: Duration = Duration::from_secs(1);
/// How often a draining relay looks whether it may end.
const DRAIN_INTERVAL: Duration = Duration::from_millis(100);
/// Wrong credentials are summed up in one line a minute.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);
/// Of port 0; a machine with so few free ports has other problems.
const PORT_ATTEMPTS: u32 = 16;
/// A thread ends its turn in well under a second.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

const LISTENERS: &str = "listeners";
const ALLOCATIONS: &str = "allocations";
const PEERS: &str = "peers";

const PORT: &str = "port";
const TLS_PORT: &str = "tls_port";
const PROXY_PORT: &str = "proxy_port";
const ADMIN: &str = "admin";

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `key` chooses another.
    #[error("{port} port {address} cannot be bound: {source}; {}", port_remedy(source, key, address_key(key)))]
    Port { port: &'static str, address: SocketAddr, key: &'static str, source: io::Error },
    #[error("thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    #[error("random numbers cannot be had: {0}")]
    Random(String),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The admin port has its address in the same key.
fn address_key(key: &str) -> &str {
    if key == ADMIN { ADMIN } else { "listen" }
}

/// A running relay.
#[derive(Debug)]
pub struct Relay {
    listeners: Listeners,
    threads: Vec<Thread>,
    certificate: Option<Arc<tls::Current>>,
    readiness: Readiness,
    meters: ProcessMeters,
    admin: AdminServer,
    drain: Drain,
    /// As they were loaded, without the peers that were learnt.
    settings: Settings,
    nodes: Arc<[AddressRange]>,
}

#[derive(Debug)]
struct Thread {
    orders: Orders,
    published: Arc<Published>,
    ended: oneshot::Receiver<Option<String>>,
}

/// How a thread is told something.
#[derive(Debug)]
enum Orders {
    Datagrams(SyncSender<Order>, Waker),
    Streams(mpsc::Sender<Order>),
}

/// Where clients are served.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    pub udp: Vec<SocketAddr>,
    /// TURN and STUN over TCP, and TLS if there is a certificate.
    pub tcp: Vec<SocketAddr>,
    /// The same, at the port that clients expect TLS at.
    pub tls: Vec<SocketAddr>,
    /// For balancers that speak the PROXY protocol.
    pub proxy: Vec<SocketAddr>,
}

/// The process after its settings: until a signal ends it.
pub(crate) async fn serve(args: &Args, config: Config) -> Result<(), RunError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    for note in &config.notes {
        if let Some(remark) = &note.remark {
            tracing::warn!(line = note.line, key = note.key, "Ignored: {remark}");
        }
    }
    if config.is_general_by_coturn() {
        tracing::warn!("{}", check::GENERAL);
    }
    let mut watch = Watch::new(&config, Files::look(&config.files));
    let registry = config.registry.clone();
    let mut relay = Relay::start(config).await?;
    let mut nodes = registry.map(|registry| Nodes::follow(registry, relay.meters.registry.clone()));
    let mut ticks = tokio::time::interval(FILES_INTERVAL);
    let mut summary = Summary::new();
    let end = admin::shutdown::signal();
    tokio::pin!(end);
    let failure = loop {
        tokio::select! {
            signal = &mut end => {
                tracing::info!(signal = signal.map_err(RunError::Signals)?, "Draining");
                break None;
            }
            failure = relay.failed() => break Some(failure),
            nodes = changed(&mut nodes) => relay.meet(nodes),
            _ = hangup.recv() => relay.reload(args, &mut watch),
            _ = ticks.tick() => {
                summary.say(&relay.threads);
                if watch.is_due() {
                    relay.reload(args, &mut watch);
                }
            }
        }
    };
    if failure.is_none() {
        relay.drain().await;
    }
    relay.end().await;
    failure.map_or(Ok(()), |reason| Err(RunError::Failed(reason)))
}

impl Relay {
    /// Starts a relay. Must be called inside a tokio runtime.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let (listeners, sockets, streams) = bind_listeners(&config)?;
        let now = Instant::now();
        let shared = Arc::new(Shared::new(config.core.relays.len(), &config.ports, seed()?, now));
        let settings = Arc::new(config.core.clone());
        let server = || -> Result<Server, StartError> {
            Ok(Server::new(Arc::clone(&settings), Arc::clone(&shared), seed()?, now, unix_s())?)
        };
        let mut threads = Vec::with_capacity(sockets.len() + 1);
        for (index, sockets) in sockets.into_iter().enumerate() {
            threads.push(Thread::for_datagrams(index, server()?, sockets, config.gather)?);
        }
        let certificate = config.streams.tls.as_ref().map(|tls| tls::Current::new(Arc::clone(&tls.pair)));
        if !streams.is_empty() {
            threads.push(Thread::for_streams(server()?, streams, &config.streams, certificate.clone())?);
        }
        let meters = ProcessMeters::default();
        let readiness = Readiness::new(&[LISTENERS, ALLOCATIONS, PEERS]);
        let published = threads.iter().map(|thread| Arc::clone(&thread.published)).collect();
        let registry = Arc::new(metrics::registry(published, shared, &meters));
        let at_admin = |source| StartError::Port { port: "admin", address: config.admin, key: ADMIN, source };
        let admin = admin::server::serve(config.admin, registry, readiness.clone(), None).await.map_err(at_admin)?;
        readiness.ready(LISTENERS);
        readiness.ready(ALLOCATIONS);
        let peers = if settings.policy.general { "all but denied" } else { "media nodes" };
        let (admin_addr, ports) = (admin.local_addr(), format!("{}-{}", config.ports.start(), config.ports.end()));
        let Listeners { udp, tcp, tls, proxy } = &listeners;
        let (udp, tcp, tls, proxy) = (shown(udp), shown(tcp), shown(tls), shown(proxy));
        tracing::info!(udp, tcp, tls, proxy, threads = threads.len(), ports, peers, admin = %admin_addr, "Relay is running");
        let (drain, settings) = (config.drain, config.core);
        let nodes = Arc::default();
        let relay = Self { listeners, threads, certificate, readiness, meters, admin, drain, settings, nodes };
        relay.look_at_peers();
        Ok(relay)
    }

    #[must_use]
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }

    /// Takes the settings of another load; ports, threads, balancers, relay addresses and the registry stay as they are.
    pub fn update(&mut self, config: Config) {
        match (&self.certificate, config.streams.tls) {
            (Some(certificate), Some(tls)) => certificate.store(tls.pair),
            (None, Some(_)) => tracing::warn!("There is a certificate now: TLS begins when the relay starts again"),
            (_, None) => {}
        }
        self.settings = config.core;
        self.order_settings();
        for thread in &self.threads {
            thread.order(Order::Gather(config.gather));
        }
    }

    /// Media nodes that were learnt, beside those that were named.
    fn meet(&mut self, nodes: Arc<[AddressRange]>) {
        self.nodes = nodes;
        self.order_settings();
    }

    fn order_settings(&self) {
        let mut settings = self.settings.clone();
        settings.policy.allowed.extend(self.nodes.iter().cloned());
        let settings = Arc::new(settings);
        for thread in &self.threads {
            thread.order(Order::Update(Arc::clone(&settings)));
        }
        self.look_at_peers();
    }

    /// Without anybody to relay to, clients had better be sent elsewhere.
    fn look_at_peers(&self) {
        let policy = &self.settings.policy;
        let has_peers = policy.general || !policy.allowed.is_empty() || !self.nodes.is_empty() || !self.settings.turn;
        if has_peers {
            self.readiness.ready(PEERS);
        } else {
            self.readiness.not_ready(PEERS, "the registry has told of no media node");
        }
    }

    fn reload(&mut self, args: &Args, watch: &mut Watch) {
        let files = watch.files.look_again();
        let result = match Config::load_again(args, &watch.external) {
            Ok(config) => {
                *watch = Watch::new(&config, files.choose(&config.files));
                self.update(config);
                tracing::info!("Settings are loaded again");
                "ok"
            }
            Err(error) => {
                watch.postpone(files);
                tracing::error!(%error, "Settings cannot be loaded again, the old ones stay");
                "failed"
            }
        };
        self.meters.reloads.get_or_create(&[("result", result)]).inc();
    }

    /// Makes no allocation any more, and waits for those that are there.
    pub async fn drain(&self) {
        self.readiness.not_ready(ALLOCATIONS, "draining");
        self.meters.draining.set(1);
        for thread in &self.threads {
            thread.order(Order::Drain);
        }
        let left = || self.threads.iter().map(|thread| thread.published.allocations()).sum::<u64>();
        let waiting = async {
            while left() > self.drain.allocations as u64 {
                tokio::time::sleep(DRAIN_INTERVAL).await;
            }
        };
        if tokio::time::timeout(self.drain.time, waiting).await.is_err() {
            tracing::warn!(allocations = left(), "Ends with allocations that are still there");
        }
    }

    /// Stops all threads.
    pub async fn end(mut self) {
        self.readiness.not_ready(LISTENERS, "ending");
        for thread in &self.threads {
            thread.order(Order::Stop);
        }
        // One that has failed has said so before, and is not asked twice.
        for thread in self.threads.iter_mut().filter(|thread| !thread.ended.is_terminated()) {
            if tokio::time::timeout(STOP_TIME_MAX, &mut thread.ended).await.is_err() {
                tracing::warn!("Left a thread that does not answer");
            }
        }
        self.admin.stop().await;
    }

    /// Waits for a thread that ends by itself, and tells why.
    async fn failed(&mut self) -> String {
        let ends = self.threads.iter_mut().map(|thread| Box::pin(&mut thread.ended)).collect::<Vec<_>>();
        let (reason, ..) = select_first(ends).await;
        reason.ok().flatten().unwrap_or_else(|| "a thread has ended".to_owned())
    }
}

/// Waits for other media nodes; without a registry, for ever.
async fn changed(nodes: &mut Option<Nodes>) -> Arc<[AddressRange]> {
    match nodes {
        Some(nodes) => nodes.changed().await,
        None => std::future::pending().await,
    }
}

/// The first of several futures to end.
async fn select_first<F: Future + Unpin>(mut futures: Vec<F>) -> (F::Output, usize) {
    std::future::poll_fn(move |context| {
        for (at, future) in futures.iter_mut().enumerate() {
            if let std::task::Poll::Ready(output) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready((output, at));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

impl Thread {
    fn for_datagrams(
        index: usize,
        server: Server,
        listeners: Vec<Socket>,
        gather: Duration,
    ) -> Result<Self, StartError> {
        let (orders, waiting) = sync_channel(ORDERS_WAITING_MAX);
        let worker = Worker::new(server, listeners, waiting, gather).map_err(StartError::Thread)?;
        let published = worker.published();
        let orders = Orders::Datagrams(orders, worker.waker());
        let ended = spawn(format!("relay-{index}"), move || worker.run())?;
        Ok(Self { orders, published, ended })
    }

    fn for_streams(
        server: Server,
        listeners: Vec<Listener>,
        config: &Streams,
        certificate: Option<Arc<tls::Current>>,
    ) -> Result<Self, StartError> {
        let published = Arc::new(Published::default());
        let newest_only = config.tls.as_ref().is_some_and(|tls| tls.newest_only);
        let tls = certificate.map(|certificate| tls::server(certificate, newest_only)).transpose()?;
        let (orders, waiting) = mpsc::channel(ORDERS_WAITING_MAX);
        let setup = Setup {
            server,
            listeners,
            tls,
            balancers: config.balancers.clone(),
            connections: config.connections,
            source_connections: config.source_connections,
            orders: waiting,
            published: Arc::clone(&published),
        };
        let ended = spawn("relay-streams".to_owned(), move || streams::run(setup))?;
        Ok(Self { orders: Orders::Streams(orders), published, ended })
    }

    fn order(&self, order: Order) {
        let is_taken = match &self.orders {
            Orders::Datagrams(orders, waker) => {
                let is_taken = orders.try_send(order).is_ok();
                waker.wake();
                is_taken
            }
            Orders::Streams(orders) => orders.try_send(order).is_ok(),
        };
        if !is_taken {
            tracing::warn!("A thread does not take orders");
        }
    }
}

/// What a thread says when it ends: nothing when it was told to.
fn spawn(
    name: String,
    body: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<oneshot::Receiver<Option<String>>, StartError> {
    let (tell, ended) = oneshot::channel();
    let run = move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        let reason = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("waiting for sockets failed: {error}")),
            Err(_) => Some("a thread panicked".to_owned()),
        };
        // Nobody listens when the process ends.
        let _ = tell.send(reason);
    };
    std::thread::Builder::new().name(name).spawn(run).map_err(StartError::Thread)?;
    Ok(ended)
}

fn shown(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// By thread, then by address.
type Datagrams = Vec<Vec<Socket>>;

/// All or none. A port that the OS chose for UDP may be somebody's TCP port: then it chooses again.
fn bind_listeners(config: &Config) -> Result<(Listeners, Datagrams, Vec<Listener>), StartError> {
    let mut attempts = 1;
    loop {
        let (mut listeners, sockets) = bind_datagram_listeners(config)?;
        match bind_stream_listeners(config, &mut listeners) {
            Ok(streams) => return Ok((listeners, sockets, streams)),
            Err(StartError::Port { source, .. })
                if config.port == 0 && source.kind() == io::ErrorKind::AddrInUse && attempts < PORT_ATTEMPTS =>
            {
                attempts += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// One socket for each address and thread; those of an address share its port. By thread.
fn bind_datagram_listeners(config: &Config) -> Result<(Listeners, Datagrams), StartError> {
    let mut listeners = Listeners::default();
    if !config.udp {
        return Ok((listeners, Vec::new()));
    }
    let buffer = Some(config.socket_buffer_bytes);
    let options = Options { recv_buffer: buffer, send_buffer: buffer, reuse_port: true, gro: false };
    let mut by_thread = (0..config.threads).map(|_| Vec::new()).collect::<Vec<_>>();
    for ip in &config.listen {
        let mut address = SocketAddr::new(*ip, config.port);
        for sockets in &mut by_thread {
            let at = |source| StartError::Port { port: "UDP", address, key: PORT, source };
            let socket = Socket::bind(address, options).map_err(at)?;
            // The first one of port 0 was given a port, which the others share.
            address = socket.local_addr().map_err(at)?;
            sockets.push(socket);
        }
        listeners.udp.push(address);
    }
    Ok((listeners, by_thread))
}

fn bind_stream_listeners(config: &Config, listeners: &mut Listeners) -> Result<Vec<Listener>, StartError> {
    let streams = &config.streams;
    let mut bound = Vec::new();
    let mut bind = |address: SocketAddr, key: &'static str, found: &mut Vec<SocketAddr>| {
        let for_balancers = key == PROXY_PORT;
        let at = |source| StartError::Port { port: "TCP", address, key, source };
        let listener = Listener::bind(address, for_balancers).map_err(at)?;
        found.push(listener.local_addr().map_err(at)?);
        bound.push(listener);
        Ok::<(), StartError>(())
    };
    for (at, ip) in config.listen.iter().enumerate().filter(|_| streams.tcp) {
        // With port 0 the one that UDP was given, since clients are told one port for both.
        let port = listeners.udp.get(at).map_or(config.port, SocketAddr::port);
        bind(SocketAddr::new(*ip, port), PORT, &mut listeners.tcp)?;
        if let Some(tls) = streams.tls.as_ref().filter(|tls| tls.port != config.port || tls.port == 0) {
            bind(SocketAddr::new(*ip, tls.port), TLS_PORT, &mut listeners.tls)?;
        }
        if let Some(port) = streams.proxy_port {
            bind(SocketAddr::new(*ip, port), PROXY_PORT, &mut listeners.proxy)?;
        }
    }
    Ok(bound)
}

fn seed() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut seed).map_err(|error| StartError::Random(error.to_string()))?;
    Ok(seed)
}

/// One line a minute about guessed passwords, however many there were.
#[derive(Debug)]
struct Summary {
    said_at: Instant,
    said: u64,
}

impl Summary {
    fn new() -> Self {
        Self { said_at: Instant::now(), said: 0 }
    }

    fn say(&mut self, threads: &[Thread]) {
        if self.said_at.elapsed() < SUMMARY_INTERVAL {
            return;
        }
        self.said_at = Instant::now();
        let failures = threads.iter().map(|thread| thread.published.credential_failures()).sum::<u64>();
        if failures > self.said {
            tracing::warn!(failures = failures - self.said, "Requests with wrong credentials in the last minute");
            self.said = failures;
        }
    }
}
