//! Redundant audio (RFC 2198), write side: a slot's last packets, and the payload that carries them once more in front of
//! a new one. Made once for all listeners that want as many; who wants how many is decided in `protection`.

/// A redundant block's length has ten bits (RFC 2198 section 3); what is longer goes without.
const BLOCK_BYTES_MAX: usize = (1 << 10) - 1;
/// A redundant block's timestamp offset has fourteen bits, 341 ms: nothing is repeated across a pause.
const OFFSET_MAX: u32 = (1 << 14) - 1;

/// As many packets as are ever repeated.
pub(crate) const BLOCKS_MAX: usize = 3;

/// The last packets of a slot's present source.
#[derive(Default, Debug)]
pub(crate) struct Recent {
    /// `None` as long as no listener of the room wants redundancy: then nothing is copied. A ring.
    past: Option<Box<[Past; BLOCKS_MAX]>>,
    /// Place of the newest; the older ones lie behind it.
    newest: usize,
}

#[derive(Debug)]
struct Past {
    timestamp: u32,
    /// 0: there is none.
    len: usize,
    opus: [u8; BLOCK_BYTES_MAX],
}

impl Recent {
    /// Takes its memory. Not for a packet: for a listener that has begun to lose some.
    pub(crate) fn enable(&mut self) {
        let empty = || Past { timestamp: 0, len: 0, opus: [0; BLOCK_BYTES_MAX] };
        self.past.get_or_insert_with(|| Box::new([empty(), empty(), empty()]));
    }

    pub(crate) fn disable(&mut self) {
        self.past = None;
    }

    /// What follows comes from another source, whose listeners shall not hear this one again.
    pub(crate) fn clear(&mut self) {
        for past in self.past.iter_mut().flat_map(|past| past.iter_mut()) {
            past.len = 0;
        }
    }

    /// Behind the newest packet.
    #[inline]
    pub(crate) fn push(&mut self, timestamp: u32, opus: &[u8]) {
        let Some(past) = &mut self.past else { return };
        self.newest = (self.newest + BLOCKS_MAX - 1) % BLOCKS_MAX;
        let newest = &mut past[self.newest];
        newest.len = if opus.len() <= BLOCK_BYTES_MAX { opus.len() } else { 0 };
        newest.timestamp = timestamp;
        newest.opus[..newest.len].copy_from_slice(&opus[..newest.len]);
    }

    /// Writes `opus` behind at most `blocks` earlier packets; what does not fit in front of it stays away, oldest
    /// first. Answers the length; `None` when there is nothing to repeat, or no room.
    pub(crate) fn write(
        &self,
        out: &mut [u8],
        payload_type: u8,
        blocks: usize,
        timestamp: u32,
        opus: &[u8],
    ) -> Option<usize> {
        let past = self.past.as_deref()?;
        let newest_first = past[self.newest..].iter().chain(&past[..self.newest]);
        let offset = |past: &Past| timestamp.wrapping_sub(past.timestamp);
        let fits = |past: &&Past| past.len > 0 && (1..=OFFSET_MAX).contains(&offset(past));
        let mut chosen: [Option<&Past>; BLOCKS_MAX] = [None; BLOCKS_MAX];
        let mut len = 1 + opus.len();
        for (place, past) in chosen.iter_mut().zip(newest_first.take(blocks).filter(fits)) {
            if len + 4 + past.len > out.len() {
                break;
            }
            len += 4 + past.len;
            *place = Some(past);
        }
        chosen[0]?;
        let (headers, mut data) = {
            let headers_len = 1 + 4 * chosen.iter().flatten().count();
            out.get_mut(..len)?.split_at_mut(headers_len)
        };
        // Oldest first (RFC 2198 section 4).
        let oldest_first = chosen.iter().rev().flatten();
        for (header, past) in headers.chunks_exact_mut(4).zip(oldest_first) {
            let word = 1 << 31 | u32::from(payload_type & 0x7f) << 24 | offset(past) << 10 | past.len as u32;
            header.copy_from_slice(&word.to_be_bytes());
            let (block, rest) = data.split_at_mut(past.len);
            block.copy_from_slice(&past.opus[..past.len]);
            data = rest;
        }
        *headers.last_mut()? = payload_type & 0x7f;
        data.copy_from_slice(opus);
        Some(len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::red;

    fn recent(packets: &[(u32, &[u8])]) -> Recent {
        let mut recent = Recent::default();
        recent.enable();
        for (timestamp, opus) in packets {
            recent.push(*timestamp, opus);
        }
        recent
    }

    fn written(recent: &Recent, blocks: usize, timestamp: u32, room: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; room];
        let len = recent.write(&mut out, 111, blocks, timestamp, b"new!")?;
        out.truncate(len);
        Some(out)
    }

    /// Offset and bytes of each redundant block, by a reader of its own.
    fn blocks(payload: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut headers = Vec::new();
        let mut at = 0;
        while payload[at] & 0x80 != 0 {
            let word = u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            assert_eq!(word >> 24 & 0x7f, 111);
            headers.push((word >> 10 & 0x3fff, (word & 0x3ff) as usize));
            at += 4;
        }
        at += 1;
        let blocks = headers.into_iter().map(|(offset, len)| {
            at += len;
            (offset, payload[at - len..at].to_vec())
        });
        blocks.collect()
    }

    #[test]
    fn one_to_three_packets_are_repeated_oldest_first() {
        let recent = recent(&[(0, b"forgotten"), (960, b"oldest"), (1_920, b"older"), (2_880, b"old")]);
        let repeated = [(2_880, b"oldest".to_vec()), (1_920, b"older".to_vec()), (960, b"old".to_vec())];
        for wanted in 1..=4 {
            let payload = written(&recent, wanted, 3_840, 100).unwrap();
            assert_eq!(blocks(&payload), repeated[3 - wanted.min(3)..]);
            let primary = red::primary(&payload).unwrap();
            assert_eq!((primary.payload_type, primary.payload), (111, &b"new!"[..]));
        }
    }

    #[test]
    fn nothing_is_repeated_across_a_pause_or_from_another_source() {
        let after = |gap: u32| written(&recent(&[(0, b"old")]), 2, gap, 100);
        assert!(after(OFFSET_MAX).is_some());
        assert!(after(OFFSET_MAX + 1).is_none(), "a pause of DTX");
        assert!(after(0).is_none() && after(0_u32.wrapping_sub(960)).is_none(), "a straggler");
        let mut cleared = recent(&[(0, b"old")]);
        cleared.clear();
        assert!(written(&cleared, 2, 960, 100).is_none());
        let across = recent(&[(0, b"far"), (20_000, b"near")]);
        assert_eq!(blocks(&written(&across, 2, 20_960, 100).unwrap()), [(960, b"near".to_vec())]);
    }

    #[test]
    fn timestamps_may_wrap() {
        let recent = recent(&[(u32::MAX - 479, b"old")]);
        assert_eq!(blocks(&written(&recent, 1, 480, 100).unwrap()), [(960, b"old".to_vec())]);
    }

    #[test]
    fn what_does_not_fit_stays_away() {
        let recent = recent(&[(0, b"older"), (960, b"old")]);
        let room = 1 + 4 + 4 + 3;
        assert_eq!(blocks(&written(&recent, 2, 1_920, room + 4 + 4).unwrap()).len(), 1);
        assert!(written(&recent, 2, 1_920, room - 1).is_none());
        let long = self::recent(&[(0, &[7; BLOCK_BYTES_MAX + 1])]);
        assert!(written(&long, 1, 960, 1_400).is_none(), "ten bits of length");
        let longest = self::recent(&[(0, &[7; BLOCK_BYTES_MAX])]);
        assert_eq!(blocks(&written(&longest, 1, 960, 1_400).unwrap())[0].1.len(), BLOCK_BYTES_MAX);
    }

    #[test]
    fn memory_is_taken_only_when_somebody_wants_redundancy() {
        let mut recent = Recent::default();
        recent.push(0, b"old");
        assert!(recent.past.is_none() && written(&recent, 2, 960, 100).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            packets in proptest::collection::vec((0u32..40_000, 1usize..1_100), 1..5),
            wanted in 0usize..4, step in 0u32..20_000, room in 0usize..1_460, len in 1usize..1_300,
        ) {
            let mut recent = Recent::default();
            recent.enable();
            let mut timestamp = 0u32;
            for (n, (gap, len)) in packets.iter().enumerate() {
                timestamp = timestamp.wrapping_add(*gap);
                recent.push(timestamp, &vec![n as u8; *len]);
            }
            let opus = vec![0xaa; len];
            let mut out = vec![0; room];
            if let Some(len) = recent.write(&mut out, 111, wanted, timestamp.wrapping_add(step), &opus) {
                let primary = red::primary(&out[..len]).unwrap();
                prop_assert_eq!((primary.payload_type, primary.payload), (111, &opus[..]));
                let blocks = blocks(&out[..len]);
                prop_assert!((1..=wanted.min(BLOCKS_MAX)).contains(&blocks.len()));
                prop_assert!(blocks.windows(2).all(|pair| pair[0].0 >= pair[1].0));
            }
        }
    }
}
