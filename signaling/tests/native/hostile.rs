//! Clients that are slow, loud, large or wrong. The others must not notice.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use signaling_protocol::client::Credential;
use signaling_protocol::{Role, ServerMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::stack::{Stack, args, eventually, fixture, token};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn socket(stack: &Stack, room: &str) -> Socket {
    tokio_tungstenite::connect_async(stack.url(room)).await.unwrap().0
}

async fn read(socket: &mut Socket) -> serde_json::Value {
    loop {
        match tokio::time::timeout(Duration::from_secs(60), socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Close(frame) => return serde_json::json!({"closed": u16::from(frame.unwrap().code)}),
            _ => {}
        }
    }
}

async fn send(socket: &mut Socket, text: impl Into<String>) {
    socket.send(Message::text(text.into())).await.unwrap();
}

async fn hello(socket: &mut Socket, room: &str) {
    let hello = serde_json::json!({"type": "hello", "id": 1, "token": token(room, "eve", Role::Speaker)});
    send(socket, hello.to_string()).await;
    assert_eq!(read(socket).await["type"], "welcome");
}

#[tokio::test]
async fn hello_comes_first_and_once() {
    let stack = Stack::start().await;
    let mut eve = socket(&stack, "demo").await;
    send(&mut eve, r#"{"type":"leave","id":4}"#).await;
    let error = read(&mut eve).await;
    assert_eq!((&error["code"], &error["re"]), (&"hello_expected".into(), &4.into()));
    hello(&mut eve, "demo").await;
    let again = serde_json::json!({"type": "hello", "id": 2, "token": token("demo", "eve", Role::Speaker)});
    send(&mut eve, again.to_string()).await;
    assert_eq!(read(&mut eve).await["code"], "already_joined");
}

#[tokio::test]
async fn socket_without_a_hello_is_closed() {
    let stack = Stack::start().await;
    let mut eve = socket(&stack, "demo").await;
    assert_eq!(read(&mut eve).await["code"], "hello_expected");
    assert_eq!(read(&mut eve).await["closed"], 1008);
}

#[tokio::test]
async fn wrong_tokens_are_refused_three_times_and_then_cut() {
    let stack = Stack::start().await;
    let (client, _messages) = stack.connect("demo").await;
    for wrong in ["", "abc", &token("other", "eve", Role::Speaker)] {
        let error = client.hello(Credential::Token(wrong.into()), None).await.unwrap_err();
        assert!(error.code().unwrap().starts_with("token_"), "{error}");
    }
    assert!(client.closed().await.to_string().contains("1008"));
    let (client, _messages) = stack.connect("demo").await;
    let error = client.hello(Credential::Resume("abc.def".into()), None).await.unwrap_err();
    assert_eq!(error.code(), Some("resume_invalid"));
}

#[tokio::test]
async fn malformed_requests_leave_the_socket_open() {
    let stack = Stack::start().await;
    let mut eve = socket(&stack, "demo").await;
    hello(&mut eve, "demo").await;
    for (text, code) in [
        ("{", "bad_json"),
        ("null", "bad_json"),
        (r#"{"type":"dance","id":3}"#, "unknown_type"),
        (r#"{"type":"offer","id":3}"#, "bad_json"),
        (r#"{"type":"offer","id":3,"sdp":"x"}"#, "sdp_malformed"),
        (r#"{"type":"mute","id":3,"track":"video","muted":true}"#, "bad_json"),
    ] {
        send(&mut eve, text).await;
        let error = read(&mut eve).await;
        assert_eq!(error["code"], code, "{text}");
        assert!(error["hint"].as_str().is_some_and(|hint| hint.len() > 3), "{text}");
    }
    eve.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(read(&mut eve).await["code"], "text_only");
    send(&mut eve, r#"{"type":"leave","id":9}"#).await;
    assert_eq!(read(&mut eve).await["type"], "ok");
    assert_eq!(read(&mut eve).await["closed"], 1000);
}

#[tokio::test]
async fn oversized_message_is_answered_before_the_close() {
    let stack = Stack::start().await;
    let mut eve = socket(&stack, "demo").await;
    hello(&mut eve, "demo").await;
    let bomb = format!(r#"{{"type":"offer","id":2,"sdp":"{}"}}"#, "x".repeat(2 << 20));
    send(&mut eve, bomb).await;
    assert_eq!(read(&mut eve).await["code"], "message_too_large");
    assert_eq!(read(&mut eve).await["closed"], 1009);
}

#[tokio::test]
async fn wrong_room_names_are_named() {
    let stack = Stack::start().await;
    for room in ["a%20b", &"x".repeat(65), "r%C3%A4um", "a.b"] {
        let mut eve = socket(&stack, room).await;
        assert_eq!(read(&mut eve).await["code"], "room_name", "{room}");
        assert_eq!(read(&mut eve).await["closed"], 1008);
    }
}

#[tokio::test]
async fn flood_is_refused_then_cut_and_the_room_goes_on() {
    flood_is_cut(|id| Message::text(format!(r#"{{"type":"signal","id":{id},"data":null}}"#))).await;
}

#[tokio::test]
async fn flood_of_binary_frames_is_cut_too() {
    flood_is_cut(|_| Message::binary(vec![0])).await;
}

async fn flood_is_cut(message: impl Fn(u32) -> Message) {
    let (stack, _node) = Stack::with_node().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    let mut eve = socket(&stack, "demo").await;
    hello(&mut eve, "demo").await;
    let flood = async {
        for id in 0..10_000 {
            if eve.send(message(id)).await.is_err() {
                return;
            }
        }
    };
    let began = tokio::time::Instant::now();
    flood.await;
    let mut refused = 0;
    loop {
        match eve.next().await {
            Some(Ok(Message::Text(text))) => refused += u32::from(text.contains("rate_limited")),
            Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::Io(_) | Error::Protocol(_))) | None => {
                break;
            }
            Some(_) => {}
        }
    }
    // The slower the machine, the more pass in between (60, then 20 a second), and each forgives 10 refused ones.
    let passing = 60.0 + 20.0 * began.elapsed().as_secs_f64();
    assert!(f64::from(refused) <= 210.0 + 10.0 * passing, "{refused}, {passing:.0} may have passed");
    ada.offer(&fixture("chromium-sendrecv")).await.unwrap();
    let mut signals = 0;
    let gone = ada.line_where_or_count(&mut signals).await;
    assert!(gone.away, "the flooder is cut off");
    assert!(f64::from(signals) <= passing + 1.0, "{signals} passed, {passing:.0} may");
}

impl crate::stack::Guest {
    /// Counts signals until somebody is away.
    async fn line_where_or_count(&mut self, signals: &mut u32) -> signaling_protocol::Member {
        loop {
            match self.next().await {
                ServerMessage::Signal { .. } => *signals += 1,
                ServerMessage::Joined { member } if member.away => return member,
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn half_headers_are_closed() {
    let stack = Stack::start().await;
    let mut stream = TcpStream::connect(stack.server.http_addr()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok(), "still open after a minute");
}

#[tokio::test]
async fn large_headers_are_refused() {
    let stack = Stack::start().await;
    for headers in ["x-large: y\r\n".repeat(100), format!("x-large: {}\r\n", "y".repeat(64 * 1024))] {
        let mut stream = TcpStream::connect(stack.server.http_addr()).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        // The server may answer and close before all is written.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

#[tokio::test]
async fn connections_of_one_address_are_bounded_and_places_come_back() {
    let stack = Stack::with(signaling::Args { connections_per_address_max: Some(3), ..args() }).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(socket(&stack, "demo").await);
    }
    assert!(tokio_tungstenite::connect_async(stack.url("demo")).await.is_err());
    held.clear();
    eventually("a place is free again", async || tokio_tungstenite::connect_async(stack.url("demo")).await.is_ok())
        .await;
}

#[tokio::test]
async fn page_of_another_origin_is_refused_and_programs_are_not() {
    let stack = Stack::with(signaling::Args { allow_origin: vec!["https://desk.example".into()], ..args() }).await;
    let options = |origin: Option<String>| signaling_protocol::client::Options { origin, ..Default::default() };
    let own = format!("http://{}", stack.server.http_addr());
    for origin in [None, Some(own), Some("https://desk.example".into())] {
        signaling_protocol::client::Client::connect(&stack.url("demo"), &options(origin)).await.unwrap();
    }
    let evil = options(Some("https://evil.example".into()));
    let error = signaling_protocol::client::Client::connect(&stack.url("demo"), &evil).await.unwrap_err();
    assert_eq!(error.code(), Some("origin_forbidden"));
}
