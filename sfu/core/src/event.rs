//! What a [`Node`](crate::Node) tells the shell.

use crate::{PeerId, RoomId, TrackId, TrackKind};

/// Taken from [`Node::poll_event`](crate::Node::poll_event). Bounded: what repeats is merged and shows what is so
/// when it is taken.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// ICE validated, DTLS done, keys in place: media can flow.
    Connected { peer: PeerId, srtp_profile: &'static str, dtls_version: &'static str },
    /// Nothing authenticated has come from the peer for [`Limits::idle_after`](crate::Limits): a hint, not an end.
    Idle { peer: PeerId },
    /// Authenticated traffic again after [`Event::Idle`].
    Active { peer: PeerId },
    /// The peer has been evicted; its id may not be used again.
    Gone { peer: PeerId, reason: GoneReason },
    /// First packet of a track has been forwarded.
    TrackLive { peer: PeerId, track: TrackId, kind: TrackKind },
    /// The places of a room changed. Complete list, one entry for each occupied slot and for the spare voice.
    Slots { room: RoomId, slots: Vec<SlotAssignment> },
    /// Who speaks now, loudest first, by RFC 6464 levels. Sent on change, at most twice a second for a room.
    Speakers { room: RoomId, peers: Vec<PeerId> },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotAssignment {
    pub kind: TrackKind,
    pub index: u8,
    pub peer: PeerId,
    pub track: TrackId,
    /// The voice next to those in the slots. Its index is no slot's: who sits in a slot hears it there, since nobody
    /// hears himself.
    pub spare: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GoneReason {
    /// [`Command::Leave`](crate::Command::Leave).
    Left,
    /// ICE or DTLS did not finish in time.
    SetupTimeout,
    /// No authenticated ICE check for the consent time (RFC 7675: 30 s at most).
    ConsentExpired,
    /// The peer sent a DTLS close_notify.
    Closed,
    /// The DTLS handshake failed.
    DtlsFailed,
    /// The certificate is not the one that signalling announced.
    FingerprintMismatch,
    /// The peer offers no SRTP protection profile that we take.
    NoSrtpProfile,
}
