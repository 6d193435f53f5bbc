//! What the live view looks like: the lines of a board from a snapshot and the seconds before it. It writes nothing itself.

use std::collections::VecDeque;

use crate::report::number::{grouped, millis, percent, short, whole};
use crate::results::{Phase, Sample, Snapshot};
use crate::scenario::Scenario;

/// Seconds in the small curves: what fits beside the figures in 80 columns.
const HISTORY: usize = 36;
const BAR_WIDTH: u8 = 40;

pub(super) struct Board {
    title: String,
    colours: bool,
    history: VecDeque<Sample>,
    /// Connections lost before people began to leave; servers may end some while they do.
    lost: u64,
    /// The longest rest of the phase that was seen: its length.
    phase: (Phase, f64),
}

#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Alarm,
}

impl Board {
    pub(super) fn new(scenario: &Scenario, colours: bool) -> Self {
        let name = if scenario.name.is_empty() { "load" } else { &scenario.name };
        let title = format!("{name} - {}", scenario.target.kind.name());
        Self { title, colours, history: VecDeque::new(), lost: 0, phase: (Phase::Ramp, 0.0) }
    }

    pub(super) fn draw(&mut self, now: &Snapshot) -> Vec<String> {
        self.remember(now);
        let Snapshot { rooms, people_wanted, joins, last, .. } = now;
        let mut lines = vec![self.paint(Style::Bold, &self.title), self.progress(now), String::new()];
        let mut row = |name: &str, value: String, curve: String| {
            lines.push(format!("  {} {value:<26} {curve}", self.paint(Style::Dim, &format!("{name:<10}"))));
        };
        row("rooms", grouped(u64::from(*rooms)), String::new());
        let people = format!("{} of {}", grouped(joins.connected), grouped(u64::from(*people_wanted)));
        row("people", people, self.trouble(now));
        if joins.total_ms.count > 0 {
            let (p50, p99) = (millis(joins.total_ms.p50), millis(joins.total_ms.p99));
            row("join", format!("p50 {p50}, p99 {p99} ms"), String::new());
        }
        row("received", format!("{} /s", whole(last.received_per_s)), self.curve(|s| s.received_per_s));
        row("sent", format!("{} /s", whole(last.sent_per_s)), self.curve(|s| s.sent_per_s));
        row("loss", percent(last.loss_share), self.curve(|s| s.loss_share));
        let delays = format!("p50 {}, p99 {} ms", millis(last.delay_p50_ms), millis(last.delay_p99_ms));
        row("delay", delays, self.curve(|s| s.delay_p99_ms));
        if let Some(cores) = last.server_cores {
            let memory = last.server_rss_mib.map_or_else(String::new, |mib| format!(", {} MiB", short(mib)));
            row("server", format!("{cores:.2} cores{memory}"), self.curve(|s| s.server_cores.unwrap_or(0.0)));
        }
        row("generator", format!("{:.2} cores", last.client_cores), self.curve(|s| s.client_cores));
        lines
    }

    /// Once for each second of samples.
    fn remember(&mut self, now: &Snapshot) {
        if self.phase.0 != now.phase {
            self.phase = (now.phase, 0.0);
        }
        self.phase.1 = self.phase.1.max(now.phase_left_s);
        if !matches!(now.phase, Phase::Drain | Phase::Done) {
            self.lost = now.joins.lost;
        }
        if self.history.back().is_none_or(|before| now.last.at_s > before.at_s) {
            self.history.push_back(now.last.clone());
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
    }

    /// Joining goes by people, the other phases by time.
    fn progress(&self, now: &Snapshot) -> String {
        let name = super::name(now.phase);
        let share = match now.phase {
            Phase::Ramp if now.people_wanted > 0 => people(now.joins.connected) / f64::from(now.people_wanted),
            Phase::Done => 1.0,
            Phase::Ramp | Phase::Warmup | Phase::Measure | Phase::Drain => {
                if self.phase.1 > 0.0 {
                    1.0 - now.phase_left_s / self.phase.1
                } else {
                    0.0
                }
            }
        };
        let full = filled(share);
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(usize::from(BAR_WIDTH) - full));
        let left = if now.phase_left_s >= 0.5 { format!(", {:.0} s left", now.phase_left_s) } else { String::new() };
        format!("{bar}  {name}{left}")
    }

    fn trouble(&self, now: &Snapshot) -> String {
        let joins = &now.joins;
        if joins.failed + self.lost == 0 {
            return String::new();
        }
        let most = joins.failures.iter().max_by_key(|(_, count)| **count);
        let why = most.map_or_else(String::new, |(reason, _)| format!(" ({reason})"));
        self.paint(Style::Alarm, &format!("{} failed{why}, {} lost", grouped(joins.failed), grouped(self.lost)))
    }

    /// The seconds behind, each as high as its share of the greatest.
    fn curve(&self, value: fn(&Sample) -> f64) -> String {
        const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let greatest = self.history.iter().map(value).fold(0.0, f64::max);
        if greatest <= 0.0 {
            return String::new();
        }
        let step = |sample: &Sample| {
            let height = (value(sample) / greatest).clamp(0.0, 1.0);
            // Rounded: exact sevenths do not matter to an eye.
            STEPS.into_iter().zip(0_u8..8).rfind(|(_, n)| f64::from(*n) <= height * 7.0 + 0.5).map_or('▁', |(c, _)| c)
        };
        self.history.iter().map(step).collect()
    }

    fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Alarm => "31;1",
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn filled(share: f64) -> usize {
    let cells = share.clamp(0.0, 1.0) * f64::from(BAR_WIDTH);
    (1..=BAR_WIDTH).filter(|n| f64::from(*n) <= cells).count()
}

#[expect(clippy::cast_precision_loss, reason = "people of one run are below 2^53")]
fn people(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measuring(left: f64, at_s: f64, received_per_s: f64) -> Snapshot {
        Snapshot {
            phase: Phase::Measure,
            phase_left_s: left,
            people_wanted: 10,
            last: Sample { at_s, received_per_s, ..Sample::default() },
            ..Snapshot::default()
        }
    }

    fn board() -> Board {
        Board::new(&Scenario::default(), false)
    }

    #[test]
    fn the_bar_goes_from_empty_to_full_over_a_phase() {
        let mut board = board();
        assert!(board.draw(&measuring(10.0, 1.0, 0.0))[1].starts_with("░"));
        let half = board.draw(&measuring(5.0, 6.0, 0.0))[1].clone();
        assert_eq!(half.matches('█').count(), 20, "{half}");
        assert!(half.ends_with("measure, 5 s left"));
    }

    #[test]
    fn who_is_lost_while_leaving_is_no_alarm() {
        let (mut board, mut now) = (board(), measuring(1.0, 1.0, 0.0));
        now.joins.lost = 2;
        assert!(board.draw(&now).iter().any(|line| line.contains("2 lost")));
        now.phase = Phase::Drain;
        now.joins.lost = 9;
        assert!(board.draw(&now).iter().any(|line| line.contains("2 lost")));
    }

    #[test]
    fn a_curve_has_one_step_for_each_second() {
        let mut board = board();
        for second in 0..60_u8 {
            let now = measuring(60.0, f64::from(second), f64::from(second));
            board.draw(&now);
            board.draw(&now);
        }
        let curve = board.curve(|s| s.received_per_s);
        assert_eq!(curve.chars().count(), HISTORY);
        assert!(curve.starts_with('▄') && curve.ends_with('█'), "{curve}");
    }

    #[test]
    fn a_board_fits_80_columns_and_alarms_about_failures() {
        let mut board = board();
        let mut now = measuring(3.0, 1.0, 123_456.0);
        now.joins.failed = 3;
        now.joins.failures.insert("timeout_dtls".to_owned(), 3);
        now.last.server_cores = Some(1.25);
        let lines = board.draw(&now);
        assert!(lines.iter().all(|line| line.trim_end().chars().count() <= 80), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("3 failed (timeout_dtls), 0 lost")), "{lines:#?}");
    }
}
