//! How much sound the daemon should hold for the virtual microphone: 20 ms, and more only while the machine is too
//! loaded to keep that. Time is an argument.

use std::time::{Duration, Instant};

/// 20 ms is clean on a quiet machine; 80 ms was clean on one with a load of five times its cores.
const STEPS_MS: [u32; 3] = [20, 40, 80];
/// One hiccup makes several underflows in a row.
const SAME_HICCUP: Duration = Duration::from_millis(500);
/// Time without underflow before a lower step is tried; doubled each time that it was a mistake.
const CLEAN_MIN: Duration = Duration::from_secs(120);
const CLEAN_MAX: Duration = Duration::from_secs(3840);

#[derive(Debug)]
pub struct TargetLatency {
    step: usize,
    changed: Option<Instant>,
    underflow: Option<Instant>,
    clean: Duration,
}

impl Default for TargetLatency {
    fn default() -> Self {
        Self { step: 0, changed: None, underflow: None, clean: CLEAN_MIN }
    }
}

impl TargetLatency {
    #[must_use]
    pub fn ms(&self) -> u32 {
        STEPS_MS[self.step]
    }

    /// The daemon ran out of sound. Says whether the target changed.
    pub fn underflowed(&mut self, now: Instant) -> bool {
        self.underflow = Some(now);
        let recent = self.changed.is_some_and(|at| now.saturating_duration_since(at) < SAME_HICCUP);
        if recent || self.step + 1 == STEPS_MS.len() {
            return false;
        }
        self.step += 1;
        self.changed = Some(now);
        true
    }

    /// To be asked now and then. Says whether the target changed.
    pub fn relax(&mut self, now: Instant) -> bool {
        let quiet_since = self.changed.max(self.underflow);
        let clean = quiet_since.is_some_and(|at| now.saturating_duration_since(at) >= self.clean);
        if self.step == 0 || !clean {
            return false;
        }
        self.step -= 1;
        self.changed = Some(now);
        self.clean = (self.clean * 2).min(CLEAN_MAX);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn underflows_raise_the_target_step_by_step() {
        let (mut target, start) = (TargetLatency::default(), Instant::now());
        assert_eq!(target.ms(), 20);
        assert!(target.underflowed(start));
        assert!(!target.underflowed(start + Duration::from_millis(100)), "the same hiccup");
        assert!(target.underflowed(start + Duration::from_secs(2)));
        assert_eq!(target.ms(), 80);
        assert!(!target.underflowed(start + Duration::from_secs(4)), "80 ms is the end");
    }

    #[test]
    fn a_quiet_machine_gets_its_latency_back_but_is_trusted_less_each_time() {
        let (mut target, start) = (TargetLatency::default(), Instant::now());
        target.underflowed(start);
        assert!(!target.relax(start + Duration::from_secs(119)));
        assert!(target.relax(start + Duration::from_secs(120)));
        assert_eq!(target.ms(), 20);
        let again = start + Duration::from_secs(130);
        target.underflowed(again);
        assert!(!target.relax(again + Duration::from_secs(200)));
        assert!(target.relax(again + Duration::from_secs(240)));
    }
}
