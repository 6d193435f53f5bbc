use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;

use super::*;

/// A broker whose answers are numbered.
struct Desk {
    server: admin::server::Server,
    asked: Arc<AtomicUsize>,
}

#[derive(Clone)]
struct Rules {
    asked: Arc<AtomicUsize>,
    lifetime: &'static str,
}

impl Desk {
    async fn open(lifetime: &'static str) -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let rules = Rules { asked: Arc::clone(&asked), lifetime };
        let router = Router::new().route("/v1alpha/iceconfig", post(mint)).with_state(rules);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = admin::server::serve_router(listener, router, admin::server::Limits::default()).unwrap();
        Self { server, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn mint(
    State(rules): State<Rules>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    if headers["authorization"] != "Bearer the-key" {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let (n, person) = (rules.asked.fetch_add(1, Ordering::Relaxed), &query["username"]);
    let server = format!(r#"{{"urls":["turn:r:3478"],"username":"{n}:{person}","credential":"c"}}"#);
    Ok(format!(r#"{{"lifetimeDuration":"{}","iceServers":[{server}]}}"#, rules.lifetime))
}

fn source(address: std::net::SocketAddr, key: &str) -> (Arc<IceServers>, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    let broker = Broker::new(&format!("http://{address}"), &key.into(), None).unwrap();
    (IceServers::new(Some(broker), Arc::clone(&metrics)), metrics)
}

fn names(servers: &[IceServer]) -> Vec<&str> {
    servers.iter().filter_map(|server| server.username.as_deref()).collect()
}

#[tokio::test]
async fn sockets_of_a_person_share_one_request_and_people_do_not() {
    let desk = Desk::open("3600.000s").await;
    let (source, _) = source(desk.server.local_addr(), "the-key");
    let (mut one, mut other) = (source.feed("ada & co"), source.feed("ada & co"));
    let (first, second) = tokio::join!(one.first(), other.first());
    assert_eq!((names(&first), desk.asked()), (vec!["0:ada & co"], 1));
    assert_eq!(first, second);
    assert_eq!(names(&source.feed("ben").first().await), ["1:ben"]);
    assert_eq!(names(&source.feed("ada & co").first().await), ["0:ada & co"]);
    desk.server.stop().await;
}

#[tokio::test]
async fn new_ones_come_before_the_old_ones_expire() {
    let desk = Desk::open("1.000s").await;
    let (source, _) = source(desk.server.local_addr(), "the-key");
    let mut feed = source.feed("ada");
    let began = Instant::now();
    assert_eq!(names(&feed.first().await), ["0:ada"]);
    assert_eq!(names(&feed.next().await), ["1:ada"]);
    assert!(began.elapsed() >= Duration::from_millis(800), "not before they are needed");
    desk.server.stop().await;
}

#[tokio::test]
async fn a_wait_that_is_given_up_again_and_again_still_ends() {
    let desk = Desk::open("1.000s").await;
    let (source, _) = source(desk.server.local_addr(), "the-key");
    let mut feed = source.feed("ada");
    feed.first().await;
    let got = loop {
        if let Ok(servers) = timeout(Duration::from_millis(3), feed.next()).await {
            break servers;
        }
    };
    assert_eq!(names(&got), ["1:ada"]);
    desk.server.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_gone_delays_nobody_and_is_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (source, metrics) = source(address, "the-key");
    let mut feed = source.feed("ada");
    assert!(feed.first().await.is_empty());
    assert!(source.is_down());
    assert_eq!(metrics.welcomes_without_relay.get(), 1);
    let asked = Arc::new(AtomicUsize::new(7));
    let router =
        Router::new().route("/v1alpha/iceconfig", post(mint)).with_state(Rules { asked, lifetime: "60.000s" });
    let listener = TcpListener::bind(address).await.unwrap();
    let server = admin::server::serve_router(listener, router, admin::server::Limits::default()).unwrap();
    assert_eq!(names(&feed.next().await), ["7:ada"]);
    server.stop().await;
}

#[tokio::test]
async fn a_silent_broker_holds_up_the_first_join_for_a_second_and_the_next_not_at_all() {
    // Takes connections, as a kernel does, and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // The machine may stall in one of them; each has a source that knows nothing yet.
    let mut firsts = Vec::new();
    let (source, metrics) = loop {
        let (source, metrics) = source(listener.local_addr().unwrap(), "the-key");
        let began = Instant::now();
        assert!(source.feed("ada").first().await.is_empty());
        let first = began.elapsed();
        assert!(first >= WELCOME_WAIT_MAX, "{first:?}");
        firsts.push(first);
        if first < ASK_TIME_MAX || firsts.len() == 3 {
            break (source, metrics);
        }
    };
    assert!(firsts.iter().any(|first| *first < ASK_TIME_MAX), "not until its request ends: {firsts:?}");
    // Its request ends, and with it the patience of joins.
    assert!(source.fresh("ada").await.is_none());
    assert!(source.is_down());
    // The machine may stall in one of them.
    let mut shortest = Duration::MAX;
    for person in ["ben", "cleo", "dan"] {
        let began = Instant::now();
        assert!(source.feed(person).first().await.is_empty());
        shortest = shortest.min(began.elapsed());
    }
    assert!(shortest < WELCOME_WAIT_MAX, "{shortest:?}");
    assert_eq!(metrics.welcomes_without_relay.get(), 4);
}

#[tokio::test]
async fn a_broker_that_refuses_us_leaves_calls_without_a_relay() {
    let desk = Desk::open("60.000s").await;
    let (source, metrics) = source(desk.server.local_addr(), "another-key");
    assert!(source.feed("ada").first().await.is_empty());
    assert_eq!((desk.asked(), metrics.welcomes_without_relay.get()), (0, 1));
    assert!(source.people().is_empty(), "nothing is kept of a failure");
    desk.server.stop().await;
}

#[tokio::test]
async fn without_a_broker_nobody_asks_and_nothing_is_missed() {
    let metrics = Arc::new(Metrics::default());
    let source = IceServers::new(None, Arc::clone(&metrics));
    let mut feed = source.feed("ada");
    assert!(feed.first().await.is_empty());
    assert_eq!(metrics.welcomes_without_relay.get(), 0);
    assert!(timeout(Duration::from_millis(1), feed.next()).await.is_err());
}

/// What a balancer does in front of a broker: TLS outside, HTTP inside.
async fn tls_before(http: std::net::SocketAddr, folder: &std::path::Path) -> std::net::SocketAddr {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(folder.join("broker.pem"), pair.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((outside, _)) = listener.accept().await {
            let Ok(mut outside) = acceptor.accept(outside).await else { continue };
            let mut inside = tokio::net::TcpStream::connect(http).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
        }
    });
    address
}

#[tokio::test]
async fn a_broker_over_tls_is_asked_only_when_its_certificate_is_trusted() {
    let (desk, folder) = (Desk::open("3600.000s").await, tempfile::tempdir().unwrap());
    let port = tls_before(desk.server.local_addr(), folder.path()).await.port();
    let trust = folder.path().join("broker.pem");
    let ask = async |url: String, trust: &std::path::Path| {
        let broker = Broker::new(&url, &"the-key".into(), Some(trust)).unwrap();
        IceServers::new(Some(broker), Arc::default()).feed("ada").first().await
    };
    assert_eq!(names(&ask(format!("https://localhost:{port}"), &trust).await), ["0:ada"]);
    assert!(ask(format!("https://127.0.0.1:{port}"), &trust).await.is_empty(), "that is not its name");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    std::fs::write(folder.path().join("other.pem"), other.cert.pem()).unwrap();
    assert!(ask(format!("https://localhost:{port}"), &folder.path().join("other.pem")).await.is_empty());
    assert_eq!(desk.asked(), 1, "nobody without trust got through to it");
    desk.server.stop().await;
}

#[test]
fn trust_without_a_certificate_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "no certificate").unwrap();
    for path in [file.path(), std::path::Path::new("/nonexistent/broker.pem")] {
        let refused = Broker::new("https://broker.example", &"k".into(), Some(path)).err();
        assert_eq!(refused, Some(BadBroker::Trust(path.to_owned())));
    }
}
