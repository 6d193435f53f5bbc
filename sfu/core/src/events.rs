//! The queue to the shell. What can be repeated (places, speakers, presence, a live track) is queued as a mark and filled
//! in when it is taken, so that it is there once at most and never out of date. The rest of the queue are single facts of
//! a peer's life. Marks stop at the bound, facts are bounded by the peers, and joins stop at the bound too.

use std::collections::VecDeque;

use crate::{Counters, DropReason, Event, PeerId, RoomId};

#[derive(Debug)]
pub(crate) enum Queued {
    Fact(Event),
    Slots { key: usize, room: RoomId },
    Speakers { key: usize, room: RoomId },
    Presence { key: usize, peer: PeerId },
    Live { key: usize, peer: PeerId, track: usize },
}

#[derive(Debug)]
pub(crate) struct Events {
    queue: VecDeque<Queued>,
    max: usize,
}

impl Events {
    pub(crate) fn new(max: usize) -> Self {
        Self { queue: VecDeque::new(), max }
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.queue.push_back(Queued::Fact(event));
    }

    /// `is_queued` is where the owner remembers that the mark is in the queue.
    pub(crate) fn mark(&mut self, is_queued: &mut bool, mark: Queued, counters: &mut Counters) {
        if *is_queued {
            return;
        }
        if self.is_full() {
            return counters.drop(DropReason::EventsFull);
        }
        *is_queued = true;
        self.queue.push_back(mark);
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        self.queue.pop_front()
    }

    /// A shell that takes no events gets no more peers.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= self.max
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}
