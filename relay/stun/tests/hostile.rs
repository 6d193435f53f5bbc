//! What attackers and broken clients send: nothing of it panics, passes as authentic or is half-read.

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use stun::{AttributeType, Class, IntegrityError, IntegrityKey, Message, Method, ParseError, TransactionId, Writer};

const ID: TransactionId = TransactionId(*b"carillon-id1");

fn key() -> IntegrityKey {
    IntegrityKey::short_term(b"password-of-22-letters")
}

/// A connectivity check as browsers send it.
fn check(integrity: Option<&IntegrityKey>, with_fingerprint: bool) -> Vec<u8> {
    let mut buf = [0; 200];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, ID).expect("fits");
    writer.username(b"local:remote").expect("fits");
    writer.ice_controlling(7).expect("fits");
    writer.use_candidate().expect("fits");
    writer.priority(0x6e00_01ff).expect("fits");
    let len = writer.finish(integrity, with_fingerprint).expect("fits");
    buf[..len].to_vec()
}

/// A message with these attribute bytes and the right length field.
fn raw(attributes: &[u8]) -> Vec<u8> {
    let mut bytes = check(None, false)[..20].to_vec();
    bytes.extend_from_slice(attributes);
    let len = attributes.len() as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

fn is_authentic(bytes: &[u8]) -> bool {
    Message::parse(bytes).is_ok_and(|message| message.verify_integrity(&key()).is_ok())
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let whole = check(Some(&key()), true);
    assert!(is_authentic(&whole));
    for len in 0..whole.len() {
        assert!(Message::parse(&whole[..len]).is_err(), "{len} bytes");
    }
    assert_eq!(Message::parse(&[&whole[..], &[0; 4]].concat()).unwrap_err(), ParseError::LengthMismatch);
}

#[test]
fn every_flipped_bit_of_a_signed_message_is_refused() {
    let whole = check(Some(&key()), false);
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_authentic(&flipped), "bit {bit}");
    }
}

/// The number of the FINGERPRINT attribute is covered by nothing but itself: with another number it is one more
/// attribute behind the integrity, which nobody reads.
#[test]
fn a_flipped_bit_of_a_fingerprinted_message_is_refused_or_only_hides_the_fingerprint() {
    let whole = check(Some(&key()), true);
    let fingerprint_type = whole.len() - 8..whole.len() - 6;
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        if fingerprint_type.contains(&(bit / 8)) {
            let message = Message::parse(&flipped).expect("still well formed");
            assert!(!message.has_fingerprint(), "bit {bit}");
            assert_eq!(message.attributes().count(), 4);
        } else {
            assert!(!is_authentic(&flipped), "bit {bit}");
        }
    }
}

#[test]
fn attributes_after_the_integrity_are_not_returned() {
    let signed = check(Some(&key()), false);
    let smuggled = [&signed[20..], &[0x00, 0x0D, 0, 4, 0, 0, 0, 9], &[0x00, 0x06, 0, 4, b'e', b'v', b'i', b'l']];
    let bytes = raw(&smuggled.concat());
    let message = Message::parse(&bytes).expect("well formed");
    assert_eq!(message.verify_integrity(&key()), Ok(()));
    assert_eq!(message.lifetime(), None);
    assert_eq!(message.username(), Some(&b"local:remote"[..]));
    assert_eq!(message.attributes().count(), 4);
    assert_eq!(message.unknown_comprehension_required(&[]).count(), 3);
}

#[test]
fn a_second_integrity_attribute_does_not_replace_the_first() {
    let signed = check(Some(&key()), false);
    let attacker = b"attacker";
    // He signs everything that stands before his attribute, with the length field that ends there.
    let mut bytes = raw(&[&signed[20..], &[0x00, 0x08, 0, 20], &[0; 20]].concat());
    let at = bytes.len() - 24;
    let tag = Hmac::<Sha1>::new_from_slice(attacker).expect("any length").chain_update(&bytes[..at]).finalize();
    bytes[at + 4..].copy_from_slice(&tag.into_bytes());
    let message = Message::parse(&bytes).expect("well formed");
    assert_eq!(message.verify_integrity(&key()), Ok(()));
    assert_eq!(message.verify_integrity(&IntegrityKey::short_term(attacker)), Err(IntegrityError::Mismatch));
}

#[test]
fn sha1_integrity_behind_sha256_integrity_does_not_count() {
    let mut buf = [0; 200];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, ID).expect("fits");
    writer.integrity_sha256(&key()).expect("fits");
    let len = writer.finish(None, false).expect("fits");
    let bytes = raw(&[&buf[20..len], &[0x00, 0x08, 0, 20], &[0xAA; 20]].concat());
    let message = Message::parse(&bytes).expect("well formed");
    assert!(!message.has_integrity());
    // The length field that was hashed ends at the SHA-256 tag, so that one still verifies.
    assert_eq!(message.verify_integrity_sha256(&key()), Ok(()));
}

#[test]
fn both_integrity_forms_can_stand_in_one_message() {
    let mut buf = [0; 200];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::ALLOCATE, ID).expect("fits");
    writer.username(b"u").expect("fits");
    writer.integrity(&key()).expect("fits");
    writer.integrity_sha256(&key()).expect("fits");
    let len = writer.finish(None, true).expect("fits");
    let message = Message::parse(&buf[..len]).expect("well formed");
    assert_eq!(message.verify_integrity(&key()), Ok(()));
    assert_eq!(message.verify_integrity_sha256(&key()), Ok(()));
    assert!(message.has_fingerprint());
    assert_eq!(message.attributes().count(), 1);
}

#[test]
fn truncated_sha256_tags_verify_down_to_16_bytes() {
    for len in (0..=36_u8).step_by(2) {
        let mut bytes = raw(&vec![0; 4 + usize::from(len).next_multiple_of(4)]);
        bytes[20..24].copy_from_slice(&[0x00, 0x1C, 0, len]);
        let mac = Hmac::<Sha256>::new_from_slice(b"password-of-22-letters").expect("any length");
        let tag = mac.chain_update(&bytes[..20]).finalize().into_bytes();
        let shown = usize::from(len.min(32));
        bytes[24..24 + shown].copy_from_slice(&tag[..shown]);
        let parsed = Message::parse(&bytes);
        if (16..=32).contains(&len) && len % 4 == 0 {
            assert_eq!(parsed.expect("allowed").verify_integrity_sha256(&key()), Ok(()), "{len} bytes");
            bytes[24] ^= 1;
            let forged = Message::parse(&bytes).expect("allowed");
            assert_eq!(forged.verify_integrity_sha256(&key()), Err(IntegrityError::Mismatch));
        } else {
            assert_eq!(parsed.unwrap_err(), ParseError::IntegrityLength, "{len} bytes");
        }
    }
}

#[test]
fn integrity_of_another_length_is_refused() {
    for len in [0_u8, 4, 16, 19, 24] {
        let value = vec![0; usize::from(len).next_multiple_of(4)];
        let bytes = raw(&[&[0x00, 0x08, 0, len], &value[..]].concat());
        assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::IntegrityLength);
    }
}

#[test]
fn a_fingerprint_that_is_wrong_short_or_not_last_is_refused() {
    let good = check(None, true);
    let tail = &good[good.len() - 8..];
    let mut wrong = good.clone();
    *wrong.last_mut().expect("not empty") ^= 1;
    assert_eq!(Message::parse(&wrong).unwrap_err(), ParseError::Fingerprint);
    assert_eq!(Message::parse(&raw(&[0x80, 0x28, 0, 0])).unwrap_err(), ParseError::Fingerprint);
    let twice = raw(&[&good[20..], tail].concat());
    assert_eq!(Message::parse(&twice).unwrap_err(), ParseError::Fingerprint);
    let followed = raw(&[&good[20..], &[0x80, 0x22, 0, 0]].concat());
    assert_eq!(Message::parse(&followed).unwrap_err(), ParseError::Fingerprint);
}

#[test]
fn other_protocols_are_not_stun() {
    let mut bytes = check(None, false);
    bytes[4] ^= 1;
    assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::NotStun);
    for first in [0x16, 0x40, 0x80, 0xC0] {
        let mut bytes = check(None, false);
        bytes[0] = first;
        let outcome = Message::parse(&bytes);
        // 0x16 is a valid type field of an unknown method: demultiplexing is the caller's.
        assert_eq!(outcome.is_ok(), first == 0x16);
    }
}

#[test]
fn attribute_past_the_end_is_refused() {
    for attributes in [&[0x00, 0x06, 0, 5, 1, 2, 3, 4][..], &[0x00, 0x06, 0xFF, 0xFF], &[0x00, 0x06, 0, 1]] {
        assert_eq!(Message::parse(&raw(attributes)).unwrap_err(), ParseError::AttributeOverrun);
    }
    let mut odd = check(None, false);
    odd[3] += 1;
    odd.push(0);
    assert_eq!(Message::parse(&odd).unwrap_err(), ParseError::LengthMismatch);
}

#[test]
fn values_of_the_wrong_size_read_as_absent() {
    for kind in [
        AttributeType::PRIORITY,
        AttributeType::ICE_CONTROLLING,
        AttributeType::ICE_CONTROLLED,
        AttributeType::XOR_MAPPED_ADDRESS,
        AttributeType::XOR_PEER_ADDRESS,
        AttributeType::XOR_RELAYED_ADDRESS,
        AttributeType::LIFETIME,
        AttributeType::CHANNEL_NUMBER,
        AttributeType::REQUESTED_TRANSPORT,
        AttributeType::ERROR_CODE,
        AttributeType::EVEN_PORT,
        AttributeType::RESERVATION_TOKEN,
    ] {
        for len in [0_usize, 2, 3, 5, 7, 9, 19, 21] {
            let mut attributes = [&kind.0.to_be_bytes()[..], &(len as u16).to_be_bytes()].concat();
            // Family 9 makes addresses wrong at any length, class 7 errors.
            attributes.resize(4 + len.next_multiple_of(4), 9);
            let bytes = raw(&attributes);
            let message = Message::parse(&bytes).expect("well formed");
            assert_eq!(message.attribute(kind).map(<[u8]>::len), Some(len));
            assert_eq!(message.priority(), None);
            assert_eq!((message.ice_controlling(), message.ice_controlled()), (None, None));
            let addresses = [message.xor_mapped_address(), message.xor_peer_address(), message.xor_relayed_address()];
            assert_eq!(addresses, [None; 3]);
            assert_eq!((message.lifetime(), message.channel_number()), (None, None));
            assert_eq!((message.requested_transport(), message.error_code()), (None, None));
            assert_eq!((message.even_port(), message.reservation_token()), (None, None));
        }
    }
}

#[test]
fn the_first_of_two_equal_attributes_counts() {
    let mut buf = [0; 100];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, ID).expect("fits");
    writer.username(b"first").expect("fits");
    writer.username(b"second").expect("fits");
    let len = writer.finish(None, false).expect("fits");
    assert_eq!(Message::parse(&buf[..len]).expect("valid").username(), Some(&b"first"[..]));
}

#[test]
fn unknown_required_attributes_are_named() {
    let mut buf = [0; 200];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, ID).expect("fits");
    writer.username(b"u").expect("fits");
    writer.attribute(AttributeType(0x7FFF), b"x").expect("fits");
    writer.attribute(AttributeType(0x8000), b"x").expect("fits");
    writer.attribute(AttributeType(0x002B), b"").expect("fits");
    let len = writer.finish(Some(&key()), true).expect("fits");
    let message = Message::parse(&buf[..len]).expect("valid");
    let unknown: Vec<_> = message.unknown_comprehension_required(&[AttributeType::USERNAME]).collect();
    assert_eq!(unknown, [AttributeType(0x7FFF), AttributeType(0x002B)]);
    // And they can be told to the sender.
    let mut answer = [0; 200];
    let mut writer = Writer::new(&mut answer, Class::Error, Method::BINDING, ID).expect("fits");
    writer.error_code(420, "Unknown Attribute").expect("fits");
    writer.unknown_attributes(unknown.iter().copied()).expect("fits");
    let len = writer.finish(None, true).expect("fits");
    let message = Message::parse(&answer[..len]).expect("valid");
    let error = message.error_code().expect("present");
    assert_eq!((error.code, error.reason), (420, "Unknown Attribute"));
    assert_eq!(message.unknown_attributes().expect("present").collect::<Vec<_>>(), unknown);
}

#[test]
fn keys_do_not_print() {
    assert_eq!(format!("{:?}", key()), "IntegrityKey(..)");
}
