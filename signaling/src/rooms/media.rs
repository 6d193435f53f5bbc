//! Media connections of the members: placing a room, joining at its node, ICE restarts, mutes, and what nodes report.

use sfu_control::{
    ControlError, DtlsRole, Fingerprint, HeaderProfile, IceParameters, Join, Operation, ReplyBody, SlotSpec,
    TrackSpec,
};
use signaling_protocol::{ProtocolError, Role, ServerMessage, Track, TrackKind};

use super::member::{Joined, Media, Member};
use super::{CallFailure, ConnId, Effect, Meta, NodeAnswer, Place, Rooms};
use crate::codes::Code;
use crate::sdp::{Offer, Transport, protocol_kind};

/// When a client that lost its media may offer again: at once, a little spread by its own round trip.
const MEDIA_RETRY_MS: u64 = 250;
const NO_NODE_RETRY_MS: u64 = 1000;

/// What an offer asks of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaSpec {
    pub ice: IceParameters,
    pub fingerprint: Fingerprint,
    pub dtls_role: DtlsRole,
    pub profile: HeaderProfile,
    /// The participant's media connection on the same node ends for this one.
    pub replaces: bool,
    pub tracks: Vec<TrackSpec>,
    pub slots: Vec<SlotSpec>,
}

impl From<&Offer> for MediaSpec {
    fn from(offer: &Offer) -> Self {
        Self {
            ice: offer.ice.clone(),
            fingerprint: offer.fingerprint.clone(),
            dtls_role: offer.dtls_role,
            profile: offer.profile,
            replaces: false,
            tracks: offer.tracks(),
            slots: offer.slots(),
        }
    }
}

/// What an answer of a node is for.
#[derive(Clone, Debug)]
pub enum Pending {
    Join {
        room: String,
        peer: String,
        node: String,
        node_peer: String,
        conn: ConnId,
        re: u64,
        spec: Box<MediaSpec>,
    },
    Restart {
        room: String,
        peer: String,
        node_peer: String,
        conn: ConnId,
        re: u64,
        ufrag: String,
    },
    Mute {
        room: String,
        peer: String,
        track: TrackKind,
        muted: bool,
        by: String,
        conn: ConnId,
        re: u64,
    },
    /// Nobody waits.
    Nothing,
}

impl Rooms {
    /// First offer: join. Another certificate: a new media connection for the same participation. Other ICE credentials:
    /// ICE restart. Nothing new (a renegotiated direction): the same answer again, and the node is not asked.
    pub(super) fn offer(&mut self, room: &str, peer: &str, conn: ConnId, re: u64, spec: MediaSpec) {
        let Some(member) = self.member_mut(room, peer) else { return };
        let Media::Joined(joined) = &mut member.media else {
            if matches!(member.media, Media::Placing { .. } | Media::Joining { .. }) {
                return self.refuse(conn, re, Code::Busy.error("the offer before is not answered yet"));
            }
            return self.start_media(room, peer, conn, re, spec);
        };
        if joined.restarting {
            return self.refuse(conn, re, Code::Busy.error("the offer before is not answered yet"));
        }
        if joined.fingerprint != spec.fingerprint.value {
            let old = std::mem::replace(&mut member.media, Media::None);
            self.leave_node(&old);
            self.announce(room, peer);
            return self.start_media(room, peer, conn, re, MediaSpec { replaces: true, ..spec });
        }
        if joined.ufrag == spec.ice.ufrag {
            return match &joined.transport {
                Some(transport) => {
                    let answer = NodeAnswer { transport: transport.clone(), slots: joined.slots.clone() };
                    self.answer(conn, re, answer);
                }
                None => self.refuse(conn, re, Code::MediaRefused.error("offer an ICE restart after a resume")),
            };
        }
        joined.restarting = true;
        let (node, node_peer) = (joined.node.clone(), joined.node_peer.clone());
        let ufrag = spec.ice.ufrag.clone();
        let pending =
            Pending::Restart { room: room.into(), peer: peer.into(), node_peer: node_peer.clone(), conn, re, ufrag };
        self.call(node, Operation::RestartIce { peer: node_peer, ice: spec.ice }, pending);
    }

    fn start_media(&mut self, room_name: &str, peer: &str, conn: ConnId, re: u64, spec: MediaSpec) {
        let Some(room) = self.rooms.get_mut(room_name) else { return };
        match &room.place {
            Place::On(node) => {
                let node = node.clone();
                self.join_node(room_name, peer, node, conn, re, spec);
            }
            Place::None | Place::Asked => {
                let ask = room.place == Place::None;
                room.place = Place::Asked;
                if let Some(member) = room.members.get_mut(peer) {
                    member.media = Media::Placing { conn, re, spec: Box::new(spec) };
                }
                if ask {
                    self.effects.push(Effect::Place { room: room_name.to_owned() });
                }
            }
        }
    }

    fn join_node(&mut self, room: &str, peer: &str, node: String, conn: ConnId, re: u64, spec: MediaSpec) {
        let Some(member) = self.member_mut(room, peer) else { return };
        member.generation += 1;
        let node_peer = format!("{peer}.{}", member.generation);
        member.media = Media::Joining { node: node.clone(), node_peer: node_peer.clone() };
        let meta = Meta::of(peer, member, &spec).to_text();
        let join = Join {
            room: room.to_owned(),
            peer: node_peer.clone(),
            meta,
            ice: spec.ice.clone(),
            fingerprint: spec.fingerprint.clone(),
            dtls_role: spec.dtls_role,
            profile: spec.profile,
            replaces: spec.replaces,
            tracks: spec.tracks.clone(),
            slots: spec.slots.clone(),
        };
        self.node_peers.insert(node_peer.clone(), (room.to_owned(), peer.to_owned()));
        let pending = Pending::Join {
            room: room.into(),
            peer: peer.into(),
            node: node.clone(),
            node_peer,
            conn,
            re,
            spec: Box::new(spec),
        };
        self.call(node, Operation::Join(join), pending);
    }

    pub(super) fn placed(&mut self, room_name: &str, node: Option<String>) {
        let Some(room) = self.rooms.get_mut(room_name) else {
            return self.effects.push(Effect::Release { room: room_name.to_owned() });
        };
        // A takeover may have named the node in the meantime.
        let node = if let Place::On(node) = &room.place { Some(node.clone()) } else { node };
        room.place = node.clone().map_or(Place::None, Place::On);
        let mut waiting = Vec::new();
        for (peer, member) in &mut room.members {
            if let Media::Placing { conn, re, spec } = &member.media {
                waiting.push((peer.clone(), *conn, *re, spec.clone()));
                member.media = Media::None;
            }
        }
        for (peer, conn, re, spec) in waiting {
            match &node {
                Some(node) => self.join_node(room_name, &peer, node.clone(), conn, re, *spec),
                None => {
                    let error = Code::NoNode.error_retry("no media node is there to take the room", NO_NODE_RETRY_MS);
                    self.refuse(conn, re, error);
                }
            }
        }
        self.release_if_unused(room_name);
    }

    pub(super) fn call_done(&mut self, call: u64, result: Result<ReplyBody, CallFailure>) {
        match self.calls.remove(&call) {
            Some(Pending::Join { room, peer, node, node_peer, conn, re, spec }) => match result {
                Ok(ReplyBody::Joined(reply)) => {
                    self.join_done(&room, &peer, node, &node_peer, conn, re, &spec, reply);
                }
                other => self.join_failed(&room, &peer, node, &node_peer, conn, re, other),
            },
            Some(Pending::Restart { room, peer, node_peer, conn, re, ufrag }) => {
                self.restart_done(&room, &peer, &node_peer, conn, re, ufrag, result);
            }
            Some(Pending::Mute { room, peer, track, muted, by, conn, re }) => match result {
                Ok(_) => {
                    self.reply_ok(conn, re);
                    self.track_muted(&room, &peer, track, muted, by);
                }
                Err(failure) => self.refuse(conn, re, node_error(failure)),
            },
            Some(Pending::Nothing) | None => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one pending call and its reply")]
    fn join_done(
        &mut self,
        room: &str,
        peer: &str,
        node: String,
        node_peer: &str,
        conn: ConnId,
        re: u64,
        spec: &MediaSpec,
        reply: sfu_control::Joined,
    ) {
        let is_expected = |member: &Member| matches!(&member.media, Media::Joining { node_peer: expected, .. } if *expected == node_peer);
        let here = self.rooms.get(room).is_some_and(|room| room.place == Place::On(node.clone()));
        let Some(member) = self.member_mut(room, peer).filter(|member| here && is_expected(member)) else {
            // It left in the meantime, or the node was given up.
            return self.join_failed(room, peer, node, node_peer, conn, re, Err(CallFailure::Unanswered));
        };
        let track = |info: &sfu_control::TrackInfo| {
            let kind = protocol_kind(info.kind);
            Track { kind, csrc: info.track, muted: false, live: false }
        };
        let tracks: Vec<_> = reply.tracks.iter().map(track).collect();
        let muted: Vec<_> = member.muted.iter().copied().collect();
        let transport = Transport {
            ice: reply.ice,
            fingerprint: reply.fingerprint.clone(),
            dtls_role: reply.dtls_role,
            candidates: reply.candidates,
        };
        member.media = Media::Joined(Box::new(Joined {
            node: node.clone(),
            node_peer: node_peer.to_owned(),
            ufrag: spec.ice.ufrag.clone(),
            fingerprint: spec.fingerprint.value.clone(),
            transport: Some(transport.clone()),
            node_fingerprint: reply.fingerprint,
            dtls_role: reply.dtls_role,
            tracks,
            slots: reply.slots.clone(),
            connected: false,
            idle: false,
            restarting: false,
        }));
        // Before the answer goes out, so that nothing of a muted track can be forwarded.
        for kind in muted {
            self.mute_again(room, peer, &node, node_peer, kind);
        }
        let answer = NodeAnswer { transport, slots: reply.slots };
        self.answer(conn, re, answer);
        self.announce(room, peer);
        self.send_slots(room, peer, false);
    }

    fn mute_again(&mut self, room: &str, peer: &str, node: &str, node_peer: &str, kind: TrackKind) {
        let Some(joined) = self.member_mut(room, peer).and_then(Member::joined_mut) else { return };
        let Some(track) = joined.tracks.iter_mut().find(|track| track.kind == kind) else { return };
        track.muted = true;
        let mute = Operation::Mute { peer: node_peer.to_owned(), kind: control_kind(kind), muted: true };
        self.call(node.to_owned(), mute, Pending::Nothing);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one pending call and its reply")]
    fn join_failed(
        &mut self,
        room: &str,
        peer: &str,
        node: String,
        node_peer: &str,
        conn: ConnId,
        re: u64,
        result: Result<ReplyBody, CallFailure>,
    ) {
        self.node_peers.remove(node_peer);
        if let Some(member) = self.member_mut(room, peer)
            && matches!(&member.media, Media::Joining { node_peer: expected, .. } if expected == node_peer)
        {
            member.media = Media::None;
        }
        let error = match result {
            Err(failure) => {
                if failure == CallFailure::Unanswered {
                    self.call(node, Operation::Leave { peer: node_peer.to_owned() }, Pending::Nothing);
                }
                node_error(failure)
            }
            Ok(_) => Code::MediaRefused.error("media node answered with something else"),
        };
        self.refuse(conn, re, error);
        self.release_if_unused(room);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one pending call and its reply")]
    fn restart_done(
        &mut self,
        room: &str,
        peer: &str,
        node_peer: &str,
        conn: ConnId,
        re: u64,
        ufrag: String,
        result: Result<ReplyBody, CallFailure>,
    ) {
        let joined = self.member_mut(room, peer).and_then(Member::joined_mut);
        let Some(joined) = joined.filter(|joined| joined.node_peer == node_peer) else {
            let error = Code::NodeUnreachable.error_retry("the media connection ended meanwhile", MEDIA_RETRY_MS);
            return self.refuse(conn, re, error);
        };
        joined.restarting = false;
        match result {
            Ok(ReplyBody::Restarted { ice, candidates }) => {
                joined.ufrag = ufrag;
                let fingerprint = joined.node_fingerprint.clone();
                let transport = Transport { ice, fingerprint, dtls_role: joined.dtls_role, candidates };
                joined.transport = Some(transport.clone());
                let answer = NodeAnswer { transport, slots: joined.slots.clone() };
                self.answer(conn, re, answer);
            }
            Ok(_) => self.refuse(conn, re, Code::MediaRefused.error("media node answered with something else")),
            Err(failure) => self.refuse(conn, re, node_error(failure)),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    pub(super) fn mute(
        &mut self,
        room: &str,
        by: &str,
        conn: ConnId,
        re: u64,
        track: TrackKind,
        muted: bool,
        of: Option<String>,
    ) {
        let peer = of.unwrap_or_else(|| by.to_owned());
        if peer != by {
            if self.role_of(room, by) != Some(Role::Moderator) {
                return self.refuse(conn, re, Code::RoleForbids.error("only moderators may mute others"));
            }
            if !muted {
                let error = Code::RoleForbids.error("nobody may switch on somebody else's track: ask them");
                return self.refuse(conn, re, error);
            }
        }
        let Some(member) = self.member(room, &peer) else {
            return self.refuse(conn, re, Code::NoSuchPeer.error("no such peer in this room"));
        };
        let has_track = |joined: &&Joined| joined.tracks.iter().any(|given| given.kind == track);
        let Some(joined) = member.joined().filter(has_track) else {
            return self.refuse(conn, re, Code::NoSuchTrack.error("this peer has no such track"));
        };
        let (node, node_peer) = (joined.node.clone(), joined.node_peer.clone());
        let pending = Pending::Mute { room: room.into(), peer, track, muted, by: by.into(), conn, re };
        self.call(node, Operation::Mute { peer: node_peer, kind: control_kind(track), muted }, pending);
    }

    fn track_muted(&mut self, room: &str, peer: &str, track: TrackKind, muted: bool, by: String) {
        let Some(member) = self.member_mut(room, peer) else { return };
        if muted {
            member.muted.insert(track)
        } else {
            member.muted.remove(&track)
        };
        let Some(joined) = member.joined_mut() else { return };
        let Some(changed) = joined.tracks.iter_mut().find(|given| given.kind == track) else { return };
        changed.muted = muted;
        self.broadcast(room, None, ServerMessage::Mute { peer: peer.to_owned(), track, muted, by });
    }

    /// A node is gone: everybody on it has to offer again.
    pub(super) fn node_lost(&mut self, node: &str) {
        let on_node =
            |(name, room): (&String, &super::Room)| (room.place == Place::On(node.to_owned())).then(|| name.clone());
        let rooms: Vec<_> = self.rooms.iter().filter_map(on_node).collect();
        for room_name in rooms {
            let Some(room) = self.rooms.get_mut(&room_name) else { continue };
            room.place = Place::None;
            room.slots = Some(Vec::new());
            for member in room.members.values_mut().filter(|member| member.media_stands()) {
                member.media = Media::None;
                member.last_slots.clear();
            }
            self.node_peers.retain(|_, (of, _)| *of != room_name);
            let moved = ServerMessage::Moved { reason: "node_lost".into(), retry_after_ms: Some(MEDIA_RETRY_MS) };
            self.broadcast(&room_name, None, moved);
            self.effects.push(Effect::Release { room: room_name });
        }
    }

    /// The media of a member that is being removed.
    pub(super) fn end_media(&mut self, member: &Member) {
        self.leave_node(&member.media);
    }

    fn leave_node(&mut self, media: &Media) {
        // One that is still joining is left when its answer comes.
        let Media::Joined(joined) = media else { return };
        self.node_peers.remove(&joined.node_peer);
        self.call(joined.node.clone(), Operation::Leave { peer: joined.node_peer.clone() }, Pending::Nothing);
    }

    /// A room without media is free to go to another node.
    pub(super) fn release_if_unused(&mut self, room_name: &str) {
        let Some(room) = self.rooms.get_mut(room_name) else { return };
        if matches!(room.place, Place::On(_)) && !room.members.values().any(|member| member.node().is_some()) {
            room.place = Place::None;
            room.slots = Some(Vec::new());
            self.effects.push(Effect::Release { room: room_name.to_owned() });
        }
    }

    fn answer(&mut self, conn: ConnId, re: u64, answer: NodeAnswer) {
        if self.conns.contains_key(&conn) {
            self.effects.push(Effect::Answer { conn, re, answer: Box::new(answer) });
        }
    }

    pub(super) fn call(&mut self, node: String, op: Operation, pending: Pending) {
        let call = self.next_call;
        self.next_call += 1;
        self.calls.insert(call, pending);
        self.effects.push(Effect::Call { node, call, op: Box::new(op) });
    }
}

fn control_kind(kind: TrackKind) -> sfu_control::TrackKind {
    match kind {
        TrackKind::Mic => sfu_control::TrackKind::Mic,
        TrackKind::Program => sfu_control::TrackKind::Program,
    }
}

fn node_error(failure: CallFailure) -> ProtocolError {
    match failure {
        CallFailure::Unanswered => Code::NodeUnreachable.error_retry("media node did not answer", NO_NODE_RETRY_MS),
        CallFailure::Refused(ControlError { code, message, hint, retry_after_s }) => {
            let mut error = Code::MediaRefused.error(format!("media node refused: {message} ({code})"));
            if !hint.is_empty() {
                error.hint = hint;
            }
            error.retry_after_ms = retry_after_s.map(|seconds| u64::from(seconds) * 1000);
            error
        }
    }
}
