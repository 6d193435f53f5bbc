//! What one received RTP stream lost, doubled or mixed up, by its sequence numbers alone. Counts as packets come, so that
//! a window of time has its own figures: a gap counts when it opens, and is taken back when the packet comes late.

/// One stream: what came in the last [`WINDOW`] numbers is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Extended by the times that it wrapped.
    highest: u64,
    /// Bit n: the packet `highest - n` has come.
    seen: u128,
}

/// What one packet changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Negative when a packet that counted as lost has come.
    pub(super) lost: i64,
    pub(super) reordered: bool,
    pub(super) duplicated: bool,
}

const WINDOW: u64 = 128;
/// A jump by more is a new stream under the old name, not a loss: a minute of packets of 20 ms.
const GAP_MAX: i32 = 3_000;

impl Stream {
    pub(super) fn new(sequence: u16) -> Self {
        Self { highest: (1 << 32) | u64::from(sequence), seen: 1 }
    }

    pub(super) fn take(&mut self, sequence: u16) -> Change {
        let ahead = i32::from(sequence.wrapping_sub(self.highest as u16) as i16);
        if ahead.abs() > GAP_MAX {
            *self = Self::new(sequence);
            return Change::default();
        }
        if let Ok(step @ 1..) = u64::try_from(ahead) {
            self.highest += step;
            self.seen = if step >= WINDOW { 1 } else { self.seen << step | 1 };
            return Change { lost: step as i64 - 1, ..Change::default() };
        }
        let behind = u64::from(ahead.unsigned_abs());
        // Too old to tell whether it is a second one: taken as late, which it nearly always is.
        let bit = if behind < WINDOW { 1 << behind } else { 0 };
        if bit != 0 && self.seen & bit != 0 {
            return Change { duplicated: true, ..Change::default() };
        }
        self.seen |= bit;
        Change { lost: -1, reordered: true, duplicated: false }
    }
}

/// The streams of one client, by SSRC.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    ssrcs: Vec<u32>,
    streams: Vec<Stream>,
}

/// More than any room forwards to one client.
const STREAMS_MAX: usize = 4096;

impl Streams {
    pub(super) fn take(&mut self, ssrc: u32, sequence: u16) -> Change {
        match self.ssrcs.iter().position(|known| *known == ssrc) {
            Some(at) => self.streams[at].take(sequence),
            None => {
                if self.ssrcs.len() < STREAMS_MAX {
                    self.ssrcs.push(ssrc);
                    self.streams.push(Stream::new(sequence));
                }
                Change::default()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sequences: &[u16]) -> (i64, usize, usize) {
        let mut stream = Stream::new(sequences[0]);
        let changes: Vec<_> = sequences[1..].iter().map(|sequence| stream.take(*sequence)).collect();
        let lost = changes.iter().map(|change| change.lost).sum();
        let count = |what: fn(&Change) -> bool| changes.iter().filter(|change| what(change)).count();
        (lost, count(|change| change.reordered), count(|change| change.duplicated))
    }

    #[test]
    fn gaps_are_losses_until_they_are_filled() {
        assert_eq!(run(&[1, 2, 3]), (0, 0, 0));
        assert_eq!(run(&[1, 4]), (2, 0, 0));
        assert_eq!(run(&[1, 4, 2]), (1, 1, 0));
        assert_eq!(run(&[1, 4, 2, 3]), (0, 2, 0));
        assert_eq!(run(&[1, 2, 2, 1]), (0, 0, 2));
    }

    #[test]
    fn numbers_wrap() {
        assert_eq!(run(&[65_534, 65_535, 0, 2]), (1, 0, 0));
        assert_eq!(run(&[65_535, 1, 0]), (0, 1, 0));
    }

    #[test]
    fn a_far_jump_is_a_new_stream() {
        assert_eq!(run(&[10, 20_000, 20_001]), (0, 0, 0));
        assert_eq!(run(&[20_000, 10, 11]), (0, 0, 0));
    }

    #[test]
    fn any_order_of_delivery_of_all_packets_loses_nothing() {
        proptest::proptest!(|(start in proptest::num::u16::ANY, swaps in proptest::collection::vec(0..58_usize, 0..40))| {
            let mut order: Vec<u16> = (0..60).map(|n| start.wrapping_add(n)).collect();
            for swap in swaps {
                // The first stays: what was before it is not known to exist.
                order.swap(swap + 1, swap + 1 - usize::from(swap > 0));
            }
            let (lost, _, duplicated) = run(&order);
            proptest::prop_assert_eq!((lost, duplicated), (0, 0));
        });
    }

    #[test]
    fn what_is_left_out_is_what_is_lost() {
        proptest::proptest!(|(kept in proptest::collection::vec(proptest::bool::ANY, 1..300))| {
            let mut order = vec![100];
            order.extend((0..kept.len()).filter(|n| kept[*n]).map(|n| 101 + n as u16));
            let last = 101 + kept.len() as u16;
            order.push(last);
            let dropped = kept.iter().filter(|kept| !**kept).count();
            proptest::prop_assert_eq!(run(&order).0, dropped as i64);
        });
    }
}
