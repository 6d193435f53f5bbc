//! The queue between capture and the network: bounded in time, and when it is full the oldest sound goes. A slow
//! consumer therefore hears gaps, never growing delay.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// What the queue may hold. Longer, and a stall of the sender would be heard as delay until the end of the call.
pub const QUEUE_MS_MAX: u32 = 40;

/// A FIFO that forgets its oldest entries; one producer, one consumer.
#[derive(Debug)]
pub struct DropOldest<T> {
    state: Mutex<State<T>>,
    filled: Notify,
    capacity: AtomicUsize,
}

#[derive(Debug)]
struct State<T> {
    entries: VecDeque<T>,
    dropped_since_pop: u32,
    dropped: u64,
}

impl<T> DropOldest<T> {
    /// As many frames of `frame_ms` as fit into [`QUEUE_MS_MAX`], two at least.
    #[must_use]
    pub fn for_frames(frame_ms: u32) -> Self {
        Self::with_capacity(capacity_of(frame_ms))
    }

    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let state = State { entries: VecDeque::with_capacity(capacity), dropped_since_pop: 0, dropped: 0 };
        Self { state: Mutex::new(state), filled: Notify::new(), capacity: AtomicUsize::new(capacity.max(1)) }
    }

    /// Frames are this long from now on: the bound in time stays.
    pub fn set_frame_ms(&self, frame_ms: u32) {
        self.capacity.store(capacity_of(frame_ms), Ordering::Relaxed);
    }

    /// Never waits. Says whether an old entry had to go.
    pub fn push(&self, entry: T) -> bool {
        let mut state = self.lock();
        let capacity = self.capacity.load(Ordering::Relaxed);
        let full = state.entries.len() >= capacity;
        while state.entries.len() >= capacity {
            state.entries.pop_front();
            state.dropped_since_pop += 1;
            state.dropped += 1;
        }
        state.entries.push_back(entry);
        drop(state);
        self.filled.notify_one();
        full
    }

    /// Waits for an entry. The number counts the entries dropped before it since the last pop: they look like packet
    /// loss to the receiver, who can then conceal them.
    pub async fn pop(&self) -> (T, u32) {
        loop {
            if let Some(entry) = self.try_pop() {
                return entry;
            }
            self.filled.notified().await;
        }
    }

    pub fn try_pop(&self) -> Option<(T, u32)> {
        let mut state = self.lock();
        let entry = state.entries.pop_front()?;
        Some((entry, std::mem::take(&mut state.dropped_since_pop)))
    }

    /// Entries dropped since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<T>> {
        // Every change above is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn capacity_of(frame_ms: u32) -> usize {
    (QUEUE_MS_MAX / frame_ms.max(1)).max(2) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_forty_milliseconds_and_forgets_the_oldest() {
        for (frame_ms, capacity) in [(5, 8), (10, 4), (20, 2), (60, 2)] {
            let queue = DropOldest::for_frames(frame_ms);
            for n in 0..100 {
                queue.push(n);
            }
            assert_eq!((queue.len(), queue.dropped()), (capacity, 100 - capacity as u64));
            assert_eq!(queue.try_pop(), Some((100 - capacity as i32, 100 - capacity as u32)));
            assert_eq!(queue.try_pop(), Some((101 - capacity as i32, 0)));
        }
    }

    #[test]
    fn longer_frames_leave_room_for_fewer() {
        let queue = DropOldest::for_frames(5);
        assert!((0..8).all(|n| !queue.push(n)));
        queue.set_frame_ms(20);
        assert!(queue.push(8));
        assert_eq!((queue.len(), queue.try_pop()), (2, Some((7, 7))));
    }

    #[tokio::test]
    async fn a_waiting_consumer_gets_the_entry() {
        let queue = std::sync::Arc::new(DropOldest::with_capacity(2));
        let consumer = tokio::spawn({
            let queue = std::sync::Arc::clone(&queue);
            async move { queue.pop().await }
        });
        tokio::task::yield_now().await;
        queue.push("frame");
        assert_eq!(consumer.await.expect("joins"), ("frame", 0));
    }
}
