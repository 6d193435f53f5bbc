use sfu_core::{GoneReason, Mid, Ssrc, TrackId};

use super::*;

const PEERS_MAX: usize = 100;
const ROOM_SHARE: usize = 64;

fn placement(shards: usize) -> Placement {
    Placement::new(shards, Limits { peers: PEERS_MAX, room_peers: PEERS_MAX, room_share: ROOM_SHARE })
}

fn joined() -> Joined {
    let mid = |text| Mid::new(text).unwrap();
    Joined {
        local_ice: sfu_core::IceCredentials { ufrag: String::new(), pwd: String::new() },
        tracks: vec![sfu_core::TrackInfo { mid: mid("0"), kind: sfu_core::TrackKind::Mic, track: TrackId(7) }],
        slots: vec![sfu_core::SlotInfo { mid: mid("1"), kind: sfu_core::TrackKind::Mic, index: 0, ssrc: Ssrc(9) }],
    }
}

#[test]
fn a_room_stays_on_its_shard_and_new_rooms_go_to_the_emptiest() {
    let mut placement = placement(2);
    let first = placement.place("a", "a1", "", &[]).unwrap();
    let second = placement.place("b", "b1", "", &[]).unwrap();
    assert_ne!(first.shard, second.shard);
    for peer in ["a2", "a3"] {
        let placed = placement.place("a", peer, "", &[]).unwrap();
        assert_eq!((placed.shard, placed.room), (first.shard, first.room));
    }
    assert_eq!(placement.place("c", "c1", "", &[]).unwrap().shard, second.shard);
    assert_eq!((placement.peer_count(), placement.room_count()), (5, 3));
}

#[test]
fn a_peer_name_is_taken_until_its_peer_is_gone_and_its_number_for_ever() {
    let mut placement = placement(1);
    let first = placement.place("a", "p", "", &[]).unwrap();
    assert_eq!(placement.place("b", "p", "", &[]), Err(PlaceError::PeerExists));
    assert_eq!(placement.find("p"), Some(first));
    assert_eq!(placement.remove(first.peer).as_deref(), Some("p"));
    assert_eq!(placement.find("p"), None);
    let again = placement.place("a", "p", "", &[]).unwrap();
    assert!(again.peer != first.peer && again.room != first.room);
}

#[test]
fn a_refused_name_leaves_no_room_behind() {
    let mut placement = Placement::new(1, Limits { peers: 1, room_peers: 1, room_share: ROOM_SHARE });
    placement.place("a", "p", "", &[]).unwrap();
    assert_eq!(placement.place("b", "q", "", &[]), Err(PlaceError::NodeFull));
    assert_eq!(placement.place("b", "p", "", &[]), Err(PlaceError::PeerExists));
    assert_eq!(placement.room_count(), 1);
}

#[test]
fn a_room_ends_with_its_last_peer_and_frees_its_shard() {
    let mut placement = placement(2);
    let a = placement.place("a", "a1", "", &[]).unwrap();
    placement.place("b", "b1", "", &[]).unwrap();
    placement.remove(a.peer);
    assert_eq!(placement.room_count(), 1);
    assert_eq!(placement.place("c", "c1", "", &[]).unwrap().shard, a.shard);
    assert_eq!(placement.remove(a.peer), None);
}

#[test]
fn a_snapshot_says_what_was_given_and_what_has_happened() {
    let mut placement = placement(1);
    let place = placement.place("room", "p", "meta", &[]).unwrap();
    placement.joined(place.peer, &joined());
    let peer = place.peer;
    placement.observe(Event::Connected { peer, srtp_profile: "AEAD_AES_128_GCM", dtls_version: "DTLS 1.2" }).unwrap();
    placement.observe(Event::TrackLive { peer, track: TrackId(7), kind: sfu_core::TrackKind::Mic }).unwrap();
    placement.observe(Event::Idle { peer }).unwrap();
    placement.set_muted(peer, TrackKind::Mic, true);
    placement.set_meta(peer, "new".to_owned());
    let snapshot = placement.snapshot();
    assert_eq!(
        snapshot,
        [PeerState {
            room: "room".to_owned(),
            peer: "p".to_owned(),
            meta: "new".to_owned(),
            connected: true,
            idle: true,
            tracks: vec![TrackState { mid: "0".to_owned(), kind: TrackKind::Mic, track: 7, live: true, muted: true }],
            slots: vec![SlotInfo { mid: "1".to_owned(), kind: TrackKind::Mic, index: 0, ssrc: 9 }],
        }]
    );
    assert!(placement.is_muted(peer, TrackKind::Mic) && !placement.is_muted(peer, TrackKind::Program));
    placement.observe(Event::Active { peer }).unwrap();
    assert!(!placement.snapshot()[0].idle);
}

#[test]
fn events_come_out_by_name() {
    let mut placement = placement(1);
    let (p, q) = (placement.place("r", "p", "", &[]).unwrap(), placement.place("r", "q", "", &[]).unwrap());
    let assigned = |peer| sfu_core::SlotAssignment {
        kind: sfu_core::TrackKind::Mic,
        index: 0,
        peer,
        track: TrackId(1),
        spare: false,
    };
    let slots = placement.observe(Event::Slots { room: p.room, slots: vec![assigned(q.peer), assigned(PeerId(99))] });
    let Some(NodeEvent::Slots { room, slots }) = slots else { panic!("no slots") };
    assert_eq!((room.as_str(), slots.len(), slots[0].peer.as_str()), ("r", 1, "q"));
    let speakers = placement.observe(Event::Speakers { room: p.room, peers: vec![q.peer, p.peer] });
    let names = vec!["q".to_owned(), "p".to_owned()];
    assert_eq!(speakers, Some(NodeEvent::Speakers { room: "r".to_owned(), peers: names }));
    let gone = placement.observe(Event::Gone { peer: p.peer, reason: GoneReason::ConsentExpired });
    assert_eq!(gone, Some(NodeEvent::Gone { peer: "p".to_owned(), reason: "consent_expired".to_owned() }));
}

#[test]
fn events_of_nobody_who_is_known_are_kept_back() {
    let mut placement = placement(1);
    let p = placement.place("r", "p", "", &[]).unwrap();
    let gone = Event::Gone { peer: p.peer, reason: GoneReason::Left };
    assert!(placement.observe(gone.clone()).is_some());
    assert_eq!(placement.observe(gone), None);
    assert_eq!(placement.observe(Event::Idle { peer: p.peer }), None);
    assert_eq!(placement.observe(Event::Speakers { room: p.room, peers: vec![] }), None);
}

#[test]
fn peers_of_a_shard_are_found() {
    let mut placement = placement(2);
    let a = placement.place("a", "a1", "", &[]).unwrap();
    let b = placement.place("b", "b1", "", &[]).unwrap();
    assert_eq!(placement.on_shard(a.shard), [a.peer]);
    assert_eq!(placement.on_shard(b.shard), [b.peer]);
}

fn fill(placement: &mut Placement, room: &str, peers: usize) -> Vec<Place> {
    let from = placement.peer_count();
    (from..from + peers).map(|n| placement.place(room, &format!("{room}{n}"), "", &[]).unwrap()).collect()
}

fn on(placement: &Placement, room: RoomId) -> Vec<usize> {
    placement.rooms[&room].peers.clone()
}

fn named(commands: &[(usize, Command)]) -> Vec<(usize, usize, Vec<usize>)> {
    let read = |(shard, command): &(usize, Command)| {
        let Command::Spread { home, shards, .. } = command else { panic!("{command:?}") };
        (*shard, home.index(), shards.iter().map(ShardId::index).collect())
    };
    commands.iter().map(read).collect()
}

fn large(shards: usize) -> Placement {
    Placement::new(shards, Limits { peers: 10_000, room_peers: 3_000, room_share: ROOM_SHARE })
}

#[test]
fn small_rooms_stay_on_one_shard_each_and_fill_all_shards_alike() {
    let mut placement = large(4);
    let places: Vec<_> = (0..500).map(|n| fill(&mut placement, &format!("r{n}."), 4)).collect();
    assert!(places.iter().all(|room| room.iter().all(|place| place.shard == room[0].shard)));
    assert_eq!(placement.loads, [500; 4]);
    assert!(places.iter().flatten().all(|place| placement.spread_by(*place).is_empty()));
}

#[test]
fn a_room_of_two_thousand_uses_all_shards_alike() {
    let mut placement = large(4);
    let places = fill(&mut placement, "big", 2_000);
    assert!(places[..ROOM_SHARE].iter().all(|place| place.shard == places[0].shard), "as long as it is small");
    assert_eq!(on(&placement, places[0].room), [500; 4]);
}

#[test]
fn a_room_grows_around_shards_that_have_more_to_do() {
    let mut placement = large(2);
    let big = fill(&mut placement, "big", ROOM_SHARE);
    let other = fill(&mut placement, "other", ROOM_SHARE);
    assert_ne!(big[0].shard, other[0].shard);
    let mut more = fill(&mut placement, "big", 2).into_iter().map(|place| place.shard).collect::<Vec<_>>();
    more.sort_unstable();
    assert_eq!(more, [0, 1], "to the emptier one in turns");
}

#[test]
fn a_loaded_shard_gets_no_peer_that_another_could_take() {
    let mut placement = large(2);
    let first = placement.place("a", "a1", "", &[0.0, 0.0]).unwrap();
    assert_eq!(first.shard, 0);
    assert_eq!(placement.place("a", "a2", "", &[0.9, 0.9]).unwrap().shard, 0, "no better place");
    assert_eq!(placement.place("a", "a3", "", &[0.9, 0.1]).unwrap().shard, 1);
    assert_eq!(placement.place("b", "b1", "", &[0.1, 0.9]).unwrap().shard, 0);
}

#[test]
fn a_room_is_full_over_all_its_shards_together() {
    let mut placement = Placement::new(2, Limits { peers: 500, room_peers: 100, room_share: ROOM_SHARE });
    fill(&mut placement, "a", 100);
    assert_eq!(placement.place("a", "one more", "", &[]), Err(PlaceError::RoomFull));
    assert!(placement.place("b", "one more", "", &[]).is_ok());
}

#[test]
fn shards_are_told_of_each_other_when_a_room_spills_and_each_joiner_s_again() {
    let mut placement = large(2);
    let first = *fill(&mut placement, "r", ROOM_SHARE).last().unwrap();
    assert!(placement.spread_by(first).is_empty());
    let spilt = fill(&mut placement, "r", 1)[0];
    assert_eq!(named(&placement.spread_by(spilt)), [(0, 0, vec![0, 1]), (1, 0, vec![0, 1])]);
    placement.told(spilt.room);
    let next = fill(&mut placement, "r", 1)[0];
    assert_eq!(named(&placement.spread_by(next)), [(1, 0, vec![0, 1])], "its replica may be a new one");
    assert!(!placement.has_moved());
}

#[test]
fn the_home_moves_when_its_last_peer_leaves_and_the_rest_is_told() {
    let mut placement = large(2);
    let at_home = fill(&mut placement, "r", ROOM_SHARE);
    let away = fill(&mut placement, "r", 1)[0];
    placement.told(away.room);
    for place in &at_home {
        placement.remove(place.peer);
    }
    let moved = placement.moved();
    assert_eq!((moved[0].0, named(&moved[0].1)), (away.room, vec![(1, 1, vec![1])]));
    placement.told(away.room);
    assert!(!placement.has_moved());
    placement.remove(away.peer);
    assert!(!placement.has_moved() && placement.room_count() == 0);
}

#[test]
fn a_telling_that_failed_is_repeated() {
    let mut placement = large(2);
    fill(&mut placement, "r", ROOM_SHARE);
    let away = fill(&mut placement, "r", 1)[0];
    placement.remove(away.peer);
    placement.doubt(away.room);
    assert_eq!(named(&placement.moved()[0].1), [(0, 0, vec![0])]);
    placement.doubt(RoomId(999));
    assert_eq!(placement.moved().len(), 1, "nobody knows that room");
}
