//! One WebSocket to Janus and the one session on it: requests that find their answers by `transaction`, and the
//! keepalive without which Janus drops a session after a minute. A session carries all handles of a run.
//!
//! Not here: what the plugin's messages mean (`videoroom`). Events that answer no request are passed over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::JanusError;

const SUBPROTOCOL: HeaderValue = HeaderValue::from_static("janus-protocol");
/// Janus forgets a session that was silent for 60 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(25);
/// A join that has no answer after this time has failed; Janus answers within some milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that wait for the socket; more callers than this wait.
const REQUESTS_MAX: usize = 256;
/// Requests without an answer yet: one for each participant that joins at this moment, and room for late ones.
const PENDING_MAX: usize = 8192;
/// Larger than an offer with an m-line for each of 60 publishers.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Clones share the session; it is destroyed by [`Link::destroy`], or by Janus a minute after the last clone is gone.
#[derive(Clone)]
pub(super) struct Link {
    requests: mpsc::Sender<Request>,
    next_transaction: Arc<AtomicU64>,
    session: u64,
}

/// A plugin handle: in Janus each one is a PeerConnection of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HandleId(u64);

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Jsep {
    #[serde(rename = "type")]
    kind: String,
    pub(super) sdp: String,
}

impl Jsep {
    pub(super) fn offer(sdp: String) -> Self {
        Self { kind: "offer".to_owned(), sdp }
    }

    pub(super) fn answer(sdp: String) -> Self {
        Self { kind: "answer".to_owned(), sdp }
    }
}

/// What a plugin answered.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) data: Value,
    pub(super) jsep: Option<Jsep>,
}

/// Which answer ends a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The first one.
    Answer,
    /// The plugin's event; an `ack` before it says only that the request was read.
    Event,
}

struct Request {
    transaction: String,
    text: String,
    until: Until,
    answer: oneshot::Sender<Incoming>,
}

#[derive(Deserialize, Debug, Default)]
struct Incoming {
    #[serde(default)]
    janus: String,
    transaction: Option<String>,
    data: Option<Created>,
    plugindata: Option<PluginData>,
    jsep: Option<Jsep>,
    error: Option<Refusal>,
}

#[derive(Deserialize, Debug)]
struct Created {
    id: u64,
}

#[derive(Deserialize, Debug)]
struct PluginData {
    data: Value,
}

#[derive(Deserialize, Debug)]
struct Refusal {
    code: u32,
    reason: String,
}

impl Link {
    pub(super) async fn connect(url: &str) -> Result<Self, JanusError> {
        let mut request = url.into_client_request().map_err(|_| JanusError::BadUrl)?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX))
            .max_write_buffer_size(MESSAGE_BYTES_MAX);
        let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
        let (socket, _) = tokio::time::timeout(ANSWER_TIMEOUT, connecting)
            .await
            .map_err(|_| JanusError::Timeout)?
            .map_err(|error| JanusError::Connect(Box::new(error)))?;
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let mut link = Self { requests, next_transaction: Arc::new(AtomicU64::new(1)), session: 0 };
        tokio::spawn(run(socket, queue));
        link.session = link.call(json!({"janus": "create"}), Until::Answer).await?.created()?;
        tokio::spawn(keep_alive(link.requests.downgrade(), link.session));
        Ok(link)
    }

    pub(super) async fn attach(&self, plugin: &str) -> Result<HandleId, JanusError> {
        let request = json!({"janus": "attach", "session_id": self.session, "plugin": plugin});
        self.call(request, Until::Answer).await?.created().map(HandleId)
    }

    /// For requests of a plugin that it answers at once (`create`, `list`).
    pub(super) async fn ask(&self, handle: HandleId, body: &Value) -> Result<Event, JanusError> {
        self.call(self.message(handle, body, None), Until::Answer).await?.event()
    }

    /// For requests of a plugin that it answers by an event (`join`, `start`).
    pub(super) async fn request(
        &self,
        handle: HandleId,
        body: &Value,
        jsep: Option<Jsep>,
    ) -> Result<Event, JanusError> {
        self.call(self.message(handle, body, jsep.as_ref()), Until::Event).await?.event()
    }

    pub(super) async fn detach(&self, handle: HandleId) -> Result<(), JanusError> {
        let request = json!({"janus": "detach", "session_id": self.session, "handle_id": handle.0});
        self.call(request, Until::Answer).await.map(drop)
    }

    pub(super) async fn destroy(&self) -> Result<(), JanusError> {
        self.call(json!({"janus": "destroy", "session_id": self.session}), Until::Answer).await.map(drop)
    }

    fn message(&self, handle: HandleId, body: &Value, jsep: Option<&Jsep>) -> Value {
        let mut message =
            json!({"janus": "message", "session_id": self.session, "handle_id": handle.0, "body": body});
        if let Some(jsep) = jsep {
            message["jsep"] = json!(jsep);
        }
        message
    }

    async fn call(&self, mut message: Value, until: Until) -> Result<Incoming, JanusError> {
        let transaction = self.next_transaction.fetch_add(1, Ordering::Relaxed).to_string();
        message["transaction"] = Value::from(transaction.as_str());
        let (answer, answered) = oneshot::channel();
        let request = Request { transaction, text: message.to_string(), until, answer };
        self.requests.send(request).await.map_err(|_| JanusError::Closed)?;
        let incoming = tokio::time::timeout(ANSWER_TIMEOUT, answered)
            .await
            .map_err(|_| JanusError::Timeout)?
            .map_err(|_| JanusError::Closed)?;
        match incoming.error {
            Some(Refusal { code, reason }) => Err(JanusError::Refused { code, reason }),
            None => Ok(incoming),
        }
    }
}

impl Incoming {
    fn created(self) -> Result<u64, JanusError> {
        self.data.map(|created| created.id).ok_or(JanusError::UnexpectedAnswer("no id of what was made"))
    }

    /// The errors of a plugin travel inside of its data.
    fn event(self) -> Result<Event, JanusError> {
        let data = self.plugindata.ok_or(JanusError::UnexpectedAnswer("no data of the plugin"))?.data;
        if let Some(code) = data["error_code"].as_u64() {
            let code = u32::try_from(code).unwrap_or(u32::MAX);
            let reason = data["error"].as_str().unwrap_or("no reason given").to_owned();
            return Err(JanusError::Refused { code, reason });
        }
        Ok(Event { data, jsep: self.jsep })
    }
}

/// Ends when all clones of the link are gone or the socket fails; whoever still waits then sees `Closed`.
async fn run(socket: WebSocketStream<MaybeTlsStream<TcpStream>>, mut queue: mpsc::Receiver<Request>) {
    let (mut sink, mut stream) = socket.split();
    let mut pending: HashMap<String, (Until, oneshot::Sender<Incoming>)> = HashMap::new();
    loop {
        tokio::select! {
            request = queue.recv() => {
                let Some(request) = request else { break };
                if pending.len() >= PENDING_MAX {
                    pending.retain(|_, (_, answer)| !answer.is_closed());
                }
                if pending.len() < PENDING_MAX {
                    pending.insert(request.transaction, (request.until, request.answer));
                }
                if sink.send(Message::text(request.text)).await.is_err() {
                    break;
                }
            }
            message = stream.next() => {
                let Some(Ok(message)) = message else { break };
                if let Message::Text(text) = message {
                    deliver(&mut pending, &text);
                }
            }
        }
    }
    _ = sink.close().await;
}

fn deliver(pending: &mut HashMap<String, (Until, oneshot::Sender<Incoming>)>, text: &str) {
    let Ok(incoming) = serde_json::from_str::<Incoming>(text) else { return };
    let Some(transaction) = incoming.transaction.as_ref() else { return };
    let Some((until, _)) = pending.get(transaction) else { return };
    if *until == Until::Event && incoming.janus == "ack" {
        return;
    }
    if let Some((_, answer)) = pending.remove(transaction) {
        _ = answer.send(incoming);
    }
}

async fn keep_alive(requests: mpsc::WeakSender<Request>, session: u64) {
    for n in 0_u64.. {
        tokio::time::sleep(KEEPALIVE_INTERVAL).await;
        let Some(requests) = requests.upgrade() else { return };
        let transaction = format!("alive{n}");
        let text = json!({"janus": "keepalive", "session_id": session, "transaction": transaction}).to_string();
        // Nobody waits for the answer.
        let (answer, _) = oneshot::channel();
        if requests.send(Request { transaction, text, until: Until::Answer, answer }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Incoming {
        serde_json::from_str(text).expect("an answer of Janus")
    }

    #[test]
    fn an_ack_does_not_end_a_request_that_waits_for_the_event() {
        let (answer, mut answered) = oneshot::channel();
        let mut pending = HashMap::from([("1".to_owned(), (Until::Event, answer))]);
        deliver(&mut pending, r#"{"janus":"ack","transaction":"1"}"#);
        assert!(answered.try_recv().is_err());
        deliver(&mut pending, r#"{"janus":"event","transaction":"1","plugindata":{"plugin":"p","data":{"room":7}}}"#);
        let event = answered.try_recv().expect("the event").event().expect("no error");
        assert_eq!(event.data["room"], 7);
        assert!(pending.is_empty());
    }

    #[test]
    fn an_ack_ends_a_request_that_has_no_event() {
        let (answer, mut answered) = oneshot::channel();
        let mut pending = HashMap::from([("t".to_owned(), (Until::Answer, answer))]);
        deliver(&mut pending, r#"{"janus":"ack","transaction":"t"}"#);
        assert!(answered.try_recv().is_ok());
    }

    #[test]
    fn an_error_of_the_plugin_is_an_error_of_the_call() {
        let text = r#"{"janus":"event","plugindata":{"plugin":"p","data":{"videoroom":"event","error_code":428,"error":"No such feed"}}}"#;
        let error = parse(text).event().expect_err("refused");
        assert!(matches!(error, JanusError::Refused { code: 428, .. }), "{error}");
    }

    #[test]
    fn noise_is_passed_over() {
        let mut pending = HashMap::new();
        for text in ["", "[]", "{", r#"{"janus":1}"#, r#"{"janus":"event","transaction":"unknown"}"#] {
            deliver(&mut pending, text);
        }
    }
}
