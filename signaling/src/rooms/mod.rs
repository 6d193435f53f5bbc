//! Rooms as a pure state machine: [`Rooms::handle`] takes an [`Input`] and the time and gives back [`Effect`]s. It does
//! no IO, reads no clock and makes no random ids; it knows neither sockets nor SDP nor where nodes are. Whoever drives
//! it carries out the effects in order and reports what came of them as inputs.
//!
//! What a client is told is exactly what its roster needs: `welcome` holds all lines (its own too), `joined` replaces
//! one, `left` removes one, `mute` changes one track, and `moved` with `node_lost` takes the media of every line away.

mod events;
mod media;
mod member;
mod message;
mod takeover;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use sfu_control::SlotAssignment;
use signaling_protocol::{Member as RosterLine, ProtocolError, Role, ServerMessage, TrackKind};

use crate::codes::Code;
use member::{Away, Member};

pub use media::{MediaSpec, Pending};
pub use message::{CallFailure, Effect, Greeting, Input, NodeAnswer, Request};
pub use takeover::Meta;

/// A client's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// What a token granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub identity: String,
    pub name: String,
    pub role: Role,
    /// Tracks that may be published; `None`: what the role allows.
    pub kinds: Option<Vec<TrackKind>>,
}

/// Bounds and times.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub rooms_max: usize,
    pub members_max: usize,
    /// How long a participation outlives its socket.
    pub resume_grace: Duration,
    /// How long after the start of the process a resume for an unknown peer waits for a node to report it.
    pub takeover_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Memory: about 1 KiB a room and 2 KiB a member.
            rooms_max: 10_000,
            // As many as a media node takes into one room.
            members_max: 2_500,
            resume_grace: Duration::from_secs(10),
            // Three heartbeats of a node.
            takeover_wait: Duration::from_secs(6),
        }
    }
}

/// A peer that is away and idle goes after this time: long enough for a client that only lost its network for a moment,
/// short enough that a killed browser is off the roster within 5 s.
const AWAY_IDLE_MIN: Duration = Duration::from_secs(3);
/// Resumes that wait for a node. As many as one node has peers.
const PARKED_MAX: usize = 4096;

/// Where the media of a room is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    None,
    /// A node has been asked for.
    Asked,
    On(String),
}

#[derive(Debug)]
struct Room {
    members: BTreeMap<String, Member>,
    place: Place,
    /// With our peer ids. `None` after a takeover, until the node says it.
    slots: Option<Vec<SlotAssignment>>,
}

impl Room {
    fn new() -> Self {
        Self { members: BTreeMap::new(), place: Place::None, slots: Some(Vec::new()) }
    }

    fn conns_except(&self, peer: Option<&str>) -> Vec<ConnId> {
        let others = self.members.iter().filter(|(id, _)| Some(id.as_str()) != peer);
        others.filter_map(|(_, member)| member.conn).collect()
    }

    fn roster(&self) -> Vec<RosterLine> {
        self.members.iter().map(|(peer, member)| member.line(peer)).collect()
    }
}

/// A `resume` that came before the node with its peer was known.
#[derive(Debug)]
struct Parked {
    conn: ConnId,
    re: u64,
    participation: crate::resume::Participation,
    until: Instant,
}

/// What there is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub rooms: usize,
    pub members: usize,
    pub away: usize,
}

/// All rooms of this process.
#[derive(Debug)]
pub struct Rooms {
    limits: Limits,
    rooms: BTreeMap<String, Room>,
    /// Which participation a socket carries.
    conns: HashMap<ConnId, (String, String)>,
    /// The node's peer ids: a participation has a new one for each media connection.
    node_peers: HashMap<String, (String, String)>,
    calls: HashMap<u64, Pending>,
    next_call: u64,
    parked: Vec<Parked>,
    takeover_until: Instant,
    nodes_seen: BTreeSet<String>,
    /// May hold stale entries: each is checked when it is due.
    timers: BTreeSet<(Instant, String, String)>,
    effects: Vec<Effect>,
}

impl Rooms {
    #[must_use]
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            rooms: BTreeMap::new(),
            conns: HashMap::new(),
            node_peers: HashMap::new(),
            calls: HashMap::new(),
            next_call: 1,
            parked: Vec::new(),
            takeover_until: now + limits.takeover_wait,
            nodes_seen: BTreeSet::new(),
            timers: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    /// One input; the effects are to be carried out in order.
    pub fn handle(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        match input {
            Input::Request { conn, re, request } => self.request(conn, re, request),
            Input::Hello { conn, re, room, peer, nonce, grant } => self.hello(conn, re, room, peer, nonce, grant),
            Input::Resume { conn, re, participation } => self.resume(now, conn, re, participation),
            Input::SocketClosed { conn } => self.socket_closed(conn),
            Input::SocketLost { conn } => self.socket_lost(now, conn),
            Input::NodeEvent { node, event } => self.node_event(now, &node, event),
            Input::CallDone { call, result } => self.call_done(call, result),
            Input::Placed { room, node } => self.placed(&room, node),
            Input::NodeUp { node, fingerprint, peers } => self.node_up(now, &node, &fingerprint, peers),
            Input::NodeLost { node } => self.node_lost(&node),
            Input::Timeout => self.timeout(now),
        }
        std::mem::take(&mut self.effects)
    }

    /// When [`Input::Timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let parked = self.parked.iter().map(|parked| parked.until).min();
        let timer = self.timers.first().map(|(at, ..)| *at);
        [parked, timer].into_iter().flatten().min()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let members = self.rooms.values().flat_map(|room| room.members.values());
        Counts {
            rooms: self.rooms.len(),
            members: self.rooms.values().map(|room| room.members.len()).sum(),
            away: members.filter(|member| member.away.is_some()).count(),
        }
    }

    /// The roster of a room, as a newcomer would get it.
    #[must_use]
    pub fn roster(&self, room: &str) -> Vec<RosterLine> {
        self.rooms.get(room).map(Room::roster).unwrap_or_default()
    }

    fn hello(&mut self, conn: ConnId, re: u64, room_name: String, peer: String, nonce: String, grant: Grant) {
        if self.conns.contains_key(&conn) {
            return self.refuse_hello(
                conn,
                re,
                Code::AlreadyJoined.error("this connection already has a participation"),
            );
        }
        if !self.rooms.contains_key(&room_name) && self.rooms.len() >= self.limits.rooms_max {
            return self.refuse_hello(
                conn,
                re,
                Code::ServerFull.error_retry("this server has no place for a new room", 5000),
            );
        }
        let room = self.rooms.entry(room_name.clone()).or_insert_with(Room::new);
        if room.members.len() >= self.limits.members_max {
            return self.refuse_hello(conn, re, Code::RoomFull.error_retry("room is full", 5000));
        }
        let member = Member::new(grant, nonce, Some(conn));
        let line = member.line(&peer);
        let others = room.conns_except(None);
        room.members.insert(peer.clone(), member);
        self.greet(conn, re, &room_name, &peer);
        self.conns.insert(conn, (room_name, peer));
        self.send(others, ServerMessage::Joined { member: line });
    }

    fn resume(&mut self, now: Instant, conn: ConnId, re: u64, participation: crate::resume::Participation) {
        if self.conns.contains_key(&conn) {
            return self.refuse_hello(
                conn,
                re,
                Code::AlreadyJoined.error("this connection already has a participation"),
            );
        }
        let Some(member) = self.member_mut(&participation.room, &participation.peer) else {
            if now < self.takeover_until && self.parked.len() < PARKED_MAX {
                return self.parked.push(Parked { conn, re, participation, until: self.takeover_until });
            }
            return self.refuse_hello(conn, re, Code::ResumeExpired.error("this participation has ended"));
        };
        if member.nonce != participation.nonce {
            return self.refuse_hello(conn, re, Code::ResumeExpired.error("this participation has ended"));
        }
        let replaced = member.conn.replace(conn);
        let was_away = member.away.take().is_some();
        let line = member.line(&participation.peer);
        if let Some(old) = replaced {
            self.conns.remove(&old);
            self.send(vec![old], ServerMessage::Moved { reason: "replaced".into(), retry_after_ms: None });
            self.effects.push(Effect::Close { conn: old, code: 4000, reason: "replaced" });
        }
        let (room, peer) = (&participation.room, &participation.peer);
        self.conns.insert(conn, (room.clone(), peer.clone()));
        self.greet(conn, re, room, peer);
        self.send_slots(room, peer, true);
        if was_away {
            self.broadcast(room, Some(peer), ServerMessage::Joined { member: line });
        }
    }

    fn greet(&mut self, conn: ConnId, re: u64, room_name: &str, peer: &str) {
        let Some(room) = self.rooms.get(room_name) else { return };
        let Some(member) = room.members.get(peer) else { return };
        let greeting = Greeting {
            re,
            room: room_name.to_owned(),
            peer: peer.to_owned(),
            nonce: member.nonce.clone(),
            grant: member.grant.clone(),
            resumed: member.media_stands(),
            roster: room.roster(),
        };
        self.effects.push(Effect::Welcome { conn, greeting: Box::new(greeting) });
    }

    fn request(&mut self, conn: ConnId, re: u64, request: Request) {
        let Some((room, peer)) = self.conns.get(&conn).cloned() else {
            return self.refuse_hello(conn, re, Code::HelloExpected.error("this connection has no participation"));
        };
        match request {
            Request::Offer(spec) => self.offer(&room, &peer, conn, re, *spec),
            Request::Mute { track, muted, of } => self.mute(&room, &peer, conn, re, track, muted, of),
            Request::Signal { to, data } => self.signal(&room, peer, conn, re, to.as_deref(), data),
            Request::Evict { peer: target } => self.evict(&room, &peer, conn, re, &target),
            Request::Leave => {
                self.reply_ok(conn, re);
                self.effects.push(Effect::Close { conn, code: 1000, reason: "left" });
                self.remove(&room, &peer, "left");
            }
        }
    }

    fn signal(
        &mut self,
        room_name: &str,
        from: String,
        conn: ConnId,
        re: u64,
        to: Option<&str>,
        data: serde_json::Value,
    ) {
        let Some(room) = self.rooms.get(room_name) else { return };
        let receivers = match to {
            None => room.conns_except(Some(&from)),
            Some(to) => match room.members.get(to) {
                // Away: the socket is lost, and signals are not kept.
                Some(member) => member.conn.into_iter().collect(),
                None => return self.refuse(conn, re, Code::NoSuchPeer.error("no such peer in this room")),
            },
        };
        self.send(receivers, ServerMessage::Signal { from, data });
        self.reply_ok(conn, re);
    }

    fn evict(&mut self, room: &str, by: &str, conn: ConnId, re: u64, target: &str) {
        if !self.role_of(room, by).is_some_and(|role| role == Role::Moderator) {
            return self.refuse(conn, re, Code::RoleForbids.error("only moderators may evict"));
        }
        let Some(member) = self.member_mut(room, target) else {
            return self.refuse(conn, re, Code::NoSuchPeer.error("no such peer in this room"));
        };
        let evicted = member.conn;
        self.reply_ok(conn, re);
        if let Some(evicted) = evicted {
            self.send(vec![evicted], ServerMessage::Moved { reason: "evicted".into(), retry_after_ms: None });
            self.effects.push(Effect::Close { conn: evicted, code: 4001, reason: "evicted" });
        }
        self.remove(room, target, "evicted");
    }

    /// The client said goodbye with a WebSocket close.
    fn socket_closed(&mut self, conn: ConnId) {
        self.parked.retain(|parked| parked.conn != conn);
        if let Some((room, peer)) = self.conns.get(&conn).cloned() {
            self.remove(&room, &peer, "left");
        }
    }

    fn socket_lost(&mut self, now: Instant, conn: ConnId) {
        self.parked.retain(|parked| parked.conn != conn);
        let Some((room, peer)) = self.conns.remove(&conn) else { return };
        self.set_away(now, &room, &peer);
        if let Some(line) = self.line(&room, &peer) {
            self.broadcast(&room, Some(&peer), ServerMessage::Joined { member: line });
        }
    }

    fn set_away(&mut self, now: Instant, room: &str, peer: &str) {
        let until = now + self.limits.resume_grace;
        let Some(member) = self.member_mut(room, peer) else { return };
        member.conn = None;
        member.away = Some(Away { since: now, until });
        let key = |at| (at, room.to_owned(), peer.to_owned());
        self.timers.insert(key(until));
        self.timers.insert(key(now + AWAY_IDLE_MIN));
    }

    fn timeout(&mut self, now: Instant) {
        while let Some((at, room, peer)) = self.timers.pop_first() {
            if at > now {
                self.timers.insert((at, room, peer));
                break;
            }
            self.remove_if_lost(now, &room, &peer);
        }
        let (due, waiting) = std::mem::take(&mut self.parked).into_iter().partition(|parked| parked.until <= now);
        self.parked = waiting;
        for parked in due {
            let Parked { conn, re, .. } = parked;
            self.refuse_hello(conn, re, Code::ResumeExpired.error("this participation has ended"));
        }
    }

    fn remove_if_lost(&mut self, now: Instant, room: &str, peer: &str) {
        let Some(member) = self.member_mut(room, peer) else { return };
        let Some(away) = member.away else { return };
        if now >= away.until || (member.media_is_idle() && now >= away.since + AWAY_IDLE_MIN) {
            self.remove(room, peer, "lost");
        }
    }

    /// Ends a participation, whatever state it is in.
    fn remove(&mut self, room_name: &str, peer: &str, reason: &str) {
        let Some(room) = self.rooms.get_mut(room_name) else { return };
        let Some(member) = room.members.remove(peer) else { return };
        if let Some(conn) = member.conn {
            self.conns.remove(&conn);
        }
        self.end_media(&member);
        let left = ServerMessage::Left { peer: peer.to_owned(), reason: reason.to_owned() };
        self.broadcast(room_name, None, left);
        self.release_if_unused(room_name);
        if self.rooms.get(room_name).is_some_and(|room| room.members.is_empty()) {
            self.rooms.remove(room_name);
        }
    }

    fn member_mut(&mut self, room: &str, peer: &str) -> Option<&mut Member> {
        self.rooms.get_mut(room)?.members.get_mut(peer)
    }

    fn member(&self, room: &str, peer: &str) -> Option<&Member> {
        self.rooms.get(room)?.members.get(peer)
    }

    fn role_of(&self, room: &str, peer: &str) -> Option<Role> {
        self.member(room, peer).map(|member| member.grant.role)
    }

    fn line(&self, room: &str, peer: &str) -> Option<RosterLine> {
        self.member(room, peer).map(|member| member.line(peer))
    }

    /// The changed roster line to everybody, oneself included.
    fn announce(&mut self, room: &str, peer: &str) {
        if let Some(line) = self.line(room, peer) {
            self.broadcast(room, None, ServerMessage::Joined { member: line });
        }
    }

    fn broadcast(&mut self, room: &str, except: Option<&str>, message: ServerMessage) {
        let to = self.rooms.get(room).map(|room| room.conns_except(except)).unwrap_or_default();
        self.send(to, message);
    }

    fn send(&mut self, to: Vec<ConnId>, message: ServerMessage) {
        if !to.is_empty() {
            self.effects.push(Effect::Send { to, message: Box::new(message) });
        }
    }

    fn reply_ok(&mut self, conn: ConnId, re: u64) {
        self.reply(conn, ServerMessage::Ok { re });
    }

    fn refuse(&mut self, conn: ConnId, re: u64, error: ProtocolError) {
        self.reply(conn, ServerMessage::Error { re: Some(re), error });
    }

    /// To a socket that may be gone or replaced by the time that a node has answered.
    fn reply(&mut self, conn: ConnId, message: ServerMessage) {
        if self.conns.contains_key(&conn) {
            self.send(vec![conn], message);
        }
    }

    /// To a socket without a participation.
    fn refuse_hello(&mut self, conn: ConnId, re: u64, error: ProtocolError) {
        self.send(vec![conn], ServerMessage::Error { re: Some(re), error });
    }
}

#[cfg(test)]
mod tests;
