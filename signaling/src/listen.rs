//! The accept loops of the public ports, plain and TLS: how many connections there may be in all and from one address,
//! how long a TLS handshake and the headers of a request may take, and how large they may be. `axum::serve` sets none
//! of these.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tower_http::limit::RequestBodyLimitLayer;

use crate::metrics::Metrics;

/// Also ends idle keep-alive connections.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);
/// hyper's buffer for the head of a request; a token is never in it.
const HEADER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// No route takes a body.
const BODY_BYTES_MAX: usize = 16 * 1024;
const TLS_TIME_MAX: Duration = Duration::from_secs(10);
/// Rest after a failed accept (most often: out of file descriptors), so that the loop cannot spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Bounds over all listeners of the process.
#[derive(Debug)]
pub struct Connections {
    max: usize,
    per_address_max: usize,
    open: Mutex<Open>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One of the allowed connections, until it is dropped.
#[derive(Debug)]
pub struct ConnectionPlace {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Connections {
    #[must_use]
    pub fn new(max: usize, per_address_max: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { max, per_address_max, open: Mutex::default(), metrics })
    }

    /// `None` when there are too many.
    fn take(self: &Arc<Self>, remote: SocketAddr) -> Option<Arc<ConnectionPlace>> {
        let address = network_of(remote.ip());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.max {
            self.metrics.refused("connections");
            return None;
        }
        let here = open.by_address.entry(address).or_default();
        if *here >= self.per_address_max {
            self.metrics.refused("address");
            return None;
        }
        *here += 1;
        open.all += 1;
        drop(open);
        Some(Arc::new(ConnectionPlace { connections: Arc::clone(self), address }))
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(here) = open.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// One customer has a whole /64 in IPv6.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

/// Serves until `stop` changes. Upgraded connections go on by themselves.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    connections: Arc<Connections>,
    mut stop: watch::Receiver<bool>,
) {
    let router = router.layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX));
    loop {
        let (stream, remote) = tokio::select! {
            _ = stop.changed() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "Could not accept a connection");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            },
        };
        // Closed without a word: an answer would cost what the limit is there to save.
        let Some(place) = connections.take(remote) else { continue };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "Could not switch off Nagle's algorithm");
        }
        tokio::spawn(serve_stream(stream, tls.clone(), router.clone(), place, stop.clone()));
    }
}

async fn serve_stream(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    place: Arc<ConnectionPlace>,
    stop: watch::Receiver<bool>,
) {
    match tls {
        None => serve_connection(stream, router, place, stop).await,
        Some(tls) => match tokio::time::timeout(TLS_TIME_MAX, tls.accept(stream)).await {
            Ok(Ok(stream)) => serve_connection(stream, router, place, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
            Err(_) => tracing::debug!("TLS handshake took too long"),
        },
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    place: Arc<ConnectionPlace>,
    mut stop: watch::Receiver<bool>,
) {
    let router = router.map_request(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Arc::clone(&place));
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "Connection ended badly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn places_are_bounded_by_address_and_in_all() {
        let connections = Connections::new(3, 2, Arc::default());
        let first = connections.take(remote("192.0.2.1")).unwrap();
        let _second = connections.take(remote("::ffff:192.0.2.1")).unwrap();
        assert!(connections.take(remote("192.0.2.1")).is_none());
        let _third = connections.take(remote("2001:db8::1")).unwrap();
        assert!(connections.take(remote("2001:db8:1::1")).is_none());
        drop(first);
        let _fourth = connections.take(remote("2001:db8::ffff")).unwrap();
        assert!(connections.take(remote("192.0.2.9")).is_none());
    }

    #[test]
    fn nothing_is_kept_of_closed_connections() {
        let connections = Connections::new(3, 2, Arc::default());
        drop(connections.take(remote("192.0.2.1")).unwrap());
        let open = connections.open.lock().unwrap();
        assert!(open.by_address.is_empty() && open.all == 0);
    }
}
