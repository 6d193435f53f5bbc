//! Notices that a connection has gone quiet, with one timer for its whole life: to make and drop one for each message costs
//! more than reading the message.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Since when nothing came.
#[derive(Default)]
pub(super) struct Quiet {
    watch: Option<Watch>,
}

struct Watch {
    since: Instant,
    limit: Duration,
    /// Goes off no later than `since + limit`, mostly much sooner.
    timer: Pin<Box<Sleep>>,
}

impl Quiet {
    /// Something came.
    pub(super) fn ended(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.since = Instant::now();
        }
    }

    /// Waits until nothing came for `limit`. May be cancelled: the time goes on.
    pub(super) async fn lasts(&mut self, limit: Duration) {
        let watch = self.watch.get_or_insert_with(|| {
            let since = Instant::now();
            Watch { since, limit, timer: Box::pin(sleep_until(since + limit)) }
        });
        if watch.limit != limit {
            watch.limit = limit;
            watch.timer.as_mut().reset(watch.since + limit);
        }
        loop {
            watch.timer.as_mut().await;
            let end = watch.since + limit;
            if watch.timer.deadline() >= end {
                return;
            }
            watch.timer.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn what_comes_now_and_then_is_not_quiet() {
        let mut quiet = Quiet::default();
        for _ in 0..10 {
            assert!(timeout(Duration::from_secs(4), quiet.lasts(LIMIT)).await.is_err());
            quiet.ended();
        }
        let since = Instant::now();
        quiet.lasts(LIMIT).await;
        assert_eq!(since.elapsed().as_secs(), 5, "from the last message, not from the first");
    }

    #[tokio::test(start_paused = true)]
    async fn another_limit_holds_at_once() {
        let mut quiet = Quiet::default();
        assert!(timeout(Duration::from_secs(60), quiet.lasts(LIMIT * 1000)).await.is_err());
        quiet.ended();
        sleep(Duration::from_secs(1)).await;
        let asked = Instant::now();
        quiet.lasts(LIMIT).await;
        assert_eq!(asked.elapsed().as_secs(), 4);
    }
}
