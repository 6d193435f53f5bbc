//! The replay window of one SSRC, and the guess of a packet's index from its sequence number. Both are pure; the
//! opener decides when they move.

use crate::RTP_INDEX_MAX;

/// Packets behind the highest one that may still arrive (RFC 3711 section 3.3.2 asks for 64 at least): 2.5 s of
/// 20 ms audio.
pub(crate) const WINDOW_PACKETS: u64 = u128::BITS as u64;

/// Which of the last [`WINDOW_PACKETS`] indices were accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayWindow {
    highest: u64,
    /// Bit `n` stands for index `highest - n`.
    seen: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fresh,
    Replayed,
    TooOld,
}

impl ReplayWindow {
    /// The first packet of an SSRC.
    pub(crate) fn starting_at(index: u64) -> Self {
        Self { highest: index, seen: 1 }
    }

    /// A stream taken over at `index`: nothing up to it is accepted again.
    pub(crate) fn closed_up_to(index: u64) -> Self {
        Self { highest: index, seen: u128::MAX }
    }

    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    pub(crate) fn check(&self, index: u64) -> Verdict {
        if index > self.highest {
            return Verdict::Fresh;
        }
        let behind = self.highest - index;
        if behind >= WINDOW_PACKETS {
            Verdict::TooOld
        } else if self.seen >> behind & 1 == 1 {
            Verdict::Replayed
        } else {
            Verdict::Fresh
        }
    }

    /// Only for an authenticated index that [`ReplayWindow::check`] called fresh.
    pub(crate) fn accept(&mut self, index: u64) {
        if index > self.highest {
            let ahead = index - self.highest;
            self.seen = if ahead >= WINDOW_PACKETS { 1 } else { self.seen << ahead | 1 };
            self.highest = index;
        } else {
            let behind = self.highest - index;
            debug_assert!(behind < WINDOW_PACKETS, "accepted what check refused");
            self.seen |= 1_u128.checked_shl(behind as u32).unwrap_or(0);
        }
    }
}

/// RFC 3711 section 3.3.1: the index nearest to the highest authenticated one. `None` before the first packet of the
/// stream or past the last index of the key.
pub(crate) fn guess_index(highest: u64, sequence: u16) -> Option<u64> {
    let roc = highest >> 16;
    let last = (highest & 0xFFFF) as u16;
    let roc = if last < 0x8000 {
        if sequence > last && sequence - last > 0x8000 { roc.checked_sub(1)? } else { roc }
    } else if last - 0x8000 > sequence {
        roc + 1
    } else {
        roc
    };
    let index = roc << 16 | u64::from(sequence);
    (index <= RTP_INDEX_MAX).then_some(index)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What the window must do, written without bit tricks.
    struct Model {
        accepted: BTreeSet<u64>,
    }

    impl Model {
        fn check(&self, index: u64) -> Verdict {
            let highest = *self.accepted.last().expect("never empty");
            if index + WINDOW_PACKETS <= highest {
                Verdict::TooOld
            } else if self.accepted.contains(&index) {
                Verdict::Replayed
            } else {
                Verdict::Fresh
            }
        }
    }

    proptest! {
        #[test]
        fn window_does_what_the_model_does(first in 0..1_000_u64, steps in prop::collection::vec(-200..200_i64, 0..300)) {
            let mut window = ReplayWindow::starting_at(first);
            let mut model = Model { accepted: BTreeSet::from([first]) };
            for step in steps {
                let Some(index) = window.highest().checked_add_signed(step) else { continue };
                let verdict = window.check(index);
                prop_assert_eq!(verdict, model.check(index));
                if verdict == Verdict::Fresh {
                    window.accept(index);
                    model.accepted.insert(index);
                }
            }
        }

        #[test]
        fn guess_is_the_nearest_index_with_that_sequence_number(highest in 0..RTP_INDEX_MAX, offset in -0x7FFF..0x7FFF_i64) {
            let Some(index) = highest.checked_add_signed(offset) else { return Ok(()) };
            let expected = (index <= RTP_INDEX_MAX).then_some(index);
            prop_assert_eq!(guess_index(highest, index as u16), expected);
        }
    }

    #[test]
    fn guess_follows_the_rfc_at_half_the_number_space() {
        // The bounds of RFC 3711 section 3.3.1: exactly half away stays in the same round.
        assert_eq!(guess_index(0x1_0000, 0x8000), Some(0x1_8000));
        assert_eq!(guess_index(0x1_0000, 0x8001), Some(0x0_8001));
        assert_eq!(guess_index(0x1_8000, 0x0000), Some(0x1_0000));
        assert_eq!(guess_index(0x1_8001, 0x0000), Some(0x2_0000));
    }

    #[test]
    fn nothing_lies_before_the_first_round_or_behind_the_last() {
        assert_eq!(guess_index(5, 0xFFFF), None);
        assert_eq!(guess_index(RTP_INDEX_MAX, 0xFFFF), Some(RTP_INDEX_MAX));
        assert_eq!(guess_index(RTP_INDEX_MAX, 0), None);
    }

    #[test]
    fn a_stream_that_was_taken_over_accepts_nothing_old() {
        let window = ReplayWindow::closed_up_to(1_000);
        for index in 1_000 - WINDOW_PACKETS + 1..=1_000 {
            assert_eq!(window.check(index), Verdict::Replayed);
        }
        assert_eq!(window.check(1_000 - WINDOW_PACKETS), Verdict::TooOld);
        assert_eq!(window.check(1_001), Verdict::Fresh);
    }
}
