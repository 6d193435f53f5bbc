//! Sockets that break, and what comes back.

use sfu_control::NodeEvent;
use signaling_protocol::Role;

use crate::stack::{Stack, args, eventually, fixture};

#[tokio::test]
async fn broken_socket_is_resumed_with_its_media() {
    let (stack, node) = Stack::with_node().await;
    let ada = stack.join("demo", "ada", Role::Speaker).await;
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
    let mut bob = stack.join("demo", "bob", Role::Listener).await;
    let before = ada.vanish();
    assert!(bob.line_of(&before.peer).await.away);
    let ada = stack.resume("demo", &before.resume).await.unwrap();
    assert_eq!((ada.peer(), ada.welcome.resumed), (before.peer.as_str(), true));
    assert!(!bob.line_of(&before.peer).await.away);
    assert_eq!(node.peers().len(), 1);
    // The offer of the connection that stands gets the same answer again.
    assert!(ada.offer(&fixture("chromium-speaker")).await.unwrap().contains("a=ice-ufrag:node"));
    assert_eq!(node.peers(), [format!("{}.1", before.peer)]);
}

#[tokio::test]
async fn second_resume_replaces_the_first_socket() {
    let stack = Stack::start().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    let token = ada.welcome.resume.clone();
    let mut second = stack.resume("demo", &token).await.unwrap();
    assert_eq!(ada.moved().await, "replaced");
    assert!(ada.client.closed().await.to_string().contains("4000"));
    let third = stack.resume("demo", &token).await.unwrap();
    assert_eq!(second.moved().await, "replaced");
    assert_eq!(third.welcome.roster.len(), 1);
    assert!(!third.welcome.roster[0].away);
}

#[tokio::test]
async fn grace_ends_the_participation() {
    let stack = Stack::with(signaling::Args { resume_grace_ms: Some(1000), ..args() }).await;
    let ada = stack.join("demo", "ada", Role::Speaker).await;
    let mut bob = stack.join("demo", "bob", Role::Listener).await;
    let before = ada.vanish();
    assert_eq!(bob.left(&before.peer).await, "lost");
    let (client, _messages) = stack.connect("demo").await;
    let resume = signaling_protocol::client::Credential::Resume(before.resume);
    // A resume that may still belong to a call of a node that is not known yet waits for it; the others are refused.
    let error = client.hello(resume, None).await.unwrap_err();
    assert_eq!(error.code(), Some("resume_expired"));
    // The same socket may still say hello with a token.
    let token = crate::stack::token("demo", "ada", Role::Speaker);
    client.hello(signaling_protocol::client::Credential::Token(token), None).await.unwrap();
}

#[tokio::test]
async fn killed_client_is_off_the_roster_when_the_node_hears_nothing() {
    let (stack, node) = Stack::with_node().await;
    let ada = stack.join("demo", "ada", Role::Speaker).await;
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
    let mut bob = stack.join("demo", "bob", Role::Listener).await;
    let before = ada.vanish();
    let since = tokio::time::Instant::now();
    node.emit(NodeEvent::Idle { peer: format!("{}.1", before.peer) });
    assert_eq!(bob.left(&before.peer).await, "lost");
    assert!(since.elapsed().as_secs() < 9, "{:?}", since.elapsed());
    eventually("the node lost the peer", async || node.peers().is_empty()).await;
}

#[tokio::test]
async fn closed_page_leaves_at_once() {
    let stack = Stack::start().await;
    let mut bob = stack.join("demo", "bob", Role::Listener).await;
    let url = stack.url("demo");
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;
    let token = crate::stack::token("demo", "ada", Role::Speaker);
    let hello = serde_json::json!({"type": "hello", "id": 1, "token": token});
    socket.send(Message::text(hello.to_string())).await.unwrap();
    socket.next().await.unwrap().unwrap();
    let peer = bob
        .until(|message| match message {
            signaling_protocol::ServerMessage::Joined { member } => Some(member.peer),
            _ => None,
        })
        .await;
    let away = CloseFrame { code: 1001.into(), reason: "".into() };
    socket.close(Some(away)).await.unwrap();
    assert_eq!(bob.left(&peer).await, "left");
}
