//! The control port against signalling that does not behave.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod peer;

use futures_util::{SinkExt, StreamExt};
use peer::{PATIENCE, TOKEN, args, control_url, dial, join_of, node_with, rtc};
use serde_json::{Value, json};
use sfu::Node;
use sfu_control::{CallError, Join, Operation, REQUEST_BYTES_MAX, ReplyBody};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// A link without a typed client.
struct Raw(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Raw {
    async fn dial(node: &Node) -> Self {
        let mut request = control_url(node).into_client_request().unwrap();
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {TOKEN}").parse().unwrap());
        let mut raw = Self(connect_async(request).await.unwrap().0);
        let hello = raw.next().await.unwrap();
        assert_eq!((&hello["type"], &hello["node"]), (&json!("hello"), &json!("test-node")));
        raw
    }

    async fn send(&mut self, text: impl Into<String>) {
        self.0.send(Message::text(text.into())).await.unwrap();
    }

    /// `None` when the link is closed.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("an answer or an end");
            match message? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }

    async fn refusal(&mut self, text: impl Into<String>) -> (u64, String) {
        self.send(text).await;
        let reply = self.next().await.unwrap();
        assert!(!reply["error"]["hint"].as_str().unwrap().is_empty(), "{reply}");
        (reply["re"].as_u64().unwrap(), reply["error"]["code"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_the_link_goes_on() {
    let node = node_with(&args()).await;
    let mut raw = Raw::dial(&node).await;
    assert_eq!(raw.refusal("{\"id\":").await, (0, "bad_request".to_owned()));
    assert_eq!(raw.refusal("[]").await, (0, "bad_request".to_owned()));
    assert_eq!(raw.refusal(r#"{"id":4,"op":"join","room":"r"}"#).await, (4, "bad_request".to_owned()));
    assert_eq!(raw.refusal(r#"{"id":5,"op":"dance"}"#).await, (5, "unknown_op".to_owned()));
    raw.0.send(Message::binary(vec![0, 1, 2])).await.unwrap();
    assert_eq!(raw.next().await.unwrap()["error"]["code"], "bad_request");
    raw.send(r#"{"id":6,"op":"snapshot","new_field":1}"#).await;
    assert_eq!(raw.next().await.unwrap(), json!({"type":"reply","re":6,"ok":{"kind":"snapshot","peers":[]}}));
    node.end().await;
}

#[tokio::test]
async fn a_message_over_the_limit_closes_its_link_and_no_other() {
    let node = node_with(&args()).await;
    let (control, _events) = dial(&node).await;
    let mut raw = Raw::dial(&node).await;
    // The node may hang up while this is still being written.
    let _ = raw.0.send(Message::text("x".repeat(REQUEST_BYTES_MAX + 1))).await;
    assert_eq!(raw.next().await, None);
    control.call(Operation::Snapshot {}).await.unwrap();
    node.end().await;
}

#[tokio::test]
async fn a_wrong_token_is_401() {
    let node = node_with(&args()).await;
    let mut request = control_url(&node).into_client_request().unwrap();
    request.headers_mut().insert(AUTHORIZATION, "Bearer something-else".parse().unwrap());
    let Err(Error::Http(answer)) = connect_async(request).await else { panic!("not refused") };
    assert_eq!(answer.status(), 401);
    node.end().await;
}

async fn refused(control: &sfu_control::ControlClient, change: impl FnOnce(&mut Join)) -> String {
    let mut rtc = rtc();
    let mut join = join_of(&mut rtc, "room", "ada", 1);
    change(&mut join);
    match control.call(Operation::Join(join)).await {
        Err(CallError::Refused(error)) => {
            assert!(!error.message.is_empty() && !error.hint.is_empty());
            error.code
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_join_that_cannot_be_is_refused_by_code_and_leaves_nothing() {
    let node = node_with(&sfu::Args { peers_max: Some(2), room_peers_max: Some(1), ..args() }).await;
    let (control, _events) = dial(&node).await;
    assert_eq!(refused(&control, |join| join.fingerprint.value = "AA".to_owned()).await, "bad_fingerprint");
    assert_eq!(refused(&control, |join| join.ice.pwd = "short".to_owned()).await, "bad_ice");
    assert_eq!(refused(&control, |join| join.peer = "x".repeat(129)).await, "bad_id");
    assert_eq!(refused(&control, |join| join.meta = "x".repeat(2049)).await, "bad_meta");
    assert_eq!(refused(&control, |join| join.profile.opus = 200).await, "bad_profile");
    assert_eq!(refused(&control, |join| join.slots[0].mid = String::new()).await, "bad_mid");
    assert_eq!(refused(&control, |join| join.tracks.push(join.tracks[0].clone())).await, "duplicate_track");
    assert_eq!(refused(&control, |join| join.slots = vec![join.slots[0].clone(); 100]).await, "too_many_slots");
    let snapshot = control.call(Operation::Snapshot {}).await.unwrap();
    assert_eq!(snapshot, ReplyBody::Snapshot { peers: vec![] });

    let mut rtc = rtc();
    control.call(Operation::Join(join_of(&mut rtc, "room", "ada", 1))).await.unwrap();
    assert_eq!(refused(&control, |_| {}).await, "peer_exists");
    assert_eq!(refused(&control, |join| join.peer = "ben".to_owned()).await, "room_full");
    control.call(Operation::Join(join_of(&mut rtc, "other", "ben", 1))).await.unwrap();
    assert_eq!(refused(&control, |join| join.peer = "eva".to_owned()).await, "node_full");
    node.end().await;
}

#[tokio::test]
async fn operations_on_nobody_say_so() {
    let node = node_with(&args()).await;
    let mut raw = Raw::dial(&node).await;
    for op in [
        r#""op":"leave""#,
        r#""op":"mute","kind":"mic","muted":true"#,
        r#""op":"set_meta","meta":"m""#,
        r#""op":"restart_ice","ice":{"ufrag":"abcd","pwd":"0123456789012345678901"}"#,
    ] {
        let answer = raw.refusal(format!(r#"{{"id":1,"peer":"nobody",{op}}}"#)).await;
        assert_eq!(answer, (1, "no_such_peer".to_owned()), "{op}");
    }
    node.end().await;
}
