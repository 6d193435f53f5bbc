use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::SystemTime;

use sfu_core::{Limits, NodeConfig};

use super::*;
use crate::accept::Census;
use crate::certificate::Identity;

struct Bench {
    streams: Streams,
    poller: Poller,
    node: Node,
    listener: TcpListener,
    census: Arc<Census>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let config = NodeConfig {
            shard: sfu_core::ShardId::FIRST,
            certificate: Identity::generate().unwrap().certificate,
            seed: [7; 32],
            wall_clock_at_start: SystemTime::now(),
            limits: Limits { peers: 10, ..Limits::default() },
        };
        Self {
            streams: Streams::new(now),
            poller: Poller::new().unwrap(),
            node: Node::new(config, now).unwrap(),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            census: Arc::default(),
            now,
        }
    }

    /// A client's end, and the path of the other.
    fn connect(&mut self) -> (TcpStream, Path) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (stream, remote) = self.listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let ticket = self.census.admit(remote.ip()).unwrap();
        let accepted = Accepted { stream, remote, ticket };
        self.streams.accept(self.now, accepted, (&self.poller, &mut self.node));
        (client, Path::tcp(remote))
    }

    fn serve(&mut self) {
        let ready = self.poller.wait(Some(Duration::from_secs(2))).unwrap();
        self.streams.serve(self.now, &ready, (&self.poller, &mut self.node));
    }

    fn send(&mut self, to: Path, payload: &[u8]) {
        self.streams.collect([Transmit { to, payload }].into_iter());
        self.streams.flush(&self.poller, &mut self.node);
    }
}

fn is_closed(client: &mut TcpStream) -> bool {
    matches!(client.read(&mut [0; 1]), Ok(0) | Err(_))
}

#[test]
fn datagrams_of_a_connection_reach_the_core_and_answers_the_client() {
    let mut bench = Bench::new();
    let (mut client, path) = bench.connect();
    client.write_all(&[0, 3, 0xff, 1, 2, 0, 1]).unwrap();
    client.write_all(&[0xff]).unwrap();
    while bench.node.counters().datagrams_received < 2 {
        bench.serve();
    }
    bench.send(path, b"answer");
    let mut got = [0; 8];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"\0\x06answer");
}

#[test]
fn who_proves_nothing_in_time_is_closed_and_gives_the_place_back() {
    let mut bench = Bench::new();
    let (mut client, _) = bench.connect();
    bench.now += PROOF_TIME_MAX - Duration::from_millis(1);
    bench.streams.serve(bench.now, &Ready::default(), (&bench.poller, &mut bench.node));
    assert_eq!(bench.streams.len(), 1);
    bench.now += SWEEP_INTERVAL;
    bench.streams.serve(bench.now, &Ready::default(), (&bench.poller, &mut bench.node));
    assert_eq!((bench.streams.len(), bench.streams.counters().strangers), (0, 1));
    assert!(is_closed(&mut client));
    assert_eq!(Arc::strong_count(&bench.census), 1, "the ticket is back");
}

#[test]
fn a_stranger_may_not_say_much() {
    let mut bench = Bench::new();
    let (mut client, _) = bench.connect();
    let noise = [&[4, 0][..], &[7; 1_024]].concat();
    for _ in 0..=STRANGER_BYTES_MAX / noise.len() {
        client.write_all(&noise).unwrap();
    }
    while !bench.streams.is_empty() {
        bench.serve();
    }
    assert_eq!(bench.streams.counters().broken, 1);
}

#[test]
fn an_end_is_noticed_and_the_same_address_may_come_again() {
    let mut bench = Bench::new();
    let (client, _) = bench.connect();
    drop(client);
    bench.serve();
    assert_eq!((bench.streams.len(), bench.streams.by_remote.len()), (0, 0));
    let (_second, path) = bench.connect();
    // As if the first one's end had been lost: the newer one is the living one.
    let stream = bench.streams.entries.iter().next().unwrap().1.stream.socket().try_clone().unwrap();
    let ticket = bench.census.admit(path.remote.ip()).unwrap();
    let again = Accepted { stream, remote: path.remote, ticket };
    bench.streams.accept(bench.now, again, (&bench.poller, &mut bench.node));
    assert_eq!((bench.streams.len(), bench.streams.by_remote.len()), (1, 1));
}

/// The kernel's buffers fill, then our queue does, then the oldest goes; nothing waits and nothing grows.
#[test]
fn a_client_that_does_not_read_costs_a_bounded_queue() {
    let mut bench = Bench::new();
    let (mut client, path) = bench.connect();
    let mut packet = [0x80; 1_000];
    let mut sent = 0_u32;
    while bench.streams.counters().frames_dropped < 1_000 {
        packet[4..8].copy_from_slice(&sent.to_be_bytes());
        bench.send(path, &packet);
        sent += 1;
        assert!(sent < 100_000, "the kernel takes everything");
    }
    assert_eq!(bench.streams.len(), 1);
    // The kernel may still move something from end to end; what then has room is filled, and that has an end.
    let is_full = || {
        let ready = bench.poller.wait(Some(Duration::ZERO)).unwrap();
        bench.streams.serve(bench.now, &ready, (&bench.poller, &mut bench.node));
        ready.tokens().is_empty()
    };
    assert!(std::iter::repeat_with(is_full).take(1_000).any(|full| full), "no room to write, no busy loop");

    // It reads again: whole frames, in order, the newest among them.
    client.set_nonblocking(true).unwrap();
    let (mut last, mut unread, mut part) = (None, Vec::new(), [0; 65_536]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while last != Some(sent - 1) {
        assert!(Instant::now() < deadline, "{last:?} of {sent}");
        let length = client.read(&mut part).unwrap_or(0);
        unread.extend_from_slice(&part[..length]);
        for frame in unread.chunks_exact(1_002) {
            assert_eq!(frame[..2], 1_000_u16.to_be_bytes());
            let number = u32::from_be_bytes(frame[6..10].try_into().unwrap());
            assert!(last.is_none_or(|last| number > last));
            last = Some(number);
        }
        unread.drain(..unread.len() / 1_002 * 1_002);
        let ready = bench.poller.wait(Some(Duration::from_millis(1))).unwrap();
        bench.streams.serve(bench.now, &ready, (&bench.poller, &mut bench.node));
    }
}

#[test]
fn a_client_that_asks_and_does_not_read_is_closed() {
    let mut bench = Bench::new();
    let (_client, path) = bench.connect();
    let mut sent = 0;
    while !bench.streams.is_empty() {
        bench.send(path, &[1; 1_000]);
        sent += 1;
        assert!(sent < 100_000, "never given up");
    }
    assert_eq!(bench.streams.counters().broken, 1);
}
