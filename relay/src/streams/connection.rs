//! One connection over TCP: whose it is (PROXY protocol), whether it is TLS or plain, then messages both ways until it
//! ends. Each step has a time limit, and nothing that a client sends makes it hold more than one message.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_core::{AddressRange, Client, ConnectionId, Cut, Link, cut};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::exchange::{Handle, Unread, handle_message};
use super::outbox::Outbox;
use super::peers;
use super::places::Place;
use super::proxy;
use super::rewound::Rewound;
use crate::worker::DATAGRAM_BYTES_MAX;

/// From a connection to its first byte, through the PROXY header.
const FIRST_BYTE_TIME_MAX: Duration = Duration::from_secs(10);
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// From the first byte of a message to its last: a minute of audio would fit through the worst line in that time.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(10);
/// Without an allocation. A client allocates within a round trip or two.
const UNALLOCATED_TIME_MAX: Duration = Duration::from_secs(60);
/// How often a silent connection is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A client that takes nothing for so long is gone.
const WRITE_TIME_MAX: Duration = Duration::from_secs(20);
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);

const READ_BYTES: usize = 4 * 1024;
/// The longest message that can be relayed: a datagram in a Send indication with an IPv6 peer.
const MESSAGE_BYTES_MAX: usize = DATAGRAM_BYTES_MAX + 64;
/// Requests are far shorter, and before an allocation there is nothing but requests.
const REQUEST_BYTES_MAX: usize = 2 * 1024;

/// The first byte of a TLS record with a handshake. No STUN method of ours begins so, nor does channel data.
const TLS_HANDSHAKE: u8 = 0x16;

/// What connections are met with.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) exchange: Handle,
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Who begins its connections with a PROXY header.
    pub(super) balancers: Vec<AddressRange>,
}

impl Door {
    pub(super) fn is_balancer(&self, remote: SocketAddr) -> bool {
        self.balancers.iter().any(|range| range.contains(remote.ip()))
    }
}

/// Until the connection ends; the place is free then.
pub(super) async fn serve(door: Rc<Door>, stream: TcpStream, remote: SocketAddr, mut place: Place) {
    let mut stream = Rewound::new(stream);
    let Ok(Ok(client)) = timeout(FIRST_BYTE_TIME_MAX, begin(&door, &mut stream, remote)).await else {
        door.exchange.borrow_mut().counters.stream_failed += 1;
        return;
    };
    if client != remote {
        let Some(changed) = place.change_source(client.ip()) else {
            door.exchange.borrow_mut().counters.stream_refused += 1;
            return;
        };
        place = changed;
    }
    if stream.head().first() != Some(&TLS_HANDSHAKE) {
        talk(&door.exchange, stream, client).await;
    } else if let Some(tls) = &door.tls {
        match timeout(HANDSHAKE_TIME_MAX, TlsAcceptor::from(Arc::clone(tls)).accept(stream)).await {
            Ok(Ok(stream)) => talk(&door.exchange, stream, client).await,
            Ok(Err(_)) | Err(_) => door.exchange.borrow_mut().counters.stream_failed += 1,
        }
    }
    drop(place);
}

/// Whose connection it is; at least one byte of what follows lies in the head.
async fn begin(door: &Door, stream: &mut Rewound, remote: SocketAddr) -> io::Result<SocketAddr> {
    let mut client = remote;
    if door.is_balancer(remote) {
        loop {
            stream.look(proxy::HEADER_BYTES_MAX).await?;
            match proxy::parse(stream.head()).map_err(io::Error::other)? {
                proxy::Header::Incomplete => {}
                proxy::Header::Complete { consumed, client: named } => {
                    stream.skip(consumed);
                    client = named.map_or(remote, canonical);
                    break;
                }
            }
        }
    }
    if stream.head().is_empty() {
        stream.look(1).await?;
    }
    Ok(client)
}

/// IPv4 as such, whatever the family of the listener.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn talk(exchange: &Handle, stream: impl AsyncRead + AsyncWrite, address: SocketAddr) {
    let (connection, outbox) = exchange.borrow_mut().open();
    let client = Client { address, link: Link::Stream { connection } };
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut intake = Intake::default();
    let mut joined = None;
    {
        let mut speaking = pin!(speak(&outbox, &mut writer));
        tokio::select! {
            id = listen(exchange, client, &mut reader, &mut intake) => joined = id,
            () = &mut speaking => {}
        }
        if joined.is_some() {
            // The answer goes out whole before bytes of the peer follow it.
            outbox.finish();
            speaking.await;
        }
    }
    if let Some(id) = joined {
        let (peer, bytes_per_s) = {
            let mut exchange = exchange.borrow_mut();
            (exchange.claim(id), exchange.bytes_per_s())
        };
        if let Some(peer) = peer {
            peers::splice((&mut reader, &mut writer), &intake.held, peer, bytes_per_s).await;
        }
        exchange.borrow_mut().unlink(id);
    }
    exchange.borrow_mut().close(&client);
    // The end of TLS is said, not only done.
    let _ = timeout(GOODBYE_TIME_MAX, writer.shutdown()).await;
}

async fn speak(outbox: &Outbox, writer: &mut WriteHalf<impl AsyncWrite>) {
    let mut taken = Vec::new();
    loop {
        if !outbox.take(&mut taken).await {
            return;
        }
        let write = async {
            writer.write_all(&taken).await?;
            writer.flush().await
        };
        if !matches!(timeout(WRITE_TIME_MAX, write).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Until the connection ends or becomes that of a peer.
async fn listen(
    exchange: &Handle,
    client: Client,
    reader: &mut ReadHalf<impl AsyncRead>,
    intake: &mut Intake,
) -> Option<ConnectionId> {
    let mut allocated_at = Instant::now();
    loop {
        intake.held.reserve(READ_BYTES);
        match timeout(LOOK_INTERVAL, reader.read_buf(&mut intake.held)).await {
            Ok(Ok(1..)) | Err(_) => {}
            Ok(Ok(0) | Err(_)) => return None,
        }
        let now = Instant::now();
        let joined = Cell::new(None);
        let is_allocated = Cell::new(exchange.borrow().has_allocation(&client));
        let taken = intake.take(
            now,
            || if is_allocated.get() { MESSAGE_BYTES_MAX } else { REQUEST_BYTES_MAX },
            |message| {
                let handled = handle_message(exchange, now, client, message);
                is_allocated.set(exchange.borrow().has_allocation(&client));
                match handled {
                    Ok(None) => Ok(Next::Message),
                    Ok(Some(id)) => {
                        joined.set(Some(id));
                        Ok(Next::Raw)
                    }
                    Err(Unread) => Err(End),
                }
            },
        );
        if taken.is_err() {
            exchange.borrow_mut().counters.stream_failed += 1;
            return None;
        }
        if joined.get().is_some() {
            return joined.get();
        }
        if is_allocated.get() {
            allocated_at = now;
        } else if now.duration_since(allocated_at) > UNALLOCATED_TIME_MAX {
            return None;
        }
    }
}

/// What was read and is no whole message yet.
#[derive(Debug, Default)]
struct Intake {
    held: Vec<u8>,
    /// Bytes of a message that is too long to be relayed, which are read and forgotten.
    skip: usize,
    /// When the message began that is not whole yet.
    begun: Option<Instant>,
}

/// The connection cannot go on.
#[derive(Debug, PartialEq, Eq)]
struct End;

/// What follows a message.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Message,
    /// Bytes for a peer, which stay where they are.
    Raw,
}

impl Intake {
    /// Gives each whole message away, in order.
    fn take(
        &mut self,
        now: Instant,
        bytes_max: impl Fn() -> usize,
        mut on_message: impl FnMut(&[u8]) -> Result<Next, End>,
    ) -> Result<(), End> {
        let mut at = 0;
        loop {
            let skipped = self.skip.min(self.held.len() - at);
            (at, self.skip) = (at + skipped, self.skip - skipped);
            match cut(&self.held[at..]).map_err(|_| End)? {
                Cut::Message { message, consumed } if consumed <= bytes_max() => {
                    let next = on_message(&self.held[at..at + message])?;
                    at += consumed;
                    self.begun = None;
                    if next == Next::Raw {
                        break;
                    }
                }
                Cut::Incomplete(wanted) if wanted <= bytes_max() => break,
                Cut::Message { consumed: bytes, .. } | Cut::Incomplete(bytes) => {
                    // An allocated client may say more than a datagram holds; a stranger may not.
                    if bytes_max() < MESSAGE_BYTES_MAX {
                        return Err(End);
                    }
                    self.skip = bytes;
                }
            }
            if self.held.len() == at {
                break;
            }
        }
        self.held.drain(..at);
        let is_partial = !self.held.is_empty() || self.skip > 0;
        self.begun = if is_partial { self.begun.or(Some(now)) } else { None };
        match self.begun {
            Some(begun) if now.duration_since(begun) > MESSAGE_TIME_MAX => Err(End),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel_data(bytes: usize) -> Vec<u8> {
        let mut message = vec![0x40, 1];
        message.extend((bytes as u16).to_be_bytes());
        message.resize((4 + bytes).next_multiple_of(4), 7);
        message
    }

    fn take(intake: &mut Intake, now: Instant, bytes_max: usize) -> Result<Vec<usize>, End> {
        let mut lengths = Vec::new();
        intake.take(
            now,
            || bytes_max,
            |message| {
                lengths.push(message.len());
                Ok(Next::Message)
            },
        )?;
        Ok(lengths)
    }

    #[test]
    fn what_no_datagram_holds_is_skipped_and_the_stream_stays_in_step() {
        let mut intake = Intake::default();
        let wire = [channel_data(3), channel_data(60_000), channel_data(5)].concat();
        let mut lengths = Vec::new();
        for chunk in wire.chunks(1_000) {
            intake.held.extend(chunk);
            lengths.extend(take(&mut intake, Instant::now(), MESSAGE_BYTES_MAX).expect("in step"));
            assert!(intake.held.len() < MESSAGE_BYTES_MAX);
        }
        assert_eq!(lengths, [7, 9]);
    }

    #[test]
    fn s13_a_stranger_cannot_make_us_wait_for_a_long_message() {
        let mut intake = Intake { held: channel_data(60_000)[..100].to_vec(), ..Intake::default() };
        assert_eq!(take(&mut intake, Instant::now(), REQUEST_BYTES_MAX), Err(End));
    }

    #[test]
    fn s13_half_a_message_has_a_time_limit_however_it_trickles() {
        let mut intake = Intake::default();
        let start = Instant::now();
        for second in 0..=MESSAGE_TIME_MAX.as_secs() {
            intake.held.push(if second == 0 { 0x40 } else { 1 });
            assert_eq!(take(&mut intake, start + Duration::from_secs(second), MESSAGE_BYTES_MAX), Ok(vec![]));
        }
        let late = start + MESSAGE_TIME_MAX + Duration::from_secs(1);
        assert_eq!(take(&mut intake, late, MESSAGE_BYTES_MAX), Err(End));
    }

    #[test]
    fn a_message_may_follow_another_at_any_time() {
        let mut intake = Intake::default();
        let start = Instant::now();
        for minute in 0..10 {
            intake.held.extend(channel_data(4));
            intake.held.extend(&channel_data(4)[..2]);
            assert_eq!(take(&mut intake, start + Duration::from_secs(60 * minute), MESSAGE_BYTES_MAX), Ok(vec![8]));
            intake.held.extend(&channel_data(4)[2..]);
            assert_eq!(
                take(&mut intake, start + Duration::from_secs(60 * minute + 1), MESSAGE_BYTES_MAX),
                Ok(vec![8])
            );
        }
    }
}
