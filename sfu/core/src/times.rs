//! How long something took, counted in steps: what a histogram is made of. No clock.

use std::time::Duration;

/// From below a fast turn of a shard to the longest handshake that is waited for.
const BOUNDS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000,
];

/// Numbers that only grow.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Times {
    counts: [u64; Self::STEPS],
    sum_us: u64,
}

impl Times {
    /// The last step has no upper bound.
    pub const STEPS: usize = BOUNDS_US.len() + 1;

    pub fn record(&mut self, took: Duration, times: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let step = BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[step] += times;
        self.sum_us = self.sum_us.saturating_add(us.saturating_mul(times));
    }

    /// What took no longer than the bound of its step, but longer than that of the step before.
    #[must_use]
    pub fn counts(&self) -> &[u64; Self::STEPS] {
        &self.counts
    }

    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// In seconds; the last one is open.
    #[must_use]
    pub fn bounds_s() -> [f64; Self::STEPS] {
        std::array::from_fn(|step| BOUNDS_US.get(step).map_or(f64::MAX, |us| *us as f64 / 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_step_that_it_does_not_exceed() {
        let mut times = Times::default();
        for (us, step) in [(0, 0), (100, 0), (101, 1), (2_500, 4), (5_000_000, 14), (5_000_001, 15)] {
            let before = times.counts()[step];
            times.record(Duration::from_micros(us), 3);
            assert_eq!(times.counts()[step], before + 3, "{us}");
        }
        assert_eq!(times.counts().iter().sum::<u64>(), 18);
        assert_eq!(times.sum_us(), 3 * 10_002_702);
        assert!(Times::bounds_s().is_sorted());
        times.record(Duration::MAX, u64::MAX / 2);
        assert_eq!(times.sum_us(), u64::MAX);
    }
}
