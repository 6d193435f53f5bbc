//! Which room is on which shard, which string means which number, and what signalling needs to know of each peer. Pure
//! data: no sockets, no time, no waiting. The shards hold the media state; this holds its names.

use std::collections::HashMap;

use sfu_control::{NodeEvent, PeerState, SlotAssignment, SlotInfo, TrackKind, TrackState};
use sfu_core::{Event, Joined, PeerId, RoomId};

use crate::translate::{gone_reason, kind_from_core, slot_from_core};

#[derive(Debug)]
pub(crate) struct Placement {
    peers_max: usize,
    /// Peers of each shard.
    loads: Vec<usize>,
    rooms: HashMap<RoomId, Room>,
    rooms_by_name: HashMap<String, RoomId>,
    peers: HashMap<PeerId, Peer>,
    peers_by_name: HashMap<String, PeerId>,
    /// Ids are never used again.
    next: u64,
}

#[derive(Debug)]
struct Room {
    name: String,
    shard: usize,
    peers: usize,
    /// As the shard announced them last.
    slots: Vec<sfu_core::SlotAssignment>,
}

#[derive(Debug)]
struct Peer {
    name: String,
    room: RoomId,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaceError {
    PeerExists,
    NodeFull,
}

impl Placement {
    pub(crate) fn new(shards: usize, peers_max: usize) -> Self {
        Self {
            peers_max,
            loads: vec![0; shards],
            rooms: HashMap::new(),
            rooms_by_name: HashMap::new(),
            peers: HashMap::new(),
            peers_by_name: HashMap::new(),
            next: 1,
        }
    }

    /// A room that is there stays where it is; a new one goes to the shard with the fewest peers.
    pub(crate) fn place(&mut self, room: &str, peer: &str, meta: &str) -> Result<Place, PlaceError> {
        if self.peers_by_name.contains_key(peer) {
            return Err(PlaceError::PeerExists);
        }
        if self.peers.len() >= self.peers_max {
            return Err(PlaceError::NodeFull);
        }
        let (room_id, shard) = self.room_for(room);
        let peer_id = PeerId(self.fresh());
        if let Some(room) = self.rooms.get_mut(&room_id) {
            room.peers += 1;
        }
        self.loads[shard] += 1;
        let (connected, idle) = (false, false);
        let (tracks, slots) = (Vec::new(), Vec::new());
        let entry =
            Peer { name: peer.to_owned(), room: room_id, meta: meta.to_owned(), connected, idle, tracks, slots };
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
        if let Some(room) = self.rooms.get_mut(&entry.room) {
            room.peers -= 1;
            self.loads[room.shard] -= 1;
            if room.peers == 0 {
                self.rooms_by_name.remove(&room.name);
                self.rooms.remove(&entry.room);
            }
        }
        Some(entry.name)
    }

    pub(crate) fn find(&self, peer: &str) -> Option<Place> {
        let peer = *self.peers_by_name.get(peer)?;
        let room = self.peers.get(&peer)?.room;
        Some(Place { shard: self.rooms.get(&room)?.shard, room, peer })
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
        let there = |peer: &Peer| self.rooms.get(&peer.room).is_some_and(|room| room.shard == shard);
        self.peers.iter().filter(|(_, peer)| there(peer)).map(|(id, _)| *id).collect()
    }

    pub(crate) fn is_muted(&self, peer: PeerId, kind: TrackKind) -> bool {
        let track = self.peers.get(&peer).and_then(|peer| peer.tracks.iter().find(|track| track.kind == kind));
        track.is_some_and(|track| track.muted)
    }

    pub(crate) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn room_count(&self) -> usize {
        self.rooms.len()
    }

    fn room_for(&mut self, name: &str) -> (RoomId, usize) {
        if let Some((id, room)) = self.rooms_by_name.get(name).and_then(|id| Some((*id, self.rooms.get(id)?))) {
            return (id, room.shard);
        }
        let shard = (0..self.loads.len()).min_by_key(|shard| self.loads[*shard]).unwrap_or(0);
        let id = RoomId(self.fresh());
        self.rooms.insert(id, Room { name: name.to_owned(), shard, peers: 0, slots: Vec::new() });
        self.rooms_by_name.insert(name.to_owned(), id);
        (id, shard)
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

#[cfg(test)]
mod tests;
