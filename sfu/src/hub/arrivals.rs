//! Peers that a shard has taken so lately that its load does not show them yet. Without them a stream of joins goes on until
//! the load shows the limit, and the calls pay for those who came in the meantime. No clock of its own, and not the
//! load itself: that is measured by the shard.

use std::time::{Duration, Instant};

/// Until a peer is in the load that a shard shows: a smoothed ratio, half a second old, and some time for ICE, DTLS and
/// the first packets.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Follows the count of a shard's peers, as late as the load does. Who leaves and comes again at once is not new.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrivals {
    shown: f64,
    peers: usize,
    looked_at: Option<Instant>,
}

impl Arrivals {
    #[cfg(test)]
    pub(super) fn showing(peers: usize) -> Self {
        Self { shown: peers as f64, peers, looked_at: None }
    }

    /// The part of the time for which the shard will work once all of its `peers` hear and are heard, from the `busy` part
    /// that it shows now. Where nearly all of them are new, its load is handshakes, and tells nothing of what each will cost.
    pub(super) fn expected(&mut self, busy: f32, peers: usize, now: Instant) -> f32 {
        let age = self.looked_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let followed = 1.0 - (-age.as_secs_f64() / SHOWN_AFTER.as_secs_f64()).exp();
        self.shown += (self.peers as f64 - self.shown) * followed;
        (self.peers, self.looked_at) = (peers, Some(now));
        let new_share = (1.0 - self.shown / peers.max(1) as f64).clamp(0.0, 1.0);
        busy * (1.0 + new_share.min(1.0 - new_share)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_just_come_is_reckoned_with_until_the_load_shows_them() {
        let (mut arrivals, now) = (Arrivals::showing(300), Instant::now());
        assert_eq!(arrivals.expected(0.7, 300, now), 0.7);
        assert!((arrivals.expected(0.7, 400, now) - 0.875).abs() < 1e-3);
        assert!(arrivals.expected(0.7, 400, now + 4 * SHOWN_AFTER) < 0.71);
    }

    #[test]
    fn a_stream_of_joins_counts_for_about_a_second() {
        let (mut arrivals, now) = (Arrivals::default(), Instant::now());
        for peers in 0..350_u32 {
            arrivals.expected(0.0, peers as usize, now + peers * Duration::from_millis(1000 / 70));
        }
        assert!((270.0..290.0).contains(&arrivals.shown), "{}", arrivals.shown);
    }

    #[test]
    fn those_who_leave_and_come_again_are_not_new() {
        let (mut arrivals, now) = (Arrivals::showing(400), Instant::now());
        for n in 0..160 {
            let now = now + n * Duration::from_millis(5);
            assert_eq!(arrivals.expected(0.6, 399, now), 0.6);
        }
    }

    #[test]
    fn handshakes_of_a_storm_into_an_idle_node_are_no_sign_of_audio() {
        let (mut arrivals, now) = (Arrivals::showing(0), Instant::now());
        assert_eq!(arrivals.expected(0.6, 0, now), 0.6);
        assert_eq!(arrivals.expected(0.6, 200, now), 0.6);
        let mut few = Arrivals::showing(10);
        assert!(few.expected(0.6, 210, now) < 0.63);
    }
}
