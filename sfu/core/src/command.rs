//! What the shell asks of a [`Node`](crate::Node) and what it gets back. Already checked by the shell: no strings to
//! parse, no JSON. Each command answers at once; what happens later is an [`Event`](crate::Event).

use crate::{Mid, PeerId, RoomId, ShardId, ShardSet, Ssrc, TrackId, TrackKind};

#[derive(Clone, Debug)]
pub enum Command {
    /// Admits a participant. Answer: [`Reply::Joined`].
    Join(Box<Join>),
    /// New ICE credentials for a peer that keeps its DTLS and SRTP state (RFC 8445 section 9). Answer:
    /// [`Reply::Restarted`].
    RestartIce { peer: PeerId, remote: IceCredentials },
    /// While muted nothing of the track is forwarded, whatever arrives.
    Mute { peer: PeerId, kind: TrackKind, muted: bool },
    /// Ends the participation, with a DTLS close_notify.
    Leave { peer: PeerId },
    /// The shards that have peers of a room, this one included, and the one that decides on its slots. To be told to all
    /// of them after each change, and to a shard after each join there, before the peer is told.
    Spread { room: RoomId, home: ShardId, shards: ShardSet },
}

#[derive(Clone, Debug)]
pub struct Join {
    pub room: RoomId,
    pub peer: PeerId,
    pub remote_ice: IceCredentials,
    pub fingerprint: Fingerprint,
    /// The DTLS role that the node takes (RFC 5763 section 5).
    pub dtls_role: DtlsRole,
    pub profile: HeaderProfile,
    /// The peer may ask for lost packets again (`a=rtcp-fb:.. nack`, RFC 4585 section 4.2).
    pub nack: bool,
    /// What the peer sends: at most one track of each kind.
    pub tracks: Vec<TrackSpec>,
    /// Where the peer receives, in m-line order.
    pub slots: Vec<SlotSpec>,
}

/// How RTP looks to one client: comes from its offer. Only a few different ones exist, and packets are rendered once for
/// each of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeaderProfile {
    pub opus: u8,
    /// Payload type of RED (RFC 2198) over Opus, where negotiated.
    pub red: Option<u8>,
    /// Header extension id of the audio level, client to mixer (RFC 6464), 1-14.
    pub audio_level: Option<u8>,
    /// Header extension id of the media identification (RFC 9143), 1-14.
    pub mid: Option<u8>,
}

#[derive(Clone, Debug)]
pub struct TrackSpec {
    pub kind: TrackKind,
    pub mid: Mid,
    /// From `a=ssrc`; without it the track is found by its mid extension, or as the only one.
    pub ssrc: Option<Ssrc>,
}

#[derive(Clone, Debug)]
pub struct SlotSpec {
    pub kind: TrackKind,
    pub mid: Mid,
}

/// RFC 8445 section 5.3: ufrag 4-256 and pwd 22-256 ice-chars.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    pub ufrag: String,
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IceCredentials(..)")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DtlsRole {
    Client,
    Server,
}

/// Certificate fingerprint (RFC 8122 section 5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fingerprint {
    Sha256([u8; 32]),
    Sha384([u8; 48]),
    Sha512([u8; 64]),
}

#[derive(Clone, Debug)]
pub enum Reply {
    Joined(Joined),
    Restarted { local: IceCredentials },
    Done,
}

#[derive(Clone, Debug)]
pub struct Joined {
    pub local_ice: IceCredentials,
    pub tracks: Vec<TrackInfo>,
    pub slots: Vec<SlotInfo>,
}

#[derive(Clone, Copy, Debug)]
pub struct TrackInfo {
    pub mid: Mid,
    pub kind: TrackKind,
    pub track: TrackId,
}

/// A place to receive in: the SSRC is that of the room's slot, the same for every listener.
#[derive(Clone, Copy, Debug)]
pub struct SlotInfo {
    pub mid: Mid,
    pub kind: TrackKind,
    /// Counted from 0 for each kind.
    pub index: u8,
    pub ssrc: Ssrc,
}

/// Why a command was refused: always the caller's fault, nothing changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommandError {
    #[error("peer id is already in use")]
    PeerExists,
    #[error("no such peer")]
    NoSuchPeer,
    #[error("no such room")]
    NoSuchRoom,
    #[error("peer has no track of this kind")]
    NoSuchTrack,
    #[error("room is full")]
    RoomFull,
    #[error("node is full")]
    NodeFull,
    #[error("more than one track of a kind")]
    DuplicateTrack,
    #[error("more slots than a room has")]
    TooManySlots,
    #[error("ICE credentials are out of the range of RFC 8445 section 5.3")]
    BadIceCredentials,
}
