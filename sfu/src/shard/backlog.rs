//! How long a datagram has waited in the kernel's queue. Its time of arrival is on the wall clock and the shard reads a
//! monotonic one, so only differences count: what a datagram shows that cannot have waited is the zero. Both clocks may
//! jump or drift; a wrong zero is put right by the next datagram that shows less, or when the queue has run empty.

use std::time::{Duration, Instant};

/// Audio that has waited longer is dropped unsealed. A shard with more to do than it can would otherwise let its queue
/// grow to seconds, and everybody would hear everything late; so it forwards what it can, all of it within this time, and
/// the rest costs a fiftieth of what it would. Two and a half frames: a pause of the machine shorter than that loses
/// nothing, and jitter buffers take it up.
const WAIT_MAX: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Backlog {
    origin: Instant,
    /// Between the clocks, for a datagram that has not waited. In nanoseconds.
    zero: Option<i64>,
}

impl Backlog {
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, zero: None }
    }

    /// Whether audio that came then is too late to be of use.
    pub(super) fn is_late(&mut self, arrived: Option<Duration>, now: Instant) -> bool {
        let Some(shown) = self.shown(arrived, now) else { return false };
        let zero = self.zero.map_or(shown, |zero| zero.min(shown));
        self.zero = Some(zero);
        i64::try_from(WAIT_MAX.as_nanos()).is_ok_and(|longest| shown.saturating_sub(zero) > longest)
    }

    /// How long something that came then has waited.
    pub(super) fn waited(&self, arrived: Option<Duration>, now: Instant) -> Duration {
        let waited = self.shown(arrived, now).zip(self.zero).map(|(shown, zero)| shown.saturating_sub(zero));
        Duration::from_nanos(waited.and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0))
    }

    /// The queue is empty behind this one, which has waited for at most so long unless a clock has jumped.
    pub(super) fn ran_empty(&mut self, newest: Option<Duration>, now: Instant, wait_max: Duration) {
        let Some(shown) = self.shown(newest, now) else { return };
        let wait_max = i64::try_from(wait_max.as_nanos()).unwrap_or(i64::MAX);
        let may_have_waited = self.zero.is_some_and(|zero| (0..=wait_max).contains(&shown.saturating_sub(zero)));
        if !may_have_waited {
            self.zero = Some(shown);
        }
    }

    fn shown(&self, arrived: Option<Duration>, now: Instant) -> Option<i64> {
        let now = i64::try_from(now.saturating_duration_since(self.origin).as_nanos()).ok()?;
        now.checked_sub(i64::try_from(arrived?.as_nanos()).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3_600);

    /// A wall clock and a monotonic one.
    struct Clocks {
        wall: Duration,
        now: Instant,
        backlog: Backlog,
    }

    impl Clocks {
        fn new() -> Self {
            let now = Instant::now();
            Self { wall: Duration::from_secs(1_700_000_000), now, backlog: Backlog::new(now) }
        }

        fn pass(&mut self, time: Duration) {
            self.wall += time;
            self.now += time;
        }

        fn is_late(&mut self, waited: Duration) -> bool {
            self.backlog.is_late(Some(self.wall - waited), self.now)
        }

        fn run_empty(&mut self) {
            self.backlog.ran_empty(Some(self.wall), self.now, Duration::ZERO);
        }
    }

    #[test]
    fn audio_is_late_when_it_has_waited_too_long() {
        let mut clocks = Clocks::new();
        assert!(!clocks.is_late(Duration::ZERO));
        clocks.pass(HOUR);
        assert!(!clocks.is_late(WAIT_MAX));
        assert!(clocks.is_late(WAIT_MAX + MS));
        assert!(!clocks.is_late(MS));
    }

    #[test]
    fn without_times_nothing_is_late() {
        let mut backlog = Backlog::new(Instant::now());
        assert!(!backlog.is_late(None, Instant::now() + HOUR));
    }

    #[test]
    fn a_pause_of_the_process_is_noticed() {
        let mut clocks = Clocks::new();
        clocks.run_empty();
        clocks.pass(5 * 1_000 * MS);
        assert!(clocks.is_late(4_000 * MS), "from the beginning of the pause");
        assert!(!clocks.is_late(10 * MS), "from its end");
    }

    #[test]
    fn waiting_on_purpose_is_told_from_a_jump_of_the_clock() {
        let mut clocks = Clocks::new();
        clocks.run_empty();
        for waited in [MS, MS / 2] {
            let newest = Some(clocks.wall - waited);
            clocks.backlog.ran_empty(newest, clocks.now, MS);
            assert_eq!(clocks.backlog.waited(newest, clocks.now), waited);
        }
        clocks.wall -= HOUR;
        let newest = Some(clocks.wall);
        clocks.backlog.ran_empty(newest, clocks.now, MS);
        assert_eq!(clocks.backlog.waited(newest, clocks.now), Duration::ZERO);
    }

    #[test]
    fn jumps_of_the_wall_clock_lose_at_most_what_waits() {
        for forward in [true, false] {
            let mut clocks = Clocks::new();
            clocks.run_empty();
            clocks.wall = if forward { clocks.wall + HOUR } else { clocks.wall - HOUR };
            let first = clocks.is_late(Duration::ZERO);
            assert_eq!(first, !forward);
            clocks.run_empty();
            assert!(!clocks.is_late(WAIT_MAX));
            assert!(clocks.is_late(WAIT_MAX + MS));
        }
    }
}
