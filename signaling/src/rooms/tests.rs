//! The state machine driven by hand for the orderly cases; [`random`] drives it with whatever comes. [`world`] checks
//! after every step that each client's roster, made of nothing but its messages, is the roster of the room.

mod random;
mod world;

use sfu_control::{NodeEvent, SlotAssignment};

use super::*;
use crate::resume::Participation;
use world::*;

#[test]
fn away_and_idle_goes_after_3_s_and_away_alone_after_the_grace() {
    let mut world = World::new();
    let (ada, bob) = (world.join("a", Role::Speaker), world.join("a", Role::Speaker));
    let watcher = world.join("a", Role::Listener);
    world.request(ada, spec(0, 0));
    world.request(bob, spec(1, 0));
    world.answer_all();
    world.close(ada, false);
    world.close(bob, false);
    world.event(0, |peer| NodeEvent::Idle { peer });
    world.advance(Duration::from_millis(2_900));
    assert_eq!(world.client(watcher).roster.len(), 3);
    world.advance(Duration::from_millis(200));
    assert_eq!(world.client(watcher).roster.len(), 2);
    world.advance(Duration::from_millis(6_800));
    assert_eq!(world.client(watcher).roster.len(), 2);
    world.advance(Duration::from_millis(200));
    assert_eq!(world.client(watcher).roster.len(), 1);
    world.answer_all();
    assert!(world.node_peers.is_empty());
}

#[test]
fn new_process_takes_running_calls_over() {
    let mut world = World::new();
    let ada = world.join("a", Role::Speaker);
    world.request(ada, spec(0, 0));
    world.answer_all();
    let peer = world.peer(ada);
    // A new process: it knows nothing but what the node tells.
    world.rooms = Rooms::new(Limits::default(), world.now);
    world.clients.clear();
    let early = world.resume(0);
    assert_eq!(world.client(early).own, None, "waits for the node");
    let stranger = world.join("a", Role::Listener);
    world.link_up();
    assert_eq!(world.client(early).own.as_ref(), Some(&peer));
    assert!(!world.client(stranger).roster[&peer].away && world.client(stranger).roster[&peer].connected);
    // An ICE restart works without the transport of the first answer.
    world.request(early, spec(0, 1));
    world.answer_all();
    assert_eq!(world.client(early).answers, 1);
    assert_eq!(world.node_peers.len(), 1);
}

#[test]
fn peers_that_nobody_resumes_end_after_a_takeover() {
    let mut world = World::new();
    let ada = world.join("a", Role::Speaker);
    world.request(ada, spec(0, 0));
    world.answer_all();
    world.rooms = Rooms::new(Limits::default(), world.now);
    world.clients.clear();
    world.link_up();
    assert_eq!(world.rooms.counts(), Counts { rooms: 1, members: 1, away: 1 });
    world.advance(Duration::from_secs(10));
    world.answer_all();
    assert_eq!(world.rooms.counts(), Counts::default());
    assert!(world.node_peers.is_empty());
}

#[test]
fn resume_that_no_node_knows_is_refused_after_the_wait() {
    let mut world = World::new();
    world.participations.push(Participation { room: "a".into(), peer: "p009".into(), nonce: "n".into() });
    let conn = world.resume(0);
    assert!(world.client(conn).errors.is_empty());
    world.advance(Duration::from_secs(6));
    assert_eq!(world.client(conn).errors, ["resume_expired"]);
    let late = world.resume(0);
    assert_eq!(world.client(late).errors, ["resume_expired"]);
}

#[test]
fn resume_with_the_nonce_of_another_participation_is_refused() {
    let mut world = World::new();
    let ada = world.join("a", Role::Speaker);
    let peer = world.peer(ada);
    world.participations = vec![Participation { room: "a".into(), peer, nonce: "other".into() }];
    let conn = world.resume(0);
    assert_eq!(world.client(conn).errors, ["resume_expired"]);
    assert!(!world.client(ada).closed);
}

#[test]
fn slots_are_mapped_to_own_mids_and_sent_on_change_only() {
    let mut world = World::new();
    let (ada, bob) = (world.join("a", Role::Speaker), world.join("a", Role::Speaker));
    for conn in [ada, bob] {
        world.request(conn, spec(u8::try_from(conn.0).unwrap(), 0));
    }
    world.answer_all();
    let peers: Vec<_> = world.node_peers.keys().cloned().collect();
    let slots = vec![assignment(0, &peers[0]), assignment(1, &peers[1])];
    world.input(Input::NodeEvent { node: NODE.into(), event: NodeEvent::Slots { room: "a".into(), slots } });
    let (of_ada, of_bob) = (&world.client(ada).slots, &world.client(bob).slots);
    assert_eq!((of_ada.len(), of_bob.len()), (1, 1));
    assert_eq!((of_ada[0].mid.as_str(), of_bob[0].mid.as_str()), ("2", "1"));
    assert_eq!(of_ada[0].peer, world.peer(bob));
    assert_eq!(of_bob[0].csrc, track_of(&peers[0]));
}

#[test]
fn who_is_in_a_slot_sees_the_spare_voice_there() {
    let mut world = World::new();
    let conns = [(); 3].map(|()| world.join("a", Role::Speaker));
    for conn in conns {
        world.request(conn, spec(u8::try_from(conn.0).unwrap(), 0));
    }
    world.answer_all();
    let peers: Vec<_> = world.node_peers.keys().cloned().collect();
    let spare = SlotAssignment { spare: true, ..assignment(2, &peers[2]) };
    let slots = vec![assignment(0, &peers[0]), assignment(1, &peers[1]), spare];
    world.input(Input::NodeEvent { node: NODE.into(), event: NodeEvent::Slots { room: "a".into(), slots } });
    let seen = |conn| world.client(conn).slots.iter().map(|slot| slot.peer.clone()).collect::<Vec<_>>();
    let [a, b, c] = conns.map(|conn| world.peer(conn));
    assert_eq!(seen(conns[0]), [c.clone(), b.clone()]);
    assert_eq!(seen(conns[1]), [a.clone(), c]);
    assert_eq!(seen(conns[2]), [a, b]);
}

#[test]
fn lost_node_is_told_once_to_each_and_the_room_moves() {
    let mut world = World::new();
    let (ada, bob) = (world.join("a", Role::Speaker), world.join("a", Role::Listener));
    world.request(ada, spec(0, 0));
    world.answer_all();
    world.lose_node(true);
    assert_eq!(world.client(ada).moved, ["node_lost"]);
    assert_eq!(world.client(bob).moved, ["node_lost"]);
    world.request(ada, spec(1, 0));
    assert_eq!(world.client(ada).errors, ["no_node"]);
    world.link_up();
    world.request(ada, spec(1, 0));
    world.answer_all();
    assert_eq!(world.client(ada).answers, 2);
}

#[test]
fn another_certificate_replaces_the_media_connection_and_the_node_is_told_so() {
    let mut world = World::new();
    let ada = world.join("a", Role::Speaker);
    for (certificate, is_replaced) in [(0, false), (1, true)] {
        world.request(ada, spec(certificate, 0));
        world.answer_all();
        let joins: Vec<_> = world.node_peers.values().map(|join| join.replaces).collect();
        assert_eq!(joins, [is_replaced]);
    }
}

#[test]
fn second_offer_before_the_answer_is_busy() {
    let mut world = World::new();
    let ada = world.join("a", Role::Speaker);
    world.request(ada, spec(0, 0));
    world.request(ada, spec(0, 1));
    assert_eq!(world.client(ada).errors, ["busy"]);
    world.answer_all();
    assert_eq!(world.client(ada).answers, 1);
}

#[test]
fn member_that_leaves_while_joining_leaves_the_node_too() {
    let mut world = World::new();
    let (ada, _bob) = (world.join("a", Role::Speaker), world.join("a", Role::Speaker));
    world.request(ada, spec(0, 0));
    world.close(ada, true);
    world.answer_all();
    assert!(world.node_peers.is_empty());
}

#[test]
fn rooms_and_members_are_bounded() {
    let mut world = World::new();
    for _ in 0..4 {
        world.join("a", Role::Listener);
    }
    let fifth = world.join("a", Role::Listener);
    assert_eq!(world.client(fifth).errors, ["room_full"]);
    world.join("b", Role::Listener);
    world.join("c", Role::Listener);
    let fourth = world.join("d", Role::Listener);
    assert_eq!(world.client(fourth).errors, ["server_full"]);
}

#[test]
fn what_a_node_keeps_of_a_peer_fits_at_its_longest() {
    let mut world = World::new();
    let conn = world.open();
    let kinds = Some(vec![TrackKind::Mic, TrackKind::Program]);
    let identity = "\u{1}".repeat(crate::tokens::IDENTITY_CHARS_MAX);
    let name = "\u{1F514}".repeat(crate::tokens::NAME_CHARS_MAX);
    let grant = Grant { identity, name, role: Role::Moderator, kinds };
    let (peer, nonce) = ("p".repeat(16), "n".repeat(16));
    world.input(Input::Hello { conn, re: 1, room: "a".into(), peer, nonce, grant });
    let Request::Offer(mut offer) = spec(0, 0) else { panic!("not an offer") };
    offer.ice.ufrag = "u".repeat(256);
    offer.fingerprint.value = ["AB"; 64].join(":");
    world.request(conn, Request::Offer(offer));
    let metas = world
        .calls
        .iter()
        .filter_map(|(_, op)| if let sfu_control::Operation::Join(join) = op { Some(join.meta.len()) } else { None });
    let metas: Vec<_> = metas.collect();
    assert!(metas.len() == 1 && metas[0] <= sfu_control::META_BYTES_MAX, "{metas:?}");
}
