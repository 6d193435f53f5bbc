//! Clients over TCP and TLS: a thread with a tokio runtime and a [`Server`] of its own, which shares ports, quotas and
//! limits with those of the UDP threads. Relaying is to UDP all the same, so a client that UDP cannot reach pays for TCP
//! on its own side only.

mod connection;
mod exchange;
mod outbox;
mod peers;
mod places;
mod proxy;
mod rewound;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_core::{AddressRange, Server};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;

use crate::metrics::Published;
use crate::worker::Order;
use connection::{Door, canonical};
use exchange::Exchange;
use places::Places;

/// Connections that the kernel keeps until they are accepted: everybody of a large room comes back at once.
const BACKLOG: u32 = 1_024;
/// The kernel's own queue to a client. More would only be older sound.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;
const TICK_INTERVAL: Duration = Duration::from_millis(200);
/// Rest after a failed accept (most often: out of file descriptors), so that the loop cannot spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What the stream thread begins with.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) server: Server,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) balancers: Vec<AddressRange>,
    pub(crate) connections: usize,
    pub(crate) source_connections: usize,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) published: Arc<Published>,
}

#[derive(Debug)]
pub(crate) struct Listener {
    socket: std::net::TcpListener,
    /// Only balancers connect here, and strangers are sent away.
    for_balancers: bool,
}

impl Listener {
    pub(crate) fn bind(address: SocketAddr, for_balancers: bool) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
        socket.bind(address)?;
        Ok(Self { socket: socket.listen(BACKLOG)?.into_std()?, for_balancers })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// Until told to stop.
pub(crate) fn run(setup: Setup) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(setup))
}

async fn serve(mut setup: Setup) -> io::Result<()> {
    let exchange = Exchange::new(setup.server, setup.published);
    let places = Places::new(setup.connections, setup.source_connections);
    let door = Rc::new(Door { exchange: Rc::clone(&exchange), tls: setup.tls, balancers: setup.balancers });
    for listener in setup.listeners {
        let socket = TcpListener::from_std(listener.socket)?;
        tokio::task::spawn_local(accept(socket, listener.for_balancers, places.clone(), Rc::clone(&door)));
    }
    let mut ticks = tokio::time::interval(TICK_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => exchange.borrow_mut().tick(Instant::now()),
            order = setup.orders.recv() => {
                if order.is_none_or(|order| exchange.borrow_mut().obey(order)) {
                    return Ok(());
                }
            }
        }
    }
}

async fn accept(listener: TcpListener, for_balancers: bool, places: Places, door: Rc<Door>) {
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok((stream, remote)) => (stream, canonical(remote)),
            Err(error) => {
                tracing::warn!(%error, "Could not accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        let is_balancer = door.is_balancer(remote);
        let place = if for_balancers && !is_balancer { None } else { places.take(remote.ip(), is_balancer) };
        let mut exchange = door.exchange.borrow_mut();
        exchange.counters.stream_accepted += 1;
        // Closed without a word: an answer would cost what the limit is there to save.
        let Some(place) = place else {
            exchange.counters.stream_refused += 1;
            continue;
        };
        drop(exchange);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "Could not switch off Nagle's algorithm");
        }
        tokio::task::spawn_local(connection::serve(Rc::clone(&door), stream, remote, place));
    }
}

/// Where balancers are looked for when a port is set apart for them and nobody says who they are: this host and private
/// networks.
pub(crate) fn private_networks() -> Vec<AddressRange> {
    let mut ranges = [[10, 0, 0, 0], [172, 16, 0, 0], [192, 168, 0, 0], [127, 0, 0, 0]]
        .into_iter()
        .zip([8, 12, 16, 8])
        .map(|(network, prefix)| AddressRange::v4(network, prefix))
        .collect::<Vec<_>>();
    ranges.push(AddressRange::v6([0xFC00, 0, 0, 0, 0, 0, 0, 0], 7));
    ranges.push(AddressRange::single(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16])));
    ranges
}
