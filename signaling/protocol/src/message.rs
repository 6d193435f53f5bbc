//! The messages. Unknown fields are ignored; an unknown `type` is refused with `unknown_type` and the socket stays open.

use serde::{Deserialize, Serialize};

/// The only version so far; `hello.protocol` may be left out and then means this one.
pub const PROTOCOL_VERSION: u32 = 1;
/// WebSocket subprotocol name.
pub const SUBPROTOCOL: &str = "carillon.v1";

/// Client to server. `id` is chosen by the client and comes back as `re`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// First message, within 5 s of the upgrade. Exactly one of `token` and `resume`.
    Hello {
        id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resume: Option<String>,
        /// Display name, at most 64 characters; the token's `name` wins.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<u32>,
    },
    /// The client always offers. The first offer joins; a later one with new ICE credentials restarts ICE; one with a new
    /// DTLS fingerprint replaces the media connection.
    Offer {
        id: u64,
        sdp: String,
        /// What each audio m-line is for. Left out: see [`MediaUse`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        media: Vec<MediaUse>,
    },
    /// Own track, or (moderators) the track of `peer`.
    Mute {
        id: u64,
        track: TrackKind,
        muted: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
    },
    /// Application data for one peer of the room, or for all others without `to`. At most 16 KiB as JSON.
    Signal {
        id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        data: serde_json::Value,
    },
    /// Moderators only: ends another participation.
    Evict {
        id: u64,
        peer: String,
    },
    Leave {
        id: u64,
    },
}

/// Without this list: m-lines that send are `mic`, then `program`; those that only receive are `speech_slot`, except the
/// last ones (at most `limits.program_slots`) whose Opus fmtp says `stereo=1`, which are `program_slot`; `sendrecv` is both
/// a source and a speech slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaUse {
    pub mid: String,
    #[serde(rename = "use")]
    pub use_: MediaRole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaRole {
    Mic,
    Program,
    SpeechSlot,
    ProgramSlot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackKind {
    Mic,
    Program,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Receives only.
    Listener,
    /// Sends microphone and program sound, receives.
    Speaker,
    /// Sends only.
    Publisher,
    /// A speaker that may mute and evict others.
    Moderator,
}

/// Without its fields: they hold credentials and SDP.
impl std::fmt::Debug for ClientMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Hello { .. } => "Hello",
            Self::Offer { .. } => "Offer",
            Self::Mute { .. } => "Mute",
            Self::Signal { .. } => "Signal",
            Self::Evict { .. } => "Evict",
            Self::Leave { .. } => "Leave",
        };
        f.debug_struct(name).field("id", &self.id()).finish_non_exhaustive()
    }
}

impl ClientMessage {
    /// Comes back as `re`.
    #[must_use]
    pub fn id(&self) -> u64 {
        match self {
            Self::Hello { id, .. }
            | Self::Offer { id, .. }
            | Self::Mute { id, .. }
            | Self::Signal { id, .. }
            | Self::Evict { id, .. }
            | Self::Leave { id } => *id,
        }
    }
}

/// Server to client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    Welcome(Box<Welcome>),
    Answer {
        re: u64,
        sdp: String,
    },
    Ok {
        re: u64,
    },
    Error {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        re: Option<u64>,
        #[serde(flatten)]
        error: ProtocolError,
    },
    /// A participant came, or something about it (tracks, name, `away`, `connected`) changed: replaces the roster line.
    Joined {
        member: Member,
    },
    Left {
        peer: String,
        reason: String,
    },
    /// State of one track changed. `by` is the peer that did it.
    Mute {
        peer: String,
        track: TrackKind,
        muted: bool,
        by: String,
    },
    /// Complete list of the occupied slots, with the receiver's own mids. Own sources are not in it.
    Slots {
        slots: Vec<Slot>,
    },
    /// Who speaks now, loudest first.
    Speakers {
        peers: Vec<String>,
    },
    Signal {
        from: String,
        data: serde_json::Value,
    },
    /// The media connection is lost and a new one must be offered (`reason`: `node_lost` and `node_drain` for everybody in
    /// the room, `media_lost` for this peer), or this socket was replaced by a `resume` elsewhere (`replaced`), or a
    /// moderator evicted this peer (`evicted`).
    Moved {
        reason: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// New TURN credentials before the old ones expire.
    IceServers {
        ice_servers: Vec<IceServer>,
    },
}

impl ServerMessage {
    /// The `id` of the request that this answers.
    #[must_use]
    pub fn re(&self) -> Option<u64> {
        match self {
            Self::Welcome(welcome) => Some(welcome.re),
            Self::Answer { re, .. } | Self::Ok { re } => Some(*re),
            Self::Error { re, .. } => *re,
            Self::Joined { .. }
            | Self::Left { .. }
            | Self::Mute { .. }
            | Self::Slots { .. }
            | Self::Speakers { .. }
            | Self::Signal { .. }
            | Self::Moved { .. }
            | Self::IceServers { .. } => None,
        }
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub re: u64,
    pub protocol: u32,
    pub room: String,
    /// Own peer id.
    pub peer: String,
    pub role: Role,
    /// True after a `resume`: the media connection still stands.
    pub resumed: bool,
    pub ice_servers: Vec<IceServer>,
    /// Everyone in the room, oneself included.
    pub roster: Vec<Member>,
    /// Opaque; good until `limits.resume_grace_ms` after the socket is lost. A second use replaces the first socket.
    pub resume: String,
    pub limits: Limits,
}

/// Without the resume token.
impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome")
            .field("room", &self.room)
            .field("peer", &self.peer)
            .field("role", &self.role)
            .field("resumed", &self.resumed)
            .field("roster", &self.roster)
            .finish_non_exhaustive()
    }
}

/// As `RTCIceServer` of the browsers.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct IceServer {
    pub urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub peer: String,
    pub identity: String,
    pub name: String,
    pub role: Role,
    /// Media connection stands.
    pub connected: bool,
    /// The socket is lost and the resume grace runs.
    pub away: bool,
    pub tracks: Vec<Track>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    pub kind: TrackKind,
    /// The CSRC of its packets, as `getContributingSources()` shows it.
    pub csrc: u32,
    pub muted: bool,
    /// Packets have been forwarded.
    pub live: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The receiver's m-line.
    pub mid: String,
    pub kind: TrackKind,
    pub peer: String,
    pub csrc: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Speech slots that a room has; more m-lines stay silent.
    pub speech_slots: u8,
    pub program_slots: u8,
    pub message_bytes_max: u32,
    pub resume_grace_ms: u32,
    pub ping_interval_ms: u32,
}

/// `code` is stable and for programs (list in README.md); `message` says what is wrong; `hint` what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ProtocolError {
    pub code: String,
    pub message: String,
    pub hint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}
