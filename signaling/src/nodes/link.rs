//! One task for each node: dials its control link, takes the snapshot, carries calls out and events in, and decides
//! when a node is lost. A broken link is not yet a lost node: it keeps its calls running without us. Lost means that
//! its port refuses connections, or that it could not be reached again for `LOST_AFTER`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sfu_control::{
    CALLS_IN_FLIGHT_MAX, CallError, ConnectError, ControlClient, Hello, NodeEvent, Operation, ReplyBody,
};
use tokio::sync::mpsc;

use super::Embedded;
use crate::hub::Hub;
use crate::rooms::{CallFailure, Input};

/// Calls that wait for the link: a burst of joins.
pub const CALLS_WAITING_MAX: usize = 4096;
/// Without a link for this long the peers are sent elsewhere.
const LOST_AFTER: Duration = Duration::from_millis(1500);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A call on its way to a node.
#[derive(Debug)]
pub struct Call {
    pub call: u64,
    pub op: Box<Operation>,
}

/// Keeps the link to `node` until the node is silent and gone.
pub fn spawn(node: String, token: admin::Secret, hub: Arc<Hub>, registry: Arc<Embedded>) {
    tokio::spawn(Supervisor { node, token, hub, registry, backoff: BACKOFF_MIN, up_until: None }.run());
}

struct Supervisor {
    node: String,
    token: admin::Secret,
    hub: Arc<Hub>,
    registry: Arc<Embedded>,
    backoff: Duration,
    /// When the link broke, while the peers have not been told that the node is lost.
    up_until: Option<Instant>,
}

impl Supervisor {
    async fn run(mut self) {
        while let Some(control) = self.registry.control_of(&self.node) {
            match self.connect(&control).await {
                Ok((client, events, hello)) => {
                    self.backoff = BACKOFF_MIN;
                    let was_up = self.serve(&client, events, hello).await;
                    self.registry.set_linked(&self.node, false);
                    self.hub.link_down(&self.node);
                    if was_up {
                        self.up_until = Some(Instant::now());
                        continue;
                    }
                }
                Err(error) => {
                    tracing::debug!(node = %self.node, %error, "Could not open the control link");
                    if is_refused(&error) || self.up_until.is_some_and(|until| until.elapsed() > LOST_AFTER) {
                        self.give_up_peers();
                    }
                }
            }
            if self.up_until.is_none() && self.registry.is_silent(&self.node, Instant::now()) {
                break;
            }
            tokio::time::sleep(self.backoff).await;
            self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        }
        self.give_up_peers();
        self.registry.remove(&self.node);
        tracing::info!(node = %self.node, "Forgot a media node that does not announce itself any more");
    }

    async fn connect(
        &self,
        control: &str,
    ) -> Result<(ControlClient, mpsc::Receiver<NodeEvent>, Hello), ConnectError> {
        let (client, events, hello) = ControlClient::connect(control, self.token.expose()).await?;
        if hello.node == self.node {
            return Ok((client, events, hello));
        }
        tracing::warn!(node = %self.node, answered = %hello.node, "Another node answers at the announced address");
        Err(ConnectError::NoHello)
    }

    /// True when the link was really up.
    async fn serve(&mut self, client: &ControlClient, mut events: mpsc::Receiver<NodeEvent>, hello: Hello) -> bool {
        let (calls, mut queue) = mpsc::channel::<Call>(CALLS_WAITING_MAX);
        if !self.take_snapshot(client, &hello, Some(calls)).await {
            return false;
        }
        self.up_until = None;
        self.registry.set_media(&self.node, &hello.media);
        self.registry.set_linked(&self.node, true);
        tracing::info!(node = %self.node, version = %hello.version, "Media node is linked");
        let mut flying = FuturesUnordered::new();
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(NodeEvent::Resync {}) => {
                        if !self.take_snapshot(client, &hello, None).await {
                            break;
                        }
                    }
                    Some(event) => self.handle_event(event),
                    None => break,
                },
                Some(call) = queue.recv(), if flying.len() < CALLS_IN_FLIGHT_MAX => {
                    flying.push(async move { (call.call, client.call(*call.op).await) });
                }
                Some((call, result)) = flying.next() => self.done(call, result),
                reason = client.closed() => {
                    tracing::warn!(node = %self.node, %reason, "Control link broke");
                    break;
                }
            }
        }
        // Whatever is still flying fails at once, since the link is closed.
        while let Some((call, result)) = flying.next().await {
            self.done(call, result);
        }
        queue.close();
        while let Some(call) = queue.recv().await {
            self.done(call.call, Err(CallError::Timeout));
        }
        true
    }

    async fn take_snapshot(&self, client: &ControlClient, hello: &Hello, calls: Option<mpsc::Sender<Call>>) -> bool {
        match client.call(Operation::Snapshot {}).await {
            Ok(ReplyBody::Snapshot { peers }) => {
                if let Some(calls) = calls {
                    self.hub.link_up(&self.node, calls);
                }
                let (node, fingerprint) = (self.node.clone(), hello.fingerprint.clone());
                self.hub.input(Input::NodeUp { node, fingerprint, peers });
                true
            }
            other => {
                tracing::warn!(node = %self.node, answer = ?other.err(), "Media node gave no snapshot");
                false
            }
        }
    }

    fn handle_event(&self, event: NodeEvent) {
        if let NodeEvent::Draining { on } = event {
            self.registry.set_draining(&self.node, on);
        }
        self.hub.input(Input::NodeEvent { node: self.node.clone(), event });
    }

    fn done(&self, call: u64, result: Result<ReplyBody, CallError>) {
        let result = result.map_err(|error| {
            if let CallError::Refused(error) = error { CallFailure::Refused(error) } else { CallFailure::Unanswered }
        });
        self.hub.input(Input::CallDone { call, result });
    }

    fn give_up_peers(&mut self) {
        if self.up_until.take().is_some() {
            tracing::warn!(node = %self.node, "Media node is lost; its peers are sent elsewhere");
            self.hub.input(Input::NodeLost { node: self.node.clone() });
        }
    }
}

/// Nobody listens at the port: the process is dead.
fn is_refused(error: &ConnectError) -> bool {
    let ConnectError::Unreachable(source) = error else { return false };
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&**source);
    while let Some(error) = source {
        if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        source = error.source();
    }
    false
}
