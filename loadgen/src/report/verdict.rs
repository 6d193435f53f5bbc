//! Thresholds against what was measured. What could not be measured breaks its threshold: a run in which nothing arrived
//! must not pass because it lost nothing.

use std::fmt;

use super::number::{exact, near};
use crate::results::{Distribution, Judged, Results};

/// Judges every threshold that the scenario sets, in the order of its keys.
#[must_use]
pub fn judge(results: &Results) -> Vec<Judged> {
    let limits = &results.scenario.thresholds;
    let media = &results.media;
    let heard = media.received > 0;
    let some_join = results.joins.started > 0;
    // A connection that did not last is no better than one that did not come.
    let gone = results.joins.failed + results.joins.lost;
    [
        at_most("loss_max", limits.loss_max, heard.then_some(media.loss_share)),
        at_least(
            "delivered_share_min",
            limits.delivered_share_min,
            (media.expected > 0).then_some(media.delivered_share),
        ),
        at_most("delay_p50_ms_max", limits.delay_p50_ms_max, percentile(&media.delay_ms, |d| d.p50)),
        at_most("delay_p99_ms_max", limits.delay_p99_ms_max, percentile(&media.delay_ms, |d| d.p99)),
        at_most("join_p99_ms_max", limits.join_p99_ms_max, percentile(&results.joins.total_ms, |d| d.p99)),
        at_most("joins_failed_max", limits.joins_failed_max, some_join.then_some(count(gone))),
        at_least("packets_per_s_min", limits.packets_per_s_min, heard.then_some(media.received_per_s)),
        at_least("packets_per_cpu_s_min", limits.packets_per_cpu_s_min, media.per_server_cpu_s),
        at_most("send_late_p99_ms_max", limits.send_late_p99_ms_max, percentile(&media.send_late_ms, |d| d.p99)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One line that can be read without the scenario beside it.
#[derive(Debug)]
pub struct Line<'a>(pub &'a Judged);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judged { threshold, limit, value, ok } = self.0;
        let (word, broken) = if threshold.ends_with("_min") { ("at least", "below") } else { ("at most", "above") };
        let limit = exact(*limit);
        match value {
            None => write!(f, "{threshold}: could not be measured, and must be {word} {limit}"),
            Some(value) if *ok => write!(f, "{threshold}: {} is {word} {limit}", near(*value)),
            Some(value) => write!(f, "{threshold}: {} is {broken} the limit of {limit}", near(*value)),
        }
    }
}

fn at_most(threshold: &str, limit: Option<f64>, value: Option<f64>) -> Option<Judged> {
    let limit = limit?;
    Some(Judged { threshold: threshold.to_owned(), limit, value, ok: value.is_some_and(|value| value <= limit) })
}

fn at_least(threshold: &str, limit: Option<f64>, value: Option<f64>) -> Option<Judged> {
    let limit = limit?;
    Some(Judged { threshold: threshold.to_owned(), limit, value, ok: value.is_some_and(|value| value >= limit) })
}

fn percentile(of: &Distribution, which: fn(&Distribution) -> f64) -> Option<f64> {
    (of.count > 0).then(|| which(of))
}

#[expect(clippy::cast_precision_loss, reason = "people of one run are below 2^53")]
fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::results;
    use super::*;
    use crate::scenario::Thresholds;

    fn judged(thresholds: Thresholds, change: fn(&mut Results)) -> Vec<(String, bool)> {
        let mut results = results();
        results.scenario.thresholds = thresholds;
        change(&mut results);
        judge(&results).into_iter().map(|judged| (judged.threshold, judged.ok)).collect()
    }

    #[test]
    fn only_what_the_scenario_sets_is_judged() {
        assert!(judged(Thresholds::default(), |_| {}).is_empty());
        let limits = Thresholds { loss_max: Some(0.01), ..Thresholds::default() };
        assert_eq!(judged(limits, |_| {}), [("loss_max".to_owned(), true)]);
    }

    #[test]
    fn limits_hold_on_their_edge_and_break_behind_it() {
        let limits =
            Thresholds { delay_p99_ms_max: Some(3.0), packets_per_s_min: Some(1000.0), ..Thresholds::default() };
        let at = |p99: f64, rate: f64| {
            let mut results = results();
            results.scenario.thresholds = limits.clone();
            results.media.delay_ms.p99 = p99;
            results.media.received_per_s = rate;
            judge(&results).iter().map(|judged| judged.ok).collect::<Vec<_>>()
        };
        assert_eq!(at(3.0, 1000.0), [true, true]);
        assert_eq!(at(3.01, 999.9), [false, false]);
    }

    #[test]
    fn what_was_not_measured_breaks_its_threshold() {
        let limits = Thresholds {
            loss_max: Some(1.0),
            delay_p50_ms_max: Some(1e9),
            packets_per_cpu_s_min: Some(0.0),
            ..Thresholds::default()
        };
        let verdict = judged(limits, |results| {
            results.media = crate::results::Media::default();
        });
        assert_eq!(verdict.len(), 3);
        assert!(verdict.iter().all(|(_, ok)| !ok), "{verdict:?}");
    }

    #[test]
    fn a_broken_threshold_is_one_clear_line() {
        let line = |value, ok, threshold: &str| {
            Line(&Judged { threshold: threshold.to_owned(), limit: 2.5, value, ok }).to_string()
        };
        assert_eq!(line(Some(11.25), false, "delay_p99_ms_max"), "delay_p99_ms_max: 11.25 is above the limit of 2.5");
        assert_eq!(line(Some(2.0), false, "packets_per_s_min"), "packets_per_s_min: 2 is below the limit of 2.5");
        assert_eq!(line(Some(2.0), true, "loss_max"), "loss_max: 2 is at most 2.5");
        assert_eq!(line(None, false, "loss_max"), "loss_max: could not be measured, and must be at most 2.5");
    }
}
