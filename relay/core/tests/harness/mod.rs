//! A server with a clock of its own, and clients that speak TURN to it. No socket is involved: binding succeeds unless a
//! test says otherwise.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_core::{
    ANSWER_BYTES_MAX, Action, AddressRange, AllocationId, Client, ConnectionId, Credentials, Family, HEADROOM_BYTES,
    Hash, Link, PendingConnect, Policy, RelayAddress, Server, Settings, Shared, TAILROOM_BYTES,
};
use stun::{AttributeType, Class, IntegrityKey, Message, Method, TransactionId, Writer};

pub const REALM: &str = "example";
pub const WALL_CLOCK: u64 = 1_700_000_000;
pub const PEER: &str = "203.0.113.9:40000";
pub const PEER_V6: &str = "[2001:db8::9]:40000";
pub const RELAY: &str = "198.51.100.1";
pub const RELAY_V6: &str = "2001:db8::1";
pub const SECRET: &[u8] = b"a secret of the fleet";

pub struct World {
    pub server: Server,
    pub shared: Arc<Shared>,
    pub now: Instant,
    pub closed: Vec<(AllocationId, Family)>,
    /// How many of the next attempts to bind fail.
    pub binds_to_fail: u32,
    pub bound: Vec<SocketAddr>,
    next_port: u16,
}

/// What one datagram of a client led to.
#[derive(Debug, Default)]
pub struct Got {
    pub answer: Vec<u8>,
    pub created: Option<AllocationId>,
    pub to_peer: Option<(Family, SocketAddr, Vec<u8>)>,
    pub connect: Option<Box<PendingConnect>>,
    pub joined: Option<ConnectionId>,
}

pub fn credentials() -> Credentials {
    let mut credentials = Credentials::new(REALM);
    credentials.add_user("ann:pass").expect("a user");
    credentials.add_user("bob:word").expect("a user");
    credentials.add_secret(SECRET, Hash::Sha1);
    credentials
}

pub fn settings() -> Settings {
    let relays = [RELAY, RELAY_V6].map(|ip| {
        let ip = ip.parse().expect("an address");
        RelayAddress { local: ip, advertised: ip }
    });
    let allowed = ["203.0.113.0/24", "2001:db8::/32"].map(|range| range.parse::<AddressRange>().expect("a range"));
    let own = relays.map(|relay| relay.local).to_vec();
    let policy = Policy { allowed: allowed.to_vec(), own, ..Policy::default() };
    Settings::new(credentials(), policy, relays.to_vec())
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_ports(49_152..=65_535, change)
    }

    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to begin somewhere")]
    pub fn with_ports(ports: std::ops::RangeInclusive<u16>, change: impl FnOnce(&mut Settings)) -> Self {
        let now = Instant::now();
        let mut settings = settings();
        change(&mut settings);
        let shared = Arc::new(Shared::new(settings.relays.len(), &ports, [7; 32], now));
        let server =
            Server::new(Arc::new(settings), Arc::clone(&shared), [9; 32], now, WALL_CLOCK).expect("settings");
        Self { server, shared, now, closed: Vec::new(), binds_to_fail: 0, bound: Vec::new(), next_port: 1_000 }
    }

    pub fn client(&mut self, username: &str, password: &str) -> Turn {
        self.next_port += 1;
        let address = SocketAddr::from(([192, 0, 2, 55], self.next_port));
        let client = Client { address, link: Link::Udp { listener: 0 } };
        Turn::new(client, username, password)
    }

    /// The server of another thread, which shares what threads share.
    pub fn sibling(&self) -> Self {
        let shared = Arc::clone(&self.shared);
        let server = Server::new(Arc::new(settings()), Arc::clone(&shared), [8; 32], self.now, WALL_CLOCK);
        let server = server.expect("settings");
        let next_port = self.next_port + 10_000;
        Self { server, shared, now: self.now, closed: Vec::new(), binds_to_fail: 0, bound: Vec::new(), next_port }
    }

    /// A client with an allocation.
    pub fn allocated(&mut self, username: &str, password: &str) -> Turn {
        let mut turn = self.client(username, password);
        let got = turn.allocate(self, |_| {});
        turn.id = Some(got.created.expect("an allocation"));
        turn
    }

    pub fn send(&mut self, client: Client, bytes: &[u8]) -> Got {
        let mut out = [0; ANSWER_BYTES_MAX];
        let mut action = self.server.handle_client(self.now, client, bytes, &mut out);
        let mut got = Got::default();
        while let Action::Bind(pending) = action {
            let is_bound = self.binds_to_fail == 0;
            self.binds_to_fail = self.binds_to_fail.saturating_sub(1);
            self.bound = pending.addresses().map(|(_, address)| address).collect();
            assert!(!self.bound.is_empty());
            action = self.server.complete(self.now, pending, is_bound, &mut out);
        }
        match action {
            Action::Nothing | Action::Bind(_) => {}
            Action::Connect(pending) => got.connect = Some(pending),
            Action::Join { connection, answer } => {
                got.joined = Some(connection);
                got.answer = out[..answer].to_vec();
            }
            Action::Answer(len) => got.answer = out[..len].to_vec(),
            Action::Created { allocation, answer } => {
                got.created = Some(allocation);
                got.answer = out[..answer].to_vec();
            }
            Action::ToPeer { family, peer, payload, .. } => {
                got.to_peer = Some((family, peer, bytes[payload].to_vec()));
            }
        }
        while let Some(closed) = self.server.poll_closed() {
            self.closed.push(closed);
        }
        got
    }

    /// A datagram at a relayed address; gives the message for the client.
    pub fn peer_sends(&mut self, id: AllocationId, peer: &str, data: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = framed(data);
        let peer = peer.parse().expect("an address");
        let (_, range) = self.server.handle_peer(self.now, id, peer, &mut buffer, data.len())?;
        Some(buffer[range].to_vec())
    }

    pub fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.server.handle_timeout(self.now);
        while let Some(closed) = self.server.poll_closed() {
            self.closed.push(closed);
        }
    }
}

pub fn framed(data: &[u8]) -> Vec<u8> {
    [&[0xEE; HEADROOM_BYTES], data, &[0xEE; TAILROOM_BYTES]].concat()
}

/// A TURN client without a socket.
pub struct Turn {
    pub client: Client,
    pub username: String,
    pub key: IntegrityKey,
    pub nonce: Vec<u8>,
    pub id: Option<AllocationId>,
    pub fingerprint: bool,
    pub sha256: bool,
    next_id: u64,
}

impl Turn {
    pub fn new(client: Client, username: &str, password: &str) -> Self {
        let key = IntegrityKey::long_term(username.as_bytes(), REALM.as_bytes(), password.as_bytes());
        Self {
            client,
            username: username.to_owned(),
            key,
            nonce: Vec::new(),
            id: None,
            fingerprint: false,
            sha256: false,
            next_id: 0,
        }
    }

    /// With a challenge first, if there is no nonce yet; then UDP is asked for.
    pub fn allocate(&mut self, world: &mut World, body: impl FnOnce(&mut Writer<'_>)) -> Got {
        self.learn_nonce(world);
        let request = self.signed(Method::ALLOCATE, |writer| {
            writer.requested_transport(17).expect("room");
            body(writer);
        });
        world.send(self.client, &request)
    }

    pub fn learn_nonce(&mut self, world: &mut World) {
        if self.nonce.is_empty() {
            let got = world
                .send(self.client, &self.unsigned(Method::ALLOCATE, |w| w.requested_transport(17).expect("room")));
            self.nonce = Message::parse(&got.answer).expect("a challenge").nonce().expect("a nonce").to_vec();
        }
    }

    pub fn request(&mut self, world: &mut World, method: Method, body: impl FnOnce(&mut Writer<'_>)) -> Got {
        let request = self.signed(method, body);
        world.send(self.client, &request)
    }

    pub fn refresh(&mut self, world: &mut World, seconds: u32) -> Got {
        self.request(world, Method::REFRESH, |w| w.lifetime(seconds).expect("room"))
    }

    pub fn permit(&mut self, world: &mut World, peers: &[&str]) -> Got {
        self.request(world, Method::CREATE_PERMISSION, |w| {
            for peer in peers {
                w.xor_peer_address(peer.parse().expect("an address")).expect("room");
            }
        })
    }

    pub fn bind(&mut self, world: &mut World, channel: u16, peer: &str) -> Got {
        self.request(world, Method::CHANNEL_BIND, |w| {
            w.channel_number(channel).expect("room");
            w.xor_peer_address(peer.parse().expect("an address")).expect("room");
        })
    }

    pub fn say(&mut self, world: &mut World, channel: u16, data: &[u8]) -> Got {
        world.send(self.client, &channel_data(channel, data))
    }

    pub fn send_to(&mut self, world: &mut World, peer: &str, data: &[u8]) -> Got {
        let id = self.new_id();
        let bytes = write(Class::Indication, Method::SEND, id, None, false, |w| {
            w.xor_peer_address(peer.parse().expect("an address")).expect("room");
            w.data(data).expect("room");
        });
        world.send(self.client, &bytes)
    }

    pub fn signed(&mut self, method: Method, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let id = self.new_id();
        self.signed_as(id, method, body)
    }

    pub fn signed_as(&self, id: TransactionId, method: Method, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let key = (!self.sha256).then_some(&self.key);
        write(Class::Request, method, id, key, self.fingerprint, |w| {
            body(w);
            w.username(self.username.as_bytes()).expect("room");
            w.realm(REALM.as_bytes()).expect("room");
            w.nonce(&self.nonce).expect("room");
            if self.sha256 {
                w.integrity_sha256(&self.key).expect("room");
            }
        })
    }

    pub fn unsigned(&mut self, method: Method, body: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let id = self.new_id();
        write(Class::Request, method, id, None, self.fingerprint, body)
    }

    pub fn new_id(&mut self) -> TransactionId {
        self.next_id += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.next_id.to_be_bytes());
        id[8..10].copy_from_slice(&self.client.address.port().to_be_bytes());
        TransactionId(id)
    }
}

pub fn write(
    class: Class,
    method: Method,
    id: TransactionId,
    key: Option<&IntegrityKey>,
    fingerprint: bool,
    body: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let mut buf = vec![0; 4_096];
    let mut writer = Writer::new(&mut buf, class, method, id).expect("room");
    body(&mut writer);
    let len = writer.finish(key, fingerprint).expect("room");
    buf.truncate(len);
    buf
}

pub fn channel_data(channel: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = channel.to_be_bytes().to_vec();
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

impl Got {
    /// 0: no answer; 200: success; else the error code.
    pub fn code(&self) -> u16 {
        if self.answer.is_empty() {
            return 0;
        }
        let message = Message::parse(&self.answer).expect("an answer that parses");
        match message.class() {
            Class::Success => 200,
            Class::Error => message.error_code().expect("a code").code,
            Class::Request | Class::Indication => panic!("not an answer"),
        }
    }

    pub fn relayed(&self) -> Vec<SocketAddr> {
        let message = Message::parse(&self.answer).expect("an answer");
        let all = message.attributes().filter(|a| a.kind == AttributeType::XOR_RELAYED_ADDRESS);
        all.map(|a| message.decode_xor_address(a.value).expect("an address")).collect()
    }

    pub fn attribute(&self, kind: AttributeType) -> Option<Vec<u8>> {
        Message::parse(&self.answer).expect("an answer").attribute(kind).map(<[u8]>::to_vec)
    }
}

/// The password of a TURN REST user name, made as a broker makes it.
pub fn rest_password(secret: &[u8], username: &str) -> String {
    use base64::Engine;
    use hmac::{Hmac, Mac};
    let mac = Hmac::<sha1::Sha1>::new_from_slice(secret).expect("any length").chain_update(username);
    base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
}
