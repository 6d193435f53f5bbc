//! The report of a run as one HTML file that needs nothing else: its style is inside, its plots are SVG, and there is no
//! script. It is read on a desk and on a telephone, in light and in dark.
//!
//! The address of the target is left out: reports are passed on.

mod plots;

use std::fmt::Write as _;

use super::number::{grouped, millis, percent, short, whole};
use super::summary::{heading, people, rows};
use super::verdict::Line;
use crate::results::{Distribution, ProcessUse, Results};
use crate::scenario::TargetSpec;

const STYLE: &str = include_str!("page.css");

pub(super) fn page(results: &Results) -> String {
    let title = escape(&heading(&results.scenario));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    );
    head(results, &mut out);
    tiles(results, &mut out);
    thresholds(results, &mut out);
    _ = write!(out, "<h2>Over the run</h2>\n<div class=\"plots\">{}</div>\n", plots::over_time(results));
    _ = write!(out, "<h2>How late</h2>\n<div class=\"plots\">{}</div>\n", plots::curves(results));
    steps(results, &mut out);
    percentiles(results, &mut out);
    counts(results, &mut out);
    costs(results, &mut out);
    notes(results, &mut out);
    scenario(results, &mut out);
    let version = env!("CARGO_PKG_VERSION");
    _ = write!(out, "<footer>Written by loadgen {version}.</footer>\n</body>\n</html>\n");
    out
}

/// Text for elements and for attributes in double quotes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

fn head(results: &Results, out: &mut String) {
    let broken = results.verdict.iter().filter(|judged| !judged.ok).count();
    let (class, word) = match (results.verdict.len(), broken) {
        (0, _) => ("plain", "no thresholds set".to_owned()),
        (_, 0) => ("good", "all thresholds hold".to_owned()),
        (all, broken) => ("bad", format!("{broken} of {all} thresholds broken")),
    };
    let early = if results.interrupted { ", interrupted" } else { "" };
    let machine = &results.machine;
    _ = writeln!(
        out,
        "<header><div><h1>{}</h1><p>{}; {:.1} s measured{early}</p><p>{}; {} ({} cores), Linux {}</p></div>\
         <span class=\"badge {class}\">{word}</span></header>",
        escape(&heading(&results.scenario)),
        escape(&people(&results.scenario)),
        results.measured_s,
        utc(results.started_unix_s),
        escape(&machine.cpu),
        machine.cores,
        escape(&machine.kernel),
    );
}

fn tiles(results: &Results, out: &mut String) {
    let (joins, media) = (&results.joins, &results.media);
    let per_cpu = media.per_server_cpu_s.map_or_else(|| "-".to_owned(), whole);
    let cores = results.server.as_ref().map_or_else(|| "-".to_owned(), |server| format!("{:.2}", server.cores_used));
    let milliseconds = |d: &Distribution, value: f64| match d.count {
        0 => "-".to_owned(),
        _ => format!("{} <small>ms</small>", millis(value)),
    };
    out.push_str("<div class=\"tiles\">");
    for (value, name) in [
        (whole(media.received_per_s), "packets/s received"),
        (percent(media.loss_share), "loss"),
        (milliseconds(&media.delay_ms, media.delay_ms.p50), "delay, half of all"),
        (milliseconds(&media.delay_ms, media.delay_ms.p99), "delay, 99 of 100"),
        (per_cpu, "packets for each CPU second of the server"),
        (cores, "cores that the server used"),
        (format!("{} <small>of {}</small>", grouped(joins.connected), grouped(joins.started)), "people connected"),
        (milliseconds(&joins.total_ms, joins.total_ms.p99), "join, 99 of 100"),
    ] {
        _ = write!(out, "<div class=\"tile\"><b>{value}</b><span>{name}</span></div>");
    }
    out.push_str("</div>\n");
}

fn thresholds(results: &Results, out: &mut String) {
    if results.verdict.is_empty() {
        return;
    }
    out.push_str("<h2>Thresholds</h2>\n<div class=\"sheet\"><table>");
    for judged in &results.verdict {
        let (class, word) = if judged.ok { ("good", "holds") } else { ("bad", "broken") };
        let line = escape(&Line(judged).to_string());
        _ = write!(out, "<tr><td class=\"{class}\">{word}</td><td class=\"wide\">{line}</td></tr>");
    }
    out.push_str("</table></div>\n");
}

fn steps(results: &Results, out: &mut String) {
    if results.steps.is_empty() {
        return;
    }
    _ = writeln!(out, "<h2>The climb</h2>\n<div class=\"plots\">{}</div>", plots::climb(&results.steps));
    out.push_str(
        "<p></p><div class=\"sheet\"><table><tr><th>listeners</th><th>packets/s</th><th>loss</th><th>p50 ms</th>\
         <th>p99 ms</th><th>server cores</th><th>server MiB</th><th></th></tr>",
    );
    for step in &results.steps {
        let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
        let values = [
            whole(step.received_per_s),
            percent(step.loss_share),
            millis(step.delay_p50_ms),
            millis(step.delay_p99_ms),
            optional(step.server_cores),
            optional(step.server_rss_mib),
        ];
        let values = values.map(|value| format!("<td>{value}</td>")).concat();
        let (class, word) = if step.holds { ("good", "holds") } else { ("bad", "too much") };
        let listeners = grouped(step.listeners);
        _ = write!(out, "<tr><td>{listeners}</td>{values}<td class=\"{class}\">{word}</td></tr>");
    }
    out.push_str("</table></div>\n");
}

fn percentiles(results: &Results, out: &mut String) {
    out.push_str(
        "<h2>Percentiles</h2>\n<div class=\"sheet\"><table><tr><th>milliseconds</th><th>p50</th><th>p90</th>\
         <th>p95</th><th>p99</th><th>p99.9</th><th>max</th><th>count</th></tr>",
    );
    for (name, distribution) in rows(results).into_iter().filter(|(_, distribution)| distribution.count > 0) {
        let Distribution { count, p50, p90, p95, p99, p999, max, .. } = distribution;
        let values = [p50, p90, p95, p99, p999, max].map(|value| format!("<td>{}</td>", millis(*value))).concat();
        _ = write!(out, "<tr><td>{name}</td>{values}<td>{}</td></tr>", grouped(*count));
    }
    out.push_str("</table></div>\n");
}

fn counts(results: &Results, out: &mut String) {
    let (joins, media) = (&results.joins, &results.media);
    out.push_str("<h2>Counts</h2>\n<div class=\"sheet pairs\"><table>");
    let mut row = |name: &str, value: String| {
        _ = write!(out, "<tr><td>{}</td><td>{value}</td></tr>", escape(name));
    };
    row("packets sent", grouped(media.sent));
    row("packets received", grouped(media.received));
    row("share of what was due", percent(media.delivered_share));
    row("missing in what was received", grouped(media.lost));
    row("out of order", grouped(media.reordered));
    row("twice", grouped(media.duplicated));
    row("opened and looked at", grouped(media.opened));
    row("unreadable", grouped(media.unreadable));
    row("not taken by the operating system", grouped(media.send_failed));
    if media.sent_lost_on_purpose + media.received_lost_on_purpose > 0 {
        row("lost on purpose while sending", grouped(media.sent_lost_on_purpose));
        row("lost on purpose while receiving", grouped(media.received_lost_on_purpose));
    }
    row("joins for each second", short(joins.connected_per_s));
    row("joins failed", grouped(joins.failed));
    for (reason, count) in &joins.failures {
        row(&format!("    {reason}"), grouped(*count));
    }
    row("connections lost", grouped(joins.lost));
    out.push_str("</table></div>\n");
}

fn costs(results: &Results, out: &mut String) {
    out.push_str(
        "<h2>Cost in the measured time</h2>\n<div class=\"sheet\"><table><tr><th></th><th>CPU user</th>\
         <th>CPU system</th><th>cores</th><th>memory, most</th><th>threads</th></tr>",
    );
    let mut row = |name: &str, process: &ProcessUse| {
        let ProcessUse { cpu_user_s, cpu_system_s, cores_used, rss_max_mib, threads, .. } = process;
        _ = write!(
            out,
            "<tr><td>{name}</td><td>{cpu_user_s:.2} s</td><td>{cpu_system_s:.2} s</td><td>{cores_used:.2}</td>\
             <td>{rss_max_mib:.0} MiB</td><td>{threads}</td></tr>"
        );
    };
    if let Some(server) = &results.server {
        row("server", server);
    }
    row("load generator", &results.client);
    if let Some(floor) = &results.floor {
        let bare =
            ProcessUse { cpu_user_s: floor.cpu_user_s, cpu_system_s: floor.cpu_system_s, ..ProcessUse::default() };
        row("bare sender", &bare);
    }
    out.push_str("</table></div>\n");
}

fn notes(results: &Results, out: &mut String) {
    if results.notes.is_empty() {
        return;
    }
    let lines = results.notes.iter().map(|note| format!("<li>{}</li>", escape(note))).collect::<String>();
    _ = writeln!(out, "<h2>To be known</h2>\n<ul class=\"notes\">{lines}</ul>");
}

fn scenario(results: &Results, out: &mut String) {
    let mut shown = results.scenario.clone();
    shown.target = TargetSpec { kind: shown.target.kind, ..TargetSpec::default() };
    if let Ok(text) = toml::to_string_pretty(&shown) {
        let text = escape(&text);
        _ = writeln!(out, "<details><summary>The scenario, without its address</summary><pre>{text}</pre></details>");
    }
}

/// `2026-11-21 14:05 UTC`, by the algorithm of days from civil dates run backwards.
fn utc(unix_s: u64) -> String {
    let (days, seconds) = (unix_s / 86_400, unix_s % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (seconds / 3600, seconds % 3600 / 60);
    format!("{year}-{month:02}-{day_of_month:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::results;
    use super::*;
    use crate::results::Step;

    #[test]
    fn a_page_loads_nothing_and_runs_nothing() {
        let mut results = results();
        results.scenario.name = "<script>alert(1)</script>".to_owned();
        results.notes.push("a < b & \"c\"".to_owned());
        results.joins.failures.insert("<img>".to_owned(), 3);
        let page = page(&results);
        for refused in ["<script", "<img", "<link", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(refused), "{refused}");
        }
        assert!(page.contains("&lt;script&gt;"));
        assert!(page.contains("a &lt; b &amp; &quot;c&quot;"));
    }

    #[test]
    fn a_page_has_plots_and_no_address() {
        let mut results = results();
        results.scenario.target.url = "ws://127.0.0.9:4711/".to_owned();
        let page = page(&results);
        assert!(page.matches("<svg").count() >= 5);
        assert!(page.matches("<polyline").count() >= 7);
        assert!(!page.contains("127.0.0.9"));
    }

    #[test]
    fn a_climb_is_drawn_and_listed() {
        let mut results = results();
        results.steps = vec![
            Step { listeners: 100, received_per_s: 1e3, holds: true, ..Step::default() },
            Step { listeners: 200, received_per_s: 2e3, ..Step::default() },
        ];
        let page = page(&results);
        assert!(page.contains("<td>200</td>") && page.contains("too much"));
        assert!(page.matches("<svg").count() >= 8);
    }

    #[test]
    fn dates_are_of_the_calendar() {
        let written = [0, 951_782_400, 1_709_164_799, 1_795_269_900].map(utc);
        assert_eq!(
            written,
            ["1970-01-01 00:00 UTC", "2000-02-29 00:00 UTC", "2024-02-28 23:59 UTC", "2026-11-21 14:05 UTC"]
        );
    }
}
