//! The live view of a run on the terminal (standard error, since standard output is for results).

use std::io::Write as _;

use tokio::sync::watch;

use crate::results::Snapshot;
use crate::scenario::Scenario;

/// Until the sender is gone.
pub async fn show(mut live: watch::Receiver<Snapshot>, scenario: Scenario) {
    let _ = writeln!(std::io::stderr(), "{}", scenario.name);
    while live.changed().await.is_ok() {
        let line = {
            let now = live.borrow_and_update();
            format!(
                "{:6.1} s  {:>6} of {} connected, {:>8.0} packets/s, loss {:.2} %, p99 {:.1} ms",
                now.at_s,
                now.joins.connected,
                now.people_wanted,
                now.last.received_per_s,
                100.0 * now.last.loss_share,
                now.last.delay_p99_ms
            )
        };
        let _ = write!(std::io::stderr(), "\r{line}");
    }
    let _ = writeln!(std::io::stderr());
}
