use sfu_core::{GoneReason, Mid, Ssrc, TrackId};

use super::*;

const PEERS_MAX: usize = 100;

fn placement(shards: usize) -> Placement {
    Placement::new(shards, PEERS_MAX)
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
    let first = placement.place("a", "a1", "").unwrap();
    let second = placement.place("b", "b1", "").unwrap();
    assert_ne!(first.shard, second.shard);
    for peer in ["a2", "a3"] {
        let placed = placement.place("a", peer, "").unwrap();
        assert_eq!((placed.shard, placed.room), (first.shard, first.room));
    }
    assert_eq!(placement.place("c", "c1", "").unwrap().shard, second.shard);
    assert_eq!((placement.peer_count(), placement.room_count()), (5, 3));
}

#[test]
fn a_peer_name_is_taken_until_its_peer_is_gone_and_its_number_for_ever() {
    let mut placement = placement(1);
    let first = placement.place("a", "p", "").unwrap();
    assert_eq!(placement.place("b", "p", ""), Err(PlaceError::PeerExists));
    assert_eq!(placement.find("p"), Some(first));
    assert_eq!(placement.remove(first.peer).as_deref(), Some("p"));
    assert_eq!(placement.find("p"), None);
    let again = placement.place("a", "p", "").unwrap();
    assert!(again.peer != first.peer && again.room != first.room);
}

#[test]
fn a_refused_name_leaves_no_room_behind() {
    let mut placement = Placement::new(1, 1);
    placement.place("a", "p", "").unwrap();
    assert_eq!(placement.place("b", "q", ""), Err(PlaceError::NodeFull));
    assert_eq!(placement.place("b", "p", ""), Err(PlaceError::PeerExists));
    assert_eq!(placement.room_count(), 1);
}

#[test]
fn a_room_ends_with_its_last_peer_and_frees_its_shard() {
    let mut placement = placement(2);
    let a = placement.place("a", "a1", "").unwrap();
    placement.place("b", "b1", "").unwrap();
    placement.remove(a.peer);
    assert_eq!(placement.room_count(), 1);
    assert_eq!(placement.place("c", "c1", "").unwrap().shard, a.shard);
    assert_eq!(placement.remove(a.peer), None);
}

#[test]
fn a_snapshot_says_what_was_given_and_what_has_happened() {
    let mut placement = placement(1);
    let place = placement.place("room", "p", "meta").unwrap();
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
    let (p, q) = (placement.place("r", "p", "").unwrap(), placement.place("r", "q", "").unwrap());
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
    let p = placement.place("r", "p", "").unwrap();
    let gone = Event::Gone { peer: p.peer, reason: GoneReason::Left };
    assert!(placement.observe(gone.clone()).is_some());
    assert_eq!(placement.observe(gone), None);
    assert_eq!(placement.observe(Event::Idle { peer: p.peer }), None);
    assert_eq!(placement.observe(Event::Speakers { room: p.room, peers: vec![] }), None);
}

#[test]
fn peers_of_a_shard_are_found() {
    let mut placement = placement(2);
    let a = placement.place("a", "a1", "").unwrap();
    let b = placement.place("b", "b1", "").unwrap();
    assert_eq!(placement.on_shard(a.shard), [a.peer]);
    assert_eq!(placement.on_shard(b.shard), [b.peer]);
}
