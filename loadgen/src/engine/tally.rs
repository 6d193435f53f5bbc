//! What the clients counted: plain numbers and histograms that add up. A worker has one of its own and hands it over a few
//! times a second, so that counting costs no atomics.

use hdrhistogram::Histogram;

use super::stream::Change;
use crate::results::{Distribution, Media};

#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    pub(super) delay: Micros,
    pub(super) send_late: Micros,
    pub(super) receive_turn: Micros,
    pub(super) onset: Micros,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    pub(super) sent_lost_on_purpose: u64,
    /// The same, times the hearers of each.
    pub(super) missed_on_purpose: u64,
    pub(super) send_failed: u64,
    pub(super) expected: u64,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) received_lost_on_purpose: u64,
    pub(super) lost: i64,
    pub(super) reordered: u64,
    pub(super) duplicated: u64,
    pub(super) opened: u64,
    pub(super) unreadable: u64,
    pub(super) other: u64,
    pub(super) onsets_expected: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.sent_lost_on_purpose += other.sent_lost_on_purpose;
        self.missed_on_purpose += other.missed_on_purpose;
        self.send_failed += other.send_failed;
        self.expected += other.expected;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.received_lost_on_purpose += other.received_lost_on_purpose;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.duplicated += other.duplicated;
        self.opened += other.opened;
        self.unreadable += other.unreadable;
        self.other += other.other;
        self.onsets_expected += other.onsets_expected;
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            counts: Counts::default(),
            delay: Micros::new(),
            send_late: Micros::new(),
            receive_turn: Micros::new(),
            onset: Micros::new(),
        }
    }

    /// Zero, with the memory kept.
    pub(super) fn clear(&mut self) {
        self.counts = Counts::default();
        for micros in [&mut self.delay, &mut self.send_late, &mut self.receive_turn, &mut self.onset] {
            micros.clear();
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.delay.add(&other.delay);
        self.send_late.add(&other.send_late);
        self.receive_turn.add(&other.receive_turn);
        self.onset.add(&other.onset);
    }

    pub(super) fn take(&mut self, change: Change) {
        self.counts.lost += change.lost;
        self.counts.reordered += u64::from(change.reordered);
        self.counts.duplicated += u64::from(change.duplicated);
    }

    /// Missing, without what was kept back on purpose.
    pub(super) fn missing(&self) -> u64 {
        u64::try_from(self.counts.lost).unwrap_or(0).saturating_sub(self.counts.missed_on_purpose)
    }

    pub(super) fn loss_share(&self) -> f64 {
        share(self.missing(), self.counts.received + self.missing())
    }

    /// Over `seconds`, with the server's CPU time in them where it is known.
    pub(super) fn media(&self, seconds: f64, server_cpu_s: Option<f64>) -> Media {
        let arrived = self.counts.received + self.counts.received_lost_on_purpose;
        Media {
            sent: self.counts.sent,
            sent_lost_on_purpose: self.counts.sent_lost_on_purpose,
            send_failed: self.counts.send_failed,
            expected: self.counts.expected,
            received: self.counts.received,
            received_bytes: self.counts.received_bytes,
            received_lost_on_purpose: self.counts.received_lost_on_purpose,
            lost: self.missing(),
            reordered: self.counts.reordered,
            duplicated: self.counts.duplicated,
            opened: self.counts.opened,
            unreadable: self.counts.unreadable,
            other: self.counts.other,
            received_per_s: if seconds > 0.0 { self.counts.received as f64 / seconds } else { 0.0 },
            loss_share: self.loss_share(),
            delivered_share: share(arrived, self.counts.expected),
            per_server_cpu_s: server_cpu_s.filter(|cpu| *cpu > 0.0).map(|cpu| arrived as f64 / cpu),
            delay_ms: self.delay.distribution(),
            send_late_ms: self.send_late.distribution(),
            receive_turn_ms: self.receive_turn.distribution(),
        }
    }

    /// Until a new speaker was heard. One who never was counts as one who was heard after the whole turn.
    pub(super) fn onsets(&self, turn_ms: u32) -> Distribution {
        let mut onset = self.onset.clone();
        let unheard = self.counts.onsets_expected.saturating_sub(onset.count());
        onset.record_many(u64::from(turn_ms) * 1000, unheard);
        onset.distribution()
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Microseconds, with an error of 0.1 %.
#[derive(Clone, Debug)]
pub(super) struct Micros(Histogram<u32>);

/// Longer than anything waits here; what is longer counts as this.
const MICROS_MAX: u64 = 60_000_000;

impl Micros {
    pub(super) fn new() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("bounds are in order and the precision is allowed"))
    }

    pub(super) fn record_ns(&mut self, nanos: u64) {
        self.0.saturating_record(nanos / 1000);
    }

    pub(super) fn record(&mut self, duration: std::time::Duration) {
        self.0.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(MICROS_MAX));
    }

    fn record_many(&mut self, micros: u64, count: u64) {
        self.0.saturating_record_n(micros, u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn add(&mut self, other: &Self) {
        if !other.0.is_empty() {
            // Same bounds, so nothing can be out of them.
            let _ = self.0.add(&other.0);
        }
    }

    pub(super) fn clear(&mut self) {
        if !self.0.is_empty() {
            self.0.reset();
        }
    }

    fn count(&self) -> u64 {
        self.0.len()
    }

    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_quantile(quantile) as f64 / 1000.0 }
    }

    /// In milliseconds.
    pub(super) fn distribution(&self) -> Distribution {
        if self.0.is_empty() {
            return Distribution::default();
        }
        let at = |quantile| self.quantile_ms(quantile);
        let points = [
            0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995,
            0.998, 0.999, 0.9999, 1.0,
        ];
        Distribution {
            count: self.0.len(),
            mean: self.0.mean() / 1000.0,
            min: self.0.min() as f64 / 1000.0,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 1000.0,
            curve: points.into_iter().map(|point| (at(point), point)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_back_on_purpose_is_no_loss() {
        let mut tally = Tally::new();
        tally.counts = Counts { expected: 100, received: 80, lost: 20, missed_on_purpose: 15, ..Counts::default() };
        let media = tally.media(2.0, Some(0.5));
        assert_eq!((media.lost, media.received_per_s, media.per_server_cpu_s), (5, 40.0, Some(160.0)));
        assert!((media.loss_share - 5.0 / 85.0).abs() < 1e-9 && (media.delivered_share - 0.8).abs() < 1e-9);
    }

    #[test]
    fn tallies_add_up_and_clear() {
        let mut one = Tally::new();
        one.counts.received = 3;
        one.delay.record_ns(2_000_000);
        let mut both = one.clone();
        both.add(&one);
        assert_eq!((both.counts.received, both.delay.distribution().count), (6, 2));
        assert!((both.delay.quantile_ms(0.5) - 2.0).abs() < 0.01);
        both.clear();
        assert_eq!((both.counts, both.delay.distribution()), (Counts::default(), Distribution::default()));
    }

    #[test]
    fn a_speaker_who_was_never_heard_took_the_whole_turn() {
        let mut tally = Tally::new();
        tally.counts.onsets_expected = 10;
        for _ in 0..9 {
            tally.onset.record_ns(40_000_000);
        }
        let onsets = tally.onsets(2_000);
        assert!(onsets.p50 < 41.0 && onsets.p95 > 1_990.0 && onsets.count == 10, "{onsets:?}");
    }
}
