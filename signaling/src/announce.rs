//! What the admin port adds here: `POST /v1/nodes`, where media nodes announce themselves with a heartbeat and the
//! shared control token, and `GET /v1/nodes`, where a person sees them and a relay learns their media addresses, which are
//! its peers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use admin::Secret;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, body::Bytes};
use sfu_control::{Heartbeat, ID_BYTES_MAX};

use crate::hub::Hub;
use crate::nodes::{Admission, Embedded, link};

#[derive(Clone, Debug)]
pub struct Announcements {
    pub token: Secret,
    pub hub: Arc<Hub>,
    pub registry: Arc<Embedded>,
}

pub fn router(announcements: Announcements) -> Router {
    Router::new().route("/v1/nodes", get(list).post(announce)).with_state(announcements)
}

async fn announce(State(here): State<Announcements>, headers: HeaderMap, body: Bytes) -> Response {
    if !is_authorized(&headers, &here.token) {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "wrong control token\n")
            .into_response();
    }
    let heartbeat: Heartbeat = match serde_json::from_slice(&body) {
        Ok(heartbeat) => heartbeat,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("not a heartbeat: {error}\n")).into_response(),
    };
    if heartbeat.node.is_empty() || heartbeat.node.len() > ID_BYTES_MAX || !heartbeat.load.is_finite() {
        return (StatusCode::BAD_REQUEST, "node id or load is out of range\n").into_response();
    }
    match here.registry.heartbeat(&heartbeat, Instant::now()) {
        Admission::New => {
            tracing::info!(node = %heartbeat.node, version = %heartbeat.version, "A media node announced itself");
            link::spawn(heartbeat.node, here.token.clone(), here.hub, here.registry);
        }
        Admission::Moved => tracing::info!(node = %heartbeat.node, "A media node has a new control address"),
        Admission::Known => {}
        Admission::Refused => return (StatusCode::SERVICE_UNAVAILABLE, "too many nodes\n").into_response(),
    }
    StatusCode::NO_CONTENT.into_response()
}

async fn list(State(here): State<Announcements>) -> Json<BTreeMap<String, serde_json::Value>> {
    let line = |(name, node): (String, crate::nodes::NodeState)| {
        let media = node.media.iter().map(|media| SocketAddr::new(media.address, media.port));
        let media = media.collect::<Vec<_>>();
        let state = serde_json::json!({
            "version": node.version,
            "load": node.load,
            "peers": node.peers,
            "draining": node.draining,
            "linked": node.linked,
            "media": media,
        });
        (name, state)
    };
    Json(here.registry.snapshot().into_iter().map(line).collect())
}

fn is_authorized(headers: &HeaderMap, token: &Secret) -> bool {
    let presented = headers.get(header::AUTHORIZATION).map(axum::http::HeaderValue::as_bytes);
    presented.and_then(|value| value.strip_prefix(b"Bearer ")).is_some_and(|presented| token.matches(presented))
}
