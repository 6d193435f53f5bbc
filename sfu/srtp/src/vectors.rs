//! Published test vectors: RFC 3711 appendix B, RFC 6188 section 7.2, RFC 7714 sections 16 and 17, and the reference
//! packets that libsrtp tests its counter mode with.

use crate::cm::Cm;
use crate::gcm::Gcm;
use crate::kdf::{Label, counter_mode, derive};
use crate::{Half, OpenError, Opener, Profile, RtpHeader, Sealer};

const MASTER_KEY: &str = "E1F97A0D3E018BE0D64FA32C06DE4139";
const MASTER_SALT: &str = "0EC675AD498AFEEBB6960B3AABE6";

#[test]
fn session_keys_are_those_of_rfc_3711_b3() {
    let master = Half::new(Profile::Aes128CmHmacSha1_80, &hex(MASTER_KEY), &hex(MASTER_SALT)).unwrap();
    assert_eq!(derived(&master, Label::RtpEncryption, 16), hex("C61E7A93744F39EE10734AFE3FF7A087"));
    assert_eq!(derived(&master, Label::RtpSalt, 14), hex("30CBBC08863D8C85D49DB34A9AE1"));
    let authentication = "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE
        E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25
        6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2";
    assert_eq!(derived(&master, Label::RtpAuthentication, 94), hex(authentication));
}

#[test]
fn gcm_session_keys_pad_the_salt_on_the_right() {
    // Values that two independent stacks agree on: the 96-bit salt of RFC 7714 is followed by 16 zero bits.
    let key: Vec<u8> = (0..32).collect();
    let salt = hex("a0a1a2a3a4a5a6a7a8a9aaab");
    let master = Half::new(Profile::AeadAes128Gcm, &key[..16], &salt).unwrap();
    assert_eq!(derived(&master, Label::RtpEncryption, 16), hex("077c6143cb221bc355ff23d5f984a16e"));
    assert_eq!(derived(&master, Label::RtpSalt, 12), hex("9af3e95364ebac9c99c5a7c4"));
    assert_eq!(derived(&master, Label::RtcpEncryption, 16), hex("615dcd9042600666f6fd4d9e4fe4519f"));
    assert_eq!(derived(&master, Label::RtcpSalt, 12), hex("fcca937b9112a500dac72269"));
    let master = Half::new(Profile::AeadAes256Gcm, &key, &salt).unwrap();
    let expected = "b7a435ce454463b760dc82c838468a115c699625af4b93a0f8220a2a6119c5d0";
    assert_eq!(derived(&master, Label::RtpEncryption, 32), hex(expected));
    assert_eq!(derived(&master, Label::RtcpSalt, 12), hex("258c540cf38ddd40848ceaed"));
}

#[test]
fn keystream_is_that_of_rfc_3711_b2() {
    use aes::cipher::{KeyInit, StreamCipher, StreamCipherSeek};
    let key: [u8; 16] = hex("2B7E151628AED2A6ABF7158809CF4F3C").try_into().unwrap();
    let cipher = aes::Aes128Enc::new(&key.into());
    let iv: [u8; 16] = hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().unwrap();
    let mut first = [0; 48];
    counter_mode(&cipher, &iv).apply_keystream(&mut first);
    let expected =
        "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(first.to_vec(), hex(expected));
    let mut last = [0; 48];
    let mut stream = counter_mode(&cipher, &iv);
    stream.seek(0xFEFF_u32 * 16);
    stream.apply_keystream(&mut last);
    let expected =
        "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44";
    assert_eq!(last.to_vec(), hex(expected));
}

/// RFC 7714 section 16: header, payload "Gallia est omnis divisa in partes tres".
const GCM_RTP: &str = "8040f17b8041f8d35501a0b2 47616c6c696120657374206f6d6e6973206469766973
    6120696e207061727465732074726573";
const GCM_RTP_SSRC: u32 = 0x5501_a0b2;
const GCM_RTP_INDEX: u64 = 0xf17b;

#[test]
fn gcm_rtp_packets_are_those_of_rfc_7714_section_16() {
    let sealed_128 = "8040f17b8041f8d35501a0b2 f24de3a3fb34de6cacba861c9d7e4bca be633bd50d294e6f42a5f47a51c7d19b
        36de3adf8833 899d7f27beb16a9152cf765ee4390cce";
    let sealed_256 = "8040f17b8041f8d35501a0b2 32b1de78a822fe12ef9f78fa332e33aa b18012389a58e2f3b50b2a0276ffae0f
        1ba63799b87b 7aa3db36dfffd6b0f9bb7878d7a76c13";
    for (key_len, sealed) in [(16, sealed_128), (32, sealed_256)] {
        let gcm = gcm(key_len);
        let mut packet = hex(GCM_RTP);
        packet.resize(packet.len() + 16, 0);
        gcm.seal_rtp(&mut packet, 12, GCM_RTP_SSRC, GCM_RTP_INDEX).unwrap();
        assert_eq!(packet, hex(sealed));
        gcm.open_rtp(&mut packet, 12, GCM_RTP_SSRC, GCM_RTP_INDEX).unwrap();
        assert_eq!(packet[..packet.len() - 16], hex(GCM_RTP));
    }
}

/// RFC 7714 section 17: a sender report of SSRC "Mars" at SRTCP index 0x5d4.
const GCM_RTCP: &str = "81c8000d4d617273 4e5450314e545032525450200000042a0000e9304c756e61
    deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
const GCM_RTCP_SSRC: u32 = 0x4d61_7273;
const GCM_RTCP_INDEX: u32 = 0x5d4;

#[test]
fn gcm_rtcp_packets_are_those_of_rfc_7714_section_17() {
    let sealed_128 = "81c8000d4d617273 63e94885dcdab67ca727d7662f6b7e997ff5c0f7 6c06f32dc676a5f1730d6fda4ce09b46
        86303ded 0bb9275bc84aa45896cf4d2fc5abf87245d9eade 800005d4";
    let sealed_256 = "81c8000d4d617273 d50ae4d1f5ce5d304ba297e47d470c28 2c3ece5dbffe0a50a2eaa5c1110555be
        8415f658c61de047 6f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be 800005d4";
    for (key_len, sealed) in [(16, sealed_128), (32, sealed_256)] {
        let gcm = gcm(key_len);
        let mut packet = hex(GCM_RTCP);
        packet.resize(packet.len() + 20, 0);
        gcm.seal_rtcp(&mut packet, GCM_RTCP_SSRC, GCM_RTCP_INDEX).unwrap();
        assert_eq!(packet, hex(sealed));
        gcm.open_rtcp(&mut packet, GCM_RTCP_SSRC, 0x8000_05d4).unwrap();
        assert_eq!(packet[..packet.len() - 20], hex(GCM_RTCP));
    }
}

#[test]
fn unencrypted_gcm_rtcp_of_rfc_7714_section_17_verifies() {
    let tag_128 = "841dd9683dd78ec92ae58790125f62b3";
    let tag_256 = "91db4afbfeee5a978fab4393ed2615fe";
    for (key_len, tag) in [(16, tag_128), (32, tag_256)] {
        let gcm = gcm(key_len);
        let packet = [hex(GCM_RTCP), hex(tag), hex("000005d4")].concat();
        gcm.open_rtcp(&mut packet.clone(), GCM_RTCP_SSRC, GCM_RTCP_INDEX).unwrap();
        for at in 0..packet.len() - 4 {
            let mut forged = packet.clone();
            forged[at] ^= 1;
            assert!(gcm.open_rtcp(&mut forged, GCM_RTCP_SSRC, GCM_RTCP_INDEX).is_err(), "byte {at}");
        }
    }
}

#[test]
fn counter_mode_packets_are_those_of_libsrtp() {
    let half = Half::new(Profile::Aes128CmHmacSha1_80, &hex(MASTER_KEY), &hex(MASTER_SALT)).unwrap();
    let mut sealer = Sealer::new(Profile::Aes128CmHmacSha1_80, &half).unwrap();
    let mut opener = Opener::new(Profile::Aes128CmHmacSha1_80, &half, 1).unwrap();

    let plain = [hex("800f1234decafbadcafebabe"), vec![0xAB; 16]].concat();
    let sealed = hex("800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb");
    let mut packet = plain.clone();
    packet.resize(38, 0);
    assert_eq!(sealer.seal_rtp(&mut packet, 12, plain.len(), 0x1234), Ok(38));
    assert_eq!(packet, sealed);
    let header = RtpHeader::parse(&packet).unwrap();
    let opened = opener.open_rtp(&mut packet, &header).unwrap();
    assert_eq!((&packet[..opened.len], opened.index), (&plain[..], 0x1234));

    let plain = [hex("81c8000bcafebabe"), vec![0xAB; 16]].concat();
    let sealed = hex("81c8000bcafebabe 7128035be487b9bdbef89041f977a5a8 80000001 993e08cd54d6c1230798");
    let mut packet = sealed.clone();
    let len = opener.open_rtcp(&mut packet).unwrap();
    assert_eq!(packet[..len], plain);
    // The reference starts at index 1, ours at 0: the second packet is the same one.
    for _ in 0..2 {
        packet = plain.clone();
        packet.resize(38, 0);
        assert_eq!(sealer.seal_rtcp(&mut packet, plain.len()), Ok(38));
    }
    assert_eq!(packet, sealed);
}

#[test]
fn authentic_rtcp_without_encryption_is_refused_and_remembered() {
    for profile in Profile::ALL {
        let half = Half::new(profile, &vec![7; profile.key_len()], &vec![9; profile.salt_len()]).unwrap();
        let mut opener = Opener::new(profile, &half, 1).unwrap();
        let packet = sealed_unencrypted(profile, &half);
        for at in 0..packet.len() {
            let mut forged = packet.clone();
            forged[at] ^= 0x10;
            assert_eq!(opener.open_rtcp(&mut forged), Err(OpenError::Unauthentic), "{profile:?} byte {at}");
        }
        assert_eq!(opener.open_rtcp(&mut packet.clone()), Err(OpenError::Unencrypted), "{profile:?}");
        assert_eq!(opener.open_rtcp(&mut packet.clone()), Err(OpenError::Replayed), "{profile:?}");
    }
}

/// A receiver report whose E bit is zero, with the right tag.
fn sealed_unencrypted(profile: Profile, half: &Half) -> Vec<u8> {
    let mut packet = hex("80c90001 11223344");
    match profile {
        Profile::Aes128CmHmacSha1_80 => {
            use hmac::Mac;
            packet.extend([0, 0, 0, 5]);
            let key = derived(half, Label::RtcpAuthentication, 20);
            let mut mac = hmac::Hmac::<sha1::Sha1>::new_from_slice(&key).unwrap();
            mac.update(&packet);
            packet.extend(&mac.finalize().into_bytes()[..10]);
        }
        Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => {
            use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
            let algorithm = if profile.key_len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
            let key = derived(half, Label::RtcpEncryption, profile.key_len());
            let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap());
            let mut nonce = [0, 0, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0, 5];
            for (byte, salt) in nonce.iter_mut().zip(derived(half, Label::RtcpSalt, 12)) {
                *byte ^= salt;
            }
            let aad = [&packet[..], &[0, 0, 0, 5]].concat();
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::from(aad), &mut []).unwrap();
            packet.extend(tag.as_ref());
            packet.extend([0, 0, 0, 5]);
        }
    }
    packet
}

#[test]
fn counter_mode_needs_the_right_rollover_counter() {
    let cm = Cm::from_session(&[1; 16], &[2; 20], [3; 14]);
    let mut packet = [hex("80000001 00000000 00000001"), vec![0; 30]].concat();
    cm.seal_rtp(&mut packet, 12, 1, 0x1_0001);
    assert!(cm.open_rtp(&mut packet.clone(), 12, 1, 0x0_0001).is_err());
    assert!(cm.open_rtp(&mut packet, 12, 1, 0x1_0001).is_ok());
}

fn gcm(key_len: u8) -> Gcm {
    let key: Vec<u8> = (0..key_len).collect();
    let salt = hex("517569642070726f2071756f").try_into().unwrap();
    Gcm::from_session(&key, salt).unwrap()
}

fn derived(master: &Half, label: Label, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    derive(master, label, &mut out);
    out
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
