//! Peers that a shard has taken so lately that its load does not show them yet. Without them a stream of joins goes on until
//! the load shows the limit, and the calls pay for those who came in the meantime. No clock of its own, and not the
//! load itself: that is measured by the shard.

use std::time::{Duration, Instant};

/// Until a peer is in the load that a shard shows: a smoothed ratio, half a second old, and some time for ICE, DTLS and
/// the first packets.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// Where more of the peers than this are new, the load is handshakes more than audio, and says nothing of what each will cost.
const NEW_SHARE_MAX: f64 = 0.5;

#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    /// A sum that fades.
    recent: f64,
    counted_at: Option<Instant>,
}

impl Arrivals {
    pub(super) fn count(&mut self, now: Instant) {
        self.recent = self.recent(now) + 1.0;
        self.counted_at = Some(now);
    }

    /// The part of the time for which the shard will work once all of its peers are heard and hear, from the `busy` part
    /// that it shows now.
    pub(super) fn expected(&self, busy: f32, peers: usize, now: Instant) -> f32 {
        let new_share = self.recent(now) / peers.max(1) as f64;
        if new_share > NEW_SHARE_MAX { busy } else { busy * (1.0 + new_share) as f32 }
    }

    fn recent(&self, now: Instant) -> f64 {
        let age = self.counted_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.recent * (-age.as_secs_f64() / SHOWN_AFTER.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_just_come_is_reckoned_with() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        assert_eq!(arrivals.expected(0.7, 400, now), 0.7);
        for _ in 0..100 {
            arrivals.count(now);
        }
        assert!((arrivals.expected(0.7, 400, now) - 0.875).abs() < 1e-3);
        let later = now + 3 * SHOWN_AFTER;
        assert!(arrivals.expected(0.7, 400, later) < 0.71);
        assert_eq!(arrivals.expected(0.0, 0, later), 0.0);
    }

    #[test]
    fn a_stream_of_joins_counts_for_about_a_second() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        for join in 0..350 {
            arrivals.count(now + join * Duration::from_millis(1000 / 70));
        }
        let recent = arrivals.recent(now + Duration::from_secs(5));
        assert!((60.0..80.0).contains(&recent), "{recent}");
    }

    #[test]
    fn handshakes_of_a_storm_into_an_idle_node_are_no_sign_of_audio() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        for _ in 0..200 {
            arrivals.count(now);
        }
        assert_eq!(arrivals.expected(0.6, 210, now), 0.6);
    }
}
