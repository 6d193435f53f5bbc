//! What nodes report by themselves: connections that stand, go silent or end, tracks that are heard, who is in which
//! slot, who speaks.

use std::time::Instant;

use sfu_control::{NodeEvent, SlotAssignment};
use signaling_protocol::ServerMessage;

use super::member::{Joined, Media};
use super::{Place, Rooms};

/// When the node ended the media for a reason that may come again.
const MEDIA_FAILED_RETRY_MS: u64 = 1000;

impl Rooms {
    pub(super) fn node_event(&mut self, now: Instant, node: &str, event: NodeEvent) {
        match event {
            NodeEvent::Connected { peer, .. } => self.media_changed(&peer, |joined| joined.connected = true),
            NodeEvent::TrackLive { peer, track, .. } => self.media_changed(&peer, |joined| {
                joined.tracks.iter_mut().filter(|given| given.csrc == track).for_each(|given| given.live = true);
            }),
            NodeEvent::Idle { peer } => {
                let Some((room, peer)) = self.set_idle(&peer, true) else { return };
                self.remove_if_lost(now, &room, &peer);
            }
            NodeEvent::Active { peer } => drop(self.set_idle(&peer, false)),
            NodeEvent::Gone { peer, reason } => self.media_gone(&peer, &reason),
            NodeEvent::Slots { room, slots } => self.slots_changed(node, &room, slots),
            NodeEvent::Speakers { room, peers } => {
                let known = |peer: &String| self.node_peers.get(peer).map(|(_, peer)| peer.clone());
                let peers = peers.iter().filter_map(known).collect();
                self.broadcast(&room, None, ServerMessage::Speakers { peers });
            }
            // The business of the registry and of the link.
            NodeEvent::Draining { .. } | NodeEvent::Resync {} => {}
        }
    }

    fn media_changed(&mut self, node_peer: &str, change: impl FnOnce(&mut Joined)) {
        let Some((room, peer)) = self.node_peers.get(node_peer).cloned() else { return };
        let Some(member) = self.member_mut(&room, &peer) else { return };
        let before = member.line(&peer);
        if let Some(joined) = member.joined_mut().filter(|joined| joined.node_peer == node_peer) {
            change(joined);
        }
        if member.line(&peer) != before {
            self.announce(&room, &peer);
        }
    }

    fn set_idle(&mut self, node_peer: &str, idle: bool) -> Option<(String, String)> {
        let (room, peer) = self.node_peers.get(node_peer).cloned()?;
        let joined = self.member_mut(&room, &peer)?.joined_mut()?;
        if joined.node_peer == node_peer {
            joined.idle = idle;
        }
        Some((room, peer))
    }

    /// The node ended a media connection by itself.
    fn media_gone(&mut self, node_peer: &str, reason: &str) {
        let Some((room, peer)) = self.node_peers.remove(node_peer) else { return };
        let Some(member) = self.member_mut(&room, &peer) else { return };
        if member.joined().is_none_or(|joined| joined.node_peer != node_peer) {
            return;
        }
        tracing::debug!(%room, %peer, reason, "Media connection ended at the node");
        if member.away.is_some() {
            return self.remove(&room, &peer, "lost");
        }
        member.media = Media::None;
        member.last_slots.clear();
        // One that closed its connection itself knows, and has a reason.
        let conn = member.conn.filter(|_| reason != "closed");
        self.announce(&room, &peer);
        let moved = ServerMessage::Moved { reason: "media_lost".into(), retry_after_ms: Some(MEDIA_FAILED_RETRY_MS) };
        self.send(conn.into_iter().collect(), moved);
        self.release_if_unused(&room);
    }

    fn slots_changed(&mut self, node: &str, room_name: &str, slots: Vec<SlotAssignment>) {
        let Some(room) = self.rooms.get_mut(room_name) else { return };
        if room.place != Place::On(node.to_owned()) {
            return;
        }
        let node_peers = &self.node_peers;
        let ours = |mut slot: SlotAssignment| {
            slot.peer = node_peers.get(&slot.peer).map(|(_, peer)| peer.clone())?;
            Some(slot)
        };
        room.slots = Some(slots.into_iter().filter_map(ours).collect());
        let peers: Vec<_> = room.members.keys().cloned().collect();
        for peer in peers {
            self.send_slots(room_name, &peer, false);
        }
    }

    /// To one member, when its view has changed or `always`.
    pub(super) fn send_slots(&mut self, room_name: &str, peer: &str, always: bool) {
        let Some(room) = self.rooms.get_mut(room_name) else { return };
        let Some(member) = room.members.get_mut(peer) else { return };
        let Some(assignments) = &room.slots else { return };
        let slots = member.view(peer, assignments);
        if !always && slots == member.last_slots {
            return;
        }
        let Some(conn) = member.conn else { return };
        member.last_slots.clone_from(&slots);
        self.send(vec![conn], ServerMessage::Slots { slots });
    }
}
