//! Redundant audio (RFC 2198): packets that carry earlier ones a second time. Reads what browsers send, writes what the
//! node passes on. How many blocks are worth their bytes is decided in [`crate::loss`].
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |1|   block PT  |  timestamp offset         |   block length    |   one for each redundant block, oldest first
//! |0|   block PT  |                                                   the primary block, last
//! ```

use std::collections::VecDeque;

use crate::jitter::Packet;

/// More redundancy than anybody sends.
const BLOCKS_MAX: usize = 16;
/// 14 bits.
const OFFSET_MAX: u32 = (1 << 14) - 1;
/// 10 bits.
const BLOCK_BYTES_MAX: usize = (1 << 10) - 1;
/// With headers and authentication tag a datagram stays below the 1200 bytes that pass every path.
const PAYLOAD_BYTES_MAX: usize = 1100;
/// Packets back that redundancy can be made of.
pub const REDUNDANCY_MAX: usize = 2;

/// What a packet carries: its own sound, and earlier sound, the newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwrapped {
    pub primary: Packet,
    pub earlier: Vec<Packet>,
}

/// `None` when the blocks do not add up or are not of the payload type `opus`. Redundant blocks without sound are left
/// out: senders fill the place of a pause with them.
#[must_use]
pub fn unwrap(opus: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Option<Unwrapped> {
    let mut rest = payload;
    let mut headers = Vec::new();
    let body = loop {
        let (&first, tail) = rest.split_first()?;
        if first & 0x7f != opus {
            return None;
        }
        if first & 0x80 == 0 {
            break tail;
        }
        let header = rest.first_chunk::<4>()?;
        let word = u32::from_be_bytes([0, header[1], header[2], header[3]]);
        headers.push((word >> 10, (word & 0x3ff) as usize));
        if headers.len() > BLOCKS_MAX {
            return None;
        }
        rest = &rest[4..];
    };
    let mut body = body;
    let mut earlier = Vec::new();
    for (index, &(offset, bytes)) in headers.iter().enumerate() {
        let (block, tail) = body.split_at_checked(bytes)?;
        body = tail;
        // Blocks are the packets before this one without a gap: that is how every sender makes them.
        let back = (headers.len() - index) as u16;
        if offset > 0 && !block.is_empty() {
            earlier.push(Packet {
                sequence: sequence.wrapping_sub(back),
                timestamp: timestamp.wrapping_sub(offset),
                payload: block.to_vec(),
            });
        }
    }
    earlier.reverse();
    Some(Unwrapped { primary: Packet { sequence, timestamp, payload: body.to_vec() }, earlier })
}

/// Keeps the last packets and writes them again in front of the next.
#[derive(Debug, Default)]
pub struct Redundancy {
    last: VecDeque<(u16, u32, Vec<u8>)>,
}

impl Redundancy {
    /// The RED payload with up to `blocks` earlier packets, or `None` when there is nothing to repeat. To be called for
    /// every packet in the order of sequence numbers, with zero blocks too.
    pub fn wrap(
        &mut self,
        opus: u8,
        sequence: u16,
        timestamp: u32,
        payload: &[u8],
        blocks: usize,
    ) -> Option<Vec<u8>> {
        let wrapped = self.write(opus, sequence, timestamp, payload, blocks.min(REDUNDANCY_MAX));
        self.last.push_back((sequence, timestamp, payload.to_vec()));
        if self.last.len() > REDUNDANCY_MAX {
            self.last.pop_front();
        }
        wrapped
    }

    fn write(&self, opus: u8, sequence: u16, timestamp: u32, payload: &[u8], blocks: usize) -> Option<Vec<u8>> {
        let mut room = PAYLOAD_BYTES_MAX.checked_sub(payload.len() + 1)?;
        // Newest first, as far as they follow each other and fit.
        let mut chosen = Vec::new();
        for (back, (number, time, block)) in self.last.iter().rev().take(blocks).enumerate() {
            let offset = timestamp.wrapping_sub(*time);
            let follows = *number == sequence.wrapping_sub(back as u16 + 1);
            let fits = block.len() <= BLOCK_BYTES_MAX && block.len() + 4 <= room;
            if !follows || !fits || offset == 0 || offset > OFFSET_MAX {
                break;
            }
            room -= block.len() + 4;
            chosen.push((offset, block));
        }
        if chosen.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(PAYLOAD_BYTES_MAX - room + payload.len());
        for (offset, block) in chosen.iter().rev() {
            let word = offset << 10 | block.len() as u32;
            out.push(0x80 | opus);
            out.extend_from_slice(&word.to_be_bytes()[1..]);
        }
        out.push(opus);
        for (_, block) in chosen.iter().rev() {
            out.extend_from_slice(block);
        }
        out.extend_from_slice(payload);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPUS: u8 = 111;

    fn packet(sequence: u16, timestamp: u32, payload: &[u8]) -> Packet {
        Packet { sequence, timestamp, payload: payload.to_vec() }
    }

    #[test]
    fn two_packets_are_repeated_and_read_again_across_the_wrap() {
        let mut redundancy = Redundancy::default();
        let wrapped: Vec<Option<Vec<u8>>> = [(65_535, 100_u32.wrapping_sub(960)), (0, 100), (1, 1060)]
            .map(|(sequence, timestamp)| redundancy.wrap(OPUS, sequence, timestamp, &[sequence as u8; 5], 2))
            .into();
        assert_eq!(wrapped[0], None, "nothing to repeat yet");
        let last = wrapped[2].as_ref().expect("wrapped");
        let found = unwrap(OPUS, 1, 1060, last).expect("reads");
        assert_eq!(found.primary, packet(1, 1060, &[1; 5]));
        assert_eq!(found.earlier, [packet(0, 100, &[0; 5]), packet(65_535, 100_u32.wrapping_sub(960), &[255; 5])]);
    }

    #[test]
    fn what_does_not_follow_or_does_not_fit_is_not_repeated() {
        let mut redundancy = Redundancy::default();
        redundancy.wrap(OPUS, 1, 960, &[1; 5], 2);
        assert_eq!(redundancy.wrap(OPUS, 3, 2880, &[3; 5], 2), None, "packet 2 is missing between");
        assert_eq!(redundancy.wrap(OPUS, 4, 2880 + 20_000, &[4; 5], 2), None, "further back than the header can say");
        assert_eq!(redundancy.wrap(OPUS, 5, 2880 + 20_960, &[5; 1100], 1), None, "too large for a datagram");
        let one = redundancy.wrap(OPUS, 6, 2880 + 21_920, &[6; 50], 2);
        assert_eq!(one, None, "the large one cannot be repeated, and nothing behind it");
    }

    #[test]
    fn what_a_browser_sends_is_read() {
        // Chromium fills the place of packets before the first with empty blocks.
        let bytes = [0x80 | OPUS, 0, 0, 0, 0x80 | OPUS, 0x0f, 0x00, 3, OPUS, 1, 2, 3, 9, 8];
        let found = unwrap(OPUS, 10, 9600, &bytes).expect("reads");
        assert_eq!(found.primary.payload, [9, 8]);
        assert_eq!(found.earlier, [packet(9, 8640, &[1, 2, 3])]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..90), opus in 0_u8..128) {
            if let Some(found) = unwrap(opus, 7, 70, &bytes) {
                let total: usize = found.earlier.iter().map(|p| p.payload.len()).sum();
                prop_assert!(total + found.primary.payload.len() < bytes.len());
            }
        }

        #[test]
        fn what_is_written_is_read(sizes in prop::collection::vec(1_usize..700, 1..20), blocks in 0_usize..4) {
            let mut redundancy = Redundancy::default();
            for (n, size) in sizes.into_iter().enumerate() {
                let (sequence, timestamp) = (n as u16, n as u32 * 480);
                let payload = vec![n as u8; size];
                let Some(wrapped) = redundancy.wrap(OPUS, sequence, timestamp, &payload, blocks) else { continue };
                prop_assert!(wrapped.len() <= PAYLOAD_BYTES_MAX);
                let found = unwrap(OPUS, sequence, timestamp, &wrapped).expect("reads");
                prop_assert_eq!(found.primary.payload, payload);
                prop_assert!(!found.earlier.is_empty() && found.earlier.len() <= blocks);
                for (back, earlier) in found.earlier.iter().enumerate() {
                    prop_assert_eq!(earlier.sequence, sequence - back as u16 - 1);
                    prop_assert_eq!(earlier.timestamp, timestamp - (back as u32 + 1) * 480);
                    prop_assert_eq!(earlier.payload[0], earlier.sequence as u8);
                }
            }
        }
    }
}
