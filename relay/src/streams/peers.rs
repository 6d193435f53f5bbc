//! Connections with peers (RFC 6062): listening at a relayed address, opening, waiting to be claimed, copying. What may be
//! connected is decided by the server.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use relay_core::{ANSWER_BYTES_MAX, Action, AllocationId, CLAIM_TIME_MAX, ConnectionId, Family, PendingConnect};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::exchange::Handle;

/// Well inside the half minute that RFC 6062 gives a Connect request.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Connections of peers that the kernel keeps for one allocation.
const BACKLOG: u32 = 16;
const COPY_BYTES: usize = 8 * 1024;

/// A connection with a peer, waiting or in use.
#[derive(Debug)]
pub(super) struct PeerLink {
    pub(super) allocation: AllocationId,
    /// Until the client claims it.
    pub(super) waiting: Option<TcpStream>,
    pub(super) ended: Rc<Notify>,
}

/// All of the addresses, or none. Connections are opened from the same ones, so the port is shared.
pub(super) fn listen(
    addresses: impl Iterator<Item = (Family, SocketAddr)>,
) -> io::Result<Vec<(Family, TcpListener)>> {
    addresses.map(|(family, address)| Ok((family, socket(address)?.listen(BACKLOG)?))).collect()
}

fn socket(local: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if local.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(local)?;
    Ok(socket)
}

/// Opens what a client asked for, and tells it.
pub(super) async fn open(exchange: Handle, pending: Box<PendingConnect>) {
    let connecting = async { socket(pending.local)?.connect(pending.peer).await };
    let stream = timeout(CONNECT_TIME_MAX, connecting).await.map_err(io::Error::from).flatten().ok();
    let (client, allocation, id) = (pending.client(), pending.allocation, pending.connection);
    let mut borrowed = exchange.borrow_mut();
    let this = &mut *borrowed;
    let mut out = [0; ANSWER_BYTES_MAX];
    let action = this.server.complete_connect(Instant::now(), &pending, stream.is_some(), &mut out);
    // The client may have gone, and its number may be somebody else's.
    if let Action::Answer(len) = action
        && this.server.has_allocation(&client)
    {
        this.answer(&client, &out[..len]);
    }
    if let Some(stream) = stream.filter(|_| this.server.has_connection(id)) {
        this.keep(&exchange, id, allocation, stream);
    }
}

/// Takes connections of peers until the allocation ends.
pub(super) async fn accept(exchange: Handle, id: AllocationId, listener: TcpListener) {
    while let Ok((stream, peer)) = listener.accept().await {
        let mut borrowed = exchange.borrow_mut();
        let this = &mut *borrowed;
        let mut out = [0; ANSWER_BYTES_MAX];
        if let Some((client, connection, len)) = this.server.accept_peer(Instant::now(), id, peer, &mut out) {
            this.answer(&client, &out[..len]);
            this.keep(&exchange, connection, id, stream);
        }
    }
}

/// Closes a connection that nobody claims in time.
pub(super) async fn expire(exchange: Handle, id: ConnectionId) {
    tokio::time::sleep(CLAIM_TIME_MAX).await;
    let mut this = exchange.borrow_mut();
    if this.links.get(&id).is_some_and(|link| link.waiting.is_some()) {
        this.unlink(id);
    }
}

/// Until both have ended, or the allocation. `held` was read from the client already.
pub(super) async fn splice(
    (reader, writer): (&mut (impl AsyncRead + Unpin), &mut (impl AsyncWrite + Unpin)),
    held: &[u8],
    (mut peer, ended): (TcpStream, Rc<Notify>),
    bytes_per_s: u64,
) {
    let (mut from_peer, mut to_peer) = peer.split();
    let up = async {
        to_peer.write_all(held).await?;
        copy(reader, &mut to_peer, bytes_per_s).await?;
        to_peer.shutdown().await
    };
    let down = async {
        copy(&mut from_peer, writer, bytes_per_s).await?;
        writer.shutdown().await
    };
    tokio::select! {
        // An error of either ends both.
        _ = async { tokio::try_join!(up, down) } => {}
        () = ended.notified() => {}
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    bytes_per_s: u64,
) -> io::Result<()> {
    let mut buf = vec![0; COPY_BYTES];
    loop {
        let len = from.read(&mut buf).await?;
        if len == 0 {
            return Ok(());
        }
        to.write_all(&buf[..len]).await?;
        to.flush().await?;
        if let Some(time_us) = (len as u64 * 1_000_000).checked_div(bytes_per_s).filter(|us| *us > 1_000) {
            tokio::time::sleep(Duration::from_micros(time_us)).await;
        }
    }
}
