//! What the connections of the stream thread share: the server, the outbox of each connection, the relay sockets. All of
//! it lives on one thread, and no borrow lasts over an await.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use relay_core::{
    ANSWER_BYTES_MAX, Action, AllocationId, Client, ConnectionId, Family, HEADROOM_BYTES, Link, Server,
    TAILROOM_BYTES,
};
use slab::Slab;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::outbox::Outbox;
use super::peers::{self, PeerLink};
use crate::metrics::{Published, ShellCounters};
use crate::relays;
use crate::worker::{Order, SLOT_BYTES, bind_pending, unix_s};

/// Datagrams read from one relay socket before others have their turn.
const READS_OF_ONE: usize = 16;

pub(super) type Handle = Rc<RefCell<Exchange>>;

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) server: Server,
    /// By number of the connection.
    outboxes: Slab<Rc<Outbox>>,
    /// By the token of allocation and family.
    relays: HashMap<u64, RelaySocket>,
    /// Connections with peers, of TCP allocations.
    pub(super) links: HashMap<ConnectionId, PeerLink>,
    buffer: Box<[u8]>,
    pub(super) counters: ShellCounters,
    published: Arc<Published>,
}

#[derive(Debug)]
struct RelaySocket {
    /// None for a TCP allocation, whose reader accepts connections.
    socket: Option<Rc<UdpSocket>>,
    reader: AbortHandle,
}

impl Drop for RelaySocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The client does not read its answers; nothing more can be said to it.
#[derive(Debug)]
pub(super) struct Unread;

impl Exchange {
    pub(super) fn new(server: Server, published: Arc<Published>) -> Handle {
        Rc::new(RefCell::new(Self {
            server,
            outboxes: Slab::new(),
            relays: HashMap::new(),
            links: HashMap::new(),
            buffer: vec![0; SLOT_BYTES].into(),
            counters: ShellCounters::default(),
            published,
        }))
    }

    /// A number for a new connection.
    pub(super) fn open(&mut self) -> (u32, Rc<Outbox>) {
        let outbox = Rc::new(Outbox::default());
        let number = self.outboxes.insert(Rc::clone(&outbox));
        self.counters.stream_connections = self.outboxes.len() as u64;
        // Far fewer connections than 32 bits are allowed.
        (number as u32, outbox)
    }

    pub(super) fn close(&mut self, client: &Client) {
        self.server.disconnect(client);
        self.close_sockets();
        if let Link::Stream { connection } = client.link {
            self.outboxes.try_remove(connection as usize);
        }
        self.counters.stream_connections = self.outboxes.len() as u64;
    }

    pub(super) fn has_allocation(&self, client: &Client) -> bool {
        self.server.has_allocation(client)
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.server.handle_timeout(now);
        self.close_sockets();
        self.published.publish(&self.server, &self.counters);
        self.server.set_wall_clock(now, unix_s());
    }

    /// Whether to stop.
    pub(super) fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Update(settings) => {
                if let Err(error) = self.server.update(settings) {
                    tracing::error!(%error, "Settings are not taken, the old ones stay");
                }
            }
            // Streams are not served by the clock.
            Order::Gather(_) => {}
            Order::Drain => self.server.drain(),
            Order::Stop => return true,
        }
        false
    }

    fn outbox(&self, client: &Client) -> Option<&Outbox> {
        match client.link {
            Link::Stream { connection } => self.outboxes.get(connection as usize).map(|outbox| &**outbox),
            Link::Udp { .. } => None,
        }
    }

    fn close_sockets(&mut self) {
        while let Some((id, family)) = self.server.poll_closed() {
            self.relays.remove(&relays::token_of(id, family));
            self.links.retain(|_, link| {
                let stays = link.allocation != id;
                if !stays {
                    link.ended.notify_one();
                }
                stays
            });
        }
    }

    /// Whether it could be queued.
    pub(super) fn answer(&self, client: &Client, message: &[u8]) -> bool {
        self.outbox(client).is_some_and(|outbox| outbox.push_answer(message))
    }

    /// Until the client claims it, which has to be soon.
    pub(super) fn keep(&mut self, handle: &Handle, id: ConnectionId, allocation: AllocationId, stream: TcpStream) {
        let link = PeerLink { allocation, waiting: Some(stream), ended: Rc::new(Notify::new()) };
        self.links.insert(id, link);
        tokio::task::spawn_local(peers::expire(Rc::clone(handle), id));
    }

    pub(super) fn claim(&mut self, id: ConnectionId) -> Option<(TcpStream, Rc<Notify>)> {
        let link = self.links.get_mut(&id)?;
        Some((link.waiting.take()?, Rc::clone(&link.ended)))
    }

    pub(super) fn unlink(&mut self, id: ConnectionId) {
        self.links.remove(&id);
        self.server.close_connection(id);
    }

    pub(super) fn bytes_per_s(&self) -> u64 {
        self.server.settings().limits.allocation_bytes_per_s
    }

    fn accept_peers(&mut self, handle: &Handle, id: AllocationId, family: Family, listener: TcpListener) {
        let reader = tokio::task::spawn_local(peers::accept(Rc::clone(handle), id, listener)).abort_handle();
        self.relays.insert(relays::token_of(id, family), RelaySocket { socket: None, reader });
    }

    fn listen(
        &mut self,
        handle: &Handle,
        id: AllocationId,
        family: Family,
        socket: std::net::UdpSocket,
    ) -> io::Result<()> {
        let socket = Rc::new(UdpSocket::from_std(socket)?);
        let reader = tokio::task::spawn_local(hear(Rc::clone(handle), id, Rc::clone(&socket))).abort_handle();
        self.relays.insert(relays::token_of(id, family), RelaySocket { socket: Some(socket), reader });
        Ok(())
    }

    /// Whether the socket is empty now.
    fn take_from_peers(&mut self, id: AllocationId, socket: &UdpSocket) -> bool {
        for _ in 0..READS_OF_ONE {
            let room = HEADROOM_BYTES..SLOT_BYTES - TAILROOM_BYTES;
            let (len, peer) = match socket.try_recv_from(&mut self.buffer[room]) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                // An ICMP error that an earlier datagram to a peer brought back.
                Err(_) => continue,
            };
            self.counters.relay_reads += 1;
            let Some((client, bytes)) = self.server.handle_peer(Instant::now(), id, peer, &mut self.buffer, len)
            else {
                continue;
            };
            let fits = self.outbox(&client).is_some_and(|outbox| outbox.push_media(&self.buffer[bytes]));
            self.counters.stream_dropped += u64::from(!fits);
        }
        false
    }
}

/// One message of a client. Gives the connection with a peer that this one is joined to from now on, if any.
pub(super) fn handle_message(
    exchange: &Handle,
    now: Instant,
    client: Client,
    message: &[u8],
) -> Result<Option<ConnectionId>, Unread> {
    let mut borrowed = exchange.borrow_mut();
    let this = &mut *borrowed;
    let mut out = [0; ANSWER_BYTES_MAX];
    let mut action = this.server.handle_client(now, client, message, &mut out);
    let (mut sockets, mut listeners, mut joined) = (Vec::new(), Vec::new(), None);
    while let Action::Bind(pending) = action {
        if pending.is_tcp() {
            let bound = peers::listen(pending.addresses());
            action = this.server.complete(now, pending, bound.is_ok(), &mut out);
            listeners = bound.unwrap_or_default();
        } else {
            (action, sockets) = bind_pending(&mut this.server, now, pending, &mut out);
        }
    }
    let answer = match action {
        Action::ToPeer { allocation, family, peer, payload } => {
            if let Some(relay) = this.relays.get(&relays::token_of(allocation, family))
                && let Some(socket) = &relay.socket
            {
                this.counters.count_send(&socket.try_send_to(&message[payload], peer));
            }
            0
        }
        Action::Nothing | Action::Bind(_) => 0,
        Action::Answer(len) => len,
        Action::Connect(pending) => {
            tokio::task::spawn_local(peers::open(Rc::clone(exchange), pending));
            0
        }
        Action::Join { connection, answer } => {
            joined = Some(connection);
            answer
        }
        Action::Created { allocation, answer } => {
            for (family, socket) in sockets {
                if let Err(error) = this.listen(exchange, allocation, family, socket) {
                    tracing::warn!(%error, "Relay socket cannot be polled, its peers stay unheard");
                }
            }
            for (family, listener) in listeners {
                this.accept_peers(exchange, allocation, family, listener);
            }
            answer
        }
    };
    this.close_sockets();
    let fits = answer == 0 || this.answer(&client, &out[..answer]);
    if fits { Ok(joined) } else { Err(Unread) }
}

/// Reads one relay socket until its allocation ends.
async fn hear(exchange: Handle, id: AllocationId, socket: Rc<UdpSocket>) {
    while socket.readable().await.is_ok() {
        if !exchange.borrow_mut().take_from_peers(id, &socket) {
            tokio::task::yield_now().await;
        }
    }
}
