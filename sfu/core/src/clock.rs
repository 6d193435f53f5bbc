//! Turns the caller's monotonic time into the two scales of RTP: media time and NTP. It never reads a clock.

use std::time::{Duration, Instant, SystemTime};

/// Opus in RTP always counts 48,000 a second (RFC 7587 section 4.1).
pub(crate) const RTP_RATE: u64 = 48_000;

/// Seconds from 1900 to 1970.
const NTP_TO_UNIX_SECS: u64 = 2_208_988_800;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Since 1900.
    wall: Duration,
}

impl Clock {
    pub(crate) fn new(start: Instant, wall: SystemTime) -> Self {
        let unix = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { start, wall: unix + Duration::from_secs(NTP_TO_UNIX_SECS) }
    }

    /// 64-bit NTP time: seconds and 1/2^32 s (RFC 3550 section 4). Wraps in 2036, as everybody's.
    pub(crate) fn ntp(&self, now: Instant) -> u64 {
        let time = self.wall + now.saturating_duration_since(self.start);
        time.as_secs() << 32 | ((u64::from(time.subsec_nanos()) << 32) / 1_000_000_000)
    }

    /// Arrival time in units of media time, from an arbitrary origin.
    pub(crate) fn media(&self, now: Instant) -> u32 {
        rtp_units(now.saturating_duration_since(self.start))
    }
}

/// Wraps, as RTP timestamps do.
pub(crate) fn rtp_units(duration: Duration) -> u32 {
    (duration.as_micros() as u64).wrapping_mul(RTP_RATE / 1_000).wrapping_div(1_000) as u32
}

/// Middle 32 bits: the form of LSR (RFC 3550 section 6.4.1).
pub(crate) fn compact(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// In 1/65536 s: the form of DLSR.
pub(crate) fn compact_duration(duration: Duration) -> u32 {
    u32::try_from((duration.as_micros() << 16) / 1_000_000).unwrap_or(u32::MAX)
}

pub(crate) fn from_compact(units: u32) -> Duration {
    Duration::from_micros((u64::from(units) * 1_000_000) >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
    fn ntp_follows_the_monotonic_clock_from_the_wall_clock_at_start() {
        let start = Instant::now();
        let clock = Clock::new(start, SystemTime::UNIX_EPOCH + Duration::from_secs(10));
        assert_eq!(clock.ntp(start), (NTP_TO_UNIX_SECS + 10) << 32);
        assert_eq!(clock.ntp(start + Duration::from_millis(1_500)), ((NTP_TO_UNIX_SECS + 11) << 32) + (1 << 31));
        assert_eq!(clock.media(start + Duration::from_millis(20)), 960);
        assert_eq!(from_compact(compact_duration(Duration::from_millis(250))), Duration::from_millis(250));
    }
}
