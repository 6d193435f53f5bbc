//! The routes without a port. WebSockets are tested over a real one in `signaling/tests`.

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use tower::ServiceExt;

use super::*;

fn routes() -> Router {
    let metrics = Arc::new(crate::metrics::Metrics::default());
    let rooms = crate::rooms::Rooms::new(crate::rooms::Limits::default(), std::time::Instant::now());
    let registry = Arc::new(crate::nodes::Embedded::default());
    let ice = crate::ice::IceServers::new(None, Arc::clone(&metrics));
    let context = Context {
        hub: crate::hub::Hub::start(rooms, registry, Arc::clone(&metrics)),
        keys: crate::tokens::Keys::parse(["a:0123456789abcdef0123456789abcdef"]).unwrap(),
        ice,
        metrics,
        resume_grace: std::time::Duration::from_secs(10),
    };
    router(Web { context: Arc::new(context), origins: Arc::new(AllowedOrigins::default()) })
}

async fn get_with(path: &str, headers: &[(header::HeaderName, &str)]) -> Response<Body> {
    let mut request = Request::get(path).header(header::HOST, "call.example");
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    routes().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn every_answer_has_the_protecting_headers() {
    for path in ["/", "/r/demo", "/nothing", "/assets/nothing.js", "/v1/version", "/v1/rooms/demo"] {
        let response = get_with(path, &[]).await;
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert!(response.headers()["permissions-policy"].to_str().unwrap().contains("microphone=(self)"), "{path}");
    }
}

#[tokio::test]
async fn page_is_the_same_for_each_room() {
    let (page, room) = (get_with("/", &[]).await, get_with("/r/demo", &[]).await);
    assert_eq!(page.status(), room.status());
    assert_eq!(page.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
}

#[tokio::test]
async fn unknown_files_are_not_found_and_paths_cannot_climb() {
    for path in ["/nothing", "/assets/nothing.js", "/assets/../../Cargo.toml", "/../Cargo.toml", "/%2e%2e/Cargo.toml"]
    {
        assert_eq!(get_with(path, &[]).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn version_names_the_protocol() {
    let response = get_with("/v1/version", &[]).await;
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    let version: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(version["protocol"], 1);
}

#[tokio::test]
async fn foreign_page_is_refused_before_the_upgrade() {
    let response = get_with("/v1/rooms/demo", &[(header::ORIGIN, "https://evil.example")]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    let error: ProtocolError = serde_json::from_slice(&body).unwrap();
    assert_eq!(error.code, "origin_forbidden");
}

#[tokio::test]
async fn plain_request_for_a_room_is_told_to_upgrade() {
    assert_eq!(get_with("/v1/rooms/demo", &[]).await.status(), StatusCode::UPGRADE_REQUIRED);
    let old = [
        (header::CONNECTION, "keep-alive, Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        (header::SEC_WEBSOCKET_VERSION, "8"),
    ];
    let response = get_with("/v1/rooms/demo", &old).await;
    assert_eq!(response.headers()[header::SEC_WEBSOCKET_VERSION], "13");
}
