//! The client against servers that misbehave. How it works with the real one is tested in `signaling`.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use signaling_protocol::SUBPROTOCOL;
use signaling_protocol::client::{Client, ClientError, Closed, Credential, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/v1/rooms/demo", listener.local_addr().unwrap());
    (listener, url)
}

async fn accept(listener: TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) = listener.accept().await.unwrap();
    #[expect(clippy::result_large_err, reason = "the shape that the library asks for")]
    let with_subprotocol = |_: &Request, mut response: Response| {
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(stream, with_subprotocol).await.unwrap()
}

fn speakers() -> Message {
    Message::text(r#"{"type":"speakers","peers":[]}"#)
}

#[tokio::test]
async fn answers_are_matched_past_other_messages_and_out_of_order() {
    let (listener, url) = listen().await;
    let server = tokio::spawn(async move {
        let mut socket = accept(listener).await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("no request") };
            let request: serde_json::Value = serde_json::from_str(&text).unwrap();
            ids.push((request["id"].clone(), request["peer"].clone()));
        }
        socket.send(speakers()).await.unwrap();
        socket.send(Message::text("not JSON")).await.unwrap();
        socket.send(Message::text(r#"{"type":"of_the_future"}"#)).await.unwrap();
        for (id, peer) in ids.into_iter().rev() {
            let answer = if peer == "bad" {
                serde_json::json!({"type": "error", "re": id, "code": "no_such_peer", "message": "m", "hint": "h"})
            } else {
                serde_json::json!({"type": "ok", "re": id})
            };
            socket.send(Message::text(answer.to_string())).await.unwrap();
        }
        socket
    });
    let (client, mut messages) = Client::connect(&url, &Options::default()).await.unwrap();
    let (good, bad) = tokio::join!(client.evict("good".into()), client.evict("bad".into()));
    good.unwrap();
    assert_eq!(bad.unwrap_err().code(), Some("no_such_peer"));
    assert!(messages.recv().await.is_some());
    drop(server.await.unwrap());
    assert!(messages.recv().await.is_none());
    assert_eq!(client.closed().await, Closed::Lost);
}

#[tokio::test]
async fn caller_that_does_not_read_loses_the_connection() {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let mut socket = accept(listener).await;
        while socket.send(speakers()).await.is_ok() {}
    });
    let (client, _messages) = Client::connect(&url, &Options::default()).await.unwrap();
    assert_eq!(client.closed().await, Closed::Lagged);
}

#[tokio::test]
async fn close_of_the_server_is_told_to_calls_that_wait() {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let mut socket = accept(listener).await;
        socket.next().await.unwrap().unwrap();
        socket.close(Some(CloseFrame { code: 1001.into(), reason: "ends".into() })).await.unwrap();
        while socket.next().await.is_some() {}
    });
    let (client, _messages) = Client::connect(&url, &Options::default()).await.unwrap();
    let error = client.leave().await.unwrap_err();
    let Closed::Remote { code, reason } = client.closed().await else { panic!("{error}") };
    assert_eq!((code, reason.as_str()), (1001, "ends"));
    assert!(matches!(error, ClientError::Closed(Closed::Remote { .. })), "{error}");
    assert!(matches!(client.leave().await, Err(ClientError::Closed(_))));
}

#[tokio::test]
async fn silence_of_the_server_is_a_timeout() {
    let (listener, url) = listen().await;
    let server = tokio::spawn(accept(listener));
    let options = Options { request_timeout: Duration::from_millis(50), ..Options::default() };
    let (client, _messages) = Client::connect(&url, &options).await.unwrap();
    let _socket = server.await.unwrap();
    let error = client.hello(Credential::Token("t".into()), None).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout), "{error}");
}

#[tokio::test]
async fn refused_upgrade_carries_the_error_of_the_server() {
    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        let body = r#"{"code":"origin_forbidden","message":"m","hint":"h"}"#;
        let head = format!("HTTP/1.1 403 Forbidden\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    });
    let error = Client::connect(&url, &Options::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Http { status: 403, .. }));
    assert_eq!(error.code(), Some("origin_forbidden"));
}

#[tokio::test]
async fn wrong_addresses_are_refused_before_anything_is_sent() {
    for url in ["", "demo", "http://127.0.0.1:1/", "ws://"] {
        let error = Client::connect(url, &Options::default()).await.unwrap_err();
        assert!(matches!(error, ClientError::BadUrl), "{url}: {error}");
    }
}
