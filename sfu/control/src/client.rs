//! Typed client of the control link. One connection, many calls in flight, events on a queue of their own. When the
//! link ends, for whatever reason, every waiting call fails at once and the event queue ends; dialling again is up to
//! the caller.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::{
    ControlError, Fingerprint, MediaAddress, NODE_MESSAGE_BYTES_MAX, NodeEvent, NodeMessage, Operation,
    REQUEST_BYTES_MAX, ReplyBody, ReplyResult, Request,
};

/// Calls that may wait for an answer at a time; more wait for a place. A node answers in well under a millisecond, so
/// this is a burst of joins, not a rate.
pub const CALLS_IN_FLIGHT_MAX: usize = 256;
/// Events that may wait for the caller. A full node makes about 100 events a second; a caller that is minutes behind
/// can no longer be right and has to dial again and take a snapshot.
pub const EVENTS_WAITING_MAX: usize = 4096;
/// Time for the answer to [`ControlClient::call`].
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for TCP, WebSocket and the node's hello together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
pub const PING_INTERVAL: Duration = Duration::from_secs(1);
/// A link on which nothing has come for this long is dead (a killed process is seen at once, this is for lost hosts).
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// What the node says of itself when the link opens.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    pub node: String,
    pub version: String,
    pub media: Vec<MediaAddress>,
    pub fingerprint: Fingerprint,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("control address or token cannot be put into a request")]
    BadAddress,
    #[error("node refused the control token")]
    Unauthorized,
    #[error("node answered HTTP status {0} in place of a control link")]
    Refused(u16),
    #[error("node cannot be reached: {0}")]
    Unreachable(#[source] Box<WebSocketError>),
    #[error("node did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    #[error("node did not begin with a hello")]
    NoHello,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    #[error("node refused: {0}")]
    Refused(#[source] ControlError),
    #[error("node did not answer in time")]
    Timeout,
    #[error("control link is closed: {0}")]
    Closed(CloseReason),
    #[error("request is longer than {REQUEST_BYTES_MAX} bytes")]
    TooLong,
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    #[error("the node closed it")]
    ByNode,
    #[error("the connection broke")]
    Broken,
    #[error("nothing came for {} s", SILENCE_MAX.as_secs())]
    Silent,
    #[error("the node sent what is not a message of this protocol")]
    Nonsense,
    #[error("events were not taken from the queue")]
    EventsOverflow,
    #[error("it was dropped here")]
    ByClient,
}

/// Cheap to clone. The link closes when the last clone or the event receiver is dropped.
#[derive(Clone, Debug)]
pub struct ControlClient {
    requests: mpsc::Sender<Message>,
    places: Arc<Semaphore>,
    shared: Arc<Shared>,
    closed: watch::Receiver<Option<CloseReason>>,
}

#[derive(Debug)]
struct Shared {
    next_id: AtomicU64,
    /// `None` once the link is closed, so that a late call cannot wait for ever.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<ReplyResult>>>>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl ControlClient {
    /// Dials `url` (`ws://host:port/v1/control`). Events that came before the receiver is read are kept, in order.
    pub async fn connect(url: &str, token: &str) -> Result<(Self, mpsc::Receiver<NodeEvent>, Hello), ConnectError> {
        let (socket, hello) =
            timeout(CONNECT_TIMEOUT, dial(url, token)).await.map_err(|_| ConnectError::Timeout)??;
        let (sink, stream) = socket.split();
        let (requests, to_write) = mpsc::channel(CALLS_IN_FLIGHT_MAX);
        let (events, event_queue) = mpsc::channel(EVENTS_WAITING_MAX);
        let (close, closed) = watch::channel(None);
        let shared = Arc::new(Shared { next_id: AtomicU64::new(1), waiting: Mutex::new(Some(HashMap::new())) });
        let link = Link { shared: Arc::clone(&shared), close };
        tokio::spawn(link.run(sink, stream, to_write, events));
        let places = Arc::new(Semaphore::new(CALLS_IN_FLIGHT_MAX));
        Ok((Self { requests, places, shared, closed }, event_queue, hello))
    }

    /// One operation, with [`CALL_TIMEOUT`].
    pub async fn call(&self, op: Operation) -> Result<ReplyBody, CallError> {
        self.call_within(op, CALL_TIMEOUT).await
    }

    /// One operation. After a timeout it is not known whether the node has carried it out.
    pub async fn call_within(&self, op: Operation, time_max: Duration) -> Result<ReplyBody, CallError> {
        timeout(time_max, self.exchange(op)).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Waits for the end of the link.
    pub async fn closed(&self) -> CloseReason {
        let mut closed = self.closed.clone();
        let reason = closed.wait_for(Option::is_some).await.map(|reason| *reason);
        reason.ok().flatten().unwrap_or(CloseReason::Broken)
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.borrow().is_some()
    }

    async fn exchange(&self, op: Operation) -> Result<ReplyBody, CallError> {
        let _place = self.places.acquire().await.map_err(|_| self.closed_now())?;
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let text = serde_json::to_string(&Request { id, op }).map_err(|_| CallError::TooLong)?;
        if text.len() > REQUEST_BYTES_MAX {
            return Err(CallError::TooLong);
        }
        let answer = Waiting::new(&self.shared, id).ok_or_else(|| self.closed_now())?;
        self.requests.send(Message::text(text)).await.map_err(|_| self.closed_now())?;
        match answer.receive().await {
            Some(ReplyResult::Ok(body)) => Ok(body),
            Some(ReplyResult::Error(error)) => Err(CallError::Refused(error)),
            None => Err(self.closed_now()),
        }
    }

    fn closed_now(&self) -> CallError {
        CallError::Closed(self.closed.borrow().unwrap_or(CloseReason::Broken))
    }
}

/// A call's entry in the table; leaves with the call, also when that is given up.
struct Waiting<'a> {
    shared: &'a Shared,
    id: u64,
    answer: oneshot::Receiver<ReplyResult>,
}

impl<'a> Waiting<'a> {
    /// `None` when the link is closed.
    fn new(shared: &'a Shared, id: u64) -> Option<Self> {
        let (sender, answer) = oneshot::channel();
        shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.insert(id, sender);
        Some(Self { shared, id, answer })
    }

    async fn receive(mut self) -> Option<ReplyResult> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.take(self.id);
    }
}

impl Shared {
    fn take(&self, id: u64) -> Option<oneshot::Sender<ReplyResult>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.remove(&id)
    }
}

async fn dial(url: &str, token: &str) -> Result<(Socket, Hello), ConnectError> {
    let mut request = url.into_client_request().map_err(|_| ConnectError::BadAddress)?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ConnectError::BadAddress)?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    let config = WebSocketConfig::default()
        .max_message_size(Some(NODE_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(NODE_MESSAGE_BYTES_MAX))
        .max_write_buffer_size(4 * REQUEST_BYTES_MAX);
    let connected = connect_async_with_config(request, Some(config), true).await;
    let (mut socket, _) = connected.map_err(refusal)?;
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                Ok(NodeMessage::Hello { node, version, media, fingerprint }) => {
                    return Ok((socket, Hello { node, version, media, fingerprint }));
                }
                _ => return Err(ConnectError::NoHello),
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return Err(ConnectError::NoHello),
        }
    }
}

fn refusal(error: WebSocketError) -> ConnectError {
    let WebSocketError::Http(answer) = error else { return ConnectError::Unreachable(Box::new(error)) };
    match answer.status() {
        StatusCode::UNAUTHORIZED => ConnectError::Unauthorized,
        status => ConnectError::Refused(status.as_u16()),
    }
}

/// The two loops behind a link. The first that ends names the reason.
struct Link {
    shared: Arc<Shared>,
    close: watch::Sender<Option<CloseReason>>,
}

impl Link {
    async fn run(
        self,
        sink: SplitSink<Socket, Message>,
        stream: SplitStream<Socket>,
        to_write: mpsc::Receiver<Message>,
        events: mpsc::Sender<NodeEvent>,
    ) {
        let reason = tokio::select! {
            reason = write(sink, to_write) => reason,
            reason = read(stream, &self.shared, &events) => reason,
            () = events.closed() => CloseReason::ByClient,
        };
        tracing::debug!(%reason, "Control link ended");
        self.close.send_replace(Some(reason));
        // Dropping the senders wakes every waiting call.
        drop(self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, mut to_write: mpsc::Receiver<Message>) -> CloseReason {
    let mut ping = interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            request = to_write.recv() => request,
            _ = ping.tick() => Some(Message::Ping(Vec::new().into())),
        };
        let (message, last) = match message {
            Some(message) => (message, false),
            None => (Message::Close(None), true),
        };
        match timeout(SILENCE_MAX, sink.send(message)).await {
            Ok(Ok(())) if last => return CloseReason::ByClient,
            Ok(Ok(())) => {}
            Ok(Err(_)) => return CloseReason::Broken,
            Err(_) => return CloseReason::Silent,
        }
    }
}

async fn read(mut stream: SplitStream<Socket>, shared: &Shared, events: &mpsc::Sender<NodeEvent>) -> CloseReason {
    let mut heard = Instant::now();
    loop {
        let message = match tokio::time::timeout_at(heard + SILENCE_MAX, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(WebSocketError::ConnectionClosed)) | None) => return CloseReason::ByNode,
            Ok(Some(Err(_))) => return CloseReason::Broken,
            Err(_) => return CloseReason::Silent,
        };
        heard = Instant::now();
        match message {
            Message::Text(text) => {
                if let Err(reason) = dispatch(&text, shared, events) {
                    return reason;
                }
            }
            Message::Close(_) => return CloseReason::ByNode,
            Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
        }
    }
}

fn dispatch(text: &str, shared: &Shared, events: &mpsc::Sender<NodeEvent>) -> Result<(), CloseReason> {
    match serde_json::from_str(text) {
        Ok(NodeMessage::Reply { re, result }) => {
            if let Some(caller) = shared.take(re) {
                // The caller may have given up in this moment.
                let _ = caller.send(result);
            }
            Ok(())
        }
        Ok(NodeMessage::Event { event }) => match events.try_send(event) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(CloseReason::EventsOverflow),
        },
        Ok(NodeMessage::Hello { .. }) => Ok(()),
        Err(error) if is_unknown(text) => {
            tracing::debug!(%error, "Ignored a message of a newer node");
            Ok(())
        }
        Err(error) => {
            tracing::warn!(%error, "Node sent what cannot be read");
            Err(CloseReason::Nonsense)
        }
    }
}

/// A `type` or `event` that this version does not know is for a newer one: ignored. Anything else that does not fit
/// the protocol means that the two sides no longer understand each other.
fn is_unknown(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Kind {
        r#type: String,
        event: Option<String>,
    }
    const EVENTS: [&str; 9] =
        ["connected", "idle", "active", "gone", "track_live", "slots", "speakers", "draining", "resync"];
    let Ok(kind) = serde_json::from_str::<Kind>(text) else { return false };
    match (kind.r#type.as_str(), kind.event) {
        ("hello" | "reply", _) | ("event", None) => false,
        ("event", Some(event)) => !EVENTS.contains(&event.as_str()),
        _ => true,
    }
}
