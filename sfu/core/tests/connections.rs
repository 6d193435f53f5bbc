//! Peers that come over TCP: the core sees datagrams with another transport, and connections that end.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::time::Duration;

use sfu_core::{DropReason, Event, GoneReason, NodeSizes, Path, Transport};
use sim::{Client, Endpoint, World};

/// Everything that the client and the node have for each other, over one connection.
fn exchange(world: &mut World, client: &mut Client) {
    loop {
        let mut quiet = true;
        while let Some((from, mut datagram)) = client.transmit(world.now) {
            quiet = false;
            world.node.handle_datagram(world.now, Path::tcp(from), &mut datagram);
        }
        world.node.run_handshakes(world.now);
        let sent: Vec<_> = world.node.transmits().map(|sent| (sent.to, sent.payload.to_vec())).collect();
        world.node.clear_transmits();
        for (to, datagram) in sent {
            if to == Path::tcp(client.address) {
                quiet = false;
                client.receive(world.now, &datagram);
            } else {
                world.stray.push((to.remote, datagram));
            }
        }
        if quiet {
            return;
        }
    }
}

fn connected(world: &mut World, id: u64) -> Client {
    let mut client = Client::join(world, id, |_| {});
    exchange(world, &mut client);
    assert!(client.is_connected());
    client
}

#[test]
fn a_peer_over_tcp_hears_and_is_heard() {
    let mut world = World::new();
    let mut plain = Client::connected(&mut world, 1, |_| {});
    let mut framed = connected(&mut world, 2);
    framed.speak(b"framed");
    while let Some((from, mut datagram)) = framed.transmit(world.now) {
        world.node.handle_datagram(world.now, Path::tcp(from), &mut datagram);
    }
    let to = world.node.transmits().next().unwrap().to;
    assert_eq!((to.transport, to.remote), (Transport::Udp, plain.address));
    world.settle(&mut [&mut plain]);
    plain.speak(b"plain");
    let (from, mut datagram) = plain.transmit(world.now).unwrap();
    world.node.handle_datagram(world.now, Path::udp(from), &mut datagram);
    exchange(&mut world, &mut framed);
    assert_eq!((plain.heard(), framed.heard()), (vec![&b"framed"[..]], vec![&b"plain"[..]]));
}

/// The same numbers over the other transport are another path.
#[test]
fn a_check_over_one_transport_proves_nothing_for_the_other() {
    let mut world = World::new();
    let mut framed = connected(&mut world, 1);
    assert!(world.node.is_proven(Path::tcp(framed.address)) && !world.node.is_proven(Path::udp(framed.address)));
    framed.speak(b"x");
    world.settle(&mut [&mut framed]);
    assert_eq!(world.dropped(DropReason::UnknownAddress), 1);
}

#[test]
fn nothing_goes_to_an_ended_connection_and_nothing_counts_from_its_successor() {
    let mut world = World::new();
    let mut plain = Client::connected(&mut world, 1, |_| {});
    let mut framed = connected(&mut world, 2);
    let path = Path::tcp(framed.address);
    world.node.handle_disconnect(path);
    assert!(!world.node.is_proven(path));
    plain.speak(b"1");
    let (from, mut datagram) = plain.transmit(world.now).unwrap();
    world.node.handle_datagram(world.now, Path::udp(from), &mut datagram);
    assert!(world.node.transmits().all(|sent| sent.to != path), "whoever has that port now");
    world.node.clear_transmits();
    framed.speak(b"x");
    exchange(&mut world, &mut framed);
    assert_eq!(world.dropped(DropReason::UnknownAddress), 1);

    // Its next check, over a new connection, brings the call back: no signalling, the same keys.
    world.now += Duration::from_secs(3);
    framed.address.set_port(40_404);
    exchange(&mut world, &mut framed);
    plain.speak(b"2");
    let (from, mut datagram) = plain.transmit(world.now).unwrap();
    world.node.handle_datagram(world.now, Path::udp(from), &mut datagram);
    exchange(&mut world, &mut framed);
    assert_eq!(framed.heard(), [b"2"]);
}

#[test]
fn a_peer_without_any_path_has_the_consent_time_to_come_back() {
    let mut world = World::new();
    let framed = connected(&mut world, 1);
    world.node.handle_disconnect(Path::tcp(framed.address));
    world.take_events();
    world.idle(Duration::from_secs(29));
    assert!(!world.take_events().iter().any(|event| matches!(event, Event::Gone { .. })));
    world.idle(Duration::from_secs(2));
    let gone = Event::Gone { peer: framed.id, reason: GoneReason::ConsentExpired };
    assert_eq!(world.take_events(), [gone]);
    assert_eq!(world.node.sizes(), NodeSizes::default());
}
