//! One participation: who it is, its socket, and its media connection.

use std::collections::BTreeSet;
use std::time::Instant;

use sfu_control::{PeerState, SlotAssignment, SlotInfo};
use signaling_protocol::{Member as RosterLine, Slot, Track, TrackKind};

use super::{ConnId, Grant, MediaSpec};
use crate::sdp::{Transport, protocol_kind};

#[derive(Debug)]
pub(super) struct Member {
    pub grant: Grant,
    /// In the resume tokens of this participation and in no others.
    pub nonce: String,
    pub conn: Option<ConnId>,
    pub away: Option<Away>,
    pub media: Media,
    /// Counts the media connections: makes the node's peer ids.
    pub generation: u32,
    /// Outlives the media connection.
    pub muted: BTreeSet<TrackKind>,
    pub last_slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Away {
    pub since: Instant,
    pub until: Instant,
}

#[derive(Debug)]
pub(super) enum Media {
    None,
    /// Waits for a node.
    Placing {
        conn: ConnId,
        re: u64,
        spec: Box<MediaSpec>,
    },
    /// The node has been asked.
    Joining {
        node: String,
        node_peer: String,
    },
    Joined(Box<Joined>),
}

#[derive(Debug)]
pub(super) struct Joined {
    pub node: String,
    pub node_peer: String,
    /// Of the client: which change of them means what, see [`Rooms::offer`](super::Rooms::offer).
    pub ufrag: String,
    pub fingerprint: String,
    /// Unknown after a takeover, until the next ICE restart.
    pub transport: Option<Transport>,
    pub node_fingerprint: sfu_control::Fingerprint,
    pub dtls_role: sfu_control::DtlsRole,
    pub tracks: Vec<Track>,
    pub slots: Vec<SlotInfo>,
    pub connected: bool,
    pub idle: bool,
    pub restarting: bool,
}

impl Member {
    pub(super) fn new(grant: Grant, nonce: String, conn: Option<ConnId>) -> Self {
        Self {
            grant,
            nonce,
            conn,
            away: None,
            media: Media::None,
            generation: 0,
            muted: BTreeSet::new(),
            last_slots: Vec::new(),
        }
    }

    pub(super) fn line(&self, peer: &str) -> RosterLine {
        let joined = self.joined();
        RosterLine {
            peer: peer.to_owned(),
            identity: self.grant.identity.clone(),
            name: self.grant.name.clone(),
            role: self.grant.role,
            connected: joined.is_some_and(|joined| joined.connected),
            away: self.away.is_some(),
            tracks: joined.map(|joined| joined.tracks.clone()).unwrap_or_default(),
        }
    }

    pub(super) fn joined(&self) -> Option<&Joined> {
        if let Media::Joined(joined) = &self.media { Some(joined) } else { None }
    }

    pub(super) fn joined_mut(&mut self) -> Option<&mut Joined> {
        if let Media::Joined(joined) = &mut self.media { Some(joined) } else { None }
    }

    pub(super) fn media_stands(&self) -> bool {
        self.joined().is_some()
    }

    pub(super) fn media_is_idle(&self) -> bool {
        self.joined().is_some_and(|joined| joined.idle)
    }

    /// The node that this member's media is on or on its way to.
    pub(super) fn node(&self) -> Option<&str> {
        match &self.media {
            Media::Joined(joined) => Some(&joined.node),
            Media::Joining { node, .. } => Some(node),
            Media::None | Media::Placing { .. } => None,
        }
    }

    /// The occupied slots as this member sees them: by its own mids, without its own sources. Where its own voice is, it
    /// hears the spare one.
    pub(super) fn view(&self, own: &str, assignments: &[SlotAssignment]) -> Vec<Slot> {
        let Some(joined) = self.joined() else { return Vec::new() };
        let seen = |slot: &SlotInfo| {
            let occupied = |given: &&SlotAssignment| given.kind == slot.kind && given.index == slot.index;
            let assignment = match assignments.iter().find(occupied)? {
                own_voice if own_voice.peer == own && slot.kind == sfu_control::TrackKind::Mic => {
                    assignments.iter().find(|given| given.spare).filter(|spare| spare.peer != own)?
                }
                given => Some(given).filter(|given| given.peer != own)?,
            };
            Some(Slot {
                mid: slot.mid.clone(),
                kind: protocol_kind(slot.kind),
                peer: assignment.peer.clone(),
                csrc: assignment.track,
            })
        };
        joined.slots.iter().filter_map(seen).collect()
    }

    /// Takes over what the node says; true when the roster line changed.
    pub(super) fn reconcile(&mut self, state: &PeerState) -> bool {
        let Some(joined) = self.joined_mut() else { return false };
        let before = (joined.connected, joined.tracks.clone());
        joined.connected = state.connected;
        joined.slots.clone_from(&state.slots);
        joined.tracks = tracks_of(state);
        let changed = before != (joined.connected, joined.tracks.clone());
        self.muted = muted_of(state);
        changed
    }
}

pub(super) fn tracks_of(state: &PeerState) -> Vec<Track> {
    let track = |track: &sfu_control::TrackState| Track {
        kind: protocol_kind(track.kind),
        csrc: track.track,
        muted: track.muted,
        live: track.live,
    };
    state.tracks.iter().map(track).collect()
}

pub(super) fn muted_of(state: &PeerState) -> BTreeSet<TrackKind> {
    state.tracks.iter().filter(|track| track.muted).map(|track| protocol_kind(track.kind)).collect()
}
