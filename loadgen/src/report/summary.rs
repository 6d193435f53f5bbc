//! What a run gave, as text for a terminal of 80 columns: one look tells who came, what arrived, how late, and at what
//! cost. Percentages and groups of digits are for eyes; programs read the JSON.

use std::fmt::Write as _;

use super::number::{grouped, millis, percent, short, whole};
use super::verdict::Line;
use crate::results::{Distribution, ProcessUse, Results, Step};
use crate::scenario::Scenario;

/// Ends with a line feed.
#[must_use]
pub fn summary(results: &Results) -> String {
    let mut out = String::new();
    let scenario = &results.scenario;
    _ = writeln!(out, "{}", heading(scenario));
    let measured = format!("{:.1} s measured", results.measured_s);
    let early = if results.interrupted { ", interrupted" } else { "" };
    _ = writeln!(out, "{} - {measured}{early}\n", people(scenario));
    counts(results, &mut out);
    percentiles(results, &mut out);
    costs(results, &mut out);
    steps(&results.steps, &mut out);
    for note in &results.notes {
        _ = writeln!(out, "  note       {note}");
    }
    if !results.verdict.is_empty() {
        out.push('\n');
    }
    for judged in &results.verdict {
        let word = if judged.ok { "holds " } else { "BROKEN" };
        _ = writeln!(out, "  {word}     {}", Line(judged));
    }
    out
}

/// Name of the scenario and what it was run against; never the address, which may be somebody's.
pub(super) fn heading(scenario: &Scenario) -> String {
    let name = if scenario.name.is_empty() { "load" } else { &scenario.name };
    format!("{name} - {}", scenario.target.kind.name())
}

pub(super) fn people(scenario: &Scenario) -> String {
    let rooms = &scenario.rooms;
    let hear = if rooms.publishers_listen { " and hear" } else { "" };
    let listen = if rooms.listeners > 0 { format!(", {} listen", rooms.listeners) } else { String::new() };
    let plural = if rooms.count == 1 { "room" } else { "rooms" };
    format!("{} {plural}: {} send{hear}{listen}", rooms.count, rooms.publishers)
}

fn counts(results: &Results, out: &mut String) {
    let (joins, media) = (&results.joins, &results.media);
    let connected = grouped(joins.connected);
    let (started, failed, lost) = (grouped(joins.started), grouped(joins.failed), grouped(joins.lost));
    let rate = short(joins.connected_per_s);
    _ = writeln!(out, "  joins      {connected} of {started} connected, {failed} failed, {lost} lost; {rate}/s");
    for (reason, count) in &joins.failures {
        _ = writeln!(out, "             {} x {reason}", grouped(*count));
    }
    let (sent, received) = (grouped(media.sent), grouped(media.received));
    let (rate, share) = (whole(media.received_per_s), percent(media.delivered_share));
    _ = writeln!(out, "  packets    {sent} sent, {received} received ({rate}/s), {share} of what was due");
    let (reordered, twice) = (grouped(media.reordered), grouped(media.duplicated));
    let loss = percent(media.loss_share);
    _ = writeln!(out, "  loss       {loss} ({} packets); {reordered} late, {twice} twice", grouped(media.lost));
    if media.unreadable + media.send_failed > 0 {
        let (unreadable, refused) = (grouped(media.unreadable), grouped(media.send_failed));
        _ = writeln!(out, "  trouble    {unreadable} unreadable; {refused} not taken by the operating system");
    }
    out.push('\n');
}

fn percentiles(results: &Results, out: &mut String) {
    let head = ["p50", "p90", "p99", "p99.9", "max"].map(|name| format!("{name:>10}")).concat();
    _ = writeln!(out, "  {:<18}{head}", "milliseconds");
    for (name, distribution) in rows(results) {
        if distribution.count == 0 {
            continue;
        }
        let Distribution { p50, p90, p99, p999, max, .. } = distribution;
        let columns = [p50, p90, p99, p999, max].map(|value| format!("{:>10}", millis(*value))).concat();
        _ = writeln!(out, "  {name:<18}{columns}");
    }
    out.push('\n');
}

/// The distributions of a run that people look at, with their names.
pub(super) fn rows(results: &Results) -> Vec<(&'static str, &Distribution)> {
    let (joins, media) = (&results.joins, &results.media);
    let mut rows = vec![
        ("delay", &media.delay_ms),
        ("join", &joins.total_ms),
        ("  signalling", &joins.signalling_ms),
        ("  ICE", &joins.ice_ms),
        ("  DTLS", &joins.dtls_ms),
        ("  first packet", &joins.first_packet_ms),
    ];
    if let Some(realistic) = &results.realistic {
        rows.push(("delay, full peers", &realistic.delay_ms));
    }
    if let Some(onset) = &results.onset_ms {
        rows.push(("onset of a voice", onset));
    }
    rows.push(("own lateness", &media.send_late_ms));
    rows
}

fn costs(results: &Results, out: &mut String) {
    match &results.server {
        Some(server) => {
            let rate = results.media.per_server_cpu_s.map_or_else(|| "-".to_owned(), whole);
            _ = writeln!(out, "  server     {}", usage(server));
            _ = writeln!(out, "             {rate} packets for each CPU second");
        }
        None => out.push_str("  server     not on this machine or not named (--server-pid)\n"),
    }
    _ = writeln!(out, "  generator  {}", usage(&results.client));
    if let Some(floor) = &results.floor {
        let reached = floor.ratio.map_or_else(|| "-".to_owned(), percent);
        let rate = whole(floor.per_cpu_s);
        _ = writeln!(out, "  floor      {rate} packets for each CPU second; the server reached {reached}");
    }
}

/// The climb, one line for each step.
fn steps(steps: &[Step], out: &mut String) {
    if steps.is_empty() {
        return;
    }
    let head = ["packets/s", "loss", "p50 ms", "p99 ms", "cores"].map(|name| format!("{name:>11}")).concat();
    _ = writeln!(out, "\n  {:<11}{head}", "listeners");
    for step in steps {
        let Step { listeners, received_per_s, loss_share, delay_p50_ms, delay_p99_ms, server_cores, holds, .. } =
            step;
        let cores = server_cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}"));
        let (p50, p99) = (millis(*delay_p50_ms), millis(*delay_p99_ms));
        let columns = [whole(*received_per_s), percent(*loss_share), p50, p99, cores];
        let columns = columns.map(|value| format!("{value:>11}")).concat();
        _ = writeln!(out, "  {:<11}{columns}{}", grouped(*listeners), if *holds { "" } else { "  too much" });
    }
    out.push('\n');
}

fn usage(process: &ProcessUse) -> String {
    let (seconds, cores) = (process.cpu_s(), process.cores_used);
    format!("{seconds:.2} CPU s ({cores:.2} cores), {:.0} MiB, {} threads", process.rss_max_mib, process.threads)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::results;
    use super::*;
    use crate::results::Floor;

    #[test]
    fn a_summary_fits_a_terminal_and_names_what_broke() {
        let mut results = results();
        results.verdict = super::super::judge(&results);
        let text = summary(&results);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("  BROKEN     delay_p99_ms_max: 3.5 is above the limit of 2\n"), "{text}");
        assert!(text.contains("250,000 received (25,000/s)"), "{text}");
    }

    #[test]
    fn the_steps_of_a_climb_and_the_floor_are_told() {
        let mut results = results();
        let step = |listeners, holds| Step { listeners, holds, received_per_s: 1000.0, ..Step::default() };
        results.steps = vec![step(100, true), step(1200, false)];
        results.floor = Some(Floor { per_cpu_s: 400_000.0, ratio: Some(0.91), ..Floor::default() });
        let text = summary(&results);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().any(|line| line.starts_with("  1,200 ") && line.ends_with("too much")), "{text}");
        assert!(text.contains("400,000 packets for each CPU second; the server reached 91 %"), "{text}");
    }

    #[test]
    fn an_address_is_not_in_a_summary() {
        let mut results = results();
        results.scenario.target.url = "wss://secret.example/".to_owned();
        assert!(!summary(&results).contains("secret.example"));
    }
}
