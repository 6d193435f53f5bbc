//! The media node of one shard as a state machine: datagrams, commands and time go in, datagrams and events come out.
//! It has no socket, no clock, no randomness of its own, and no lock. Here are its tables, its commands and its events;
//! what a datagram does is in `inbound`, what time does in `upkeep`.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use slab::Slab;

use crate::{
    Command, CommandError, Counters, Event, GoneReason, IceCredentials, Join, Joined, Limits, NodeConfig, Path,
    PeerId, Reply, RoomId, ShardId, SlotAssignment, SlotInfo, Ssrc, TrackInfo, TrackKind,
    assign::Release,
    bus::BusOut,
    clock::Clock,
    events::{Events, Queued},
    handshake::{Desk, Secure},
    ice::{Agent, Ufrag, credentials_in_range},
    level::Voice,
    outbox::Outbox,
    peer::{Handshakes, Peer, Presence},
    protection::Protection,
    report::{Hearing, Reporter},
    room::Room,
    timers::{Alarm, Timers},
    track::{self, Allowance, Track},
};

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("certificate or private key is not usable")]
    Certificate,
}

/// A datagram to send. Borrowed from the node's output arena until [`Node::clear_transmits`].
#[derive(Clone, Copy)]
pub struct Transmit<'a> {
    pub to: Path,
    pub payload: &'a [u8],
}

/// Addresses of people do not print.
impl fmt::Debug for Transmit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transmit({:?}, {} bytes)", self.to, self.payload.len())
    }
}

/// How one peer is doing.
#[derive(Clone, PartialEq, Debug)]
pub struct PeerStats {
    /// `None` until the handshake is done.
    pub srtp_profile: Option<&'static str>,
    pub dtls_version: &'static str,
    /// Between the node and the peer, by its receiver reports.
    pub round_trip: Option<Duration>,
    /// Of the worst slot, by the peer's receiver reports, 0 to 1.
    pub fraction_lost: f32,
    /// Addresses that passed a check.
    pub paths: usize,
}

/// How many of everything there are: all of it goes back to zero when the last peer is gone.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct NodeSizes {
    pub peers: usize,
    pub rooms: usize,
    pub addresses: usize,
    pub ufrags: usize,
    /// Alarms of peers that are gone stay until their time.
    pub alarms: usize,
    pub events: usize,
    /// Under way or waiting.
    pub handshakes: usize,
}

pub struct Node {
    pub(crate) shard: ShardId,
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) desk: Desk,
    pub(crate) reporter: Reporter,
    pub(crate) peers: Slab<Peer>,
    pub(crate) rooms: Slab<Room>,
    pub(crate) peer_keys: HashMap<PeerId, usize>,
    pub(crate) room_keys: HashMap<RoomId, usize>,
    /// Only addresses that passed an authenticated check.
    pub(crate) addresses: HashMap<Path, usize>,
    pub(crate) ufrags: HashMap<Ufrag, usize>,
    pub(crate) outbox: Outbox,
    pub(crate) bus: BusOut,
    /// Keys of rooms whose other replicas do not know the newest state yet.
    pub(crate) unshared: Vec<usize>,
    pub(crate) timers: Timers,
    pub(crate) events: Events,
    pub(crate) counters: Counters,
    pub(crate) failed_checks: Allowance,
}

impl Node {
    pub fn new(config: NodeConfig, now: Instant) -> Result<Self, NodeError> {
        let NodeConfig { shard, certificate, seed, wall_clock_at_start, limits } = config;
        let handshakes = Handshakes::new(&certificate)?;
        let mut rng = ChaCha20Rng::from_seed(seed);
        let cname = std::array::from_fn(|_| b'a' + rng.random_range(0..26));
        let reporter = Reporter { ssrc: rng.random_range(1..=u32::MAX), cname };
        Ok(Self {
            shard,
            clock: Clock::new(now, wall_clock_at_start),
            rng,
            desk: Desk::new(handshakes, limits.handshakes),
            reporter,
            peers: Slab::new(),
            rooms: Slab::new(),
            peer_keys: HashMap::new(),
            room_keys: HashMap::new(),
            addresses: HashMap::new(),
            ufrags: HashMap::new(),
            outbox: Outbox::new(limits.transmits, limits.transmit_bytes),
            bus: BusOut::new(),
            unshared: Vec::new(),
            timers: Timers::default(),
            events: Events::new(limits.events),
            counters: Counters::default(),
            failed_checks: Allowance::default(),
            limits,
        })
    }

    /// Never fails: what cannot be used is dropped and counted. `bytes` is opened in place.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, bytes: &mut [u8]) {
        self.receive(now, path, bytes);
    }

    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<Reply, CommandError> {
        match command {
            Command::Join(join) => self.join(now, &join).map(Reply::Joined),
            Command::RestartIce { peer, remote } => {
                self.restart_ice(peer, &remote).map(|local| Reply::Restarted { local })
            }
            Command::Mute { peer, kind, muted } => self.mute(peer, kind, muted).map(|()| Reply::Done),
            Command::Leave { peer } => {
                let key = self.key_of(peer)?;
                self.evict(now, key, GoneReason::Left);
                Ok(Reply::Done)
            }
            Command::Spread { room, home, shards } => self.spread(now, room, home, shards).map(|()| Reply::Done),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
    }

    /// When [`Node::handle_timeout`] wants to be called. `None`: nothing is waiting.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// In order. A shell may send and clear whenever it likes; it must before [`Limits::transmits`] is reached.
    pub fn transmits(&self) -> impl Iterator<Item = Transmit<'_>> {
        self.outbox.transmits()
    }

    #[must_use]
    pub fn transmit_count(&self) -> usize {
        self.outbox.len()
    }

    pub fn clear_transmits(&mut self) {
        let sent = self.outbox.transmits().map(|transmit| transmit.payload.len() as u64);
        self.counters.transmit_bytes += sent.sum::<u64>();
        self.counters.transmits += self.outbox.len() as u64;
        self.outbox.clear();
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            let event = match self.events.pop()? {
                Queued::Fact(event) => Some(event),
                Queued::Slots { key, room } => self.room_mut(key, room).map(|found| {
                    found.slots_queued = false;
                    Event::Slots { room, slots: found.assignments() }
                }),
                Queued::Speakers { key, room } => self.room_mut(key, room).map(|found| {
                    found.speakers_queued = false;
                    Event::Speakers { room, peers: found.speakers.clone() }
                }),
                Queued::Presence { key, peer } => self.presence_event(key, peer),
                Queued::Live { key, peer, track } => self.live_event(key, peer, track),
            };
            if event.is_some() {
                return event;
            }
        }
    }

    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    #[must_use]
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    #[must_use]
    pub fn room_count(&self) -> usize {
        self.rooms.len()
    }

    #[must_use]
    pub fn sizes(&self) -> NodeSizes {
        NodeSizes {
            peers: self.peers.len(),
            rooms: self.rooms.len(),
            addresses: self.addresses.len(),
            ufrags: self.ufrags.len(),
            alarms: self.timers.len(),
            events: self.events.len(),
            handshakes: self.desk.len(),
        }
    }

    #[must_use]
    pub fn peer_stats(&self, peer: PeerId) -> Option<PeerStats> {
        let peer = &self.peers[*self.peer_keys.get(&peer)?];
        Some(PeerStats {
            srtp_profile: peer.srtp_profile.map(srtp::Profile::name),
            dtls_version: peer.dtls_version,
            round_trip: peer.hearing.round_trip,
            fraction_lost: peer.hearing.fraction_lost(),
            paths: peer.ice.paths().count(),
        })
    }

    /// Who is in which place: what [`Event::Slots`] says, for a shell that has to start over.
    #[must_use]
    pub fn slots(&self, room: RoomId) -> Option<Vec<SlotAssignment>> {
        self.room_keys.get(&room).map(|key| self.rooms[*key].assignments())
    }

    fn join(&mut self, now: Instant, join: &Join) -> Result<Joined, CommandError> {
        let places = self.admissible(join)?;
        let room_key = self.room_for(join.room);
        let (ice, local_ice) = self.fresh_agent(&join.remote_ice);
        let tracks = self.fresh_tracks(room_key, join);
        let entry = self.peers.vacant_entry();
        let key = entry.key();
        self.ufrags.insert(ice.current_ufrag(), key);
        self.peer_keys.insert(join.peer, key);
        let room = &mut self.rooms[room_key];
        room.members.push(key);
        let joined = Joined { local_ice, tracks: track_infos(&tracks), slots: slot_infos(room, join) };
        entry.insert(Peer {
            id: join.peer,
            room: room_key,
            ice,
            failed_checks: Allowance::default(),
            role: join.dtls_role,
            fingerprint: join.fingerprint.clone(),
            secure: Secure::default(),
            opener: None,
            listener: None,
            profile: join.profile,
            places,
            tracks,
            joined_at: now,
            heard_at: now,
            presence: Presence::default(),
            report_at: now,
            hearing: Hearing::default(),
            nack: join.nack,
            protection: Protection::default(),
            asked_again: Allowance::default(),
            srtp_profile: None,
            dtls_version: "",
        });
        self.timers.arm(now + crate::upkeep::TICK, join.peer, Alarm::Tick);
        self.counters.peers_admitted += 1;
        Ok(joined)
    }

    /// Everything that may refuse a join, before anything is changed. Answers the slots received, by kind.
    fn admissible(&self, join: &Join) -> Result<[u8; 2], CommandError> {
        if self.peer_keys.contains_key(&join.peer) {
            return Err(CommandError::PeerExists);
        }
        if !credentials_in_range(&join.remote_ice) {
            return Err(CommandError::BadIceCredentials);
        }
        let tracks_of = |kind| join.tracks.iter().filter(|track| track.kind == kind).count();
        if tracks_of(TrackKind::Mic) > 1 || tracks_of(TrackKind::Program) > 1 {
            return Err(CommandError::DuplicateTrack);
        }
        let slots_of = |kind, max: u8| {
            let count = join.slots.iter().filter(|slot| slot.kind == kind).count();
            u8::try_from(count).ok().filter(|count| *count <= max).ok_or(CommandError::TooManySlots)
        };
        let places = [
            slots_of(TrackKind::Mic, self.limits.speech_slots)?,
            slots_of(TrackKind::Program, self.limits.program_slots)?,
        ];
        if self.peers.len() >= self.limits.peers || self.events.is_full() {
            return Err(CommandError::NodeFull);
        }
        let room = self.room_keys.get(&join.room).map(|key| &self.rooms[*key]);
        if room.is_some_and(|room| room.members.len() >= self.limits.peers_per_room) {
            return Err(CommandError::RoomFull);
        }
        Ok(places)
    }

    fn room_for(&mut self, id: RoomId) -> usize {
        *self
            .room_keys
            .entry(id)
            .or_insert_with(|| self.rooms.insert(Room::new(id, &self.limits, &mut self.rng, self.reporter.ssrc)))
    }

    fn fresh_agent(&mut self, remote: &IceCredentials) -> (Agent, IceCredentials) {
        loop {
            let (agent, local) = Agent::new(remote, &mut self.rng);
            if !self.ufrags.contains_key(&agent.current_ufrag()) {
                return (agent, local);
            }
        }
    }

    fn fresh_tracks(&mut self, room: usize, join: &Join) -> Vec<Track> {
        let members = &self.rooms[room].members;
        let mut tracks: Vec<Track> = Vec::with_capacity(join.tracks.len());
        for spec in &join.tracks {
            let id = loop {
                let id = track::fresh_id(self.shard, &mut self.rng);
                let others = members.iter().flat_map(|key| &self.peers[*key].tracks);
                if others.chain(&tracks).all(|track| track.id != id) {
                    break id;
                }
            };
            tracks.push(Track::new(id, spec));
        }
        tracks
    }

    fn restart_ice(&mut self, peer: PeerId, remote: &IceCredentials) -> Result<IceCredentials, CommandError> {
        let key = self.key_of(peer)?;
        if !credentials_in_range(remote) {
            return Err(CommandError::BadIceCredentials);
        }
        let agent = &mut self.peers[key].ice;
        let local = loop {
            let (local, skipped) = agent.restart(remote, &mut self.rng);
            if let Some(skipped) = skipped {
                self.ufrags.remove(&skipped);
            }
            if self.ufrags.contains_key(&agent.current_ufrag()) {
                continue;
            }
            break local;
        };
        self.ufrags.insert(agent.current_ufrag(), key);
        Ok(local)
    }

    fn mute(&mut self, peer: PeerId, kind: TrackKind, muted: bool) -> Result<(), CommandError> {
        let key = self.key_of(peer)?;
        let peer = &mut self.peers[key];
        let track = peer.tracks.iter_mut().find(|track| track.kind == kind).ok_or(CommandError::NoSuchTrack)?;
        if std::mem::replace(&mut track.muted, muted) == muted {
            return Ok(());
        }
        track.voice = Voice::default();
        track.waited_at = None;
        let (id, room_key) = (track.id, peer.room);
        if muted && self.rooms[room_key].release(kind, id, Release::Muted) {
            self.announce_slots(room_key);
        }
        Ok(())
    }

    fn key_of(&self, peer: PeerId) -> Result<usize, CommandError> {
        self.peer_keys.get(&peer).copied().ok_or(CommandError::NoSuchPeer)
    }

    fn room_mut(&mut self, key: usize, id: RoomId) -> Option<&mut Room> {
        self.rooms.get_mut(key).filter(|room| room.id == id)
    }

    fn presence_event(&mut self, key: usize, id: PeerId) -> Option<Event> {
        let presence = &mut self.peers.get_mut(key).filter(|peer| peer.id == id)?.presence;
        presence.queued = false;
        if presence.idle == presence.reported_idle {
            return None;
        }
        presence.reported_idle = presence.idle;
        Some(if presence.idle { Event::Idle { peer: id } } else { Event::Active { peer: id } })
    }

    fn live_event(&mut self, key: usize, id: PeerId, track: usize) -> Option<Event> {
        let track = self.peers.get_mut(key).filter(|peer| peer.id == id)?.tracks.get_mut(track)?;
        track.live_queued = false;
        Some(Event::TrackLive { peer: id, track: track.id, kind: track.kind })
    }

    /// Frees everything that the peer had.
    pub(crate) fn evict(&mut self, now: Instant, key: usize, reason: GoneReason) {
        if reason == GoneReason::Left {
            self.say_goodbye(now, key);
        }
        let Some(mut peer) = self.peers.try_remove(key) else { return };
        self.forget_handshake(&mut peer);
        for address in peer.ice.paths() {
            self.addresses.remove(&address);
        }
        for ufrag in peer.ice.ufrags() {
            self.ufrags.remove(&ufrag);
        }
        self.peer_keys.remove(&peer.id);
        self.leave_room(&peer, key);
        self.counters.peers_evicted += 1;
        self.events.push(Event::Gone { peer: peer.id, reason });
    }

    fn leave_room(&mut self, peer: &Peer, key: usize) {
        let room = &mut self.rooms[peer.room];
        room.members.retain(|member| *member != key);
        if let Some(place) = peer.listener
            && let Some(moved) = room.remove_listener(place)
        {
            self.peers[moved].listener = Some(place);
        }
        if room.members.is_empty() {
            self.leave_home(peer.room);
            let room = &self.rooms[peer.room];
            self.room_keys.remove(&room.id);
            self.rooms.remove(peer.room);
            return;
        }
        let mut freed = false;
        for track in &peer.tracks {
            freed |= room.release(track.kind, track.id, Release::Over);
        }
        if freed {
            self.announce_slots(peer.room);
        }
    }

    /// Who holds a slot has changed: to the shell, and to the other replicas. Who is not the home tells it what is live.
    pub(crate) fn announce_slots(&mut self, key: usize) {
        self.slots_changed(key);
        let room = &mut self.rooms[key];
        if !room.is_home() {
            return;
        }
        let mark = Queued::Slots { key, room: room.id };
        self.events.mark(&mut room.slots_queued, mark, &mut self.counters);
    }

    pub(crate) fn announce_speakers(&mut self, key: usize) {
        let room = &mut self.rooms[key];
        let mark = Queued::Speakers { key, room: room.id };
        self.events.mark(&mut room.speakers_queued, mark, &mut self.counters);
    }
}

/// Sizes only: what is inside are keys and addresses.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("sizes", &self.sizes()).finish_non_exhaustive()
    }
}

fn track_infos(tracks: &[Track]) -> Vec<TrackInfo> {
    tracks.iter().map(|track| TrackInfo { mid: track.mid(), kind: track.kind, track: track.id }).collect()
}

/// The n-th m-line of a kind receives the n-th slot of that kind.
fn slot_infos(room: &Room, join: &Join) -> Vec<SlotInfo> {
    let mut next = [0; 2];
    let infos = join.slots.iter().filter_map(|spec| {
        let index = next[spec.kind as usize];
        next[spec.kind as usize] += 1;
        let ssrc = Ssrc(room.slot_ssrc(spec.kind, index)?);
        Some(SlotInfo { mid: spec.mid, kind: spec.kind, index, ssrc })
    });
    infos.collect()
}
