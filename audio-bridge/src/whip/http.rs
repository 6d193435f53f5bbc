//! One HTTP exchange with a WHIP server: a connection of its own, a time limit, limits of size, TLS where the URL says so. It
//! neither follows redirects nor knows what WHIP is. Requests are minutes apart, so no connection is kept.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use signaling_protocol::client::{CertificateFault, Trust, TrustError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, rustls};
use url::Url;

/// From the name look-up to the last byte of the answer.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// An answer has one m-line and some candidates: a few KiB.
const BODY_BYTES_MAX: usize = 64 * 1024;
const HEADER_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;
const SDP: HeaderValue = HeaderValue::from_static("application/sdp");

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("server cannot be reached: {0}")]
    Unreachable(std::io::ErrorKind),
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    #[error("server does not speak TLS at this port; check the URL")]
    NotTls,
    #[error("TLS with the server: {0}")]
    Tls(std::io::Error),
    #[error("certificates")]
    Trust(#[from] TrustError),
    #[error("server did not answer within {} s", EXCHANGE_MAX.as_secs())]
    Timeout,
    #[error("server does not answer in HTTP as it should")]
    NotHttp(#[source] hyper::Error),
    #[error("answer is longer than {} KiB", BODY_BYTES_MAX / 1024)]
    TooLong,
    #[error("answer is not text")]
    NotText,
    #[error("token or URL cannot stand in a request")]
    BadRequest,
}

impl HttpError {
    /// There was no connection on which to ask.
    pub(super) const fn is_before_answer(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::Certificate(_)
                | Self::NotTls
                | Self::Tls(_)
                | Self::Trust(_)
                | Self::BadRequest
        )
    }
}

/// What the server answered, whole.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

/// Asks once. A `body` is SDP.
pub(super) async fn exchange(
    method: Method,
    url: &Url,
    token: Option<&str>,
    body: Option<String>,
    trust: &Trust,
) -> Result<Reply, HttpError> {
    let request = request(method, url, token, body)?;
    timeout(EXCHANGE_MAX, connect_and_ask(url, request, trust)).await.map_err(|_| HttpError::Timeout)?
}

fn request(method: Method, url: &Url, token: Option<&str>, body: Option<String>) -> Result<Request<Body>, HttpError> {
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, host)
        .header(USER_AGENT, concat!("carillon-audio-bridge/", env!("CARGO_PKG_VERSION")));
    if let Some(token) = token {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| HttpError::BadRequest)?;
        request = request.header(AUTHORIZATION, sensitive(bearer));
    }
    if body.is_some() {
        request = request.header(CONTENT_TYPE, SDP).header(ACCEPT, SDP);
    }
    request.body(body.map_or_else(Body::empty, Body::from)).map_err(|_| HttpError::BadRequest)
}

fn sensitive(mut value: HeaderValue) -> HeaderValue {
    value.set_sensitive(true);
    value
}

async fn connect_and_ask(url: &Url, request: Request<Body>, trust: &Trust) -> Result<Reply, HttpError> {
    // Brackets belong to the URL's form of an IPv6 address, not to the address.
    let host = url.host_str().ok_or(HttpError::BadRequest)?.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().ok_or(HttpError::BadRequest)?;
    let stream = TcpStream::connect((host, port)).await.map_err(|error| HttpError::Unreachable(error.kind()))?;
    if url.scheme() != "https" {
        return ask(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|_| HttpError::BadRequest)?;
    let connector = TlsConnector::from(trust.client_config()?);
    ask(connector.connect(name, stream).await.map_err(handshake_error)?, request).await
}

fn handshake_error(error: std::io::Error) -> HttpError {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    if matches!(tls, Some(rustls::Error::InvalidMessage(_))) {
        return HttpError::NotTls;
    }
    CertificateFault::of(&error).map_or_else(|| HttpError::Tls(error), HttpError::Certificate)
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<Reply, HttpError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(HttpError::NotHttp)?;
    let whole = async move {
        let (head, body) = sender.send_request(request).await.map_err(HttpError::NotHttp)?.into_parts();
        let bytes = to_bytes(Body::new(body), BODY_BYTES_MAX).await.map_err(|_| HttpError::TooLong)?;
        let body = String::from_utf8(bytes.into()).map_err(|_| HttpError::NotText)?;
        Ok(Reply { status: head.status, headers: head.headers, body })
    };
    tokio::pin!(whole);
    // The connection does the reading and writing; its end may come before we have taken all that it read.
    tokio::select! {
        biased;
        reply = &mut whole => reply,
        _ = connection => whole.await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls_pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const BODY: &str = "v=0\r\n";

    /// A server that says this to whoever comes and shows what it was asked.
    async fn said(answer: Vec<u8>) -> (Result<Reply, HttpError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let url = Url::parse(&format!("http://{}/whip/a?b=c", listener.local_addr().expect("bound"))).expect("a URL");
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut asked = Vec::new();
            // All of it: a connection that is closed with something unread takes the answer with it.
            while !asked.ends_with(BODY.as_bytes()) && stream.read_buf(&mut asked).await.expect("reads") > 0 {}
            // Who refuses an answer closes while it still comes.
            drop(stream.write_all(&answer).await);
            String::from_utf8_lossy(&asked).into_owned()
        });
        let reply = exchange(Method::POST, &url, Some("key"), Some(BODY.to_owned()), &Trust::System).await;
        (reply, server.await.expect("ends"))
    }

    #[tokio::test]
    async fn an_offer_is_posted_as_the_standard_says() {
        let (reply, asked) =
            said(b"HTTP/1.1 201 Created\r\nlocation: /s/1\r\ncontent-length: 5\r\n\r\nv=0\r\n".to_vec()).await;
        let reply = reply.expect("answered");
        assert_eq!((reply.status, reply.body.as_str()), (StatusCode::CREATED, "v=0\r\n"));
        assert_eq!(reply.headers["location"], "/s/1");
        assert!(asked.starts_with("POST /whip/a?b=c HTTP/1.1\r\n"), "{asked}");
        for line in ["authorization: Bearer key", "content-type: application/sdp", "host: 127.0.0.1:"] {
            assert!(asked.contains(line), "{asked}");
        }
    }

    #[tokio::test]
    async fn hostile_answers_are_errors() {
        let endless_headers = [b"HTTP/1.1 201 Created\r\n".to_vec(), b"x: y\r\n".repeat(20_000)].concat();
        let long_header = [b"HTTP/1.1 201 Created\r\nx: ".to_vec(), vec![b'y'; 1 << 20]].concat();
        let long_body = [b"HTTP/1.1 201 Created\r\n\r\n".to_vec(), vec![b'y'; 1 << 20]].concat();
        let lying = b"HTTP/1.1 201 Created\r\ncontent-length: 100000\r\n\r\nshort".to_vec();
        let not_text = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n\xff\xfe".to_vec();
        for answer in
            [endless_headers, long_header, long_body, lying, not_text, b"SSH-2.0-x\r\n".to_vec(), Vec::new()]
        {
            let start = String::from_utf8_lossy(&answer[..answer.len().min(40)]).into_owned();
            let (reply, _) = said(answer).await;
            assert!(reply.is_err(), "{start:?}");
        }
    }

    /// The port of a server whose certificate is for `localhost` and these years, and the certificate of its authority. It
    /// answers one request.
    async fn secure(first_year: i32, last_year: i32) -> (u16, Trust) {
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().expect("generates");
        let root = authority.self_signed(&authority_key).expect("signs").pem();
        let authority = rcgen::Issuer::new(authority, authority_key);
        let mut own = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        own.not_before = rcgen::date_time_ymd(first_year, 1, 1);
        own.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let key = rcgen::KeyPair::generate().expect("generates");
        let own = own.signed_by(&key, &authority).expect("signs").der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![own], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("accepts");
            // A client that does not trust us ends here.
            let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return };
            let mut asked = Vec::new();
            while !asked.ends_with(BODY.as_bytes()) && stream.read_buf(&mut asked).await.is_ok_and(|read| read > 0) {}
            drop(stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await);
        });
        (port, Trust::Roots(root.into_bytes()))
    }

    async fn post(host: &str, port: u16, trust: &Trust) -> Result<Reply, HttpError> {
        let url = Url::parse(&format!("https://{host}:{port}/whip")).expect("a URL");
        exchange(Method::POST, &url, Some("key"), Some(BODY.to_owned()), trust).await
    }

    #[tokio::test]
    async fn a_server_is_spoken_to_when_its_certificate_is_good_for_us() {
        let (port, trust) = secure(2000, 4000).await;
        assert_eq!(post("localhost", port, &trust).await.expect("answered").status, StatusCode::CREATED);
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_certificate_is_told_with_a_code_and_a_way_out() {
        let (_, other) = secure(2000, 4000).await;
        for (years, host, is_known, code, way_out) in [
            ((2000, 4000), "localhost", false, "certificate_untrusted", "as `trust`"),
            ((2000, 4000), "127.0.0.1", true, "certificate_wrong_name", "use a URL"),
            ((1990, 1991), "localhost", true, "certificate_expired", "renew it"),
            ((3999, 4000), "localhost", true, "certificate_not_yet_valid", "clock"),
        ] {
            let (port, trust) = secure(years.0, years.1).await;
            let error = post(host, port, if is_known { &trust } else { &other }).await.expect_err("refused");
            let text = error.to_string();
            assert!(text.starts_with(code) && text.contains(way_out) && error.is_before_answer(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_port_without_tls_is_told_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            drop(stream.read(&mut [0; 1024]).await);
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
        });
        let error = post("localhost", port, &Trust::System).await.expect_err("refused");
        assert!(matches!(error, HttpError::NotTls), "{error:?}");
    }

    #[tokio::test]
    async fn a_token_that_would_be_two_headers_is_refused() {
        let url = Url::parse("http://127.0.0.1:9/").expect("a URL");
        let refused = exchange(Method::POST, &url, Some("a\r\nx: y"), None, &Trust::System).await;
        assert!(matches!(refused, Err(HttpError::BadRequest)), "{refused:?}");
    }
}
