//! Calls through a whole node: control link, shard threads, real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]
#![expect(clippy::wildcard_enum_match_arm, reason = "tests look for one event among all")]

mod peer;

use peer::{PATIENCE, Peer, args, dial, event, node_with};
use sfu_control::{NodeEvent, Operation, PeerState, ReplyBody, TrackKind};

async fn snapshot(control: &sfu_control::ControlClient) -> Vec<PeerState> {
    match control.call(Operation::Snapshot {}).await.unwrap() {
        ReplyBody::Snapshot { mut peers } => {
            peers.sort_by(|a, b| a.peer.cmp(&b.peer));
            peers
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_participants_hear_each_other_and_never_themselves() {
    let node = node_with(&args()).await;
    let (control, mut events) = dial(&node).await;
    let mut ada = Peer::join(&control, "room", "ada", 1111).await;
    let mut ben = Peer::join(&control, "room", "ben", 2222).await;
    let from_ben = ada.hears("ben").await;
    let from_ada = ben.hears("ada").await;
    assert_eq!(from_ben.source, ben.joined.tracks[0].track);
    assert_eq!(from_ada.source, ada.joined.tracks[0].track);
    assert!(ada.joined.slots.iter().any(|slot| slot.ssrc == from_ben.ssrc));
    for _ in 0..10 {
        ada.hears("ben").await;
    }
    assert!(ada.so_far().iter().all(|heard| heard.payload == b"ben"));
    let profile = event(&mut events, |event| match event {
        NodeEvent::Connected { srtp_profile, .. } => Some(srtp_profile),
        _ => None,
    });
    assert!(profile.await.contains("AES"));
    node.end().await;
}

#[tokio::test]
async fn rooms_do_not_hear_each_other_whatever_shard_they_are_on() {
    let node = node_with(&sfu::Args { shards: Some(2), ..args() }).await;
    let (control, _events) = dial(&node).await;
    let mut ada = Peer::join(&control, "one", "ada", 1).await;
    let mut ben = Peer::join(&control, "one", "ben", 2).await;
    let mut eva = Peer::join(&control, "two", "eva", 3).await;
    let mut kim = Peer::join(&control, "two", "kim", 4).await;
    assert_eq!(ada.joined.shard, ben.joined.shard);
    assert_ne!(ada.joined.shard, eva.joined.shard);
    assert_ne!(ada.joined.candidates[0].port, eva.joined.candidates[0].port);
    tokio::join!(ada.hears("ben"), ben.hears("ada"), eva.hears("kim"), kim.hears("eva"));
    for _ in 0..5 {
        ada.hears("ben").await;
    }
    assert!(ada.so_far().iter().all(|heard| heard.payload == b"ben"));
    node.end().await;
}

#[tokio::test]
async fn one_port_serves_ipv4_and_ipv6() {
    let node = node_with(&sfu::Args { listen: None, ..args() }).await;
    let addresses: Vec<_> = node.media().iter().map(|media| media.address.to_string()).collect();
    if addresses != ["127.0.0.1", "::1"] || std::net::UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let (control, _events) = dial(&node).await;
    let mut four = Peer::join_from(&control, "room", ("four", 4), "127.0.0.1:0").await;
    let mut six = Peer::join_from(&control, "room", ("six", 6), "[::1]:0").await;
    tokio::join!(four.hears("six"), six.hears("four"));
    node.end().await;
}

#[tokio::test]
async fn media_flows_on_while_no_signalling_is_there_and_the_next_one_finds_everything() {
    let node = node_with(&args()).await;
    let (control, events) = dial(&node).await;
    let mut ada = Peer::join(&control, "room", "ada", 1).await;
    let mut ben = Peer::join(&control, "room", "ben", 2).await;
    tokio::join!(ada.hears("ben"), ben.hears("ada"));
    control.call(Operation::Mute { peer: "ben".to_owned(), kind: TrackKind::Mic, muted: true }).await.unwrap();
    control.call(Operation::SetMeta { peer: "ben".to_owned(), meta: "new".to_owned() }).await.unwrap();
    drop((control, events));
    ben.clear();
    for _ in 0..10 {
        ben.hears("ada").await;
    }
    let (control, _events) = dial(&node).await;
    let peers = snapshot(&control).await;
    let [a, b] = peers.as_slice() else { panic!("{peers:?}") };
    assert_eq!((a.room.as_str(), a.peer.as_str(), a.meta.as_str()), ("room", "ada", "meta of ada"));
    assert!(a.connected && !a.idle && a.tracks[0].live && !a.tracks[0].muted);
    assert_eq!((b.meta.as_str(), b.tracks[0].muted), ("new", true));
    assert_eq!((b.tracks[0].track, &b.slots), (ben.joined.tracks[0].track, &ben.joined.slots));
    control.call(Operation::Mute { peer: "ben".to_owned(), kind: TrackKind::Mic, muted: false }).await.unwrap();
    ada.clear();
    ada.hears("ben").await;
    node.end().await;
}

#[tokio::test]
async fn a_participant_that_leaves_is_gone_for_every_link() {
    let node = node_with(&args()).await;
    let (control, mut events) = dial(&node).await;
    let (_other, mut other_events) = dial(&node).await;
    let ada = Peer::join(&control, "room", "ada", 1).await;
    let mut ben = Peer::join(&control, "room", "ben", 2).await;
    ben.hears("ada").await;
    control.call(Operation::Leave { peer: "ada".to_owned() }).await.unwrap();
    let gone = |event| match event {
        NodeEvent::Gone { peer, reason } => Some((peer, reason)),
        _ => None,
    };
    let expected = ("ada".to_owned(), "left".to_owned());
    assert_eq!(event(&mut events, gone).await, expected);
    assert_eq!(event(&mut other_events, gone).await, expected);
    let names: Vec<_> = snapshot(&control).await.into_iter().map(|state| state.peer).collect();
    assert_eq!(names, ["ben"]);
    drop(ada);
    node.end().await;
}

#[tokio::test]
async fn a_participant_that_vanishes_is_reported_idle() {
    let node = node_with(&args()).await;
    let (control, mut events) = dial(&node).await;
    let ada = Peer::join(&control, "room", "ada", 1).await;
    let mut ben = Peer::join(&control, "room", "ben", 2).await;
    ben.hears("ada").await;
    ada.vanish();
    let idle = event(&mut events, |event| match event {
        NodeEvent::Idle { peer } => Some(peer),
        _ => None,
    });
    assert_eq!(idle.await, "ada");
    let states = snapshot(&control).await;
    assert!(states[0].idle && !states[1].idle);
    node.end().await;
}

#[tokio::test]
async fn a_draining_node_refuses_joins_and_keeps_its_calls() {
    let node = node_with(&args()).await;
    let (control, mut events) = dial(&node).await;
    let mut ada = Peer::join(&control, "room", "ada", 1).await;
    let mut ben = Peer::join(&control, "room", "ben", 2).await;
    tokio::join!(ada.hears("ben"), ben.hears("ada"));
    control.call(Operation::Drain { on: true }).await.unwrap();
    let drains = |event| match event {
        NodeEvent::Draining { on } => Some(on),
        _ => None,
    };
    assert!(event(&mut events, drains).await);
    let mut rtc = peer::rtc();
    let join = peer::join_of(&mut rtc, "room", "eva", 3);
    let refused = control.call(Operation::Join(join.clone())).await.unwrap_err();
    assert!(matches!(refused, sfu_control::CallError::Refused(error) if error.code == "draining"));
    ada.clear();
    ada.hears("ben").await;
    control.call(Operation::Drain { on: false }).await.unwrap();
    assert!(!event(&mut events, drains).await);
    control.call(Operation::Join(join)).await.unwrap();
    node.end().await;
}

#[tokio::test]
async fn the_end_of_a_node_sends_everyone_away_and_tells_signalling() {
    let node = node_with(&args()).await;
    let (control, mut events) = dial(&node).await;
    let mut ada = Peer::join(&control, "room", "ada", 1).await;
    let mut ben = Peer::join(&control, "room", "ben", 2).await;
    tokio::join!(ada.hears("ben"), ben.hears("ada"));
    tokio::time::timeout(PATIENCE, node.end()).await.expect("in time");
    let mut gone = Vec::new();
    while let Some(event) = tokio::time::timeout(PATIENCE, events.recv()).await.expect("link is closed") {
        if let NodeEvent::Gone { peer, .. } = event {
            gone.push(peer);
        }
    }
    gone.sort();
    assert_eq!(gone, ["ada", "ben"]);
    assert_eq!(control.closed().await, sfu_control::CloseReason::ByNode);
}

#[tokio::test]
async fn forged_datagrams_leave_a_call_untouched() {
    let node = node_with(&args()).await;
    let (control, _events) = dial(&node).await;
    let mut ada = Peer::join(&control, "room", "ada", 1).await;
    let mut ben = Peer::join(&control, "room", "ben", 2).await;
    tokio::join!(ada.hears("ben"), ben.hears("ada"));
    let media = ada.joined.candidates[0].clone();
    let flood = tokio::task::spawn_blocking(move || {
        let sockets: Vec<_> = (0..10).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let mut datagram = [0_u8; 180];
        for n in 0..20_000_usize {
            // RTP, RTCP, STUN and DTLS by their first bytes, everything else noise.
            let first = [0x80, 0x90, 0x80, 0x00, 0x01, 22, 23, 0xff][n % 8];
            for (index, byte) in datagram.iter_mut().enumerate() {
                *byte = (n.wrapping_mul(2_654_435_761) >> (index % 24)) as u8;
            }
            datagram[0] = first;
            datagram[1] = if n % 8 == 2 { 200 } else { 111 };
            let _ = sockets[n % sockets.len()].send_to(&datagram, (media.address, media.port));
        }
    });
    flood.await.unwrap();
    ada.clear();
    for _ in 0..5 {
        ada.hears("ben").await;
    }
    assert!(ben.so_far().iter().all(|heard| heard.payload == b"ada"));
    let states = snapshot(&control).await;
    assert!(states.len() == 2 && states.iter().all(|state| state.connected && !state.idle));
    node.end().await;
}
