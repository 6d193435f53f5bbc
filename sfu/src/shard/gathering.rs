//! When a thread goes by the clock instead of by each datagram: it sleeps until the next beat and then takes all that has
//! come. To be woken, to receive and to send cost nearly the same for one packet and for five. It pays where several come
//! in a beat; a thread with less to do is woken by each datagram, so that a quiet node adds no delay. It knows nothing of
//! sockets; the clock is the caller's.

use std::time::{Duration, Instant};

/// In a beat. With one, a timer would only wake the thread in place of the datagram.
const ARRIVALS_FROM: f64 = 2.0;
/// Apart from the other, so that chance does not switch it back and forth.
const ARRIVALS_TO: f64 = 1.5;

#[derive(Debug)]
pub(super) struct Gathering {
    /// Between two beats; zero: never.
    interval: Duration,
    is_on: bool,
    /// Since it was judged last.
    arrivals: usize,
}

impl Gathering {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, is_on: false, arrivals: 0 }
    }

    /// So many packets of audio, or items of other shards, have come.
    pub(super) fn count(&mut self, arrivals: usize) {
        self.arrivals += arrivals;
    }

    /// By what has come in the time since it was asked last. Answers whether it goes by the clock from now on.
    pub(super) fn judge(&mut self, elapsed: Duration) -> bool {
        let in_a_beat =
            std::mem::take(&mut self.arrivals) as f64 * self.interval.as_secs_f64() / elapsed.as_secs_f64();
        self.is_on = in_a_beat >= if self.is_on { ARRIVALS_TO } else { ARRIVALS_FROM };
        self.is_on
    }

    /// How long to sleep after a turn that began then. `None`: until something comes.
    pub(super) fn pause(&self, began: Instant, now: Instant) -> Option<Duration> {
        self.is_on.then(|| (began + self.interval).saturating_duration_since(now))
    }

    /// What the newest datagram of a batch may have waited through no fault of the machine.
    pub(super) fn wait_max(&self) -> Duration {
        if self.is_on { self.interval } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// After a tenth of a second with so many.
    fn judged(gathering: &mut Gathering, arrivals: usize) -> bool {
        gathering.count(arrivals / 2);
        gathering.count(arrivals - arrivals / 2);
        let is_on = gathering.judge(100 * MS);
        let now = Instant::now();
        assert_eq!(gathering.pause(now, now), is_on.then_some(MS));
        assert_eq!(gathering.wait_max(), if is_on { MS } else { Duration::ZERO });
        is_on
    }

    #[test]
    fn begins_where_two_come_in_a_beat_and_goes_on_with_a_little_less() {
        let mut gathering = Gathering::new(MS);
        for (arrivals, is_on) in [(199, false), (200, true), (151, true), (149, false), (199, false), (0, false)] {
            assert_eq!(judged(&mut gathering, arrivals), is_on, "{arrivals}");
        }
    }

    #[test]
    fn beats_are_counted_from_the_beginning_of_a_turn() {
        let mut gathering = Gathering::new(MS);
        assert!(judged(&mut gathering, 1_000));
        let now = Instant::now();
        assert_eq!(gathering.pause(now, now + MS / 4), Some(MS * 3 / 4));
        assert_eq!(gathering.pause(now, now + 3 * MS), Some(Duration::ZERO), "more work than time");
    }

    #[test]
    fn can_be_switched_off() {
        let mut gathering = Gathering::new(Duration::ZERO);
        gathering.count(1_000_000);
        assert!(!gathering.judge(MS));
        assert_eq!(gathering.pause(Instant::now(), Instant::now()), None);
    }
}
