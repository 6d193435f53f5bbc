//! The thread beside a shard that does the public-key work of its handshakes, so that a storm of joins does not hold up
//! audio. Queues both ways are bounded by the same number, so neither side ever waits for the other to make room. It
//! knows no peers and no sockets.

use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

use sfu_core::{HandshakeJob, Node};
use udp::Waker;

use super::portion::{Left, Portion};

/// Jobs on the way between the two threads: some milliseconds of work, so that the worker is never idle for want of a
/// turn of the shard, and not so many that a new flight waits long behind them.
const JOBS_OUT_MAX: usize = 32;

/// A shard that wants the core gets it. The worker still gets a tenth when both want it all the time, a hundredth where the
/// shard has its priority: a node that busy takes no joins any more, and those under way give way to audio.
const NICE: i8 = 10;

#[derive(Debug)]
pub(super) struct Handshakes {
    jobs: SyncSender<HandshakeJob>,
    done: Receiver<HandshakeJob>,
    out: usize,
    work_us: Arc<AtomicU64>,
}

impl Handshakes {
    /// Starts the thread; it ends when this is dropped.
    pub(super) fn spawn(shard: usize, waker: Waker) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(JOBS_OUT_MAX);
        let (finished, done) = sync_channel(JOBS_OUT_MAX);
        let work_us = Arc::new(AtomicU64::new(0));
        let meter = Arc::clone(&work_us);
        std::thread::Builder::new().name(format!("handshakes-{shard}")).spawn(move || {
            if let Err(error) = udp::set_thread_priority(NICE) {
                tracing::warn!(shard, %error, "Handshakes run at the priority of media");
            }
            work(shard, &waiting, &finished, &waker, &meter);
        })?;
        Ok(Self { jobs, done, out: 0, work_us })
    }

    /// Gives the core what is done, as far as the portion goes, and takes what is to do. Whether some may be left.
    pub(super) fn exchange(&mut self, node: &mut Node, now: Instant, portion: &Portion<'_>) -> bool {
        let out = &mut self.out;
        let left = portion.spend(&self.done, |job| {
            *out -= 1;
            node.handle_handshake(now, job);
            ControlFlow::Continue(())
        });
        self.give(node, now);
        left == Left::Some
    }

    fn give(&mut self, node: &mut Node, now: Instant) {
        while self.out < JOBS_OUT_MAX {
            let Some(job) = node.poll_handshake(now) else { return };
            match self.jobs.try_send(job) {
                Ok(()) => self.out += 1,
                // Nobody is there to do it: without a result it counts as failed.
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => node.handle_handshake(now, job),
            }
        }
    }

    /// Spent on handshakes so far.
    pub(super) fn work_us(&self) -> u64 {
        self.work_us.load(Ordering::Relaxed)
    }
}

fn work(
    shard: usize,
    waiting: &Receiver<HandshakeJob>,
    finished: &SyncSender<HandshakeJob>,
    waker: &Waker,
    meter: &AtomicU64,
) {
    while let Ok(mut job) = waiting.recv() {
        let started = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| job.run(started))).is_err() {
            tracing::error!(shard, "A handshake failed in the library and ends its peer");
            job.fail();
        }
        let took = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        meter.fetch_add(took, Ordering::Relaxed);
        if finished.send(job).is_err() {
            return;
        }
        waker.wake();
    }
}
