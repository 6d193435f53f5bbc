//! How many packets a voice waits for one that later ones repeat (RED, RFC 2198). None on a path that loses nothing: senders
//! that repeat all the same must not cost delay. Where every tenth packet is lost, the next one often is lost too, and a
//! repetition comes only with the second; so the wait is as deep as repetitions were of use lately. Time is an argument.

use std::time::{Duration, Instant};

/// A packet that only a repetition brought makes waiting for such worth it for this long.
const USEFUL: Duration = Duration::from_secs(10);
/// More than three would be a delay that disturbs talking more than a lost packet does.
pub const PACKETS_MAX: usize = 3;

#[derive(Debug, Default)]
pub struct Patience {
    /// When a packet was restored by the next one, the second and the third.
    restored: [Option<Instant>; PACKETS_MAX],
}

impl Patience {
    /// A packet is here only because the one `packets_back` behind it repeats it.
    pub fn restored(&mut self, now: Instant, packets_back: usize) {
        if let Some(restored) = packets_back.checked_sub(1).and_then(|place| self.restored.get_mut(place)) {
            *restored = Some(now);
        }
    }

    /// How many packets to wait for.
    #[must_use]
    pub fn packets(&self, now: Instant) -> usize {
        let is_recent = |at: &Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < USEFUL);
        self.restored.iter().rposition(is_recent).map_or(0, |place| place + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_as_deep_as_repetitions_were_of_use_lately() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut patience = Patience::default();
        assert_eq!(patience.packets(at(0)), 0);
        patience.restored(at(0), 2);
        patience.restored(at(5), 1);
        assert_eq!([patience.packets(at(9)), patience.packets(at(10)), patience.packets(at(15))], [2, 1, 0]);
        patience.restored(at(20), 3);
        patience.restored(at(20), 4);
        patience.restored(at(20), 0);
        assert_eq!(patience.packets(at(21)), 3);
    }
}
