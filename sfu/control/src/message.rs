//! Messages of the control link. Room and peer ids are strings chosen by signalling.

use serde::{Deserialize, Serialize};

/// Signalling to node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    #[serde(flatten)]
    pub op: Operation,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation {
    Join(Join),
    RestartIce {
        peer: String,
        ice: IceParameters,
    },
    Mute {
        peer: String,
        kind: TrackKind,
        muted: bool,
    },
    /// Replaces the opaque text kept with the peer.
    SetMeta {
        peer: String,
        meta: String,
    },
    Leave {
        peer: String,
    },
    /// Everything that the node holds: lets a new signalling process take over running calls. Behind the reply come the
    /// [`NodeEvent::Slots`] of every room with an occupied slot.
    Snapshot {},
    /// Refuse new joins, keep running calls.
    Drain {
        on: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    pub room: String,
    pub peer: String,
    /// Opaque text of signalling, at most 2048 bytes, given back by a snapshot.
    #[serde(default)]
    pub meta: String,
    pub ice: IceParameters,
    pub fingerprint: Fingerprint,
    /// The role that the NODE takes.
    pub dtls_role: DtlsRole,
    pub profile: HeaderProfile,
    /// In place of another peer of the same participant, who was on this node until now: not refused for the node's load.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces: bool,
    #[serde(default)]
    pub tracks: Vec<TrackSpec>,
    #[serde(default)]
    pub slots: Vec<SlotSpec>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceParameters {
    pub ufrag: String,
    pub pwd: String,
}

impl std::fmt::Debug for IceParameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IceParameters(..)")
    }
}

/// As in `a=fingerprint` (RFC 8122): `sha-256` and upper-case hex pairs with colons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub algorithm: String,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DtlsRole {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackKind {
    Mic,
    Program,
}

/// Payload types (0-127) and one-byte header extension ids (1-14) of this client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderProfile {
    pub opus: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub red: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_level: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mid: Option<u8>,
    /// The client may ask for lost packets again (generic NACK, RFC 4585).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nack: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackSpec {
    pub kind: TrackKind,
    pub mid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSpec {
    pub kind: TrackKind,
    pub mid: String,
}

/// Node to signalling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeMessage {
    /// First message on the link.
    Hello { node: String, version: String, media: Vec<MediaAddress>, fingerprint: Fingerprint },
    Reply {
        re: u64,
        #[serde(flatten)]
        result: ReplyResult,
    },
    Event {
        #[serde(flatten)]
        event: NodeEvent,
    },
}

/// `{"ok": {...}}` or `{"error": {...}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyResult {
    Ok(ReplyBody),
    Error(ControlError),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReplyBody {
    Joined(Joined),
    Restarted { ice: IceParameters, candidates: Vec<Candidate> },
    Snapshot { peers: Vec<PeerState> },
    Done {},
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Joined {
    pub shard: u16,
    pub ice: IceParameters,
    pub fingerprint: Fingerprint,
    pub dtls_role: DtlsRole,
    pub candidates: Vec<Candidate>,
    pub tracks: Vec<TrackInfo>,
    pub slots: Vec<SlotInfo>,
}

/// A host candidate of the node (RFC 8839 section 5.1), best first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    pub address: std::net::IpAddr,
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    Udp,
    /// ICE-TCP passive (RFC 6544).
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaAddress {
    pub address: std::net::IpAddr,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackInfo {
    pub mid: String,
    pub kind: TrackKind,
    /// The CSRC that names this source in every forwarded packet.
    pub track: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotInfo {
    pub mid: String,
    pub kind: TrackKind,
    /// Counted from 0 for each kind.
    pub index: u8,
    pub ssrc: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerState {
    pub room: String,
    pub peer: String,
    pub meta: String,
    pub connected: bool,
    pub idle: bool,
    pub tracks: Vec<TrackState>,
    pub slots: Vec<SlotInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackState {
    pub mid: String,
    pub kind: TrackKind,
    pub track: u32,
    pub live: bool,
    pub muted: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum NodeEvent {
    Connected {
        peer: String,
        srtp_profile: String,
        dtls_version: String,
    },
    /// Nothing authenticated has come from the peer for 3 s.
    Idle {
        peer: String,
    },
    Active {
        peer: String,
    },
    Gone {
        peer: String,
        reason: String,
    },
    TrackLive {
        peer: String,
        kind: TrackKind,
        track: u32,
    },
    Slots {
        room: String,
        slots: Vec<SlotAssignment>,
    },
    Speakers {
        room: String,
        peers: Vec<String>,
    },
    Draining {
        on: bool,
    },
    /// Events were lost because the node made them faster than they could be sent: take a snapshot.
    Resync {},
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotAssignment {
    pub kind: TrackKind,
    pub index: u8,
    pub peer: String,
    pub track: u32,
    /// The voice next to those in the slots, under an index that is no slot's. Who is in a speech slot hears it there,
    /// since nobody hears himself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
}

/// `code` is stable and for programs; `message` says what is wrong; `hint` what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ControlError {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Seconds after which trying again makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u32>,
}

/// Body of the node's heartbeat, every 2 s; three missed mean that the node is gone. Signalling then dials `control`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub node: String,
    pub version: String,
    /// `ws://host:port/v1/control`
    pub control: String,
    /// 0.0 to 1.0 of the busiest shard.
    pub load: f32,
    pub peers: u32,
    pub draining: bool,
}
