//! What one forwarded packet costs outside the kernel: one publisher, fifty listeners, real keys from real handshakes over
//! memory, packets of 100 bytes, AES-GCM. Beside it, in the same rounds, a bare seal of the same size: the floor that
//! no forwarding with per-listener keys can go below. Prints one JSON object as its last line.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

#[path = "../tests/sim/mod.rs"]
mod sim;

use std::time::{Duration, Instant};

use sfu_core::Path;
use sim::{Client, World};
use srtp::{Half, Profile, Sealer};

const LISTENERS: u64 = 50;
const ROUNDS: usize = 101;
/// Of the publisher, in a round.
const PACKETS: u64 = 40;
/// With the 24 bytes of header that a listener gets: 100 bytes before the tag.
const PAYLOAD: [u8; 76] = [7; 76];

struct Bench {
    world: World,
    publisher: Client,
    index: u64,
}

impl Bench {
    fn new() -> Self {
        let mut world = World::new();
        let publisher = Client::connected(&mut world, 1, |_| {});
        for id in 2..2 + LISTENERS {
            Client::connected(&mut world, id, |_| {});
        }
        Self { world, publisher, index: 100 }
    }

    /// Time and allocations of one round of forwarding. Sealing for the publisher is not part of it.
    fn round(&mut self) -> (Duration, u64) {
        let ssrc = self.publisher.streams[0].ssrc;
        let mut packets: Vec<Vec<u8>> = (self.index..self.index + PACKETS)
            .map(|index| self.publisher.packet((111, false), (index, 960 * index as u32, ssrc), Some(30), &PAYLOAD))
            .collect();
        self.index += PACKETS;
        let path = Path::udp(self.publisher.address);
        let mut took = Duration::ZERO;
        let allocations = allocation_counter::measure(|| {
            let started = now();
            for packet in &mut packets {
                self.world.now += Duration::from_millis(20);
                self.world.node.handle_datagram(self.world.now, path, packet);
                assert_eq!(self.world.node.transmit_count() as u64, LISTENERS);
                self.world.node.clear_transmits();
            }
            took = now().duration_since(started);
        });
        (took, allocations.count_total)
    }
}

/// The real clock: this is a measurement.
#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// The same number of seals, each with another key, as fifty listeners have.
struct Seals {
    sealers: Vec<Sealer>,
    index: u64,
}

impl Seals {
    fn new(profile: Profile) -> Self {
        let sealers = (0..LISTENERS).map(|n| {
            let key = vec![n as u8; profile.key_len()];
            let half = Half::new(profile, &key, &vec![1; profile.salt_len()]).unwrap();
            Sealer::new(profile, &half).unwrap()
        });
        Self { sealers: sealers.collect(), index: 100 }
    }

    fn round(&mut self) -> Duration {
        let mut buf = [0; 200];
        buf[0] = 0x80;
        let started = now();
        for _ in 0..PACKETS {
            self.index += 1;
            for sealer in &mut self.sealers {
                buf[2..4].copy_from_slice(&(self.index as u16).to_be_bytes());
                sealer.seal_rtp(&mut buf, 24, 100, self.index).unwrap();
            }
        }
        now().duration_since(started)
    }
}

fn main() {
    let mut bench = Bench::new();
    let profile = bench.publisher.srtp_profile.unwrap();
    let mut seals = Seals::new(profile);
    let mut seals_128 = Seals::new(Profile::AeadAes128Gcm);
    let (mut packet, mut seal, mut seal_128, mut allocations) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let count = (PACKETS * LISTENERS) as f64;
    for round in 0..ROUNDS + 10 {
        let (took, allocated) = bench.round();
        let (bare, bare_128) = (seals.round(), seals_128.round());
        // The first rounds warm the caches and take the slot.
        if round >= 10 {
            packet.push(took.as_nanos() as f64 / count);
            seal.push(bare.as_nanos() as f64 / count);
            seal_128.push(bare_128.as_nanos() as f64 / count);
            allocations += allocated;
        }
    }
    let allocations = allocations as f64 / (count * ROUNDS as f64);
    let [packet, seal, seal_128] = [packet, seal, seal_128].map(figures);
    print(&format!(
        "forward: 1 publisher, {LISTENERS} listeners, 100-byte packets, {}, {ROUNDS} rounds\n\
         forwarded packet {:.1} ns (best {:.1}), bare seal {:.1} ns (best {:.1}), allocations {allocations}\n\
         {{\"bench\":\"forward\",\"figures\":{{\"packet_ns\":{:.1},\"packet_ns_min\":{:.1},\"packet_ns_max\":{:.1},\
         \"packet_allocs\":{allocations},\"seal_ns\":{:.1},\"seal_ns_min\":{:.1},\"seal_128_ns\":{:.1},\
         \"seal_128_ns_min\":{:.1}}}}}",
        profile.name(),
        packet.median,
        packet.min,
        seal.median,
        seal.min,
        packet.median,
        packet.min,
        packet.max,
        seal.median,
        seal.min,
        seal_128.median,
        seal_128.min,
    ));
}

struct Figures {
    median: f64,
    min: f64,
    max: f64,
}

fn figures(mut rounds: Vec<f64>) -> Figures {
    rounds.sort_by(f64::total_cmp);
    Figures { median: rounds[rounds.len() / 2], min: rounds[0], max: rounds[rounds.len() - 1] }
}

#[expect(clippy::print_stdout, reason = "the result of a bench is its output")]
fn print(text: &str) {
    println!("{text}");
}
