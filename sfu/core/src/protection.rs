//! How often a listener gets each packet again, by what it says of its losses (RFC 3550 section 6.4.1). It counts and decides;
//! the packets are made in `redundancy`.

use std::time::{Duration, Instant};

use crate::{redundancy::BLOCKS_MAX, rtcp::ReportBlock};

/// Losses in 1/1000 from which one packet is repeated, two, and three. Measured with speech at 32 kb/s (PESQ): at 5 % loss
/// concealment alone gives 2.0, one block 3.6; at 10 % one block gives 3.1, two give 3.9; at 20 % two give 2.8 to 3.3.
const FROM: [u64; BLOCKS_MAX] = [30, 100, 150];
/// It stays on until the losses are below half of what turned it on: a redundant stream is up to four times as wide, and on a path
/// that loses by congestion the two must not swing against each other.
const OFF_DIVISOR: u64 = 2;
/// Losses come in bursts: so long it must have been calm before a step down.
const CALM: Duration = Duration::from_secs(10);
/// One second of one voice. Of fewer packets, one that is lost says nothing.
const EXPECTED_MIN: u64 = 50;
/// Reports that claim to expect more are mistaken: all slots at 400 packets a second, for ten seconds.
const EXPECTED_MAX: u32 = 40_000;

/// Losses of one listener over all its slots.
#[derive(Default, Debug)]
pub(crate) struct Protection {
    /// What the last report said of each slot; as many as a listener has slots.
    seen: Vec<Seen>,
    expected: u64,
    lost: u64,
    blocks: u8,
    calm_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    ssrc: u32,
    highest: u32,
    lost: i32,
}

impl Protection {
    /// A report on a slot of ours.
    pub(crate) fn hear(&mut self, block: &ReportBlock) {
        let now = Seen { ssrc: block.ssrc, highest: block.highest_sequence, lost: block.cumulative_lost };
        let Some(seen) = self.seen.iter_mut().find(|seen| seen.ssrc == block.ssrc) else {
            return self.seen.push(now);
        };
        let before = std::mem::replace(seen, now);
        let expected = now.highest.wrapping_sub(before.highest);
        if expected > EXPECTED_MAX {
            return;
        }
        self.expected += u64::from(expected);
        self.lost += u64::from(now.lost.saturating_sub(before.lost).clamp(0, expected as i32).unsigned_abs());
    }

    /// Now and then: how many packets to repeat from now on, when that changes.
    pub(crate) fn decide(&mut self, now: Instant) -> Option<u8> {
        if self.expected < EXPECTED_MIN {
            return None;
        }
        let lost = self.lost * 1_000 / self.expected;
        (self.expected, self.lost) = (0, 0);
        let wanted = wanted(lost, 1);
        if wanted > self.blocks {
            (self.blocks, self.calm_since) = (wanted, None);
            return Some(wanted);
        }
        // Still wanted: more than half of what turned it on.
        let kept = wanted_to_keep(lost, self.blocks);
        if kept == self.blocks {
            self.calm_since = None;
            return None;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(since) < CALM {
            return None;
        }
        (self.blocks, self.calm_since) = (self.blocks - 1, None);
        Some(self.blocks)
    }
}

fn wanted(lost: u64, divisor: u64) -> u8 {
    FROM.iter().map(|from| u8::from(lost >= from / divisor)).sum()
}

fn wanted_to_keep(lost: u64, blocks: u8) -> u8 {
    wanted(lost, OFF_DIVISOR).min(blocks)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Listener {
        protection: Protection,
        now: Instant,
        highest: u32,
        lost: i32,
    }

    impl Listener {
        #[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
        fn new() -> Self {
            let mut listener =
                Self { protection: Protection::default(), now: Instant::now(), highest: 65_000, lost: -3 };
            listener.seconds(1, 0);
            listener
        }

        /// A report each second of one voice at 50 packets a second; the decisions of that time.
        fn seconds(&mut self, seconds: u32, lost_in_100: i32) -> Vec<u8> {
            let decisions = (0..seconds).filter_map(|_| {
                self.now += Duration::from_secs(1);
                self.highest = self.highest.wrapping_add(100);
                self.lost += lost_in_100;
                self.protection.hear(&block(9, self.highest, self.lost));
                self.protection.decide(self.now)
            });
            decisions.collect()
        }
    }

    fn block(ssrc: u32, highest_sequence: u32, cumulative_lost: i32) -> ReportBlock {
        ReportBlock {
            ssrc,
            fraction_lost: 0,
            cumulative_lost,
            highest_sequence,
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        }
    }

    #[test]
    fn losses_turn_redundancy_on_at_once_and_calm_turns_it_off_step_by_step() {
        let mut listener = Listener::new();
        assert_eq!(listener.seconds(20, 2), []);
        assert_eq!(listener.seconds(1, 3), [1]);
        assert_eq!(listener.seconds(1, 12), [2]);
        assert_eq!(listener.seconds(1, 18), [3]);
        assert_eq!(listener.seconds(60, 8), [], "eight percent keep three");
        assert_eq!(listener.seconds(60, 5), [2], "five percent keep two");
        assert_eq!(listener.seconds(60, 2), [1], "two percent keep one");
        assert_eq!(listener.seconds(10, 1), []);
        assert_eq!(listener.seconds(2, 0), [0]);
        assert_eq!(listener.seconds(60, 0), []);
    }

    #[test]
    fn a_single_burst_does_not_swing() {
        let mut listener = Listener::new();
        let mut decisions = Vec::new();
        for _ in 0..10 {
            decisions.extend(listener.seconds(1, 4));
            decisions.extend(listener.seconds(8, 0));
        }
        assert_eq!(decisions, [1]);
    }

    #[test]
    fn few_packets_say_nothing_and_wrong_reports_do_no_harm() {
        let mut protection = Listener::new().protection;
        let now = Listener::new().now;
        protection.hear(&block(1, 100, 0));
        protection.hear(&block(1, 120, 20));
        assert_eq!(protection.decide(now), None, "twenty packets");
        protection.hear(&block(1, 20, 40));
        protection.hear(&block(1, 4_000_000_000, i32::MIN));
        protection.hear(&block(1, 4_000_000_000, i32::MAX));
        assert_eq!(protection.decide(now), None, "jumps of a restarted receiver");
    }

    proptest! {
        #[test]
        fn any_reports_are_survived(blocks in proptest::collection::vec((0u32..4, any::<u32>(), any::<i32>()), 0..60)) {
            let mut listener = Listener::new();
            for (ssrc, highest, lost) in blocks {
                listener.protection.hear(&block(ssrc, highest, lost));
                listener.now += Duration::from_secs(4);
                if let Some(blocks) = listener.protection.decide(listener.now) {
                    prop_assert!(usize::from(blocks) <= BLOCKS_MAX);
                }
            }
        }
    }
}
