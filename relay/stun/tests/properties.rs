//! Writer and reader agree on any message, and the reader survives any bytes.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use stun::{
    Attribute, AttributeType, Class, IntegrityError, IntegrityKey, MAGIC_COOKIE, Message, Method, TransactionId,
    WriteError, Writer,
};

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Request), Just(Class::Indication), Just(Class::Success), Just(Class::Error)]
}

fn method() -> impl Strategy<Value = Method> {
    (0..=0x0FFF_u16).prop_map(|value| Method::new(value).expect("12 bits"))
}

/// Any attribute but the ones that end what a reader honours.
fn attribute() -> impl Strategy<Value = (AttributeType, Vec<u8>)> {
    let kind =
        any::<u16>().prop_filter("written by the writer itself", |kind| ![0x0008, 0x001C, 0x8028].contains(kind));
    (kind.prop_map(AttributeType), vec(any::<u8>(), 0..60))
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn write(
    buf: &mut [u8],
    head: (Class, Method, [u8; 12]),
    attributes: &[(AttributeType, Vec<u8>)],
    key: Option<&IntegrityKey>,
    with_fingerprint: bool,
) -> Result<usize, WriteError> {
    let mut writer = Writer::new(buf, head.0, head.1, TransactionId(head.2))?;
    for (kind, value) in attributes {
        writer.attribute(*kind, value)?;
    }
    writer.finish(key, with_fingerprint)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        head in (class(), method(), any::<[u8; 12]>()),
        attributes in vec(attribute(), 0..12),
        password in proptest::option::of(vec(any::<u8>(), 0..100)),
        with_fingerprint: bool,
    ) {
        let key = password.as_deref().map(IntegrityKey::short_term);
        let mut buf = [0xEE; 1_200];
        let len = write(&mut buf, head, &attributes, key.as_ref(), with_fingerprint).unwrap();
        let message = Message::parse(&buf[..len]).unwrap();
        prop_assert_eq!((message.class(), message.method(), message.transaction_id().0), head);
        let read: Vec<_> = message.attributes().map(|Attribute { kind, value }| (kind, value.to_vec())).collect();
        prop_assert_eq!(&read, &attributes);
        prop_assert_eq!(message.has_fingerprint(), with_fingerprint);
        match key {
            Some(key) => prop_assert_eq!(message.verify_integrity(&key), Ok(())),
            None => {
                let key = IntegrityKey::short_term(b"any");
                prop_assert_eq!(message.verify_integrity(&key), Err(IntegrityError::Missing));
            }
        }
        // In the smallest buffer it fits, in any smaller one it is refused.
        let mut exact = vec![0; len];
        prop_assert_eq!(write(&mut exact, head, &attributes, key_of(&password).as_ref(), with_fingerprint), Ok(len));
        prop_assert_eq!(&exact[..], &buf[..len]);
        let mut short = vec![0; len - 1];
        let refused = write(&mut short, head, &attributes, key_of(&password).as_ref(), with_fingerprint);
        prop_assert_eq!(refused, Err(WriteError::BufferFull));
    }

    #[test]
    fn addresses_round_trip(id: [u8; 12], addresses in vec(address(), 3)) {
        let mut buf = [0; 200];
        let mut writer = Writer::new(&mut buf, Class::Success, Method::ALLOCATE, TransactionId(id)).unwrap();
        writer.xor_mapped_address(addresses[0]).unwrap();
        writer.xor_peer_address(addresses[1]).unwrap();
        writer.xor_relayed_address(addresses[2]).unwrap();
        let len = writer.finish(None, false).unwrap();
        let message = Message::parse(&buf[..len]).unwrap();
        prop_assert_eq!(message.xor_mapped_address(), Some(addresses[0]));
        prop_assert_eq!(message.xor_peer_address(), Some(addresses[1]));
        prop_assert_eq!(message.xor_relayed_address(), Some(addresses[2]));
    }

    #[test]
    fn typed_values_round_trip(
        (priority, lifetime, channel) in any::<(u32, u32, u16)>(),
        tie_breaker: u64,
        code in 300..=699_u16,
        reason in "[a-z é]{0,40}",
    ) {
        let mut buf = [0; 300];
        let mut writer = Writer::new(&mut buf, Class::Error, Method::BINDING, TransactionId([1; 12])).unwrap();
        writer.priority(priority).unwrap();
        writer.lifetime(lifetime).unwrap();
        writer.channel_number(channel).unwrap();
        writer.requested_transport(17).unwrap();
        writer.ice_controlling(tie_breaker).unwrap();
        writer.ice_controlled(!tie_breaker).unwrap();
        writer.use_candidate().unwrap();
        writer.error_code(code, &reason).unwrap();
        let len = writer.finish(None, true).unwrap();
        let message = Message::parse(&buf[..len]).unwrap();
        prop_assert_eq!(message.priority(), Some(priority));
        prop_assert_eq!(message.lifetime(), Some(lifetime));
        prop_assert_eq!(message.channel_number(), Some(channel));
        prop_assert_eq!(message.requested_transport(), Some(17));
        prop_assert_eq!(message.ice_controlling(), Some(tie_breaker));
        prop_assert_eq!(message.ice_controlled(), Some(!tie_breaker));
        prop_assert!(message.use_candidate());
        let error = message.error_code().unwrap();
        prop_assert_eq!((error.code, error.reason), (code, &reason[..]));
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..400)) {
        read_everything(&bytes);
    }

    /// Random bytes seldom get past the header, so give them a right one.
    #[test]
    fn any_attributes_are_survived(mut bytes in vec(any::<u8>(), 20..400)) {
        bytes.truncate(bytes.len() / 4 * 4);
        bytes[0] &= 0x3F;
        let body = (bytes.len() - 20) as u16;
        bytes[2..4].copy_from_slice(&body.to_be_bytes());
        bytes[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        read_everything(&bytes);
    }

    /// And attributes of true types with lengths that nearly fit.
    #[test]
    fn plausible_attributes_are_survived(
        attributes in vec((0..0x30_u16, 0..24_u16, any::<bool>()), 0..12),
        cut in 0..8_usize,
    ) {
        let mut body = Vec::new();
        for (kind, len, is_optional) in attributes {
            body.extend_from_slice(&(kind | u16::from(is_optional) << 15).to_be_bytes());
            body.extend_from_slice(&len.to_be_bytes());
            body.resize(body.len() + usize::from(len).next_multiple_of(4), 1);
        }
        body.truncate(body.len().saturating_sub(cut * 4));
        let mut bytes = vec![0, 1];
        bytes.extend_from_slice(&(body.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        bytes.extend_from_slice(&[7; 12]);
        bytes.extend_from_slice(&body);
        read_everything(&bytes);
    }
}

fn key_of(password: &Option<Vec<u8>>) -> Option<IntegrityKey> {
    password.as_deref().map(IntegrityKey::short_term)
}

fn read_everything(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else { return };
    let key = IntegrityKey::short_term(b"password");
    assert!(message.verify_integrity(&key).is_err(), "nobody knows the key");
    assert!(message.verify_integrity_sha256(&key).is_err(), "nobody knows the key");
    let length: usize = message.attributes().map(|attribute| 4 + attribute.value.len()).sum();
    assert!(length <= bytes.len() - 20);
    let _ = (message.class(), message.method(), message.transaction_id());
    let _ = (message.username(), message.realm(), message.nonce(), message.software(), message.data());
    let _ = (message.xor_mapped_address(), message.xor_peer_address(), message.xor_relayed_address());
    let _ = (message.error_code(), message.unknown_attributes().map(Iterator::count));
    let _ = (message.priority(), message.use_candidate(), message.ice_controlled(), message.ice_controlling());
    let _ = (message.lifetime(), message.channel_number(), message.requested_transport(), message.even_port());
    let _ = (message.reservation_token(), message.requested_address_family(), message.additional_address_family());
    let _ = message.unknown_comprehension_required(&[AttributeType::USERNAME]).count();
}
