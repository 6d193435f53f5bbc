//! One shard: one thread, one UDP socket on a port of its own, one [`sfu_core::Node`]. The thread never waits for
//! anything but its socket, its next deadline and its waker; commands come and events go over bounded queues that it
//! only tries. It does not know rooms or peers by name.

mod backlog;
mod bus;
pub(crate) mod cores;
mod gathering;
mod handshakes;
mod portion;
mod ring;
mod stream;
mod streams;
mod turn;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use sfu_core::{Command, CommandError, Event, NodeConfig, Reply};
use tokio::sync::{mpsc, oneshot};
use udp::{Options, Socket, Waker};

use crate::metrics::Published;
pub(crate) use bus::{BusEnd, mesh};
pub(crate) use streams::{Accepted, StreamCounters};
use turn::Shard;

/// Commands that may wait for a shard: one join is one command, and a shard takes some a turn.
const ORDERS_WAITING_MAX: usize = 256;
/// A shard answers within a turn, well under a millisecond; after this it is stuck or dead.
/// Tests wait longer, because a busy machine may stall a thread for seconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 2 });
/// A shard that fails this often in a row has met input that it will meet again.
const FAILURES_MAX: usize = 5;
/// Failures farther apart than this are not in a row.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// The control plane's end of a shard.
#[derive(Debug)]
pub(crate) struct ShardHandle {
    pub(crate) local_addr: SocketAddr,
    pub(crate) published: Arc<Published>,
    orders: SyncSender<Order>,
    waker: Waker,
    /// Ends when the thread does.
    ended: Option<oneshot::Receiver<()>>,
}

#[derive(Debug)]
enum Order {
    Command {
        command: Command,
        reply: oneshot::Sender<Result<Reply, CommandError>>,
    },
    /// A connection to the shard's TCP port.
    Connection(Box<Accepted>),
    Stop,
    /// Makes the core fail, as a defect in it would.
    #[cfg(test)]
    Fail,
}

/// What a shard tells the control plane.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) shard: usize,
    pub(crate) news: News,
}

#[derive(Debug)]
pub(crate) enum News {
    Node(Event),
    /// The core had more events than its queue takes: some are gone.
    EventsLost,
    /// The core failed; all its peers are gone and it begins anew on the same port.
    Restarted,
    /// The thread has ended and will not come back.
    Ended(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ShardError {
    #[error("shard has too many commands waiting")]
    Busy,
    #[error("shard does not answer")]
    Stalled,
}

/// How a shard trades delay for work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tuning {
    /// How long packets may wait for others to the same listener.
    pub(crate) hold: Duration,
    /// How long it looks for work before it sleeps.
    pub(crate) busy_poll: Duration,
    /// How long datagrams may wait for others while many come.
    pub(crate) gather: Duration,
    /// Priority of its thread as in nice(1); 0 leaves it as it is.
    pub(crate) nice: i8,
}

/// A shard's socket, bound before any thread starts, so that a port in use stops the start of the node.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) socket: Socket,
    pub(crate) local_addr: SocketAddr,
}

pub(crate) fn bind(listen: IpAddr, port: u16, (buffer_bytes, gro): (usize, bool)) -> io::Result<Bound> {
    let buffer = Some(buffer_bytes);
    let options = Options { recv_buffer: buffer, send_buffer: buffer, reuse_port: false, gro };
    let socket = Socket::bind(SocketAddr::new(listen, port), options)?;
    // Without it a shard that has too much to do lets its queue grow.
    socket.ask_for_arrival_times()?;
    let local_addr = socket.local_addr()?;
    Ok(Bound { socket, local_addr })
}

/// The kernel gives less than was asked for when its own limits are lower.
pub(crate) fn warn_of_small_buffers(socket: &Socket, wanted_bytes: usize) {
    let (Ok(receive), Ok(send)) = (socket.recv_buffer(), socket.send_buffer()) else { return };
    if receive < wanted_bytes || send < wanted_bytes {
        tracing::warn!(
            wanted_bytes,
            receive_bytes = receive,
            send_bytes = send,
            "Kernel buffers are smaller than asked for, bursts may be lost; to raise them: \
             sysctl -w net.core.rmem_max={wanted_bytes} net.core.wmem_max={wanted_bytes}"
        );
    }
}

/// How a shard is tied to the machine and to the others.
#[derive(Debug)]
pub(crate) struct Wiring {
    pub(crate) bus: BusEnd,
    /// The core that its thread may run on.
    pub(crate) core: Option<usize>,
    pub(crate) tuning: Tuning,
}

/// Starts the thread. `config` is kept for a restart of the core after a failure.
pub(crate) fn spawn(
    index: usize,
    bound: Bound,
    (config, wiring): (NodeConfig, Wiring),
    reports: mpsc::Sender<Report>,
) -> Result<ShardHandle, StartError> {
    let published = Arc::new(Published::default());
    let (core, nice) = (wiring.core, wiring.tuning.nice);
    let (orders, waiting) = sync_channel(ORDERS_WAITING_MAX);
    let mut shard =
        Shard::new(index, bound.socket, (config, wiring), waiting, reports.clone(), Arc::clone(&published))?;
    let waker = shard.waker();
    let (alive, ended) = oneshot::channel::<()>();
    std::thread::Builder::new()
        .name(format!("shard-{index}"))
        .spawn(move || {
            if let Some(core) = core
                && let Err(error) = cores::pin(core)
            {
                tracing::warn!(shard = index, core, %error, "Shard runs on any core");
            }
            shard.is_favoured = nice == 0 || favour(index, nice);
            if let Err(reason) = run(shard) {
                tracing::error!(shard = index, %reason, "Shard has ended");
                // The only blocking send of this thread, which has nothing else left to do.
                let _ = reports.blocking_send(Report { shard: index, news: News::Ended(reason) });
            }
            drop(alive);
        })
        .map_err(StartError::Thread)?;
    Ok(ShardHandle { local_addr: bound.local_addr, published, orders, waker, ended: Some(ended) })
}

/// Whether the thread that asks has got its priority. It may not have it where nobody has given the process the right.
fn favour(shard: usize, nice: i8) -> bool {
    let asked = udp::set_thread_priority(nice);
    // All ask for the same.
    if let Err(error) = &asked
        && shard == 0
    {
        tracing::info!(
            nice,
            %error,
            "Media threads run at the priority of other work: audio comes later on a busy machine; to allow it: \
             AmbientCapabilities=CAP_SYS_NICE or LimitNICE={nice} in the systemd unit, --cap-add SYS_NICE for a container"
        );
    }
    asked.is_ok()
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("shard thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    #[error("shard cannot poll its socket: {0}")]
    Poll(#[source] io::Error),
    #[error("thread for handshakes cannot be started: {0}")]
    Handshakes(#[source] io::Error),
    #[error(transparent)]
    Node(#[from] sfu_core::NodeError),
}

/// A panic in the core ends its calls, not the process and not the other shards.
fn run(mut shard: Shard) -> Result<(), String> {
    let (mut failures, mut failed_at) = (0, Instant::now());
    loop {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shard.run()));
        match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => return Err(format!("waiting for the socket failed: {error}")),
            Err(_) => {}
        }
        failures = if failed_at.elapsed() > FAILURE_WINDOW { 1 } else { failures + 1 };
        failed_at = Instant::now();
        if failures == FAILURES_MAX {
            return Err(format!("core failed {FAILURES_MAX} times in a row"));
        }
        shard.restart().map_err(|error| format!("core cannot be built anew: {error}"))?;
    }
}

/// Where accepted connections are handed over.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    orders: SyncSender<Order>,
    waker: Waker,
}

impl Door {
    /// `false` when the shard is too busy to take it, or is gone.
    pub(crate) fn hand_over(&self, accepted: Accepted) -> bool {
        let is_taken = self.orders.try_send(Order::Connection(Box::new(accepted))).is_ok();
        self.waker.wake();
        is_taken
    }
}

impl ShardHandle {
    pub(crate) fn door(&self) -> Door {
        Door { orders: self.orders.clone(), waker: self.waker.clone() }
    }

    /// Carries out one command; the inner result is the core's.
    pub(crate) async fn call(&self, command: Command) -> Result<Result<Reply, CommandError>, ShardError> {
        let (reply, answer) = oneshot::channel();
        self.order(Order::Command { command, reply })?;
        match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(ShardError::Stalled),
        }
    }

    /// Carries out one command whose answer nobody needs.
    pub(crate) fn tell(&self, command: Command) -> Result<(), ShardError> {
        let (reply, _) = oneshot::channel();
        self.order(Order::Command { command, reply })
    }

    /// Asks the thread to send what it still has and to end, and waits for that.
    pub(crate) async fn stop(&mut self) {
        let Some(ended) = self.ended.take() else { return };
        let asked = self.order(Order::Stop);
        if asked.is_err() || tokio::time::timeout(ANSWER_TIME_MAX, ended).await.is_err() {
            tracing::warn!("Left a shard that does not answer");
        }
    }

    fn order(&self, order: Order) -> Result<(), ShardError> {
        self.orders.try_send(order).map_err(|error| match error {
            std::sync::mpsc::TrySendError::Full(_) => ShardError::Busy,
            std::sync::mpsc::TrySendError::Disconnected(_) => ShardError::Stalled,
        })?;
        self.waker.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
