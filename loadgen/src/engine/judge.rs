//! Thresholds against figures. What could not be measured does not hold.

use crate::results::{Joins, Judged, Media};
use crate::scenario::Thresholds;

pub(super) fn judge(thresholds: &Thresholds, joins: &Joins, media: &Media) -> Vec<Judged> {
    let delays = |value: f64| (media.delay_ms.count > 0).then_some(value);
    let joined = (joins.connected > 0).then_some(joins.total_ms.p99);
    let late = (media.send_late_ms.count > 0).then_some(media.send_late_ms.p99);
    let received = (media.received > 0).then_some(media.loss_share);
    let delivered = (media.expected > 0).then_some(media.delivered_share);
    let at_most = [
        ("loss_max", thresholds.loss_max, received),
        ("delay_p50_ms_max", thresholds.delay_p50_ms_max, delays(media.delay_ms.p50)),
        ("delay_p99_ms_max", thresholds.delay_p99_ms_max, delays(media.delay_ms.p99)),
        ("join_p99_ms_max", thresholds.join_p99_ms_max, joined),
        ("joins_failed_max", thresholds.joins_failed_max, Some((joins.failed + joins.lost) as f64)),
        ("send_late_p99_ms_max", thresholds.send_late_p99_ms_max, late),
    ];
    let at_least = [
        ("delivered_share_min", thresholds.delivered_share_min, delivered),
        ("packets_per_s_min", thresholds.packets_per_s_min, Some(media.received_per_s)),
        ("packets_per_cpu_s_min", thresholds.packets_per_cpu_s_min, media.per_server_cpu_s),
    ];
    let judged = |(threshold, limit, value): (&str, Option<f64>, Option<f64>), holds: fn(f64, f64) -> bool| {
        let limit = limit?;
        let ok = value.is_some_and(|value| holds(value, limit));
        Some(Judged { threshold: threshold.to_owned(), limit, value, ok })
    };
    let upper = at_most.into_iter().filter_map(|rule| judged(rule, |value, limit| value <= limit));
    let lower = at_least.into_iter().filter_map(|rule| judged(rule, |value, limit| value >= limit));
    upper.chain(lower).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_holds_at_its_limit_and_breaks_beyond() {
        let media = Media { received: 100, loss_share: 0.01, received_per_s: 50.0, ..Media::default() };
        let verdict = |loss, rate| {
            let thresholds = Thresholds { loss_max: Some(loss), packets_per_s_min: Some(rate), ..Default::default() };
            judge(&thresholds, &Joins::default(), &media).iter().map(|judged| judged.ok).collect::<Vec<_>>()
        };
        assert_eq!(verdict(0.01, 50.0), [true, true]);
        assert_eq!(verdict(0.009, 51.0), [false, false]);
    }

    #[test]
    fn what_was_not_measured_does_not_hold_and_what_was_not_asked_is_not_judged() {
        let thresholds =
            Thresholds { delay_p99_ms_max: Some(9.0), packets_per_cpu_s_min: Some(1.0), ..Default::default() };
        let verdict = judge(&thresholds, &Joins::default(), &Media::default());
        assert_eq!(verdict.len(), 2);
        assert!(verdict.iter().all(|judged| !judged.ok && judged.value.is_none()));
    }

    #[test]
    fn connections_that_were_lost_count_as_failed() {
        let thresholds = Thresholds { joins_failed_max: Some(1.0), ..Default::default() };
        let joins = Joins { failed: 1, lost: 1, ..Joins::default() };
        assert!(!judge(&thresholds, &joins, &Media::default())[0].ok);
    }
}
