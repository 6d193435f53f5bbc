//! The live view of a run on standard error, since standard output is for results: a small board that is drawn over itself
//! on a terminal, one line a second elsewhere. It shows snapshots and changes nothing.

mod board;

use std::io::{IsTerminal as _, Write as _};

use tokio::sync::watch;

use crate::report::number::{grouped, millis, percent, whole};
use crate::results::{Phase, Snapshot};
use crate::scenario::Scenario;
use board::Board;

/// Until the sender is gone. The last board stays on the screen.
pub async fn show(mut live: watch::Receiver<Snapshot>, scenario: Scenario) {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let mut view = if std::io::stderr().is_terminal() && !dumb {
        View::Board(Board::new(&scenario, std::env::var_os("NO_COLOR").is_none()), 0)
    } else {
        View::Lines { second: None }
    };
    while live.changed().await.is_ok() {
        let now = live.borrow_and_update().clone();
        let text = view.next(&now);
        // A view that cannot be written must not end the run.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

enum View {
    /// With the lines that it has on the screen.
    Board(Board, usize),
    Lines {
        second: Option<u64>,
    },
}

impl View {
    /// What to write for this snapshot.
    fn next(&mut self, now: &Snapshot) -> String {
        match self {
            Self::Board(board, shown) => {
                let lines = board.draw(now);
                let text = over(*shown, &lines);
                *shown = lines.len();
                text
            }
            Self::Lines { second } => {
                let this = whole_seconds(now.at_s);
                if second.replace(this) == Some(this) { String::new() } else { plain(now) + "\n" }
            }
        }
    }
}

/// Draws over the lines that are there. Without automatic line breaks while it does, so that a narrow window cuts lines
/// off and the count of them stays true.
fn over(shown: usize, lines: &[String]) -> String {
    let up = if shown > 0 { format!("\x1b[{shown}A") } else { String::new() };
    let lines = lines.iter().map(|line| format!("\r{line}\x1b[K\n")).collect::<String>();
    format!("\x1b[?7l{up}{lines}\x1b[J\x1b[?7h")
}

fn plain(now: &Snapshot) -> String {
    let Snapshot { at_s, phase, joins, people_wanted, last, .. } = now;
    let mut line = format!(
        "{at_s:6.1} s  {:<8} {}/{} people",
        name(*phase),
        grouped(joins.connected),
        grouped(u64::from(*people_wanted))
    );
    if joins.failed + joins.lost > 0 {
        line += &format!(", {} failed, {} lost", joins.failed, joins.lost);
    }
    if last.received_per_s > 0.0 {
        line += &format!(
            "  {} packets/s  loss {}  delay p50 {} p99 {} ms",
            whole(last.received_per_s),
            percent(last.loss_share),
            millis(last.delay_p50_ms),
            millis(last.delay_p99_ms)
        );
    }
    if let Some(cores) = last.server_cores {
        line += &format!("  server {cores:.2} cores");
    }
    line
}

fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Ramp => "joining",
        Phase::Warmup => "warm-up",
        Phase::Measure => "measure",
        Phase::Drain => "leaving",
        Phase::Done => "done",
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a run; `as` saturates")]
fn whole_seconds(at_s: f64) -> u64 {
    at_s as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Sample;

    #[test]
    fn without_a_terminal_there_is_one_line_a_second() {
        let mut view = View::Lines { second: None };
        let at = |at_s| Snapshot { at_s, people_wanted: 1200, ..Snapshot::default() };
        assert_eq!(view.next(&at(1.0)), "   1.0 s  joining  0/1,200 people\n");
        assert_eq!(view.next(&at(1.5)), "");
        assert!(!view.next(&at(2.1)).contains('\x1b'));
    }

    #[test]
    fn a_line_tells_what_arrives_and_what_fails() {
        let last = Sample {
            received_per_s: 50_000.4,
            delay_p50_ms: 0.25,
            delay_p99_ms: 3.0,
            loss_share: 0.001,
            server_cores: Some(0.5),
            ..Sample::default()
        };
        let mut now = Snapshot { phase: Phase::Measure, last, ..Snapshot::default() };
        now.joins.failed = 2;
        let line = plain(&now);
        assert!(line.ends_with(
            "2 failed, 0 lost  50,000 packets/s  loss 0.1 %  delay p50 0.25 p99 3.00 ms  server 0.50 cores"
        ));
    }

    #[test]
    fn a_board_is_drawn_over_the_one_before() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(over(0, &lines), "\x1b[?7l\ra\x1b[K\n\rb\x1b[K\n\x1b[J\x1b[?7h");
        assert!(over(2, &lines).starts_with("\x1b[?7l\x1b[2A\ra"));
    }
}
