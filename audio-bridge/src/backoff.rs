//! How long to wait before the next attempt: doubling between two limits, with jitter so that many bridges of one host
//! do not knock in step. Never gives up. Randomness is an argument.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    #[must_use]
    pub const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The sound daemon: 50 ms to 1 s, because a desktop without sound is noticed at once.
    #[must_use]
    pub const fn daemon() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// The signalling server: 50 ms to 2 s, so that sound is back within 3 s of the network.
    #[must_use]
    pub const fn signaling() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }

    /// An offer that no node takes: 50 ms to 2 s, so that sound is back within 3 s of the node.
    #[must_use]
    pub const fn media() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(2))
    }

    /// A server that ended what it had taken: soon back after its restart, and no fight about a place with whoever has it
    /// now.
    #[must_use]
    pub const fn closed() -> Self {
        Self::new(Duration::from_millis(250), Duration::from_secs(30))
    }

    /// No wait is longer.
    #[must_use]
    pub const fn longest(&self) -> Duration {
        self.max
    }

    /// The next wait; `random` is within 0..1 and moves it between half and the whole.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        wait.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// After a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_limit_and_starts_again_after_success() {
        let mut backoff = Backoff::daemon();
        let waits: Vec<u128> = (0..7).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(25));
    }
}
