//! Rust client of the protocol: one WebSocket, typed calls that match their answers, and a channel of everything else.
//!
//! It neither reconnects nor keeps a roster nor knows SDP: when the channel ends the caller decides, with the last
//! [`Welcome::resume`] in hand. All queues are bounded; a caller that does not read its messages loses the connection
//! (a roster with holes would be worse).

mod link;
mod trust;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::Connector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::{ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self};

use crate::{ClientMessage, MediaUse, ProtocolError, SUBPROTOCOL, ServerMessage, TrackKind, Welcome};

pub use trust::{CertificateFault, Trust, TrustError};

/// Messages that the caller has not read yet. A room of 1,000 sends one line each when everybody comes at once.
const MESSAGES_MAX: usize = 1024;
/// Requests on their way to the socket; more callers than this wait.
const REQUESTS_MAX: usize = 64;
/// Larger than any answer: the answer to an offer of 64 m-lines has about 40 KiB, a roster of 1,000 about 300 KiB.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// How to reach the server.
#[derive(Clone, Debug)]
pub struct Options {
    pub trust: Trust,
    /// Sent as `Origin`; native programs leave it out.
    pub origin: Option<String>,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trust: Trust::System,
            origin: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
        }
    }
}

/// What proves who we are.
#[derive(Clone)]
pub enum Credential {
    /// A JWT.
    Token(String),
    /// [`Welcome::resume`] of the connection that was lost.
    Resume(String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::Resume(_) => "Resume(..)",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("address is not a ws:// or wss:// URL")]
    BadUrl,
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    #[error("connection failed")]
    Connect(#[source] Box<tungstenite::Error>),
    /// The server answered the upgrade with an HTTP error.
    #[error("server refused the connection with HTTP {status}")]
    Http { status: u16, error: Option<ProtocolError> },
    /// The server answered the request with an error.
    #[error(transparent)]
    Refused(#[from] ProtocolError),
    #[error("no answer in time")]
    Timeout,
    #[error("connection is closed ({0})")]
    Closed(Closed),
    #[error("server answered with a message of another kind")]
    UnexpectedAnswer,
}

impl ClientError {
    /// The code of the server's error, when it sent one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        if let Self::Refused(error) | Self::Http { error: Some(error), .. } = self { Some(&error.code) } else { None }
    }
}

/// Why the connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("closed by us")]
    Local,
    #[error("server sent close {code}: {reason}")]
    Remote { code: u16, reason: String },
    #[error("transport lost")]
    Lost,
    #[error("nothing heard from the server, not even a ping")]
    Silent,
    #[error("messages were not read in time")]
    Lagged,
}

/// Handle of one connection; clones share it. The connection ends when all are dropped.
#[derive(Clone, Debug)]
pub struct Client {
    requests: mpsc::Sender<link::Request>,
    closed: watch::Receiver<Option<Closed>>,
    next_id: Arc<AtomicU64>,
    request_timeout: Duration,
}

impl Client {
    /// Opens the socket. Nothing is sent yet: call [`hello`](Self::hello) within 5 s.
    pub async fn connect(url: &str, options: &Options) -> Result<(Self, mpsc::Receiver<ServerMessage>), ClientError> {
        let request = upgrade_request(url, options)?;
        let connector = match request.uri().scheme_str() {
            Some("wss") => Connector::Rustls(options.trust.client_config()?),
            _ => Connector::Plain,
        };
        // Small read buffer: it is allocated at once, and load tests hold thousands of these.
        let config = WebSocketConfig::default()
            .read_buffer_size(8 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(MESSAGE_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connecting =
            tokio_tungstenite::connect_async_tls_with_config(request, Some(config), true, Some(connector));
        let (socket, _) = tokio::time::timeout(options.connect_timeout, connecting)
            .await
            .map_err(|_| ClientError::Timeout)?
            .map_err(connect_error)?;

        let (requests, request_queue) = mpsc::channel(REQUESTS_MAX);
        let (messages, message_queue) = mpsc::channel(MESSAGES_MAX);
        let (closed_writer, closed) = watch::channel(None);
        tokio::spawn(link::run(socket, request_queue, messages, closed_writer));
        let client =
            Self { requests, closed, next_id: Arc::new(AtomicU64::new(1)), request_timeout: options.request_timeout };
        Ok((client, message_queue))
    }

    pub async fn hello(&self, credential: Credential, name: Option<String>) -> Result<Welcome, ClientError> {
        let (token, resume) = match credential {
            Credential::Token(token) => (Some(token), None),
            Credential::Resume(resume) => (None, Some(resume)),
        };
        let hello = |id| ClientMessage::Hello { id, token, resume, name, protocol: None };
        let ServerMessage::Welcome(welcome) = self.call(hello).await? else {
            return Err(ClientError::UnexpectedAnswer);
        };
        Ok(*welcome)
    }

    /// Answers with the answer's SDP.
    pub async fn offer(&self, sdp: String, media: Vec<MediaUse>) -> Result<String, ClientError> {
        let ServerMessage::Answer { sdp, .. } = self.call(|id| ClientMessage::Offer { id, sdp, media }).await? else {
            return Err(ClientError::UnexpectedAnswer);
        };
        Ok(sdp)
    }

    /// `peer`: somebody else's track, for moderators.
    pub async fn mute(&self, track: TrackKind, muted: bool, peer: Option<String>) -> Result<(), ClientError> {
        self.call_ok(|id| ClientMessage::Mute { id, track, muted, peer }).await
    }

    pub async fn signal(&self, to: Option<String>, data: serde_json::Value) -> Result<(), ClientError> {
        self.call_ok(|id| ClientMessage::Signal { id, to, data }).await
    }

    pub async fn evict(&self, peer: String) -> Result<(), ClientError> {
        self.call_ok(|id| ClientMessage::Evict { id, peer }).await
    }

    /// Ends the participation; the server closes the socket afterwards.
    pub async fn leave(&self) -> Result<(), ClientError> {
        self.call_ok(|id| ClientMessage::Leave { id }).await
    }

    /// Closes the socket without leaving: the participation can be resumed.
    pub async fn close(&self) {
        if self.requests.send(link::Request::Close).await.is_ok() {
            self.closed().await;
        }
    }

    /// Any text as it is: what tests of the server need.
    pub async fn send_text(&self, text: String) -> Result<(), ClientError> {
        self.requests.send(link::Request::Text(text)).await.map_err(|_| self.closed_error())
    }

    /// Waits for the end of the connection and says why.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.closed.clone();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Closed::Lost),
            Err(_) => Closed::Lost,
        }
    }

    /// One request of any kind and its answer.
    pub async fn call(&self, message: impl FnOnce(u64) -> ClientMessage) -> Result<ServerMessage, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let request = link::Request::Call { id, message: Box::new(message(id)), answer };
        let exchange = async {
            self.requests.send(request).await.map_err(|_| self.closed_error())?;
            answered.await.map_err(|_| self.closed_error())
        };
        let answer =
            tokio::time::timeout(self.request_timeout, exchange).await.map_err(|_| ClientError::Timeout)??;
        if let ServerMessage::Error { error, .. } = answer { Err(ClientError::Refused(error)) } else { Ok(answer) }
    }

    async fn call_ok(&self, message: impl FnOnce(u64) -> ClientMessage) -> Result<(), ClientError> {
        let ServerMessage::Ok { .. } = self.call(message).await? else { return Err(ClientError::UnexpectedAnswer) };
        Ok(())
    }

    fn closed_error(&self) -> ClientError {
        ClientError::Closed(self.closed.borrow().clone().unwrap_or(Closed::Lost))
    }
}

fn upgrade_request(url: &str, options: &Options) -> Result<tungstenite::handshake::client::Request, ClientError> {
    let mut request = url.into_client_request().map_err(|_| ClientError::BadUrl)?;
    if !matches!(request.uri().scheme_str(), Some("ws" | "wss")) {
        return Err(ClientError::BadUrl);
    }
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Some(origin) = &options.origin {
        request.headers_mut().insert(ORIGIN, origin.parse().map_err(|_| ClientError::BadUrl)?);
    }
    Ok(request)
}

fn connect_error(error: tungstenite::Error) -> ClientError {
    if let tungstenite::Error::Io(io) = &error
        && let Some(fault) = CertificateFault::of(io)
    {
        return fault.into();
    }
    let tungstenite::Error::Http(response) = error else { return ClientError::Connect(Box::new(error)) };
    ClientError::Http {
        status: response.status().as_u16(),
        error: response.body().as_ref().and_then(|body| serde_json::from_slice(body).ok()),
    }
}
