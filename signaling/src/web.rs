//! The routes of the public port: the page and its files, the WebSocket, and the version. Nothing here knows rooms; a
//! socket is handed to a [`session`].
//!
//! | route | answer |
//! | --- | --- |
//! | `GET /`, `GET /r/{room}` | the page |
//! | `GET /assets/{file}` | its files, whose names change with their content |
//! | `GET /v1/rooms/{room}` | WebSocket of the native protocol |
//! | `GET /v1/version` | `{"version", "protocol"}` |

mod origin;
mod page;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use signaling_protocol::{PROTOCOL_VERSION, ProtocolError, SUBPROTOCOL};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub use origin::{AllowedOrigins, BadOrigin};

use crate::codes::Code;
use crate::listen::ConnectionPlace;
use crate::session::{self, Context, Socket};

/// What the routes need.
#[derive(Clone, Debug)]
pub struct Web {
    pub context: Arc<Context>,
    pub origins: Arc<AllowedOrigins>,
}

pub fn router(web: Web) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/r/{room}", get(page::index))
        .route("/assets/{*file}", get(page::asset))
        .route("/v1/rooms/{room}", get(room))
        .route("/v1/version", get(version))
        .fallback(page::other)
        .layer(axum::middleware::map_response(page::secure))
        .with_state(web)
}

async fn version() -> impl IntoResponse {
    (
        [(header::CACHE_CONTROL, "no-store")],
        Json(serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": PROTOCOL_VERSION,
        })),
    )
}

async fn room(State(web): State<Web>, Path(room): Path<String>, request: Request) -> Response {
    let headers = request.headers();
    if !web.origins.allow(headers) {
        web.context.metrics.refused("origin");
        let error = Code::OriginForbidden.error("pages of this origin may not connect");
        return refusal(StatusCode::FORBIDDEN, error);
    }
    match upgrade(request) {
        Ok((response, upgrading, place)) => {
            tokio::spawn(async move {
                let Ok(upgraded) = upgrading.await else { return };
                session::run(Socket::new(upgraded).await, room, web.context).await;
                // The place of the connection is taken until its socket is closed.
                drop(place);
            });
            response
        }
        Err(response) => response,
    }
}

/// The server's side of RFC 6455 section 4.2. By hand, because the session needs the bare stream under the WebSocket.
#[expect(clippy::result_large_err, reason = "a response, made once a refused connection")]
fn upgrade(
    mut request: Request,
) -> Result<(Response, hyper::upgrade::OnUpgrade, Option<Arc<ConnectionPlace>>), Response> {
    let headers = request.headers();
    let key = headers.get(header::SEC_WEBSOCKET_KEY).cloned();
    let is_upgrade = request.method() == Method::GET
        && has_token(headers, header::CONNECTION, "upgrade")
        && has_token(headers, header::UPGRADE, "websocket");
    let (true, Some(key)) = (is_upgrade, key) else {
        let hint = [(header::UPGRADE, HeaderValue::from_static("websocket"))];
        return Err((StatusCode::UPGRADE_REQUIRED, hint, "open a WebSocket here\n").into_response());
    };
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let hint = [(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))];
        return Err((StatusCode::UPGRADE_REQUIRED, hint, "use WebSocket version 13\n").into_response());
    }
    let subprotocol = has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    let place = request.extensions().get::<Arc<ConnectionPlace>>().cloned();
    let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) else {
        return Err(StatusCode::BAD_REQUEST.into_response());
    };
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if subprotocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok((response, hyper::upgrade::on(&mut request), place))
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|given| given.trim().eq_ignore_ascii_case(token))
}

fn refusal(status: StatusCode, error: ProtocolError) -> Response {
    (status, Json(error)).into_response()
}

#[cfg(test)]
mod tests;
