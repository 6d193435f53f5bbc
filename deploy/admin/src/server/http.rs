//! A plain HTTP/1 server with every limit set: connections, time and size of the headers, size of the body. Upgrades
//! (WebSocket) leave these limits behind and must bring their own.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tower::ServiceExt;
use tower_http::limit::RequestBodyLimitLayer;

/// Rest after a failed accept (most often: out of file descriptors), so that the loop cannot spin.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long requests that are being answered may take after [`Server::stop`].
const STOP_GRACE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections, upgraded ones not counted. Others wait in the accept queue of the kernel.
    pub connections_max: usize,
    pub header_bytes_max: usize,
    /// From the first byte of a request to the end of its headers; also ends idle keep-alive connections.
    pub header_time_max: Duration,
    pub body_bytes_max: usize,
}

impl Default for Limits {
    /// For ports that operators and other processes of the project use: few clients, small requests.
    fn default() -> Self {
        Self {
            connections_max: 256,
            header_bytes_max: 16 * 1024,
            header_time_max: Duration::from_secs(10),
            body_bytes_max: 64 * 1024,
        }
    }
}

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Takes no more connections and waits, for a bounded time, until open requests are answered.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        if (&mut self.task).await.is_err_and(|e| e.is_panic()) {
            tracing::error!(address = %self.local_addr, "HTTP server had panicked");
        }
    }
}

/// Serves `router` on `listener`. Handlers can take `ConnectInfo<SocketAddr>`.
pub fn serve_router(listener: TcpListener, router: Router, limits: Limits) -> std::io::Result<Server> {
    let local_addr = listener.local_addr()?;
    let router = router.layer(RequestBodyLimitLayer::new(limits.body_bytes_max));
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(accept(listener, router, limits, stopped));
    Ok(Server { local_addr, stop: Some(stop), task })
}

async fn accept(listener: TcpListener, router: Router, limits: Limits, mut stopped: oneshot::Receiver<()>) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let (open, stopping) = watch::channel(());
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (listener.accept().await, place)
        };
        tokio::select! {
            _ = &mut stopped => break,
            (accepted, place) = next => match accepted {
                Ok((stream, remote)) => spawn_connection(stream, remote, &router, &limits, stopping.clone(), place),
                Err(error) => {
                    tracing::warn!(%error, "Could not accept a connection");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
        }
    }
    drop((listener, stopping));
    open.send_replace(());
    // Each connection holds a receiver.
    if tokio::time::timeout(STOP_GRACE, open.closed()).await.is_err() {
        tracing::debug!("Left connections open at the end");
    }
}

fn spawn_connection(
    stream: TcpStream,
    remote: SocketAddr,
    router: &Router,
    limits: &Limits,
    mut stopping: watch::Receiver<()>,
    place: Option<OwnedSemaphorePermit>,
) {
    // Small answers and WebSocket messages must not wait for an acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "Could not switch off Nagle's algorithm");
    }
    let router = router.clone().map_request(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(remote));
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time_max)
        .max_buf_size(limits.header_bytes_max)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    tokio::spawn(async move {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            _ = stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(%error, "Connection ended badly");
        }
        drop(place);
    });
}
