//! The ICE servers of a welcome, and those that come later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use signaling::Args;
use signaling_protocol::{IceServer, Role, ServerMessage};
use tokio::net::TcpListener;

use crate::stack::{Stack, args};

const KEY: &str = "signaling-key-of-the-tests";

/// A broker that numbers its credentials, which last for a second.
async fn broker() -> admin::server::Server {
    let minted = Arc::new(AtomicUsize::new(1));
    let router = Router::new().route("/v1alpha/iceconfig", post(mint)).with_state(minted);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    admin::server::serve_router(listener, router, admin::server::Limits::default()).unwrap()
}

async fn mint(State(minted): State<Arc<AtomicUsize>>, headers: HeaderMap) -> String {
    assert_eq!(headers["authorization"], format!("Bearer {KEY}"));
    let n = minted.fetch_add(1, Ordering::Relaxed);
    format!(
        r#"{{"lifetimeDuration":"1.000s","iceServers":[
            {{"urls":["turn:r:3478?transport=udp"],"username":"{n}","credential":"c"}},{{"urls":["stun:s:3478"]}}]}}"#
    )
}

fn with_broker(address: std::net::SocketAddr) -> Args {
    Args { broker: Some(format!("http://{address}")), broker_key: Some(KEY.into()), ..args() }
}

fn username(servers: &[IceServer]) -> Option<&str> {
    servers.first()?.username.as_deref()
}

#[tokio::test]
async fn a_welcome_has_the_brokers_servers_and_new_ones_follow() {
    let broker = broker().await;
    let stack = Stack::with(with_broker(broker.local_addr())).await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    let number = |servers: &[IceServer]| username(servers).unwrap().parse::<u32>().unwrap();
    let first = number(&ada.welcome.ice_servers);
    assert_eq!(ada.welcome.ice_servers[1].urls, ["stun:s:3478"]);
    let renewed = loop {
        if let ServerMessage::IceServers { ice_servers } = ada.next().await {
            break ice_servers;
        }
    };
    assert!(number(&renewed) > first, "{renewed:?}");
    broker.stop().await;
}

#[tokio::test]
async fn calls_go_on_without_a_broker() {
    let broker = broker().await;
    let address = broker.local_addr();
    broker.stop().await;
    let stack = Stack::with(with_broker(address)).await;
    let ada = stack.join("demo", "ada", Role::Speaker).await;
    assert!(ada.welcome.ice_servers.is_empty());
    let metrics = stack.admin("GET", "/metrics", "", "").await;
    assert!(metrics.contains("signaling_welcomes_without_relay_total 1"), "{metrics}");
    assert!(metrics.contains(r#"signaling_broker_requests_total{result="unreachable"} 1"#), "{metrics}");
}

#[test]
fn a_broker_without_a_key_is_refused() {
    let refused = signaling::Config::load(Args { broker: Some("http://127.0.0.1:7300".into()), ..args() });
    assert!(refused.unwrap_err().to_string().contains("--broker-key-file"));
    let refused =
        signaling::Config::load(Args { broker_key: Some(KEY.into()), broker: Some("nowhere".into()), ..args() });
    assert!(refused.unwrap_err().to_string().contains("http://"));
}
