//! The heartbeat: `POST <signalling admin>/v1/nodes` every 2 s to each announced address, so that signalling knows the
//! node and dials its control port. It is one way; what signalling answers is only good or bad.

use std::sync::Arc;
use std::time::Duration;

use admin::Secret;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use sfu_control::Heartbeat;
use tokio::net::TcpStream;

use crate::metrics::ControlMeters;
use crate::status::Status;

const INTERVAL: Duration = Duration::from_secs(2);
/// Longest pause after failures: a signalling process that comes back knows its nodes again within this.
const INTERVAL_MAX: Duration = Duration::from_secs(6);
/// For dialling, sending and the answer together.
const BEAT_TIME_MAX: Duration = Duration::from_secs(1);
const PORT_DEFAULT: u16 = 80;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum BeatError {
    #[error("cannot be reached: {0}")]
    Unreachable(std::io::ErrorKind),
    #[error("does not speak HTTP")]
    NotHttp,
    #[error("does not answer")]
    Timeout,
    #[error("answers HTTP status {0}")]
    Refused(u16),
    #[error("heartbeat cannot be written as a request")]
    BadRequest,
}

/// Runs until it is dropped.
pub(crate) async fn announce(target: Uri, token: Arc<Secret>, status: Arc<Status>, meters: ControlMeters) {
    let mut pause = INTERVAL;
    // Unknown at first, so that the first result is logged either way.
    let mut last: Option<Result<(), BeatError>> = None;
    loop {
        let beat = status.heartbeat();
        let result = tokio::time::timeout(BEAT_TIME_MAX, send(&target, &token, &beat))
            .await
            .unwrap_or(Err(BeatError::Timeout));
        meters.count_announcement(if result.is_ok() { "ok" } else { "failed" });
        if last.as_ref() != Some(&result) {
            match &result {
                Ok(()) => tracing::info!(%target, "Announced to signalling"),
                Err(error) => tracing::warn!(%target, %error, "Cannot announce to signalling, trying again"),
            }
        }
        pause = if result.is_ok() { INTERVAL } else { (pause * 3 / 2).min(INTERVAL_MAX) };
        last = Some(result);
        // Spread, so that nodes started together do not beat together.
        tokio::time::sleep(pause.mul_f64(0.9 + rand::random::<f64>() * 0.1)).await;
    }
}

async fn send(target: &Uri, token: &Secret, beat: &Heartbeat) -> Result<(), BeatError> {
    let authority = target.authority().ok_or(BeatError::BadRequest)?;
    let mut bearer =
        HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(|_| BeatError::BadRequest)?;
    bearer.set_sensitive(true);
    let request = Request::post("/v1/nodes")
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, bearer)
        .body(serde_json::to_string(beat).map_err(|_| BeatError::BadRequest)?)
        .map_err(|_| BeatError::BadRequest)?;
    // Brackets belong to the URL's form of an IPv6 address, not to the address.
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(PORT_DEFAULT)))
        .await
        .map_err(|error| BeatError::Unreachable(error.kind()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| BeatError::NotHttp)?;
    let answer = async { sender.send_request(request).await.map_err(|_| BeatError::NotHttp) };
    // The connection does the writing and reading; it is dropped, and closed, with the answer.
    let answer = tokio::select! {
        answer = answer => answer?,
        _ = connection => return Err(BeatError::NotHttp),
    };
    if answer.status().is_success() { Ok(()) } else { Err(BeatError::Refused(answer.status().as_u16())) }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use axum::routing::post;
    use axum::{Json, Router};
    use tokio::net::TcpListener;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn beat() -> Heartbeat {
        serde_json::from_str(include_str!("../control/fixtures/heartbeat.json")).unwrap()
    }

    /// A signalling admin port that gives back what it was sent through `taken`.
    async fn signalling(taken: tokio::sync::mpsc::Sender<(Heartbeat, String)>) -> admin::server::Server {
        let take = async move |headers: HeaderMap, Json(beat): Json<Heartbeat>| {
            let bearer = headers[AUTHORIZATION].to_str().unwrap().to_owned();
            taken.send((beat, bearer)).await.unwrap();
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let routes = Router::new().route("/v1/nodes", post(take));
        admin::server::serve_router(listener, routes, admin::server::Limits::default()).unwrap()
    }

    fn target(address: std::net::SocketAddr) -> Uri {
        format!("http://{address}").parse().unwrap()
    }

    #[tokio::test]
    async fn a_beat_arrives_with_its_token() {
        let (taken, mut took) = tokio::sync::mpsc::channel(1);
        let server = signalling(taken).await;
        send(&target(server.local_addr()), &Secret::from(TOKEN), &beat()).await.unwrap();
        assert_eq!(took.recv().await.unwrap(), (beat(), format!("Bearer {TOKEN}")));
        server.stop().await;
    }

    #[tokio::test]
    async fn absent_and_unwilling_targets_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = listener.local_addr().unwrap();
        let routes = Router::new();
        let server = admin::server::serve_router(listener, routes, admin::server::Limits::default()).unwrap();
        let unwilling = send(&target(free), &Secret::from(TOKEN), &beat()).await;
        assert_eq!(unwilling, Err(BeatError::Refused(404)));
        server.stop().await;
        let absent = send(&target(free), &Secret::from(TOKEN), &beat()).await;
        assert_eq!(absent, Err(BeatError::Unreachable(std::io::ErrorKind::ConnectionRefused)));
    }
}
