//! A bounded queue of messages from one thread to one other, and the bell that ends the sleep of the one that takes
//! them. Words are atomic, so that there is no unsafe code; the order in which they are stored is what matters, and a
//! model test goes through every order that the memory model allows. What a message says is not known here.
//!
//! ```text
//! words:  ... | length | bytes ... | length | bytes ... | free ...        both counters only grow; modulo the capacity
//!               ^ head: the consumer's                    ^ tail: the producer's
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// An atomic 64-bit word: the real one, or the model's.
pub(super) trait Word: Send + Sync + 'static {
    fn new(value: u64) -> Self;
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn swap(&self, value: u64, order: Ordering) -> u64;
    /// Sequentially consistent.
    fn fence();
}

impl Word for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

const WORD_BYTES: usize = 8;

struct Ring<W> {
    words: Box<[W]>,
    head: OwnLine<W>,
    tail: OwnLine<W>,
}

/// Two threads that write neighbours would take the cache line from each other.
#[repr(align(128))]
struct OwnLine<W>(W);

pub(super) struct Producer<W = AtomicU64> {
    ring: Arc<Ring<W>>,
    tail: u64,
    /// The consumer was at least here.
    head_seen: u64,
}

pub(super) struct Consumer<W = AtomicU64> {
    ring: Arc<Ring<W>>,
    head: u64,
    /// The producer was at least here.
    tail_seen: u64,
}

/// The queue has no room for a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full;

/// `bytes` is rounded down to words; lengths take one word a message.
pub(super) fn ring<W: Word>(bytes: usize) -> (Producer<W>, Consumer<W>) {
    let words = (0..bytes / WORD_BYTES).map(|_| W::new(0)).collect();
    let ring = Arc::new(Ring { words, head: OwnLine(W::new(0)), tail: OwnLine(W::new(0)) });
    let producer = Producer { ring: Arc::clone(&ring), tail: 0, head_seen: 0 };
    (producer, Consumer { ring, head: 0, tail_seen: 0 })
}

impl<W: Word> Ring<W> {
    fn word(&self, at: u64) -> &W {
        &self.words[(at % self.words.len() as u64) as usize]
    }
}

impl<W: Word> Producer<W> {
    /// Only when `spare` bytes stay free behind it.
    pub(super) fn push(&mut self, message: &[u8], spare: usize) -> Result<(), Full> {
        let needed = (1 + message.len().div_ceil(WORD_BYTES) + spare.div_ceil(WORD_BYTES)) as u64;
        let capacity = self.ring.words.len() as u64;
        if capacity - (self.tail - self.head_seen) < needed {
            // Acquire: the consumer has read the words that are overwritten below.
            self.head_seen = self.ring.head.0.load(Ordering::Acquire);
            if capacity - (self.tail - self.head_seen) < needed {
                return Err(Full);
            }
        }
        self.put(message.len() as u64);
        let (whole, rest) = message.as_chunks::<WORD_BYTES>();
        for chunk in whole {
            self.put(u64::from_le_bytes(*chunk));
        }
        if !rest.is_empty() {
            let mut chunk = [0; WORD_BYTES];
            chunk[..rest.len()].copy_from_slice(rest);
            self.put(u64::from_le_bytes(chunk));
        }
        // Release: who sees the new tail sees the words.
        self.ring.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    fn put(&mut self, value: u64) {
        self.ring.word(self.tail).store(value, Ordering::Relaxed);
        self.tail += 1;
    }
}

impl<W: Word> Consumer<W> {
    /// The oldest message, copied to the beginning of `into`; one that is longer than that is passed over.
    pub(super) fn pop<'a>(&mut self, into: &'a mut [u8]) -> Option<&'a [u8]> {
        loop {
            if self.is_empty() {
                return None;
            }
            let len = self.take() as usize;
            let after = self.head + len.div_ceil(WORD_BYTES) as u64;
            if len > into.len() {
                self.head = after;
                self.ring.head.0.store(after, Ordering::Release);
                continue;
            }
            for chunk in into[..len].chunks_mut(WORD_BYTES) {
                chunk.copy_from_slice(&self.take().to_le_bytes()[..chunk.len()]);
            }
            // Release: the words have been read before the producer may use them again.
            self.ring.head.0.store(self.head, Ordering::Release);
            return Some(&into[..len]);
        }
    }

    pub(super) fn is_empty(&mut self) -> bool {
        if self.head == self.tail_seen {
            self.tail_seen = self.ring.tail.0.load(Ordering::Acquire);
        }
        self.head == self.tail_seen
    }

    fn take(&mut self) -> u64 {
        let value = self.ring.word(self.head).load(Ordering::Relaxed);
        self.head += 1;
        value
    }
}

/// Says whether a thread sleeps, so that only a sleeping one costs its neighbours a system call. The sleeper announces
/// itself and *then* looks at its queues once more; the others fill a queue and *then* look at the announcement. The
/// fences keep both in that order, so at least one of the two sees what the other did. Every change is a swap: there is
/// one order of all announcements, and nobody takes back a newer one than it has seen.
pub(super) struct Bell<W = AtomicU64> {
    sleeping: OwnLine<W>,
}

const AWAKE: u64 = 0;
const SLEEPING: u64 = 1;

impl<W: Word> Bell<W> {
    pub(super) fn new() -> Self {
        Self { sleeping: OwnLine(W::new(AWAKE)) }
    }

    /// Of the sleeper, before it looks at its queues for the last time.
    pub(super) fn announce(&self) {
        self.sleeping.0.swap(SLEEPING, Ordering::AcqRel);
        W::fence();
    }

    pub(super) fn awake(&self) {
        self.sleeping.0.swap(AWAKE, Ordering::AcqRel);
    }

    /// Of the others, after they have filled a queue. `true` for one of them: it has to wake the sleeper.
    pub(super) fn is_to_ring(&self) -> bool {
        W::fence();
        self.sleeping.0.load(Ordering::Relaxed) == SLEEPING
            && self.sleeping.0.swap(AWAKE, Ordering::AcqRel) == SLEEPING
    }
}

impl<W> std::fmt::Debug for Producer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl<W> std::fmt::Debug for Consumer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head).finish_non_exhaustive()
    }
}

impl<W> std::fmt::Debug for Bell<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
