//! The two ways of the daemon's socket, each with only the wake-ups that it needs. The runtime's own sockets ask the reactor
//! for both at once: a daemon that writes a head and then its sound, or takes what we sent it, then wakes us once more for
//! each frame, only to say that we could write. Bytes are not its business.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// A socket that does not block, and another handle of the same.
pub(super) trait Duplicate: AsRawFd + Sized {
    fn duplicate(&self) -> std::io::Result<Self>;
}

impl Duplicate for std::os::unix::net::UnixStream {
    fn duplicate(&self) -> std::io::Result<Self> {
        self.try_clone()
    }
}

impl Duplicate for std::net::TcpStream {
    fn duplicate(&self) -> std::io::Result<Self> {
        self.try_clone()
    }
}

/// Wakes for what comes, and for nothing else.
pub(super) struct ReadHalf<S: AsRawFd>(AsyncFd<S>);

/// Writes at once, and waits for room only when there is none.
pub(super) struct WriteHalf<S: AsRawFd> {
    socket: S,
    waiting: Option<AsyncFd<S>>,
}

pub(super) fn split<S: Duplicate>(socket: S) -> std::io::Result<(ReadHalf<S>, WriteHalf<S>)> {
    let other = socket.duplicate()?;
    Ok((ReadHalf(register(socket, Interest::READABLE)?), WriteHalf { socket: other, waiting: None }))
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe: a type may lie about its descriptor. The two of Duplicate do not"
)]
fn register<S: Duplicate>(socket: S, interest: Interest) -> std::io::Result<AsyncFd<S>> {
    AsyncFd::with_interest(socket, interest)
}

impl<S: AsRawFd> AsyncRead for ReadHalf<S>
where
    for<'a> &'a S: Read,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let room = buf.initialize_unfilled();
            let Ok(outcome) = guard.try_io(|socket| socket.get_ref().read(room)) else { continue };
            match outcome {
                Ok(read) => {
                    // Less than there is room for: it is empty, and whatever comes wakes us again.
                    if read > 0 && read < room.len() {
                        guard.clear_ready();
                    }
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl<S: Duplicate + Unpin> AsyncWrite for WriteHalf<S>
where
    for<'a> &'a S: Write,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        loop {
            if let Some(waiting) = &self.waiting {
                ready!(waiting.poll_write_ready(cx))?.clear_ready();
                self.waiting = None;
            }
            match (&self.socket).write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // A handle of its own: the reactor knows the first one as the reader's.
                    self.waiting = Some(register(self.socket.duplicate()?, Interest::WRITABLE)?);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome @ (Ok(_) | Err(_)) => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Nobody ends one way alone: the connection ends when both halves are dropped.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    type Halves = (ReadHalf<UnixStream>, WriteHalf<UnixStream>);

    fn pair() -> (Halves, Halves) {
        let (near, far) = UnixStream::pair().expect("a pair");
        near.set_nonblocking(true).expect("is set");
        far.set_nonblocking(true).expect("is set");
        (split(near).expect("splits"), split(far).expect("splits"))
    }

    #[tokio::test]
    async fn more_than_the_socket_holds_arrives_in_order() {
        let ((_, mut to), (mut from, _)) = pair();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move { to.write_all(&sent).await });
        let mut received = vec![0; expected.len()];
        from.read_exact(&mut received).await.expect("reads");
        assert!(received == expected, "bytes are lost or moved");
        writing.await.expect("ends").expect("writes");
    }

    #[tokio::test]
    async fn a_reader_hears_each_message_and_the_end() {
        let ((_, mut to), (mut from, _)) = pair();
        let mut room = [0; 64];
        for n in 1..5 {
            to.write_all(&[n; 20]).await.expect("writes");
            let read = from.read(&mut room).await.expect("reads");
            assert_eq!(room[..read], [n; 20]);
        }
        drop((to, from));
        let ((near_read, to), (mut from, _)) = pair();
        let reading = tokio::spawn(async move { from.read(&mut [0; 64]).await });
        tokio::task::yield_now().await;
        drop((near_read, to));
        assert_eq!(reading.await.expect("ends").expect("reads"), 0, "the end is seen");
    }
}
