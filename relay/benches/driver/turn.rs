//! TURN clients with a socket each: allocate, bind a channel to the peer, nothing else.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use stun::{Class, IntegrityKey, Message, Method, TransactionId, Writer};

use super::{CHANNEL, PASSWORD, PAYLOAD_BYTES, REALM, USER};

const ANSWER_TIME_MAX: Duration = Duration::from_millis(500);
const ATTEMPTS_MAX: u32 = 20;
/// Clients that wait for an answer at the same time.
const WINDOW: usize = 64;

pub struct Client {
    pub socket: UdpSocket,
    key: IntegrityKey,
    nonce: Vec<u8>,
    next_id: u64,
    last: Vec<u8>,
}

impl Client {
    pub fn new(from: IpAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind((from, 0)).expect("a port");
        socket.connect(server).expect("connected");
        socket.set_read_timeout(Some(ANSWER_TIME_MAX)).expect("set");
        let key = IntegrityKey::long_term(USER.as_bytes(), REALM.as_bytes(), PASSWORD.as_bytes());
        Self { socket, key, nonce: Vec::new(), next_id: 0, last: Vec::new() }
    }

    fn send(&mut self, method: Method, body: impl FnOnce(&mut Writer<'_>)) {
        self.next_id += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.next_id.to_be_bytes());
        let mut buf = [0; 512];
        let mut writer = Writer::new(&mut buf, Class::Request, method, TransactionId(id)).expect("room");
        body(&mut writer);
        if !self.nonce.is_empty() {
            writer.username(USER.as_bytes()).expect("room");
            writer.realm(REALM.as_bytes()).expect("room");
            writer.nonce(&self.nonce).expect("room");
        }
        let len = writer.finish((!self.nonce.is_empty()).then_some(&self.key), false).expect("room");
        self.last = buf[..len].to_vec();
        self.socket.send(&self.last).expect("sent");
    }

    /// The answer to the last request, which is repeated until there is one.
    fn answer(&mut self) -> Vec<u8> {
        let mut buf = [0; 2_048];
        for _ in 0..ATTEMPTS_MAX {
            if let Ok(len) = self.socket.recv(&mut buf) {
                let message = Message::parse(&buf[..len]).expect("an answer");
                if message.transaction_id().0[..] == self.last[8..20] {
                    return buf[..len].to_vec();
                }
                continue;
            }
            self.socket.send(&self.last).expect("sent");
        }
        panic!("the server does not answer");
    }
}

/// So many clients, each with an allocation and, with a peer, a channel.
pub fn allocate(from: IpAddr, server: SocketAddr, count: usize, peer: Option<SocketAddr>) -> Vec<Client> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let size = WINDOW.min(count - all.len());
        let mut window = (0..size).map(|_| Client::new(from, server)).collect::<Vec<_>>();
        let transport = |writer: &mut Writer<'_>| writer.requested_transport(17).expect("room");
        window.iter_mut().for_each(|client| client.send(Method::ALLOCATE, transport));
        for client in &mut window {
            let answer = client.answer();
            client.nonce = Message::parse(&answer).expect("a challenge").nonce().expect("a nonce").to_vec();
            client.send(Method::ALLOCATE, transport);
        }
        for client in &mut window {
            expect_success(&client.answer());
            if let Some(peer) = peer {
                client.send(Method::CHANNEL_BIND, |writer| {
                    writer.channel_number(CHANNEL).expect("room");
                    writer.xor_peer_address(peer).expect("room");
                });
            }
        }
        if peer.is_some() {
            window.iter_mut().for_each(|client| expect_success(&client.answer()));
        }
        all.append(&mut window);
    }
    all
}

/// A message with room for a time at its beginning.
pub fn channel_data() -> [u8; 4 + PAYLOAD_BYTES] {
    let mut message = [0x55; 4 + PAYLOAD_BYTES];
    message[..2].copy_from_slice(&CHANNEL.to_be_bytes());
    message[2..4].copy_from_slice(&(PAYLOAD_BYTES as u16).to_be_bytes());
    message
}

/// What a stranger begins with.
pub fn unsigned_allocate(id: u64) -> Vec<u8> {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    let mut buf = vec![0; 64];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::ALLOCATE, TransactionId(bytes)).expect("room");
    writer.requested_transport(17).expect("room");
    let len = writer.finish(None, false).expect("room");
    buf.truncate(len);
    buf
}

fn expect_success(answer: &[u8]) {
    let message = Message::parse(answer).expect("an answer");
    assert_eq!(message.class(), Class::Success, "{:?}", message.error_code());
}
