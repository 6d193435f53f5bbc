//! Media nodes that come, break, die, and outlive the signalling process.

use std::time::Duration;

use sfu_control::NodeEvent;
use signaling_protocol::{Role, ServerMessage};

use crate::media_node::MediaNode;
use crate::stack::{CONTROL_TOKEN, Stack, eventually, fixture};

#[tokio::test]
async fn heartbeats_need_the_control_token_and_the_right_form() {
    let stack = Stack::start().await;
    let node = MediaNode::start("node-a").await;
    let body = serde_json::to_string(&node.heartbeat()).unwrap();
    for token in ["", "wrong", "control-token-of-the-test"] {
        assert!(stack.admin("POST", "/v1/nodes", token, &body).await.starts_with("HTTP/1.1 401"), "{token}");
    }
    assert!(stack.admin("POST", "/v1/nodes", CONTROL_TOKEN, "{}").await.starts_with("HTTP/1.1 400"));
    let nameless = body.replace("node-a", "");
    assert!(stack.admin("POST", "/v1/nodes", CONTROL_TOKEN, &nameless).await.starts_with("HTTP/1.1 400"));
    assert!(stack.admin("GET", "/v1/nodes", "", "").await.ends_with("{}"));
}

#[tokio::test]
async fn a_linked_node_is_listed_with_its_media_addresses_for_relays() {
    let (stack, node) = Stack::with_node().await;
    let answer = stack.admin("GET", "/v1/nodes", "", "").await;
    let nodes: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(nodes[&node.heartbeat().node]["media"], serde_json::json!(["127.0.0.1:40000"]));
}

#[tokio::test]
async fn ready_means_that_a_node_is_linked() {
    let stack = Stack::start().await;
    assert!(stack.admin("GET", "/readyz", "", "").await.starts_with("HTTP/1.1 503"));
    assert!(stack.admin("GET", "/livez", "", "").await.starts_with("HTTP/1.1 200"));
    let node = MediaNode::start("node-a").await;
    stack.announce(&node).await;
    eventually("ready", async || stack.admin("GET", "/readyz", "", "").await.starts_with("HTTP/1.1 200")).await;
    let metrics = stack.admin("GET", "/metrics", "", "").await;
    assert!(metrics.contains("signaling_nodes_linked 1"), "{metrics}");
    node.kill();
    eventually("not ready", async || stack.admin("GET", "/readyz", "", "").await.starts_with("HTTP/1.1 503")).await;
}

/// After so long signalling gives up a node that it cannot reach, without having been refused.
const LOST_AFTER: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn killed_node_is_told_at_once_and_the_next_one_takes_the_room() {
    // The machine may stall in one of them.
    let mut took = Vec::new();
    while took.len() < 3 && took.iter().all(|time| *time >= LOST_AFTER) {
        took.push(kill_a_node_of_two().await);
    }
    assert!(took.iter().any(|time| *time < LOST_AFTER), "{took:?}");
}

/// How long it takes until that is told.
async fn kill_a_node_of_two() -> Duration {
    let (stack, node) = Stack::with_node().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
    let spare = MediaNode::start("node-b").await;
    stack.announce(&spare).await;
    let since = tokio::time::Instant::now();
    node.kill();
    assert_eq!(ada.moved().await, "node_lost");
    let took = since.elapsed();
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
    assert_eq!(spare.peers().len(), 1);
    took
}

#[tokio::test]
async fn broken_link_is_mended_and_nobody_notices() {
    let (stack, node) = Stack::with_node().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
    let node_peer = format!("{}.1", ada.peer());
    node.break_links();
    let links = || node.operations().iter().filter(|op| matches!(op, sfu_control::Operation::Snapshot {})).count();
    eventually("a second snapshot", async || links() >= 2).await;
    // The link carries events and calls again.
    let peer = ada.peer().to_owned();
    node.connect(&node_peer);
    ada.line_where(&peer, |line| line.connected).await;
    ada.client.mute(signaling_protocol::TrackKind::Mic, true, None).await.unwrap();
    while let Ok(message) = ada.messages.try_recv() {
        assert!(!matches!(message, ServerMessage::Moved { .. }), "{message:?}");
    }
}

#[tokio::test]
async fn node_that_forgot_a_peer_makes_it_offer_again() {
    let (stack, node) = Stack::with_node().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
    node.emit(NodeEvent::Gone { peer: format!("{}.1", ada.peer()), reason: "consent_expired".into() });
    assert_eq!(ada.moved().await, "media_lost");
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
}

#[tokio::test]
async fn draining_node_gets_no_new_room() {
    let (stack, node) = Stack::with_node().await;
    let ada = stack.join("old", "ada", Role::Speaker).await;
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
    node.emit(NodeEvent::Draining { on: true });
    eventually("the drain is known", async || {
        stack.admin("GET", "/v1/nodes", "", "").await.contains(r#""draining":true"#)
    })
    .await;
    let bob = stack.join("new", "bob", Role::Speaker).await;
    assert_eq!(bob.offer(&fixture("chromium-speaker")).await.unwrap_err().code(), Some("no_node"));
    let spare = MediaNode::start("node-b").await;
    stack.announce(&spare).await;
    bob.offer(&fixture("chromium-speaker")).await.unwrap();
    assert_eq!((node.peers().len(), spare.peers().len()), (1, 1));
}

/// kill -9 of signalling: nothing is said, the ports are simply gone. A new process gets all it needs from the node.
#[tokio::test]
async fn new_process_takes_over_what_the_node_holds() {
    let node = MediaNode::start("node-a").await;
    let before = {
        let stack = Stack::start().await;
        stack.announce(&node).await;
        let ada = stack.join("demo", "ada", Role::Speaker).await;
        ada.offer(&fixture("chromium-speaker")).await.unwrap();
        node.connect(&format!("{}.1", ada.peer()));
        ada.welcome
    };
    let stack = Stack::start().await;
    // The client is faster than the node's next heartbeat: its resume waits.
    let (resumed, ()) = tokio::join!(stack.resume("demo", &before.resume), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stack.announce(&node).await;
    });
    let resumed = resumed.unwrap();
    assert_eq!((resumed.peer(), resumed.welcome.resumed), (before.peer.as_str(), true));
    let line = &resumed.welcome.roster[0];
    assert_eq!((line.identity.as_str(), line.connected, line.away, line.tracks.len()), ("ada", true, false, 2));
    assert_eq!(node.peers(), [format!("{}.1", before.peer)], "the media was not touched");
    resumed.client.leave().await.unwrap();
    eventually("the node lost the peer", async || node.peers().is_empty()).await;
}
