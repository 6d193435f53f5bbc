//! The media nodes that signalling knows: asked for at its admin port every few seconds, so that a node that is started
//! somewhere is a peer of this relay without a word of configuration. What is taken are single addresses, each with its
//! port; a registry cannot open a network, and what the policy never allows stays denied; a port of
//! this host itself is allowed when it is listed, since a node may run here.
//!
//! An answer that does not come changes nothing, and a node that answers lack stays a peer for a while: signalling that was
//! started anew has not heard of it yet, while calls go on through it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use relay_core::AddressRange;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use url::Url;

use crate::metrics::RegistryMeters;

/// A node announces itself every 2 s, and its first call may come as soon.
const INTERVAL: Duration = Duration::from_secs(2);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a node stays a peer that answers lack: nodes find a signalling process that was started anew within seconds.
const KEPT: Duration = Duration::from_secs(60);
/// 256 nodes, which is signalling's bound, with 16 addresses and ports each.
const ADDRESSES_MAX: usize = 4_096;
/// So many addresses, with the rest of what is said of a node.
const ANSWER_BYTES_MAX: usize = 512 * 1024;
const PATH: &str = "/v1/nodes";

/// Where the registry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    authority: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("registry {0:?} is not the URL of signalling's admin port, such as http://127.0.0.1:7201")]
pub struct BadRegistry(String);

impl FromStr for Endpoint {
    type Err = BadRegistry;

    fn from_str(text: &str) -> Result<Self, BadRegistry> {
        let bad = || BadRegistry(text.to_owned());
        let url = Url::parse(text).map_err(|_| bad())?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if url.scheme() != "http" || !is_plain || !matches!(url.path(), "/" | PATH) || url.fragment().is_some() {
            return Err(bad());
        }
        let (host, port) = url.host().zip(url.port_or_known_default()).ok_or_else(bad)?;
        Ok(Self { authority: format!("{host}:{port}") })
    }
}

/// The media nodes as they were known last. Asks no more when it is dropped.
#[derive(Debug)]
pub(crate) struct Nodes {
    known: watch::Receiver<Arc<[AddressRange]>>,
    task: AbortHandle,
}

impl Nodes {
    /// Must be called inside a tokio runtime.
    pub(crate) fn follow(endpoint: Endpoint, meters: RegistryMeters) -> Self {
        let (tell, known) = watch::channel(Arc::default());
        let task = tokio::spawn(ask_again_and_again(endpoint, meters, tell)).abort_handle();
        Self { known, task }
    }

    /// Waits until they are others.
    pub(crate) async fn changed(&mut self) -> Arc<[AddressRange]> {
        if self.known.changed().await.is_err() {
            // The task has ended, so nothing will change.
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.known.borrow_and_update())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask_again_and_again(endpoint: Endpoint, meters: RegistryMeters, tell: watch::Sender<Arc<[AddressRange]>>) {
    let mut known = Known::default();
    let mut is_silent = false;
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, ask(&endpoint)).await.unwrap_or(Err(Failure::Silent));
        match answer {
            Ok(listed) => {
                meters.answered("ok");
                if std::mem::take(&mut is_silent) {
                    tracing::info!(registry = endpoint.authority, "Registry of media nodes answers again");
                }
                known.take(&listed, Instant::now());
                meters.known(known.0.len());
                let ranges = known.ranges();
                tell.send_if_modified(|told| {
                    let is_new = **told != *ranges;
                    if is_new {
                        tracing::info!(ranges = ranges.len(), "Media nodes of the registry are peers");
                        *told = ranges.into();
                    }
                    is_new
                });
            }
            Err(error) => {
                meters.answered("failed");
                if !std::mem::replace(&mut is_silent, true) {
                    let registry = &endpoint.authority;
                    tracing::warn!(registry, %error, "Registry does not tell its media nodes; the known ones stay peers");
                }
            }
        }
    }
}

/// The addresses that are peers, and since when answers lack them.
#[derive(Debug, Default)]
struct Known(BTreeMap<SocketAddr, Option<Instant>>);

impl Known {
    fn take(&mut self, listed: &[SocketAddr], now: Instant) {
        for missing_since in self.0.values_mut() {
            missing_since.get_or_insert(now);
        }
        self.0.extend(listed.iter().map(|address| (*address, None)));
        self.0.retain(|_, since| since.is_none_or(|since| now.saturating_duration_since(since) < KEPT));
        // Nodes that come and go by the thousand are no nodes.
        if self.0.len() > 2 * ADDRESSES_MAX {
            self.0.retain(|_, since| since.is_none());
        }
    }

    /// Ports that follow each other are one range: a node has one for each shard.
    fn ranges(&self) -> Vec<AddressRange> {
        let mut runs: Vec<(IpAddr, u16, u16)> = Vec::new();
        for address in self.0.keys() {
            match runs.last_mut() {
                Some((ip, _, last)) if *ip == address.ip() && last.checked_add(1) == Some(address.port()) => {
                    *last = address.port();
                }
                _ => runs.push((address.ip(), address.port(), address.port())),
            }
        }
        runs.into_iter().map(|(ip, first, last)| AddressRange::single(ip).with_ports(first..=last)).collect()
    }
}

/// What is needed of a line of `GET /v1/nodes`.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    media: Vec<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer in time")]
    Silent,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("answer is not HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("request cannot be made")]
    Request,
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("answer is no list of media nodes: {0}")]
    Form(#[from] serde_json::Error),
    #[error("more than {ADDRESSES_MAX} addresses are listed")]
    TooMany,
}

async fn ask(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Failure> {
    let stream = TcpStream::connect(&endpoint.authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(PATH)
        .header(header::HOST, &endpoint.authority)
        .header(header::CONNECTION, "close")
        .body(Body::empty())
        .map_err(|_| Failure::Request)?;
    let asking = async move {
        let answer = sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(Failure::Status(answer.status()));
        }
        to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await.map_err(|_| Failure::TooLong)
    };
    // The connection does the writing and reading, and ends with the request.
    let (answer, _) = tokio::join!(asking, connection);
    read(&answer?)
}

fn read(body: &[u8]) -> Result<Vec<SocketAddr>, Failure> {
    let lines: BTreeMap<String, Line> = serde_json::from_slice(body)?;
    let media = lines.into_values().flat_map(|line| line.media).filter(|address| address.port() != 0);
    let listed =
        media.map(|address| SocketAddr::new(address.ip().to_canonical(), address.port())).collect::<Vec<_>>();
    if listed.len() > ADDRESSES_MAX { Err(Failure::TooMany) } else { Ok(listed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn ranges(texts: &[&str]) -> Vec<AddressRange> {
        texts.iter().map(|text| text.parse().expect("a range")).collect()
    }

    #[test]
    fn a_registry_is_named_by_the_url_of_an_admin_port() {
        let authority = |text: &str| text.parse::<Endpoint>().map(|endpoint| endpoint.authority);
        assert_eq!(authority("http://signaling:7201").as_deref(), Ok("signaling:7201"));
        assert_eq!(authority("http://[::1]:7201/v1/nodes").as_deref(), Ok("[::1]:7201"));
        for bad in
            ["", "signaling:7201", "https://h:1", "http://u@h:1", "http://h:1/x", "http://h:1/?x", "http://h:1/#x"]
        {
            assert_eq!(authority(bad), Err(BadRegistry(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn addresses_of_all_nodes_are_taken_and_nothing_wider() {
        let body = r#"{"a":{"load":0.1,"linked":true,"media":["192.0.2.1:40000","[2001:db8::1]:40000"]},
                       "b":{"media":["[::ffff:192.0.2.2]:40000","192.0.2.3:0"]},"old":{}}"#;
        let listed = read(body.as_bytes()).expect("read");
        assert_eq!(listed, addresses(&["192.0.2.1:40000", "[2001:db8::1]:40000", "192.0.2.2:40000"]));
        for bad in [r#"{"a":{"media":["0.0.0.0/0"]}}"#, r#"{"a":{"media":["192.0.2.1"]}}"#, "[]", "", r#"{"a":1}"#] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
        let many = (0..=ADDRESSES_MAX).map(|n| format!(r#""10.0.{}.{}:1""#, n / 256, n % 256)).collect::<Vec<_>>();
        let many = format!(r#"{{"a":{{"media":[{}]}}}}"#, many.join(","));
        assert!(matches!(read(many.as_bytes()), Err(Failure::TooMany)));
    }

    #[test]
    fn ports_that_follow_each_other_are_one_range() {
        let mut known = Known::default();
        let listed =
            ["192.0.2.1:40001", "192.0.2.1:40000", "192.0.2.1:40003", "192.0.2.2:40004", "[2001:db8::1]:65535"];
        known.take(&addresses(&listed), Instant::now());
        let wanted = ["192.0.2.1:40000-40001", "192.0.2.1:40003", "192.0.2.2:40004", "[2001:db8::1]:65535"];
        assert_eq!(known.ranges(), ranges(&wanted));
    }

    #[test]
    fn a_node_that_answers_lack_stays_for_a_while_and_one_that_is_listed_again_for_good() {
        let (start, mut known) = (Instant::now(), Known::default());
        let both = addresses(&["192.0.2.1:1", "192.0.2.2:1"]);
        known.take(&both, start);
        // Silence is no answer: however long it was, the time begins with the first answer that lacks them.
        let anew = start + Duration::from_secs(3_600);
        known.take(&[], anew);
        assert_eq!(known.0.len(), 2);
        known.take(&both[..1], anew + KEPT / 2);
        known.take(&both[..1], anew + KEPT);
        assert_eq!(known.ranges(), ranges(&["192.0.2.1:1"]));
        known.take(&both[..1], anew + 3 * KEPT);
        assert_eq!(known.0.len(), 1);
    }

    #[test]
    fn what_comes_and_goes_has_a_bound() {
        let (now, mut known) = (Instant::now(), Known::default());
        for round in 0..10_u8 {
            let listed =
                (0..4_096_u32).map(|n| SocketAddr::new(IpAddr::from([10, round, (n >> 8) as u8, n as u8]), 1));
            known.take(&listed.collect::<Vec<_>>(), now);
            assert!(known.0.len() <= 2 * ADDRESSES_MAX);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), text in ".{0,60}") {
            let _ = read(&body);
            let _ = text.parse::<Endpoint>();
        }
    }
}
