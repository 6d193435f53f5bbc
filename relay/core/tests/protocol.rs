//! What a client that behaves can do, and the exact refusals of one that does not.

mod harness;

use harness::{PEER, PEER_V6, RELAY, RELAY_V6, World, channel_data};
use relay_core::{Client, Family, Link};
use stun::{AttributeType, Class, Message, Method, TransactionId};

fn byte4(value: u8) -> [u8; 4] {
    [value, 0, 0, 0]
}

#[test]
fn a_binding_request_is_answered_without_credentials() {
    let mut world = World::new();
    let mut turn = world.client("", "");
    let got = world.send(turn.client, &turn.unsigned(Method::BINDING, |_| {}));
    let message = Message::parse(&got.answer).expect("an answer");
    assert_eq!(message.xor_mapped_address(), Some(turn.client.address));
    assert!(!message.has_fingerprint());
    turn.fingerprint = true;
    let got = world.send(turn.client, &turn.unsigned(Method::BINDING, |_| {}));
    assert!(Message::parse(&got.answer).expect("an answer").has_fingerprint());
}

#[test]
fn an_allocation_says_its_addresses_and_lifetime_signed() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    let got = turn.allocate(&mut world, |_| {});
    let message = Message::parse(&got.answer).expect("an answer");
    assert_eq!(message.class(), Class::Success);
    message.verify_integrity(&turn.key).expect("signed with the user's key");
    assert_eq!(message.xor_mapped_address(), Some(turn.client.address));
    assert_eq!(message.lifetime(), Some(600));
    let relayed = message.xor_relayed_address().expect("an address");
    assert_eq!(relayed.ip().to_string(), RELAY);
    assert_eq!(world.bound, [relayed]);
    assert_eq!((world.shared.allocations(), world.shared.ports_used()), (1, 1));
}

#[test]
fn sha256_is_answered_with_sha256() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    turn.sha256 = true;
    let got = turn.allocate(&mut world, |_| {});
    let message = Message::parse(&got.answer).expect("an answer");
    assert!(message.has_integrity_sha256() && !message.has_integrity());
    message.verify_integrity_sha256(&turn.key).expect("signed");
}

#[test]
fn data_goes_both_ways_through_a_channel() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    assert_eq!(turn.bind(&mut world, 0x4001, PEER).code(), 200);
    let (family, peer, data) = turn.say(&mut world, 0x4001, b"hello").to_peer.expect("forwarded");
    assert_eq!((family, peer.to_string().as_str(), &data[..]), (Family::V4, PEER, &b"hello"[..]));
    let back = world.peer_sends(turn.id.expect("allocated"), PEER, b"there").expect("forwarded");
    assert_eq!(back, channel_data(0x4001, b"there"));
}

#[test]
fn data_goes_both_ways_in_indications_for_both_families() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    let got = turn
        .allocate(&mut world, |w| w.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &byte4(2)).expect("room"));
    let id = got.created.expect("created");
    assert_eq!(turn.permit(&mut world, &[PEER, PEER_V6]).code(), 200);
    for (family, peer) in [(Family::V4, PEER), (Family::V6, PEER_V6)] {
        for data in [&b""[..], b"a", b"abcd", b"abcdefg"] {
            let sent = turn.send_to(&mut world, peer, data).to_peer.expect("forwarded");
            assert_eq!((sent.0, sent.1.to_string().as_str(), &sent.2[..]), (family, peer, data));
            let back = world.peer_sends(id, peer, data).expect("forwarded");
            let message = Message::parse(&back).expect("a message");
            assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
            assert_eq!(message.xor_peer_address(), peer.parse().ok());
            assert_eq!(message.data(), Some(data));
        }
    }
}

#[test]
fn channel_data_on_a_stream_is_padded_to_four_bytes() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    turn.client = Client { address: turn.client.address, link: Link::Stream { connection: 3 } };
    let id = turn.allocate(&mut world, |_| {}).created.expect("created");
    assert_eq!(turn.bind(&mut world, 0x4001, PEER).code(), 200);
    let back = world.peer_sends(id, PEER, b"there").expect("forwarded");
    assert_eq!(back, [&channel_data(0x4001, b"there")[..], &[0, 0, 0]].concat());
    world.server.disconnect(&turn.client);
    assert_eq!((world.shared.allocations(), world.shared.ports_used()), (0, 0));
}

#[test]
fn families_are_chosen_as_asked() {
    let mut world = World::new();
    let mut six = world.client("ann", "pass");
    let got =
        six.allocate(&mut world, |w| w.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &byte4(2)).expect("room"));
    assert_eq!(got.relayed()[0].ip().to_string(), RELAY_V6);
    assert_eq!(six.bind(&mut world, 0x4001, PEER).code(), 443);
    let mut both = world.client("ann", "pass");
    let got = both
        .allocate(&mut world, |w| w.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &byte4(2)).expect("room"));
    assert_eq!(got.relayed().len(), 2);
    // One of them can go alone.
    let got = both.request(&mut world, Method::REFRESH, |w| {
        w.lifetime(0).expect("room");
        w.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &byte4(1)).expect("room");
    });
    assert_eq!(got.code(), 200);
    assert_eq!(world.closed.iter().map(|(_, family)| *family).collect::<Vec<_>>(), [Family::V4]);
    assert_eq!(both.bind(&mut world, 0x4001, PEER).code(), 443);
    assert_eq!(both.bind(&mut world, 0x4001, PEER_V6).code(), 200);
}

#[test]
fn both_families_can_be_asked_for_with_the_number_of_coturn() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    let got = turn.allocate(&mut world, |w| w.attribute(AttributeType(0x8032), &byte4(2)).expect("room"));
    assert_eq!((got.relayed().len(), world.shared.ports_used()), (2, 2));
}

#[test]
fn a_second_family_that_is_not_there_is_said_in_the_answer() {
    let mut world = World::with(|settings| settings.relays.truncate(1));
    let mut turn = world.client("ann", "pass");
    let got = turn
        .allocate(&mut world, |w| w.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &byte4(2)).expect("room"));
    assert_eq!(got.relayed().len(), 1);
    assert_eq!(got.attribute(AttributeType::ADDRESS_ERROR_CODE), Some(vec![2, 0, 4, 40]));
    let mut six = world.client("ann", "pass");
    let got =
        six.allocate(&mut world, |w| w.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &byte4(2)).expect("room"));
    assert_eq!(got.code(), 440);
}

#[test]
fn an_even_port_and_the_next_one_make_a_pair() {
    let mut world = World::new();
    let mut rtp = world.client("ann", "pass");
    let got = rtp.allocate(&mut world, |w| w.attribute(AttributeType::EVEN_PORT, &[0x80]).expect("room"));
    let even = got.relayed()[0].port();
    assert_eq!((even % 2, world.shared.ports_used()), (0, 2));
    let token = got.attribute(AttributeType::RESERVATION_TOKEN).expect("a token");
    let mut stranger = world.client("bob", "word");
    let got = stranger.allocate(&mut world, |w| w.attribute(AttributeType::RESERVATION_TOKEN, &token).expect("room"));
    assert_eq!(got.code(), 508, "a token is its user's");
    let mut rtcp = world.client("ann", "pass");
    let got = rtcp.allocate(&mut world, |w| w.attribute(AttributeType::RESERVATION_TOKEN, &token).expect("room"));
    assert_eq!(got.relayed()[0].port(), even + 1);
    let mut again = world.client("ann", "pass");
    let got = again.allocate(&mut world, |w| w.attribute(AttributeType::RESERVATION_TOKEN, &token).expect("room"));
    assert_eq!(got.code(), 508, "a token is good once");
}

#[test]
fn a_pair_may_be_spread_over_two_threads() {
    let mut world = World::new();
    let mut other = world.sibling();
    let mut rtp = world.client("ann", "pass");
    let got = rtp.allocate(&mut world, |w| w.attribute(AttributeType::EVEN_PORT, &[0x80]).expect("room"));
    let token = got.attribute(AttributeType::RESERVATION_TOKEN).expect("a token");
    let mut rtcp = other.client("ann", "pass");
    let paired = rtcp.allocate(&mut other, |w| w.attribute(AttributeType::RESERVATION_TOKEN, &token).expect("room"));
    assert_eq!(paired.relayed()[0].port(), got.relayed()[0].port() + 1);
    rtp.refresh(&mut world, 0);
    assert_eq!(world.shared.ports_used(), 1, "the second of the pair stays with its allocation");
}

#[test]
fn a_reservation_ends_with_its_time_or_its_maker() {
    let mut world = World::new();
    let even = |w: &mut stun::Writer<'_>| w.attribute(AttributeType::EVEN_PORT, &[0x80]).expect("room");
    let mut one = world.client("ann", "pass");
    one.allocate(&mut world, even);
    let mut two = world.client("ann", "pass");
    two.allocate(&mut world, even);
    assert_eq!(world.shared.ports_used(), 4);
    two.refresh(&mut world, 0);
    assert_eq!(world.shared.ports_used(), 2);
    world.pass(31);
    assert_eq!(world.shared.ports_used(), 1);
}

#[test]
fn lifetimes_are_between_the_default_and_the_maximum() {
    let mut world = World::new();
    for (asked, granted) in [(1, 600), (777, 777), (3_600, 3_600), (u32::MAX, 3_600)] {
        let mut turn = world.client("ann", "pass");
        let got = turn.allocate(&mut world, |w| w.lifetime(asked).expect("room"));
        assert_eq!(Message::parse(&got.answer).expect("an answer").lifetime(), Some(granted));
        assert_eq!(turn.refresh(&mut world, 0).code(), 200);
    }
}

#[test]
fn an_allocation_lives_as_long_as_it_is_refreshed() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    world.pass(599);
    assert_eq!(turn.refresh(&mut world, 600).code(), 200);
    world.pass(599);
    assert_eq!(world.server.allocations(), 1);
    world.pass(2);
    assert_eq!((world.server.allocations(), world.shared.ports_used(), world.closed.len()), (0, 0, 1));
    assert_eq!(turn.refresh(&mut world, 600).code(), 437);
    assert_eq!(world.server.poll_timeout(), None);
}

#[test]
fn wrong_allocate_requests_get_their_code() {
    type Attributes = &'static [(AttributeType, &'static [u8])];
    let cases: [(u16, Attributes); 11] = [
        (400, &[]),
        (442, &[(AttributeType::REQUESTED_TRANSPORT, &[6, 0, 0, 0])]),
        (
            440,
            &[
                (AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
                (AttributeType::REQUESTED_ADDRESS_FAMILY, &[3, 0, 0, 0]),
            ],
        ),
        (
            400,
            &[
                (AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
                (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[1, 0, 0, 0]),
            ],
        ),
        (
            400,
            &[
                (AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
                (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]),
                (AttributeType::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]),
            ],
        ),
        (
            400,
            &[
                (AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
                (AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]),
                (AttributeType::EVEN_PORT, &[0x80]),
            ],
        ),
        (
            400,
            &[
                (AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]),
                (AttributeType::RESERVATION_TOKEN, &[0; 8]),
                (AttributeType::EVEN_PORT, &[0]),
            ],
        ),
        (400, &[(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]), (AttributeType::RESERVATION_TOKEN, &[0; 7])]),
        (508, &[(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]), (AttributeType::RESERVATION_TOKEN, &[0; 8])]),
        (405, &[(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]), (AttributeType(0x8030), &[])]),
        (420, &[(AttributeType::REQUESTED_TRANSPORT, &[17, 0, 0, 0]), (AttributeType(0x7001), &[1])]),
    ];
    let mut world = World::new();
    for (code, attributes) in cases {
        let mut turn = world.client("ann", "pass");
        turn.learn_nonce(&mut world);
        let got = turn.request(&mut world, Method::ALLOCATE, |w| {
            for (kind, value) in attributes {
                w.attribute(*kind, value).expect("room");
            }
        });
        assert_eq!(got.code(), code, "{attributes:?}");
    }
    assert_eq!((world.shared.allocations(), world.shared.ports_used()), (0, 0));
}

#[test]
fn an_unknown_attribute_is_named() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    let got = turn.request(&mut world, Method::REFRESH, |w| w.attribute(AttributeType(0x7001), &[1]).expect("room"));
    let message = Message::parse(&got.answer).expect("an answer");
    let named = message.unknown_attributes().expect("named").collect::<Vec<_>>();
    assert_eq!(named, [AttributeType(0x7001)]);
    message.verify_integrity(&turn.key).expect("signed");
}

/// CHANGE-REQUEST (RFC 5780 section 7.2): an answer from another address must not be promised by silence.
#[test]
fn behaviour_discovery_is_refused_by_name() {
    let mut world = World::new();
    let mut turn = world.client("", "");
    let change_request = AttributeType(0x0003);
    let request = turn.unsigned(Method::BINDING, |w| w.attribute(change_request, &[0, 0, 0, 6]).expect("room"));
    let got = world.send(turn.client, &request);
    assert_eq!(got.code(), 420);
    let message = Message::parse(&got.answer).expect("an answer");
    assert_eq!(message.unknown_attributes().expect("named").collect::<Vec<_>>(), [change_request]);
}

#[test]
fn dont_fragment_is_understood() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    let got = turn.allocate(&mut world, |w| w.attribute(AttributeType::DONT_FRAGMENT, &[]).expect("room"));
    assert_eq!(got.code(), 200);
}

#[test]
fn requests_without_an_allocation_get_437() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    turn.learn_nonce(&mut world);
    assert_eq!(turn.refresh(&mut world, 600).code(), 437);
    assert_eq!(turn.permit(&mut world, &[PEER]).code(), 437);
    assert_eq!(turn.bind(&mut world, 0x4000, PEER).code(), 437);
    assert_eq!(turn.request(&mut world, Method::CONNECT, |_| {}).code(), 437);
}

#[test]
fn a_second_allocate_gets_437_and_tcp_methods_too() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    assert_eq!(turn.allocate(&mut world, |_| {}).code(), 437);
    assert_eq!(turn.request(&mut world, Method::CONNECT, |_| {}).code(), 437);
    assert_eq!(turn.request(&mut world, Method::new(0x0FF).expect("12 bits"), |_| {}).code(), 400);
}

#[test]
fn channels_are_bound_one_to_one() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    for (channel, peer, code) in [
        (0x3FFF, PEER, 400),
        (0x8000, PEER, 400),
        (0x4000, PEER, 200),
        (0x4000, PEER, 200),
        (0x4001, PEER, 400),
        (0x4000, "203.0.113.10:1", 400),
        (0x7FFF, "203.0.113.10:1", 200),
        (0x4002, "203.0.113.11:0", 403),
    ] {
        assert_eq!(turn.bind(&mut world, channel, peer).code(), code, "{channel:x} {peer}");
    }
    world.pass(599);
    assert_eq!(turn.refresh(&mut world, 3_600).code(), 200);
    world.pass(2);
    assert_eq!(turn.bind(&mut world, 0x4000, "203.0.113.10:2").code(), 438, "the nonce is old by now");
    turn.nonce.clear();
    turn.learn_nonce(&mut world);
    assert_eq!(turn.bind(&mut world, 0x4000, "203.0.113.10:2").code(), 200, "free again");
}

#[test]
fn a_permission_request_names_all_or_nothing() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    assert_eq!(turn.permit(&mut world, &[]).code(), 400);
    assert_eq!(turn.permit(&mut world, &[PEER, "10.0.0.1:1"]).code(), 403);
    assert!(turn.send_to(&mut world, PEER, b"x").to_peer.is_none());
    assert_eq!(turn.permit(&mut world, &[PEER, "203.0.113.10:1"]).code(), 200);
    assert!(turn.send_to(&mut world, PEER, b"x").to_peer.is_some());
    assert!(turn.send_to(&mut world, "203.0.113.10:77", b"x").to_peer.is_some());
}

#[test]
fn permissions_and_channels_have_a_cap() {
    let mut world = World::with(|settings| {
        settings.limits.permissions = 3;
        settings.limits.channels = 2;
    });
    let mut turn = world.allocated("ann", "pass");
    assert_eq!(turn.bind(&mut world, 0x4000, "203.0.113.1:1").code(), 200);
    assert_eq!(turn.bind(&mut world, 0x4001, "203.0.113.1:2").code(), 200);
    assert_eq!(turn.bind(&mut world, 0x4002, "203.0.113.1:3").code(), 508);
    assert_eq!(turn.permit(&mut world, &["203.0.113.2:0", "203.0.113.3:0"]).code(), 200);
    assert_eq!(turn.permit(&mut world, &["203.0.113.4:0"]).code(), 508);
    assert_eq!(turn.permit(&mut world, &["203.0.113.3:0"]).code(), 200, "a refresh needs no room");
    world.pass(301);
    assert_eq!(turn.permit(&mut world, &["203.0.113.4:0"]).code(), 200, "the others are over");
}

#[test]
fn a_port_that_cannot_be_bound_is_replaced() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    turn.learn_nonce(&mut world);
    world.binds_to_fail = 3;
    assert_eq!(turn.allocate(&mut world, |_| {}).code(), 200);
    assert_eq!(world.shared.ports_used(), 1);
    let mut unlucky = world.client("ann", "pass");
    unlucky.learn_nonce(&mut world);
    world.binds_to_fail = 100;
    assert_eq!(unlucky.allocate(&mut world, |_| {}).code(), 508);
    assert_eq!((world.shared.allocations(), world.shared.ports_used()), (1, 1));
}

#[test]
fn a_draining_server_keeps_what_it_has() {
    let mut world =
        World::with(|settings| settings.alternate = Some("198.51.100.77:3478".parse().expect("an address")));
    let mut turn = world.allocated("ann", "pass");
    let mut late = world.client("ann", "pass");
    world.server.drain();
    let got = late.allocate(&mut world, |_| {});
    assert_eq!(got.code(), 300);
    let alternate = got.attribute(AttributeType::ALTERNATE_SERVER).expect("an address");
    assert_eq!(alternate, [0, 1, 0x0D, 0x96, 198, 51, 100, 77]);
    assert_eq!(turn.refresh(&mut world, 600).code(), 200);
    let mut world = World::new();
    world.server.drain();
    assert_eq!(world.client("ann", "pass").allocate(&mut world, |_| {}).code(), 508);
}

#[test]
fn the_bucket_of_an_allocation_limits_each_direction() {
    let mut world = World::with(|settings| settings.limits.allocation_bytes_per_s = 10_000);
    let mut turn = world.allocated("ann", "pass");
    turn.bind(&mut world, 0x4000, PEER);
    let id = turn.id.expect("allocated");
    let (mut out, mut back) = (0, 0);
    for _ in 0..50 {
        out += usize::from(turn.say(&mut world, 0x4000, &[0; 1_000]).to_peer.is_some());
        back += usize::from(world.peer_sends(id, PEER, &[0; 1_000]).is_some());
    }
    assert_eq!((out, back), (10, 10));
    world.pass(1);
    assert!(turn.say(&mut world, 0x4000, &[0; 1_000]).to_peer.is_some());
}

#[test]
fn responses_and_foreign_indications_are_ignored() {
    let mut world = World::new();
    let turn = world.client("ann", "pass");
    let id = TransactionId([1; 12]);
    for class in [Class::Success, Class::Error, Class::Indication] {
        let bytes = harness::write(class, Method::ALLOCATE, id, None, false, |_| {});
        assert_eq!(world.send(turn.client, &bytes).code(), 0);
    }
    let keepalive = harness::write(Class::Indication, Method::BINDING, id, None, false, |_| {});
    assert_eq!(world.send(turn.client, &keepalive).code(), 0);
}
