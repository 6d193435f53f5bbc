use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::mpsc::{SyncSender, sync_channel};

use relay_core::{AddressRange, Credentials, Policy, RelayAddress, Shared};
use stun::{Class, IntegrityKey, Message as StunMessage, Method, TransactionId, Writer};

use super::*;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A worker without a thread, a client with a channel to a peer.
struct Stage {
    worker: Worker,
    client: UdpSocket,
    peer: UdpSocket,
    relayed: SocketAddr,
    orders: SyncSender<Order>,
}

impl Stage {
    fn new() -> Self {
        Self::with_beat(Duration::ZERO)
    }

    fn with_beat(gather: Duration) -> Self {
        let loopback = AddressRange::v4([127, 0, 0, 0], 8);
        let policy = Policy { allowed: vec![loopback], allow_loopback: true, ..Policy::default() };
        let mut credentials = Credentials::new("example");
        credentials.add_user("ann:pass").expect("a user");
        let relay = RelayAddress { local: LOCAL, advertised: LOCAL };
        let settings = Settings::new(credentials, policy, vec![relay]);
        let now = Instant::now();
        let shared = Arc::new(Shared::new(1, &(42_000..=48_000), [1; 32], now));
        let server = Server::new(Arc::new(settings), shared, [2; 32], now, 0).expect("settings");
        let listener = Socket::bind((LOCAL, 0).into(), udp::Options::default()).expect("bound");
        let address = listener.local_addr().expect("bound");
        let (orders, waiting) = sync_channel(1);
        let worker = Worker::new(server, vec![listener], waiting, gather).expect("a worker");
        let (client, peer) =
            (UdpSocket::bind((LOCAL, 0)).expect("bound"), UdpSocket::bind((LOCAL, 0)).expect("bound"));
        client.connect(address).expect("connected");
        client.set_nonblocking(true).expect("set");
        let mut stage = Self { worker, client, peer, relayed: address, orders };
        stage.set_up();
        stage
    }

    fn set_up(&mut self) {
        let key = IntegrityKey::long_term(b"ann", b"example", b"pass");
        let nonce = self.ask(Method::ALLOCATE, None, |w| w.requested_transport(17).expect("room")).0;
        let signed = Some((&key, &nonce[..]));
        let (_, relayed) = self.ask(Method::ALLOCATE, signed, |w| w.requested_transport(17).expect("room"));
        self.relayed = relayed.expect("an allocation");
        let peer = self.peer.local_addr().expect("bound");
        self.ask(Method::CHANNEL_BIND, signed, |w| {
            w.channel_number(0x4000).expect("room");
            w.xor_peer_address(peer).expect("room");
        });
    }

    /// NONCE and XOR-RELAYED-ADDRESS of the answer.
    fn ask(
        &mut self,
        method: Method,
        signed: Option<(&IntegrityKey, &[u8])>,
        body: impl FnOnce(&mut Writer<'_>),
    ) -> (Vec<u8>, Option<SocketAddr>) {
        let mut buf = [0; 512];
        let id = TransactionId([method.value() as u8 + u8::from(signed.is_some()); 12]);
        let mut writer = Writer::new(&mut buf, Class::Request, method, id).expect("room");
        body(&mut writer);
        if let Some((_, nonce)) = signed {
            writer.username(b"ann").expect("room");
            writer.realm(b"example").expect("room");
            writer.nonce(nonce).expect("room");
        }
        let len = writer.finish(signed.map(|(key, _)| key), false).expect("room");
        self.client.send(&buf[..len]).expect("sent");
        let answer = self.receive();
        let message = StunMessage::parse(&answer).expect("an answer");
        assert!(signed.is_none() || message.class() == Class::Success, "{:?}", message.error_code());
        (message.nonce().unwrap_or_default().to_vec(), message.xor_relayed_address())
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut buf = [0; 2_048];
        loop {
            match self.client.recv(&mut buf) {
                Ok(len) => return buf[..len].to_vec(),
                Err(_) => assert!(!self.worker.turn().expect("served")),
            }
        }
    }
}

#[test]
fn a_burst_for_one_client_is_two_calls_and_comes_apart_again() {
    let mut stage = Stage::new();
    // Equal ones, a shorter one that ends the run, then longer ones that begin another.
    let lengths = [120, 120, 120, 60, 120, 121, 121];
    let mut calls_of_a_burst = || {
        for (n, len) in (0_u8..).zip(lengths) {
            stage.peer.send_to(&vec![n; len], stage.relayed).expect("sent");
        }
        let calls = stage.worker.counters.send_calls;
        for (n, len) in (0_u8..).zip(lengths) {
            let message = stage.receive();
            assert_eq!(message[..4], [0x40, 0, 0, len as u8]);
            assert!(message.len() == 4 + len && message[4..].iter().all(|byte| *byte == n), "message {n}");
        }
        stage.worker.counters.send_calls - calls
    };
    // The first one, and those that prove to be a queue behind it; a kernel under load may deliver a burst in parts.
    assert!((0..20).any(|_| calls_of_a_burst() <= 2));
}

#[test]
fn relaying_allocates_nothing() {
    let mut stage = Stage::new();
    let mut buf = [0; 256];
    let mut round = |count: usize| {
        let mut allocated = 0;
        for _ in 0..count {
            stage.client.send(&[0x40, 0, 0, 3, 1, 2, 3]).expect("sent");
            stage.peer.set_nonblocking(true).expect("set");
            while stage.peer.recv(&mut buf).is_err() {
                allocated += allocation_counter::measure(|| drop(stage.worker.turn())).count_total;
            }
            stage.peer.send_to(&buf[..3], stage.relayed).expect("sent");
            while stage.client.recv(&mut buf).is_err() {
                allocated += allocation_counter::measure(|| drop(stage.worker.turn())).count_total;
            }
        }
        allocated
    };
    round(5);
    assert_eq!(round(500), 0);
}

#[test]
fn a_thread_that_runs_takes_another_time_between_beats() {
    const MESSAGE: [u8; 7] = [0x40, 0, 0, 3, 1, 2, 3];
    let mut stage = Stage::new();
    stage.orders.send(Order::Gather(Duration::from_millis(5))).expect("it runs");
    stage.worker.waker().wake();
    // Where the machine stands still, fewer come than make a beat.
    for _ in 0..50_000 {
        for _ in 0..20 {
            stage.client.send(&MESSAGE).expect("sent");
        }
        stage.worker.turn().expect("served");
        if stage.worker.gathering.is_on() {
            return;
        }
    }
    panic!("it goes on as before");
}

#[test]
fn a_crowd_is_served_by_the_clock_and_loses_nothing() {
    const BEAT: Duration = Duration::from_millis(5);
    const MESSAGE: [u8; 7] = [0x40, 0, 0, 3, 1, 2, 3];
    let mut stage = Stage::with_beat(BEAT);
    let mut buf = [0; 256];
    let (mut sent, mut received, mut beats) = (0, 0, 0);
    stage.peer.set_nonblocking(true).expect("set");
    // Where the machine stands still, fewer come than make a beat: then there is none, and another is tried for.
    while beats < 3 && sent < 1_000_000 {
        let before = Instant::now();
        for _ in 0..20 {
            stage.client.send(&MESSAGE).expect("sent");
        }
        stage.worker.turn().expect("served");
        let pauses = stage.worker.gathering.is_on() && !stage.worker.has_more;
        stage.client.send(&MESSAGE).expect("sent");
        stage.worker.turn().expect("served");
        sent += 21;
        if pauses {
            assert!(before.elapsed() >= BEAT, "two turns begin a beat apart");
            beats += 1;
        }
        received += std::iter::from_fn(|| stage.peer.recv(&mut buf).ok()).count();
    }
    assert_eq!(beats, 3, "4,000 datagrams a second and more");
    let deadline = Instant::now() + Duration::from_secs(60);
    while received < sent {
        assert!(Instant::now() < deadline, "{received} of {sent}");
        if stage.peer.recv(&mut buf).is_ok() {
            received += 1;
        } else {
            stage.worker.turn().expect("served");
        }
    }
}
