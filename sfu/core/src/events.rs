//! The queue to the shell. What can be repeated (places, speakers, presence) is queued as a mark and filled in when it is
//! taken, so that it is there once at most, is never lost, and is never out of date. That bounds the queue by what
//! lives; the rest of it are single facts of a peer's life.

use std::collections::VecDeque;

use crate::{Event, PeerId, RoomId};

#[derive(Debug)]
pub(crate) enum Queued {
    Fact(Event),
    Slots { key: usize, room: RoomId },
    Speakers { key: usize, room: RoomId },
    Presence { key: usize, peer: PeerId },
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

    pub(crate) fn push(&mut self, queued: Queued) {
        self.queue.push_back(queued);
    }

    pub(crate) fn pop(&mut self) -> Option<Queued> {
        self.queue.pop_front()
    }

    /// A shell that takes no events gets no more peers: everything in the queue comes from peers.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= self.max
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}
