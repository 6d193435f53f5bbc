//! SRTP and SRTCP (RFC 3711, RFC 7714): contexts that seal and open packets in place, and a fixed-offset view of the
//! RTP header (RFC 3550, RFC 8285).
//!
//! It is not a session: keys come from the DTLS handshake, sockets, clocks and routing live elsewhere. Sealing and
//! opening allocate nothing; all tables are sized at construction.
//!
//! Security rules:
//! - a packet changes state (replay window, rollover counter, a new SSRC) only after its tag was verified;
//! - SRTCP is authenticated whatever its E bit says; an authentic packet with E = 0 is then refused as
//!   [`OpenError::Unencrypted`]: RFC 3711 section 3.4 lets a sender choose it, but every profile here promises
//!   confidentiality, as WebRTC requires (RFC 8827 section 6.5), and no WebRTC end sends it;
//! - a failed open leaves the packet's bytes unspecified: drop it.

mod cm;
mod extension;
mod gcm;
mod header;
mod kdf;
mod keys;
mod opener;
mod replay;
mod sealer;
#[cfg(test)]
mod vectors;

pub use extension::{Extensions, ExtensionsFull, OneByteWriter};
pub use header::{Extension, HeaderError, RTP_HEADER_BYTES, RtpHeader};
pub use keys::{Half, KeyError, Keys, Profile};
pub use opener::{OpenError, Opened, Opener};
pub use sealer::{SealError, Sealer};

/// What any profile adds to a packet at most: a 16-byte tag and, for RTCP, the 4-byte index word.
pub const OVERHEAD_BYTES_MAX: usize = 20;

/// The largest packet index: 32 bits of rollover counter, 16 bits of sequence number (RFC 3711 section 3.3.1).
pub(crate) const RTP_INDEX_MAX: u64 = (1 << 48) - 1;

/// The largest SRTCP index (RFC 3711 section 3.4).
pub(crate) const RTCP_INDEX_MAX: u32 = (1 << 31) - 1;

/// The E bit of the word that carries the SRTCP index.
pub(crate) const RTCP_ENCRYPTED: u32 = 1 << 31;

/// The part of an RTCP packet that stays in clear: first header word and sender SSRC.
pub(crate) const RTCP_CLEAR_BYTES: usize = 8;

/// The word with the E bit and the SRTCP index.
pub(crate) const RTCP_INDEX_BYTES: usize = 4;

/// The SSRC at a fixed offset; the caller has checked that the packet reaches that far.
pub(crate) fn ssrc_at(packet: &[u8], offset: usize) -> Option<u32> {
    let bytes = packet.get(offset..offset + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
