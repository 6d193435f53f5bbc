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

#[test]
fn neither_does_redundancy_nor_keeping_packets_to_be_asked_for_again() {
    let mut world = World::new();
    let mut publisher = Client::connected(&mut world, 1, |_| {});
    let mut listeners: Vec<Client> =
        (2..22).map(|id| Client::connected(&mut world, id, |join| join.nack = true)).collect();
    let slot = listeners[0].slot(sfu_core::TrackKind::Mic, 0);
    for (highest, lost) in [(100_u32, 0_u32), (200, 20)] {
        let report =
            [&[0x81, 201, 0, 7][..], &[1, slot, lost, highest, 0, 0, 0].map(u32::to_be_bytes).concat()].concat();
        for listener in listeners.iter_mut().take(10) {
            listener.send_rtcp(&report);
            world.settle(&mut [listener]);
        }
    }
    world.idle(Duration::from_millis(500));
    let ssrc = publisher.streams[0].ssrc;
    let mut packets: Vec<Vec<u8>> = (0..400u64)
        .map(|n| publisher.packet((111, false), (100 + n, 960 * n as u32, ssrc), Some(30), &[0x78; 80]))
        .collect();
    let path = Path::udp(publisher.address);
    let mut longest = 0;
    let mut forward = |packets: &mut [Vec<u8>]| {
        for packet in packets {
            world.now += Duration::from_millis(20);
            world.node.handle_datagram(world.now, path, packet);
            longest = world.node.transmits().map(|transmit| transmit.payload.len()).max().unwrap();
            world.node.clear_transmits();
        }
    };
    let (first, rest) = packets.split_at_mut(100);
    forward(first);
    let allocations = allocation_counter::measure(|| forward(rest));
    assert_eq!(allocations.count_total, 0);
    assert!(longest > 3 * 80, "two packets are repeated");
}
