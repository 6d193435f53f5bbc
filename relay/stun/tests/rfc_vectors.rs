//! The sample messages of RFC 5769, read and written again, and the SHA-256 sample of RFC 8489 appendix B.1.

use std::net::SocketAddr;

use stun::{AttributeType, Class, IntegrityError, IntegrityKey, Message, Method, TransactionId, Writer};

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const ID: TransactionId = TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
const LONG_TERM_ID: TransactionId =
    TransactionId([0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0, 0x29, 0xda, 0x41, 0x2e]);
const LONG_TERM_USER: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";

const REQUEST: &str = "00010058 2112a442 b7e7a701bc34d686fa87dfae
    80220010 5354554e207465737420636c69656e74
    00240004 6e0001ff
    80290008 932ff9b151263b36
    00060009 6576746a3a68367659 202020
    00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004 e57a3bcf";

const RESPONSE_IPV4: &str = "0101003c 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f72 20
    00200008 0001a147e112a643
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004 c07d4c96";

const RESPONSE_IPV6: &str = "01010048 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f72 20
    00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
    80280004 c8fb0b4c";

const REQUEST_LONG_TERM: &str = "00010060 2112a442 78ad3433c6ad72c029da412e
    00060012 e3839ee38388e383aae38383e382afe382b9 0000
    0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341
    0014000b 6578616d706c652e6f7267 00
    00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";

#[test]
fn sample_request_is_read() {
    let bytes = hex(REQUEST);
    let message = Message::parse(&bytes).expect("valid");
    assert_eq!((message.class(), message.method()), (Class::Request, Method::BINDING));
    assert_eq!(message.transaction_id(), ID);
    assert_eq!(message.software(), Some(&b"STUN test client"[..]));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.ice_controlled(), Some(0x932f_f9b1_5126_3b36));
    assert_eq!(message.ice_controlling(), None);
    assert_eq!(message.username(), Some(&b"evtj:h6vY"[..]));
    assert!(message.has_fingerprint() && message.has_integrity() && !message.use_candidate());
    assert_eq!(message.verify_integrity(&IntegrityKey::short_term(PASSWORD)), Ok(()));
    let wrong = IntegrityKey::short_term(b"VOkJxbRl1RmTxUk/WvJxBT");
    assert_eq!(message.verify_integrity(&wrong), Err(IntegrityError::Mismatch));
    assert_eq!(message.verify_integrity_sha256(&wrong), Err(IntegrityError::Missing));
}

#[test]
fn sample_responses_are_read() {
    for (text, address) in
        [(RESPONSE_IPV4, "192.0.2.1:32853"), (RESPONSE_IPV6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")]
    {
        let bytes = hex(text);
        let message = Message::parse(&bytes).expect("valid");
        assert_eq!((message.class(), message.method()), (Class::Success, Method::BINDING));
        assert_eq!(message.software(), Some(&b"test vector"[..]));
        assert_eq!(message.xor_mapped_address(), address.parse().ok());
        assert_eq!(message.verify_integrity(&IntegrityKey::short_term(PASSWORD)), Ok(()));
        assert!(message.has_fingerprint());
    }
}

#[test]
fn sample_request_with_long_term_credential_is_read() {
    let bytes = hex(REQUEST_LONG_TERM);
    let message = Message::parse(&bytes).expect("valid");
    assert_eq!(message.username(), Some(LONG_TERM_USER.as_bytes()));
    assert_eq!(message.nonce(), Some(&b"f//499k954d6OL34oL9FSTvy64sA"[..]));
    assert_eq!(message.realm(), Some(&b"example.org"[..]));
    assert!(!message.has_fingerprint());
    let key = IntegrityKey::long_term(LONG_TERM_USER.as_bytes(), b"example.org", b"TheMatrIX");
    assert_eq!(message.verify_integrity(&key), Ok(()));
    let wrong = IntegrityKey::long_term(LONG_TERM_USER.as_bytes(), b"example.com", b"TheMatrIX");
    assert_eq!(message.verify_integrity(&wrong), Err(IntegrityError::Mismatch));
}

/// The samples pad with spaces, our writer with zeros, so only the last sample comes out byte for byte.
#[test]
fn sample_request_with_long_term_credential_is_written() {
    let mut buf = [0xFF; 200];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, LONG_TERM_ID).expect("fits");
    writer.username(LONG_TERM_USER.as_bytes()).expect("fits");
    writer.nonce(b"f//499k954d6OL34oL9FSTvy64sA").expect("fits");
    writer.realm(b"example.org").expect("fits");
    let key = IntegrityKey::long_term(LONG_TERM_USER.as_bytes(), b"example.org", b"TheMatrIX");
    let len = writer.finish(Some(&key), false).expect("fits");
    assert_eq!(buf[..len], hex(REQUEST_LONG_TERM));
}

#[test]
fn sample_addresses_are_written() {
    for (address, attribute) in [
        ("192.0.2.1:32853", "002000080001a147e112a643"),
        ("[2001:db8:1234:5678:11:2233:4455:6677]:32853", "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"),
    ] {
        let mut buf = [0; 100];
        let mut writer = Writer::new(&mut buf, Class::Success, Method::BINDING, ID).expect("fits");
        let address: SocketAddr = address.parse().expect("an address");
        writer.xor_mapped_address(address).expect("fits");
        let len = writer.finish(None, false).expect("fits");
        assert_eq!(buf[20..len], hex(attribute));
    }
}

/// RFC 8489 appendix B.1 with the integrity value of erratum 6268.
#[test]
fn sha256_sample_is_written_and_read() {
    let userhash = hex("4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704");
    let integrity = hex("b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65");
    let key = IntegrityKey::long_term_sha256(LONG_TERM_USER.as_bytes(), b"example.org", b"TheMatrIX");
    let mut buf = [0; 200];
    let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, LONG_TERM_ID).expect("fits");
    writer.attribute(AttributeType::USERHASH, &userhash).expect("fits");
    writer.nonce(b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA").expect("fits");
    writer.realm(b"example.org").expect("fits");
    writer.attribute(AttributeType::PASSWORD_ALGORITHM, &[0, 2, 0, 0]).expect("fits");
    writer.integrity_sha256(&key).expect("fits");
    let len = writer.finish(None, false).expect("fits");
    assert_eq!(buf[len - 32..len], integrity);
    let message = Message::parse(&buf[..len]).expect("valid");
    assert_eq!(message.verify_integrity_sha256(&key), Ok(()));
    assert_eq!(message.attribute(AttributeType::USERHASH), Some(&userhash[..]));
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("ascii"), 16).expect("hex")).collect()
}
