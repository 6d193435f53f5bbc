//! Which peers are on which shard, which string means which number, and what signalling needs to know of each peer. Pure
//! data: no sockets, no time, no waiting. The shards hold the media state; this holds its names.

use std::collections::{BTreeSet, HashMap};

use sfu_control::{NodeEvent, PeerState, SlotAssignment, SlotInfo, TrackKind, TrackState};
use sfu_core::{Command, Event, Joined, PeerId, RoomId, ShardId, ShardSet};

use crate::translate::{gone_reason, kind_from_core, slot_from_core};

/// From here on a shard takes new peers only when the others have as much to do: the rest is for the peers it has.
const LOADED: f32 = 0.75;

#[derive(Debug)]
pub(crate) struct Placement {
    limits: Limits,
    /// Peers of each shard.
    loads: Vec<usize>,
    rooms: HashMap<RoomId, Room>,
    rooms_by_name: HashMap<String, RoomId>,
    peers: HashMap<PeerId, Peer>,
    peers_by_name: HashMap<String, PeerId>,
    /// Rooms whose shards have changed since they were told.
    moved: BTreeSet<RoomId>,
    /// Ids are never used again.
    next: u64,
}

#[derive(Debug)]
struct Room {
    name: String,
    /// Peers on each shard.
    peers: Vec<usize>,
    /// Decides on the slots: a shard that has peers.
    home: usize,
    /// What the shards know; `None` while only one has ever had peers.
    told: Option<Spread>,
    /// As the shard announced them last.
    slots: Vec<sfu_core::SlotAssignment>,
}

#[derive(Debug)]
struct Peer {
    name: String,
    room: RoomId,
    shard: usize,
    meta: String,
    connected: bool,
    idle: bool,
    tracks: Vec<TrackState>,
    slots: Vec<SlotInfo>,
}

/// Where a peer has been placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shard: usize,
    pub(crate) room: RoomId,
    pub(crate) peer: PeerId,
}

/// Bounds of the node and of each room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) peers: usize,
    pub(crate) room_peers: usize,
    /// A room that has this many peers on each of its shards takes another one, if that has less to do. Smaller rooms
    /// stay on one shard: what their peers send to each other then crosses no queue.
    pub(crate) room_share: usize,
}

/// The shards that have peers of a room, and the one that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    home: ShardId,
    shards: ShardSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaceError {
    PeerExists,
    NodeFull,
    RoomFull,
}

impl Placement {
    pub(crate) fn new(shards: usize, limits: Limits) -> Self {
        Self {
            limits,
            loads: vec![0; shards],
            rooms: HashMap::new(),
            rooms_by_name: HashMap::new(),
            peers: HashMap::new(),
            peers_by_name: HashMap::new(),
            moved: BTreeSet::new(),
            next: 1,
        }
    }

    /// `busy`: part of the time that each shard works.
    pub(crate) fn place(&mut self, room: &str, peer: &str, meta: &str, busy: &[f32]) -> Result<Place, PlaceError> {
        if self.peers_by_name.contains_key(peer) {
            return Err(PlaceError::PeerExists);
        }
        if self.peers.len() >= self.limits.peers {
            return Err(PlaceError::NodeFull);
        }
        let known = self.rooms_by_name.get(room).and_then(|id| self.rooms.get(id));
        if known.is_some_and(|room| room.peers.iter().sum::<usize>() >= self.limits.room_peers) {
            return Err(PlaceError::RoomFull);
        }
        let shard = self.choose(known, busy);
        let room_id = self.room_for(room, shard);
        let peer_id = PeerId(self.fresh());
        self.count(room_id, shard, 1);
        let (connected, idle) = (false, false);
        let (tracks, slots) = (Vec::new(), Vec::new());
        let entry = Peer {
            name: peer.to_owned(),
            room: room_id,
            shard,
            meta: meta.to_owned(),
            connected,
            idle,
            tracks,
            slots,
        };
        self.peers.insert(peer_id, entry);
        self.peers_by_name.insert(peer.to_owned(), peer_id);
        Ok(Place { shard, room: room_id, peer: peer_id })
    }

    /// What the shard has answered to the join.
    pub(crate) fn joined(&mut self, peer: PeerId, joined: &Joined) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        entry.slots = joined.slots.iter().map(slot_from_core).collect();
        let track_state = |track: &sfu_core::TrackInfo| TrackState {
            mid: track.mid.as_str().to_owned(),
            kind: kind_from_core(track.kind),
            track: track.track.0,
            live: false,
            muted: false,
        };
        entry.tracks = joined.tracks.iter().map(track_state).collect();
    }

    /// Takes the peer out and gives its name. The room ends with its last peer.
    pub(crate) fn remove(&mut self, peer: PeerId) -> Option<String> {
        let entry = self.peers.remove(&peer)?;
        self.peers_by_name.remove(&entry.name);
        self.count(entry.room, entry.shard, -1);
        Some(entry.name)
    }

    /// What a shard that a peer has just joined must be told of the room, and the others too if it is new to them.
    /// Nothing while the room is on one shard.
    pub(crate) fn spread_by(&self, place: Place) -> Vec<(usize, Command)> {
        let told = self.rooms.get(&place.room).and_then(|room| room.told);
        match self.spread_of(place.room) {
            Some(spread) if told == Some(spread) => vec![(place.shard, command(place.room, spread))],
            Some(spread) if told.is_some() || !is_alone(spread) => commands(place.room, spread),
            _ => Vec::new(),
        }
    }

    /// The rooms that have got or lost shards, and what their shards must be told.
    pub(crate) fn moved(&self) -> Vec<(RoomId, Vec<(usize, Command)>)> {
        let commands = |room: &RoomId| Some((*room, commands(*room, self.spread_of(*room)?)));
        self.moved.iter().filter_map(commands).collect()
    }

    /// Some of its shards may have been told what did not come about.
    pub(crate) fn doubt(&mut self, room: RoomId) {
        if self.rooms.contains_key(&room) {
            self.moved.insert(room);
        }
    }

    pub(crate) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// All shards of the room have been told.
    pub(crate) fn told(&mut self, room: RoomId) {
        self.moved.remove(&room);
        let spread = self.spread_of(room);
        if let Some(room) = self.rooms.get_mut(&room) {
            room.told = spread;
        }
    }

    pub(crate) fn find(&self, peer: &str) -> Option<Place> {
        let peer = *self.peers_by_name.get(peer)?;
        let Peer { room, shard, .. } = *self.peers.get(&peer)?;
        Some(Place { shard, room, peer })
    }

    pub(crate) fn set_meta(&mut self, peer: PeerId, meta: String) {
        if let Some(entry) = self.peers.get_mut(&peer) {
            entry.meta = meta;
        }
    }

    pub(crate) fn set_muted(&mut self, peer: PeerId, kind: TrackKind, muted: bool) {
        if let Some(track) = self.track(peer, kind) {
            track.muted = muted;
        }
    }

    /// Keeps what the event says and puts it into signalling's words. `None` for what concerns nobody who is known.
    pub(crate) fn observe(&mut self, event: Event) -> Option<NodeEvent> {
        match event {
            Event::Connected { peer, srtp_profile, dtls_version } => {
                let entry = self.peers.get_mut(&peer)?;
                entry.connected = true;
                let (srtp_profile, dtls_version) = (srtp_profile.to_owned(), dtls_version.to_owned());
                Some(NodeEvent::Connected { peer: entry.name.clone(), srtp_profile, dtls_version })
            }
            Event::Idle { peer } => {
                let entry = self.peers.get_mut(&peer)?;
                entry.idle = true;
                Some(NodeEvent::Idle { peer: entry.name.clone() })
            }
            Event::Active { peer } => {
                let entry = self.peers.get_mut(&peer)?;
                entry.idle = false;
                Some(NodeEvent::Active { peer: entry.name.clone() })
            }
            Event::Gone { peer, reason } => {
                Some(NodeEvent::Gone { peer: self.remove(peer)?, reason: gone_reason(reason).to_owned() })
            }
            Event::TrackLive { peer, track, kind } => {
                let kind = kind_from_core(kind);
                self.track(peer, kind)?.live = true;
                Some(NodeEvent::TrackLive { peer: self.peers.get(&peer)?.name.clone(), kind, track: track.0 })
            }
            Event::Slots { room, slots } => {
                self.rooms.get_mut(&room)?.slots = slots;
                Some(self.slots_of(self.rooms.get(&room)?))
            }
            Event::Speakers { room, peers } => {
                let room = self.rooms.get(&room)?.name.clone();
                let names = peers.iter().filter_map(|peer| Some(self.peers.get(peer)?.name.clone()));
                Some(NodeEvent::Speakers { room, peers: names.collect() })
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Vec<PeerState> {
        let state = |peer: &Peer| {
            Some(PeerState {
                room: self.rooms.get(&peer.room)?.name.clone(),
                peer: peer.name.clone(),
                meta: peer.meta.clone(),
                connected: peer.connected,
                idle: peer.idle,
                tracks: peer.tracks.clone(),
                slots: peer.slots.clone(),
            })
        };
        self.peers.values().filter_map(state).collect()
    }

    /// Who is in which slot now, one event for each room where anybody is: what a new link has missed.
    pub(crate) fn occupied_slots(&self) -> impl Iterator<Item = NodeEvent> {
        self.rooms.values().filter(|room| !room.slots.is_empty()).map(|room| self.slots_of(room))
    }

    /// Every peer of a shard.
    pub(crate) fn on_shard(&self, shard: usize) -> Vec<PeerId> {
        self.peers.iter().filter(|(_, peer)| peer.shard == shard).map(|(id, _)| *id).collect()
    }

    pub(crate) fn is_muted(&self, peer: PeerId, kind: TrackKind) -> bool {
        let track = self.peers.get(&peer).and_then(|peer| peer.tracks.iter().find(|track| track.kind == kind));
        track.is_some_and(|track| track.muted)
    }

    /// Peers of each shard.
    pub(crate) fn loads(&self) -> &[usize] {
        &self.loads
    }

    pub(crate) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn room_count(&self) -> usize {
        self.rooms.len()
    }

    /// The shard with the least to do, for a room that is there among its own.
    fn choose(&self, room: Option<&Room>, busy: &[f32]) -> usize {
        let weight = |shard: &usize| (busy.get(*shard).is_some_and(|busy| *busy >= LOADED), self.loads[*shard]);
        let lightest = |is_there: bool| {
            let fits = |shard: &usize| room.is_none_or(|room| (room.peers[*shard] > 0) == is_there);
            (0..self.loads.len()).filter(fits).min_by_key(weight)
        };
        let (Some(own), Some(other)) = (lightest(true), lightest(false)) else {
            return lightest(true).or(lightest(false)).unwrap_or(0);
        };
        let is_full = |peers: &usize| *peers == 0 || *peers >= self.limits.room_share;
        let has_share = room.is_none_or(|room| room.peers.iter().all(is_full));
        let may_spill = has_share || (weight(&own).0 && !weight(&other).0);
        if may_spill && weight(&other) < weight(&own) { other } else { own }
    }

    fn room_for(&mut self, name: &str, shard: usize) -> RoomId {
        if let Some(id) = self.rooms_by_name.get(name) {
            return *id;
        }
        let id = RoomId(self.fresh());
        let peers = vec![0; self.loads.len()];
        self.rooms.insert(id, Room { name: name.to_owned(), peers, home: shard, told: None, slots: Vec::new() });
        self.rooms_by_name.insert(name.to_owned(), id);
        id
    }

    /// One peer more or less. The home goes with its last peer to where most of the others are.
    fn count(&mut self, id: RoomId, shard: usize, change: isize) {
        self.loads[shard] = self.loads[shard].saturating_add_signed(change);
        let Some(room) = self.rooms.get_mut(&id) else { return };
        room.peers[shard] = room.peers[shard].saturating_add_signed(change);
        if room.peers[room.home] == 0 {
            let most = (0..room.peers.len()).rev().max_by_key(|shard| room.peers[*shard]).unwrap_or(0);
            room.home = most;
        }
        if room.peers[room.home] == 0 {
            self.rooms_by_name.remove(&room.name);
            self.rooms.remove(&id);
            self.moved.remove(&id);
        } else if change < 0
            && self.rooms.get(&id).is_some_and(|room| room.told.is_some() && room.told != room.spread())
        {
            self.moved.insert(id);
        }
    }

    fn spread_of(&self, room: RoomId) -> Option<Spread> {
        self.rooms.get(&room)?.spread()
    }

    fn fresh(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        id
    }

    fn track(&mut self, peer: PeerId, kind: TrackKind) -> Option<&mut TrackState> {
        self.peers.get_mut(&peer)?.tracks.iter_mut().find(|track| track.kind == kind)
    }

    fn slots_of(&self, room: &Room) -> NodeEvent {
        let slots = room.slots.iter().filter_map(|slot| self.assignment(slot)).collect();
        NodeEvent::Slots { room: room.name.clone(), slots }
    }

    fn assignment(&self, slot: &sfu_core::SlotAssignment) -> Option<SlotAssignment> {
        Some(SlotAssignment {
            kind: kind_from_core(slot.kind),
            index: slot.index,
            peer: self.peers.get(&slot.peer)?.name.clone(),
            track: slot.track.0,
            spare: slot.spare,
        })
    }
}

impl Room {
    fn spread(&self) -> Option<Spread> {
        let shards = (0..self.peers.len()).filter(|shard| self.peers[*shard] > 0).filter_map(ShardId::new).collect();
        Some(Spread { home: ShardId::new(self.home)?, shards })
    }
}

fn is_alone(spread: Spread) -> bool {
    spread.shards.without(spread.home).is_empty()
}

fn commands(room: RoomId, spread: Spread) -> Vec<(usize, Command)> {
    spread.shards.iter().map(|shard| (shard.index(), command(room, spread))).collect()
}

fn command(room: RoomId, Spread { home, shards }: Spread) -> Command {
    Command::Spread { room, home, shards }
}

#[cfg(test)]
mod tests;
