//! Forwarding allocates nothing: counted by an allocator that stands in for the real one in this test binary only.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::time::Duration;

use sfu_core::{Command, Limits, Path, ShardId, ShardSet};
use sim::{Client, ROOM, World, origin};

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
    assert!(longest > 3 * 80, "earlier packets are repeated");
}

/// Hands over what is for the other shard; `items` has its memory already.
fn exchange(shard: ShardId, (from, to): (&mut World, &mut World), items: &mut Vec<u8>) {
    for item in from.node.bus_transmits(from.now) {
        items.clear();
        items.extend_from_slice(item.bytes);
        to.node.handle_bus(to.now, shard, items);
    }
    from.node.clear_bus_transmits();
}

#[test]
fn nor_does_a_room_on_two_shards() {
    let ids = [0, 1].map(|index| ShardId::new(index).unwrap());
    let [mut home, mut away] = ids.map(|id| World::on_shard(id, Limits::default(), origin()));
    let mut publishers = [Client::connected(&mut home, 1, |_| {}), Client::connected(&mut away, 2, |_| {})];
    for id in 3..23 {
        Client::connected(&mut home, id, |_| {});
        Client::connected(&mut away, 100 + id, |_| {});
    }
    let shards: ShardSet = ids.into_iter().collect();
    for world in [&mut home, &mut away] {
        world.command(Command::Spread { room: ROOM, home: ids[0], shards });
    }
    away.now = away.now.max(home.now);
    home.now = away.now;
    let mut packets: Vec<[Vec<u8>; 2]> = (0..400u64)
        .map(|n| {
            publishers.each_mut().map(|publisher| {
                let ssrc = publisher.streams[0].ssrc;
                publisher.packet((111, false), (100 + n, 960 * n as u32, ssrc), Some(30), &[0x78; 80])
            })
        })
        .collect();
    let paths = publishers.each_ref().map(|publisher| Path::udp(publisher.address));
    let mut items = Vec::with_capacity(4_096);
    let mut forward = |packets: &mut [[Vec<u8>; 2]]| {
        let mut sent = 0;
        for [at_home, elsewhere] in packets {
            home.now += Duration::from_millis(20);
            away.now = home.now;
            home.node.handle_datagram(home.now, paths[0], at_home);
            away.node.handle_datagram(away.now, paths[1], elsewhere);
            exchange(ids[1], (&mut away, &mut home), &mut items);
            exchange(ids[0], (&mut home, &mut away), &mut items);
            for world in [&mut home, &mut away] {
                sent += world.node.transmits().count();
                world.node.clear_transmits();
            }
        }
        sent
    };
    // A voice away from home asks for its slot first.
    let (first, rest) = packets.split_at_mut(100);
    assert!(forward(first) >= 99 * 2 * 41);
    let mut sent = 0;
    let allocations = allocation_counter::measure(|| sent = forward(rest));
    assert_eq!((sent, allocations.count_total), (300 * 2 * 41, 0));
}
