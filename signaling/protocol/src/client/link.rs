//! The task that owns the socket: writes requests, gives answers to whoever waits for them and everything else to the
//! message channel.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::Closed;
use crate::{ClientMessage, ServerMessage};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The server pings every 20 s: three missed mean that the path is dead.
const SILENCE_MAX: Duration = Duration::from_secs(65);
/// A write that takes longer means that the server does not read.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// For the closing handshake.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// Answers awaited at a time. Those whose caller gave up are cleared when it is reached.
const WAITING_MAX: usize = 256;

#[derive(Debug)]
pub(super) enum Request {
    Call { id: u64, message: Box<ClientMessage>, answer: oneshot::Sender<ServerMessage> },
    Text(String),
    Close,
}

pub(super) async fn run(
    socket: Socket,
    mut requests: mpsc::Receiver<Request>,
    messages: mpsc::Sender<ServerMessage>,
    closed: watch::Sender<Option<Closed>>,
) {
    let mut link = Link { socket, messages, waiting: HashMap::new() };
    let reason = link.serve(&mut requests).await;
    tracing::debug!(%reason, "Connection to signaling ended");
    // First the reason, then the queues: whoever sees a queue end can ask for it.
    closed.send_replace(Some(reason));
}

struct Link {
    socket: Socket,
    messages: mpsc::Sender<ServerMessage>,
    waiting: HashMap<u64, oneshot::Sender<ServerMessage>>,
}

impl Link {
    async fn serve(&mut self, requests: &mut mpsc::Receiver<Request>) -> Closed {
        let mut last_heard = Instant::now();
        loop {
            let step = tokio::select! {
                frame = self.socket.next() => {
                    last_heard = Instant::now();
                    match frame {
                        Some(Ok(frame)) => self.handle_frame(frame),
                        Some(Err(_)) | None => Err(Closed::Lost),
                    }
                }
                request = requests.recv() => self.handle_request(request).await,
                () = sleep_until(last_heard + SILENCE_MAX) => Err(Closed::Silent),
            };
            if let Err(reason) = step {
                if matches!(reason, Closed::Local | Closed::Lagged) {
                    let _ = timeout(CLOSE_TIME_MAX, self.socket.close(None)).await;
                }
                return reason;
            }
        }
    }

    fn handle_frame(&mut self, frame: Message) -> Result<(), Closed> {
        match frame {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(message) => self.handle_message(message),
                Err(error) => {
                    // A newer server may send kinds that we do not know.
                    tracing::debug!(%error, "Ignored a message from signaling");
                    Ok(())
                }
            },
            Message::Close(frame) => Err(remote_close(frame)),
            // Pings are answered by the WebSocket library when it is polled next.
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
        }
    }

    fn handle_message(&mut self, message: ServerMessage) -> Result<(), Closed> {
        match message.re().and_then(|re| self.waiting.remove(&re)) {
            Some(waiting) => {
                let _ = waiting.send(message);
                Ok(())
            }
            None => match self.messages.try_send(message) {
                // Nobody reads messages any more: calls may still go on.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
                Err(mpsc::error::TrySendError::Full(_)) => Err(Closed::Lagged),
            },
        }
    }

    async fn handle_request(&mut self, request: Option<Request>) -> Result<(), Closed> {
        let text = match request {
            None | Some(Request::Close) => return Err(Closed::Local),
            Some(Request::Text(text)) => text,
            Some(Request::Call { id, message, answer }) => {
                if self.waiting.len() >= WAITING_MAX {
                    self.waiting.retain(|_, answer| !answer.is_closed());
                }
                if self.waiting.len() >= WAITING_MAX {
                    return Ok(());
                }
                // Cannot fail: the messages hold only strings, numbers and JSON values.
                let Ok(text) = serde_json::to_string(&message) else { return Ok(()) };
                self.waiting.insert(id, answer);
                text
            }
        };
        match timeout(WRITE_TIME_MAX, self.socket.send(Message::text(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.reason_of_failed_write().await),
            Err(_) => Err(Closed::Silent),
        }
    }

    /// A server that refuses us closes while we write: what it said is still to be read.
    async fn reason_of_failed_write(&mut self) -> Closed {
        let drained = timeout(CLOSE_TIME_MAX, async {
            while let Some(Ok(frame)) = self.socket.next().await {
                if let Err(reason) = self.handle_frame(frame) {
                    return reason;
                }
            }
            Closed::Lost
        });
        drained.await.unwrap_or(Closed::Lost)
    }
}

fn remote_close(frame: Option<CloseFrame>) -> Closed {
    match frame {
        Some(frame) => Closed::Remote { code: frame.code.into(), reason: frame.reason.to_string() },
        // 1005: no status received (RFC 6455 section 7.4.1).
        None => Closed::Remote { code: 1005, reason: String::new() },
    }
}
