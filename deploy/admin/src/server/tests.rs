use axum::body::{Body, to_bytes};
use axum::http::Request;
use axum::routing::post;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::*;

const BODY_MAX: usize = 64 * 1024;

fn routes(readiness: Readiness) -> Router {
    let mut registry = Registry::default();
    let turns: Counter = Counter::default();
    turns.inc_by(3);
    registry.register("turns", "Turns of the loop", turns);
    let extra = Router::new().route("/v1/echo", post(async |body: String| body));
    router(Arc::new(registry), readiness, Some(extra))
}

async fn ask(method: &str, path: &str, readiness: Readiness) -> (StatusCode, String, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let response = routes(readiness).oneshot(request).await.unwrap();
    let kind = response.headers().get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap().to_owned());
    let status = response.status();
    let body = to_bytes(response.into_body(), BODY_MAX).await.unwrap();
    (status, kind.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let (status, kind, body) = ask("GET", "/metrics", Readiness::new(&[])).await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, OPENMETRICS));
    assert!(body.contains("turns_total 3") && body.ends_with("# EOF\n"), "{body}");
}

#[tokio::test]
async fn alive_even_when_not_ready() {
    let (status, _, _) = ask("GET", "/livez", Readiness::new(&["shards"])).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn readiness_names_each_part_that_is_not_ready() {
    let readiness = Readiness::new(&["shards", "control"]);
    readiness.ready("control");
    let (status, kind, body) = ask("GET", "/readyz", readiness.clone()).await;
    assert_eq!((status, kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/json"));
    assert_eq!(body, r#"{"ready":false,"reasons":[{"part":"shards","reason":"starting"}]}"#);
    readiness.ready("shards");
    assert!(readiness.is_ready());
    assert_eq!(ask("GET", "/readyz", readiness.clone()).await.2, r#"{"ready":true,"reasons":[]}"#);
    readiness.not_ready("shards", "shard 1 has ended");
    assert!(ask("GET", "/readyz", readiness).await.2.contains("shard 1 has ended"));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    assert_eq!(ask("GET", "/", Readiness::new(&[])).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask("GET", "/metrics/x", Readiness::new(&[])).await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask("POST", "/metrics", Readiness::new(&[])).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

async fn talk(server: &Server, request: String) -> String {
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    // A server that closes while something of the request is unread makes a reset of its end.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn running(limits: Limits) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    serve_router(listener, routes(Readiness::new(&[])), limits).unwrap()
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = running(Limits { body_bytes_max: 8, ..Limits::default() }).await;
    let head = "POST /v1/echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let short = talk(&server, format!("{head}content-length: 8\r\n\r\n12345678")).await;
    assert!(short.starts_with("HTTP/1.1 200") && short.ends_with("12345678"), "{short}");
    let long = talk(&server, format!("{head}content-length: 9\r\n\r\n123456789")).await;
    assert!(long.starts_with("HTTP/1.1 413"), "{long}");
    server.stop().await;
}

#[tokio::test]
async fn headers_over_the_limit_are_431() {
    let server = running(Limits::default()).await;
    let long = "x".repeat(Limits::default().header_bytes_max);
    let answer = talk(&server, format!("GET /livez HTTP/1.1\r\nhost: x\r\nlong: {long}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn headers_that_do_not_end_lose_their_connection() {
    let limits = Limits { header_time_max: std::time::Duration::from_millis(50), ..Limits::default() };
    let server = running(limits).await;
    let answer = talk(&server, "GET /livez HTTP/1.1\r\nhost: x\r\n".to_owned()).await;
    assert!(!answer.contains("200"), "{answer}");
    server.stop().await;
}
