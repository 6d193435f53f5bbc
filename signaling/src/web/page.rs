//! The page and its files, built from `signaling/web` and embedded into the program, with the headers that keep them
//! to themselves.

use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use rust_embed::RustEmbed;

#[derive(RustEmbed)]
#[folder = "web/dist"]
struct Dist;

/// Shown when the page was not built before the program.
const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>Carillon</title>\
<p>The page is not built: run <code>deploy/run</code>, or <code>npm ci &amp;&amp; npm run build</code> in \
<code>signaling/web</code>, and build this program again. The WebSocket at <code>/v1/rooms/{room}</code> works.\n";

/// Names in `assets/` hold a hash of the content.
const CACHE_FOR_EVER: &str = "public, max-age=31536000, immutable";

pub(super) async fn index() -> Response {
    match Dist::get("index.html") {
        Some(file) => ([(header::CACHE_CONTROL, "no-cache")], Html(file.data.into_owned())).into_response(),
        None => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::CACHE_CONTROL, "no-store")], Html(NOT_BUILT)).into_response()
        }
    }
}

pub(super) async fn asset(Path(file): Path<String>) -> Response {
    embedded(&format!("assets/{file}"), CACHE_FOR_EVER)
}

/// Files beside the page, such as its icon; anything else is not there.
pub(super) async fn other(uri: axum::http::Uri) -> Response {
    embedded(uri.path().trim_start_matches('/'), "no-cache")
}

fn embedded(path: &str, cache: &'static str) -> Response {
    match Dist::get(path) {
        Some(file) => {
            let kind = HeaderValue::from_str(file.metadata.mimetype())
                .unwrap_or(HeaderValue::from_static("application/octet-stream"));
            let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, HeaderValue::from_static(cache))];
            (headers, file.data.into_owned()).into_response()
        }
        None => {
            (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-store")], "there is nothing here\n").into_response()
        }
    }
}

/// Headers of every answer. The page may use its own scripts and styles, a WebSocket of this host, microphone and
/// tab sound; nobody may frame it.
pub(super) async fn secure(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 6] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
             media-src 'self' blob: mediastream:; worker-src 'self' blob:; manifest-src 'self'; \
             connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("permissions-policy"),
            "microphone=(self), display-capture=(self), autoplay=(self), speaker-selection=(self), camera=(), \
             geolocation=()",
        ),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
