//! TCP allocations (RFC 6062): who may connect with whom, and what is left afterwards.

mod harness;

use harness::{Got, PEER, Turn, World};
use relay_core::{ANSWER_BYTES_MAX, Action, Client, ConnectionId, Link};
use stun::{AttributeType, Message, Method};

const TCP: u8 = 6;

fn world() -> World {
    World::with(|settings| settings.tcp_relay = true)
}

fn on_stream(turn: &mut Turn, connection: u32) {
    turn.client.link = Link::Stream { connection };
}

/// A client on a stream with a TCP allocation.
fn allocated(world: &mut World, username: &str, password: &str, connection: u32) -> Turn {
    let mut turn = world.client(username, password);
    on_stream(&mut turn, connection);
    turn.learn_nonce(world);
    let got = turn.request(world, Method::ALLOCATE, |w| w.requested_transport(TCP).expect("room"));
    turn.id = Some(got.created.expect("an allocation"));
    turn
}

fn connect(world: &mut World, turn: &mut Turn, peer: &str) -> Got {
    turn.request(world, Method::CONNECT, |w| w.xor_peer_address(peer.parse().expect("an address")).expect("room"))
}

/// The code of the answer and the connection's number.
fn complete(world: &mut World, got: Got, is_connected: bool) -> (u16, Option<ConnectionId>) {
    let mut out = [0; ANSWER_BYTES_MAX];
    let pending = got.connect.expect("a connection to open");
    let Action::Answer(len) = world.server.complete_connect(world.now, &pending, is_connected, &mut out) else {
        panic!("no answer");
    };
    let answer = Got { answer: out[..len].to_vec(), ..Got::default() };
    let id = answer.attribute(AttributeType::CONNECTION_ID);
    (answer.code(), id.map(|id| ConnectionId(u32::from_be_bytes(id.try_into().expect("four bytes")))))
}

fn connected(world: &mut World, turn: &mut Turn, peer: &str) -> ConnectionId {
    let got = connect(world, turn, peer);
    let (code, id) = complete(world, got, true);
    assert_eq!(code, 200);
    id.expect("a number")
}

/// A new connection of the same user shows the number.
fn bind(world: &mut World, username: &str, password: &str, connection: u32, id: ConnectionId) -> Got {
    let mut turn = world.client(username, password);
    on_stream(&mut turn, connection);
    turn.learn_nonce(world);
    turn.request(world, Method::CONNECTION_BIND, |w| {
        w.attribute(AttributeType::CONNECTION_ID, &id.0.to_be_bytes()).expect("room");
    })
}

#[test]
fn a_connection_is_opened_claimed_once_and_closed() {
    let mut world = world();
    let mut turn = allocated(&mut world, "ann", "pass", 1);
    let id = connected(&mut world, &mut turn, PEER);
    assert_eq!(connect(&mut world, &mut turn, PEER).code(), 446);
    let got = bind(&mut world, "ann", "pass", 2, id);
    assert_eq!((got.code(), got.joined), (200, Some(id)));
    assert_eq!(bind(&mut world, "ann", "pass", 3, id).code(), 400, "claimed already");
    world.server.close_connection(id);
    assert!(!world.server.has_connection(id));
    connected(&mut world, &mut turn, PEER);
}

#[test]
fn tcp_is_refused_while_it_is_off_and_over_datagrams() {
    let mut off = World::new();
    let mut turn = off.client("ann", "pass");
    on_stream(&mut turn, 1);
    turn.learn_nonce(&mut off);
    assert_eq!(turn.request(&mut off, Method::ALLOCATE, |w| w.requested_transport(TCP).expect("room")).code(), 442);
    let mut world = world();
    let mut datagrams = world.client("ann", "pass");
    datagrams.learn_nonce(&mut world);
    let got = datagrams.request(&mut world, Method::ALLOCATE, |w| w.requested_transport(TCP).expect("room"));
    assert_eq!(got.code(), 400);
    let mut udp = world.allocated("ann", "pass");
    assert_eq!(connect(&mut world, &mut udp, PEER).code(), 400, "an allocation for datagrams");
}

#[test]
fn s01_denied_peers_are_not_connected_with_in_either_direction() {
    let mut world = world();
    let mut turn = allocated(&mut world, "ann", "pass", 1);
    for peer in ["127.0.0.1:80", "10.0.0.1:80", "169.254.169.254:80", "0.0.0.0:80", "198.51.100.1:3478"] {
        assert_eq!(connect(&mut world, &mut turn, peer).code(), 403, "{peer}");
    }
    assert_eq!(connect(&mut world, &mut turn, "[::ffff:127.0.0.1]:80").code(), 403);
    let id = turn.id.expect("allocated");
    let mut out = [0; ANSWER_BYTES_MAX];
    let (now, peer) = (world.now, PEER.parse().expect("an address"));
    assert!(world.server.accept_peer(now, id, peer, &mut out).is_none(), "no permission");
    assert_eq!(turn.permit(&mut world, &[PEER]).code(), 200);
    let (client, connection, len) = world.server.accept_peer(now, id, peer, &mut out).expect("permitted");
    let attempt = Message::parse(&out[..len]).expect("an indication");
    assert!(client == turn.client && attempt.method() == Method::CONNECTION_ATTEMPT);
    assert_eq!(attempt.xor_peer_address(), Some(peer));
    assert_eq!(bind(&mut world, "ann", "pass", 2, connection).code(), 200);
    world.pass(301);
    let later = world.now;
    assert!(world.server.accept_peer(later, id, peer, &mut out).is_none(), "the permission has ended");
}

#[test]
fn only_the_owner_claims_and_only_what_is_there() {
    let mut world = world();
    let mut turn = allocated(&mut world, "ann", "pass", 1);
    let id = connected(&mut world, &mut turn, PEER);
    assert_eq!(bind(&mut world, "bob", "word", 2, id).code(), 441);
    assert_eq!(bind(&mut world, "ann", "wrong", 3, id).code(), 401);
    assert_eq!(bind(&mut world, "ann", "pass", 4, ConnectionId(id.0 ^ 1)).code(), 400);
    let mut datagrams = world.client("ann", "pass");
    datagrams.learn_nonce(&mut world);
    let got = datagrams.request(&mut world, Method::CONNECTION_BIND, |w| {
        w.attribute(AttributeType::CONNECTION_ID, &id.0.to_be_bytes()).expect("room");
    });
    assert_eq!(got.code(), 400, "not over datagrams");
    assert_eq!(bind(&mut world, "ann", "pass", 5, id).code(), 200);
}

#[test]
fn what_fails_or_ends_leaves_nothing() {
    let mut world = world();
    let mut turn = allocated(&mut world, "ann", "pass", 1);
    let got = connect(&mut world, &mut turn, PEER);
    assert_eq!(complete(&mut world, got, false), (447, None));
    let waiting = connect(&mut world, &mut turn, PEER);
    let id = connected(&mut world, &mut turn, "203.0.113.10:1");
    world.server.disconnect(&Client { ..turn.client });
    assert!(!world.server.has_connection(id));
    assert_eq!(complete(&mut world, waiting, true).0, 447, "the allocation is gone");
    assert_eq!(world.shared.ports_used(), 0);
}

#[test]
fn connections_of_an_allocation_are_bounded_and_have_no_channels() {
    let mut world = world();
    let mut turn = allocated(&mut world, "ann", "pass", 1);
    for n in 0..64 {
        assert!(connect(&mut world, &mut turn, &format!("203.0.113.9:{}", 1_000 + n)).connect.is_some());
    }
    assert_eq!(connect(&mut world, &mut turn, "203.0.113.9:9").code(), 508);
    assert_eq!(turn.bind(&mut world, 0x4000, PEER).code(), 400);
    assert_eq!(turn.permit(&mut world, &[PEER]).code(), 200);
    assert!(turn.send_to(&mut world, PEER, b"x").to_peer.is_none());
}
