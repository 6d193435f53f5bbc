//! What a safe relay must not do, numbered as the list of attacks that earlier servers fell for (S1 to S20). Those that
//! need sockets, files or logs are tests of the process around this core.

mod harness;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use harness::{PEER, REALM, RELAY, SECRET, WALL_CLOCK, World, rest_password, settings, write};
use proptest::prelude::*;
use relay_core::{AddressRange, Client, DropReason, Hash, Limits, Link, Outcome, Policy, Verdict};
use stun::{AttributeType, Class, IntegrityKey, Message, Method, TransactionId};

/// Inside and special addresses, and every way to hide 127.0.0.1 or 10.0.0.1 in an IPv6 address.
const NEVER_PEERS: [&str; 34] = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.9.9.9",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "224.0.0.5",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:0:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::1",
    "2002:a00:1::",
    "2001:0:a00:1::1",
    "2001:0:808:808:0:0:80ff:fffe",
    "fc00::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "fe80::5efe:a00:1",
];

#[test]
fn s01_special_addresses_are_refused_on_every_way_to_a_peer() {
    for general in [false, true] {
        let mut world = World::with(|settings| settings.policy.general = general);
        let mut turn = world.client("ann", "pass");
        turn.allocate(&mut world, |w| {
            w.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]).expect("room")
        });
        for ip in NEVER_PEERS {
            let ip: IpAddr = ip.parse().expect("an address");
            let peer = SocketAddr::new(ip, 40_000).to_string();
            assert_eq!(turn.permit(&mut world, &[&peer]).code(), 403, "{ip}");
            assert_eq!(turn.bind(&mut world, 0x4000, &peer).code(), 403, "{ip}");
            assert!(turn.send_to(&mut world, &peer, b"x").to_peer.is_none(), "{ip}");
            assert!(turn.say(&mut world, 0x4000, b"x").to_peer.is_none(), "{ip}");
        }
        assert_eq!(world.server.counters().dropped(DropReason::DeniedPeer), NEVER_PEERS.len() as u64);
        assert_eq!(world.server.counters().to_peer_packets, 0);
    }
}

#[test]
fn s02_allow_beats_deny_and_hard_denials_beat_allow() {
    let range = |text: &str| text.parse::<AddressRange>().expect("a range");
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let mut policy = Policy {
        general: true,
        allowed: ["10.1.0.0/16", "127.0.0.0/8", "224.0.0.0/4", "198.51.100.1", "64:ff9b::/96", "0.0.0.0/0"]
            .map(range)
            .to_vec(),
        denied: ["8.8.0.0/16", "10.1.2.0/24"].map(range).to_vec(),
        own: vec![ip("198.51.100.1")],
        ..Policy::default()
    };
    for hard in ["127.0.0.1", "224.0.0.5", "198.51.100.1", "0.0.0.0", "255.255.255.255", "64:ff9b::7f00:1"] {
        assert_eq!(policy.check_ip(ip(hard)), Verdict::Denied, "{hard}");
    }
    assert_eq!(policy.check_ip(ip("10.1.2.3")), Verdict::Allowed, "allow beats deny");
    assert_eq!(policy.check_ip(ip("64:ff9b::a01:203")), Verdict::Allowed, "both forms are allowed");
    policy.allowed.truncate(1);
    assert_eq!(policy.check_ip(ip("8.8.8.8")), Verdict::Denied);
    assert_eq!(policy.check_ip(ip("9.9.9.9")), Verdict::Allowed, "deny beats nothing");
    policy.allow_loopback = true;
    assert_eq!(policy.check_ip(ip("127.0.0.1")), Verdict::Allowed, "a switch of its own");
    assert_eq!(policy.check_ip(ip("::ffff:127.0.0.1")), Verdict::Denied);
    policy.general = false;
    assert_eq!(policy.check_ip(ip("9.9.9.9")), Verdict::Denied, "listed mode has no other peers");
}

proptest! {
    #[test]
    fn s03_ranges_match_as_numbers(first in any::<u128>(), len in any::<u128>(), probe in any::<u128>(), near in 0_u8..3) {
        let last = first.saturating_add(len >> (len % 128) as u32);
        let probe = match near { 0 => probe, 1 => last.wrapping_add(1), _ => first.wrapping_sub(1) };
        let text = format!("{}-{}", Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last));
        let range: AddressRange = text.parse().expect("a range");
        prop_assert_eq!(range.contains(Ipv6Addr::from_bits(probe).into()), (first..=last).contains(&probe));
        prop_assert!(range.contains(Ipv6Addr::from_bits(first).into()) && range.contains(Ipv6Addr::from_bits(last).into()));
    }

    #[test]
    fn s03_prefixes_match_as_numbers(base in any::<u128>(), prefix in 0_u32..=128, probe in any::<u128>(), flip in 0_u32..128) {
        let range: AddressRange = format!("{}/{prefix}", Ipv6Addr::from_bits(base)).parse().expect("a prefix");
        let same = |probe: u128| prefix == 0 || probe >> (128 - prefix) == base >> (128 - prefix);
        for probe in [probe, base ^ (1 << flip)] {
            prop_assert_eq!(range.contains(Ipv6Addr::from_bits(probe).into()), same(probe));
        }
    }
}

#[test]
fn s04_peers_need_a_permission_by_address_and_in_time() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    let id = turn.id.expect("allocated");
    turn.refresh(&mut world, 3_600);
    assert!(world.peer_sends(id, PEER, b"x").is_none());
    assert!(turn.send_to(&mut world, PEER, b"x").to_peer.is_none());
    assert_eq!(turn.permit(&mut world, &[PEER]).code(), 200);
    assert!(world.peer_sends(id, "203.0.113.9:1", b"x").is_some(), "any port of that address");
    assert!(world.peer_sends(id, "203.0.113.8:40000", b"x").is_none(), "no other address");
    assert_eq!(turn.bind(&mut world, 0x4000, PEER).code(), 200);
    world.pass(299);
    assert!(turn.say(&mut world, 0x4000, b"x").to_peer.is_some());
    assert!(world.peer_sends(id, PEER, b"x").is_some());
    world.pass(1);
    assert!(world.peer_sends(id, PEER, b"x").is_none(), "the permission is over");
    assert!(turn.say(&mut world, 0x4000, b"x").to_peer.is_none());
    turn.permit(&mut world, &[PEER]);
    assert!(turn.say(&mut world, 0x4000, b"x").to_peer.is_some(), "the channel is still bound");
    world.pass(299);
    assert_eq!(world.peer_sends(id, PEER, b"x").expect("a message")[..2], [0x40, 0]);
    world.pass(1);
    turn.nonce.clear();
    turn.learn_nonce(&mut world);
    turn.permit(&mut world, &[PEER]);
    assert!(turn.say(&mut world, 0x4000, b"x").to_peer.is_none(), "the channel is over");
    assert_eq!(world.peer_sends(id, PEER, b"x").expect("a message")[..2], [0x00, 0x17], "a Data indication again");
}

#[test]
fn s05_what_follows_the_integrity_attribute_has_no_effect() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    let mut request = turn
        .signed(Method::CREATE_PERMISSION, |w| w.xor_peer_address(PEER.parse().expect("an address")).expect("room"));
    // XOR-PEER-ADDRESS of 203.0.113.10, and LIFETIME 0 on a Refresh.
    request.extend([0x00, 0x12, 0, 8, 0, 1, 0x21, 0x13, 203 ^ 0x21, 0x12, 113 ^ 0xA4, 10 ^ 0x42]);
    let len = (request.len() - 20) as u16;
    request[2..4].copy_from_slice(&len.to_be_bytes());
    assert_eq!(world.send(turn.client, &request).code(), 200);
    assert!(turn.send_to(&mut world, PEER, b"x").to_peer.is_some());
    assert!(turn.send_to(&mut world, "203.0.113.10:1", b"x").to_peer.is_none());
    let mut refresh = turn.signed(Method::REFRESH, |_| {});
    refresh.extend([0x00, 0x0D, 0, 4, 0, 0, 0, 0]);
    let len = (refresh.len() - 20) as u16;
    refresh[2..4].copy_from_slice(&len.to_be_bytes());
    let got = world.send(turn.client, &refresh);
    assert_eq!(Message::parse(&got.answer).expect("an answer").lifetime(), Some(600));
}

#[test]
fn s06_other_credentials_on_an_allocation_get_441() {
    let mut world = World::new();
    let mut ann = world.allocated("ann", "pass");
    let mut bob = harness::Turn::new(ann.client, "bob", "word");
    bob.nonce = ann.nonce.clone();
    assert_eq!(bob.refresh(&mut world, 0).code(), 441);
    assert_eq!(bob.permit(&mut world, &[PEER]).code(), 441);
    assert_eq!(bob.bind(&mut world, 0x4000, PEER).code(), 441);
    assert_eq!(bob.allocate(&mut world, |_| {}).code(), 441);
    let mut liar = harness::Turn::new(ann.client, "bob", "guess");
    liar.nonce = ann.nonce.clone();
    assert_eq!(liar.refresh(&mut world, 0).code(), 401);
    assert_eq!(ann.refresh(&mut world, 600).code(), 200);
}

#[test]
fn s07_forged_old_and_foreign_nonces_get_438_and_leave_no_state() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    turn.learn_nonce(&mut world);
    let good = turn.nonce.clone();
    let mut other = world.client("ann", "pass");
    other.learn_nonce(&mut world);
    let mut forged = good.clone();
    forged[15] = if forged[15] == b'A' { b'B' } else { b'A' };
    for nonce in [other.nonce.clone(), forged, b"short".to_vec(), vec![0xFF; 16], vec![b'A'; 100]] {
        turn.nonce = nonce;
        let got = turn.allocate(&mut world, |_| {});
        assert_eq!(got.code(), 438);
        assert!(got.attribute(AttributeType::NONCE).is_some() && got.attribute(AttributeType::REALM).is_some());
    }
    turn.nonce = good;
    world.pass(601);
    assert_eq!(turn.allocate(&mut world, |_| {}).code(), 438, "too old");
    assert_eq!((world.shared.allocations(), world.server.allocations()), (0, 0));
}

#[test]
fn s08_strangers_cost_no_state_and_do_not_disturb_a_flow() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    turn.bind(&mut world, 0x4000, PEER);
    let request = turn.unsigned(Method::ALLOCATE, |w| w.requested_transport(17).expect("room"));
    for n in 0..100_000_u32 {
        let address = ([198, 18, (n >> 12) as u8, (n >> 4) as u8], (n % 60_000) as u16 + 1).into();
        world.send(Client { address, link: Link::Udp { listener: 0 } }, &request);
        if n % 1_000 == 0 {
            assert!(turn.say(&mut world, 0x4000, b"x").to_peer.is_some());
        }
    }
    assert_eq!((world.server.allocations(), world.shared.allocations()), (1, 1));
}

#[test]
fn s09_a_challenge_for_a_short_realm_has_at_most_60_bytes() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    assert!(REALM.len() <= 8);
    let request = turn.unsigned(Method::ALLOCATE, |w| w.requested_transport(17).expect("room"));
    let got = world.send(turn.client, &request);
    assert!(got.answer.len() <= 60 && got.answer.len() * 10 <= request.len() * 22, "{}", got.answer.len());
}

proptest! {
    #[test]
    fn s09_no_unauthenticated_datagram_is_worth_reflecting(
        method in 1_u16..16,
        kinds in prop::collection::vec((0_u16..0x40, prop::collection::vec(any::<u8>(), 0..24)), 0..4),
        fingerprint in any::<bool>(),
    ) {
        let mut world = World::new();
        let turn = world.client("ann", "pass");
        let method = Method::new(method).expect("12 bits");
        let request = write(Class::Request, method, TransactionId([5; 12]), None, fingerprint, |w| {
            if method == Method::ALLOCATE {
                w.requested_transport(17).expect("room");
            }
            for (kind, value) in &kinds {
                // The integrity attributes have their own methods and are refused here.
                let _ = w.attribute(AttributeType(*kind), value);
            }
        });
        let got = world.send(turn.client, &request);
        prop_assert!(got.answer.len() * 10 <= request.len() * 22, "{} for {}", got.answer.len(), request.len());
    }
}

#[test]
fn s09_a_source_over_its_limit_hears_nothing_and_foreign_bytes_are_not_answered() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    let request = turn.unsigned(Method::ALLOCATE, |w| w.requested_transport(17).expect("room"));
    let answers = |world: &mut World, ip: [u8; 4]| {
        let sources =
            (1..=1_000_u16).map(|port| Client { address: (ip, port).into(), link: Link::Udp { listener: 0 } });
        sources.filter(|source| world.send(*source, &request).code() == 401).count()
    };
    let burst = answers(&mut world, [198, 18, 0, 1]);
    assert_eq!(burst, 50, "whatever the ports");
    assert_eq!(answers(&mut world, [198, 18, 0, 2]), 50, "another source has its own limit");
    world.pass(1);
    assert_eq!(answers(&mut world, [198, 18, 0, 1]), 10, "ten a second");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x80; 40], &[0x16, 3, 1, 0, 40], &[0x40], &[0xFF; 30], b""] {
        assert!(world.send(turn.client, bytes).answer.is_empty());
    }
}

#[test]
fn s10_guessing_passwords_ends_in_silence() {
    let mut world = World::new();
    let mut guesser = world.client("ann", "guess");
    let mut codes = Vec::new();
    for _ in 0..200 {
        codes.push(guesser.allocate(&mut world, |_| {}).code());
    }
    assert_eq!(codes.iter().filter(|code| **code == 401).count(), 60);
    assert!(codes[60..].iter().all(|code| *code == 0));
    let mut owner = harness::Turn::new(guesser.client, "ann", "pass");
    owner.nonce = guesser.nonce.clone();
    assert_eq!(owner.allocate(&mut world, |_| {}).code(), 0, "no word on whether this one was right");
    assert_eq!(world.server.counters().credential_failures, 60);
    world.pass(60);
    assert_eq!(owner.allocate(&mut world, |_| {}).code(), 200);
}

#[test]
fn s11_quotas_hold_through_expiry_repetition_and_refresh_to_zero() {
    let mut world = World::with(|settings| {
        settings.limits = Limits { user_allocations: 3, source_allocations: 5, ..Limits::default() };
    });
    let mut anns = (0..3).map(|_| world.allocated("ann", "pass")).collect::<Vec<_>>();
    assert_eq!(world.client("ann", "pass").allocate(&mut world, |_| {}).code(), 486);
    anns[0].refresh(&mut world, 0);
    let mut again = world.client("ann", "pass");
    again.learn_nonce(&mut world);
    let id = again.new_id();
    let request = again.signed_as(id, Method::ALLOCATE, |w| w.requested_transport(17).expect("room"));
    for _ in 0..5 {
        assert_eq!(world.send(again.client, &request).code(), 200, "a repetition is not counted");
    }
    assert_eq!(world.shared.allocations(), 3);
    let _bobs = (0..2).map(|_| world.allocated("bob", "word")).collect::<Vec<_>>();
    assert_eq!(world.client("bob", "word").allocate(&mut world, |_| {}).code(), 486, "the source is full");
    world.pass(601);
    assert_eq!((world.shared.allocations(), world.shared.ports_used()), (0, 0));
    assert_eq!(world.client("ann", "pass").allocate(&mut world, |_| {}).code(), 200);
}

#[test]
fn s11_a_full_server_says_508() {
    let mut world = World::with(|settings| settings.limits.total_allocations = 2);
    let _two = (0..2).map(|_| world.allocated("ann", "pass")).collect::<Vec<_>>();
    assert_eq!(world.client("bob", "word").allocate(&mut world, |_| {}).code(), 508);
    let mut world =
        World::with(|s| (s.limits.total_bytes_per_s, s.limits.allocation_bytes_per_s) = (250_000, 125_000));
    let _two = (0..2).map(|_| world.allocated("ann", "pass")).collect::<Vec<_>>();
    assert_eq!(world.client("bob", "word").allocate(&mut world, |_| {}).code(), 508);
    let mut world = World::with_ports(50_000..=50_001, |_| {});
    let _two = (0..2).map(|_| world.allocated("ann", "pass")).collect::<Vec<_>>();
    assert_eq!(world.client("bob", "word").allocate(&mut world, |_| {}).code(), 508);
}

#[test]
fn s11_a_rest_user_is_counted_without_the_time() {
    let mut world = World::with(|settings| settings.limits.user_allocations = 2);
    let codes = (0..4).map(|n| {
        let username = format!("{}:carol", WALL_CLOCK + 100 + n);
        let password = rest_password(SECRET, &username);
        world.client(&username, &password).allocate(&mut world, |_| {}).code()
    });
    assert_eq!(codes.collect::<Vec<_>>(), [200, 200, 486, 486]);
}

#[test]
fn s12_an_expired_rest_credential_opens_nothing_new() {
    let mut world = World::new();
    let username = format!("{}:carol", WALL_CLOCK + 100);
    let password = rest_password(SECRET, &username);
    let mut early = world.client(&username, &password);
    assert_eq!(early.allocate(&mut world, |_| {}).code(), 200);
    world.pass(104);
    let mut skewed = world.client(&username, &password);
    assert_eq!(skewed.allocate(&mut world, |_| {}).code(), 200, "clocks may differ by five seconds");
    world.pass(1);
    assert_eq!(world.client(&username, &password).allocate(&mut world, |_| {}).code(), 401);
    assert_eq!(early.refresh(&mut world, 600).code(), 200, "what is there goes on");
    for forged in [format!("{}:carol", WALL_CLOCK + 9_999), "carol".to_owned()] {
        assert_eq!(world.client(&forged, &password).allocate(&mut world, |_| {}).code(), 401, "{forged}");
    }
}

#[test]
fn s12_strict_expiry_ends_the_allocation_with_the_credential() {
    let mut world = World::with(|settings| settings.strict_expiry = true);
    let username = format!("{}", WALL_CLOCK + 100);
    let mut turn = world.client(&username, &rest_password(SECRET, &username));
    let got = turn.allocate(&mut world, |_| {});
    assert_eq!(Message::parse(&got.answer).expect("an answer").lifetime(), Some(100));
    world.pass(99);
    assert_eq!(world.server.allocations(), 1);
    turn.refresh(&mut world, 600);
    world.pass(1);
    assert_eq!(world.server.allocations(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn s14_no_input_panics_or_reaches_a_peer(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        method in prop::sample::select(vec![3_u16, 4, 8, 9]),
    ) {
        let mut world = World::new();
        let mut turn = world.allocated("ann", "pass");
        assert!(world.send(turn.client, &bytes).to_peer.is_none());
        let mut request = turn.signed(Method::new(method).expect("12 bits"), |w| {
            w.requested_transport(17).expect("room");
            w.xor_peer_address(PEER.parse().expect("an address")).expect("room");
            w.channel_number(0x4000).expect("room");
        });
        let original = request.clone();
        for (at, value) in flips {
            let at = at.index(request.len());
            request[at] ^= value;
        }
        let got = world.send(turn.client, &request);
        // Whatever was changed is not authentic, unless nothing was.
        if request != original && request.len() == original.len() {
            prop_assert!(matches!(got.code(), 0 | 400 | 401 | 437 | 438 | 441), "{}", got.code());
        }
        let id = turn.id.expect("allocated");
        let mut short = vec![0; bytes.len()];
        let _ = world.server.handle_peer(world.now, id, PEER.parse().expect("an address"), &mut short, bytes.len());
    }
}

#[test]
fn s16_a_repeated_allocate_gets_the_same_answer() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    turn.learn_nonce(&mut world);
    let id = turn.new_id();
    let request = turn.signed_as(id, Method::ALLOCATE, |w| {
        w.requested_transport(17).expect("room");
        w.attribute(AttributeType::EVEN_PORT, &[0x80]).expect("room");
    });
    let first = world.send(turn.client, &request).answer;
    world.pass(5);
    assert_eq!(world.send(turn.client, &request).answer, first);
    assert_eq!((world.shared.allocations(), world.shared.ports_used()), (1, 2));
}

#[test]
fn s17_a_message_with_a_wrong_fingerprint_is_dropped() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    turn.fingerprint = true;
    let mut request = turn.signed(Method::REFRESH, |w| w.lifetime(0).expect("room"));
    *request.last_mut().expect("bytes") ^= 1;
    assert!(world.send(turn.client, &request).answer.is_empty());
    assert_eq!(world.server.allocations(), 1);
    assert_eq!(world.server.counters().dropped(DropReason::Malformed), 1);
}

#[test]
fn s18_the_servers_own_ports_are_not_reachable_through_it() {
    for relay_ports in [None, Some(49_152..=65_535)] {
        let mut world = World::with(|settings| {
            settings.policy.general = true;
            settings.policy.relay_ports = relay_ports.clone();
        });
        let mut turn = world.allocated("ann", "pass");
        for port in [3_478, 5_349, 7_401] {
            assert_eq!(turn.bind(&mut world, 0x4000, &format!("{RELAY}:{port}")).code(), 403);
            assert!(turn.send_to(&mut world, &format!("{RELAY}:{port}"), b"x").to_peer.is_none());
        }
        let expected = if relay_ports.is_some() { 200 } else { 403 };
        assert_eq!(turn.bind(&mut world, 0x4000, &format!("{RELAY}:50000")).code(), expected);
    }
}

#[test]
fn s18_a_media_node_on_the_same_host_is_reachable_on_its_ports_only() {
    let mut world = World::with(|settings| {
        settings.policy.allowed = vec![format!("{RELAY}:40000-40003").parse().expect("a range")];
    });
    let mut turn = world.allocated("ann", "pass");
    assert_eq!(turn.bind(&mut world, 0x4000, &format!("{RELAY}:40003")).code(), 200);
    assert_eq!(turn.bind(&mut world, 0x4001, &format!("{RELAY}:3478")).code(), 403);
    assert!(turn.send_to(&mut world, &format!("{RELAY}:7401"), b"x").to_peer.is_none());
    let mut world = World::with(|settings| {
        settings.policy.allowed = vec!["198.51.100.0/24:40000-40003".parse().expect("a range")];
    });
    let mut turn = world.allocated("ann", "pass");
    assert_eq!(turn.bind(&mut world, 0x4000, &format!("{RELAY}:40003")).code(), 403, "only when it is named itself");
    assert_eq!(turn.bind(&mut world, 0x4000, "198.51.100.77:40003").code(), 200);
}

#[test]
fn s19_secrets_rotate_without_losing_an_allocation() {
    let mut world = World::new();
    let username = format!("{}:carol", WALL_CLOCK + 1_000);
    let old = rest_password(SECRET, &username);
    let mut turn = world.client(&username, &old);
    assert_eq!(turn.allocate(&mut world, |_| {}).code(), 200);
    let mut rotated = settings();
    rotated.credentials.add_secret(b"the next secret", Hash::Sha1);
    world.server.update(Arc::new(rotated)).expect("settings");
    let new = rest_password(b"the next secret", &username);
    assert_eq!(world.client(&username, &old).allocate(&mut world, |_| {}).code(), 200, "both are good");
    assert_eq!(world.client(&username, &new).allocate(&mut world, |_| {}).code(), 200, "both are good");
    let mut last = settings();
    last.credentials = relay_core::Credentials::new(REALM);
    last.credentials.add_secret(b"the next secret", Hash::Sha1);
    world.server.update(Arc::new(last)).expect("settings");
    assert_eq!(world.client(&username, &old).allocate(&mut world, |_| {}).code(), 401, "the old one is gone");
    assert_eq!(turn.refresh(&mut world, 600).code(), 200, "its allocation is not");
    // The client may go on under the new password as well.
    turn.key = IntegrityKey::long_term(username.as_bytes(), REALM.as_bytes(), new.as_bytes());
    assert_eq!(turn.refresh(&mut world, 600).code(), 200);
}

#[test]
fn s19_a_peer_that_is_denied_from_now_on_loses_its_channel() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    turn.bind(&mut world, 0x4000, PEER);
    assert!(turn.say(&mut world, 0x4000, b"x").to_peer.is_some());
    let mut narrower = settings();
    narrower.policy.allowed = vec!["203.0.113.77".parse().expect("a range")];
    world.server.update(Arc::new(narrower)).expect("settings");
    assert!(turn.say(&mut world, 0x4000, b"x").to_peer.is_none());
    assert!(world.peer_sends(turn.id.expect("allocated"), PEER, b"x").is_none());
    assert_eq!(world.server.counters().answered(Outcome(200)), 2);
}

#[test]
fn s20_settings_that_do_not_fit_are_refused_and_the_old_ones_stay() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    let mut moved = settings();
    moved.relays.reverse();
    let mut nameless = settings();
    nameless.credentials = relay_core::Credentials::new("");
    for bad in [moved, nameless] {
        assert!(world.server.update(Arc::new(bad)).is_err());
    }
    assert_eq!(turn.refresh(&mut world, 600).code(), 200);
    let mut renamed = settings();
    renamed.relays[0].advertised = "203.0.113.200".parse().expect("an address");
    world.server.update(Arc::new(renamed)).expect("settings");
    let got = world.client("ann", "pass").allocate(&mut world, |_| {});
    assert_eq!(got.relayed()[0].ip().to_string(), "203.0.113.200", "a public address may change");
}
