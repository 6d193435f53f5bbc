//! Two WebRTC stacks by others as participants: what they and our own client hear of each other through the node, with
//! both DTLS roles and each SRTP profile. They share no code with the node above the cipher library, except that str0m
//! and the node both shake hands with dimpl; rtc has its own DTLS.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

#[path = "../sim/mod.rs"]
mod sim;

mod rtc_peer;
mod str0m_peer;

use std::{net::SocketAddr, time::Duration};

use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_peer::RtcPeer;
use sfu_core::{DtlsRole, Event, PeerId, TrackKind};
use sim::{Client, World};
use str0m::config::DtlsVersion;
use str0m_peer::Str0mPeer;

const MS: Duration = Duration::from_millis(1);

/// Where the node is, for those who want to know.
fn node() -> SocketAddr {
    ([203, 0, 113, 9], 40_000).into()
}

/// One RTP packet as a foreign stack reports it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Heard {
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    csrcs: Vec<u32>,
    payload: Vec<u8>,
}

fn connected(world: &mut World, peer: u64) -> (&'static str, &'static str) {
    let events = world.take_events();
    let found = events.iter().find_map(|event| match event {
        Event::Connected { peer: id, srtp_profile, dtls_version } if *id == PeerId(peer) => {
            Some((*srtp_profile, *dtls_version))
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("peer {peer} did not connect: {events:?}"))
}

/// What a listener must have got of `count` packets of one track in one slot.
fn assert_heard(heard: &[Heard], count: usize, ssrc: u32, track: u32, payload: &[u8]) {
    let of_slot: Vec<_> = heard.iter().filter(|packet| packet.ssrc == ssrc).collect();
    assert_eq!(of_slot.len(), count, "{heard:?}");
    for pair in of_slot.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
    }
    for packet in of_slot {
        assert_eq!((packet.payload_type, &packet.csrcs[..], &packet.payload[..]), (111, &[track][..], payload));
    }
}

#[test]
fn str0m_speaks_and_hears_in_both_dtls_roles_and_versions() {
    for (version, named) in [(DtlsVersion::Dtls12, "DTLS 1.2"), (DtlsVersion::Dtls13, "DTLS 1.3")] {
        for role in [DtlsRole::Server, DtlsRole::Client] {
            let mut world = World::new();
            let mut ours = Client::connected(&mut world, 1, |_| {});
            let mut theirs = Str0mPeer::join(&mut world, 2, role, version);
            world.run(3_000 * MS, &mut [&mut ours, &mut theirs]);
            assert_eq!(connected(&mut world, 2), ("AEAD_AES_256_GCM", named), "{role:?}");
            for _ in 0..20 {
                ours.speak(b"from ours");
                theirs.speak(world.now, b"from str0m");
                world.run(20 * MS, &mut [&mut ours, &mut theirs]);
            }
            world.run(100 * MS, &mut [&mut ours, &mut theirs]);
            let slot = theirs.slot(0);
            assert_heard(&theirs.heard, 20, slot, ours.track(TrackKind::Mic), b"from ours");
            assert_eq!(ours.heard(), vec![b"from str0m"; 20]);
            assert_eq!((&ours.received[0].csrcs[..], ours.received[0].level), (&[theirs.track][..], Some(30)));
            assert!(ours.received.windows(2).all(|pair| pair[1].index == pair[0].index + 1));
        }
    }
}

#[test]
fn a_client_that_names_aes_cm_first_gets_aes_gcm() {
    use SrtpProtectionProfile::{Srtp_Aead_Aes_128_Gcm, Srtp_Aes128_Cm_Hmac_Sha1_80};
    let mut world = World::new();
    let mut theirs =
        RtcPeer::join(&mut world, 2, DtlsRole::Server, &[Srtp_Aes128_Cm_Hmac_Sha1_80, Srtp_Aead_Aes_128_Gcm]);
    world.run(3_000 * MS, &mut [&mut theirs]);
    assert_eq!(connected(&mut world, 2).0, "AEAD_AES_128_GCM");
}

#[test]
fn rtc_speaks_and_hears_with_each_srtp_profile_and_in_both_dtls_roles() {
    let profiles = [
        (SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, "AEAD_AES_128_GCM"),
        (SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm, "AEAD_AES_256_GCM"),
        (SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80, "AES128_CM_HMAC_SHA1_80"),
    ];
    for (profile, named) in profiles {
        for role in [DtlsRole::Server, DtlsRole::Client] {
            let mut world = World::new();
            let mut ours = Client::connected(&mut world, 1, |_| {});
            let mut theirs = RtcPeer::join(&mut world, 2, role, &[profile]);
            world.run(3_000 * MS, &mut [&mut ours, &mut theirs]);
            assert_eq!(connected(&mut world, 2), (named, "DTLS 1.2"), "{role:?}");
            for _ in 0..20 {
                ours.speak(b"from ours");
                theirs.speak(world.now, b"from rtc");
                world.run(20 * MS, &mut [&mut ours, &mut theirs]);
            }
            world.run(100 * MS, &mut [&mut ours, &mut theirs]);
            let slot = theirs.slot(0);
            assert_heard(&theirs.heard, 20, slot, ours.track(TrackKind::Mic), b"from ours");
            assert_eq!(ours.heard(), vec![b"from rtc"; 20]);
            assert_eq!(ours.received[0].csrcs, [theirs.track]);
        }
    }
}

#[test]
fn str0m_and_rtc_hear_each_other_and_not_themselves() {
    let mut world = World::new();
    let mut a = Str0mPeer::join(&mut world, 1, DtlsRole::Server, DtlsVersion::Auto);
    let mut b = RtcPeer::join(&mut world, 2, DtlsRole::Server, &[SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm]);
    world.run(3_000 * MS, &mut [&mut a, &mut b]);
    for _ in 0..20 {
        a.speak(world.now, b"from str0m");
        b.speak(world.now, b"from rtc");
        world.run(20 * MS, &mut [&mut a, &mut b]);
    }
    world.run(100 * MS, &mut [&mut a, &mut b]);
    // Who spoke first has the first place; pacers decide that.
    let (of_b, of_a) = (a.heard[0].ssrc, b.heard[0].ssrc);
    assert!(of_a != of_b && [a.slot(0), a.slot(1)].contains(&of_a) && [b.slot(0), b.slot(1)].contains(&of_b));
    assert_heard(&a.heard, 20, of_b, b.track, b"from rtc");
    assert_heard(&b.heard, 20, of_a, a.track, b"from str0m");
    assert_eq!((a.heard.len(), b.heard.len()), (20, 20));
}
