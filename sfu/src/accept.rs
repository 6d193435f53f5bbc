//! Who may open a TCP connection to a shard's port: accepts on the control runtime, so that a flood of connections costs
//! the shard nothing, counts them by source, and hands the rest over. What they say is the shard's matter.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::net::{TcpListener, TcpSocket};

use crate::shard::{Accepted, Door};

/// Connections of one shard: each costs up to some tens of kilobytes when its peer does not read.
const CONNECTIONS_MAX: usize = 1_024;
/// Of one IPv4 address or one IPv6 /64: an office whose firewall lets no UDP out.
const CONNECTIONS_OF_SOURCE_MAX: usize = 128;
/// Connections that have not been accepted yet.
const BACKLOG: u32 = 256;
/// What the kernel holds for a peer that does not read: audio behind it would be late by the time this drains, so it
/// should be little; below this, a path of 200 ms could not carry eight voices.
const SEND_BUFFER_BYTES: u32 = 32 * 1024;
/// A peer sends some kilobytes a second.
const RECEIVE_BUFFER_BYTES: u32 = 32 * 1024;
/// After a failure that says nothing about one connection, as when all descriptors are in use.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Binds inside a tokio runtime. Accepted connections inherit the buffer sizes.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // Connections of a run before may still be in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Until it is aborted.
pub(crate) async fn accept(listener: TcpListener, door: Door, refused: Counter) {
    let census = Arc::new(Census::default());
    loop {
        let Ok((stream, remote)) = listener.accept().await else {
            tokio::time::sleep(RETRY_DELAY).await;
            continue;
        };
        // A socket for both families names IPv4 peers as IPv6.
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let Some(ticket) = census.admit(remote.ip()) else {
            refused.inc();
            continue;
        };
        // Audio is many small writes that must not wait for each other.
        let prepared = stream.set_nodelay(true).and_then(|()| stream.into_std());
        if prepared.is_err() || prepared.is_ok_and(|stream| !door.hand_over(Accepted { stream, remote, ticket })) {
            refused.inc();
        }
    }
}

/// Counts open connections. The lock is taken when one begins or ends, never for a packet.
#[derive(Debug, Default)]
pub(crate) struct Census {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// A connection's place among those allowed; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    census: Arc<Census>,
    source: IpAddr,
}

impl Census {
    pub(crate) fn admit(self: &Arc<Self>, remote: IpAddr) -> Option<Ticket> {
        let source = source_of(remote);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_source = open.by_source.get(&source).copied().unwrap_or_default();
        if open.all >= CONNECTIONS_MAX || of_source >= CONNECTIONS_OF_SOURCE_MAX {
            return None;
        }
        open.all += 1;
        open.by_source.insert(source, of_source + 1);
        Some(Ticket { census: Arc::clone(self), source })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.census.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(count) = open.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

/// Whoever has an IPv6 address has a /64 of them.
fn source_of(remote: IpAddr) -> IpAddr {
    match remote {
        IpAddr::V4(_) => remote,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(census: &Arc<Census>, remote: &str) -> Option<Ticket> {
        census.admit(remote.parse().unwrap())
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let census = Arc::new(Census::default());
        let taken: Vec<_> = (0..CONNECTIONS_OF_SOURCE_MAX).map(|_| admit(&census, "192.0.2.1").unwrap()).collect();
        assert!(admit(&census, "192.0.2.1").is_none());
        assert!(admit(&census, "192.0.2.2").is_some());
        drop(taken);
        assert!(admit(&census, "192.0.2.1").is_some());
        assert_eq!(census.open.lock().unwrap().by_source.len(), 0, "nothing is kept of who has gone");
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let census = Arc::new(Census::default());
        let addresses = (0..CONNECTIONS_OF_SOURCE_MAX).map(|n| format!("2001:db8::{n:x}"));
        let _taken: Vec<_> = addresses.map(|address| admit(&census, &address).unwrap()).collect();
        assert!(admit(&census, "2001:db8::ffff:1").is_none());
        assert!(admit(&census, "2001:db8:0:1::1").is_some());
    }

    #[test]
    fn all_sources_together_have_an_end() {
        let census = Arc::new(Census::default());
        let taken: Vec<_> =
            (0..CONNECTIONS_MAX).filter_map(|n| admit(&census, &format!("10.0.{}.1", n % 256))).collect();
        assert_eq!(taken.len(), CONNECTIONS_MAX);
        assert!(admit(&census, "192.0.2.1").is_none());
    }
}
