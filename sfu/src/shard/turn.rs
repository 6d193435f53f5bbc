//! The loop of a shard. One turn does, in this order and each within a bound:
//!
//! 1. hands what waits for sending to the kernel, unless it may still be held for others to the same listener,
//! 2. takes one batch of datagrams through the core, and one read of each TCP connection that has something,
//! 3. lets the core act on its deadlines,
//! 4. takes some items of other shards,
//! 5. hands over what came of all this, so that no audio waits for a join,
//! 6. for a [`Portion`] of its time, carries out commands and exchanges work with the thread that does its handshakes,
//! 7. passes events on, and publishes counters some times a second.
//!
//! What other shards are to have goes to them before its own listeners get anything, so that all work at the same time.
//! It waits only when a turn has left nothing to do: for whatever comes first or, when much comes, for the next beat of
//! [`Gathering`], so that it takes several datagrams at once. The clock is read once after waiting, for the whole turn, and
//! once before, for the busy ratio; a portion reads it for itself.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use sfu_core::{DropReason, Event, Node, NodeConfig, NodeError, Path, Transport};
use tokio::sync::mpsc;
use udp::{Poller, Ready, RecvBatch, SendBatch, Socket, Transmit, Waker};

use super::backlog::Backlog;
use super::bus::BusEnd;
use super::gathering::Gathering;
use super::handshakes::Handshakes;
use super::portion::{Left, Portion};
use super::streams::Streams;
use super::{News, Order, Report, StartError, Tuning, Wiring};
use crate::metrics::{Published, Reading, ShellCounters};

/// Datagrams taken in one system call; bounds how long outputs and deadlines wait.
const RECEIVE_BATCH: usize = 64;
/// Largest datagram taken: a jumbo frame, far above any audio packet; longer ones are cut by the kernel and dropped.
const DATAGRAM_BYTES_MAX: usize = 9_000;
/// The same where the kernel hands over runs of datagrams as one.
const RUN_BYTES_MAX: usize = 65_535;
/// Datagrams sent in one system call.
const SEND_BATCH: usize = 256;
/// Datagrams that may wait before they are sent in the middle of a batch: a large room turns 64 datagrams into tens of
/// thousands. The more wait, the more go to the same listener and leave as one; to seal so many takes about half a
/// millisecond. Far below [`sfu_core::Limits::transmits`], by more than a room has listeners.
const FLUSH_AT: usize = 4_096;
/// Items for other shards that may wait while a batch goes on: some of them should begin with their part of the work.
const SHARE_AT: usize = 32;
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// Longest wait, so that counters of a quiet shard are published too.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(500);
/// Wait while events cannot be passed on because the control plane is behind.
const WAIT_WITH_EVENTS: Duration = Duration::from_millis(10);
/// Weight of the newest interval in the busy ratio: with 100 ms intervals, about the last second counts.
const BUSY_WEIGHT: f64 = 0.2;

const SOCKET_TOKEN: u64 = 0;

pub(super) struct Shard {
    index: usize,
    config: NodeConfig,
    node: Node,
    socket: Socket,
    poller: Poller,
    received: RecvBatch,
    sending: SendBatch,
    backlog: Backlog,
    handshakes: Handshakes,
    streams: Streams,
    /// What the poller found last.
    ready: Ready,
    bus: BusEnd,
    orders: Receiver<Order>,
    reports: mpsc::Sender<Report>,
    counters: ShellCounters,
    published: Arc<Published>,
    pace: Pace,
    gathering: Gathering,
    tuning: Tuning,
    /// Its thread has the priority that was asked for.
    pub(super) is_favoured: bool,
    /// Since when the oldest packet waits for others to its listener.
    held_since: Option<Instant>,
    /// When the oldest datagram came whose packets wait to be sent.
    oldest: Option<Instant>,
    /// Not yet passed on.
    news: Option<News>,
    events_lost: u64,
}

/// When counters were published, and how much of the time since was work.
struct Pace {
    published_at: Instant,
    waited: Duration,
}

impl Shard {
    pub(super) fn new(
        index: usize,
        socket: Socket,
        (config, wiring): (NodeConfig, Wiring),
        orders: Receiver<Order>,
        reports: mpsc::Sender<Report>,
        published: Arc<Published>,
    ) -> Result<Self, StartError> {
        let now = Instant::now();
        let gro = socket.has_gro();
        let poller = Poller::new().map_err(StartError::Poll)?;
        poller.add(&socket, SOCKET_TOKEN).map_err(StartError::Poll)?;
        let handshakes = Handshakes::spawn(index, poller.waker()).map_err(StartError::Handshakes)?;
        let Wiring { bus, tuning, .. } = wiring;
        bus.connect(poller.waker());
        Ok(Self {
            index,
            handshakes,
            streams: Streams::new(now),
            ready: Ready::default(),
            bus,
            node: Node::new(config.clone(), now)?,
            config,
            socket,
            poller,
            received: RecvBatch::new(RECEIVE_BATCH, if gro { RUN_BYTES_MAX } else { DATAGRAM_BYTES_MAX }),
            sending: SendBatch::new(SEND_BATCH),
            backlog: Backlog::new(now),
            orders,
            reports,
            counters: ShellCounters::default(),
            published,
            pace: Pace { published_at: now, waited: Duration::ZERO },
            // Who pays a core for less delay gets it.
            gathering: Gathering::new(if tuning.busy_poll.is_zero() { tuning.gather } else { Duration::ZERO }),
            tuning,
            is_favoured: false,
            held_since: None,
            oldest: None,
            news: None,
            events_lost: 0,
        })
    }

    pub(super) fn waker(&self) -> Waker {
        self.poller.waker()
    }

    /// Until told to stop, or until the poller fails.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut is_readable = true;
        let mut now = Instant::now();
        loop {
            let (has_more, stop) = self.turn(now, is_readable);
            if stop {
                return Ok(());
            }
            let before = Instant::now();
            let timeout = if has_more { Duration::ZERO } else { self.wait_time(before) };
            match self.gathering.pause(now, before) {
                Some(pause) => {
                    self.sleep(pause.min(timeout))?;
                    is_readable = true;
                }
                None => {
                    self.ready = self.wait(timeout)?;
                    is_readable = self.ready.contains(SOCKET_TOKEN);
                }
            }
            now = Instant::now();
            self.pace.waited += now - before;
        }
    }

    /// A new core in place of one that failed. Its peers are gone; the port stays.
    pub(super) fn restart(&mut self) -> Result<(), NodeError> {
        tracing::error!(shard = self.index, "Core failed and begins anew, its peers are gone");
        // A new seed: ids and SSRCs of before must not come again.
        self.config.seed = rand::random();
        self.config.wall_clock_at_start = SystemTime::now();
        self.node = Node::new(self.config.clone(), Instant::now())?;
        self.streams.clear();
        self.counters.restarts += 1;
        self.events_lost = 0;
        self.news = Some(News::Restarted);
        Ok(())
    }

    /// Whether there is more to do at once, and whether to end.
    fn turn(&mut self, now: Instant, is_readable: bool) -> (bool, bool) {
        self.counters.turns += 1;
        self.send_what_is_due(now);
        let batch_was_full = is_readable && self.receive(now);
        self.streams.serve(now, &self.ready, (&self.poller, &mut self.node));
        if self.node.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.node.handle_timeout(now);
        }
        let items_left = self.take_items(now);
        self.send_what_is_due(now);
        self.streams.flush(&self.poller, &mut self.node);
        let portion = Portion::begin(&Instant::now);
        let (orders_left, stop) = self.carry_out(now, &portion);
        let handshakes_left = self.handshakes.exchange(&mut self.node, now, &portion);
        self.send_what_is_due(now);
        self.streams.flush(&self.poller, &mut self.node);
        self.pass_events();
        self.publish(now, stop);
        (batch_was_full || items_left || orders_left || handshakes_left, stop)
    }

    /// Whether the batch was full, so that more may be waiting.
    fn receive(&mut self, now: Instant) -> bool {
        self.counters.receive_calls += 1;
        let Ok(count) = self.received.recv(&self.socket) else {
            self.counters.receive_errors += 1;
            return false;
        };
        let (received_at, mut now, mut newest, mut voices) = (now, now, None, 0);
        for datagram in self.received.iter_mut() {
            let path = Path::udp(datagram.remote);
            newest = datagram.arrived;
            let is_late = self.backlog.is_late(newest, now);
            if self.oldest.is_none() {
                self.oldest = now.checked_sub(self.backlog.waited(newest, now));
            }
            for bytes in datagram.into_segments() {
                let is_audio = is_audio(bytes);
                voices += usize::from(is_audio);
                if is_late && is_audio {
                    self.counters.receive_late += 1;
                } else {
                    self.node.handle_datagram(now, path, bytes);
                }
            }
            let is_much = self.node.transmit_count() >= FLUSH_AT;
            if is_much || self.node.bus_transmit_count() >= SHARE_AT {
                share(&mut self.node, &mut self.bus, &mut self.counters, now);
            }
            if is_much {
                let sinks = (&mut self.sending, &self.socket, &mut self.streams);
                send(&mut self.node, sinks, (&mut self.counters, &mut self.oldest));
                self.held_since = None;
                // That was some milliseconds of work.
                now = Instant::now();
            }
        }
        // Joins come in a rush and go: no audio is to wait for a beat because of them.
        self.gathering.count(voices);
        if count < RECEIVE_BATCH {
            self.backlog.ran_empty(newest, received_at, self.gathering.wait_max());
        }
        self.counters.receive_truncated = self.received.truncated();
        count >= RECEIVE_BATCH
    }

    /// Everything, unless it may still be held. Nothing waits longer than that while the thread waits for its socket.
    fn send_what_is_due(&mut self, now: Instant) {
        share(&mut self.node, &mut self.bus, &mut self.counters, now);
        if self.node.transmit_count() == 0 {
            return;
        }
        let since = *self.held_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.tuning.hold {
            self.send(now);
        }
    }

    /// Whether some may be left.
    fn take_items(&mut self, now: Instant) -> bool {
        let mut taken = 0;
        while let Some((from, item)) = self.bus.receive(&mut taken) {
            self.node.handle_bus(now, from, item);
            self.oldest.get_or_insert(now);
            if self.node.transmit_count() >= FLUSH_AT {
                let sinks = (&mut self.sending, &self.socket, &mut self.streams);
                send(&mut self.node, sinks, (&mut self.counters, &mut self.oldest));
                self.held_since = None;
            }
        }
        self.gathering.count(taken);
        !self.bus.is_empty()
    }

    /// Until the socket or a waker has something, or the time is over. Other shards wake this one only while it says
    /// that it sleeps.
    fn wait(&mut self, timeout: Duration) -> io::Result<Ready> {
        if timeout.is_zero() {
            return self.poller.wait(Some(timeout));
        }
        if let Some(ready) = self.poll_busily(timeout)? {
            return Ok(ready);
        }
        let timeout = if self.bus.may_sleep() { timeout } else { Duration::ZERO };
        let ready = self.poller.wait(Some(timeout));
        self.bus.awake();
        ready
    }

    /// Whatever comes. All that is looked at in each turn needs no waker; connections are asked for when there are any.
    fn sleep(&mut self, pause: Duration) -> io::Result<()> {
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        self.ready =
            if self.streams.is_empty() { Ready::default() } else { self.poller.wait(Some(Duration::ZERO))? };
        Ok(())
    }

    /// Looks again and again for a while, which costs a core and saves the time that waking up takes.
    fn poll_busily(&mut self, timeout: Duration) -> io::Result<Option<Ready>> {
        let started = Instant::now();
        while started.elapsed() < self.tuning.busy_poll {
            let ready = self.poller.wait(Some(Duration::ZERO))?;
            let found = ready.is_woken() || !ready.tokens().is_empty() || !self.bus.is_empty();
            if found || started.elapsed() >= timeout {
                return Ok(Some(ready));
            }
            std::hint::spin_loop();
        }
        Ok(None)
    }

    fn send(&mut self, now: Instant) {
        share(&mut self.node, &mut self.bus, &mut self.counters, now);
        self.held_since = None;
        let sinks = (&mut self.sending, &self.socket, &mut self.streams);
        send(&mut self.node, sinks, (&mut self.counters, &mut self.oldest));
    }

    /// Whether some may be left, and whether to end.
    fn carry_out(&mut self, now: Instant, portion: &Portion<'_>) -> (bool, bool) {
        let Self { orders, node, streams, poller, .. } = self;
        let mut stop = false;
        let left = portion.spend(orders, |order| {
            match order {
                Order::Command { command, reply } => {
                    // Who asked may have given up.
                    let _ = reply.send(node.handle_command(now, command));
                }
                Order::Connection(accepted) => streams.accept(now, *accepted, (&*poller, &mut *node)),
                Order::Stop => {
                    stop = true;
                    return ControlFlow::Break(());
                }
                #[cfg(test)]
                Order::Fail => panic!("told to fail"),
            }
            ControlFlow::Continue(())
        });
        if stop || left == Left::Closed {
            self.send(now);
            return (false, true);
        }
        (left == Left::Some, false)
    }

    /// Events stay in the core, where they are merged, until the control plane has room for them.
    fn pass_events(&mut self) {
        loop {
            let Ok(place) = self.reports.try_reserve() else { return };
            let lost = self.node.counters().dropped(DropReason::EventsFull);
            let news = if let Some(news) = self.news.take() {
                news
            } else if let Some(event) = self.node.poll_event() {
                if let Event::Gone { reason, .. } = event {
                    self.counters.count_gone(reason);
                }
                News::Node(event)
            } else if lost > self.events_lost {
                self.events_lost = lost;
                News::EventsLost
            } else {
                return;
            };
            place.send(Report { shard: self.index, news });
        }
    }

    fn publish(&mut self, now: Instant, is_last: bool) {
        let elapsed = now.saturating_duration_since(self.pace.published_at);
        if elapsed >= PUBLISH_INTERVAL {
            let busy = 1.0 - (self.pace.waited.as_secs_f64() / elapsed.as_secs_f64()).clamp(0.0, 1.0);
            let before = self.counters.busy_ppm as f64 / 1e6;
            self.counters.busy_ppm = ((before + (busy - before) * BUSY_WEIGHT) * 1e6) as u64;
            self.counters.gathers = self.gathering.judge(elapsed);
            self.pace = Pace { published_at: now, waited: Duration::ZERO };
        } else if !is_last {
            return;
        }
        self.counters.handshake_work_us = self.handshakes.work_us();
        self.counters.is_favoured = self.is_favoured;
        self.published.publish(&Reading {
            core: self.node.counters(),
            shell: &self.counters,
            peers: self.node.peer_count(),
            rooms: self.node.room_count(),
            handshakes: self.node.sizes().handshakes,
            streams: (self.streams.len(), self.streams.counters()),
        });
    }

    fn wait_time(&self, now: Instant) -> Duration {
        let behind = self.news.is_some() || self.reports.capacity() == 0;
        let longest = if behind { WAIT_WITH_EVENTS } else { WAIT_MAX };
        let due = self.held_since.map(|since| since + self.tuning.hold);
        let deadline = self.node.poll_timeout().into_iter().chain(due).min();
        deadline.map_or(longest, |deadline| deadline.saturating_duration_since(now).min(longest))
    }
}

/// Hands over what other shards are to have.
fn share(node: &mut Node, bus: &mut BusEnd, counters: &mut ShellCounters, now: Instant) {
    if node.has_bus_transmits() {
        bus.send(node.bus_transmits(now), counters);
        node.clear_bus_transmits();
        bus.ring(counters);
    }
}

/// RTP, not RTCP (RFC 7983, RFC 5761): checks, handshakes and reports are worth something late, too.
fn is_audio(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(192..=223).contains(second))
}

fn send(
    node: &mut Node,
    (sending, socket, streams): (&mut SendBatch, &Socket, &mut Streams),
    (counters, oldest): (&mut ShellCounters, &mut Option<Instant>),
) {
    if node.transmit_count() == 0 {
        return;
    }
    // Those of connections that are gone are counted as long as there are others.
    if !streams.is_empty() {
        streams.collect(node.transmits());
    }
    let datagrams = node.transmits().filter(|out| out.to.transport == Transport::Udp);
    let transmits = datagrams.map(|out| Transmit { to: out.to.remote, payload: out.payload, segment_size: None });
    let report = sending.send(socket, transmits);
    counters.send_calls += report.syscalls as u64;
    counters.send_dropped += report.dropped as u64;
    if let Some(oldest) = oldest.take() {
        counters.forward_times.record(oldest.elapsed(), report.sent as u64);
    }
    node.clear_transmits();
}
