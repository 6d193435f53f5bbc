//! The client against a node played by the test, over a loopback socket.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sfu_control::{
    CallError, CloseReason, ConnectError, ControlClient, EVENTS_WAITING_MAX, NODE_MESSAGE_BYTES_MAX, NodeEvent,
    Operation, ReplyBody,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async};

const HELLO: &str = include_str!("../fixtures/node/hello.json");
const TOKEN: &str = "a-shared-token";

struct Node {
    socket: WebSocketStream<TcpStream>,
}

impl Node {
    /// A connected pair.
    async fn with_client() -> (Self, ControlClient, mpsc::Receiver<NodeEvent>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/v1/control", listener.local_addr().unwrap());
        let accepting = tokio::spawn(async move {
            let socket = accept_async(listener.accept().await.unwrap().0).await.unwrap();
            let mut node = Self { socket };
            node.send(HELLO).await;
            node
        });
        let (client, events, hello) = ControlClient::connect(&url, TOKEN).await.unwrap();
        assert_eq!(hello.node, "n-1");
        (accepting.await.unwrap(), client, events)
    }

    async fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    async fn request(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.next().await.unwrap().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }
}

fn leave(peer: &str) -> Operation {
    Operation::Leave { peer: peer.to_owned() }
}

#[tokio::test]
async fn answers_reach_their_callers_in_any_order() {
    let (mut node, client, _events) = Node::with_client().await;
    let (first, second) = (client.clone(), client.clone());
    let first = tokio::spawn(async move { first.call(leave("one")).await });
    let one = node.request().await;
    let second = tokio::spawn(async move { second.call(leave("two")).await });
    let two = node.request().await;
    assert_eq!((&one["op"], &one["peer"], &two["peer"]), (&json!("leave"), &json!("one"), &json!("two")));
    node.send(&json!({"type":"reply","re":two["id"],"ok":{"kind":"done"}}).to_string()).await;
    assert_eq!(second.await.unwrap(), Ok(ReplyBody::Done {}));
    let error = json!({"code":"no_such_peer","message":"no such peer"});
    node.send(&json!({"type":"reply","re":one["id"],"error":error}).to_string()).await;
    let Err(CallError::Refused(refused)) = first.await.unwrap() else { panic!("not refused") };
    assert_eq!(refused.code, "no_such_peer");
}

#[tokio::test]
async fn a_call_gives_up_after_its_time_and_a_late_answer_harms_nobody() {
    let (mut node, client, _events) = Node::with_client().await;
    let late = client.call_within(leave("one"), Duration::from_millis(20)).await;
    assert_eq!(late, Err(CallError::Timeout));
    let id = node.request().await["id"].clone();
    node.send(&json!({"type":"reply","re":id,"ok":{"kind":"done"}}).to_string()).await;
    let next = tokio::spawn({
        let client = client.clone();
        async move { client.call(leave("two")).await }
    });
    let id = node.request().await["id"].clone();
    node.send(&json!({"type":"reply","re":id,"ok":{"kind":"done"}}).to_string()).await;
    assert_eq!(next.await.unwrap(), Ok(ReplyBody::Done {}));
}

#[tokio::test]
async fn a_killed_node_fails_waiting_calls_at_once() {
    let (mut node, client, mut events) = Node::with_client().await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call(leave("one")).await }
    });
    node.request().await;
    drop(node);
    let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap().unwrap();
    assert!(matches!(ended, Err(CallError::Closed(_))), "{ended:?}");
    assert!(events.recv().await.is_none());
    assert!(client.is_closed());
    assert!(matches!(client.call(leave("two")).await, Err(CallError::Closed(_))));
}

#[tokio::test]
async fn a_silent_node_is_found_dead() {
    let (node, client, _events) = Node::with_client().await;
    // Nothing reads on the node's side, so no pong comes.
    assert_eq!(client.closed().await, CloseReason::Silent);
    drop(node);
}

#[tokio::test]
async fn events_come_in_order_and_newer_ones_are_ignored() {
    let (mut node, _client, mut events) = Node::with_client().await;
    node.send(r#"{"type":"event","event":"idle","peer":"a"}"#).await;
    node.send(r#"{"type":"event","event":"levitates","peer":"a"}"#).await;
    node.send(r#"{"type":"poem","text":"…"}"#).await;
    node.send(r#"{"type":"event","event":"active","peer":"a"}"#).await;
    assert_eq!(events.recv().await, Some(NodeEvent::Idle { peer: "a".to_owned() }));
    assert_eq!(events.recv().await, Some(NodeEvent::Active { peer: "a".to_owned() }));
}

#[tokio::test]
async fn events_that_nobody_takes_end_the_link() {
    let (mut node, client, mut events) = Node::with_client().await;
    for _ in 0..=EVENTS_WAITING_MAX {
        node.socket.feed(Message::text(r#"{"type":"event","event":"idle","peer":"a"}"#)).await.unwrap();
    }
    node.socket.flush().await.unwrap();
    assert_eq!(client.closed().await, CloseReason::EventsOverflow);
    let mut kept = 0;
    while events.recv().await.is_some() {
        kept += 1;
    }
    assert_eq!(kept, EVENTS_WAITING_MAX);
}

#[tokio::test]
async fn nonsense_and_oversized_messages_end_the_link() {
    for text in ["{", r#"{"type":"reply","re":"x"}"#, r#"{"type":"event","event":"idle"}"#] {
        let (mut node, client, _events) = Node::with_client().await;
        node.send(text).await;
        assert_eq!(client.closed().await, CloseReason::Nonsense, "{text}");
    }
    let (mut node, client, _events) = Node::with_client().await;
    // The client hangs up while this is still being written.
    let _ = node.socket.send(Message::text("x".repeat(NODE_MESSAGE_BYTES_MAX + 1))).await;
    assert_eq!(client.closed().await, CloseReason::Broken);
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_here() {
    let (_node, client, _events) = Node::with_client().await;
    assert_eq!(client.call(leave(&"x".repeat(sfu_control::REQUEST_BYTES_MAX))).await, Err(CallError::TooLong));
    assert!(!client.is_closed());
}

#[tokio::test]
async fn dropping_the_client_closes_the_link_in_order() {
    let (mut node, client, _events) = Node::with_client().await;
    drop(client);
    loop {
        match node.socket.next().await {
            Some(Ok(Message::Close(_))) => break,
            Some(Ok(_)) => {}
            other => panic!("no close frame: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_wrong_token_and_an_absent_node_are_told_apart() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1/control", listener.local_addr().unwrap());
    let node = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&request[..length]).to_lowercase()
    });
    assert!(matches!(ControlClient::connect(&url, TOKEN).await, Err(ConnectError::Unauthorized)));
    assert!(node.await.unwrap().contains(&format!("authorization: bearer {TOKEN}")));
    assert!(matches!(ControlClient::connect(&url, TOKEN).await, Err(ConnectError::Unreachable(_))));
    assert!(matches!(ControlClient::connect("not an address", TOKEN).await, Err(ConnectError::BadAddress)));
}
