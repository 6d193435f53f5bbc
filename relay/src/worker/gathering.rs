//! When a thread goes by the clock instead of by each datagram: it sleeps until the next beat and then takes all that has
//! come. To be woken, to look for what is ready, to receive and to send cost nearly the same for one packet and for five.
//! It pays where several come in a beat; a thread with less to do is woken by each datagram, so that a lone call is not
//! delayed. It knows nothing of sockets; the clock is the caller's.

use std::time::{Duration, Instant};

/// Datagrams in a beat. With one, a timer would only wake the thread in place of the datagram.
const ARRIVALS_FROM: f64 = 2.0;
/// Apart from the other, so that chance does not switch it back and forth.
const ARRIVALS_TO: f64 = 1.5;
/// Long enough for some datagrams of few calls, short enough that the beat ends soon after the crowd has left.
const JUDGED_EACH: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Gathering {
    /// Between two beats; zero: never.
    interval: Duration,
    is_on: bool,
    began: Instant,
    judged: Instant,
    /// Since it was judged last.
    arrivals: usize,
}

impl Gathering {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self { interval, is_on: false, began: now, judged: now, arrivals: 0 }
    }

    /// Whether it pays is judged by the new interval as soon as a time is over.
    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// A turn begins.
    pub(super) fn begin(&mut self, now: Instant) {
        self.began = now;
        let elapsed = now.saturating_duration_since(self.judged);
        if elapsed >= JUDGED_EACH {
            self.judged = now;
            let arrivals = std::mem::take(&mut self.arrivals) as f64;
            let in_a_beat = arrivals * self.interval.as_secs_f64() / elapsed.as_secs_f64();
            self.is_on = in_a_beat >= if self.is_on { ARRIVALS_TO } else { ARRIVALS_FROM };
        }
    }

    /// So many datagrams came.
    pub(super) fn count(&mut self, arrivals: usize) {
        self.arrivals += arrivals;
    }

    /// How long to sleep before the next turn.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        if self.is_on { (self.began + self.interval).saturating_duration_since(now) } else { Duration::ZERO }
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_micros(250);

    fn gathering(interval: Duration) -> (Gathering, Instant) {
        let now = Instant::now();
        (Gathering::new(interval, now), now)
    }

    /// After another tenth of a second with so many datagrams.
    fn judged(gathering: &mut Gathering, now: &mut Instant, arrivals: usize) -> bool {
        gathering.count(arrivals / 2);
        gathering.count(arrivals - arrivals / 2);
        *now += Duration::from_millis(100);
        gathering.begin(*now);
        assert_eq!(gathering.pause(*now), if gathering.is_on() { BEAT } else { Duration::ZERO });
        gathering.is_on()
    }

    #[test]
    fn begins_where_two_come_in_a_beat_and_goes_on_with_a_little_less() {
        let (mut gathering, mut now) = gathering(BEAT);
        // 400 beats.
        for (arrivals, is_on) in [(799, false), (800, true), (601, true), (599, false), (799, false), (0, false)] {
            assert_eq!(judged(&mut gathering, &mut now, arrivals), is_on, "{arrivals}");
        }
    }

    #[test]
    fn a_lone_call_is_not_delayed_and_a_crowd_that_left_soon_neither() {
        let (mut gathering, mut now) = gathering(BEAT);
        // Fifty packets a second each way.
        for _ in 0..50 {
            now += Duration::from_millis(20);
            gathering.begin(now);
            gathering.count(2);
            assert_eq!(gathering.pause(now), Duration::ZERO);
        }
        assert!(judged(&mut gathering, &mut now, 10_000));
        gathering.begin(now + JUDGED_EACH);
        assert!(!gathering.is_on());
    }

    #[test]
    fn beats_are_counted_from_the_beginning_of_a_turn() {
        let (mut gathering, mut now) = gathering(BEAT);
        assert!(judged(&mut gathering, &mut now, 10_000));
        assert_eq!(gathering.pause(now + BEAT / 5), BEAT * 4 / 5);
        assert_eq!(gathering.pause(now + 3 * BEAT), Duration::ZERO, "more work than time");
    }

    #[test]
    fn can_be_switched_off() {
        let (mut gathering, now) = gathering(Duration::ZERO);
        gathering.count(1_000_000);
        gathering.begin(now + JUDGED_EACH);
        assert!(!gathering.is_on());
        assert_eq!(gathering.pause(now), Duration::ZERO);
    }

    #[test]
    fn another_interval_counts_from_the_next_judgement_on() {
        let (mut gathering, mut now) = gathering(Duration::ZERO);
        assert!(!judged(&mut gathering, &mut now, 10_000));
        gathering.set_interval(BEAT);
        assert!(judged(&mut gathering, &mut now, 10_000));
        gathering.set_interval(Duration::ZERO);
        assert_eq!(gathering.pause(now), Duration::ZERO);
        assert!(!judged(&mut gathering, &mut now, 10_000));
    }
}
