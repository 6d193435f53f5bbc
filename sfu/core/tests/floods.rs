//! What strangers send costs the peers nothing but the look at it.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::{net::SocketAddr, time::Duration};

use sfu_core::{DropReason, Limits};
use sim::{Client, Endpoint, World};

/// Nobody two times.
fn stranger(n: u32) -> SocketAddr {
    ([198, 18, (n >> 8) as u8, n as u8], 1_024).into()
}

/// A check that names `client` and does not have its password.
fn forged(client: &mut Client) -> Vec<u8> {
    client.behaviour.wrong_password = true;
    let check = client.check();
    client.behaviour.wrong_password = false;
    check
}

#[test]
fn a_flood_of_forged_checks_is_not_hashed_and_harms_only_new_addresses_of_the_peer_it_names() {
    let mut world = World::new();
    let [mut named, mut other] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    let check = forged(&mut named);
    for n in 0..50_000 {
        world.inject(stranger(n), &check);
    }
    let looked_at = u64::from(Limits::default().failed_checks_of_peer_per_second) * 2;
    assert_eq!(world.dropped(DropReason::StunUnauthenticated), looked_at);
    assert_eq!(world.dropped(DropReason::StunFlood), 50_000 - looked_at);
    assert_eq!((world.node.transmit_count(), world.node.sizes().addresses), (0, 2));

    let answered = world.counters().stun_answered;
    let mut late = Client::connected(&mut world, 3, |_| {});
    world.run(Duration::from_secs(2), &mut [&mut named, &mut other, &mut late]);
    assert!(world.counters().stun_answered >= answered + 6, "proven paths go on, and who joins is let in");

    // The named peer itself may move again once the flood is over.
    let check = named.check();
    world.inject(stranger(1), &check);
    named.address = stranger(1);
    other.speak(b"x");
    world.settle(&mut [&mut named, &mut other, &mut late]);
    assert_eq!(named.heard(), [b"x"]);
}

#[test]
fn floods_that_name_many_peers_are_bounded_in_all() {
    let limits = Limits { failed_checks_per_second: 50, ..Limits::default() };
    let mut world = World::with_limits(limits);
    let mut clients: Vec<_> = (1..=20).map(|id| Client::connected(&mut world, id, |_| {})).collect();
    for client in &mut clients {
        let check = forged(client);
        for n in 0..1_000 {
            world.inject(stranger(n), &check);
        }
    }
    assert_eq!(world.dropped(DropReason::StunUnauthenticated), 100);
    let mut endpoints: Vec<&mut dyn Endpoint> =
        clients.iter_mut().map(|client| client as &mut dyn Endpoint).collect();
    world.run(Duration::from_secs(40), &mut endpoints);
    assert_eq!(world.node.sizes().peers, 20, "consent goes on");
}
