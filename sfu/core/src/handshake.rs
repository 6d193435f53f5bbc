//! Handshakes leave the packet path: what a DTLS endpoint has to work on is queued here, taken out by the shell as a
//! [`HandshakeJob`], run wherever the shell likes (it is pure work: no socket, no clock, some hundreds of microseconds of
//! public-key cryptography), and given back. A peer has one job at most and queues first come, first served, so that
//! nobody's handshake holds up another's; only so many are under way at once, so that of a storm of joins the first are
//! done early instead of all of them late. Here is no cryptography and no thread.

use std::{collections::VecDeque, fmt, sync::Arc, time::Instant};

use crate::{
    DropReason, DtlsRole, Event, Fingerprint, GoneReason, Path, PeerId,
    dtls::{Channel, Datagrams, Established, Input},
    node::Node,
    peer::{Handshakes, Peer},
    timers::Alarm,
    upkeep::HANDSHAKE_ALARM,
};

/// What one peer's endpoint has to do. Without [`HandshakeJob::run`] it stands for a handshake that failed.
pub struct HandshakeJob {
    peer: PeerId,
    role: DtlsRole,
    fingerprint: Fingerprint,
    starter: Arc<Handshakes>,
    channel: Option<Box<Channel>>,
    inputs: Inputs,
    out: Datagrams,
    established: Option<Established>,
    ended: Option<GoneReason>,
}

impl HandshakeJob {
    /// The work. May be slow; must not be done on a thread that forwards.
    pub fn run(&mut self, now: Instant) {
        let mut buf = vec![0; BUFFER_BYTES];
        let mut channel = match self.channel.take() {
            Some(channel) => channel,
            None => Box::new(self.starter.start(self.role, self.fingerprint.clone(), now)),
        };
        let timeout = self.inputs.is_timeout.then_some(Input::Timeout);
        for input in timeout.into_iter().chain(self.inputs.datagrams.iter().map(Input::Datagram)) {
            match channel.drive(now, input, &mut self.out, &mut buf) {
                Ok(None) => {}
                Ok(Some(established)) => self.established = Some(established),
                Err(reason) => {
                    self.ended = Some(reason);
                    break;
                }
            }
        }
        self.channel = Some(channel);
    }

    /// After a panic in [`HandshakeJob::run`]: whatever it has left behind is not used.
    pub fn fail(&mut self) {
        self.channel = None;
        self.established = None;
        self.ended = None;
        self.out = Datagrams::default();
    }
}

/// Keys and addresses are inside.
impl fmt::Debug for HandshakeJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandshakeJob").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A record of a handshake fits a datagram.
const BUFFER_BYTES: usize = 2_048;

/// What waits for a peer's endpoint.
#[derive(Default)]
struct Inputs {
    is_timeout: bool,
    datagrams: Datagrams,
}

impl Inputs {
    fn is_empty(&self) -> bool {
        !self.is_timeout && self.datagrams.is_empty()
    }
}

/// A peer's side of it.
#[derive(Default)]
pub(crate) struct Secure {
    channel: Option<Box<Channel>>,
    inputs: Inputs,
    stage: Stage,
    is_queued: bool,
    is_away: bool,
    /// Counted among those under way, since.
    turn: Option<Instant>,
    begun_at: Option<Instant>,
    /// Deadline of the DTLS timer that is armed now.
    alarm: Option<Instant>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// No address has passed a check.
    #[default]
    Unproven,
    /// Has not had a turn.
    Waiting,
    Begun,
    /// The endpoint is of no use any more.
    Over,
}

/// Who has work waiting.
pub(crate) struct Desk {
    starter: Arc<Handshakes>,
    /// Handshakes under way, and what comes after them.
    going: VecDeque<PeerId>,
    /// Those that have not begun.
    waiting: VecDeque<PeerId>,
    under_way: usize,
    under_way_max: usize,
}

impl Desk {
    pub(crate) fn new(starter: Handshakes, under_way_max: usize) -> Self {
        let (going, waiting) = (VecDeque::new(), VecDeque::new());
        Self { starter: Arc::new(starter), going, waiting, under_way: 0, under_way_max }
    }

    /// Handshakes under way or waiting for their turn.
    pub(crate) fn len(&self) -> usize {
        self.under_way + self.going.len() + self.waiting.len()
    }

    fn queue(&mut self, secure: &mut Secure, peer: PeerId) {
        if secure.is_queued || secure.is_away || secure.inputs.is_empty() {
            return;
        }
        secure.is_queued = true;
        match secure.stage {
            Stage::Waiting => self.waiting.push_back(peer),
            Stage::Unproven | Stage::Begun | Stage::Over => self.going.push_back(peer),
        }
    }

    fn next(&mut self) -> Option<PeerId> {
        if let Some(peer) = self.going.pop_front() {
            return Some(peer);
        }
        if self.under_way < self.under_way_max { self.waiting.pop_front() } else { None }
    }

    fn end_turn(&mut self, secure: &mut Secure) {
        if secure.turn.take().is_some() {
            self.under_way -= 1;
        }
    }
}

impl Node {
    /// Work for a thread that may be slow. The shell asks after each of the `handle_` calls and gives each job back by
    /// [`Node::handle_handshake`]; how many it has out at a time is its own matter.
    pub fn poll_handshake(&mut self, now: Instant) -> Option<HandshakeJob> {
        loop {
            let id = self.desk.next()?;
            let Some(&key) = self.peer_keys.get(&id) else { continue };
            let peer = &mut self.peers[key];
            let secure = &mut peer.secure;
            secure.is_queued = false;
            if secure.stage == Stage::Waiting {
                secure.stage = Stage::Begun;
                secure.turn = Some(now);
                secure.begun_at = Some(now);
                self.desk.under_way += 1;
            }
            secure.is_away = true;
            self.counters.handshake_jobs += 1;
            return Some(HandshakeJob {
                peer: id,
                role: peer.role,
                fingerprint: peer.fingerprint.clone(),
                starter: Arc::clone(&self.desk.starter),
                channel: secure.channel.take(),
                inputs: std::mem::take(&mut secure.inputs),
                out: Datagrams::default(),
                established: None,
                ended: None,
            });
        }
    }

    /// Takes a job back and does what came of it: nothing, where the peer has gone meanwhile.
    pub fn handle_handshake(&mut self, now: Instant, job: HandshakeJob) {
        let Some(&key) = self.peer_keys.get(&job.peer) else { return };
        let peer = &mut self.peers[key];
        peer.secure.is_away = false;
        if let Some(to) = peer.ice.selected() {
            for datagram in job.out.iter() {
                // One that does not fit the turn's output is lost like on a network; the handshake repeats it.
                _ = self.outbox.push(to, datagram);
            }
        }
        self.take_back(now, key, job.channel);
        if let Some(established) = job.established {
            let secure = &mut self.peers[key].secure;
            self.desk.end_turn(secure);
            if let Some(begun_at) = secure.begun_at.take() {
                self.counters.handshake_times.record(now.saturating_duration_since(begun_at), 1);
            }
            if self.establish(key, &established).is_err() {
                return self.evict(now, key, GoneReason::DtlsFailed);
            }
        }
        let peer = &mut self.peers[key];
        let failed = peer.secure.stage == Stage::Over && !peer.is_established();
        // A peer that leaves has ended its channel itself.
        if let Some(reason) = job.ended.or(failed.then_some(GoneReason::DtlsFailed)) {
            if reason != GoneReason::Closed {
                self.counters.drop(DropReason::DtlsFailed);
            }
            return self.evict(now, key, reason);
        }
        self.desk.queue(&mut peer.secure, job.peer);
    }

    /// All the work at once and here: for simulations, and for shells that forward nothing.
    pub fn run_handshakes(&mut self, now: Instant) {
        while let Some(mut job) = self.poll_handshake(now) {
            job.run(now);
            self.handle_handshake(now, job);
        }
    }

    fn take_back(&mut self, now: Instant, key: usize, channel: Option<Box<Channel>>) {
        let peer = &mut self.peers[key];
        let secure = &mut peer.secure;
        let Some(channel) = channel.filter(|channel| !channel.is_over()) else {
            secure.stage = Stage::Over;
            secure.inputs = Inputs::default();
            return;
        };
        let wake_at = channel.wake_at().filter(|at| *at < now + HANDSHAKE_ALARM.end);
        if let Some(at) = wake_at.map(|at| at.max(now + HANDSHAKE_ALARM.start))
            && secure.alarm.is_none_or(|armed| at < armed)
        {
            secure.alarm = Some(at);
            self.timers.arm(at, peer.id, Alarm::Dtls);
        }
        secure.channel = Some(channel);
    }

    /// An address of the peer has passed a check.
    pub(crate) fn start_handshake(&mut self, key: usize) {
        let peer = &mut self.peers[key];
        if peer.secure.stage != Stage::Unproven {
            return;
        }
        peer.secure.stage = Stage::Waiting;
        // A server has nothing to do until the client has spoken.
        peer.secure.inputs.is_timeout = peer.role == DtlsRole::Client;
        self.desk.queue(&mut peer.secure, peer.id);
    }

    pub(crate) fn receive_dtls(&mut self, path: Path, bytes: &[u8]) -> Result<(), DropReason> {
        let key = *self.addresses.get(&path).ok_or(DropReason::UnknownAddress)?;
        self.counters.dtls_received += 1;
        let peer = &mut self.peers[key];
        if matches!(peer.secure.stage, Stage::Unproven | Stage::Over) {
            return Ok(());
        }
        if !peer.secure.inputs.datagrams.push(bytes) {
            return Err(DropReason::DtlsQueueFull);
        }
        self.desk.queue(&mut peer.secure, peer.id);
        Ok(())
    }

    pub(crate) fn wake_dtls(&mut self, at: Instant, key: usize) {
        let peer = &mut self.peers[key];
        // An alarm that was overtaken by an earlier one.
        if peer.secure.alarm != Some(at) {
            return;
        }
        peer.secure.alarm = None;
        peer.secure.inputs.is_timeout = peer.secure.stage == Stage::Begun;
        self.desk.queue(&mut peer.secure, peer.id);
    }

    /// A handshake that stands still gives its turn to the next one, and goes on all the same.
    pub(crate) fn limit_turn(&mut self, now: Instant, key: usize) {
        let secure = &mut self.peers[key].secure;
        if secure.turn.is_some_and(|since| now.saturating_duration_since(since) >= self.limits.handshake_turn) {
            self.desk.end_turn(secure);
        }
    }

    /// close_notify, where the endpoint is here to write it: one short record and no public key in it.
    pub(crate) fn say_goodbye(&mut self, now: Instant, key: usize) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let (Some(channel), Some(to)) = (&mut peer.secure.channel, peer.ice.selected()) else { return };
        let mut out = Datagrams::default();
        // However it ends, the peer goes.
        _ = channel.drive(now, Input::Close, &mut out, &mut vec![0; BUFFER_BYTES]);
        for datagram in out.iter() {
            _ = self.outbox.push(to, datagram);
        }
    }

    /// Of a peer that is gone.
    pub(crate) fn forget_handshake(&mut self, peer: &mut Peer) {
        self.desk.end_turn(&mut peer.secure);
        if peer.secure.is_queued {
            self.desk.going.retain(|queued| *queued != peer.id);
            self.desk.waiting.retain(|queued| *queued != peer.id);
        }
    }

    fn establish(&mut self, key: usize, established: &Established) -> Result<(), srtp::KeyError> {
        let Established { keys, profile, version } = established;
        let peer = &mut self.peers[key];
        let (ours, theirs) = match peer.role {
            DtlsRole::Client => (&keys.client, &keys.server),
            DtlsRole::Server => (&keys.server, &keys.client),
        };
        let opener = srtp::Opener::new(*profile, theirs, self.limits.ssrcs_per_peer)?;
        let sealer = srtp::Sealer::new(*profile, ours)?;
        let to = peer.ice.selected().unwrap_or(Path::NOWHERE);
        let room = &mut self.rooms[peer.room];
        let place = room.add_listener((key, to), peer.profile, peer.places, sealer, &mut self.rng);
        if peer.nack {
            room.allow_asking_again(place);
        }
        peer.opener = Some(opener);
        peer.listener = Some(place);
        peer.srtp_profile = Some(*profile);
        peer.dtls_version = version;
        self.counters.handshakes_done += 1;
        let event = Event::Connected { peer: peer.id, srtp_profile: profile.name(), dtls_version: version };
        self.events.push(event);
        Ok(())
    }
}
