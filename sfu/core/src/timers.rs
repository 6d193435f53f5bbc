//! When to look at which peer again: one heap of deadlines, so that a packet never scans the peers. An entry is a hint;
//! whoever takes it checks the peer's own state, therefore a deadline that moved back costs one look and none is ever
//! removed from the middle.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use crate::PeerId;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Alarm {
    /// Consent, idleness, reports.
    Tick,
    /// Retransmission or give-up of the DTLS handshake.
    Dtls,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    /// Ids are never reused, so an entry of a peer that is gone finds nothing.
    pub(crate) peer: PeerId,
    pub(crate) alarm: Alarm,
}

#[derive(Default, Debug)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Due>>,
}

impl Timers {
    pub(crate) fn arm(&mut self, at: Instant, peer: PeerId, alarm: Alarm) {
        self.heap.push(Reverse(Due { at, peer, alarm }));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due)
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}
