//! Rates without a list of who came: a fixed table of cells, each the state of a generic cell rate algorithm. Callers that
//! fall into one cell share its rate; the hash is keyed anew in each process, so that nobody can choose a cell.

use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// `burst` at once, then `per_s` a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub per_s: f64,
    pub burst: u32,
}

pub struct Limiter {
    /// Microseconds since `epoch` at which the cell will be empty.
    cells: Box<[AtomicU64]>,
    hasher: Keyed,
    epoch: Instant,
}

#[cfg(not(test))]
type Keyed = std::hash::RandomState;
/// The same in each run, so that no test fails because two of its callers happen to share a cell.
#[cfg(test)]
type Keyed = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// 128 KiB; at a thousand active callers one in sixteen shares its cell.
const CELLS: usize = 16 * 1024;

impl Limiter {
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self { cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(), hasher: Keyed::default(), epoch }
    }

    /// Counts one event, or tells after which time it may be tried again; then it is not counted.
    pub fn take(&self, who: impl Hash, rate: Rate, now: Instant) -> Result<(), Duration> {
        let (now_us, interval_us, full_us) = self.scale(rate, now);
        let mut over_us = 0;
        let taken = self.cell(who).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |empty_at| {
            let next = empty_at.max(now_us).saturating_add(interval_us);
            over_us = (next - now_us).saturating_sub(full_us);
            (over_us == 0).then_some(next)
        });
        taken.map(drop).map_err(|_| Duration::from_micros(over_us))
    }

    /// After which time [`Limiter::take`] would count again, if it would not now.
    pub fn exhausted(&self, who: impl Hash, rate: Rate, now: Instant) -> Option<Duration> {
        let (now_us, interval_us, full_us) = self.scale(rate, now);
        let next = self.cell(who).load(Ordering::Relaxed).max(now_us).saturating_add(interval_us);
        let over_us = (next - now_us).saturating_sub(full_us);
        (over_us > 0).then(|| Duration::from_micros(over_us))
    }

    fn cell(&self, who: impl Hash) -> &AtomicU64 {
        &self.cells[self.hasher.hash_one(who) as usize % CELLS]
    }

    fn scale(&self, rate: Rate, now: Instant) -> (u64, u64, u64) {
        let now_us = now.saturating_duration_since(self.epoch).as_micros() as u64;
        let interval_us = (1_000_000.0 / rate.per_s) as u64;
        (now_us, interval_us, interval_us.saturating_mul(rate.burst.max(1).into()))
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

/// Whom an address stands for: a site has a /64 of IPv6 at least.
#[must_use]
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_s: 10.0, burst: 5 };

    #[test]
    fn a_caller_gets_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let limiter = Limiter::new(start);
        assert_eq!((0..100).filter(|_| limiter.take("a", RATE, start).is_ok()).count(), 5);
        assert_eq!(limiter.take("a", RATE, start), Err(Duration::from_millis(100)));
        assert_eq!(limiter.exhausted("a", RATE, start), Some(Duration::from_millis(100)));
        assert_eq!(limiter.exhausted("a", RATE, start + Duration::from_millis(100)), None);
        assert!(limiter.take("b", RATE, start).is_ok(), "another caller has its own");
        let later = |n: u64| start + Duration::from_millis(500 + 10 * n);
        let over_ten_s = (0..1_000).filter(|n| limiter.take("a", RATE, later(*n)).is_ok()).count();
        assert!((103..=105).contains(&over_ten_s), "{over_ten_s}");
    }

    #[test]
    fn memory_does_not_grow_with_callers() {
        let start = Instant::now();
        let limiter = Limiter::new(start);
        for caller in 0..100_000 {
            let _ = limiter.take(caller, RATE, start);
        }
        assert_eq!(limiter.cells.len(), CELLS);
    }

    #[test]
    fn addresses_of_one_site_are_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::5"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::5"), of("2001:db8:1:3::5"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
