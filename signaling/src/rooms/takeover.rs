//! Taking over running calls: what is kept with each peer at its node, and how rooms are rebuilt from a node's snapshot
//! by a signalling process that was just started, or put right by one whose link was interrupted.

use std::collections::HashSet;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sfu_control::{DtlsRole, Fingerprint, Operation, PeerState};
use signaling_protocol::{Role, ServerMessage, TrackKind};

use super::member::{Joined, Media, Member, muted_of, tracks_of};
use super::{Grant, MediaSpec, Pending, Place, Room, Rooms};

/// The opaque text that a node keeps with a peer: all that a new process needs to know of a participation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    peer: String,
    nonce: String,
    identity: String,
    name: String,
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kinds: Option<Vec<TrackKind>>,
    /// Of the client.
    ufrag: String,
    fingerprint: String,
    /// Of the node.
    dtls_role: DtlsRole,
}

impl Meta {
    pub(super) fn of(peer: &str, member: &Member, spec: &MediaSpec) -> Self {
        let Grant { identity, name, role, kinds } = member.grant.clone();
        Self {
            peer: peer.to_owned(),
            nonce: member.nonce.clone(),
            identity,
            name,
            role,
            kinds,
            ufrag: spec.ice.ufrag.clone(),
            fingerprint: spec.fingerprint.value.clone(),
            dtls_role: spec.dtls_role,
        }
    }

    pub(super) fn to_text(&self) -> String {
        // Strings and enums only: cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Rooms {
    /// The first snapshot of a node brings its peers in, all `away`. In later ones an unknown peer is one that ended
    /// while the link was down: it is told to leave.
    pub(super) fn node_up(&mut self, now: Instant, node: &str, fingerprint: &Fingerprint, peers: Vec<PeerState>) {
        let first = self.nodes_seen.insert(node.to_owned());
        if peers.is_empty() {
            // It was started anew: one message a room in place of one for each pair of members.
            self.node_lost(node);
        }
        let present: HashSet<String> = peers.iter().map(|state| state.peer.clone()).collect();
        self.end_missing(node, &present);
        for state in peers {
            match self.node_peers.get(&state.peer).cloned() {
                Some((room, peer)) => self.reconcile(&room, &peer, &state),
                None if first => self.take_over(now, node, fingerprint, &state),
                None => self.disown(node, &state),
            }
        }
        let due = std::mem::take(&mut self.parked);
        for parked in due {
            if self.member(&parked.participation.room, &parked.participation.peer).is_some() {
                self.resume(now, parked.conn, parked.re, parked.participation);
            } else {
                self.parked.push(parked);
            }
        }
    }

    /// Media connections that the node no longer has.
    fn end_missing(&mut self, node: &str, present: &HashSet<String>) {
        let mut missing = Vec::new();
        for (room_name, room) in &mut self.rooms {
            for (peer, member) in &mut room.members {
                let gone = |joined: &Joined| joined.node == node && !present.contains(&joined.node_peer);
                if member.joined().is_some_and(gone) {
                    member.last_slots.clear();
                    let Media::Joined(joined) = std::mem::replace(&mut member.media, Media::None) else { continue };
                    missing.push((room_name.clone(), peer.clone(), member.conn, joined.node_peer));
                }
            }
        }
        for (room, peer, conn, node_peer) in missing {
            self.node_peers.remove(&node_peer);
            self.announce(&room, &peer);
            let moved = ServerMessage::Moved { reason: "media_lost".into(), retry_after_ms: None };
            self.send(conn.into_iter().collect(), moved);
            self.release_if_unused(&room);
        }
    }

    fn reconcile(&mut self, room: &str, peer: &str, state: &PeerState) {
        let Some(member) = self.member_mut(room, peer) else { return };
        let ours = member.joined().is_some_and(|joined| joined.node_peer == state.peer);
        if ours && member.reconcile(state) {
            self.announce(room, peer);
        }
    }

    fn take_over(&mut self, now: Instant, node: &str, fingerprint: &Fingerprint, state: &PeerState) {
        let Ok(meta) = serde_json::from_str::<Meta>(&state.meta) else {
            tracing::warn!(node, "Ended a media connection of unknown origin");
            return self.disown(node, state);
        };
        let generation = state.peer.rsplit_once('.').and_then(|(_, generation)| generation.parse().ok());
        let (Some(generation), true) = (generation, self.can_take_over(node, state, &meta)) else {
            return self.disown(node, state);
        };
        let room = self.rooms.entry(state.room.clone()).or_insert_with(Room::new);
        room.place = Place::On(node.to_owned());
        room.slots = None;
        let grant = Grant { identity: meta.identity, name: meta.name, role: meta.role, kinds: meta.kinds };
        let mut member = Member::new(grant, meta.nonce, None);
        member.generation = generation;
        member.muted = muted_of(state);
        member.media = Media::Joined(Box::new(Joined {
            node: node.to_owned(),
            node_peer: state.peer.clone(),
            ufrag: meta.ufrag,
            fingerprint: meta.fingerprint,
            transport: None,
            node_fingerprint: fingerprint.clone(),
            dtls_role: meta.dtls_role,
            tracks: tracks_of(state),
            slots: state.slots.clone(),
            connected: state.connected,
            // Everybody gets the whole grace: a quiet listener may look idle for a moment.
            idle: false,
            restarting: false,
        }));
        room.members.insert(meta.peer.clone(), member);
        self.node_peers.insert(state.peer.clone(), (state.room.clone(), meta.peer.clone()));
        self.set_away(now, &state.room, &meta.peer);
        self.announce(&state.room, &meta.peer);
    }

    fn can_take_over(&self, node: &str, state: &PeerState, meta: &Meta) -> bool {
        match self.rooms.get(&state.room) {
            None => self.rooms.len() < self.limits.rooms_max,
            Some(room) => {
                // Somebody may have been faster and got the room another node.
                let here = match &room.place {
                    Place::On(other) => other == node,
                    Place::None | Place::Asked => true,
                };
                here && room.members.len() < self.limits.members_max && !room.members.contains_key(&meta.peer)
            }
        }
    }

    fn disown(&mut self, node: &str, state: &PeerState) {
        self.call(node.to_owned(), Operation::Leave { peer: state.peer.clone() }, Pending::Nothing);
    }
}
