//! The last second of a slot, so that a listener can ask for a packet again (generic NACK, RFC 4585 section 6.2.1). Kept is
//! what the packet was made from, all of it: sealed again under the same index for the same listener it must come out
//! byte for byte as before, since a second text under one index would give the key stream away.

use std::time::{Duration, Instant};

use crate::stamp::Outgoing;

/// Later the sound has been played without it.
const KEPT: Duration = Duration::from_secs(1);
/// One second of packets of 10 ms and some more; of shorter ones it is less than a second.
const ENTRIES: usize = 128;
/// One second at 128 kb/s, the most that a desktop is recommended to send.
const BYTES: usize = 16 * 1_024;

#[derive(Default, Debug)]
pub(crate) struct History {
    /// `None` as long as no listener of the room may ask.
    kept: Option<Box<Kept>>,
}

#[derive(Debug)]
struct Kept {
    /// At its sequence, modulo their number.
    entries: [Entry; ENTRIES],
    bytes: [u8; BYTES],
    /// Bytes ever written: an entry that is further back than the arena is long has been written over.
    written: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// 0: none.
    sequence: u64,
    at: Option<Instant>,
    marker: bool,
    timestamp: u32,
    csrc: u32,
    level: Option<u8>,
    start: u64,
    /// Of the payload as it was sent, which is RED when `opus_at` is not 0.
    len: usize,
    opus_at: usize,
}

const EMPTY: Entry =
    Entry { sequence: 0, at: None, marker: false, timestamp: 0, csrc: 0, level: None, start: 0, len: 0, opus_at: 0 };

impl History {
    /// Takes its memory, 26 KiB. Not for each packet: for a room with a listener that may ask, and a slot in use.
    pub(crate) fn enable(&mut self) {
        self.kept.get_or_insert_with(|| Box::new(Kept { entries: [EMPTY; ENTRIES], bytes: [0; BYTES], written: 0 }));
    }

    #[inline]
    pub(crate) fn push(&mut self, now: Instant, sequence: u64, outgoing: &Outgoing<'_>) {
        let Some(kept) = &mut self.kept else { return };
        let payload = outgoing.red.unwrap_or(outgoing.opus);
        let opus_at = payload.len().saturating_sub(outgoing.opus.len());
        let mut start = (kept.written % BYTES as u64) as usize;
        if start + payload.len() > BYTES {
            kept.written += (BYTES - start) as u64;
            start = 0;
        }
        let Some(place) = kept.bytes.get_mut(start..start + payload.len()) else { return };
        place.copy_from_slice(payload);
        kept.entries[(sequence % ENTRIES as u64) as usize] = Entry {
            sequence,
            at: Some(now),
            marker: outgoing.marker,
            timestamp: outgoing.timestamp,
            csrc: outgoing.csrc,
            level: outgoing.level,
            start: kept.written,
            len: payload.len(),
            opus_at,
        };
        kept.written += payload.len() as u64;
    }

    /// The packet as it went out, with the SSRC of the lane, if it was sent after `since` and is not too old.
    pub(crate) fn find(
        &self,
        now: Instant,
        since: Option<Instant>,
        sequence: u64,
        ssrc: u32,
    ) -> Option<Outgoing<'_>> {
        let kept = self.kept.as_deref()?;
        let entry = kept.entries.get((sequence % ENTRIES as u64) as usize)?;
        let at = entry.at?;
        let is_kept = kept.written - entry.start <= BYTES as u64;
        if entry.sequence != sequence
            || !is_kept
            || now.saturating_duration_since(at) > KEPT
            || since.is_some_and(|since| at <= since)
        {
            return None;
        }
        let start = (entry.start % BYTES as u64) as usize;
        let payload = kept.bytes.get(start..start + entry.len)?;
        Some(Outgoing {
            marker: entry.marker,
            timestamp: entry.timestamp,
            ssrc,
            csrc: entry.csrc,
            level: entry.level,
            opus: payload.get(entry.opus_at..)?,
            red: (entry.opus_at > 0).then_some(payload),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn outgoing(payload: &[u8], opus_at: usize) -> Outgoing<'_> {
        Outgoing {
            marker: opus_at == 2,
            timestamp: 7,
            ssrc: 8,
            csrc: 9,
            level: Some(10),
            opus: &payload[opus_at..],
            red: (opus_at > 0).then_some(payload),
        }
    }

    #[test]
    fn a_packet_comes_back_as_it_was_until_it_is_a_second_old() {
        let now = origin();
        let mut history = History::default();
        history.push(now, 4, &outgoing(b"before", 0));
        history.enable();
        assert!(history.find(now, None, 4, 8).is_none(), "nobody could ask then");
        history.push(now, 5, &outgoing(b"plain", 0));
        history.push(now, 6, &outgoing(b"redundant", 2));
        assert_eq!(history.find(now, None, 5, 8), Some(outgoing(b"plain", 0)));
        assert_eq!(history.find(now + KEPT, None, 6, 8), Some(outgoing(b"redundant", 2)));
        assert!(history.find(now + 2 * KEPT, None, 6, 8).is_none());
        assert!(history.find(now, Some(now), 6, 8).is_none(), "the listener got it in another form");
        assert!(history.find(now, None, 6 + ENTRIES as u64, 8).is_none());
        assert!(history.find(now, None, 0, 8).is_none());
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_was_pushed(
            lens in proptest::collection::vec(1usize..1_400, 1..400),
            skip in 1u64..40,
        ) {
            let now = origin();
            let mut history = History::default();
            history.enable();
            let mut pushed = Vec::new();
            for (n, len) in lens.iter().enumerate() {
                let payload: Vec<u8> = (0..*len).map(|at| (at * 7 + n) as u8).collect();
                let sequence = 1 + n as u64 * (skip % 3 + 1);
                let opus_at = if len % 2 == 0 { len / 2 } else { 0 };
                history.push(now, sequence, &outgoing(&payload, opus_at));
                pushed.push((sequence, payload, opus_at));
                let mut found = 0;
                for (sequence, payload, opus_at) in &pushed {
                    if let Some(outgoing_again) = history.find(now, None, *sequence, 8) {
                        prop_assert_eq!(outgoing_again, outgoing(payload, *opus_at));
                        found += 1;
                    }
                }
                prop_assert!(found >= 1);
            }
        }
    }
}
