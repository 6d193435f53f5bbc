//! A fixed-offset view of the RTP header (RFC 3550 section 5.1): parsed once per packet, without copying lists.
//! It reads sealed packets too, so nothing here depends on the payload; padding is looked at after opening.

use std::ops::Range;

use crate::extension::Extensions;

/// The header without CSRCs and extension.
pub const RTP_HEADER_BYTES: usize = 12;

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("packet is shorter than its header")]
    TooShort,
    #[error("version is not 2")]
    Version,
    #[error("header extension runs past the end of the packet")]
    Extension,
    #[error("padding is longer than the payload or has length zero")]
    Padding,
}

/// What the header of one packet says. The lists stay in the packet; the methods take it again to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    pub marker: bool,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    pub csrc_count: u8,
    /// The padding bit; what it promises is checked by [`RtpHeader::payload`] once the packet is open.
    pub padding: bool,
    /// With CSRCs and extension: where the payload starts.
    pub header_len: usize,
    pub extension: Option<Extension>,
}

/// The header extension block (RFC 3550 section 5.3.1) without its four-byte head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// 0xBEDE for one-byte elements, 0x1000 to 0x100F for two-byte elements (RFC 8285).
    pub profile: u16,
    pub start: usize,
    pub end: usize,
}

impl RtpHeader {
    pub fn parse(packet: &[u8]) -> Result<Self, HeaderError> {
        let fixed = packet.first_chunk::<RTP_HEADER_BYTES>().ok_or(HeaderError::TooShort)?;
        if fixed[0] >> 6 != 2 {
            return Err(HeaderError::Version);
        }
        let csrc_count = fixed[0] & 0x0F;
        let mut header_len = RTP_HEADER_BYTES + 4 * usize::from(csrc_count);
        if packet.len() < header_len {
            return Err(HeaderError::TooShort);
        }
        let mut extension = None;
        if fixed[0] & 0x10 != 0 {
            let parsed = Extension::parse(packet, header_len)?;
            header_len = parsed.end;
            extension = Some(parsed);
        }
        Ok(Self {
            marker: fixed[1] & 0x80 != 0,
            payload_type: fixed[1] & 0x7F,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            csrc_count,
            padding: fixed[0] & 0x20 != 0,
            header_len,
            extension,
        })
    }

    /// The contributing sources, in order. `packet` is the one that was parsed.
    pub fn csrcs<'p>(&self, packet: &'p [u8]) -> impl Iterator<Item = u32> + use<'p> {
        let list = RTP_HEADER_BYTES..RTP_HEADER_BYTES + 4 * usize::from(self.csrc_count);
        let bytes = packet.get(list).unwrap_or_default();
        bytes.chunks_exact(4).map(|csrc| u32::from_be_bytes([csrc[0], csrc[1], csrc[2], csrc[3]]))
    }

    /// The extension elements, in order: nothing when there is no extension or it has another form than RFC 8285.
    pub fn extensions<'p>(&self, packet: &'p [u8]) -> Extensions<'p> {
        match self.extension {
            Some(extension) => {
                let block = packet.get(extension.start..extension.end).unwrap_or_default();
                Extensions::new(extension.profile, block)
            }
            None => Extensions::new(0, &[]),
        }
    }

    /// The value of the first extension element with this id.
    pub fn extension_value<'p>(&self, packet: &'p [u8], id: u8) -> Option<&'p [u8]> {
        self.extensions(packet).find(|&(found, _)| found == id).map(|(_, value)| value)
    }

    /// Where the payload is without padding. `packet` is the opened packet, cut to its length.
    pub fn payload(&self, packet: &[u8]) -> Result<Range<usize>, HeaderError> {
        let len = packet.len().checked_sub(self.header_len).ok_or(HeaderError::TooShort)?;
        if !self.padding {
            return Ok(self.header_len..packet.len());
        }
        // With an empty payload the last byte belongs to the header and `len` is zero, which no padding fits.
        let padding = usize::from(packet[packet.len() - 1]);
        if padding == 0 || padding > len {
            return Err(HeaderError::Padding);
        }
        Ok(self.header_len..packet.len() - padding)
    }
}

impl Extension {
    fn parse(packet: &[u8], at: usize) -> Result<Self, HeaderError> {
        let head = packet.get(at..at + 4).ok_or(HeaderError::Extension)?;
        let profile = u16::from_be_bytes([head[0], head[1]]);
        let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let start = at + 4;
        let end = start + 4 * words;
        if packet.len() < end {
            return Err(HeaderError::Extension);
        }
        Ok(Self { profile, start, end })
    }
}
