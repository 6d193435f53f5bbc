//! The admin port, and the bounded HTTP/1 server under it that other plain-HTTP ports of the processes use as well.
//!
//! | route | answer |
//! | --- | --- |
//! | `GET /metrics` | the process's series in OpenMetrics text; each series is described where its process registers it |
//! | `GET /livez` | 200 while the process can answer at all |
//! | `GET /readyz` | 200 `{"ready":true,"reasons":[]}`, or 503 with one `{"part","reason"}` for each part that is not |
//!
//! Anything else is 404, any other method 405. A process may add routes of its own (`extra`). The port has no
//! authentication: it is bound to loopback by default and is not for the public.

mod http;
mod readiness;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

pub use http::{Limits, Server, serve_router};
pub use readiness::Readiness;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds `address` (port 0: the OS chooses, see [`Server::local_addr`]) and serves until the [`Server`] is stopped.
pub async fn serve(
    address: SocketAddr,
    registry: Arc<Registry>,
    readiness: Readiness,
    extra: Option<Router>,
) -> std::io::Result<Server> {
    let listener = TcpListener::bind(address).await?;
    serve_router(listener, router(registry, readiness, extra), Limits::default())
}

/// The routes without a port, for tests.
pub fn router(registry: Arc<Registry>, readiness: Readiness, extra: Option<Router>) -> Router {
    Router::new()
        .route("/metrics", get(metrics).with_state(registry))
        .route("/livez", get(async || "live\n"))
        .route("/readyz", get(async |State(readiness): State<Readiness>| readiness.response()).with_state(readiness))
        .merge(extra.unwrap_or_default())
}

async fn metrics(State(registry): State<Arc<Registry>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
