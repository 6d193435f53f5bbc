//! Puts the parts together: sockets first, so that a port in use stops the start; then shards, the hub, the control and
//! admin ports, and the announcements.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use admin::Readiness;
use admin::failure::port_remedy;
use admin::server::{Limits as HttpLimits, Server};
use sfu_control::MediaAddress;
use sfu_core::{Limits, NodeConfig, ShardId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::accept;
use crate::advertise::receives;
use crate::announce::announce;
use crate::config::Config;
use crate::control::ControlPort;
use crate::hub::{Facts, Gauges, Hub, INPUTS_WAITING_MAX, Input, READY_DRAINING, READY_SHARDS, REPORTS_WAITING_MAX};
use crate::metrics::{self, ControlMeters};
use crate::placement;
use crate::shard::{self, Bound, Report, ShardHandle, Wiring, cores};
use crate::status::Status;

/// The end of a node takes at most this long, whatever its shards and links do; service managers kill after 10 s.
const END_TIME_MAX: Duration = Duration::from_secs(4);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("media port {address} cannot be bound: {source}; {}", port_remedy(source, "port", "listen"))]
    Media { address: SocketAddr, source: io::Error },
    #[error("ICE-TCP port {address} cannot be bound: {source}; {}", port_remedy(source, "port", "listen"))]
    IceTcp { address: SocketAddr, source: io::Error },
    /// `what` is the key as well.
    #[error("{what} port {address} cannot be bound: {source}; {}", port_remedy(source, what, what))]
    Tcp { what: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Shard(#[from] shard::StartError),
    #[error("no advertised address is received on {0}")]
    NothingAdvertised(IpAddr),
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    control_addr: SocketAddr,
    admin_addr: SocketAddr,
    media: Vec<MediaAddress>,
    inputs: mpsc::Sender<Input>,
    links: ControlPort,
    failed: oneshot::Receiver<String>,
    control: Server,
    admin: Server,
    tasks: JoinSet<()>,
}

/// Starts a node. Must be called inside a tokio runtime.
pub async fn start(config: Config) -> Result<Node, StartError> {
    let (listen, ports) = bind_media(&config)?;
    let (bound, listeners): (Vec<_>, Vec<_>) = ports.into_iter().unzip();
    let control_listener = bind_tcp("control", config.control).await?;
    let admin_listener = bind_tcp("admin", config.admin).await?;
    let control_addr = local(&control_listener, "control", config.control)?;
    let facts = Arc::new(facts(&config, listen, &bound, control_addr)?);
    if let Some(first) = bound.first() {
        shard::warn_of_small_buffers(&first.socket, config.socket_buffer_bytes);
    }

    let (reports, reported) = mpsc::channel(REPORTS_WAITING_MAX);
    let shards = spawn_shards(&config, bound, &reports)?;
    let published: Vec<_> = shards.iter().map(|shard| Arc::clone(&shard.published)).collect();
    let sockets = shards.iter().map(|shard| (shard.local_addr, Arc::clone(&shard.published))).collect();
    let doors: Vec<_> = shards.iter().map(ShardHandle::door).collect();
    let (gauges, meters) = (Arc::new(Gauges::default()), ControlMeters::default());
    let status = Arc::new(Status { facts: Arc::clone(&facts), gauges: Arc::clone(&gauges), shards: published });
    let readiness = Readiness::new(&[READY_SHARDS, READY_DRAINING]);
    let registry = Arc::new(metrics::registry(sockets, &meters));
    let admin_routes = admin::server::router(registry, readiness.clone(), Some(Arc::clone(&status).router()));

    let (inputs, waiting) = mpsc::channel(INPUTS_WAITING_MAX);
    let (tell_failed, failed) = oneshot::channel();
    let mut tasks = JoinSet::new();
    let limits = placement::Limits {
        peers: config.peers_max,
        room_peers: config.room_peers_max,
        room_share: config.room_share,
    };
    let hub = Hub::new(Arc::clone(&facts), gauges, meters.clone(), readiness, (shards, limits), tell_failed);
    tasks.spawn(hub.run(waiting, reported));
    for (listener, door) in listeners.into_iter().zip(doors) {
        if let Some(listener) = listener {
            tasks.spawn(accept::accept(listener, door, meters.tcp_refused.clone()));
        }
    }
    let token = Arc::new(config.control_token.clone());
    for target in config.announce {
        tasks.spawn(announce(target, Arc::clone(&token), Arc::clone(&status), meters.clone()));
    }
    let links = ControlPort::new(config.control_token, inputs.clone(), meters);
    let control_routes = links.clone().router();
    let at_control = |source| StartError::Tcp { what: "control", address: config.control, source };
    let at_admin = |source| StartError::Tcp { what: "admin", address: config.admin, source };
    let control = admin::server::serve_router(control_listener, control_routes, HttpLimits::default());
    let admin = admin::server::serve_router(admin_listener, admin_routes, HttpLimits::default());
    let (control, admin) = (control.map_err(at_control)?, admin.map_err(at_admin)?);
    let media = facts.media.clone();
    let admin_addr = admin.local_addr();
    tracing::info!(
        node = facts.node,
        control = facts.control_url,
        admin = %admin_addr,
        media = %shown(&media),
        fingerprint = facts.fingerprint.value,
        "Node is running"
    );
    Ok(Node { control_addr, admin_addr, media, inputs, links, failed, control, admin, tasks })
}

impl Node {
    #[must_use]
    pub fn control_addr(&self) -> SocketAddr {
        self.control_addr
    }

    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Every advertised address of every shard.
    #[must_use]
    pub fn media(&self) -> &[MediaAddress] {
        &self.media
    }

    /// Waits for a failure that the node cannot live with, and tells it.
    pub async fn failed(&mut self) -> String {
        match (&mut self.failed).await {
            Ok(reason) => reason,
            Err(_) => std::future::pending().await,
        }
    }

    /// Refuses joins, sends every peer away, and ends within 4 s.
    pub async fn end(mut self) {
        let ending = async {
            let (done, ended) = oneshot::channel();
            if self.inputs.send(Input::End { done }).await.is_ok() {
                let _ = ended.await;
            }
            tokio::join!(self.control.stop(), self.links.all_closed(), self.admin.stop());
        };
        if tokio::time::timeout(END_TIME_MAX, ending).await.is_err() {
            tracing::warn!("Ended without waiting for everything");
        }
        self.tasks.abort_all();
    }
}

fn bind_media(config: &Config) -> Result<(IpAddr, Vec<Ports>), StartError> {
    match config.listen {
        Some(listen) => Ok((listen, bind_shards(config, listen)?)),
        None => {
            let both = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            match bind_shards(config, both) {
                Err(StartError::Media { source, .. }) if !is_port_taken(&source) => {
                    tracing::info!(%source, "IPv6 is off on this machine, receiving media over IPv4 only");
                    let v4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                    Ok((v4, bind_shards(config, v4)?))
                }
                bound => Ok((both, bound?)),
            }
        }
    }
}

fn spawn_shards(
    config: &Config,
    bound: Vec<Bound>,
    reports: &mpsc::Sender<Report>,
) -> Result<Vec<ShardHandle>, StartError> {
    let cores = if config.pin { cores::available() } else { Vec::new() };
    let spawn = |((index, bound), bus)| {
        let core = cores.get(index % cores.len().max(1)).copied();
        let wiring = Wiring { bus, core, tuning: config.tuning };
        Ok(shard::spawn(index, bound, (node_config(config, index), wiring), reports.clone())?)
    };
    bound.into_iter().enumerate().zip(shard::mesh(usize::from(config.shards))).map(spawn).collect()
}

fn is_port_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

fn bind_shards(config: &Config, listen: IpAddr) -> Result<Vec<Ports>, StartError> {
    // Settings are checked: the last port is a port. 0 stays 0 for every shard.
    let port = |index: u16| if config.port == 0 { 0 } else { config.port + index };
    (0..config.shards).map(|index| bind_shard(config, SocketAddr::new(listen, port(index)))).collect()
}

/// Both transports have the same port. One that the OS chooses for UDP may be taken for TCP.
fn bind_shard(config: &Config, address: SocketAddr) -> Result<Ports, StartError> {
    let mut tries_left = PORT_TRIES_MAX;
    loop {
        let media = |source| StartError::Media { address, source };
        let sizes = (config.socket_buffer_bytes, config.gro);
        let bound = shard::bind(address.ip(), address.port(), sizes).map_err(media)?;
        if !config.ice_tcp {
            return Ok((bound, None));
        }
        tries_left -= 1;
        match accept::listen(bound.local_addr) {
            Ok(listener) => return Ok((bound, Some(listener))),
            Err(error) if is_port_taken(&error) && address.port() == 0 && tries_left > 0 => {}
            Err(source) => {
                return Err(StartError::IceTcp { address: bound.local_addr, source });
            }
        }
    }
}

/// A shard's UDP socket, and its TCP listener unless that is switched off.
type Ports = (Bound, Option<TcpListener>);

const PORT_TRIES_MAX: usize = 16;

async fn bind_tcp(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Tcp { what, address, source })
}

fn local(listener: &TcpListener, what: &'static str, address: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Tcp { what, address, source })
}

fn facts(config: &Config, listen: IpAddr, bound: &[Bound], control: SocketAddr) -> Result<Facts, StartError> {
    // Only without IPv6 does a configured address fall away here: the rest was checked with the settings.
    let is_received = |address: &&IpAddr| !listen.is_unspecified() || receives(listen, **address);
    let advertise: Vec<_> = config.advertise.iter().filter(is_received).copied().collect();
    let Some(first) = advertise.first().copied() else { return Err(StartError::NothingAdvertised(listen)) };
    let ports = bound.iter().map(|bound| bound.local_addr.port());
    let media = ports.flat_map(|port| advertise.iter().map(move |address| MediaAddress { address: *address, port }));
    let reachable = if control.ip().is_unspecified() { SocketAddr::new(first, control.port()) } else { control };
    Ok(Facts {
        node: config.node_id.clone().unwrap_or_else(|| default_node_id(control.port())),
        version: env!("CARGO_PKG_VERSION"),
        fingerprint: config.identity.fingerprint.clone(),
        media: media.collect(),
        control_url: config.control_url.clone().unwrap_or_else(|| format!("ws://{reachable}/v1/control")),
        advertise,
        ice_tcp: config.ice_tcp,
        shed_at: config.shed_at,
    })
}

fn default_node_id(control_port: u16) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}:{control_port}", if host.is_empty() { "node" } else { host })
}

fn node_config(config: &Config, shard: usize) -> NodeConfig {
    NodeConfig {
        // Settings are checked: there are not more.
        shard: ShardId::new(shard).unwrap_or(ShardId::FIRST),
        certificate: config.identity.certificate.clone(),
        seed: rand::random(),
        wall_clock_at_start: SystemTime::now(),
        limits: Limits {
            peers: config.peers_max,
            peers_per_room: config.room_peers_max,
            speech_slots: config.speech_slots,
            program_slots: config.program_slots,
            ..Limits::default()
        },
    }
}

fn shown(media: &[MediaAddress]) -> String {
    let addresses: Vec<_> = media.iter().map(|m| SocketAddr::new(m.address, m.port).to_string()).collect();
    addresses.join(" ")
}
