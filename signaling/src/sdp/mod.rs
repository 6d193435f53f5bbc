//! SDP offers in, answers out (RFC 8829, 8866, 9143, 8839, 5763, 7587). The grammar is `sdp-types`; what an offer means
//! for a media node, and what may stand in the answer, is here. Pure: text and node parameters in, text out. It keeps no
//! state: every offer is complete, and the node's part of the answer is an argument.

mod answer;
mod error;
mod line;
mod offer;

pub use answer::{Origin, Transport, write_answer};
pub use error::SdpError;
pub(crate) use offer::protocol_kind;
pub use offer::{Offer, Section, Service};

/// An offer with 64 m-lines has about 64 KiB in Chromium.
pub const SDP_BYTES_MAX: usize = 128 * 1024;
/// A participant needs about a dozen.
pub const MEDIA_MAX: usize = 64;
/// Places for voices in a room (what a media node has).
pub const SPEECH_SLOTS: u8 = 8;
/// Places for desktop and tab sound in a room.
pub const PROGRAM_SLOTS: u8 = 2;

pub(crate) const URI_AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
pub(crate) const URI_MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";

#[cfg(test)]
mod tests;
