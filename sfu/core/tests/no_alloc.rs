//! Forwarding allocates nothing: counted by an allocator that stands in for the real one in this test binary only.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::time::Duration;

use sfu_core::Path;
use sim::{Client, World};

#[test]
fn forwarding_to_fifty_listeners_allocates_nothing() {
    let mut world = World::new();
    let mut publisher = Client::connected(&mut world, 1, |_| {});
    for id in 2..52 {
        Client::connected(&mut world, id, |_| {});
    }
    let ssrc = publisher.streams[0].ssrc;
    let mut packets: Vec<Vec<u8>> = (0..1_100u64)
        .map(|n| publisher.packet((111, false), (100 + n, 960 * n as u32, ssrc), Some(30), &[7; 80]))
        .collect();
    let path = Path::udp(publisher.address);
    let mut forward = |packets: &mut [Vec<u8>]| {
        let mut sent = 0;
        for packet in packets {
            world.now += Duration::from_millis(20);
            world.node.handle_datagram(world.now, path, packet);
            sent += world.node.transmits().count();
            world.node.clear_transmits();
        }
        sent
    };
    // The first packets take a slot and name a speaker.
    let (first, rest) = packets.split_at_mut(100);
    assert_eq!(forward(first), 100 * 50);
    let mut sent = 0;
    let allocations = allocation_counter::measure(|| sent = forward(rest));
    assert_eq!((sent, allocations.count_total), (1_000 * 50, 0));
}
