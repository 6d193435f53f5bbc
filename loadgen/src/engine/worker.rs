//! A thread of bulk clients: one socket a client, an epoll, a heap of deadlines. Clients connect on threads of the first kind
//! and are handed over to one of the second kind when they stand, so that a handshake, which costs milliseconds, delays
//! nobody's packets.
//!
//! Each turn: 1. commands, 2. deadlines that are due (voices, checks), 3. what has arrived, at most a batch a socket, 4. a
//! few times a second, hand over what was counted. When a packet came is the kernel's word, so a thread that carries media
//! may linger between turns: on one machine each time it is woken up is charged to the server whose packet woke it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use slab::Slab;
use udp::{Options, Poller, RecvBatch, SendBatch, Socket, Transmit, Waker};

use super::client::{Client, Outcome, PACKET_BYTES_MAX, Reading};
use super::dtls::Identity;
use super::frames::Frames;
use super::seat::{Mouth, Seat};
use super::switchboard::{Event, EventKind, Switchboard};
use super::tally::Tally;
use crate::targets::{Link, Local, Remote};

/// More than joins may be under way at a time, so that a sender never waits.
const COMMANDS_MAX: usize = 1024;
/// Datagrams taken from one socket a turn; a client hears some hundred packets a second.
const RECV_BATCH: usize = 64;
/// Runs of datagrams that the kernel did not take apart; each may be as long as a datagram can be.
const RECV_RUNS: usize = 16;
const RUN_BYTES_MAX: usize = 65_535;
/// A second of a loud room for one client, so that a stall of the generator is a delay and no loss.
const RECV_BUFFER_BYTES: usize = 512 * 1024;
const HAND_OVER_INTERVAL: Duration = Duration::from_millis(200);
/// Longest sleep, so that a change of phase is seen soon.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// So many sockets at a time mean that there are more.
const MANY_READY: usize = 32;
/// Deadlines served before sockets have their turn.
const DEADLINES_A_TURN: usize = 64;

/// What all workers of a run share.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) board: Switchboard,
    pub(super) identity: Identity,
    pub(super) frames: Frames,
    pub(super) frame: Duration,
    pub(super) reading: Reading,
    /// Take runs of datagrams from the kernel as they come.
    pub(super) coalesce: bool,
    /// How long a thread that carries media waits after it has read what was there.
    pub(super) linger: Duration,
    /// Share of what is sent that is lost on purpose, of 2^32.
    pub(super) send_drop: u32,
    pub(super) drop_seed: u64,
    /// Over the same connection or over one more: nobody gets what they sent.
    pub(super) senders_hear: bool,
}

pub(super) enum Command {
    /// Begin ICE and DTLS.
    Connect(Box<NewClient>),
    /// Go on with a client that stands.
    Adopt(Box<Seat>),
    End,
}

pub(super) struct NewClient {
    pub(super) link: usize,
    pub(super) plan: Link,
    pub(super) local: Local,
    pub(super) remote: Remote,
    pub(super) mouth: Option<Mouth>,
}

/// The way to a worker. It ends when told to, and when this is dropped.
#[derive(Debug)]
pub(super) struct Handle {
    commands: SyncSender<Command>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Never waits for long: the worker takes all commands each turn.
    pub(super) fn send(&self, command: Command) {
        // A worker that is gone has told its failure already by its absence in the figures.
        let _ = self.commands.send(command);
        self.waker.wake();
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    fn line(&self) -> Line {
        Line { commands: self.commands.clone(), waker: self.waker.clone() }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.send(Command::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// From a worker that connects to one that carries media.
#[derive(Clone, Debug)]
struct Line {
    commands: SyncSender<Command>,
    waker: Waker,
}

/// Those who connect clients, and those who carry their media.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) connecting: Vec<Handle>,
    pub(super) carrying: Vec<Handle>,
}

impl Workers {
    pub(super) fn start(setting: &Arc<Setting>, connecting: usize, carrying: usize) -> io::Result<Self> {
        let start = |name: &str, index: usize, lines: Vec<Line>| {
            let (commands, inbox) = sync_channel(COMMANDS_MAX);
            let worker = Worker::new(Arc::clone(setting), inbox, lines)?;
            let waker = worker.poller.waker();
            let thread = std::thread::Builder::new().name(format!("{name}{index}")).spawn(move || worker.run())?;
            Ok::<_, io::Error>(Handle { commands, waker, thread: Some(thread) })
        };
        let carrying = (0..carrying).map(|n| start("carry", n, Vec::new())).collect::<io::Result<Vec<_>>>()?;
        let lines: Vec<Line> = carrying.iter().map(Handle::line).collect();
        let connecting = (0..connecting).map(|n| start("connect", n, lines.clone())).collect::<io::Result<_>>()?;
        Ok(Self { connecting, carrying })
    }

    pub(super) fn wake(&self) {
        for handle in self.connecting.iter().chain(&self.carrying) {
            handle.wake();
        }
    }
}

/// Between the wall clock, which the kernel notes arrivals by, and the clock of the run. Read again a few times a second,
/// as the wall clock may be set.
#[derive(Clone, Copy, Debug)]
struct WallClock {
    /// Nanoseconds of the wall clock when the run's clock was at 0.
    origin_ns: i128,
}

impl WallClock {
    fn read(board: &Switchboard) -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { origin_ns: wall.as_nanos() as i128 - i128::from(board.nanos(Instant::now())) }
    }

    /// Of the run's clock.
    fn nanos(self, wall: Duration) -> u64 {
        u64::try_from(wall.as_nanos() as i128 - self.origin_ns).unwrap_or(0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deadline {
    Client,
    Voice,
}

struct Worker {
    setting: Arc<Setting>,
    inbox: Receiver<Command>,
    /// Where to hand clients over; nowhere when this one carries media itself.
    lines: Vec<Line>,
    poller: Poller,
    seats: Slab<Box<Seat>>,
    /// (when, seat, its link, what): a deadline of a seat that has a new owner is stale.
    deadlines: BinaryHeap<Reverse<(Instant, usize, usize, Deadline)>>,
    recv: RecvBatch,
    send: SendBatch,
    tally: Tally,
    phase: usize,
    handed_over: Instant,
    wall: WallClock,
    events: Vec<Event>,
    out: Vec<Vec<u8>>,
    packet: Box<[u8; PACKET_BYTES_MAX]>,
    adopted: usize,
}

impl Worker {
    fn new(setting: Arc<Setting>, inbox: Receiver<Command>, lines: Vec<Line>) -> io::Result<Self> {
        let (batch, bytes) =
            if setting.coalesce { (RECV_RUNS, RUN_BYTES_MAX) } else { (RECV_BATCH, PACKET_BYTES_MAX) };
        Ok(Self {
            wall: WallClock::read(&setting.board),
            setting,
            inbox,
            lines,
            poller: Poller::new()?,
            seats: Slab::new(),
            deadlines: BinaryHeap::new(),
            recv: RecvBatch::new(batch, bytes),
            send: SendBatch::new(1),
            tally: Tally::new(),
            phase: 0,
            handed_over: Instant::now(),
            events: Vec::new(),
            out: Vec::new(),
            packet: Box::new([0; PACKET_BYTES_MAX]),
            adopted: 0,
        })
    }

    fn run(mut self) {
        while self.take_commands() {
            let now = Instant::now();
            self.serve_deadlines(now);
            let sleep = self.sleep(Instant::now());
            // An epoll that fails would spin: it can only fail by our own mistake, and ends the worker.
            let Ok(ready) = self.poller.wait(Some(sleep)) else { break };
            let began = Instant::now();
            for token in ready.tokens() {
                self.receive(*token as usize);
            }
            if !ready.tokens().is_empty() {
                self.tally.receive_turn.record(began.elapsed());
                self.linger(ready.tokens().len());
            }
            self.hand_over(Instant::now(), false);
        }
        self.hand_over(Instant::now(), true);
    }

    /// Not beyond the next deadline, not while more is there, and not where joins are timed.
    fn linger(&self, ready: usize) {
        if ready < MANY_READY && self.lines.is_empty() && !self.setting.linger.is_zero() {
            std::thread::sleep(self.setting.linger.min(self.sleep(Instant::now())));
        }
    }

    /// Whether to go on.
    fn take_commands(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Connect(new)) => self.connect(*new),
                Ok(Command::Adopt(seat)) => self.seat(seat),
                Err(TryRecvError::Empty) => return true,
                Ok(Command::End) | Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn connect(&mut self, new: NewClient) {
        let now = Instant::now();
        let wildcard: SocketAddr = match new.remote.address {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let options =
            Options { recv_buffer: Some(RECV_BUFFER_BYTES), gro: self.setting.coalesce, ..Options::default() };
        let Ok(socket) = Socket::bind(wildcard, options) else {
            self.events.push(Event { link: new.link, kind: EventKind::Failed("no_socket") });
            return;
        };
        // Without them the time of reading counts.
        let _ = socket.ask_for_arrival_times();
        let client = Client::new(&self.setting.identity, &new.local, &new.remote, now);
        self.seat(Box::new(Seat::new(new.link, new.plan, socket, client, new.mouth, now)));
    }

    fn seat(&mut self, mut seat: Box<Seat>) {
        let entry = self.seats.vacant_entry();
        let (key, link) = (entry.key(), seat.link);
        if self.poller.add(&seat.socket, key as u64).is_err() {
            self.events.push(Event { link, kind: EventKind::Failed("no_poll") });
            return;
        }
        let (client_at, voice_at) = (seat.client.next_at(), seat.voice_at());
        seat.armed = client_at;
        entry.insert(seat);
        self.arm(client_at, key, link, Deadline::Client);
        self.arm(voice_at, key, link, Deadline::Voice);
    }

    fn arm(&mut self, at: Option<Instant>, key: usize, link: usize, what: Deadline) {
        if let Some(at) = at {
            self.deadlines.push(Reverse((at, key, link, what)));
        }
    }

    fn sleep(&self, now: Instant) -> Duration {
        let next = self.deadlines.peek().map(|Reverse((at, ..))| at.saturating_duration_since(now));
        next.map_or(SLEEP_MAX, |next| next.min(SLEEP_MAX))
    }

    fn serve_deadlines(&mut self, mut now: Instant) {
        for _ in 0..DEADLINES_A_TURN {
            let Some(Reverse((at, key, link, what))) = self.deadlines.peek().copied() else { return };
            if at > now {
                return;
            }
            self.deadlines.pop();
            if self.seats.get(key).is_none_or(|seat| seat.link != link) {
                continue;
            }
            match what {
                Deadline::Voice => {
                    now = Instant::now();
                    self.speak(now, at, key, link);
                }
                Deadline::Client => self.time_out(now, at, key, link),
            }
        }
    }

    fn time_out(&mut self, now: Instant, armed: Instant, key: usize, link: usize) {
        let seat = &mut self.seats[key];
        if seat.armed == Some(armed) {
            seat.armed = None;
        }
        let outcome = seat.client.handle_timeout(now, &mut self.out);
        self.settle(now, key, link, outcome);
    }

    fn speak(&mut self, now: Instant, due: Instant, key: usize, link: usize) {
        let seat = &mut self.seats[key];
        let spoken = seat.speak(now, due, &self.setting, &mut self.tally, &mut self.packet[..]);
        if let Some(len) = spoken {
            let transmit = Transmit { to: seat.client.remote, payload: &self.packet[..len], segment_size: None };
            let report = self.send.send(&seat.socket, [transmit]);
            self.tally.counts.send_failed += report.dropped as u64;
        }
        let next = seat.voice_at();
        self.arm(next, key, link, Deadline::Voice);
    }

    fn receive(&mut self, key: usize) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        if self.recv.recv(&seat.socket).is_err() {
            return;
        }
        let now = Instant::now();
        let now_ns = self.setting.board.nanos(now);
        let link = seat.link;
        let mut outcomes = Vec::new();
        for received in self.recv.iter_mut() {
            let from = received.remote;
            let arrived_ns = received.arrived.map_or(now_ns, |arrived| self.wall.nanos(arrived).min(now_ns));
            for datagram in received.into_segments() {
                let is_media = datagram.first().is_some_and(|first| (128..=191).contains(first));
                let outcome = if is_media {
                    seat.client.receive_media(arrived_ns, datagram, self.setting.reading, &mut self.tally)
                } else {
                    self.tally.counts.other += 1;
                    seat.client.handle_control(now, datagram, from, &mut self.out)
                };
                if !matches!(outcome, Outcome::None) || !self.out.is_empty() {
                    outcomes.push(outcome);
                }
            }
        }
        for outcome in outcomes {
            self.settle(now, key, link, outcome);
        }
    }

    /// Sends what a client wants sent, tells what became of it, and arms its next deadline.
    fn settle(&mut self, now: Instant, key: usize, link: usize, outcome: Outcome) {
        let Some(seat) = self.seats.get_mut(key).filter(|seat| seat.link == link) else {
            self.out.clear();
            return;
        };
        for datagram in self.out.drain(..) {
            let transmit = Transmit { to: seat.client.remote, payload: &datagram, segment_size: None };
            self.send.send(&seat.socket, [transmit]);
        }
        let mut ends = false;
        let kind = match outcome {
            Outcome::None => None,
            Outcome::PathValid => {
                seat.path_valid_at = now;
                None
            }
            Outcome::Connected(voice) => {
                seat.connect(now, voice, &self.setting);
                let (ice, dtls) = seat.times(now);
                Some(EventKind::Connected { at: now, ice, dtls, address: seat.address() })
            }
            Outcome::Failed(reason) => {
                ends = true;
                Some(EventKind::Failed(reason))
            }
            Outcome::Lost => {
                ends = true;
                if seat.plan.slots > 0 {
                    self.setting.board.remove_hearer(seat.plan.room);
                }
                Some(EventKind::Lost)
            }
            Outcome::FirstPacket => Some(EventKind::FirstPacket(now.saturating_duration_since(seat.connected_at))),
        };
        let is_connected = matches!(kind, Some(EventKind::Connected { .. }));
        self.events.extend(kind.map(|kind| Event { link, kind }));
        if ends {
            self.seats.remove(key);
        } else if is_connected && !self.lines.is_empty() {
            self.pass_on(key);
        } else {
            self.arm_client(key, link);
        }
    }

    fn arm_client(&mut self, key: usize, link: usize) {
        let seat = &mut self.seats[key];
        let next = seat.client.next_at();
        // An earlier one that is armed finds the later one when it fires.
        if let Some(at) = next.filter(|at| seat.armed.is_none_or(|armed| *at < armed)) {
            seat.armed = Some(at);
            self.arm(Some(at), key, link, Deadline::Client);
        }
    }

    fn pass_on(&mut self, key: usize) {
        let mut seat = self.seats.remove(key);
        seat.armed = None;
        // It would be reported here as well, for ever.
        let _ = self.poller.remove(&seat.socket);
        let line = &self.lines[self.adopted % self.lines.len()];
        self.adopted += 1;
        let _ = line.commands.send(Command::Adopt(seat));
        line.waker.wake();
    }

    fn hand_over(&mut self, now: Instant, last: bool) {
        let phase = self.setting.board.phase();
        if last || phase != self.phase || now.duration_since(self.handed_over) >= HAND_OVER_INTERVAL {
            // What was counted belongs to the phase that was; the border is as sharp as a turn is short.
            self.setting.board.hand_over(self.phase, &mut self.tally);
            self.phase = phase;
            self.handed_over = now;
            self.wall = WallClock::read(&self.setting.board);
        }
        self.setting.board.tell(&mut self.events);
    }
}
