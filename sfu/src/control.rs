//! The control port: `GET /v1/control`, a WebSocket for signalling. It checks the token before anything else, turns
//! text into requests, and answers what is not one; what a request does is decided by the hub.
//!
//! Limits: 16 links, messages of 1 MiB, one request of a link at a time (the next is read when there is room), 4096
//! messages waiting to be sent, 10 s without a sign of life. A message that cannot be read is answered with an error
//! (`re` is its id, or 0 when it has none) and the link stays open; a longer one than the limit closes the link.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use admin::Secret;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use sfu_control::{ControlError, NodeMessage, REQUEST_BYTES_MAX, ReplyResult, Request};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::hub::{Input, LINK_QUEUE_MAX, LinkId};
use crate::metrics::ControlMeters;
use crate::translate::refuse;

/// Every signalling replica keeps one link; more are leaks.
const LINKS_MAX: usize = 16;
/// The client pings each second.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A link that does not take a message for this long is dead.
const WRITE_TIME_MAX: Duration = Duration::from_secs(5);
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug)]
pub(crate) struct ControlPort {
    token: Arc<Secret>,
    inputs: mpsc::Sender<Input>,
    meters: ControlMeters,
    places: Arc<Semaphore>,
    next_link: Arc<AtomicU64>,
}

impl ControlPort {
    pub(crate) fn new(token: Secret, inputs: mpsc::Sender<Input>, meters: ControlMeters) -> Self {
        let places = Arc::new(Semaphore::new(LINKS_MAX));
        Self { token: Arc::new(token), inputs, meters, places, next_link: Arc::new(AtomicU64::new(1)) }
    }

    pub(crate) fn router(self) -> Router {
        Router::new().route("/v1/control", get(open)).with_state(self)
    }

    /// Waits until every link has written what it had and is closed.
    pub(crate) async fn all_closed(&self) {
        let _ = self.places.acquire_many(LINKS_MAX as u32).await;
    }

    fn is_authorized(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        bearer.is_some_and(|presented| self.token.matches(presented))
    }
}

async fn open(
    State(port): State<ControlPort>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    if !port.is_authorized(&headers) {
        tracing::warn!("Refused a control link with a wrong token");
        let hint = "both processes need the same control_token";
        let body = Json(refuse("unauthorized", "control token is missing or wrong", hint));
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response();
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    let Ok(place) = Arc::clone(&port.places).try_acquire_owned() else {
        let body = Json(refuse("too_many_links", format!("{LINKS_MAX} links are open"), "close one"));
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    };
    upgrade
        .max_message_size(REQUEST_BYTES_MAX)
        .max_frame_size(REQUEST_BYTES_MAX)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(2 * sfu_control::NODE_MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| serve(port, socket, place))
}

async fn serve(port: ControlPort, socket: WebSocket, place: OwnedSemaphorePermit) {
    let link = LinkId(port.next_link.fetch_add(1, Ordering::Relaxed));
    let (queue, to_write) = mpsc::channel(LINK_QUEUE_MAX);
    if port.inputs.send(Input::Opened { link, queue: queue.clone() }).await.is_err() {
        return;
    }
    tracing::info!(link = link.0, "Control link opened");
    let (sink, stream) = socket.split();
    // The reader must not keep the queue alive: the hub closes a link by dropping its end.
    let answers = queue.downgrade();
    drop(queue);
    let reason = tokio::select! {
        reason = read(&port, link, stream, answers) => reason,
        reason = write(sink, to_write) => reason,
    };
    tracing::info!(link = link.0, reason, "Control link ended, calls go on");
    let _ = port.inputs.send(Input::Closed { link }).await;
    drop(place);
}

async fn read(
    port: &ControlPort,
    link: LinkId,
    mut stream: SplitStream<WebSocket>,
    queue: mpsc::WeakSender<Utf8Bytes>,
) -> &'static str {
    loop {
        let message = match tokio::time::timeout(SILENCE_MAX, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return broken(&error, &queue),
            Ok(None) => return "closed by signalling",
            Err(_) => return "silent",
        };
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return "closed by signalling",
            Message::Binary(_) => Utf8Bytes::from_static(""),
        };
        match parse(&text) {
            Ok(request) => {
                let input = Input::Request { link, request: Box::new(request) };
                if port.inputs.send(input).await.is_err() {
                    return "node ends";
                }
            }
            Err((re, error)) => {
                port.meters.count_request(&error.code);
                let reply = NodeMessage::Reply { re, result: ReplyResult::Error(error) };
                let Some(queue) = queue.upgrade() else { return "node closed it" };
                if serde_json::to_string(&reply).is_ok_and(|text| queue.try_send(text.into()).is_err()) {
                    return "answers not taken";
                }
            }
        }
    }
}

fn broken(error: &axum::Error, queue: &mpsc::WeakSender<Utf8Bytes>) -> &'static str {
    tracing::debug!(%error, "Control link cannot be read");
    drop(queue.upgrade());
    "broken, or a message over the limit"
}

async fn write(mut sink: SplitSink<WebSocket, Message>, mut to_write: mpsc::Receiver<Utf8Bytes>) -> &'static str {
    while let Some(text) = to_write.recv().await {
        match tokio::time::timeout(WRITE_TIME_MAX, sink.send(Message::Text(text))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return "broken",
            Err(_) => return "messages not taken",
        }
    }
    let frame = CloseFrame { code: close_code::AWAY, reason: Utf8Bytes::from_static("node closed the link") };
    let _ = tokio::time::timeout(WRITE_TIME_MAX, sink.send(Message::Close(Some(frame)))).await;
    "node closed it"
}

/// What is wrong with a message, by the id that it carries.
fn parse(text: &str) -> Result<Request, (u64, ControlError)> {
    let bad = |message: String| {
        refuse("bad_request", message, "send one JSON object a message: {\"id\": number, \"op\": name, ...}")
    };
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| (0, bad(format!("not JSON: {error}"))))?;
    let id = value.get("id").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let op = value.get("op").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    serde_json::from_value(value).map_err(|error| {
        if id != 0 && !op.is_empty() && !OPERATIONS.contains(&op.as_str()) {
            let hint = format!("known operations: {}", OPERATIONS.join(", "));
            let shown: String = op.chars().take(40).collect();
            return (id, refuse("unknown_op", format!("unknown operation {shown:?}"), &hint));
        }
        (id, bad(error.to_string()))
    })
}

const OPERATIONS: [&str; 7] = ["join", "restart_ice", "mute", "set_meta", "leave", "snapshot", "drain"];

#[cfg(test)]
mod tests;
