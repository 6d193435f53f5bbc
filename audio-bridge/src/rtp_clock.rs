//! RTP time of captured sound: the samples captured since the start, never the time of arrival (a clock that jitters or
//! runs backward is heard as a glitch). It also says how late sound arrives, which is how a stall or a gap is seen; what
//! to do about that is decided in [`crate::intake`].

use std::time::{Duration, Instant};

use crate::pcm::SAMPLE_RATE;

/// The baseline follows slow drift of the sound card against our clock by at most 1 ms per second; real cards differ by
/// less than 0.1.
const DRIFT_FOLLOWED: i64 = 1000;

/// Counts samples and compares them with the wall clock.
#[derive(Debug)]
pub struct RtpClock {
    base: u32,
    /// Samples per channel since the start.
    position: u64,
    wall: Option<Wall>,
}

#[derive(Debug)]
struct Wall {
    origin: Instant,
    /// Smallest delay of arrival against the sample count so far, in microseconds, drifting upward slowly.
    baseline_us: i64,
    seen: Instant,
}

/// How a chunk arrived, compared with the fastest arrivals of the last minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Positive: later than the count says. Negative: earlier.
    pub lag_us: i64,
}

impl RtpClock {
    /// `base` is the first timestamp; random, as RFC 3550 section 5.1 asks.
    #[must_use]
    pub fn new(base: u32) -> Self {
        Self { base, position: 0, wall: None }
    }

    /// Timestamp of the next sample.
    #[must_use]
    pub fn timestamp(&self) -> u32 {
        // RTP time is the low 32 bits of the count.
        self.base.wrapping_add(self.position as u32)
    }

    /// Samples since the start, gaps included.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Counts samples that were sent or left out on purpose.
    pub fn advance(&mut self, samples: usize) {
        self.position += samples as u64;
    }

    /// Compares `samples` that end now with the wall clock. Does not count them and does not follow them.
    pub fn arrival(&mut self, at: Instant, samples: usize) -> Arrival {
        let end_us = self.duration_us(samples);
        let wall = self.wall.get_or_insert(Wall { origin: at, baseline_us: -end_us, seen: at });
        Arrival { lag_us: wall.since_origin_us(at) - end_us - wall.baseline_us }
    }

    /// Lets the baseline follow an arrival that was found ordinary.
    pub fn follow(&mut self, at: Instant, arrival: Arrival) {
        let Some(wall) = &mut self.wall else { return };
        let elapsed_us = i64::try_from(at.saturating_duration_since(wall.seen).as_micros()).unwrap_or(i64::MAX);
        wall.seen = at;
        wall.baseline_us += arrival.lag_us.min(elapsed_us / DRIFT_FOLLOWED);
    }

    /// Jumps forward so that `samples` which end at `at` are exactly on time; never back. Says how far it jumped.
    pub fn reanchor(&mut self, at: Instant, samples: usize) -> Duration {
        let lag_us = self.arrival(at, samples).lag_us;
        let Ok(gap_us) = u64::try_from(lag_us) else { return Duration::ZERO };
        self.position += gap_us * u64::from(SAMPLE_RATE) / 1_000_000;
        Duration::from_micros(gap_us)
    }

    fn duration_us(&self, samples: usize) -> i64 {
        let end = self.position + samples as u64;
        i64::try_from(end * 1_000_000 / u64::from(SAMPLE_RATE)).unwrap_or(i64::MAX)
    }
}

impl Wall {
    fn since_origin_us(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.origin).as_micros()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_the_sample_count_whatever_the_arrival() {
        let mut clock = RtpClock::new(u32::MAX - 100);
        let start = Instant::now();
        for (n, at_ms) in [0_u64, 12, 19, 33, 40].into_iter().enumerate() {
            assert_eq!(clock.timestamp(), (u32::MAX - 100).wrapping_add(n as u32 * 480));
            let at = start + Duration::from_millis(at_ms);
            let arrival = clock.arrival(at, 480);
            clock.follow(at, arrival);
            clock.advance(480);
        }
    }

    #[test]
    fn a_drifting_card_never_looks_late() {
        let mut clock = RtpClock::new(0);
        let start = Instant::now();
        // 300 ppm slow for one hour: every 10 ms of sound take 10.003 ms.
        for n in 0..360_000_u64 {
            let at = start + Duration::from_micros(n * 10_003);
            let arrival = clock.arrival(at, 480);
            assert!(arrival.lag_us < 1_000, "{} us late after {n} chunks", arrival.lag_us);
            clock.follow(at, arrival);
            clock.advance(480);
        }
    }

    #[test]
    fn reanchoring_never_goes_back() {
        let mut clock = RtpClock::new(0);
        let start = Instant::now();
        clock.arrival(start, 480);
        clock.advance(48_000);
        assert_eq!(clock.reanchor(start + Duration::from_millis(10), 480), Duration::ZERO);
        assert_eq!(clock.position(), 48_000);
        assert_eq!(clock.reanchor(start + Duration::from_millis(3000), 480), Duration::from_secs(2));
        assert_eq!(clock.position(), 144_000);
    }
}
