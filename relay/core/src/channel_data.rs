//! ChannelData (RFC 8656 section 12.4), the message that nearly all traffic is:
//!
//! ```text
//! | channel 0x4000-0x7FFF (16) | length (16) | data | padding to 4 bytes, on streams |
//! ```

use std::ops::{Range, RangeInclusive};

pub(crate) const HEADER_BYTES: usize = 4;

/// RFC 5766 section 11. RFC 8656 reserves all above 0x4FFF, but clients of the older one choose from all of it, coturn's
/// own tools among them, and nothing else that starts with the bits 01 comes to a relay.
pub(crate) const CHANNELS: RangeInclusive<u16> = 0x4000..=0x7FFF;

/// The channel and where its data is. A datagram may be longer than the message says, never shorter.
pub(crate) fn parse(bytes: &[u8]) -> Option<(u16, Range<usize>)> {
    let [a, b, c, d] = *bytes.first_chunk::<HEADER_BYTES>()?;
    let channel = u16::from_be_bytes([a, b]);
    let end = HEADER_BYTES + usize::from(u16::from_be_bytes([c, d]));
    (CHANNELS.contains(&channel) && end <= bytes.len()).then_some((channel, HEADER_BYTES..end))
}

/// The header of a message with this much data; `None` when it has no room for the length.
pub(crate) fn header(channel: u16, data_bytes: usize) -> Option<[u8; HEADER_BYTES]> {
    let [a, b] = channel.to_be_bytes();
    let [c, d] = u16::try_from(data_bytes).ok()?.to_be_bytes();
    Some([a, b, c, d])
}
