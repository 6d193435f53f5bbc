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
