//! The RTP packet as one header profile wants to see it: written once for all listeners that share the profile, then only
//! copied, numbered and sealed for each of them.
//!
//! ```text
//!  |V=2|0|X| CC=1 |M|     PT      |   sequence (each listener's own) |
//!  |              timestamp of the slot (moved for a few listeners)   |
//!  |                SSRC of the slot (put in for each listener)       |
//!  |                     CSRC: the track, our name for it             |
//!  |   0xBEDE, 1 word, audio level (RFC 6464), when there is one      |
//!  |                            payload                               |
//! ```
//!
//! The media identification (RFC 9143) is left out even where it was negotiated: its value differs for each listener, so
//! it would undo the sharing, and the SSRC lines of the answer say the same (tried with Chromium and Firefox).

use srtp::{OVERHEAD_BYTES_MAX, RTP_HEADER_BYTES};

use crate::{HeaderProfile, redundancy::Recent};

/// The largest packet that we pass on: what fits an Ethernet frame over IPv6, the tag included.
pub(crate) const PACKET_MAX: usize = 1_452;

/// With one CSRC and one extension of one word.
const HEADER_MAX: usize = RTP_HEADER_BYTES + 4 + 8;

pub(crate) const PAYLOAD_MAX: usize = PACKET_MAX - HEADER_MAX - OVERHEAD_BYTES_MAX;

/// What all listeners of a slot get, before it is written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) marker: bool,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) csrc: u32,
    /// The byte of RFC 6464: voice activity and level.
    pub(crate) level: Option<u8>,
    pub(crate) opus: &'a [u8],
    /// The whole RED payload, when the publisher sends RED.
    pub(crate) red: Option<&'a [u8]>,
}

pub(crate) struct Rendering {
    pub(crate) profile: HeaderProfile,
    /// Earlier packets that are repeated in front of each, where the publisher does not do so itself.
    pub(crate) blocks: u8,
    /// Listeners that use it; free for another profile at 0.
    pub(crate) users: usize,
    /// Number of the packet that is written here.
    pub(crate) packet: u64,
    /// Of the slot; a listener that heard the spare voice in this slot once is ahead of it or behind.
    pub(crate) timestamp: u32,
    pub(crate) header_len: usize,
    pub(crate) len: usize,
    pub(crate) bytes: Box<[u8; PACKET_MAX]>,
}

impl Rendering {
    pub(crate) fn new(profile: HeaderProfile, blocks: u8) -> Self {
        Self {
            profile,
            blocks,
            users: 0,
            packet: 0,
            timestamp: 0,
            header_len: 0,
            len: 0,
            bytes: Box::new([0; PACKET_MAX]),
        }
    }

    /// The payload is not longer than [`PAYLOAD_MAX`].
    pub(crate) fn render(&mut self, packet: u64, outgoing: &Outgoing<'_>, recent: &Recent) {
        let level = self.profile.audio_level.zip(outgoing.level);
        let bytes = &mut self.bytes[..];
        bytes[0] = 0x80 | u8::from(level.is_some()) << 4 | 1;
        bytes[4..8].copy_from_slice(&outgoing.timestamp.to_be_bytes());
        bytes[8..12].copy_from_slice(&outgoing.ssrc.to_be_bytes());
        bytes[12..16].copy_from_slice(&outgoing.csrc.to_be_bytes());
        self.header_len = RTP_HEADER_BYTES + 4;
        if let Some((id, level)) = level {
            bytes[16..24].copy_from_slice(&[0xbe, 0xde, 0, 1, id << 4, level, 0, 0]);
            self.header_len = HEADER_MAX;
        }
        let place = &mut bytes[self.header_len..][..PAYLOAD_MAX];
        let HeaderProfile { opus, red, .. } = self.profile;
        let made = |red, place: &mut [u8]| {
            let blocks = usize::from(self.blocks);
            Some((red, recent.write(place, opus, blocks, outgoing.timestamp, outgoing.opus)?))
        };
        let (payload_type, len) = match (red, outgoing.red) {
            (Some(red), Some(payload)) => (red, copy(place, payload)),
            (Some(red), None) if self.blocks > 0 => {
                made(red, place).unwrap_or_else(|| (opus, copy(place, outgoing.opus)))
            }
            _ => (opus, copy(place, outgoing.opus)),
        };
        bytes[1] = u8::from(outgoing.marker) << 7 | payload_type & 0x7f;
        self.len = self.header_len + len;
        self.timestamp = outgoing.timestamp;
        self.packet = packet;
    }
}

fn copy(place: &mut [u8], payload: &[u8]) -> usize {
    let len = payload.len().min(place.len());
    place[..len].copy_from_slice(&payload[..len]);
    len
}

impl std::fmt::Debug for Rendering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rendering")
            .field("profile", &self.profile)
            .field("users", &self.users)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use srtp::RtpHeader;

    use super::*;

    const OUT: Outgoing<'_> = Outgoing {
        marker: true,
        timestamp: 1,
        ssrc: 2,
        csrc: 3,
        level: Some(0x8c),
        opus: &[7; 5],
        red: Some(&[8; 9]),
    };

    fn rendered(profile: HeaderProfile, outgoing: &Outgoing<'_>) -> (RtpHeader, Vec<u8>) {
        let mut rendering = Rendering::new(profile, 0);
        rendering.render(1, outgoing, &Recent::default());
        let bytes = rendering.bytes[..rendering.len].to_vec();
        let header = RtpHeader::parse(&bytes).unwrap();
        assert_eq!(header.header_len, rendering.header_len);
        (header, bytes)
    }

    #[test]
    fn a_profile_decides_payload_type_and_extension_ids() {
        let profile = HeaderProfile { opus: 96, red: None, audio_level: Some(14), mid: Some(4) };
        let (header, bytes) = rendered(profile, &OUT);
        assert_eq!((header.payload_type, header.marker, header.timestamp, header.ssrc), (96, true, 1, 2));
        assert_eq!(header.csrcs(&bytes).collect::<Vec<_>>(), [3]);
        assert_eq!(header.extensions(&bytes).collect::<Vec<_>>(), [(14, &[0x8c][..])]);
        assert_eq!(&bytes[header.header_len..], [7; 5]);
    }

    #[test]
    fn red_goes_to_those_who_negotiated_it_and_nothing_is_left_of_a_longer_packet() {
        let profile = HeaderProfile { opus: 111, red: Some(63), audio_level: None, mid: None };
        let (header, bytes) = rendered(profile, &OUT);
        assert_eq!((header.payload_type, header.extension), (63, None));
        assert_eq!(&bytes[header.header_len..], [8; 9]);
        let (header, bytes) = rendered(profile, &Outgoing { red: None, level: None, ..OUT });
        assert_eq!(header.payload_type, 111);
        assert_eq!(&bytes[header.header_len..], [7; 5]);
    }

    #[test]
    fn red_is_made_for_those_who_want_it_unless_the_publisher_sends_it() {
        let profile = HeaderProfile { opus: 111, red: Some(63), audio_level: Some(1), mid: None };
        let mut recent = Recent::default();
        recent.enable();
        let mut rendering = Rendering::new(profile, 1);
        let plain = Outgoing { red: None, timestamp: 960, ..OUT };
        rendering.render(1, &plain, &recent);
        assert_eq!(rendering.bytes[1] & 0x7f, 111, "nothing to repeat yet");
        recent.push(0, &[1, 2, 3]);
        rendering.render(2, &plain, &recent);
        let header = RtpHeader::parse(&rendering.bytes[..rendering.len]).unwrap();
        assert_eq!((header.payload_type, header.marker), (63, true));
        let payload = &rendering.bytes[header.header_len..rendering.len];
        assert_eq!(payload, [0x80 | 111, 960_u32.to_be_bytes()[2] >> 6 | 0x0f, 0, 3, 111, 1, 2, 3, 7, 7, 7, 7, 7]);
        rendering.render(3, &OUT, &recent);
        assert_eq!(&rendering.bytes[rendering.header_len..rendering.len], [8; 9], "the publisher's own");
    }
}
