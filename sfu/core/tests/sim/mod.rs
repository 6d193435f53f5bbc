//! A simulated network around one node: made-up time, no loss unless a test takes datagrams away, and endpoints that are
//! ours ([`Client`]) or foreign stacks behind the same trait.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]
#![allow(dead_code, reason = "each test file uses its part of the harness")]

mod client;

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

#[allow(unused_imports, reason = "each test file uses its part of the harness")]
pub(crate) use client::{Behaviour, Client, Received, Stream};
use sfu_core::{
    Certificate, Command, Counters, DropReason, DtlsRole, Event, Fingerprint, HeaderProfile, IceCredentials, Join,
    Joined, Limits, Mid, Node, NodeConfig, Path, PeerId, Reply, RoomId, ShardId, SlotSpec, Ssrc, TrackKind,
    TrackSpec,
};

/// Something with an address that talks to the node.
pub(crate) trait Endpoint {
    fn address(&self) -> SocketAddr;
    fn receive(&mut self, now: Instant, datagram: &[u8]);
    fn timeout(&mut self, now: Instant);
    /// What it wants to send, in order.
    fn transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)>;
}

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) now: Instant,
    pub(crate) events: Vec<Event>,
    /// Datagrams to addresses where nobody is.
    pub(crate) stray: Vec<(SocketAddr, Vec<u8>)>,
    /// Drops what comes from an address.
    pub(crate) blocked: Vec<SocketAddr>,
    certificate: Certificate,
}

pub(crate) const WALL_CLOCK: SystemTime = SystemTime::UNIX_EPOCH;

pub(crate) fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["node".into()]).unwrap();
    Certificate { certificate_der: made.cert.der().to_vec(), private_key_der: made.signing_key.serialize_der() }
}

#[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        Self::on_shard(ShardId::FIRST, limits, origin())
    }

    pub(crate) fn on_shard(shard: ShardId, limits: Limits, now: Instant) -> Self {
        let certificate = certificate();
        let config = NodeConfig {
            shard,
            certificate: certificate.clone(),
            seed: [7 + shard.index() as u8; 32],
            wall_clock_at_start: WALL_CLOCK,
            limits,
        };
        let node = Node::new(config, now).unwrap();
        Self { node, now, events: Vec::new(), stray: Vec::new(), blocked: Vec::new(), certificate }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.node.counters()
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.node.counters().dropped(reason)
    }

    pub(crate) fn command(&mut self, command: Command) -> Reply {
        self.node.handle_command(self.now, command).unwrap()
    }

    pub(crate) fn join(&mut self, join: Join) -> Joined {
        match self.command(Command::Join(Box::new(join))) {
            Reply::Joined(joined) => joined,
            other => panic!("{other:?}"),
        }
    }

    /// A datagram from anywhere.
    pub(crate) fn inject(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.node.handle_datagram(self.now, Path::udp(from), &mut datagram.to_vec());
    }

    /// Delivers until nobody has anything to say at this instant.
    pub(crate) fn settle(&mut self, endpoints: &mut [&mut dyn Endpoint]) {
        loop {
            let mut quiet = true;
            for endpoint in endpoints.iter_mut() {
                while let Some((from, mut datagram)) = endpoint.transmit(self.now) {
                    quiet = false;
                    if !self.blocked.contains(&from) {
                        self.node.handle_datagram(self.now, Path::udp(from), &mut datagram);
                    }
                }
            }
            self.node.run_handshakes(self.now);
            quiet &= !self.deliver(endpoints);
            if quiet {
                break;
            }
        }
    }

    /// Hands the node's output to the endpoints.
    fn deliver(&mut self, endpoints: &mut [&mut dyn Endpoint]) -> bool {
        let sent: Vec<(SocketAddr, Vec<u8>)> =
            self.node.transmits().map(|transmit| (transmit.to.remote, transmit.payload.to_vec())).collect();
        self.node.clear_transmits();
        while let Some(event) = self.node.poll_event() {
            self.events.push(event);
        }
        for (to, datagram) in &sent {
            match endpoints.iter_mut().find(|endpoint| endpoint.address() == *to) {
                Some(endpoint) => endpoint.receive(self.now, datagram),
                None => self.stray.push((*to, datagram.clone())),
            }
        }
        !sent.is_empty()
    }

    /// Lets time pass in steps of 10 ms.
    pub(crate) fn run(&mut self, duration: Duration, endpoints: &mut [&mut dyn Endpoint]) {
        let end = self.now + duration;
        while self.now < end {
            self.settle(endpoints);
            self.now += Duration::from_millis(10);
            for endpoint in endpoints.iter_mut() {
                endpoint.timeout(self.now);
            }
            if self.node.poll_timeout().is_some_and(|at| at <= self.now) {
                self.node.handle_timeout(self.now);
            }
        }
        self.settle(endpoints);
    }

    /// Like [`World::run`] for a network on which only time passes.
    pub(crate) fn idle(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now += Duration::from_millis(10);
            self.node.handle_timeout(self.now);
            self.node.run_handshakes(self.now);
        }
        let sent: Vec<_> =
            self.node.transmits().map(|transmit| (transmit.to.remote, transmit.payload.to_vec())).collect();
        self.stray.extend(sent);
        self.node.clear_transmits();
        while let Some(event) = self.node.poll_event() {
            self.events.push(event);
        }
    }

    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        while let Some(event) = self.node.poll_event() {
            self.events.push(event);
        }
        std::mem::take(&mut self.events)
    }
}

pub(crate) const ROOM: RoomId = RoomId(1);

pub(crate) fn chromium() -> HeaderProfile {
    HeaderProfile { opus: 111, red: Some(63), audio_level: Some(1), mid: Some(4) }
}

pub(crate) fn mid(text: &str) -> Mid {
    Mid::new(text).unwrap()
}

pub(crate) fn track(kind: TrackKind, name: &str, ssrc: Option<u32>) -> TrackSpec {
    TrackSpec { kind, mid: mid(name), ssrc: ssrc.map(Ssrc) }
}

/// The m-lines of a usual client.
pub(crate) fn slots(speech: usize, program: usize) -> Vec<SlotSpec> {
    let mics = (0..speech).map(|n| SlotSpec { kind: TrackKind::Mic, mid: mid(&format!("s{n}")) });
    let programs = (0..program).map(|n| SlotSpec { kind: TrackKind::Program, mid: mid(&format!("p{n}")) });
    mics.chain(programs).collect()
}

pub(crate) fn join(peer: u64, ice: IceCredentials, fingerprint: Fingerprint) -> Join {
    Join {
        room: ROOM,
        peer: PeerId(peer),
        remote_ice: ice,
        fingerprint,
        dtls_role: DtlsRole::Server,
        profile: chromium(),
        nack: false,
        tracks: vec![track(TrackKind::Mic, "0", Some(1_000 + peer as u32))],
        slots: slots(8, 2),
    }
}
