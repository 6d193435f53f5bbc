//! What goes into [`Rooms`](super::Rooms) and what comes out.

use sfu_control::{ControlError, Fingerprint, NodeEvent, Operation, PeerState, ReplyBody, SlotInfo};
use signaling_protocol::{Member, ServerMessage, TrackKind};

use super::{ConnId, Grant, MediaSpec};
use crate::resume::Participation;
use crate::sdp::Transport;

#[derive(Clone, Debug)]
pub enum Input {
    /// A checked token. `peer` and `nonce` are fresh random texts.
    Hello {
        conn: ConnId,
        re: u64,
        room: String,
        peer: String,
        nonce: String,
        grant: Grant,
    },
    /// A checked resume token.
    Resume {
        conn: ConnId,
        re: u64,
        participation: Participation,
    },
    Request {
        conn: ConnId,
        re: u64,
        request: Request,
    },
    /// The client closed its socket in order: it left.
    SocketClosed {
        conn: ConnId,
    },
    /// The socket broke, went silent or was cut off: the client may come back.
    SocketLost {
        conn: ConnId,
    },
    /// Answer to [`Effect::Place`]; `None` when no node can take the room.
    Placed {
        room: String,
        node: Option<String>,
    },
    /// Answer to [`Effect::Call`].
    CallDone {
        call: u64,
        result: Result<ReplyBody, CallFailure>,
    },
    NodeEvent {
        node: String,
        event: NodeEvent,
    },
    /// A node's link is up (again), and this is what the node holds.
    NodeUp {
        node: String,
        fingerprint: Fingerprint,
        peers: Vec<PeerState>,
    },
    /// A node is gone with everything on it.
    NodeLost {
        node: String,
    },
    Timeout,
}

#[derive(Clone, Debug)]
pub enum Request {
    Offer(Box<MediaSpec>),
    /// `of`: somebody else's track.
    Mute {
        track: TrackKind,
        muted: bool,
        of: Option<String>,
    },
    Signal {
        to: Option<String>,
        data: serde_json::Value,
    },
    Evict {
        peer: String,
    },
    Leave,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CallFailure {
    Refused(ControlError),
    /// It is not known whether the node has carried it out.
    Unanswered,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Welcome {
        conn: ConnId,
        greeting: Box<Greeting>,
    },
    Send {
        to: Vec<ConnId>,
        message: Box<ServerMessage>,
    },
    /// The node's part of an answer; the session writes the SDP, since it has the offer.
    Answer {
        conn: ConnId,
        re: u64,
        answer: Box<NodeAnswer>,
    },
    Close {
        conn: ConnId,
        code: u16,
        reason: &'static str,
    },
    Call {
        node: String,
        call: u64,
        op: Box<Operation>,
    },
    /// Choose a node for this room.
    Place {
        room: String,
    },
    /// The room has no media any more.
    Release {
        room: String,
    },
}

/// `welcome` without what only the shell knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Greeting {
    pub re: u64,
    pub room: String,
    pub peer: String,
    pub nonce: String,
    pub grant: Grant,
    pub resumed: bool,
    pub roster: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeAnswer {
    pub transport: Transport,
    pub slots: Vec<SlotInfo>,
}
