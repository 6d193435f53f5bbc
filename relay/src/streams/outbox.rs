//! What waits to be written to one connection. It is bounded in bytes, and when it is full the newest media is dropped:
//! what lies in it is older and will be heard first, and to make it longer would only make everything later.

use std::cell::{Cell, RefCell};

use tokio::sync::Notify;

/// A third of a second of ten voices, or one burst of a media node.
const MEDIA_BYTES_MAX: usize = 32 * 1024;
/// Answers are few and each waits for one; a client that reads none of them cannot make more than this wait.
const ANSWERS_BYTES_MAX: usize = 4 * 1024;
/// What a connection keeps between bursts.
const KEPT_BYTES: usize = 4 * 1024;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: RefCell<Vec<u8>>,
    filled: Notify,
    is_finished: Cell<bool>,
}

impl Outbox {
    /// False when it did not fit.
    pub(super) fn push_media(&self, message: &[u8]) -> bool {
        self.push(message, MEDIA_BYTES_MAX)
    }

    /// False when it did not fit.
    pub(super) fn push_answer(&self, message: &[u8]) -> bool {
        self.push(message, MEDIA_BYTES_MAX + ANSWERS_BYTES_MAX)
    }

    /// Nothing more will come.
    pub(super) fn finish(&self) {
        self.is_finished.set(true);
        self.filled.notify_one();
    }

    /// Waits until there is something, and swaps it for the emptied buffer of the last time. False when nothing is left and
    /// nothing will come.
    pub(super) async fn take(&self, emptied: &mut Vec<u8>) -> bool {
        emptied.clear();
        emptied.shrink_to(KEPT_BYTES);
        while self.waiting.borrow().is_empty() {
            if self.is_finished.get() {
                return false;
            }
            self.filled.notified().await;
        }
        std::mem::swap(&mut *self.waiting.borrow_mut(), emptied);
        true
    }

    fn push(&self, message: &[u8], max: usize) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() + message.len() > max {
            return false;
        }
        waiting.extend_from_slice(message);
        self.filled.notify_one();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_media_is_dropped_and_an_answer_still_fits() {
        let outbox = Outbox::default();
        let taken =
            (0..1_000_u16).take_while(|n| outbox.push_media(&[&n.to_be_bytes()[..], &[0; 122]].concat())).count();
        assert_eq!(taken, MEDIA_BYTES_MAX / 124);
        assert!(outbox.push_answer(&[1; 200]));
        assert!(!outbox.push_media(&[2; 124]));
        let mut out = Vec::new();
        assert!(outbox.take(&mut out).await);
        assert_eq!(out.len(), taken * 124 + 200, "what was there stays, in order");
        assert!(out.chunks(124).take(taken).zip(0_u16..).all(|(message, n)| message[..2] == n.to_be_bytes()));
        assert!(outbox.push_media(&[3; 124]), "taken is free again");
        outbox.finish();
        assert!(outbox.take(&mut out).await, "what is left comes first");
        assert!(!outbox.take(&mut out).await);
    }

    #[test]
    fn answers_that_nobody_reads_are_bounded() {
        let outbox = Outbox::default();
        let bytes = (0..10_000).filter(|_| outbox.push_answer(&[0; 100])).count() * 100;
        assert!(bytes <= MEDIA_BYTES_MAX + ANSWERS_BYTES_MAX);
    }
}
