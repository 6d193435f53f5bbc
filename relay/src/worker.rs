//! One thread: its listeners (SO_REUSEPORT pins a client's address to a thread), its relay sockets, its
//! [`relay_core::Server`]. One turn does, in this order and each within a bound:
//!
//! 1. takes one batch from each listener through the server; what goes to peers is sent at once, each from its own socket,
//! 2. reads the relay sockets that have something,
//! 3. hands what goes to clients to the kernel, one call for each listener,
//! 4. lets the server act on its deadlines and closes the sockets it let go,
//! 5. carries out orders, and publishes counters some times a second.
//!
//! Between two turns it waits for the next datagram or, where many come, for the next beat ([`Gathering`]).
//!
//! Nothing is allocated, locked or logged for a packet.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant, SystemTime};

use relay_core::{
    ANSWER_BYTES_MAX, Action, Client, Family, HEADROOM_BYTES, Link, Pending, Server, Settings, TAILROOM_BYTES,
};
use udp::{Poller, RecvBatch, SEGMENTS_MAX, SendBatch, Socket, Transmit, Waker};

use crate::metrics::{Published, ShellCounters};
use crate::relays::{self, Relays};
use gathering::Gathering;

/// Datagrams taken from a listener in one system call, and messages to clients that wait for one.
const BATCH: usize = 64;
/// A jumbo frame, far above any audio packet.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 9_000;
/// One message to a client: what a peer sent, with room for the header around it.
pub(crate) const SLOT_BYTES: usize = HEADROOM_BYTES + DATAGRAM_BYTES_MAX + TAILROOM_BYTES;
/// Of a relay socket that was ready in the turn before as well: it has a queue, which leaves as one. Any other one is read
/// once, for nearly always that was all, and to be told so costs as much as a packet's reading; the poll tells it for less.
const READS_OF_A_QUEUE: usize = 16;
const PUBLISH_INTERVAL: Duration = Duration::from_millis(200);
/// Longest wait, so that counters and the wall clock of a quiet thread are kept as well.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Orders that may wait for a thread: reloads and the drain, by hand.
pub(crate) const ORDERS_WAITING_MAX: usize = 16;

const LISTENER_BIT: u64 = 1 << 63;

/// What a thread is told.
#[derive(Debug)]
pub enum Order {
    /// Take these settings.
    Update(Arc<Settings>),
    /// The time between two beats from now on, zero for none; for threads of datagrams.
    Gather(Duration),
    Drain,
    Stop,
}

/// One serving thread's work. [`Relay`](crate::Relay) starts some of them; whoever wants a thread of its own can drive one.
pub struct Worker {
    server: Server,
    listeners: Vec<Socket>,
    relays: Relays,
    poller: Poller,
    received: RecvBatch,
    sending: SendBatch,
    out: Outgoing,
    orders: Receiver<Order>,
    gathering: Gathering,
    /// More may wait than one turn takes.
    has_more: bool,
    turns: u32,
    counters: ShellCounters,
    published: Arc<Published>,
    published_at: Instant,
}

/// Messages that wait for their listener's `sendmmsg`.
struct Outgoing {
    slots: Box<[u8]>,
    messages: Vec<Message>,
}

/// A message to a client, or a run of them of one size, of which the last may be shorter.
struct Message {
    listener: u16,
    to: SocketAddr,
    bytes: Range<usize>,
    each: u16,
    count: usize,
}

impl Worker {
    /// Serves these sockets; nothing is read before the first turn. `gather` is the time between two beats, zero for none.
    pub fn new(
        server: Server,
        listeners: Vec<Socket>,
        orders: Receiver<Order>,
        gather: Duration,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let poller = Poller::new()?;
        for (at, listener) in listeners.iter().enumerate() {
            poller.add(listener, LISTENER_BIT | at as u64)?;
        }
        let out = Outgoing { slots: vec![0; BATCH * SLOT_BYTES].into(), messages: Vec::with_capacity(BATCH) };
        Ok(Self {
            server,
            listeners,
            relays: Relays::default(),
            poller,
            received: RecvBatch::new(BATCH, DATAGRAM_BYTES_MAX),
            sending: SendBatch::new(BATCH),
            out,
            orders,
            gathering: Gathering::new(gather, now),
            has_more: false,
            turns: 0,
            counters: ShellCounters::default(),
            published: Arc::default(),
            published_at: now,
        })
    }

    pub(crate) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }

    pub(crate) fn waker(&self) -> Waker {
        self.poller.waker()
    }

    /// Until told to stop, or until the poller fails.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while !self.turn()? {}
        Ok(())
    }

    /// Waits for something to do and does it. True when told to stop.
    pub fn turn(&mut self) -> io::Result<bool> {
        let timeout = self.wait_time();
        let ready = self.poller.wait(Some(timeout))?;
        let now = Instant::now();
        self.gathering.begin(now);
        self.turns = self.turns.wrapping_add(1);
        let tokens = ready.tokens();
        self.has_more = ready.is_full();
        for token in tokens.iter().filter(|token| **token & LISTENER_BIT != 0) {
            self.serve_listener(now, (token & !LISTENER_BIT) as u16);
        }
        for token in tokens.iter().filter(|token| **token & LISTENER_BIT == 0) {
            self.serve_relay(now, *token);
        }
        self.flush();
        self.server.handle_timeout(now);
        self.close_sockets();
        if ready.is_woken() && self.obey() {
            return Ok(true);
        }
        if now.duration_since(self.published_at) >= PUBLISH_INTERVAL {
            self.publish(now);
        }
        Ok(false)
    }

    /// Sleeps until the next beat, if there are any. Answers how long to wait for something to come, then.
    fn wait_time(&self) -> Duration {
        let now = Instant::now();
        let pause = self.gathering.pause(now);
        if !pause.is_zero() && !self.has_more {
            std::thread::sleep(pause);
        }
        let until = self.server.poll_timeout().map(|at| at.saturating_duration_since(now));
        until.map_or(WAIT_MAX, |until| until.min(WAIT_MAX))
    }

    fn serve_listener(&mut self, now: Instant, listener: u16) {
        let Self { server, listeners, relays, received, out, counters, poller, gathering, has_more, .. } = self;
        counters.receive_calls += 1;
        let Ok(count) = received.recv(&listeners[usize::from(listener)]) else {
            counters.receive_errors += 1;
            return;
        };
        gathering.count(count);
        *has_more |= count == BATCH;
        for datagram in received.iter_mut() {
            let client = Client { address: datagram.remote, link: Link::Udp { listener } };
            // A batch has as many slots as datagrams, so there is one for each answer.
            let slot = out.next_slot();
            let buffer = &mut out.slots[slot..slot + ANSWER_BYTES_MAX];
            let mut action = server.handle_client(now, client, datagram.data, buffer);
            let mut sockets = Vec::new();
            while let Action::Bind(pending) = action {
                (action, sockets) = bind_pending(server, now, pending, buffer);
            }
            match action {
                Action::ToPeer { allocation, family, peer, payload } => {
                    if let Some(socket) = relays.get(allocation, family) {
                        counters.count_send(&socket.send_to(&datagram.data[payload], peer));
                    }
                }
                // Connections are for clients on streams.
                Action::Nothing | Action::Bind(_) | Action::Connect(_) | Action::Join { .. } => {}
                Action::Answer(len) => out.push(listener, client.address, slot..slot + len),
                Action::Created { allocation, answer } => {
                    for (family, socket) in &sockets {
                        if let Err(error) = poller.add(socket, relays::token_of(allocation, *family)) {
                            tracing::warn!(%error, "Relay socket cannot be polled, its peers stay unheard");
                        }
                    }
                    relays.insert(allocation, sockets);
                    out.push(listener, client.address, slot..slot + answer);
                }
            }
        }
        // Refresh to zero came with this batch; its socket must be gone before its place is used again.
        self.close_sockets();
        self.flush();
    }

    fn serve_relay(&mut self, now: Instant, token: u64) {
        let has_queue = self.relays.note_ready(token, self.turns);
        let reads = if has_queue { READS_OF_A_QUEUE } else { 1 };
        for _ in 0..reads {
            if self.out.messages.len() == BATCH {
                self.flush();
            }
            let Some((id, socket)) = self.relays.get_by_token(token) else { return };
            let slot = self.out.next_slot();
            let buffer = &mut self.out.slots[slot..slot + SLOT_BYTES];
            let room = HEADROOM_BYTES..SLOT_BYTES - TAILROOM_BYTES;
            let (len, peer) = match socket.recv_from(&mut buffer[room]) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An ICMP error that an earlier datagram to a peer brought back.
                Err(_) => continue,
            };
            self.counters.relay_reads += 1;
            self.gathering.count(1);
            let Some((client, bytes)) = self.server.handle_peer(now, id, peer, buffer, len) else { continue };
            if let Link::Udp { listener } = client.link {
                self.out.push(listener, client.address, slot + bytes.start..slot + bytes.end);
            }
        }
        self.has_more |= has_queue;
    }

    fn flush(&mut self) {
        let Self { listeners, sending, out, counters, .. } = self;
        let mut rest = &out.messages[..];
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|message| message.listener == first.listener).count();
            let (now, later) = rest.split_at(same);
            let datagrams = now.iter().map(|message| Transmit {
                to: message.to,
                payload: &out.slots[message.bytes.clone()],
                segment_size: (message.count > 1).then_some(message.each),
            });
            let report = sending.send(&listeners[usize::from(first.listener)], datagrams);
            counters.send_calls += report.syscalls as u64;
            counters.send_dropped += report.dropped as u64;
            rest = later;
        }
        out.messages.clear();
    }

    fn close_sockets(&mut self) {
        while let Some((id, family)) = self.server.poll_closed() {
            self.relays.close(id, family);
        }
    }

    /// Whether to stop.
    fn obey(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Update(settings)) => {
                    if let Err(error) = self.server.update(settings) {
                        tracing::error!(%error, "Settings are not taken, the old ones stay");
                    }
                }
                Ok(Order::Gather(interval)) => self.gathering.set_interval(interval),
                Ok(Order::Drain) => self.server.drain(),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => return false,
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        self.published_at = now;
        self.counters.receive_truncated = self.received.truncated();
        self.counters.gathers = self.gathering.is_on();
        self.published.publish(&self.server, &self.counters);
        self.server.set_wall_clock(now, unix_s());
    }
}

pub(crate) fn bind_pending(
    server: &mut Server,
    now: Instant,
    pending: Box<Pending>,
    buffer: &mut [u8],
) -> (Action, Vec<(Family, std::net::UdpSocket)>) {
    match relays::bind(pending.addresses()) {
        Ok(sockets) => (server.complete(now, pending, true, buffer), sockets),
        Err(error) => {
            tracing::debug!(%error, "Relay port cannot be bound");
            (server.complete(now, pending, false, buffer), Vec::new())
        }
    }
}

impl Outgoing {
    /// Of the next message; the caller has seen to it that there is room.
    fn next_slot(&self) -> usize {
        self.messages.len() * SLOT_BYTES
    }

    /// Behind the message before it, when it is for the same client and no longer: the kernel cuts such a run apart again
    /// (UDP_SEGMENT) for a fraction of what single datagrams cost.
    fn push(&mut self, listener: u16, to: SocketAddr, bytes: Range<usize>) {
        let slot_end = self.next_slot();
        if let Some(last) = self.messages.last_mut()
            && last.takes(listener, to, bytes.len())
            && last.bytes.end + bytes.len() <= slot_end
        {
            let end = last.bytes.end;
            last.bytes.end += bytes.len();
            last.count += 1;
            self.slots.copy_within(bytes, end);
            return;
        }
        // A slot is far shorter than 64 KiB.
        let each = bytes.len() as u16;
        self.messages.push(Message { listener, to, bytes, each, count: 1 });
    }
}

impl Message {
    fn takes(&self, listener: u16, to: SocketAddr, len: usize) -> bool {
        let is_even = self.bytes.len() == usize::from(self.each) * self.count;
        let same = self.listener == listener && self.to == to;
        same && is_even && (1..=usize::from(self.each)).contains(&len) && self.count < SEGMENTS_MAX
    }
}

/// Before 1970 nothing has expired.
pub(crate) fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("listeners", &self.listeners.len()).finish_non_exhaustive()
    }
}

mod gathering;
#[cfg(test)]
mod tests;
