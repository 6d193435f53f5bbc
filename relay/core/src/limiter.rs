//! Limits without memory of who came: a fixed table of cells shared by all threads, and the token bucket of one
//! allocation. Both are the generic cell rate algorithm: a cell stores when it would be empty again.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::KeyedHash;

/// How many events a source may cause: `burst` at once, then one each `interval`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) interval: Duration,
    pub(crate) burst: u32,
}

/// Events by source address. Sources that fall into one cell share its limit; the key of the hash is secret, so that
/// nobody can choose whose cell to fill.
pub(crate) struct SourceLimiter {
    /// Microseconds since `epoch` at which the cell will be empty.
    cells: Box<[AtomicU64]>,
    hash: KeyedHash,
    epoch: Instant,
}

/// 128 KiB in all; at a thousand active sources one in sixteen shares its cell.
const CELLS: usize = 16 * 1024;

impl SourceLimiter {
    pub(crate) fn new(hash: KeyedHash, epoch: Instant) -> Self {
        Self { cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(), hash, epoch }
    }

    /// Counts one event; false when the source is over its rate, and then it is not counted.
    pub(crate) fn take(&self, now: Instant, source: u64, rate: Rate) -> bool {
        let now_us = self.micros(now);
        let interval_us = rate.interval.as_micros() as u64;
        let full_us = interval_us.saturating_mul(u64::from(rate.burst));
        let taken = self.cell(source).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty_at| {
            let next = empty_at.max(now_us).saturating_add(interval_us);
            (next - now_us <= full_us).then_some(next)
        });
        taken.is_ok()
    }

    /// Whether [`SourceLimiter::take`] would refuse.
    pub(crate) fn is_exhausted(&self, now: Instant, source: u64, rate: Rate) -> bool {
        let now_us = self.micros(now);
        let interval_us = rate.interval.as_micros() as u64;
        let empty_at = self.cell(source).load(Ordering::Relaxed);
        empty_at.saturating_sub(now_us).saturating_add(interval_us)
            > interval_us.saturating_mul(u64::from(rate.burst))
    }

    fn cell(&self, source: u64) -> &AtomicU64 {
        &self.cells[self.hash.of(source) as usize % CELLS]
    }

    fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_micros() as u64
    }
}

impl fmt::Debug for SourceLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceLimiter").finish_non_exhaustive()
    }
}

/// Bytes per second of one direction of one allocation, with one second of burst.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    empty_at: Instant,
}

impl Bucket {
    pub(crate) fn new(now: Instant) -> Self {
        Self { empty_at: now }
    }

    /// False when the bytes do not fit now; they are not counted then. A rate of zero has no limit.
    pub(crate) fn take(&mut self, now: Instant, bytes: usize, bytes_per_s: u64) -> bool {
        if bytes_per_s == 0 {
            return true;
        }
        // A datagram has at most 64 KiB: no overflow.
        let cost = Duration::from_nanos(bytes as u64 * 1_000_000_000 / bytes_per_s);
        let next = self.empty_at.max(now) + cost;
        let fits = next.saturating_duration_since(now) <= BURST;
        if fits {
            self.empty_at = next;
        }
        fits
    }
}

const BURST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { interval: Duration::from_millis(100), burst: 5 };

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let start = Instant::now_for_tests();
        let limiter = SourceLimiter::new(KeyedHash::new(1, 2), start);
        assert_eq!((0..100).filter(|_| limiter.take(start, 7, RATE)).count(), 5);
        assert!(limiter.is_exhausted(start, 7, RATE));
        let later = start + Duration::from_secs(1);
        assert!(!limiter.is_exhausted(later, 7, RATE));
        let over_ten_s = (0..1_000).filter(|n| limiter.take(later + Duration::from_millis(10 * n), 7, RATE)).count();
        assert!((103..=105).contains(&over_ten_s), "{over_ten_s}");
        assert!(limiter.take(start, 8, RATE), "another source has its own");
    }

    #[test]
    fn a_bucket_passes_its_rate_over_time() {
        let start = Instant::now_for_tests();
        let mut bucket = Bucket::new(start);
        let passed = (0..10_000).filter(|n| bucket.take(start + Duration::from_millis(*n), 1_000, 125_000)).count();
        // Ten seconds at 125 packets a second, and the burst of one second.
        assert!((1_374..=1_376).contains(&passed), "{passed}");
        assert!(Bucket::new(start).take(start, 65_535, 0));
    }

    trait Clock {
        fn now_for_tests() -> Self;
    }

    impl Clock for Instant {
        #[expect(clippy::disallowed_methods, reason = "a virtual clock has to begin somewhere")]
        fn now_for_tests() -> Self {
            Self::now()
        }
    }
}
