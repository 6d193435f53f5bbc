//! Who may talk to the node from where: ICE checks, consent, restarts, the DTLS handshake behind them, and what time
//! does to a silent peer.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::{net::SocketAddr, time::Duration};

use sfu_core::{
    Command, CommandError, DropReason, DtlsRole, Event, Fingerprint, GoneReason, IceCredentials, Limits, PeerId,
};
use sim::{Behaviour, Client, Endpoint, World, slots, track};
use stun::Class;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn elsewhere() -> SocketAddr {
    ([198, 51, 100, 7], 4_444).into()
}

fn gone(world: &mut World) -> Vec<(PeerId, GoneReason)> {
    let events = world.take_events().into_iter();
    events
        .filter_map(|event| if let Event::Gone { peer, reason } = event { Some((peer, reason)) } else { None })
        .collect()
}

/// Tries to connect with one check.
fn attempt(world: &mut World, behaviour: Behaviour) -> Client {
    let mut client = Client::with_behaviour(world, 1, behaviour, |_| {});
    world.run(900 * MS, &mut [&mut client]);
    client
}

#[test]
fn wrong_password_is_met_with_silence() {
    let mut world = World::new();
    let client = attempt(&mut world, Behaviour { wrong_password: true, ..Behaviour::default() });
    assert!(client.answers.is_empty() && !client.is_connected());
    assert_eq!(world.dropped(DropReason::StunUnauthenticated), 1);
    assert_eq!(world.node.sizes().addresses, 0);
}

#[test]
fn wrong_half_of_the_username_is_met_with_silence() {
    let mut world = World::new();
    let client = attempt(&mut world, Behaviour { wrong_ufrag: true, ..Behaviour::default() });
    assert!(client.answers.is_empty() && !client.is_connected());
    assert_eq!(world.dropped(DropReason::StunUnauthenticated), 1);
}

#[test]
fn check_without_fingerprint_is_dropped() {
    let mut world = World::new();
    let client = attempt(&mut world, Behaviour { no_fingerprint: true, ..Behaviour::default() });
    assert!(client.answers.is_empty() && !client.is_connected());
    assert_eq!(world.dropped(DropReason::StunMalformed), 1);
}

#[test]
fn peer_that_claims_to_be_controlled_hears_of_the_conflict() {
    let mut world = World::new();
    let client = attempt(&mut world, Behaviour { claims_controlled: true, ..Behaviour::default() });
    assert_eq!(client.answers, [(Class::Error, Some(487))]);
    assert!(!client.is_connected());
    assert_eq!((world.dropped(DropReason::StunRefused), world.node.sizes().addresses), (1, 0));
}

#[test]
fn attribute_that_must_be_understood_and_is_not_is_refused() {
    let mut world = World::new();
    let client = attempt(&mut world, Behaviour { unknown_attribute: true, ..Behaviour::default() });
    assert_eq!(client.answers, [(Class::Error, Some(420))]);
    assert!(!client.is_connected());
}

#[test]
fn peer_connects_over_its_first_valid_path_before_it_nominates() {
    let mut world = World::new();
    let client = attempt(&mut world, Behaviour { never_nominates: true, ..Behaviour::default() });
    assert!(client.is_connected());
}

#[test]
fn media_moves_only_after_an_authenticated_check_that_nominates() {
    let mut world = World::new();
    let [mut a, mut b] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    let old = b.address;
    // Even the peer's own authentic media from a new address is nobody's.
    let ssrc = b.streams[0].ssrc;
    let packet = b.packet((111, false), (1, 0, ssrc), None, b"x");
    world.inject(elsewhere(), &packet);
    assert_eq!(world.dropped(DropReason::UnknownAddress), 1);
    b.behaviour.never_nominates = true;
    let check = b.check();
    world.inject(elsewhere(), &check);
    a.speak(b"1");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.heard(), [b"1"], "validated, not nominated");
    b.behaviour.never_nominates = false;
    let check = b.check();
    world.inject(elsewhere(), &check);
    b.address = elsewhere();
    a.speak(b"2");
    b.speak(b"3");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.heard(), a.heard()), (vec![&b"1"[..], b"2"], vec![&b"3"[..]]));
    let media_to_old = world.stray.iter().filter(|(to, datagram)| *to == old && datagram[0] >= 128).count();
    assert_eq!(media_to_old, 0);
}

#[test]
fn validated_addresses_of_a_peer_are_bounded() {
    let mut world = World::new();
    let mut client = Client::connected(&mut world, 1, |_| {});
    client.behaviour.never_nominates = true;
    for port in 1..=500 {
        let check = client.check();
        world.inject(([198, 51, 100, 1], port).into(), &check);
    }
    assert_eq!(world.node.sizes().addresses, Limits::default().paths_per_peer);
    let mut other = Client::connected(&mut world, 2, |_| {});
    other.speak(b"x");
    world.settle(&mut [&mut client, &mut other]);
    assert_eq!(client.heard(), [b"x"], "the selected one has stayed");
}

#[test]
fn address_of_a_living_peer_cannot_be_taken() {
    let mut world = World::new();
    let [mut a, mut b] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    let check = b.check();
    world.inject(a.address, &check);
    assert_eq!(world.dropped(DropReason::StunRefused), 1);
    b.speak(b"for a");
    a.speak(b"for b");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.heard(), b.heard()), (vec![&b"for a"[..]], vec![&b"for b"[..]]));
}

#[test]
fn consent_expires_and_everything_is_freed() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    let mut b = Client::connected(&mut world, 2, |_| {});
    b.behaviour.no_checks = true;
    // Authenticated media is no consent (RFC 7675 section 5.1).
    for _ in 0..29 * 5 {
        a.speak(b"x");
        b.speak(b"y");
        world.run(200 * MS, &mut [&mut a, &mut b]);
    }
    assert_eq!(gone(&mut world), []);
    world.run(2 * S, &mut [&mut a, &mut b]);
    assert_eq!(gone(&mut world), [(PeerId(2), GoneReason::ConsentExpired)]);
    let heard = b.received.len();
    a.speak(b"x");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.received.len(), heard);
    world.command(Command::Leave { peer: PeerId(1) });
    world.idle(2 * S);
    assert_eq!(world.node.sizes(), sfu_core::NodeSizes::default());
}

#[test]
fn consent_is_for_a_path_and_a_living_one_takes_over() {
    let mut world = World::new();
    let [mut a, mut b] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    // From now on it checks from elsewhere, and never nominates that.
    b.behaviour.never_nominates = true;
    let old = std::mem::replace(&mut b.address, elsewhere());
    world.run(8 * S, &mut [&mut a, &mut b]);
    a.speak(b"1");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.received.len(), 0, "still to {old}");
    world.run(3 * S, &mut [&mut a, &mut b]);
    a.speak(b"2");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.heard(), world.node.sizes().addresses), (vec![&b"2"[..]], 3), "the old one has not lapsed yet");
    world.run(20 * S, &mut [&mut a, &mut b]);
    assert_eq!((gone(&mut world), world.node.sizes().addresses), (Vec::new(), 2));
}

#[test]
fn silence_is_reported_once_and_so_is_the_return() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    world.take_events();
    a.behaviour.no_checks = true;
    world.run(2_900 * MS, &mut [&mut a]);
    assert_eq!(world.take_events(), []);
    world.run(5 * S, &mut [&mut a]);
    assert_eq!(world.take_events(), [Event::Idle { peer: PeerId(1) }]);
    a.behaviour.no_checks = false;
    world.run(2 * S, &mut [&mut a]);
    assert_eq!(world.take_events(), [Event::Active { peer: PeerId(1) }]);
}

#[test]
fn join_that_nobody_follows_up_times_out() {
    let mut world = World::new();
    let _client = Client::join(&mut world, 1, |_| {});
    world.idle(14 * S);
    assert_eq!(gone(&mut world), []);
    world.idle(2 * S);
    assert_eq!(gone(&mut world), [(PeerId(1), GoneReason::SetupTimeout)]);
    assert_eq!(world.node.sizes(), sfu_core::NodeSizes::default());
    assert_eq!(world.node.poll_timeout(), None);
}

#[test]
fn ice_restart_keeps_the_call_and_ends_the_old_credentials() {
    let mut world = World::new();
    let [mut a, mut b] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    let old_check = b.check();
    b.behaviour.no_checks = true;
    b.restart_ice(&mut world);
    a.speak(b"1");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.heard(), [b"1"], "the old path works meanwhile");
    world.inject(b.address, &old_check);
    assert_eq!(world.dropped(DropReason::StunUnknownUser), 0, "and so do the old credentials");
    let new_check = b.check();
    world.inject(elsewhere(), &new_check);
    let old_address = std::mem::replace(&mut b.address, elsewhere());
    a.speak(b"2");
    b.speak(b"3");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.heard(), a.heard()), (vec![&b"1"[..], b"2"], vec![&b"3"[..]]), "same SRTP keys, new path");
    world.inject(old_address, &old_check);
    assert_eq!(world.dropped(DropReason::StunUnknownUser), 1);
    assert_eq!(world.node.sizes().ufrags, 2);
    assert_eq!(gone(&mut world), []);
}

#[test]
fn restart_after_restart_leaves_no_credentials_behind() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    for _ in 0..100 {
        a.restart_ice(&mut world);
    }
    assert!(world.node.sizes().ufrags <= 2);
    world.run(2 * S, &mut [&mut a]);
    assert_eq!(world.node.sizes().ufrags, 1);
    world.command(Command::Leave { peer: PeerId(1) });
    assert_eq!(world.node.sizes().ufrags, 0);
}

#[test]
fn handshake_from_an_address_that_was_not_validated_is_ignored() {
    let mut world = World::new();
    let mut client = Client::join(&mut world, 1, |_| {});
    client.behaviour.no_checks = true;
    client.timeout(world.now);
    let hello = [&[22, 254, 253][..], &[0; 60]].concat();
    world.inject(client.address, &hello);
    assert_eq!((world.dropped(DropReason::UnknownAddress), world.node.transmit_count()), (1, 0));
    client.behaviour.no_checks = false;
    world.run(100 * MS, &mut [&mut client]);
    assert!(client.is_connected());
}

#[test]
fn other_certificate_than_the_announced_one_ends_the_join_before_any_media() {
    for (id, role) in [(1, DtlsRole::Server), (2, DtlsRole::Client)] {
        let mut world = World::new();
        let mut client = Client::join(&mut world, id, |join| {
            join.dtls_role = role;
            join.fingerprint = Fingerprint::Sha256([9; 32]);
        });
        world.run(S, &mut [&mut client]);
        assert_eq!(gone(&mut world), [(PeerId(id), GoneReason::FingerprintMismatch)]);
        assert_eq!((world.node.peer_count(), world.counters().handshakes_done), (0, 0));
    }
}

#[test]
fn longer_fingerprints_are_checked_as_well() {
    use sha2::{Digest, Sha384, Sha512};
    let mut world = World::new();
    let certificate = sim::certificate();
    let sha384 = Fingerprint::Sha384(Sha384::digest(&certificate.certificate_der).into());
    let sha512 = Fingerprint::Sha512(Sha512::digest(&certificate.certificate_der).into());
    for (id, fingerprint, good) in [
        (1, sha384, true),
        (2, sha512, true),
        (3, Fingerprint::Sha384([1; 48]), false),
        (4, Fingerprint::Sha512([1; 64]), false),
    ] {
        let mut client =
            Client::with_certificate(&mut world, id, &certificate, |join| join.fingerprint = fingerprint);
        world.run(100 * MS, &mut [&mut client]);
        assert_eq!(world.take_events().iter().any(|event| matches!(event, Event::Connected { .. })), good, "{id}");
    }
}

#[test]
fn handshake_survives_loss_in_both_directions() {
    let mut world = World::new();
    for (id, role) in [(1, DtlsRole::Server), (2, DtlsRole::Client)] {
        let mut client = Client::join(&mut world, id, |join| join.dtls_role = role);
        let address = client.address;
        for round in 0..700 {
            world.blocked = if round % 3 == 0 { vec![address] } else { Vec::new() };
            let mut nobody = Deaf(address);
            if round % 5 == 1 {
                world.run(10 * MS, &mut [&mut nobody])
            } else {
                world.run(10 * MS, &mut [&mut client])
            }
        }
        assert!(client.is_connected(), "{role:?}");
    }
}

/// Has the address, and loses what comes.
struct Deaf(SocketAddr);

impl Endpoint for Deaf {
    fn address(&self) -> SocketAddr {
        self.0
    }
    fn receive(&mut self, _: std::time::Instant, _: &[u8]) {}
    fn timeout(&mut self, _: std::time::Instant) {}
    fn transmit(&mut self, _: std::time::Instant) -> Option<(SocketAddr, Vec<u8>)> {
        None
    }
}

#[test]
fn close_notify_of_the_peer_ends_it() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    a.close(world.now);
    world.settle(&mut [&mut a]);
    assert_eq!(gone(&mut world), [(PeerId(1), GoneReason::Closed)]);
    assert_eq!(world.node.peer_count(), 0);
}

#[test]
fn forged_records_on_an_established_path_do_not_end_the_call() {
    let mut world = World::new();
    for role in [DtlsRole::Server, DtlsRole::Client] {
        let [mut a, mut b] = [1, 2].map(|id| {
            let id = id + if role == DtlsRole::Client { 2 } else { 0 };
            Client::connected(&mut world, id, |join| join.dtls_role = role)
        });
        world.take_events();
        let fatal_alert = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
        let close_notify = [21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 8, 0, 2, 1, 0];
        let mut hello = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 7, 0, 60].to_vec();
        hello.extend([1, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0, 48, 254, 253]);
        hello.resize(13 + 60, 0);
        for forged in [&fatal_alert[..], &close_notify, &hello, &[22; 40], &[23; 100], &[20, 254, 253]] {
            for _ in 0..100 {
                world.inject(a.address, forged);
            }
        }
        a.speak(b"1");
        b.speak(b"2");
        world.run(S, &mut [&mut a, &mut b]);
        assert_eq!((a.heard().last(), b.heard().last()), (Some(&&b"2"[..]), Some(&&b"1"[..])));
        assert_eq!(gone(&mut world), []);
        world.command(Command::Leave { peer: a.id });
        world.command(Command::Leave { peer: b.id });
    }
}

#[test]
fn joins_out_of_bounds_are_refused_and_change_nothing() {
    let limits = Limits { peers: 3, peers_per_room: 2, ..Limits::default() };
    let mut world = World::with_limits(limits);
    let ice = IceCredentials { ufrag: "abcd".into(), pwd: "p".repeat(22) };
    let join = |peer| sim::join(peer, ice.clone(), Fingerprint::Sha256([0; 32]));
    let mut refuse = |join: sfu_core::Join, error: CommandError| {
        let before = world.node.sizes();
        let refused = world.node.handle_command(world.now, Command::Join(Box::new(join))).unwrap_err();
        assert_eq!((refused, world.node.sizes()), (error, before));
    };
    refuse(sfu_core::Join { slots: slots(9, 0), ..join(1) }, CommandError::TooManySlots);
    refuse(sfu_core::Join { slots: slots(0, 3), ..join(1) }, CommandError::TooManySlots);
    let twice = vec![track(sfu_core::TrackKind::Mic, "0", None), track(sfu_core::TrackKind::Mic, "1", None)];
    refuse(sfu_core::Join { tracks: twice, ..join(1) }, CommandError::DuplicateTrack);
    let short = IceCredentials { ufrag: "abc".into(), pwd: "p".repeat(22) };
    refuse(sfu_core::Join { remote_ice: short, ..join(1) }, CommandError::BadIceCredentials);
    world.join(join(1));
    world.join(join(2));
    let mut refuse = |join: sfu_core::Join, error: CommandError| {
        assert_eq!(world.node.handle_command(world.now, Command::Join(Box::new(join))).unwrap_err(), error);
    };
    refuse(join(1), CommandError::PeerExists);
    refuse(join(3), CommandError::RoomFull);
    world.join(sfu_core::Join { room: sfu_core::RoomId(2), ..join(3) });
    let refused = Command::Join(Box::new(sfu_core::Join { room: sfu_core::RoomId(3), ..join(4) }));
    assert_eq!(world.node.handle_command(world.now, refused).unwrap_err(), CommandError::NodeFull);
    let unknown = Command::Leave { peer: PeerId(99) };
    assert_eq!(world.node.handle_command(world.now, unknown).unwrap_err(), CommandError::NoSuchPeer);
    let muted = Command::Mute { peer: PeerId(1), kind: sfu_core::TrackKind::Program, muted: true };
    assert_eq!(world.node.handle_command(world.now, muted).unwrap_err(), CommandError::NoSuchTrack);
}

#[test]
fn addresses_of_people_do_not_print() {
    let mut world = World::new();
    let mut client = Client::connected(&mut world, 1, |_| {});
    let check = client.check();
    world.inject(client.address, &check);
    let transmit = world.node.transmits().next().unwrap();
    let printed = format!("{transmit:?} {:?} {:?}", world.node, sfu_core::Path::udp(client.address));
    assert!(!printed.contains("192.0.2"), "{printed}");
    assert!(!format!("{:?} {:?}", client.joined, client.local).contains(&client.joined.local_ice.pwd));
}

#[test]
fn address_of_a_silent_peer_goes_to_who_proves_it() {
    let mut world = World::new();
    let [mut a, mut b] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    a.behaviour.no_checks = true;
    world.run(16 * S, &mut [&mut a, &mut b]);
    let check = b.check();
    world.inject(a.address, &check);
    assert_eq!(gone(&mut world), [(PeerId(1), GoneReason::ConsentExpired)]);
    b.address = a.address;
    let mut c = Client::connected(&mut world, 3, |_| {});
    c.speak(b"x");
    world.settle(&mut [&mut b, &mut c]);
    assert_eq!(b.heard(), [b"x"]);
}

#[test]
fn both_address_families_are_answered_as_the_peer_knows_itself() {
    let mut world = World::new();
    let mut client = Client::join(&mut world, 1, |_| {});
    client.address = "[2001:db8::7]:5000".parse().unwrap();
    world.run(100 * MS, &mut [&mut client]);
    assert!(client.is_connected());
    let mapped: SocketAddr = "[::ffff:192.0.2.77]:6000".parse().unwrap();
    let check = client.check();
    world.inject(mapped, &check);
    let transmit = world.node.transmits().last().unwrap();
    let answer = stun::Message::parse(transmit.payload).unwrap();
    assert_eq!(transmit.to.remote, mapped);
    assert_eq!(answer.xor_mapped_address(), Some("192.0.2.77:6000".parse().unwrap()));
}
