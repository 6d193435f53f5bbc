//! What strangers and bad peers can send: nothing goes out for it, nothing is kept of it, nothing breaks.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::{net::SocketAddr, time::Duration};

use proptest::prelude::*;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sfu_core::{DropReason, Path};
use sim::{Client, World};

fn stranger(rng: &mut ChaCha20Rng) -> SocketAddr {
    (rng.random::<[u8; 4]>(), rng.random_range(1..u16::MAX)).into()
}

/// Datagrams that look like each of the protocols.
fn forged(rng: &mut ChaCha20Rng, kind: usize, ufrag: &str) -> Vec<u8> {
    let len = rng.random_range(20..200);
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    match kind {
        0 => bytes[..2].copy_from_slice(&[0x90, 111]),
        1 => bytes[..2].copy_from_slice(&[0x80, 200]),
        2 => bytes[..3].copy_from_slice(&[22, 254, 253]),
        _ => {
            let mut buf = [0; 200];
            let id = stun::TransactionId(rng.random());
            let mut writer = stun::Writer::new(&mut buf, stun::Class::Request, stun::Method::BINDING, id).unwrap();
            // A real fragment of a real peer, without its password.
            writer.username(format!("{ufrag}:x").as_bytes()).unwrap();
            writer.use_candidate().unwrap();
            let key = stun::IntegrityKey::short_term(&bytes);
            let len = writer.finish((kind == 3).then_some(&key), true).unwrap();
            bytes = buf[..len].to_vec();
        }
    }
    bytes
}

#[test]
fn a_hundred_thousand_forged_datagrams_get_no_answer_and_leave_nothing() {
    let mut world = World::new();
    let [mut a, mut b] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    world.take_events();
    let ufrag = a.joined.local_ice.ufrag.clone();
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let before = world.node.sizes();
    for n in 0..100_000 {
        let mut datagram = forged(&mut rng, n % 5, &ufrag);
        let from = stranger(&mut rng);
        world.node.handle_datagram(world.now, Path::udp(from), &mut datagram);
    }
    assert_eq!(world.node.transmit_count(), 0);
    assert_eq!(world.node.sizes(), before);
    assert_eq!(world.dropped(DropReason::UnknownAddress), 60_000);
    let refused = world.dropped(DropReason::StunUnauthenticated) + world.dropped(DropReason::StunFlood);
    assert_eq!(refused, 40_000);
    assert_eq!(world.take_events(), []);
    a.speak(b"still");
    b.speak(b"here");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.heard(), b.heard()), (vec![&b"here"[..]], vec![&b"still"[..]]));
}

#[test]
fn forged_media_from_the_peers_own_address_changes_nothing() {
    let mut world = World::new();
    let [mut a, mut b] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    a.speak(b"1");
    world.settle(&mut [&mut a, &mut b]);
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let ssrc = a.streams[0].ssrc.to_be_bytes();
    for n in 0..10_000u16 {
        let mut rtp = forged(&mut rng, 0, "");
        rtp[0] = 0x80;
        rtp[2..4].copy_from_slice(&n.to_be_bytes());
        rtp[8..12].copy_from_slice(if n % 2 == 0 { &ssrc } else { &[1, 2, 3, 4] });
        world.inject(a.address, &rtp);
        let rtcp = forged(&mut rng, 1, "");
        world.inject(a.address, &rtcp);
    }
    assert_eq!(world.node.transmit_count(), 0);
    assert!(world.dropped(DropReason::RtpUnauthenticated) + world.dropped(DropReason::RtpReplayed) >= 9_000);
    assert!(world.dropped(DropReason::RtcpUnauthenticated) >= 9_000);
    a.speak(b"2");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.heard(), [b"1", b"2"], "the replay window has not moved");
}

#[test]
fn cut_and_flipped_packets_of_a_real_peer_are_dropped() {
    let mut world = World::new();
    let [mut a, mut b] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    let ssrc = a.streams[0].ssrc;
    let good = a.packet((111, true), (500, 1, ssrc), Some(3), b"payload");
    for len in 0..good.len() {
        world.inject(a.address, &good[..len]);
    }
    for bit in 0..good.len() * 8 {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        world.inject(a.address, &flipped);
    }
    world.settle(&mut [&mut b]);
    assert_eq!(b.heard(), Vec::<&[u8]>::new());
    a.send_raw(good);
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.heard(), [b"payload"]);
}

#[test]
fn sources_of_one_peer_are_bounded() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    for ssrc in 1..=100 {
        let packet = a.packet((111, false), (1, 0, ssrc), None, b"x");
        a.send_raw(packet);
    }
    world.settle(&mut [&mut a]);
    assert_eq!(world.dropped(DropReason::RtpTooManySources), 100 - 32);
    assert_eq!(world.dropped(DropReason::RtpNoTrack), 32);
}

#[test]
fn output_is_bounded_and_the_rest_is_counted() {
    let limits = sfu_core::Limits { transmits: 10, ..sfu_core::Limits::default() };
    let mut world = World::with_limits(limits);
    let mut clients: Vec<Client> = (1..=6).map(|id| Client::connected(&mut world, id, |_| {})).collect();
    for _ in 0..3 {
        let ssrc = clients[0].streams[0].ssrc;
        let index = clients[0].streams[0].index;
        clients[0].streams[0].index += 1;
        let packet = clients[0].packet((111, false), (index, 0, ssrc), None, b"x");
        world.inject(clients[0].address, &packet);
    }
    assert_eq!(world.node.transmit_count(), 10);
    assert_eq!(world.dropped(DropReason::TransmitsFull), 5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_from_anywhere_are_survived(
        datagrams in proptest::collection::vec((0usize..4, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..120)), 1..100),
    ) {
        let mut world = World::new();
        let mut a = Client::connected(&mut world, 1, |_| {});
        // One that is in the middle of its handshake.
        let b = Client::join(&mut world, 2, |_| {});
        let mut b = b;
        let check = b.check();
        world.inject(b.address, &check);
        for (kind, first, mut bytes) in datagrams {
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
            match kind {
                0 => world.inject(a.address, &bytes),
                1 => world.inject(b.address, &bytes),
                2 => world.inject(([203, 0, 113, 1], 9).into(), &bytes),
                // Authentic nonsense: the peer holds the keys.
                _ if bytes.len() >= 12 => {
                    bytes[0] = 0x80 | bytes[0] & 0x3f;
                    if let Ok(header) = srtp::RtpHeader::parse(&bytes) {
                        let (len, index) = (bytes.len(), u64::from(header.sequence));
                        let sealed = a.seal(bytes, header.header_len, len, index);
                        a.send_raw(sealed);
                    } else {
                        bytes[0] = 0x80;
                        a.send_rtcp(&bytes);
                    }
                }
                _ => {}
            }
            world.now += Duration::from_millis(3);
            world.settle(&mut [&mut a]);
            world.node.handle_timeout(world.now);
        }
        a.speak(b"alive");
        world.run(Duration::from_secs(1), &mut [&mut a]);
        prop_assert!(world.node.peer_count() >= 1);
    }
}

#[test]
fn events_that_nobody_takes_stay_bounded_and_the_ends_of_peers_are_kept() {
    let limits = sfu_core::Limits { events: 4, ..sfu_core::Limits::default() };
    let mut world = World::with_limits(limits);
    let mut clients: Vec<Client> = (1..=6).map(|id| Client::connected(&mut world, id, |_| {})).collect();
    for _ in 0..50 {
        for client in &mut clients {
            let ssrc = client.streams[0].ssrc;
            let index = client.streams[0].index;
            client.streams[0].index += 1;
            let packet = client.packet((111, false), (index, 0, ssrc), Some(10), b"x");
            world.inject(client.address, &packet);
            world.now += Duration::from_millis(40);
        }
        world.node.clear_transmits();
    }
    assert_eq!(world.node.sizes().events, 4);
    assert!(world.dropped(DropReason::EventsFull) > 0);
    for client in &clients {
        world.command(sfu_core::Command::Leave { peer: client.id });
    }
    let gone = world.take_events().iter().filter(|event| matches!(event, sfu_core::Event::Gone { .. })).count();
    assert_eq!((gone, world.node.sizes().events), (6, 0));
}
