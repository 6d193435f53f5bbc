//! One room on two shards of a whole node: two threads, two ports, real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]
#![expect(clippy::wildcard_enum_match_arm, reason = "tests look for one event among all")]

mod peer;

use peer::{Peer, args, dial, event, node_with};
use sfu::{Args, Node};
use sfu_control::{NodeEvent, Operation, TrackKind};

/// Every second peer of a room is placed on the other shard.
async fn node() -> Node {
    node_with(&Args { shards: Some(2), room_share: Some(1), pin: true, busy_poll_us: Some(50), ..args() }).await
}

async fn holders(events: &mut tokio::sync::mpsc::Receiver<NodeEvent>, count: usize) -> Vec<String> {
    let complete = |event| match event {
        NodeEvent::Slots { slots, .. } if slots.len() == count => Some(slots),
        _ => None,
    };
    let mut names: Vec<_> = event(events, complete).await.into_iter().map(|slot| slot.peer).collect();
    names.sort();
    names
}

#[tokio::test]
async fn participants_on_two_shards_hear_each_other_and_one_list_says_who_is_where() {
    let node = node().await;
    let (control, mut events) = dial(&node).await;
    let mut ada = Peer::join(&control, "room", "ada", 1).await;
    let mut ben = Peer::join(&control, "room", "ben", 2).await;
    assert_ne!(ada.joined.shard, ben.joined.shard);
    assert_ne!(ada.joined.candidates[0].port, ben.joined.candidates[0].port);
    let (from_ben, from_ada) = tokio::join!(ada.hears("ben"), ben.hears("ada"));
    assert_eq!(from_ben.source, ben.joined.tracks[0].track);
    assert_eq!(from_ada.source, ada.joined.tracks[0].track);
    assert!(ada.so_far().iter().all(|heard| heard.payload == b"ben"), "and nobody itself");
    assert_eq!(holders(&mut events, 2).await, ["ada", "ben"]);
    node.end().await;
}

#[tokio::test]
async fn a_room_goes_on_when_the_shard_that_decided_has_no_peer_left() {
    let node = node().await;
    let (control, mut events) = dial(&node).await;
    let mut ada = Peer::join(&control, "room", "ada", 1).await;
    let mut ben = Peer::join(&control, "room", "ben", 2).await;
    tokio::join!(ada.hears("ben"), ben.hears("ada"));
    assert_eq!(holders(&mut events, 2).await, ["ada", "ben"]);
    control.call(Operation::Leave { peer: "ada".to_owned() }).await.unwrap();
    assert_eq!(holders(&mut events, 1).await, ["ben"]);
    let mut cleo = Peer::join(&control, "room", "cleo", 3).await;
    assert_eq!(cleo.joined.shard, ada.joined.shard);
    tokio::join!(cleo.hears("ben"), ben.hears("cleo"));
    node.end().await;
}

#[tokio::test]
async fn mute_silences_a_track_on_the_other_shard() {
    let node = node().await;
    let (control, _events) = dial(&node).await;
    let mut ada = Peer::join(&control, "room", "ada", 1).await;
    let mut ben = Peer::join(&control, "room", "ben", 2).await;
    tokio::join!(ada.hears("ben"), ben.hears("ada"));
    let mute = |muted| Operation::Mute { peer: "ada".to_owned(), kind: TrackKind::Mic, muted };
    control.call(mute(true)).await.unwrap();
    ben.clear();
    // Several packets of the other way are the clock of this test.
    for _ in 0..5 {
        ada.hears("ben").await;
    }
    ben.clear();
    for _ in 0..5 {
        ada.hears("ben").await;
    }
    assert!(ben.so_far().is_empty());
    control.call(mute(false)).await.unwrap();
    ben.hears("ada").await;
    node.end().await;
}
