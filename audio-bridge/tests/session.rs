//! The participation against a signalling server that the tests play: who proves what when, and when it offers again.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use audio_bridge::config::TokenSource;
use audio_bridge::metrics::Metrics;
use audio_bridge::playout::Playout;
use audio_bridge::session::{Session, SessionSettings};
use audio_bridge::speakers::{Gains, MaySpeak, Speakers};
use audio_bridge::status::{MediaState, Report, SignalingState, Status};
use futures_util::{SinkExt, StreamExt};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::media_engine::MIME_TYPE_OPUS;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind};
use serde_json::{Value, json};
use signaling_protocol::client::Trust;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCPeerConnectionState, RTCSessionDescription, SettingEngineBuilder, SrtpProtectionProfile,
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    listener: TcpListener,
    status: Arc<Status>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Listens, and starts a bridge's participation there.
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let url = format!("ws://{}/v1/rooms/demo", listener.local_addr().expect("address"));
        let status = Arc::new(Status::new("desktop.monitor".to_owned(), "mic_in".to_owned()));
        let settings = SessionSettings {
            url,
            token: TokenSource::Value("the token".into()),
            trust: Trust::System,
            ssrc: 7,
            ice_servers: Vec::new(),
        };
        let playout = Arc::new(Mutex::new(Playout::default()));
        let speakers = Arc::new(Speakers::new(MaySpeak::All, Gains::default(), Arc::clone(&playout)));
        let (session, _outlet) = Session::new(settings, playout, speakers, Arc::clone(&status), Metrics::new().0);
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(session.run(stopped));
        Self { listener, status, stop }
    }

    async fn accept(&self) -> Socket {
        let (stream, _) = timeout(PATIENCE, self.listener.accept()).await.expect("in time").expect("accepts");
        let socket = tokio_tungstenite::accept_hdr_async(stream, choose_protocol).await.expect("upgrades");
        Socket(socket)
    }

    /// Waits until the bridge says so of itself.
    async fn reports(&self, what: impl Fn(&Report) -> bool) {
        let told = async {
            while !what(&self.status.report()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, told).await.expect("in time");
    }
}

#[expect(clippy::result_large_err, reason = "the signature is the WebSocket library's")]
fn choose_protocol(_: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let name = signaling_protocol::SUBPROTOCOL.parse().expect("a header value");
    response.headers_mut().insert("sec-websocket-protocol", name);
    Ok(response)
}

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// The next message, which must be of this type.
    async fn expect(&mut self, kind: &str) -> Value {
        loop {
            let message = timeout(PATIENCE, self.0.next()).await.expect("in time").expect("open").expect("reads");
            let Message::Text(text) = message else { continue };
            let value: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(value["type"], kind, "{value}");
            return value;
        }
    }

    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.expect("sends");
    }

    /// Takes the hello and answers it.
    async fn welcome(&mut self, resume: &str) -> Value {
        let hello = self.expect("hello").await;
        let limits = json!({"speech_slots": 8, "program_slots": 2, "message_bytes_max": 1_048_576,
            "resume_grace_ms": 10_000, "ping_interval_ms": 20_000});
        self.send(json!({"type": "welcome", "re": hello["id"], "protocol": 1, "room": "demo", "peer": "p1",
            "role": "speaker", "resumed": false, "ice_servers": [], "roster": [], "resume": resume, "limits": limits}))
            .await;
        hello
    }

    async fn refuse(&mut self, request: &Value, code: &str) {
        self.send(json!({"type": "error", "re": request["id"], "code": code, "message": "m", "hint": "h"})).await;
    }
}

#[tokio::test]
async fn offers_program_sound_in_stereo_and_eight_mono_speech_slots() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    let hello = socket.welcome("r1").await;
    assert_eq!((&hello["token"], hello.get("resume")), (&json!("the token"), None));
    let offer = socket.expect("offer").await;
    let uses: Vec<&Value> = offer["media"].as_array().expect("a list").iter().map(|media| &media["use"]).collect();
    assert_eq!(uses[0], "program");
    assert_eq!(uses[1..], vec!["speech_slot"; 8]);
    let sdp = offer["sdp"].as_str().expect("text");
    assert_eq!(sdp.matches("m=audio").count(), 9, "{sdp}");
    assert_eq!(sdp.matches(";stereo=1;sprop-stereo=1").count(), 1, "{sdp}");
    assert!(sdp.contains("127.0.0.1"), "loopback is among the candidates: {sdp}");
}

#[tokio::test]
async fn a_missing_node_is_waited_for_on_the_same_socket() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    socket.welcome("r1").await;
    for _ in 0..3 {
        let offer = socket.expect("offer").await;
        socket.refuse(&offer, "no_node").await;
    }
    socket.expect("offer").await;
    let report = server.status.report();
    assert_eq!(report.signaling, SignalingState::Joined);
    assert!(report.signaling_error.is_some_and(|error| error.contains("no_node")));
}

#[tokio::test]
async fn a_lost_socket_is_resumed_and_a_refused_resume_joins_anew() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    socket.welcome("first resume").await;
    socket.expect("offer").await;
    drop(socket);

    let mut socket = server.accept().await;
    let hello = socket.expect("hello").await;
    assert_eq!((&hello["resume"], hello.get("token")), (&json!("first resume"), None));
    socket.refuse(&hello, "resume_unknown").await;

    let mut socket = server.accept().await;
    let hello = socket.welcome("second resume").await;
    assert_eq!((&hello["token"], hello.get("resume")), (&json!("the token"), None));
    socket.expect("offer").await;
}

/// Plays the node as far as ICE and DTLS go.
struct Node {
    connection: Arc<dyn PeerConnection>,
    up: watch::Receiver<bool>,
}

struct Handler {
    gathered: watch::Sender<bool>,
    up: watch::Sender<bool>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.gathered.send_replace(state == RTCIceGatheringState::Complete);
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.up.send_replace(state == RTCPeerConnectionState::Connected);
    }
}

impl Node {
    async fn answer(offer: &Value) -> (Self, String) {
        let codec = RTCRtpCodec {
            mime_type: MIME_TYPE_OPUS.to_owned(),
            clock_rate: 48_000,
            channels: 2,
            ..RTCRtpCodec::default()
        };
        let mut media_engine = MediaEngine::default();
        let codec = RTCRtpCodecParameters { rtp_codec: codec, payload_type: 111 };
        media_engine.register_codec(codec, RtpCodecKind::Audio).expect("codec");
        let settings = SettingEngineBuilder::new()
            .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .build();
        let (gathered_writer, mut gathered) = watch::channel(false);
        let (up_writer, up) = watch::channel(false);
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(media_engine)
            .with_setting_engine(settings)
            .with_handler(Arc::new(Handler { gathered: gathered_writer, up: up_writer }))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await
            .expect("connection");
        let offer = RTCSessionDescription::offer(offer["sdp"].as_str().expect("text").to_owned()).expect("an offer");
        connection.set_remote_description(offer).await.expect("takes the offer");
        let answer = connection.create_answer(None).await.expect("answers");
        connection.set_local_description(answer).await.expect("uses its answer");
        timeout(PATIENCE, gathered.wait_for(|done| *done)).await.expect("in time").expect("gathers");
        let sdp = connection.local_description().await.expect("described").sdp;
        (Self { connection: Arc::new(connection), up }, sdp)
    }
}

/// A machine that stalls for the six seconds of ICE may take one end for the other; hardly three times.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_the_node_ends_is_offered_anew_with_its_reason_in_the_status() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    socket.welcome("r1").await;
    let mut offer = socket.expect("offer").await;
    let mut reasons = Vec::new();
    for _ in 0..3 {
        let (mut node, sdp) = Node::answer(&offer).await;
        socket.send(json!({"type": "answer", "re": offer["id"], "sdp": sdp})).await;
        server.reports(|report| report.media == MediaState::Connected).await;
        // Without keys of its own it has nothing to end.
        timeout(PATIENCE, node.up.wait_for(|up| *up)).await.expect("in time").expect("follows");
        node.connection.close().await.expect("closes");
        offer = socket.expect("offer").await;
        let report = server.status.report();
        assert_eq!(report.signaling, SignalingState::Joined);
        reasons.extend(report.media_error);
        if reasons.last().is_some_and(|reason| reason == "the server ended the media connection") {
            return;
        }
    }
    panic!("{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_connection_is_told_while_signalling_is_away() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    socket.welcome("r1").await;
    let offer = socket.expect("offer").await;
    let (mut node, sdp) = Node::answer(&offer).await;
    socket.send(json!({"type": "answer", "re": offer["id"], "sdp": sdp})).await;
    server.reports(|report| report.media == MediaState::Connected).await;
    timeout(PATIENCE, node.up.wait_for(|up| *up)).await.expect("in time").expect("follows");
    drop(socket);
    server.reports(|report| report.signaling == SignalingState::Connecting).await;
    node.connection.close().await.expect("closes");
    server.reports(|report| report.media == MediaState::Disconnected && report.media_error.is_some()).await;
}

#[tokio::test]
async fn a_lost_node_gets_a_new_offer() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    socket.welcome("r1").await;
    let offer = socket.expect("offer").await;
    socket.send(json!({"type": "moved", "reason": "node_lost"})).await;
    socket.refuse(&offer, "no_node").await;
    let next = socket.expect("offer").await;
    let ufrag = |offer: &Value| {
        let sdp = offer["sdp"].as_str().expect("text").to_owned();
        sdp.lines().find(|line| line.starts_with("a=ice-ufrag")).expect("credentials").to_owned()
    };
    assert_ne!(ufrag(&offer), ufrag(&next), "a new connection has new credentials");
}

#[tokio::test]
async fn news_of_the_room_do_not_shorten_the_wait_and_signalling_may() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    socket.welcome("r1").await;
    let not_before = |offer: &Value, ms: u64| json!({"type": "error", "re": offer["id"], "code": "no_node", "message": "m", "hint": "h", "retry_after_ms": ms});
    let offer = socket.expect("offer").await;
    let refused = Instant::now();
    socket.send(not_before(&offer, 1_500)).await;
    for _ in 0..3 {
        socket.send(json!({"type": "slots", "slots": []})).await;
    }
    let offer = socket.expect("offer").await;
    assert!(refused.elapsed() >= Duration::from_millis(1_500), "{:?}", refused.elapsed());

    let refused = Instant::now();
    socket.send(not_before(&offer, 60_000)).await;
    socket.send(json!({"type": "moved", "reason": "node_lost", "retry_after_ms": 1})).await;
    socket.expect("offer").await;
    assert!(refused.elapsed() < Duration::from_secs(55), "{:?}", refused.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_media_alone_offers_anew_on_the_same_socket_and_keeps_its_place() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    socket.welcome("r1").await;
    let offer = socket.expect("offer").await;
    let (_node, sdp) = Node::answer(&offer).await;
    socket.send(json!({"type": "answer", "re": offer["id"], "sdp": sdp})).await;
    let told = Instant::now();
    socket.send(json!({"type": "moved", "reason": "media_lost", "retry_after_ms": 1_000})).await;
    socket.expect("offer").await;
    assert!(told.elapsed() >= Duration::from_secs(1), "{:?}", told.elapsed());
    drop(socket);
    let hello = server.accept().await.expect("hello").await;
    assert_eq!(hello["resume"], "r1");
}

#[tokio::test]
async fn a_final_refusal_is_tried_again_with_the_same_place() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    socket.welcome("r1").await;
    let offer = socket.expect("offer").await;
    socket.refuse(&offer, "role_forbids").await;
    let mut socket = server.accept().await;
    let hello = socket.welcome("r2").await;
    assert_eq!(hello["resume"], "r1");
    socket.expect("offer").await;
}

#[tokio::test]
async fn the_end_of_the_process_does_not_wait_for_a_node() {
    let server = Server::start().await;
    let mut socket = server.accept().await;
    socket.welcome("r1").await;
    let offer = socket.expect("offer").await;
    let wait = json!({"type": "error", "re": offer["id"], "code": "no_node", "message": "m", "hint": "h",
        "retry_after_ms": 60_000});
    socket.send(wait).await;
    server.stop.send_replace(true);
    let closed = timeout(PATIENCE, async { while let Some(Ok(_)) = socket.0.next().await {} }).await;
    assert!(closed.is_ok(), "the socket is closed");
}
