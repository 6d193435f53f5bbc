//! How long to wait before a dead process is started again: soon the first time, because a call is waiting; ever longer
//! while it keeps dying, because something is wrong that speed will not cure.

use std::time::Duration;

/// Shorter than any client's patience.
const FIRST: Duration = Duration::from_millis(100);
/// Longer waits only make the cure look broken once the cause is gone.
const LONGEST: Duration = Duration::from_secs(5);
/// Who ran this long was healthy: the next death is a new story.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Backoff {
    deaths_in_a_row: u32,
}

impl Backoff {
    pub(super) fn after_a_run_of(&mut self, ran: Duration) -> Duration {
        if ran >= HEALTHY_AFTER {
            self.deaths_in_a_row = 0;
        }
        let doublings = self.deaths_in_a_row.min(16);
        self.deaths_in_a_row = self.deaths_in_a_row.saturating_add(1);
        (FIRST * 2_u32.pow(doublings)).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_a_healthy_run_forgives() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.after_a_run_of(Duration::ZERO).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.after_a_run_of(HEALTHY_AFTER), FIRST);
        assert_eq!(backoff.after_a_run_of(Duration::from_secs(1)), FIRST * 2);
    }

    #[test]
    fn dying_for_ever_never_overflows() {
        let mut backoff = Backoff { deaths_in_a_row: u32::MAX };
        assert_eq!(backoff.after_a_run_of(Duration::ZERO), LONGEST);
    }
}
