//! Which plots a report has and what is in them.

use crate::report::plot::{Axis, Plot, Series};
use crate::results::{Distribution, Phase, Results, Sample, Step};

pub(super) fn over_time(results: &Results) -> String {
    let series = |name, value: fn(&Sample) -> Option<f64>| Series {
        name,
        points: results.series.iter().filter_map(|s| Some((s.at_s, value(s)?))).collect(),
    };
    let measured = measured(&results.series);
    let whole = results.series.last().map(|last| (0.0, last.at_s));
    let plot = |title, unit, series| Plot {
        title,
        unit,
        x: Axis { label: "seconds", marks: Vec::new(), range: whole, shade: measured },
        series,
    };
    let mut plots = vec![
        plot(
            "Packets",
            "for each second",
            vec![series("received", |s| Some(s.received_per_s)), series("sent", |s| Some(s.sent_per_s))],
        ),
        plot(
            "Delay",
            "milliseconds",
            vec![
                series("99 of 100", |s| heard(s).then_some(s.delay_p99_ms)),
                series("half", |s| heard(s).then_some(s.delay_p50_ms)),
            ],
        ),
        plot("Loss", "% of the packets", vec![series("loss", |s| Some(s.loss_share * 100.0))]),
        plot("People", "connected", vec![series("connected", |s| Some(count(s.connected)))]),
        plot(
            "CPU",
            "cores",
            vec![series("server", |s| s.server_cores), series("load generator", |s| Some(s.client_cores))],
        ),
    ];
    if results.series.iter().any(|s| s.server_rss_mib.is_some()) {
        plots.push(plot("Memory of the server", "MiB", vec![series("memory", |s| s.server_rss_mib)]));
    }
    plots.iter().map(Plot::to_html).collect()
}

pub(super) fn curves(results: &Results) -> String {
    let joins = &results.joins;
    let delay = vec![curve("delay", &results.media.delay_ms), curve("own lateness", &results.media.send_late_ms)];
    let stages = vec![
        curve("whole", &joins.total_ms),
        curve("signalling", &joins.signalling_ms),
        curve("ICE", &joins.ice_ms),
        curve("DTLS", &joins.dtls_ms),
    ];
    let plot = |title, series| Plot { title, unit: "milliseconds", x: ranks(), series };
    [plot("Delay by rank", delay), plot("Joins by rank", stages)].iter().map(Plot::to_html).collect()
}

/// Against the number of listeners.
pub(super) fn climb(steps: &[Step]) -> String {
    let series = |name, value: fn(&Step) -> Option<f64>| Series {
        name,
        points: steps.iter().filter_map(|step| Some((count(step.listeners), value(step)?))).collect(),
    };
    let plot = |title, unit, series| {
        let x = Axis { label: "listeners", marks: Vec::new(), range: None, shade: None };
        Plot { title, unit, x, series }.to_html()
    };
    [
        plot("Packets", "for each second", vec![series("received", |step| Some(step.received_per_s))]),
        plot(
            "Delay",
            "milliseconds",
            vec![series("99 of 100", |step| Some(step.delay_p99_ms)), series("half", |step| Some(step.delay_p50_ms))],
        ),
        plot(
            "CPU",
            "cores",
            vec![
                series("server", |step| step.server_cores),
                series("load generator", |step| Some(step.client_cores)),
            ],
        ),
    ]
    .concat()
}

/// The measured part of the run, which the figures are of.
fn measured(series: &[Sample]) -> Option<(f64, f64)> {
    let mut inside = series.iter().filter(|s| s.phase == Phase::Measure).map(|s| s.at_s);
    let first = inside.next()?;
    Some((first, inside.next_back().unwrap_or(first)))
}

fn heard(sample: &Sample) -> bool {
    sample.received_per_s > 0.0
}

/// Each step to the right is a tenth of the packets that remain, so that the rare late ones can be seen.
fn ranks() -> Axis<'static> {
    let marks = [(0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
    Axis {
        label: "share that is not above",
        marks: marks.map(|(nines, label)| (nines, label.to_owned())).to_vec(),
        range: None,
        shade: None,
    }
}

/// The last point, below which everything is, would be infinitely far: it is drawn at the share of one in `count`.
fn curve<'a>(name: &'a str, distribution: &Distribution) -> Series<'a> {
    let finest = count(distribution.count.max(1)).recip();
    let nines = |share: f64| -(1.0 - share).max(finest).log10();
    let points = distribution.curve.iter().map(|(value, share)| (nines(*share).clamp(0.0, NINES_MAX), *value));
    Series { name, points: points.collect() }
}

/// Rarer than one in ten thousand is chance in runs of this length.
const NINES_MAX: f64 = 4.0;

#[expect(clippy::cast_precision_loss, reason = "counts of one run are below 2^53")]
fn count(value: u64) -> f64 {
    value as f64
}
