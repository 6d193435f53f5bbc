//! Handshakes away from the packet path: a datagram only queues work, the work is bounded and fair, and its results count
//! only while the peer is there.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::time::Duration;

use sfu_core::{Command, DropReason, Event, GoneReason, HandshakeJob, Limits, Path};
use sim::{Client, Endpoint, World};

/// Lets the client and the node talk, but leaves the handshake work to the test.
fn exchange(world: &mut World, client: &mut Client) {
    while let Some((from, mut datagram)) = client.transmit(world.now) {
        world.node.handle_datagram(world.now, Path::udp(from), &mut datagram);
    }
    let sent: Vec<_> = world.node.transmits().map(|sent| (sent.to.remote, sent.payload.to_vec())).collect();
    world.node.clear_transmits();
    for (to, datagram) in sent {
        assert_eq!(to, client.address);
        client.receive(world.now, &datagram);
    }
}

fn jobs(world: &mut World) -> Vec<HandshakeJob> {
    std::iter::from_fn(|| world.node.poll_handshake(world.now)).collect()
}

/// A client whose hello waits in the node.
fn greeted(world: &mut World, id: u64) -> Client {
    let mut client = Client::join(world, id, |_| {});
    // The check and its answer, then the hello.
    exchange(world, &mut client);
    exchange(world, &mut client);
    client
}

#[test]
fn datagrams_of_a_storm_of_joins_only_queue_work() {
    let mut world = World::new();
    let mut clients: Vec<_> = (1..=200).map(|id| Client::join(&mut world, id, |_| {})).collect();
    for client in &mut clients {
        exchange(&mut world, client);
    }
    let hellos: Vec<_> = clients.iter_mut().map(|client| client.transmit(world.now).unwrap()).collect();
    let (mut paths, mut bytes) = (Vec::new(), Vec::new());
    for (from, datagram) in hellos {
        paths.push(Path::udp(from));
        bytes.push(datagram);
    }
    let allocations = allocation_counter::measure(|| {
        for (path, datagram) in paths.iter().zip(&mut bytes) {
            world.node.handle_datagram(world.now, *path, datagram);
        }
    });
    // The copy of the hello, its border and now and then the queue; a handshake allocates by the hundred.
    assert!(allocations.count_total < 200 * 4, "{}", allocations.count_total);
    assert_eq!((world.node.transmit_count(), world.counters().handshake_jobs), (0, 0));

    assert_eq!(jobs(&mut world).len(), Limits::default().handshakes, "the rest waits for a turn");
}

#[test]
fn a_storm_of_joins_ends_with_everyone_connected_in_the_order_they_came() {
    let mut world = World::with_limits(Limits { handshakes: 3, ..Limits::default() });
    let mut clients: Vec<_> = (1..=20).map(|id| Client::join(&mut world, id, |_| {})).collect();
    let mut endpoints: Vec<&mut dyn Endpoint> =
        clients.iter_mut().map(|client| client as &mut dyn Endpoint).collect();
    world.run(Duration::from_millis(100), &mut endpoints);
    assert!(clients.iter().all(Client::is_connected));
    let connected = world.take_events().into_iter().filter_map(|event| match event {
        Event::Connected { peer, .. } => Some(peer.0),
        _ => None,
    });
    assert_eq!(connected.collect::<Vec<_>>(), (1..=20).collect::<Vec<_>>());
    assert_eq!(world.node.sizes().handshakes, 0);
}

#[test]
fn a_handshake_that_stands_still_does_not_keep_its_turn() {
    let limits = Limits { handshakes: 1, ..Limits::default() };
    let turn = limits.handshake_turn;
    let mut world = World::with_limits(limits);
    let _silent = greeted(&mut world, 1);
    world.node.run_handshakes(world.now);
    world.node.clear_transmits();
    let mut second = greeted(&mut world, 2);
    assert!(world.node.poll_handshake(world.now).is_none(), "the only turn is taken");
    second.behaviour.no_checks = true;
    world.run(turn - Duration::from_millis(300), &mut [&mut second]);
    assert!(!second.is_connected());
    world.run(Duration::from_millis(1_000), &mut [&mut second]);
    assert!(second.is_connected());
}

#[test]
fn what_comes_of_a_job_is_dropped_with_its_peer() {
    let mut world = World::new();
    let client = greeted(&mut world, 1);
    let mut job = world.node.poll_handshake(world.now).unwrap();
    world.command(Command::Leave { peer: client.id });
    world.node.clear_transmits();
    job.run(world.now);
    world.node.handle_handshake(world.now, job);
    assert_eq!((world.node.transmit_count(), world.node.sizes().peers, world.node.sizes().handshakes), (0, 0, 0));
}

#[test]
fn a_job_that_failed_costs_its_peer_only() {
    let mut world = World::new();
    let (_doomed, mut other) = (greeted(&mut world, 1), greeted(&mut world, 2));
    let mut job = world.node.poll_handshake(world.now).unwrap();
    job.run(world.now);
    job.fail();
    world.node.handle_handshake(world.now, job);
    world.run(Duration::from_millis(50), &mut [&mut other]);
    assert!(other.is_connected());
    assert!(
        world
            .take_events()
            .iter()
            .any(|event| { matches!(event, Event::Gone { peer, reason: GoneReason::DtlsFailed } if peer.0 == 1) })
    );
    assert_eq!(world.dropped(DropReason::DtlsFailed), 1);
}

#[test]
fn a_job_that_failed_after_the_handshake_leaves_the_call_alone() {
    let mut world = World::new();
    let mut client = Client::connected(&mut world, 1, |_| {});
    client.send_raw(vec![22; 40]);
    exchange(&mut world, &mut client);
    let mut job = world.node.poll_handshake(world.now).unwrap();
    job.fail();
    world.node.handle_handshake(world.now, job);
    world.run(Duration::from_secs(1), &mut [&mut client]);
    assert_eq!(world.node.sizes().peers, 1);
    client.speak(b"still here");
    world.settle(&mut [&mut client]);
    assert_eq!(world.counters().rtp_received, 1);
}

/// Datagrams that come while the job is out wait for it, and no second job of the peer is made.
#[test]
fn a_peer_has_one_job_and_a_bounded_queue() {
    let mut world = World::new();
    let client = greeted(&mut world, 1);
    let job = world.node.poll_handshake(world.now).unwrap();
    for _ in 0..1_000 {
        world.inject(client.address, &[22; 1_200]);
    }
    assert!(world.node.poll_handshake(world.now).is_none());
    assert!(world.dropped(DropReason::DtlsQueueFull) > 980);
    world.node.handle_handshake(world.now, job);
    assert_eq!(world.node.sizes().peers, 0, "a job that nobody ran has failed");
}
