use std::sync::LazyLock;

use axum::body::{Body, to_bytes};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::super::config::Config;
use super::*;

const NOW: u64 = 1_703_083_272;
static START: LazyLock<Instant> = LazyLock::new(Instant::now);
const KEY: &str = "desk-key-of-16-bytes";
const TOKEN_SECRET: &str = "0123456789abcdef0123456789abcdef";

fn settings() -> Value {
    json!({
        "secret": ["north-secret-of-the-tests", "older"],
        "api_key": [format!("desk:{KEY}"), "other:other-key-of-16-b"],
        "token_keys": [format!("a:{TOKEN_SECRET}")],
        "relay": ["turns:turn.example.org:5349 turn:turn.example.org:3478 check=none"],
        "rtc_configuration":
            "{'iceServers':[{'urls':'stun:stun.example.org:19302'}],'iceTransportPolicy':'all','iceCandidatePoolSize':1}",
        "allow_origin": ["https://desk.example"],
    })
}

/// The broker without a port, under a clock that stands still.
struct Bench {
    desk: Arc<Desk>,
    router: Router,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Bench {
    fn new(settings: Value) -> Self {
        let desk = Arc::new(Desk::new(Config::of_json(settings).unwrap(), *START));
        let clock: Clock = || (*START, NOW);
        Self { router: router(Arc::clone(&desk), clock), desk }
    }

    fn with(key: &str, value: Value) -> Self {
        let mut settings = settings();
        settings[key] = value;
        Self::new(settings)
    }

    async fn ask(&self, line: &str) -> Answer {
        self.ask_from("192.0.2.1", line, &[]).await
    }

    async fn ask_from(&self, address: &str, line: &str, headers: &[(&str, &str)]) -> Answer {
        let (method, uri) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        let address = SocketAddr::new(address.parse().unwrap(), 1);
        request.extensions_mut().insert(ConnectInfo(address));
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 64 * 1024).await.unwrap();
        Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

fn token(sub: &str) -> String {
    let header = Header { kid: Some("a".into()), ..Header::new(jsonwebtoken::Algorithm::HS256) };
    let claims = json!({"room": "demo", "sub": sub, "role": "listener", "exp": NOW + 60});
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(TOKEN_SECRET.as_bytes())).unwrap()
}

fn fixture(name: &str) -> String {
    let path = format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap().trim_end().to_owned()
}

#[tokio::test]
async fn every_form_is_the_recorded_one_to_the_byte() {
    let bench = Bench::new(settings());
    for (line, file) in [
        ("GET /v1/rtc-configuration", "broker-rtc-configuration.json"),
        ("POST /v1/rtc-configuration", "broker-rtc-configuration.json"),
        ("GET /v1/ice-servers", "broker-ice-servers.json"),
        ("GET /turn", "broker-turn.json"),
        ("GET /?service=turn", "broker-turn.json"),
        ("POST /v1alpha/iceconfig", "broker-iceconfig.json"),
    ] {
        let separator = if line.contains('?') { '&' } else { '?' };
        let answer = bench.ask(&format!("{line}{separator}username=ada&key={KEY}")).await;
        assert_eq!(answer.body, fixture(file), "{line}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    }
    let links = bench.ask(&format!("GET /v1/links?username=ada&key={KEY}")).await;
    assert_eq!((links.status, links.body.as_str()), (StatusCode::NO_CONTENT, ""));
    let lines = links.headers.get_all(header::LINK).iter().map(|link| link.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(lines.join("\n"), fixture("broker-links.txt"));
}

#[tokio::test]
async fn abcdesktops_configuration_gives_what_its_own_broker_gave() {
    let file = format!("{}/fixtures/od.config.webrtc", env!("CARGO_MANIFEST_DIR"));
    let bench = Bench::new(json!({"dev": true, "abcdesktop_config": file, "api_key": ["desk:k"]}));
    let answer = bench.ask("POST /v1/rtc-configuration?key=k").await;
    assert_eq!(answer.body, fixture("broker-abcdesktop.json"));
    let mut shape: Value = serde_json::from_str(&fixture("rtc-configuration.json")).unwrap();
    shape.as_object_mut().unwrap().remove("note");
    shape["iceServers"][1]["credential"] = answer.json()["iceServers"][1]["credential"].clone();
    assert_eq!(answer.json(), shape, "the shape of the document that the pages know");
}

#[tokio::test]
async fn a_person_gets_their_own_pseudonym_whatever_they_ask_for() {
    let bench = Bench::new(settings());
    let bearer = |sub: &str| format!("Bearer {}", token(sub));
    let name = async |headers: &[(&str, &str)], query: &str| {
        let answer = bench.ask_from("192.0.2.1", &format!("GET /turn{query}"), headers).await;
        answer.json()["username"].as_str().unwrap().to_owned()
    };
    let ada = name(&[("authorization", &bearer("ada"))], "").await;
    assert_eq!(ada, name(&[("authorization", &bearer("ada"))], "?username=bob").await);
    assert_eq!(ada, name(&[], &format!("?key={}", token("ada"))).await);
    assert_ne!(ada, name(&[("authorization", &bearer("bob"))], "").await);
    let by_program = name(&[("authorization", &format!("bearer {KEY}"))], "?username=ada").await;
    assert_ne!(ada, by_program, "programs have a name space of their own");
    assert!(!ada.contains("ada"), "{ada}");
}

#[tokio::test]
async fn strangers_are_refused_without_a_hint_of_why() {
    let bench = Bench::with("failures_per_min", json!(1000));
    let mut expired = token("ada");
    expired.push('x');
    for presented in ["", "wrong", "desk", "desk-key-of-16-byte", &expired, "%00", "a.b.c"] {
        let answer = bench.ask(&format!("GET /turn?key={presented}")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (StatusCode::UNAUTHORIZED, "unauthorized"),
            "{presented}"
        );
        assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    }
}

#[tokio::test]
async fn lifetimes_are_honoured_and_capped() {
    let bench = Bench::with("ttl_max", json!(7200));
    for (wanted, given) in [("60", 60), ("7200", 7200), ("7201", 7200), ("99999999999999999999", 7200)] {
        let answer = bench.ask(&format!("GET /turn?key={KEY}&ttl={wanted}")).await.json();
        assert_eq!(answer["ttl"], given);
        let expiry = format!("{}:", NOW + given);
        assert!(answer["username"].as_str().unwrap().starts_with(&expiry), "{answer}");
    }
}

#[tokio::test]
async fn hostile_queries_are_refused() {
    let bench = Bench::new(settings());
    for query in [
        "ttl=0",
        "ttl=",
        "ttl=-1",
        "ttl=%2B5",
        "ttl=1e3",
        "ttl=٣",
        "service=stun",
        "username=a&username=b",
        "key=desk-key-of-16-bytes",
        &format!("username={}", "x".repeat(129)),
    ] {
        let answer = bench.ask(&format!("GET /turn?key={KEY}&{}", query.replace('٣', "%D9%A3"))).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::BAD_REQUEST, "bad_request"), "{query}");
    }
    assert_eq!(bench.ask(&format!("GET /?key={KEY}")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(bench.ask("GET /v1/other").await.status, StatusCode::NOT_FOUND);
    assert_eq!(bench.ask("GET /v1alpha/iceconfig").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let hostile = "GET /v1/links?username=%22%0d%0aSet-Cookie:%20x&key=desk-key-of-16-bytes";
    let answer = bench.ask(hostile).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(!answer.headers.contains_key(header::SET_COOKIE));
}

#[tokio::test]
async fn each_caller_and_each_address_has_its_rate() {
    let bench = Bench::with("person_per_min", json!(2));
    let ask = async |bench: &Bench, address: &str, sub: &str| {
        bench.ask_from(address, &format!("GET /turn?key={}", token(sub)), &[]).await
    };
    assert_eq!(ask(&bench, "192.0.2.1", "ada").await.status, StatusCode::OK);
    assert_eq!(ask(&bench, "192.0.2.2", "ada").await.status, StatusCode::OK);
    let third = ask(&bench, "192.0.2.3", "ada").await;
    assert_eq!((third.status, third.code().as_str()), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
    let wait: u64 = third.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((29..=31).contains(&wait), "{wait}");
    assert_eq!(ask(&bench, "192.0.2.3", "bob").await.status, StatusCode::OK);

    let bench = Bench::with("address_per_s", json!(1));
    assert_eq!(ask(&bench, "2001:db8::1", "ada").await.status, StatusCode::OK);
    assert_eq!(ask(&bench, "2001:db8::2", "bob").await.status, StatusCode::TOO_MANY_REQUESTS, "of one site");
    assert_eq!(ask(&bench, "2001:db8:0:1::", "eve").await.status, StatusCode::OK);
    let program = bench.ask_from("2001:db8::3", &format!("GET /turn?key={KEY}"), &[]).await;
    assert_eq!(program.status, StatusCode::OK, "programs ask for many people");
}

#[tokio::test]
async fn who_guesses_is_not_compared_any_more() {
    let bench = Bench::with("failures_per_min", json!(3));
    for _ in 0..3 {
        assert_eq!(bench.ask("GET /turn?key=guess").await.status, StatusCode::UNAUTHORIZED);
    }
    let right = bench.ask(&format!("GET /turn?key={KEY}")).await;
    assert_eq!(right.status, StatusCode::TOO_MANY_REQUESTS, "even the right key tells nothing now");
    let elsewhere = bench.ask_from("192.0.2.9", &format!("GET /turn?key={KEY}"), &[]).await;
    assert_eq!(elsewhere.status, StatusCode::OK);
}

#[tokio::test]
async fn who_shows_nothing_locks_nobody_out() {
    let bench = Bench::with("failures_per_min", json!(1));
    for _ in 0..5 {
        assert_eq!(bench.ask("GET /turn").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(bench.ask(&format!("GET /turn?key={KEY}")).await.status, StatusCode::OK);
    let bench = Bench::with("address_per_s", json!(1));
    assert_eq!(bench.ask("GET /turn").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.ask("GET /turn").await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn only_a_trusted_proxy_tells_addresses() {
    let mut settings = settings();
    settings["failures_per_min"] = json!(1);
    settings["trusted_proxy"] = json!(["198.51.100.1"]);
    let bench = Bench::new(settings);
    let guess = async |peer: &str, forwarded: &str| {
        bench.ask_from(peer, "GET /turn?key=guess", &[("x-forwarded-for", forwarded)]).await.status
    };
    assert_eq!(guess("198.51.100.1", "203.0.113.1, 192.0.2.7").await, StatusCode::UNAUTHORIZED);
    assert_eq!(guess("198.51.100.1", "203.0.113.2, 192.0.2.7").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(guess("198.51.100.1", "192.0.2.8").await, StatusCode::UNAUTHORIZED);
    assert_eq!(guess("192.0.2.9", "192.0.2.10").await, StatusCode::UNAUTHORIZED);
    assert_eq!(guess("192.0.2.9", "192.0.2.11").await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn listed_pages_alone_may_read_answers() {
    let bench = Bench::new(settings());
    let line = format!("GET /turn?key={KEY}");
    for (origin, allowed) in [("https://desk.example", true), ("https://evil.example", false), ("null", false)] {
        let answer = bench.ask_from("192.0.2.1", &line, &[("origin", origin)]).await;
        let header = answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|value| value.to_str().unwrap());
        assert_eq!(header, allowed.then_some(origin));
        assert_eq!(answer.headers[header::VARY], "Origin");
        let preflight = bench.ask_from("192.0.2.1", "OPTIONS /v1/ice-servers", &[("origin", origin)]).await;
        assert_eq!(preflight.status == StatusCode::NO_CONTENT, allowed, "{origin}");
        assert_eq!(preflight.headers.contains_key(header::ACCESS_CONTROL_ALLOW_HEADERS), allowed);
    }
}

#[tokio::test]
async fn a_rotated_secret_signs_from_the_update_on() {
    let bench = Bench::new(settings());
    let line = format!("GET /turn?key={KEY}&username=ada");
    let before = bench.ask(&line).await;
    let mut rotated = settings();
    rotated["secret"] = json!(["newest", "north-secret-of-the-tests"]);
    bench.desk.update(Config::of_json(rotated).unwrap());
    let after = bench.ask(&line).await;
    assert_ne!(before.json()["password"], after.json()["password"]);
    let alone = Bench::with("secret", json!(["newest"])).ask(&line).await;
    assert_eq!(after.body, alone.body);
}

#[tokio::test]
async fn urls_are_a_text_or_a_list_as_configured() {
    let answer = Bench::with("urls", json!("string")).ask(&format!("GET /v1/ice-servers?key={KEY}")).await.json();
    let urls = answer.as_array().unwrap()[1..].iter().map(|server| server["urls"].as_str().unwrap());
    assert_eq!(
        urls.collect::<Vec<_>>(),
        [
            "turn:turn.example.org:3478?transport=udp",
            "turn:turn.example.org:3478?transport=tcp",
            "turns:turn.example.org:5349?transport=tcp"
        ]
    );
}

#[tokio::test]
async fn people_are_spread_over_relays_and_stay_with_theirs() {
    let relays = (0..8).map(|n| format!("turns:r{n} turn:r{n} check=none")).collect::<Vec<_>>();
    let bench = Bench::with("relay", json!(relays));
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..40 {
        let line = format!("GET /turn?key={KEY}&username=u{user}");
        let uris = bench.ask(&line).await.json()["uris"].as_array().unwrap().clone();
        assert_eq!(bench.ask(&line).await.json()["uris"].as_array().unwrap(), &uris);
        let texts = uris.iter().map(|uri| uri.as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(texts.len(), 6, "two relays with three each");
        assert!(texts[..2].iter().all(|uri| uri.ends_with("=udp")), "{texts:?}");
        assert!(texts[2..4].iter().all(|uri| uri.starts_with("turn:") && uri.ends_with("=tcp")), "{texts:?}");
        assert!(texts[4..].iter().all(|uri| uri.starts_with("turns:")), "{texts:?}");
        seen.extend(texts.into_iter().map(str::to_owned));
    }
    assert_eq!(seen.len(), 24, "all of them are in use");
}

#[tokio::test]
async fn without_a_relay_stun_is_left_and_the_classic_form_says_so() {
    let bench = Bench::with("relay", json!([]));
    let classic = bench.ask(&format!("GET /turn?key={KEY}")).await;
    assert_eq!((classic.status, classic.code().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no_relay"));
    assert!(classic.headers.contains_key(header::RETRY_AFTER));
    let servers = bench.ask(&format!("GET /v1/ice-servers?key={KEY}")).await;
    assert_eq!(servers.body, r#"[{"urls":"stun:stun.example.org:19302"}]"#);
}

#[tokio::test]
async fn no_series_names_a_caller() {
    let bench = Bench::new(settings());
    bench.ask(&format!("GET /turn?key={KEY}&username=ada")).await;
    bench.ask("GET /turn?key=wrong").await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &bench.desk.meters.registry()).unwrap();
    assert!(text.contains("broker_credentials_total{form=\"classic\"} 1"), "{text}");
    assert!(text.contains("broker_refusals_total{reason=\"credential\"} 1"), "{text}");
    assert!(!text.contains("ada") && !text.contains("wrong") && !text.contains("desk"), "{text}");
}

#[tokio::test]
async fn a_sha256_secret_signs_where_there_is_no_other() {
    let password_of = async |settings: Value| {
        let answer = Bench::new(settings).ask(&format!("GET /turn?username=ada&key={KEY}")).await.json();
        (answer["username"].as_str().unwrap().to_owned(), answer["password"].as_str().unwrap().to_owned())
    };
    let signed = |username: &str, secret: &str| {
        use hmac::Mac as _;
        let mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            mac.chain_update(username).finalize().into_bytes(),
        )
    };
    let mut settings = settings();
    settings["secret_sha256"] = json!(["strong-secret-of-the-tests"]);
    let (username, password) = password_of(settings.clone()).await;
    assert_ne!(password, signed(&username, "strong-secret-of-the-tests"), "SHA-1 secrets come first");
    settings.as_object_mut().unwrap().remove("secret");
    let (username, password) = password_of(settings).await;
    assert_eq!(password, signed(&username, "strong-secret-of-the-tests"));
}
