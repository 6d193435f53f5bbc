//! Drives the [`Rooms`]: one lock, inputs from sockets, nodes and the clock in, effects out. Nothing waits under the
//! lock: every effect is a push into a bounded queue, and a full queue has a consequence (a socket is cut off, a call
//! fails).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use signaling_protocol::ServerMessage;
use tokio::sync::{Notify, mpsc, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::metrics::Metrics;
use crate::nodes::Registry;
use crate::nodes::link::Call;
use crate::rooms::{CallFailure, ConnId, Counts, Effect, Greeting, Input, NodeAnswer, Rooms};

/// Messages that wait for one socket. A client that is further behind does not read.
pub const OUTBOUND_MAX: usize = 256;

/// What a session writes next.
#[derive(Debug)]
pub enum Outbound {
    Welcome(Box<Greeting>),
    Text(Utf8Bytes),
    Answer { re: u64, answer: Box<NodeAnswer> },
    Close { code: u16, reason: &'static str },
}

/// A session's end of its registration.
#[derive(Debug)]
pub struct Registration {
    pub conn: ConnId,
    pub outbound: mpsc::Receiver<Outbound>,
    /// Set once: stop at once, with this close.
    pub cut: watch::Receiver<Option<(u16, &'static str)>>,
}

#[derive(Debug)]
struct Socket {
    outbound: mpsc::Sender<Outbound>,
    cut: watch::Sender<Option<(u16, &'static str)>>,
}

#[derive(Debug)]
struct State {
    rooms: Rooms,
    sockets: HashMap<ConnId, Socket>,
    links: HashMap<String, mpsc::Sender<Call>>,
    next_conn: u64,
    /// Inputs that arose while effects were carried out.
    inbox: VecDeque<Input>,
}

#[derive(Debug)]
pub struct Hub {
    state: Mutex<State>,
    registry: Arc<dyn Registry>,
    metrics: Arc<Metrics>,
    timer: Notify,
}

impl Hub {
    /// Starts the timer task too, which ends with the hub.
    #[must_use]
    pub fn start(rooms: Rooms, registry: Arc<dyn Registry>, metrics: Arc<Metrics>) -> Arc<Self> {
        let state =
            State { rooms, sockets: HashMap::new(), links: HashMap::new(), next_conn: 1, inbox: VecDeque::new() };
        let hub = Arc::new(Self { state: Mutex::new(state), registry, metrics, timer: Notify::new() });
        tokio::spawn(run_timer(Arc::downgrade(&hub)));
        hub
    }

    /// A new socket, without a participation yet.
    pub fn open(&self) -> Registration {
        let (sender, outbound) = mpsc::channel(OUTBOUND_MAX);
        let (cutter, cut) = watch::channel(None);
        let mut state = self.lock();
        let conn = ConnId(state.next_conn);
        state.next_conn += 1;
        state.sockets.insert(conn, Socket { outbound: sender, cut: cutter });
        drop(state);
        Registration { conn, outbound, cut }
    }

    /// The socket is gone. `left`: the client said goodbye.
    pub fn close(self: &Arc<Self>, conn: ConnId, left: bool) {
        self.lock().sockets.remove(&conn);
        self.input(if left { Input::SocketClosed { conn } } else { Input::SocketLost { conn } });
    }

    pub fn link_up(&self, node: &str, calls: mpsc::Sender<Call>) {
        self.lock().links.insert(node.to_owned(), calls);
        self.metrics.nodes_linked.inc();
    }

    pub fn link_down(&self, node: &str) {
        if self.lock().links.remove(node).is_some() {
            self.metrics.nodes_linked.dec();
        }
    }

    #[must_use]
    pub fn linked_nodes(&self) -> usize {
        self.lock().links.len()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().rooms.counts()
    }

    /// Closes every socket with 1001, so that clients resume at another process or at the next one.
    pub fn shut_down(&self) {
        for socket in self.lock().sockets.values() {
            socket.cut.send_replace(Some((1001, "server is shutting down")));
        }
    }

    /// One input and everything that follows from it.
    pub fn input(self: &Arc<Self>, input: Input) {
        let mut state = self.lock();
        state.inbox.push_back(input);
        while let Some(input) = state.inbox.pop_front() {
            for effect in state.rooms.handle(Instant::now(), input) {
                self.carry_out(&mut state, effect);
            }
        }
        drop(state);
        self.timer.notify_one();
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, effect: Effect) {
        match effect {
            Effect::Welcome { conn, greeting } => {
                if greeting.resumed {
                    self.metrics.resumes.inc();
                }
                self.push(state, conn, Outbound::Welcome(greeting));
            }
            Effect::Send { to, message } => self.send(state, &to, &message),
            Effect::Answer { conn, re, answer } => self.push(state, conn, Outbound::Answer { re, answer }),
            Effect::Close { conn, code, reason } => self.push(state, conn, Outbound::Close { code, reason }),
            Effect::Call { node, call, op } => {
                let sent = state.links.get(&node).is_some_and(|link| link.try_send(Call { call, op }).is_ok());
                if !sent {
                    let failed = Input::CallDone { call, result: Err(CallFailure::Unanswered) };
                    state.inbox.push_back(failed);
                }
            }
            Effect::Place { room } => self.place(state, room),
            Effect::Release { room } => {
                let registry = Arc::clone(&self.registry);
                tokio::spawn(async move { registry.release(&room).await });
            }
        }
    }

    /// Written once, however many receive it.
    fn send(&self, state: &State, to: &[ConnId], message: &ServerMessage) {
        if let ServerMessage::Error { error, .. } = message {
            self.metrics.error(&error.code);
        }
        if let ServerMessage::Moved { reason, .. } = message {
            match reason.as_str() {
                "evicted" => {
                    self.metrics.evictions.inc();
                }
                "node_lost" => {
                    self.metrics.node_lost_peers.inc_by(u64::try_from(to.len()).unwrap_or(u64::MAX));
                }
                _ => {}
            }
        }
        // Strings, numbers and JSON values only: cannot fail.
        let Ok(text) = serde_json::to_string(message) else { return };
        let text = Utf8Bytes::from(text);
        for &conn in to {
            self.push(state, conn, Outbound::Text(text.clone()));
        }
    }

    fn push(&self, state: &State, conn: ConnId, outbound: Outbound) {
        let Some(socket) = state.sockets.get(&conn) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = socket.outbound.try_send(outbound) {
            let first = socket.cut.send_if_modified(|cut| {
                let first = cut.is_none();
                cut.get_or_insert((1008, "client does not read its messages"));
                first
            });
            if first {
                self.metrics.slow_closes.inc();
            }
        }
    }

    fn place(self: &Arc<Self>, state: &mut State, room: String) {
        let (registry, asked) = (Arc::clone(&self.registry), room.clone());
        let mut choice = async move { registry.place(&asked).await }.boxed();
        // The embedded registry answers at once.
        match (&mut choice).now_or_never() {
            Some(node) => state.inbox.push_back(Input::Placed { room, node }),
            None => {
                let hub = Arc::clone(self);
                tokio::spawn(async move {
                    let node = choice.await;
                    hub.input(Input::Placed { room, node });
                });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run_timer(hub: std::sync::Weak<Hub>) {
    /// Only so that the task notices the end of the hub.
    const IDLE: std::time::Duration = std::time::Duration::from_secs(5);
    loop {
        let Some(strong) = hub.upgrade() else { return };
        let due = strong.lock().rooms.poll_timeout();
        let now = Instant::now();
        if due.is_some_and(|due| due <= now) {
            strong.input(Input::Timeout);
            continue;
        }
        let wait = due.map_or(IDLE, |due| (due - now).min(IDLE));
        // The hub must not be kept alive by its own timer for longer than one wait.
        let _ = tokio::time::timeout(wait, strong.timer.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use signaling_protocol::Role;

    use super::*;
    use crate::nodes::Embedded;
    use crate::rooms::{Grant, Limits, Request};

    fn hub() -> (Arc<Hub>, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::default());
        let rooms = Rooms::new(Limits::default(), Instant::now());
        (Hub::start(rooms, Arc::new(Embedded::default()), Arc::clone(&metrics)), metrics)
    }

    fn join(hub: &Arc<Hub>) -> Registration {
        let registration = hub.open();
        let conn = registration.conn;
        let grant = Grant { identity: "i".into(), name: "n".into(), role: Role::Speaker, kinds: None };
        let (peer, nonce) = (format!("p{}", conn.0), "n".to_owned());
        hub.input(Input::Hello { conn, re: 1, room: "demo".into(), peer, nonce, grant });
        registration
    }

    fn signal(hub: &Arc<Hub>, conn: ConnId) {
        let request = Request::Signal { to: None, data: serde_json::Value::Null };
        hub.input(Input::Request { conn, re: 2, request });
    }

    #[tokio::test]
    async fn socket_that_is_not_read_is_cut_off_and_the_others_are_not() {
        let (hub, metrics) = hub();
        let (slow, mut talker) = (join(&hub), join(&hub));
        for _ in 0..OUTBOUND_MAX + 10 {
            signal(&hub, talker.conn);
            while talker.outbound.try_recv().is_ok() {}
        }
        assert_eq!(slow.cut.borrow().map(|(code, _)| code), Some(1008));
        assert_eq!(*talker.cut.borrow(), None);
        assert_eq!(metrics.slow_closes.get(), 1, "counted once");
        assert_eq!(slow.outbound.len(), OUTBOUND_MAX, "what waits is bounded");
    }

    #[tokio::test]
    async fn broadcast_is_written_once_for_all() {
        let (hub, _) = hub();
        let (mut first, mut second, talker) = (join(&hub), join(&hub), join(&hub));
        signal(&hub, talker.conn);
        let last = |registration: &mut Registration| {
            let mut last = None;
            while let Ok(Outbound::Text(text)) = registration.outbound.try_recv() {
                last = Some(text);
            }
            last
        };
        // Behind the welcome.
        assert!(matches!(first.outbound.try_recv(), Ok(Outbound::Welcome(_))));
        assert!(matches!(second.outbound.try_recv(), Ok(Outbound::Welcome(_))));
        let (first, second) = (last(&mut first).unwrap(), last(&mut second).unwrap());
        assert!(first.contains("signal"));
        assert_eq!(first.as_ptr(), second.as_ptr());
    }

    #[tokio::test]
    async fn end_cuts_every_socket_with_1001() {
        let (hub, _) = hub();
        let sockets = [join(&hub), hub.open()];
        hub.shut_down();
        assert!(sockets.iter().all(|socket| socket.cut.borrow().is_some_and(|(code, _)| code == 1001)));
    }
}
