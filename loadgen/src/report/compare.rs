//! Two runs side by side: the figures, how many times the second is the first, and whether that means anything. Runs of
//! other scenarios or machines are compared all the same, under a line for each reason not to trust the ratio.

use std::fmt::Write as _;

use serde_json::Value;

use super::number::{millis, percent, short, whole};
use super::summary::heading;
use crate::results::{Distribution, Results};

/// A ratio below this is of too few packets.
const PACKETS_MIN: u64 = 1000;
/// From this lateness of the generator itself on, delays are its own as well.
const LATE_MS_MAX: f64 = 5.0;
/// Parts of a scenario that may differ between two runs of the same load.
const FREE_KEYS: [&str; 4] = ["name", "target", "thresholds", "engine.threads"];
/// Of many differences the first ones tell enough.
const DIFFERENCES_MAX: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// For a terminal, ends with a line feed.
    pub text: String,
    /// Whether the ratios are of the servers alone.
    pub comparable: bool,
}

#[must_use]
pub fn compare(before: &Results, after: &Results) -> Comparison {
    let mut out = format!("A  {}\nB  {}\n\n", heading(&before.scenario), heading(&after.scenario));
    let reasons = reasons(before, after);
    for reason in &reasons {
        _ = writeln!(out, "not comparable: {reason}");
    }
    let cautions = cautions(before, after);
    for caution in &cautions {
        _ = writeln!(out, "with care: {caution}");
    }
    if !reasons.is_empty() || !cautions.is_empty() {
        out.push('\n');
    }
    _ = writeln!(out, "{:<34}{:>14}{:>14}{:>10}", "", "A", "B", "B / A");
    for row in rows(before, after) {
        let ratio = match (row.before, row.after) {
            (Some(before), Some(after)) if before > 0.0 => format!("{:.2}", after / before),
            _ => "-".to_owned(),
        };
        let written = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), row.write);
        let (a, b) = (written(row.before), written(row.after));
        _ = writeln!(out, "{:<34}{a:>14}{b:>14}{ratio:>10}", row.name);
    }
    Comparison { text: out, comparable: reasons.is_empty() }
}

/// Why a ratio of these two would not be of the servers alone.
fn reasons(before: &Results, after: &Results) -> Vec<String> {
    let mut reasons = differences(before, after);
    for (which, run) in [("A", before), ("B", after)] {
        if run.interrupted {
            reasons.push(format!("{which} was interrupted"));
        }
        if run.media.received < PACKETS_MIN {
            reasons.push(format!("{which} received only {} packets", run.media.received));
        }
        if run.joins.failed + run.joins.lost > 0 {
            reasons.push(format!(
                "{which} has people missing ({} joins failed, {} connections lost)",
                run.joins.failed, run.joins.lost
            ));
        }
    }
    if before.machine != after.machine {
        let name =
            |run: &Results| format!("{}, {} cores, Linux {}", run.machine.cpu, run.machine.cores, run.machine.kernel);
        reasons.push(format!("machines differ: A {}; B {}", name(before), name(after)));
    }
    reasons
}

/// What makes the ratios coarser than they look.
fn cautions(before: &Results, after: &Results) -> Vec<String> {
    let late = [("A", before), ("B", after)].into_iter().filter_map(|(which, run)| {
        let late = &run.media.send_late_ms;
        let p99 = millis(late.p99);
        (late.count > 0 && late.p99 > LATE_MS_MAX)
            .then(|| format!("in {which} the load generator was {p99} ms late itself (p99), and delays with it"))
    });
    late.collect()
}

fn differences(before: &Results, after: &Results) -> Vec<String> {
    let flat = |results: &Results| {
        let mut keys = Vec::new();
        let value = serde_json::to_value(&results.scenario).unwrap_or_default();
        flatten(String::new(), &value, &mut keys);
        keys
    };
    let (before, after) = (flat(before), flat(after));
    let differ = before.iter().zip(&after).filter(|(a, b)| a.1 != b.1 && !is_free(&a.0));
    let mut lines = differ.map(|((key, a), (_, b))| format!("{key} is {a} in A and {b} in B")).collect::<Vec<_>>();
    if lines.len() > DIFFERENCES_MAX {
        let more = lines.len() - DIFFERENCES_MAX;
        lines.truncate(DIFFERENCES_MAX);
        lines.push(format!("{more} more keys of the scenario differ"));
    }
    lines
}

/// Both sides come from the same type, so that their keys are the same and in the same order.
fn flatten(path: String, value: &Value, keys: &mut Vec<(String, String)>) {
    let Value::Object(fields) = value else {
        keys.push((path, value.to_string()));
        return;
    };
    for (name, value) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        flatten(path, value, keys);
    }
}

fn is_free(key: &str) -> bool {
    FREE_KEYS.iter().any(|free| key.strip_prefix(free).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

struct Row {
    name: &'static str,
    before: Option<f64>,
    after: Option<f64>,
    write: fn(f64) -> String,
}

fn rows(before: &Results, after: &Results) -> Vec<Row> {
    let row = |name, write: fn(f64) -> String, value: fn(&Results) -> Option<f64>| Row {
        name,
        before: value(before),
        after: value(after),
        write,
    };
    vec![
        row("packets/s received", whole, |r| Some(r.media.received_per_s)),
        row("share of what was due", percent, |r| Some(r.media.delivered_share)),
        row("loss", percent, |r| Some(r.media.loss_share)),
        row("delay p50, ms", millis, |r| of(&r.media.delay_ms, |d| d.p50)),
        row("delay p99, ms", millis, |r| of(&r.media.delay_ms, |d| d.p99)),
        row("delay p99.9, ms", millis, |r| of(&r.media.delay_ms, |d| d.p999)),
        row("packets for each CPU second", whole, |r| r.media.per_server_cpu_s),
        row("server, cores", short, |r| r.server.as_ref().map(|server| server.cores_used)),
        row("server, MiB at most", short, |r| r.server.as_ref().map(|server| server.rss_max_mib)),
        row("joins/s", short, |r| Some(r.joins.connected_per_s)),
        row("join p50, ms", millis, |r| of(&r.joins.total_ms, |d| d.p50)),
        row("join p99, ms", millis, |r| of(&r.joins.total_ms, |d| d.p99)),
        row("  signalling p50, ms", millis, |r| of(&r.joins.signalling_ms, |d| d.p50)),
        row("  ICE p50, ms", millis, |r| of(&r.joins.ice_ms, |d| d.p50)),
        row("  DTLS p50, ms", millis, |r| of(&r.joins.dtls_ms, |d| d.p50)),
        row("  first packet p50, ms", millis, |r| of(&r.joins.first_packet_ms, |d| d.p50)),
        row("generator, cores", short, |r| Some(r.client.cores_used)),
    ]
}

fn of(distribution: &Distribution, which: fn(&Distribution) -> f64) -> Option<f64> {
    (distribution.count > 0).then(|| which(distribution))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::results;
    use super::*;
    use crate::scenario::TargetKind;

    #[test]
    fn the_same_load_on_two_servers_is_comparable() {
        let (before, mut after) = (results(), results());
        after.scenario.target.kind = TargetKind::Janus;
        after.scenario.name = "other".to_owned();
        after.scenario.thresholds.loss_max = None;
        after.media.received_per_s = 12_500.0;
        let Comparison { text, comparable } = compare(&before, &after);
        assert!(comparable && !text.contains("not comparable"), "{text}");
        let row = text.lines().find(|line| line.starts_with("packets/s received")).expect("a row");
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["packets/s", "received", "25,000", "12,500", "0.50"]);
    }

    #[test]
    fn each_reason_not_to_compare_is_named() {
        let (before, mut after) = (results(), results());
        after.scenario.rooms.listeners = 99;
        after.interrupted = true;
        after.machine.cores = 64;
        after.media.received = 1;
        after.joins.failed = 2;
        after.media.send_late_ms = Distribution { count: 9, p99: 12.0, ..Distribution::default() };
        let Comparison { text, comparable } = compare(&before, &after);
        assert!(!comparable);
        for reason in [
            "not comparable: rooms.listeners is 10 in A and 99 in B\n",
            "not comparable: B was interrupted\n",
            "not comparable: B received only 1 packets\n",
            "not comparable: B has people missing (2 joins failed, 0 connections lost)\n",
            "with care: in B the load generator was 12.00 ms late itself (p99), and delays with it\n",
            "not comparable: machines differ: ",
        ] {
            assert!(text.contains(reason), "{reason} in {text}");
        }
        assert!(!text.contains("in A the load"), "{text}");
    }

    #[test]
    fn what_one_run_did_not_measure_has_no_ratio() {
        let (before, mut after) = (results(), results());
        after.media.per_server_cpu_s = None;
        let text = compare(&before, &after).text;
        let row = text.lines().find(|line| line.starts_with("packets for each CPU")).expect("a row");
        assert!(row.trim_end().ends_with("90,123             -         -"), "{row}");
    }
}
