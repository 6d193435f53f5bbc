//! Participants whose network lets no UDP out.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod peer;

use peer::{Peer, args, dial, node_with};

#[tokio::test(flavor = "multi_thread")]
async fn participants_over_tcp_and_udp_hear_each_other() {
    let node = node_with(&args()).await;
    let (control, _events) = dial(&node).await;
    let mut framed = Peer::join_over_tcp(&control, "room", "framed", 11).await;
    let mut plain = Peer::join(&control, "room", "plain", 22).await;
    framed.hears("plain").await;
    plain.hears("framed").await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ice_tcp_there_is_no_candidate_and_no_port() {
    let node = node_with(&sfu::Args { no_ice_tcp: true, ..args() }).await;
    let (control, _events) = dial(&node).await;
    let peer = Peer::join(&control, "room", "peer", 11).await;
    assert!(peer.joined.candidates.iter().all(|candidate| candidate.protocol == sfu_control::Protocol::Udp));
    let port = peer.joined.candidates[0].port;
    let refused = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    node.end().await;
}
