//! The WebSocket under a session, with every wait bounded: writes have a time limit, everything ends at once when the
//! hub cuts the session off, and an oversized message is skipped so that the error about it can be read by the client.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::MESSAGE_BYTES_MAX;

/// Allocated for each socket at once: most messages are small.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// A client that takes longer for one message does not read.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// A roster of a full room in one message, whatever its names; as much as our own clients read.
const WRITE_BUFFER_BYTES_MAX: usize = 4 * 1024 * 1024;
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// What is read and thrown away of a message that is too large.
const SKIP_BYTES_MAX: usize = 4 * 1024 * 1024;

type Cut = watch::Receiver<Option<(u16, &'static str)>>;

pub(super) enum Frame {
    Text(Utf8Bytes),
    Binary,
    /// Pings and pongs.
    Control,
}

/// Why nothing more can be read or written.
#[derive(Debug)]
pub(super) enum Gone {
    Closed,
    Lost,
    Cut(u16, &'static str),
    TooLarge,
}

#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    cut: Option<Cut>,
    /// An oversized message stands in the way of all further reads.
    too_large: bool,
}

impl Socket {
    pub async fn new(upgraded: Upgraded) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        Self { stream, cut: None, too_large: false }
    }

    pub(super) fn with_cut(self, cut: Cut) -> Self {
        Self { cut: Some(cut), ..self }
    }

    pub(super) async fn read(&mut self) -> Result<Frame, Gone> {
        let frame = tokio::select! {
            gone = cut_off(&mut self.cut) => return Err(gone),
            frame = self.stream.next() => frame,
        };
        match frame {
            Some(Ok(Message::Text(text))) => Ok(Frame::Text(text)),
            Some(Ok(Message::Binary(_))) => Ok(Frame::Binary),
            Some(Ok(Message::Close(frame))) => {
                // The answer to the close is written by the library when it is flushed.
                let _ = timeout(CLOSE_TIME_MAX, self.stream.flush()).await;
                Err(if is_goodbye(frame.as_ref()) { Gone::Closed } else { Gone::Lost })
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(Frame::Control),
            Some(Err(Error::Capacity(CapacityError::MessageTooLong { .. }))) => {
                self.too_large = true;
                Err(Gone::TooLarge)
            }
            Some(Err(_)) | None => Err(Gone::Lost),
        }
    }

    pub(super) async fn feed(&mut self, text: Utf8Bytes) -> Result<(), Gone> {
        bounded(&mut self.cut, self.stream.feed(Message::Text(text))).await
    }

    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        bounded(&mut self.cut, self.stream.flush()).await
    }

    pub(super) async fn ping(&mut self) -> Result<(), Gone> {
        bounded(&mut self.cut, self.stream.send(Message::Ping(Vec::new().into()))).await
    }

    /// Closes and waits a little for the client's side of it.
    pub(super) async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        let closing = async {
            if self.stream.close(Some(frame)).await.is_err() {
                return;
            }
            if self.too_large {
                // Closing with unread bytes would reset the connection and destroy what we just wrote.
                self.skip().await;
                return;
            }
            while let Some(Ok(_)) = self.stream.next().await {}
        };
        let _ = timeout(CLOSE_TIME_MAX, closing).await;
    }

    async fn skip(&mut self) {
        let mut buffer = vec![0; 16 * 1024];
        let mut skipped = 0;
        while let Ok(read) = self.stream.get_mut().read(&mut buffer).await {
            skipped += read;
            if read == 0 || skipped > SKIP_BYTES_MAX {
                return;
            }
        }
    }
}

/// A page that is closed or a client that is done; anything else may come back.
fn is_goodbye(frame: Option<&CloseFrame>) -> bool {
    frame.is_some_and(|frame| matches!(frame.code, CloseCode::Normal | CloseCode::Away))
}

async fn bounded(cut: &mut Option<Cut>, writing: impl Future<Output = Result<(), Error>>) -> Result<(), Gone> {
    tokio::select! {
        gone = cut_off(cut) => Err(gone),
        written = timeout(WRITE_TIME_MAX, writing) => match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone::Lost),
        },
    }
}

async fn cut_off(cut: &mut Option<Cut>) -> Gone {
    let Some(cut) = cut else { return std::future::pending().await };
    let cut = match cut.wait_for(Option::is_some).await {
        Ok(cut) => *cut,
        Err(_) => None,
    };
    // The hub dropped the session.
    cut.map_or(Gone::Lost, |(code, reason)| Gone::Cut(code, reason))
}

#[cfg(test)]
mod tests {
    use signaling_protocol::{Member, Role, Track, TrackKind};

    use super::*;
    use crate::rooms::Limits;
    use crate::tokens::{IDENTITY_CHARS_MAX, NAME_CHARS_MAX};

    #[test]
    fn the_roster_of_a_full_room_fits_into_one_message() {
        let track = |kind| Track { kind, csrc: u32::MAX, muted: false, live: false };
        let member = Member {
            peer: "p".repeat(16),
            // Six bytes as JSON, where a letter has four at most.
            identity: "\u{1}".repeat(IDENTITY_CHARS_MAX),
            name: "\u{1F600}".repeat(NAME_CHARS_MAX),
            role: Role::Moderator,
            connected: false,
            away: false,
            tracks: vec![track(TrackKind::Mic), track(TrackKind::Program)],
        };
        let roster = vec![member; Limits::default().members_max];
        let bytes = serde_json::to_string(&roster).unwrap().len();
        assert!(bytes + 64 * 1024 < WRITE_BUFFER_BYTES_MAX, "{bytes}");
    }
}
