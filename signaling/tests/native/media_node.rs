//! A media node without media: serves the control link, answers joins with made-up transports, keeps its peers when the
//! link drops, and lets a test look at what it was asked and send events.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use sfu_control::{
    Candidate, ControlError, Fingerprint, Heartbeat, IceParameters, Join, Joined, NodeEvent, NodeMessage, Operation,
    PeerState, Protocol, ReplyBody, ReplyResult, Request, SlotInfo, TrackInfo, TrackKind, TrackState,
};
use tokio::sync::{broadcast, watch};

use crate::stack::CONTROL_TOKEN;

#[derive(Clone)]
pub(crate) struct MediaNode(Arc<Inner>);

struct Inner {
    name: String,
    address: SocketAddr,
    state: Mutex<Held>,
    /// To all links.
    events: broadcast::Sender<NodeEvent>,
    /// Raised to break the links.
    links_broken: watch::Sender<u64>,
    server: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Default)]
struct Held {
    peers: BTreeMap<String, Join>,
    operations: Vec<Operation>,
    connected: Vec<String>,
    refuse_joins: Option<ControlError>,
    next_track: u32,
}

impl MediaNode {
    pub(crate) async fn start(name: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = Arc::new(Inner {
            name: name.into(),
            address: listener.local_addr().unwrap(),
            state: Mutex::default(),
            events: broadcast::channel(64).0,
            links_broken: watch::channel(0).0,
            server: Mutex::default(),
        });
        let node = Self(inner);
        let routes = Router::new().route("/v1/control", any(control)).with_state(node.clone());
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        *node.0.server.lock().unwrap() = Some(server);
        node
    }

    pub(crate) fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            node: self.0.name.clone(),
            version: "test".into(),
            control: format!("ws://{}/v1/control", self.0.address),
            load: 0.1,
            peers: 0,
            draining: false,
        }
    }

    /// As a killed process: the port refuses, the links end, the peers are gone.
    pub(crate) fn kill(&self) {
        if let Some(server) = self.0.server.lock().unwrap().take() {
            server.abort();
        }
        *self.0.state.lock().unwrap() = Held::default();
        self.break_links();
    }

    /// As a network fault: links end, peers stay.
    pub(crate) fn break_links(&self) {
        self.0.links_broken.send_modify(|count| *count += 1);
    }

    pub(crate) fn refuse_joins(&self, error: ControlError) {
        self.0.state.lock().unwrap().refuse_joins = Some(error);
    }

    pub(crate) fn emit(&self, event: NodeEvent) {
        self.0.events.send(event).unwrap();
    }

    /// The first DTLS handshake of a peer is done.
    pub(crate) fn connect(&self, peer: &str) {
        self.0.state.lock().unwrap().connected.push(peer.into());
        self.emit(NodeEvent::Connected {
            peer: peer.into(),
            srtp_profile: "AEAD_AES_128_GCM".into(),
            dtls_version: "1.2".into(),
        });
    }

    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.0.state.lock().unwrap().operations.clone()
    }

    pub(crate) fn peers(&self) -> Vec<String> {
        self.0.state.lock().unwrap().peers.keys().cloned().collect()
    }

    pub(crate) fn join_of(&self, peer: &str) -> Join {
        self.0.state.lock().unwrap().peers[peer].clone()
    }

    fn carry_out(&self, op: Operation) -> ReplyResult {
        let mut state = self.0.state.lock().unwrap();
        state.operations.push(op.clone());
        let body = match op {
            Operation::Join(join) => {
                if let Some(error) = &state.refuse_joins {
                    return ReplyResult::Error(error.clone());
                }
                let joined = joined(&join, &mut state.next_track);
                state.peers.insert(join.peer.clone(), join);
                ReplyBody::Joined(joined)
            }
            Operation::RestartIce { .. } => ReplyBody::Restarted { ice: ice("restarted"), candidates: candidates() },
            Operation::Leave { peer } => {
                state.peers.remove(&peer);
                ReplyBody::Done {}
            }
            Operation::Snapshot {} => {
                let peers = state.peers.values().map(|join| peer_state(join, state.connected.contains(&join.peer)));
                ReplyBody::Snapshot { peers: peers.collect() }
            }
            Operation::Mute { .. } | Operation::SetMeta { .. } | Operation::Drain { .. } => ReplyBody::Done {},
        };
        ReplyResult::Ok(body)
    }
}

async fn control(State(node): State<MediaNode>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != &format!("Bearer {CONTROL_TOKEN}")) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    upgrade.on_upgrade(|socket| serve(node, socket))
}

async fn serve(node: MediaNode, mut socket: WebSocket) {
    let mut events = node.0.events.subscribe();
    let mut broken = node.0.links_broken.subscribe();
    let media = sfu_control::MediaAddress { address: [127, 0, 0, 1].into(), port: 40_000 };
    let hello = NodeMessage::Hello {
        node: node.0.name.clone(),
        version: "test".into(),
        media: vec![media],
        fingerprint: own(),
    };
    socket.send(text(&hello)).await.unwrap();
    loop {
        let answer = tokio::select! {
            _ = broken.changed() => return,
            event = events.recv() => NodeMessage::Event { event: event.unwrap() },
            message = socket.recv() => match message {
                Some(Ok(Message::Text(request))) => {
                    let Request { id, op } = serde_json::from_str(&request).unwrap();
                    NodeMessage::Reply { re: id, result: node.carry_out(op) }
                }
                Some(Ok(_)) => continue,
                _ => return,
            },
        };
        if socket.send(text(&answer)).await.is_err() {
            return;
        }
    }
}

fn text(message: &NodeMessage) -> Message {
    Message::text(serde_json::to_string(message).unwrap())
}

fn own() -> Fingerprint {
    Fingerprint { algorithm: "sha-256".into(), value: ["AB"; 32].join(":") }
}

fn ice(name: &str) -> IceParameters {
    IceParameters { ufrag: format!("node{name}"), pwd: "0123456789abcdefghijklmn".into() }
}

fn candidates() -> Vec<Candidate> {
    let address = "192.0.2.10".parse().unwrap();
    vec![
        Candidate { address, port: 40000, protocol: Protocol::Udp },
        Candidate { address, port: 40000, protocol: Protocol::Tcp },
    ]
}

fn slots(join: &Join) -> Vec<SlotInfo> {
    let mut counts: BTreeMap<bool, u8> = BTreeMap::new();
    let slot = |slot: &sfu_control::SlotSpec| {
        let program = slot.kind == TrackKind::Program;
        let count = counts.entry(program).or_default();
        let index = *count;
        *count += 1;
        let ssrc = 1000 + u32::from(program) * 100 + u32::from(index);
        SlotInfo { mid: slot.mid.clone(), kind: slot.kind, index, ssrc }
    };
    join.slots.iter().map(slot).collect()
}

fn joined(join: &Join, next_track: &mut u32) -> Joined {
    let track = |spec: &sfu_control::TrackSpec| {
        *next_track += 1;
        TrackInfo { mid: spec.mid.clone(), kind: spec.kind, track: *next_track }
    };
    Joined {
        shard: 0,
        ice: ice(""),
        fingerprint: own(),
        dtls_role: join.dtls_role,
        candidates: candidates(),
        tracks: join.tracks.iter().map(track).collect(),
        slots: slots(join),
    }
}

fn peer_state(join: &Join, connected: bool) -> PeerState {
    let track = |spec: &sfu_control::TrackSpec| TrackState {
        mid: spec.mid.clone(),
        kind: spec.kind,
        track: 77,
        live: true,
        muted: false,
    };
    PeerState {
        room: join.room.clone(),
        peer: join.peer.clone(),
        meta: join.meta.clone(),
        connected,
        idle: false,
        tracks: join.tracks.iter().map(track).collect(),
        slots: slots(join),
    }
}
