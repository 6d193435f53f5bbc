//! Sealing and opening as two ends of a call do it, and what attackers can try against it.

use proptest::collection::vec;
use proptest::prelude::*;
use srtp::{Half, Keys, OVERHEAD_BYTES_MAX, OpenError, Opened, Opener, Profile, RtpHeader, SealError, Sealer};

const SSRC: u32 = 0xCAFE_BABE;

/// Both ends of one direction.
struct Pair {
    profile: Profile,
    half: Half,
    sealer: Sealer,
    opener: Opener,
}

impl Pair {
    fn new(profile: Profile) -> Self {
        let material: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
        let half = Keys::from_keying_material(profile, &material).expect("right length").client;
        let sealer = Sealer::new(profile, &half).expect("right keys");
        let opener = Opener::new(profile, &half, 4).expect("right keys");
        Self { profile, half, sealer, opener }
    }

    fn all() -> impl Iterator<Item = Self> {
        Profile::ALL.into_iter().map(Self::new)
    }

    fn seal(&mut self, ssrc: u32, index: u64) -> Vec<u8> {
        let mut packet = rtp(ssrc, index);
        let len = packet.len();
        packet.resize(len + OVERHEAD_BYTES_MAX, 0);
        let sealed = self.sealer.seal_rtp(&mut packet, 12, len, index).expect("sealed");
        packet.truncate(sealed);
        packet
    }

    fn open(&mut self, sealed: &[u8]) -> Result<u64, OpenError> {
        let mut packet = sealed.to_vec();
        let header = RtpHeader::parse(&packet).expect("an RTP packet");
        let Opened { len, index } = self.opener.open_rtp(&mut packet, &header)?;
        assert_eq!(packet[..len], rtp(header.ssrc, index), "{:?}", self.profile);
        Ok(index)
    }

    fn exchange(&mut self, index: u64) -> Result<u64, OpenError> {
        let sealed = self.seal(SSRC, index);
        self.open(&sealed)
    }

    fn seal_rtcp(&mut self, ssrc: u32) -> Vec<u8> {
        let mut packet = rtcp(ssrc);
        let len = packet.len();
        packet.resize(len + OVERHEAD_BYTES_MAX, 0);
        let sealed = self.sealer.seal_rtcp(&mut packet, len).expect("sealed");
        packet.truncate(sealed);
        packet
    }

    fn open_rtcp(&mut self, sealed: &[u8]) -> Result<(), OpenError> {
        let mut packet = sealed.to_vec();
        let len = self.opener.open_rtcp(&mut packet)?;
        let ssrc = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        assert_eq!(packet[..len], rtcp(ssrc), "{:?}", self.profile);
        Ok(())
    }
}

fn rtp(ssrc: u32, index: u64) -> Vec<u8> {
    let sequence = index as u16;
    [&[0x80, 0x6F][..], &sequence.to_be_bytes(), &[0; 4], &ssrc.to_be_bytes(), b"twenty bytes of opus"].concat()
}

/// A receiver report with one block.
fn rtcp(ssrc: u32) -> Vec<u8> {
    [&[0x81, 0xC9, 0, 7][..], &ssrc.to_be_bytes(), &[0x5A; 24]].concat()
}

fn flip(packet: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = packet.to_vec();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

proptest! {
    #[test]
    fn any_packet_round_trips(
        profile in prop_oneof![
            Just(Profile::AeadAes128Gcm), Just(Profile::AeadAes256Gcm), Just(Profile::Aes128CmHmacSha1_80)
        ],
        key in vec(any::<u8>(), 46),
        csrcs in vec(any::<u32>(), 0..=15),
        extension in proptest::option::of(vec(any::<u32>(), 0..10)),
        payload in vec(any::<u8>(), 0..1_400),
        (ssrc, timestamp) in any::<(u32, u32)>(),
        index in 0..1_u64 << 16,
    ) {
        let half = Half::new(profile, &key[..profile.key_len()], &key[32..32 + profile.salt_len()]).unwrap();
        let mut packet = vec![0x80 | csrcs.len() as u8 | u8::from(extension.is_some()) << 4, 0x6F];
        packet.extend((index as u16).to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        packet.extend(csrcs.iter().flat_map(|csrc| csrc.to_be_bytes()));
        if let Some(words) = extension {
            packet.extend([0xBE, 0xDE, 0, words.len() as u8]);
            packet.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        }
        let header_len = packet.len();
        packet.extend(&payload);
        let plain = packet.clone();
        packet.resize(plain.len() + profile.tag_len(), 0);
        let sealed = Sealer::new(profile, &half).unwrap().seal_rtp(&mut packet, header_len, plain.len(), index);
        prop_assert_eq!(sealed, Ok(packet.len()));
        prop_assert_eq!(&packet[..header_len], &plain[..header_len]);
        let header = RtpHeader::parse(&packet).unwrap();
        prop_assert_eq!(header.header_len, header_len);
        let opened = Opener::new(profile, &half, 1).unwrap().open_rtp(&mut packet, &header);
        prop_assert_eq!(opened, Ok(Opened { len: plain.len(), index }));
        prop_assert_eq!(&packet[..plain.len()], &plain[..]);
    }

    #[test]
    fn any_compound_rtcp_packet_round_trips(body in vec(any::<u8>(), 8..1_400), key in vec(any::<u8>(), 46)) {
        for profile in Profile::ALL {
            let half = Half::new(profile, &key[..profile.key_len()], &key[32..32 + profile.salt_len()]).unwrap();
            let mut packet = body.clone();
            packet.resize(body.len() + OVERHEAD_BYTES_MAX, 0);
            let len = Sealer::new(profile, &half).unwrap().seal_rtcp(&mut packet, body.len()).unwrap();
            prop_assert_eq!(len, body.len() + 4 + profile.tag_len());
            let opened = Opener::new(profile, &half, 1).unwrap().open_rtcp(&mut packet[..len]);
            prop_assert_eq!(opened, Ok(body.len()));
            prop_assert_eq!(&packet[..body.len()], &body[..]);
        }
    }

    #[test]
    fn any_bytes_are_refused(mut bytes in vec(any::<u8>(), 0..200)) {
        for mut pair in Pair::all() {
            prop_assert!(pair.opener.open_rtcp(&mut bytes.clone()).is_err());
            if let Some(first) = bytes.first_mut() {
                *first = *first & 0x3F | 0x80;
            }
            if let Ok(header) = RtpHeader::parse(&bytes) {
                prop_assert!(pair.opener.open_rtp(&mut bytes.clone(), &header).is_err());
            }
        }
    }

    /// Loss, duplicates and reordering around the wrap of the sequence number: each packet is opened once.
    #[test]
    fn streams_survive_a_bad_network(start in 0xFF00..0x1_0100_u64, steps in vec(-60..120_i64, 1..200)) {
        let mut pair = Pair::new(Profile::AeadAes128Gcm);
        let before = start - 1;
        pair.opener = pair.opener.with_roc(SSRC, (before >> 16) as u32, before as u16);
        let (mut highest, mut seen) = (before, std::collections::HashSet::new());
        for step in steps {
            let index = highest.saturating_add_signed(step);
            let outcome = pair.exchange(index);
            if index < start || seen.contains(&index) || index + 128 <= highest {
                prop_assert!(matches!(outcome, Err(OpenError::Replayed | OpenError::TooOld)), "{outcome:?}");
            } else {
                prop_assert_eq!(outcome, Ok(index));
                seen.insert(index);
                highest = highest.max(index);
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_and_changes_nothing() {
    for mut pair in Pair::all() {
        let (rtp, rtcp) = (pair.seal(SSRC, 7), pair.seal_rtcp(SSRC));
        for bit in 0..rtp.len() * 8 {
            let mut forged = flip(&rtp, bit);
            if let Ok(header) = RtpHeader::parse(&forged) {
                let refused = pair.opener.open_rtp(&mut forged, &header);
                assert!(
                    matches!(refused, Err(OpenError::Unauthentic | OpenError::TooShort)),
                    "bit {bit}: {refused:?}"
                );
            }
        }
        for bit in 0..rtcp.len() * 8 {
            assert_eq!(pair.open_rtcp(&flip(&rtcp, bit)), Err(OpenError::Unauthentic), "bit {bit}");
        }
        // No forged SSRC took a place, no forged index moved a window.
        assert_eq!(pair.open(&rtp), Ok(7));
        assert_eq!(pair.open_rtcp(&rtcp), Ok(()));
    }
}

#[test]
fn truncated_packets_are_refused() {
    for mut pair in Pair::all() {
        let (rtp, rtcp) = (pair.seal(SSRC, 7), pair.seal_rtcp(SSRC));
        for len in 12..rtp.len() {
            assert!(pair.open(&rtp[..len]).is_err(), "{len} bytes");
        }
        for len in 0..rtcp.len() {
            assert!(pair.open_rtcp(&rtcp[..len]).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn rtp_and_rtcp_have_different_keys() {
    for mut pair in Pair::all() {
        let rtcp = pair.seal_rtcp(SSRC);
        let header = RtpHeader::parse(&rtcp).expect("looks like RTP");
        assert!(pair.opener.open_rtp(&mut rtcp.clone(), &header).is_err());
    }
}

#[test]
fn the_other_direction_has_other_keys() {
    for profile in Profile::ALL {
        let material: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
        let keys = Keys::from_keying_material(profile, &material).expect("right length");
        let mut pair = Pair::new(profile);
        pair.opener = Opener::new(profile, &keys.server, 4).expect("right keys");
        assert_eq!(pair.exchange(1), Err(OpenError::Unauthentic));
    }
}

#[test]
fn replayed_packets_are_refused() {
    for mut pair in Pair::all() {
        let packets: Vec<_> = (1..=200).map(|index| pair.seal(SSRC, index)).collect();
        // 100 comes late, 50 too late.
        for (at, packet) in packets.iter().enumerate().filter(|(at, _)| ![49, 99].contains(at)) {
            assert_eq!(pair.open(packet), Ok(at as u64 + 1));
        }
        assert_eq!(pair.open(&packets[99]), Ok(100));
        assert_eq!(pair.open(&packets[49]), Err(OpenError::TooOld));
        for (at, packet) in packets.iter().enumerate() {
            let expected = if at + 1 + 128 <= 200 { OpenError::TooOld } else { OpenError::Replayed };
            assert_eq!(pair.open(packet), Err(expected), "{at}");
        }
        assert_eq!(pair.exchange(201), Ok(201));
    }
}

#[test]
fn replayed_rtcp_is_refused() {
    for mut pair in Pair::all() {
        let (first, second, third) = (pair.seal_rtcp(SSRC), pair.seal_rtcp(SSRC), pair.seal_rtcp(SSRC));
        assert_ne!(first, second, "the index makes them differ");
        assert_eq!(pair.open_rtcp(&second), Ok(()));
        assert_eq!(pair.open_rtcp(&first), Ok(()));
        assert_eq!(pair.open_rtcp(&first), Err(OpenError::Replayed));
        assert_eq!(pair.open_rtcp(&second), Err(OpenError::Replayed));
        assert_eq!(pair.open_rtcp(&third), Ok(()));
        for _ in 0..200 {
            let next = pair.seal_rtcp(SSRC);
            assert_eq!(pair.open_rtcp(&next), Ok(()));
        }
        assert_eq!(pair.open_rtcp(&third), Err(OpenError::TooOld));
    }
}

#[test]
fn the_rollover_counter_follows_reordering_across_the_wrap() {
    for mut pair in Pair::all() {
        for index in [0xFFFD, 0xFFFF, 0x1_0001, 0xFFFE, 0x1_0000, 0x1_0002] {
            assert_eq!(pair.exchange(index), Ok(index));
        }
    }
}

#[test]
fn rollover_counters_go_up_round_after_round() {
    let mut pair = Pair::new(Profile::AeadAes128Gcm);
    for index in (0..10 << 16).step_by(0x7000) {
        assert_eq!(pair.exchange(index), Ok(index));
    }
}

#[test]
fn a_stream_is_taken_over_in_a_later_round() {
    for mut pair in Pair::all() {
        assert_eq!(pair.exchange(5 << 16 | 9), Err(OpenError::Unauthentic));
        pair.opener = pair.opener.with_roc(SSRC, 5, 8);
        assert_eq!(pair.exchange(5 << 16 | 9), Ok(5 << 16 | 9));
        assert_eq!(pair.exchange(5 << 16 | 8), Err(OpenError::Replayed));
        // Taking over again moves the same stream.
        pair.opener = pair.opener.with_roc(SSRC, 6, 0);
        assert_eq!(pair.exchange(6 << 16 | 1), Ok(6 << 16 | 1));
    }
}

#[test]
fn a_forged_jump_does_not_move_the_rollover_counter() {
    let mut pair = Pair::new(Profile::Aes128CmHmacSha1_80);
    assert_eq!(pair.exchange(0xFFF0), Ok(0xFFF0));
    let mut forged = pair.seal(SSRC, 0x1_0005);
    *forged.last_mut().expect("not empty") ^= 1;
    assert_eq!(pair.open(&forged), Err(OpenError::Unauthentic));
    assert_eq!(pair.exchange(0xFFF1), Ok(0xFFF1));
}

#[test]
fn ssrcs_are_bounded_and_only_authentic_ones_count() {
    for mut pair in Pair::all() {
        for ssrc in 100..200 {
            let forged = flip(&pair.seal(ssrc, 1), 200);
            assert_eq!(pair.open(&forged), Err(OpenError::Unauthentic));
            let forged = flip(&pair.seal_rtcp(ssrc), 100);
            assert_eq!(pair.open_rtcp(&forged), Err(OpenError::Unauthentic));
        }
        for ssrc in 0..6 {
            let expected = if ssrc < 4 { Ok(1) } else { Err(OpenError::TooManySsrcs) };
            let packet = pair.seal(ssrc, 1);
            assert_eq!(pair.open(&packet), expected);
            let packet = pair.seal_rtcp(ssrc);
            assert_eq!(pair.open_rtcp(&packet).is_ok(), ssrc < 4);
        }
        // The known ones go on.
        let packet = pair.seal(3, 2);
        assert_eq!(pair.open(&packet), Ok(2));
    }
}

#[test]
fn sealing_checks_its_arguments() {
    for mut pair in Pair::all() {
        let plain = rtp(SSRC, 5);
        let len = plain.len();
        let mut buf = [&plain[..], &[0; OVERHEAD_BYTES_MAX]].concat();
        let tag = pair.profile.tag_len();
        let sealer = &mut pair.sealer;
        assert_eq!(sealer.seal_rtp(&mut buf[..len + tag - 1], 12, len, 5), Err(SealError::BufferTooSmall));
        assert_eq!(sealer.seal_rtp(&mut buf, 11, len, 5), Err(SealError::Header));
        assert_eq!(sealer.seal_rtp(&mut buf, len + 1, len, 5), Err(SealError::Header));
        assert_eq!(sealer.seal_rtp(&mut buf, 12, len, 6), Err(SealError::IndexMismatch));
        assert_eq!(sealer.seal_rtp(&mut buf, 12, len, 1 << 48 | 5), Err(SealError::KeyExhausted));
        assert_eq!(sealer.seal_rtp(&mut buf, 12, usize::MAX, 5), Err(SealError::BufferTooSmall));
        assert_eq!(sealer.seal_rtcp(&mut buf, 7), Err(SealError::Header));
        assert_eq!(sealer.seal_rtcp(&mut buf[..len], len), Err(SealError::BufferTooSmall));
        assert_eq!(buf[..len], plain, "refusals leave the packet alone");
    }
}

#[test]
fn keys_of_another_profile_are_refused() {
    let half = Pair::new(Profile::AeadAes256Gcm).half;
    assert!(Sealer::new(Profile::AeadAes128Gcm, &half).is_err());
    assert!(Opener::new(Profile::Aes128CmHmacSha1_80, &half, 1).is_err());
    assert!(Half::new(Profile::Aes128CmHmacSha1_80, &[0; 16], &[0; 12]).is_err());
}
