//! The client of the credential broker: one request, one answer, each with a bound. It keeps nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use admin::Secret;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use signaling_protocol::IceServer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

/// Some servers with long names; more is not an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Browsers slow down with many; a broker that sends more is not ours.
const SERVERS_MAX: usize = 32;
/// Shorter ones would be asked for again and again.
const LIFETIME_MIN: Duration = Duration::from_secs(1);
/// A broker caps lifetimes at a day; a wrong number must not overflow a clock.
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where the broker is and how it knows us.
pub struct Broker {
    host: Host,
    port: u16,
    /// `Host` of the request.
    authority: String,
    /// Before the query.
    path: String,
    bearer: HeaderValue,
    tls: Option<TlsConnector>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBroker {
    #[error("broker {0:?} is not a URL such as http://127.0.0.1:7300")]
    Url(String),
    #[error("broker_key is *** and cannot stand in a header")]
    Key,
    #[error("system's trusted certificates cannot be used: {0}; name those of the broker with --broker-trust")]
    Tls(String),
    #[error("broker_trust {} holds no certificate in PEM form that can be read", .0.display())]
    Trust(PathBuf),
}

/// What the broker gave.
#[derive(Debug)]
pub(super) struct Minted {
    pub(super) servers: Vec<IceServer>,
    pub(super) lifetime: Duration,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("broker cannot be reached")]
    Unreachable,
    #[error("broker does not answer in time")]
    Silent,
    #[error("broker answers HTTP status {0}")]
    Refused(StatusCode),
    #[error("answer of the broker cannot be read")]
    Answer,
}

impl Failure {
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Refused(_) => "refused",
            Self::Answer => "answer",
        }
    }
}

/// As AppRTC's iceconfig has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IceConfig {
    lifetime_duration: String,
    ice_servers: Vec<IceServer>,
}

impl Broker {
    /// `url` without a path means the broker's own routes at the root.
    /// `trust`: certificates of an https:// broker, in place of the system's.
    pub fn new(url: &str, key: &Secret, trust: Option<&Path>) -> Result<Self, BadBroker> {
        let bad = || BadBroker::Url(url.to_owned());
        let parsed = Url::parse(url).map_err(|_| bad())?;
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => Some(connector(trust)?),
            _ => return Err(bad()),
        };
        let plain = parsed.username().is_empty() && parsed.password().is_none() && parsed.query().is_none();
        let host = parsed.host().filter(|_| plain).ok_or_else(bad)?.to_owned();
        let port = parsed.port_or_known_default().ok_or_else(bad)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose())).map_err(|_| BadBroker::Key)?;
        bearer.set_sensitive(true);
        let path = format!("{}/v1alpha/iceconfig", parsed.path().trim_end_matches('/'));
        Ok(Self { authority: format!("{host}:{port}"), host, port, path, bearer, tls })
    }

    pub(super) async fn mint(&self, identity: &str) -> Result<Minted, Failure> {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("username", identity).finish();
        let request = Request::post(format!("{}?{query}", self.path))
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, &self.bearer)
            .header(header::CONTENT_LENGTH, 0)
            .header(header::CONNECTION, "close")
            .body(Body::empty())
            .map_err(|_| Failure::Answer)?;
        let unreachable = |_| Failure::Unreachable;
        let tcp = match &self.host {
            Host::Domain(name) => TcpStream::connect((name.as_str(), self.port)).await,
            Host::Ipv4(ip) => TcpStream::connect((*ip, self.port)).await,
            Host::Ipv6(ip) => TcpStream::connect((*ip, self.port)).await,
        }
        .map_err(unreachable)?;
        let body = match &self.tls {
            None => exchange(tcp, request).await?,
            Some(tls) => {
                let stream = tls.connect(self.server_name()?, tcp).await.map_err(unreachable)?;
                exchange(stream, request).await?
            }
        };
        read(&body)
    }

    fn server_name(&self) -> Result<ServerName<'static>, Failure> {
        Ok(match &self.host {
            Host::Domain(name) => ServerName::try_from(name.clone()).map_err(|_| Failure::Unreachable)?,
            Host::Ipv4(ip) => std::net::IpAddr::from(*ip).into(),
            Host::Ipv6(ip) => std::net::IpAddr::from(*ip).into(),
        })
    }
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Trusts the certificates of the file, else what the system trusts.
fn connector(trust: Option<&Path>) -> Result<TlsConnector, BadBroker> {
    let bad = |error: String| BadBroker::Tls(error);
    let certificates = match trust {
        None => rustls_native_certs::load_native_certs().certs,
        Some(path) => {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            read.map_err(|_| BadBroker::Trust(path.to_owned()))?
        }
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    match (added, trust) {
        (0, Some(path)) => return Err(BadBroker::Trust(path.to_owned())),
        (0, None) => return Err(bad("there are none".to_owned())),
        _ => {}
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<Vec<u8>, Failure> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Unreachable)?;
    let asking = async move {
        let answer = sender.send_request(request).await.map_err(|_| Failure::Answer)?;
        if !answer.status().is_success() {
            return Err(Failure::Refused(answer.status()));
        }
        let body = to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await.map_err(|_| Failure::Answer)?;
        Ok(body.to_vec())
    };
    // The connection does the writing and reading, and ends with the request.
    let (answer, _) = tokio::join!(asking, connection);
    answer
}

fn read(body: &[u8]) -> Result<Minted, Failure> {
    let config: IceConfig = serde_json::from_slice(body).map_err(|_| Failure::Answer)?;
    let seconds = config.lifetime_duration.strip_suffix('s').and_then(|text| text.parse::<f64>().ok());
    let lifetime = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or(Failure::Answer)?;
    let mut servers = config.ice_servers;
    servers.truncate(SERVERS_MAX);
    Ok(Minted { servers, lifetime: lifetime.clamp(LIFETIME_MIN, LIFETIME_MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_and_the_key_does_not_print() {
        let of = |url: &str| Broker::new(url, &"secret-key".into(), None);
        for bad in ["", "127.0.0.1:7300", "ftp://h", "http://", "http://user@h:1", "http://h:1/?x=1"] {
            assert_eq!(of(bad).err(), Some(BadBroker::Url(bad.to_owned())), "{bad}");
        }
        assert_eq!(Broker::new("http://h", &"a\nb".into(), None).err(), Some(BadBroker::Key));
        let broker = of("http://[::1]:7300/broker/").unwrap();
        assert_eq!((broker.authority.as_str(), broker.path.as_str()), ("[::1]:7300", "/broker/v1alpha/iceconfig"));
        assert!(!format!("{broker:?}").contains("secret-key"));
        assert!(of("https://broker.example").is_ok_and(|broker| broker.port == 443 && broker.tls.is_some()));
    }

    #[test]
    fn answers_are_read_with_bounds() {
        let lifetime = |text: &str| {
            read(format!(r#"{{"lifetimeDuration":"{text}","iceServers":[]}}"#).as_bytes())
                .map(|minted| minted.lifetime)
        };
        assert_eq!(lifetime("3600.000s"), Ok(Duration::from_secs(3600)));
        assert_eq!(lifetime("0s"), Ok(LIFETIME_MIN));
        assert_eq!(lifetime("1e15s"), Ok(LIFETIME_MAX));
        for bad in ["", "s", "60", "-1s", "NaNs", "1e300s"] {
            assert_eq!(lifetime(bad), Err(Failure::Answer), "{bad}");
        }
        let server = r#"{"urls":["turn:r:3478"],"username":"u","credential":"c"}"#;
        let many = vec![server; 40].join(",");
        let minted = read(format!(r#"{{"lifetimeDuration":"60s","iceServers":[{many}]}}"#).as_bytes()).unwrap();
        assert_eq!(minted.servers.len(), SERVERS_MAX);
        assert_eq!(minted.servers[0].credential.as_deref(), Some("c"));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_panics(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = read(&body);
        }
    }
}
