//! Janus as it answers on the wire, in this process: enough of it to see what the client asks for and in which order.

use std::sync::Arc;
use std::sync::Mutex as Lock;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;

use super::*;
use crate::scenario::{ROOMS_MAX, Rooms, TargetSpec};
use crate::sdp::SdpError;
use crate::targets::BareEndpoint;

const FIRST_FEED: u64 = 100;

/// What it was asked, and what it does about it.
#[derive(Default)]
struct Fake {
    /// Bodies of the plugin's messages, in order.
    bodies: Vec<Value>,
    handles: u64,
    feeds: u64,
    /// Subscriptions that are refused before one is taken.
    not_up_yet: u32,
    room_exists: bool,
    destroyed: bool,
}

impl Fake {
    fn answers(&mut self, request: &Value) -> Vec<Value> {
        let transaction = &request["transaction"];
        match request["janus"].as_str() {
            Some("create") => vec![json!({"janus": "success", "transaction": transaction, "data": {"id": 1}})],
            Some("attach") => {
                self.handles += 1;
                vec![json!({"janus": "success", "transaction": transaction, "data": {"id": self.handles}})]
            }
            Some("message") => self.message(request),
            Some("destroy") => {
                self.destroyed = true;
                vec![json!({"janus": "success", "transaction": transaction})]
            }
            _ => vec![json!({"janus": "ack", "transaction": transaction})],
        }
    }

    fn message(&mut self, request: &Value) -> Vec<Value> {
        let (transaction, body) = (&request["transaction"], &request["body"]);
        self.bodies.push(body.clone());
        let reply = |kind: &str, data: Value| json!({"janus": kind, "transaction": transaction, "plugindata": {"data": data}});
        let refused = |code: u32| json!({"videoroom": "event", "error_code": code, "error": "no"});
        let mut event = match (body["request"].as_str(), body["ptype"].as_str()) {
            (Some("create"), _) if self.room_exists => return vec![reply("success", refused(427))],
            (Some("create" | "destroy"), _) => return vec![reply("success", json!({"room": body["room"]}))],
            (Some("join"), _) if self.not_up_yet > 0 => {
                self.not_up_yet -= 1;
                reply("event", refused(428))
            }
            (Some("join"), _) => {
                let mut event = reply("event", json!({"videoroom": "attached"}));
                event["jsep"] = json!({"type": "offer", "sdp": "their offer"});
                event
            }
            (Some("joinandconfigure"), _) => {
                self.feeds += 1;
                let mut event = reply("event", json!({"id": FIRST_FEED + self.feeds - 1}));
                event["jsep"] = json!({"type": "answer", "sdp": "their answer"});
                event
            }
            _ => reply("event", json!({"started": "ok"})),
        };
        event["sender"] = request["handle_id"].clone();
        vec![json!({"janus": "ack", "transaction": transaction}), json!({"janus": "webrtcup"}), event]
    }

    fn requests(&self) -> Vec<&str> {
        self.bodies.iter().filter_map(|body| body["request"].as_str()).collect()
    }
}

async fn started(fake: Fake) -> (Janus, Arc<Lock<Fake>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    let fake = Arc::new(Lock::new(fake));
    tokio::spawn(serve(listener, Arc::clone(&fake)));
    let target = TargetSpec { url, ..TargetSpec::default() };
    let rooms = Rooms { count: 2, publishers: 3, ..Rooms::default() };
    let scenario = Scenario { target, rooms, ..Scenario::default() };
    (Janus::open(&scenario, &Access::default()).await.expect("a session"), fake)
}

async fn serve(listener: TcpListener, fake: Arc<Lock<Fake>>) {
    let (stream, _) = listener.accept().await.expect("a client");
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, speak_janus).await.expect("a handshake");
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let request = serde_json::from_str(&text).expect("JSON");
        let answers = fake.lock().expect("no panic before").answers(&request);
        for answer in answers {
            socket.send(Message::text(answer.to_string())).await.expect("sent");
        }
    }
}

#[expect(clippy::result_large_err, clippy::unnecessary_wraps, reason = "the form of a callback")]
fn speak_janus(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("janus-protocol"));
    Ok(response)
}

#[derive(Default)]
struct Paper {
    read: Vec<String>,
}

impl Endpoint for Paper {
    fn offer(&mut self) -> Result<String, SdpError> {
        Ok("our offer".to_owned())
    }

    fn take_answer(&mut self, sdp: &str) -> Result<(), SdpError> {
        self.read.push(sdp.to_owned());
        Ok(())
    }

    fn answer(&mut self, offer: &str) -> Result<String, SdpError> {
        self.read.push(offer.to_owned());
        Ok("our answer".to_owned())
    }

    fn bare(&mut self) -> Option<&mut dyn BareEndpoint> {
        None
    }
}

async fn join(janus: &Janus, person: u32, publishes: bool) -> Result<Vec<String>, JoinError> {
    let mut paper = Paper::default();
    let slots = u32::from(!publishes) * 8;
    janus.join(&Person { room: 1, person, publishes, slots }, &mut paper).await?;
    Ok(paper.read)
}

#[tokio::test]
async fn a_publisher_offers_and_a_hearer_answers_with_all_feeds_but_its_own() {
    let (janus, fake) = started(Fake::default()).await;
    for person in 0..3 {
        assert_eq!(join(&janus, person, true).await.expect("published"), ["their answer"]);
    }
    assert_eq!(join(&janus, 9, false).await.expect("hears"), ["their offer"]);
    assert_eq!(join(&janus, 1, false).await.expect("hears"), ["their offer"]);
    let fake = fake.lock().expect("no panic before");
    let feeds = |body: &Value| {
        let streams = body["streams"].as_array().cloned().unwrap_or_default();
        streams.iter().filter_map(|stream| stream["feed"].as_u64()).collect::<Vec<_>>()
    };
    let joins = fake.bodies.iter().filter(|body| body["request"] == "join").map(feeds).collect::<Vec<_>>();
    assert_eq!(joins, [vec![100, 101, 102], vec![100, 102]]);
    assert_eq!(fake.requests().iter().filter(|request| **request == "create").count(), 1, "one room");
    assert_eq!(fake.requests().iter().filter(|request| **request == "start").count(), 2);
}

#[tokio::test]
async fn a_feed_that_is_not_up_yet_is_waited_for() {
    let (janus, fake) = started(Fake { not_up_yet: 3, ..Fake::default() }).await;
    join(&janus, 0, true).await.expect("published");
    join(&janus, 5, false).await.expect("hears");
    assert_eq!(
        fake.lock().expect("no panic before").requests(),
        ["create", "joinandconfigure", "join", "join", "join", "join", "start"]
    );
}

#[tokio::test]
async fn nobody_can_hear_in_a_room_where_nobody_publishes() {
    let (janus, _) = started(Fake::default()).await;
    assert_eq!(join(&janus, 5, false).await.expect_err("refused").reason, "janus_feeds");
}

#[tokio::test]
async fn only_rooms_of_the_run_are_removed_after_it() {
    for (room_exists, last) in [(false, "destroy"), (true, "joinandconfigure")] {
        let (janus, fake) = started(Fake { room_exists, ..Fake::default() }).await;
        join(&janus, 0, true).await.expect("published");
        janus.close().await;
        let fake = fake.lock().expect("no panic before");
        assert_eq!(fake.requests().last(), Some(&last));
        assert!(fake.destroyed);
    }
}

#[test]
fn rooms_of_one_prefix_never_meet_those_of_another() {
    let (one, other) = (first_room("load"), first_room("load-2"));
    let rooms = u64::from(ROOMS_MAX);
    assert!(one.abs_diff(other) > rooms);
    assert!(one.max(other) + rooms < 1 << 53, "a number in every JSON library");
}
