//! A TCP stream whose first bytes were looked at and are read again: how STUN, TURN and TLS share a port.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(super) struct Rewound {
    head: Vec<u8>,
    inner: TcpStream,
}

impl Rewound {
    pub(super) fn new(inner: TcpStream) -> Self {
        Self { head: Vec::new(), inner }
    }

    /// What was looked at and not skipped.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Waits for more bytes to look at, `max` at most in all.
    pub(super) async fn look(&mut self, max: usize) -> io::Result<()> {
        let room = max.saturating_sub(self.head.len()) as u64;
        match (&mut self.inner).take(room).read_buf(&mut self.head).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// These many of the bytes looked at are not read again.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.head.drain(..bytes);
    }
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let len = self.head.len().min(buf.remaining());
        buf.put_slice(&self.head[..len]);
        self.head.drain(..len);
        if self.head.is_empty() {
            self.head = Vec::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
