//! Which relays can serve new clients. Each is asked every few seconds by a task of its own; a relay nobody has asked yet
//! counts as good, so that a broker that has just started sends nobody away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rand::TryRngCore;
use stun::{Class, Message, Method, TransactionId, Writer};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::AbortHandle;

use super::turn_url::{Check, RelayEntry, TurnUrl};

/// A relay that ends is out of answers within two of these.
const INTERVAL: Duration = Duration::from_secs(2);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// One lost datagram is no verdict.
const FAILURES_UNTIL_DOWN: u8 = 2;
/// A Binding request, and an answer with two addresses and a long SOFTWARE.
const DATAGRAM_BYTES_MAX: usize = 1_500;

/// A relay and what is known of it.
#[derive(Debug)]
pub(crate) struct Relay {
    entry: RelayEntry,
    failures: Arc<AtomicU8>,
    task: Option<AbortHandle>,
}

impl Relay {
    /// Must be called inside a tokio runtime when the entry has a check.
    pub(crate) fn start(entry: RelayEntry) -> Self {
        let failures = Arc::new(AtomicU8::new(0));
        let task = (entry.check != Check::None)
            .then(|| tokio::spawn(watch(entry.clone(), Arc::clone(&failures))).abort_handle());
        Self { entry, failures, task }
    }

    pub(crate) fn entry(&self) -> &RelayEntry {
        &self.entry
    }

    pub(crate) fn urls(&self) -> &[TurnUrl] {
        &self.entry.urls
    }

    pub(crate) fn is_good(&self) -> bool {
        self.failures.load(Ordering::Relaxed) < FAILURES_UNTIL_DOWN
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn watch(entry: RelayEntry, failures: Arc<AtomicU8>) {
    let name = entry.urls.first().map(|url| url.text.clone()).unwrap_or_default();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let outcome = tokio::time::timeout(ANSWER_TIME_MAX, probe(&entry.check)).await.unwrap_or(Err(Bad::Silent));
        let before = failures.load(Ordering::Relaxed);
        let now = match outcome {
            Ok(()) => 0,
            // It says so itself: no second opinion is needed.
            Err(Bad::NotReady(_)) => FAILURES_UNTIL_DOWN,
            Err(_) => before.saturating_add(1).min(FAILURES_UNTIL_DOWN),
        };
        failures.store(now, Ordering::Relaxed);
        match (before >= FAILURES_UNTIL_DOWN, &outcome) {
            (true, Ok(())) => tracing::info!(relay = name, "Relay answers again"),
            (false, Err(reason)) if now >= FAILURES_UNTIL_DOWN => {
                tracing::warn!(relay = name, %reason, "Relay is left out of answers");
            }
            _ => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Bad {
    #[error("no answer in time")]
    Silent,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no address")]
    NoAddress,
    #[error("answer is not HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered {0}")]
    NotReady(StatusCode),
    #[error("request cannot be made")]
    Request,
}

pub(crate) async fn probe(check: &Check) -> Result<(), Bad> {
    match check {
        Check::Ready { authority, path } => ready(authority, path).await,
        Check::Stun { address } => binding(address).await,
        Check::None => Ok(()),
    }
}

async fn ready(authority: &str, path: &str) -> Result<(), Bad> {
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, authority)
        .header(header::CONNECTION, "close")
        .body(Body::empty())
        .map_err(|_| Bad::Request)?;
    let answer = async {
        // The body does not matter.
        sender.send_request(request).await.map(|answer| answer.status())
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    let status = tokio::select! {
        status = &mut answer => status?,
        ended = &mut connection => {
            ended?;
            answer.await?
        }
    };
    if status.is_success() { Ok(()) } else { Err(Bad::NotReady(status)) }
}

/// A Binding request (RFC 8489 section 2), which relays answer without credentials.
async fn binding(address: &str) -> Result<(), Bad> {
    let address = tokio::net::lookup_host(address).await?.next().ok_or(Bad::NoAddress)?;
    let any: std::net::IpAddr = if address.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    let mut id = [0; 12];
    rand::rngs::OsRng.try_fill_bytes(&mut id).map_err(|_| Bad::Request)?;
    let id = TransactionId(id);
    let mut bytes = [0; DATAGRAM_BYTES_MAX];
    let request = Writer::new(&mut bytes, Class::Request, Method::BINDING, id).map_err(|_| Bad::Request)?;
    let len = request.finish(None, true).map_err(|_| Bad::Request)?;
    socket.send(&bytes[..len]).await?;
    loop {
        let len = socket.recv(&mut bytes).await?;
        let Ok(answer) = Message::parse(&bytes[..len]) else { continue };
        if answer.transaction_id() == id && answer.class() == Class::Success && answer.method() == Method::BINDING {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests;
