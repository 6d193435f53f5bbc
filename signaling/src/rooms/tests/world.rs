//! Rooms with clients that believe what they are told, and one node that does what it is asked.

use std::collections::{BTreeMap, BTreeSet};

use sfu_control::{
    ControlError, DtlsRole, Fingerprint, HeaderProfile, IceParameters, Join, Joined, NodeEvent, Operation, PeerState,
    ReplyBody, SlotInfo, SlotSpec, TrackInfo, TrackSpec, TrackState,
};

use crate::resume::Participation;
use crate::rooms::*;

pub(super) const NODE: &str = "node";

/// A client's view, and what it holds against the rooms.
#[derive(Default)]
pub(super) struct Client {
    pub(super) own: Option<String>,
    pub(super) room: String,
    pub(super) roster: BTreeMap<String, RosterLine>,
    pub(super) closed: bool,
    pub(super) errors: Vec<String>,
    pub(super) moved: Vec<String>,
    pub(super) answers: usize,
    pub(super) slots: Vec<signaling_protocol::Slot>,
}

impl Client {
    fn receive(&mut self, message: ServerMessage) {
        assert!(!self.closed, "nothing comes after the close");
        match message {
            ServerMessage::Joined { member } => {
                let known = self.roster.contains_key(&member.peer);
                assert!(known || Some(&member.peer) != self.own.as_ref(), "nobody is told that he came himself");
                self.roster.insert(member.peer.clone(), member);
            }
            ServerMessage::Left { peer, .. } => {
                assert_ne!(Some(&peer), self.own.as_ref());
                assert!(self.roster.remove(&peer).is_some(), "nobody leaves twice");
            }
            ServerMessage::Mute { peer, track, muted, .. } => {
                let line = self.roster.get_mut(&peer).expect("on the roster");
                line.tracks.iter_mut().find(|given| given.kind == track).expect("has the track").muted = muted;
            }
            ServerMessage::Moved { reason, .. } => {
                if reason == "node_lost" {
                    for line in self.roster.values_mut() {
                        line.connected = false;
                        line.tracks.clear();
                    }
                }
                self.moved.push(reason);
            }
            ServerMessage::Slots { slots } => {
                let mids: BTreeSet<_> = slots.iter().map(|slot| &slot.mid).collect();
                assert_eq!(mids.len(), slots.len(), "a slot has one occupant");
                assert!(slots.iter().all(|slot| Some(&slot.peer) != self.own.as_ref()), "own voice is not shown");
                self.slots = slots;
            }
            ServerMessage::Error { error, .. } => self.errors.push(error.code),
            ServerMessage::Ok { .. } | ServerMessage::Speakers { .. } | ServerMessage::Signal { .. } => {}
            ServerMessage::Welcome(_) | ServerMessage::Answer { .. } | ServerMessage::IceServers { .. } => {
                panic!("written by the session")
            }
        }
    }
}

/// Rooms, clients and one node.
pub(super) struct World {
    pub(super) rooms: Rooms,
    pub(super) now: Instant,
    pub(super) clients: BTreeMap<ConnId, Client>,
    pub(super) participations: Vec<Participation>,
    pub(super) calls: Vec<(u64, Operation)>,
    pub(super) node_peers: BTreeMap<String, Join>,
    pub(super) node_up: bool,
    next: u64,
}

impl World {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let limits = Limits { rooms_max: 3, members_max: 4, ..Limits::default() };
        let mut world = Self {
            rooms: Rooms::new(limits, now),
            now,
            clients: BTreeMap::new(),
            participations: Vec::new(),
            calls: Vec::new(),
            node_peers: BTreeMap::new(),
            node_up: false,
            next: 1,
        };
        world.link_up();
        world
    }

    pub(super) fn input(&mut self, input: Input) {
        for effect in self.rooms.handle(self.now, input) {
            self.carry_out(effect);
        }
        self.check();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Welcome { conn, greeting } => {
                let Greeting { room, peer, nonce, roster, .. } = *greeting;
                let client = self.clients.get_mut(&conn).expect("an open socket");
                assert_eq!(client.own, None, "one welcome a socket");
                client.own = Some(peer.clone());
                client.room.clone_from(&room);
                client.roster = roster.into_iter().map(|line| (line.peer.clone(), line)).collect();
                assert!(client.roster.contains_key(&peer), "everyone, oneself included");
                let participation = Participation { room, peer, nonce };
                if !self.participations.contains(&participation) {
                    self.participations.push(participation);
                }
            }
            Effect::Send { to, message } => {
                let distinct: BTreeSet<_> = to.iter().collect();
                assert_eq!(distinct.len(), to.len(), "once to each");
                for conn in to {
                    self.clients.get_mut(&conn).expect("an open socket").receive(message.as_ref().clone());
                }
            }
            Effect::Answer { conn, .. } => self.clients.get_mut(&conn).expect("an open socket").answers += 1,
            Effect::Close { conn, .. } => self.clients.get_mut(&conn).expect("an open socket").closed = true,
            Effect::Call { node, call, op } => {
                assert_eq!(node, NODE);
                self.calls.push((call, *op));
            }
            Effect::Place { room } => {
                let node = self.node_up.then(|| NODE.to_owned());
                let effects = self.rooms.handle(self.now, Input::Placed { room, node });
                effects.into_iter().for_each(|effect| self.carry_out(effect));
            }
            Effect::Release { .. } => {}
        }
    }

    /// What every client has pieced together is what a newcomer would be told.
    fn check(&self) {
        for client in self.clients.values().filter(|client| client.own.is_some() && !client.closed) {
            let told: Vec<_> = client.roster.values().cloned().collect();
            assert_eq!(told, self.rooms.roster(&client.room));
        }
    }

    pub(super) fn open(&mut self) -> ConnId {
        let conn = ConnId(self.next);
        self.next += 1;
        self.clients.insert(conn, Client::default());
        conn
    }

    pub(super) fn join(&mut self, room: &str, role: Role) -> ConnId {
        let conn = self.open();
        let grant = Grant { identity: "someone".into(), name: "Someone".into(), role, kinds: None };
        let (peer, nonce) = (format!("p{:03}", conn.0), format!("n{}", conn.0));
        self.input(Input::Hello { conn, re: 1, room: room.into(), peer, nonce, grant });
        conn
    }

    pub(super) fn resume(&mut self, index: usize) -> ConnId {
        let conn = self.open();
        if !self.participations.is_empty() {
            let participation = self.participations[index % self.participations.len()].clone();
            self.input(Input::Resume { conn, re: 1, participation });
        }
        conn
    }

    pub(super) fn request(&mut self, conn: ConnId, request: Request) {
        self.input(Input::Request { conn, re: 2, request });
    }

    pub(super) fn close(&mut self, conn: ConnId, left: bool) {
        self.clients.remove(&conn);
        self.input(if left { Input::SocketClosed { conn } } else { Input::SocketLost { conn } });
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
        if self.rooms.poll_timeout().is_some_and(|due| due <= self.now) {
            self.input(Input::Timeout);
        }
        assert!(self.rooms.poll_timeout().is_none_or(|due| due > self.now), "nothing stays due");
    }

    pub(super) fn answer(&mut self, index: usize, fate: Fate) {
        if self.calls.is_empty() {
            return;
        }
        let (call, op) = self.calls.remove(index % self.calls.len());
        let refused =
            ControlError { code: "node_full".into(), message: "full".into(), hint: "".into(), retry_after_s: None };
        let result = match fate {
            Fate::Done => Ok(self.node_does(op)),
            Fate::Refused => Err(CallFailure::Refused(refused)),
            Fate::Lost => Err(CallFailure::Unanswered),
            Fate::DoneAndLost => {
                self.node_does(op);
                Err(CallFailure::Unanswered)
            }
        };
        self.input(Input::CallDone { call, result });
    }

    pub(super) fn answer_all(&mut self) {
        while !self.calls.is_empty() {
            self.answer(0, Fate::Done);
        }
    }

    fn node_does(&mut self, op: Operation) -> ReplyBody {
        match op {
            Operation::Join(join) => {
                let joined = joined(&join);
                self.node_peers.insert(join.peer.clone(), join);
                ReplyBody::Joined(joined)
            }
            Operation::RestartIce { .. } => ReplyBody::Restarted { ice: ice("node"), candidates: vec![] },
            Operation::Leave { peer } => {
                self.node_peers.remove(&peer);
                ReplyBody::Done {}
            }
            Operation::Mute { .. } | Operation::SetMeta { .. } | Operation::Snapshot {} | Operation::Drain { .. } => {
                ReplyBody::Done {}
            }
        }
    }

    pub(super) fn link_up(&mut self) {
        self.node_up = true;
        let peers = self.node_peers.values().map(state).collect();
        self.input(Input::NodeUp { node: NODE.into(), fingerprint: fingerprint("node"), peers });
    }

    /// Calls in flight fail before the loss is known, as the link does it.
    pub(super) fn lose_node(&mut self, with_peers: bool) {
        while !self.calls.is_empty() {
            self.answer(0, Fate::Lost);
        }
        self.node_up = false;
        if with_peers {
            self.node_peers.clear();
        }
        self.input(Input::NodeLost { node: NODE.into() });
    }

    pub(super) fn event(&mut self, index: usize, make: impl Fn(String) -> NodeEvent) {
        let peers: Vec<_> = self.node_peers.keys().cloned().collect();
        if let Some(peer) = peers.get(index % peers.len().max(1)) {
            self.input(Input::NodeEvent { node: NODE.into(), event: make(peer.clone()) });
        }
    }

    pub(super) fn conn(&self, index: usize) -> Option<ConnId> {
        let conns: Vec<_> = self.clients.iter().filter(|(_, client)| !client.closed).map(|(conn, _)| *conn).collect();
        conns.get(index % conns.len().max(1)).copied()
    }

    pub(super) fn client(&self, conn: ConnId) -> &Client {
        &self.clients[&conn]
    }

    pub(super) fn peer(&self, conn: ConnId) -> String {
        self.client(conn).own.clone().unwrap()
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Done,
    Refused,
    Lost,
    DoneAndLost,
}

pub(super) fn ice(ufrag: &str) -> IceParameters {
    IceParameters { ufrag: ufrag.into(), pwd: "0123456789abcdefghijkl".into() }
}

pub(super) fn fingerprint(value: &str) -> Fingerprint {
    Fingerprint { algorithm: "sha-256".into(), value: value.into() }
}

pub(super) fn spec(certificate: u8, ufrag: u8) -> Request {
    let slot = |mid: &str, kind| SlotSpec { kind, mid: mid.into() };
    Request::Offer(Box::new(MediaSpec {
        ice: ice(&format!("u{ufrag}")),
        fingerprint: fingerprint(&format!("f{certificate}")),
        dtls_role: DtlsRole::Server,
        profile: HeaderProfile { opus: 111, red: None, audio_level: None, mid: None, nack: false },
        replaces: false,
        tracks: vec![TrackSpec { kind: sfu_control::TrackKind::Mic, mid: "0".into(), ssrc: None }],
        slots: vec![slot("1", sfu_control::TrackKind::Mic), slot("2", sfu_control::TrackKind::Mic)],
    }))
}

/// Each participation has one track, named after it.
pub(super) fn track_of(peer: &str) -> u32 {
    peer.trim_start_matches('p').split('.').next().unwrap().parse().unwrap()
}

pub(super) fn slots_of(join: &Join) -> Vec<SlotInfo> {
    let slot = |(index, spec): (usize, &SlotSpec)| SlotInfo {
        mid: spec.mid.clone(),
        kind: spec.kind,
        index: u8::try_from(index).unwrap(),
        ssrc: 1000 + u32::try_from(index).unwrap(),
    };
    join.slots.iter().enumerate().map(slot).collect()
}

pub(super) fn joined(join: &Join) -> Joined {
    let track = |spec: &TrackSpec| TrackInfo { mid: spec.mid.clone(), kind: spec.kind, track: track_of(&join.peer) };
    Joined {
        shard: 0,
        ice: ice("node"),
        fingerprint: fingerprint("node"),
        dtls_role: join.dtls_role,
        candidates: vec![],
        tracks: join.tracks.iter().map(track).collect(),
        slots: slots_of(join),
    }
}

pub(super) fn state(join: &Join) -> PeerState {
    let track = |spec: &TrackSpec| TrackState {
        mid: spec.mid.clone(),
        kind: spec.kind,
        track: track_of(&join.peer),
        live: false,
        muted: false,
    };
    PeerState {
        room: join.room.clone(),
        peer: join.peer.clone(),
        meta: join.meta.clone(),
        connected: true,
        idle: false,
        tracks: join.tracks.iter().map(track).collect(),
        slots: slots_of(join),
    }
}

pub(super) fn assignment(index: u8, peer: &str) -> SlotAssignment {
    let peer = peer.to_owned();
    SlotAssignment { kind: sfu_control::TrackKind::Mic, index, track: track_of(&peer), peer, spare: false }
}
