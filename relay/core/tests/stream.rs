//! Messages are cut out of a stream however it is chopped (S13: half messages, pipelining, the largest length, foreign
//! protocols).

mod harness;

use harness::{channel_data, write};
use proptest::prelude::*;
use relay_core::{Cut, NotFramed, STREAM_MESSAGE_BYTES_MAX, cut};
use stun::{AttributeType, Class, Method, TransactionId};

fn stun_message(data: &[u8]) -> Vec<u8> {
    write(Class::Indication, Method::SEND, TransactionId([3; 12]), None, false, |w| {
        w.attribute(AttributeType::DATA, data).expect("room");
    })
}

proptest! {
    #[test]
    fn s13_pipelined_messages_come_out_whole_whatever_the_chunks(
        messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..300)), 1..12),
        chunks in prop::collection::vec(1_usize..400, 1..40),
    ) {
        let sent = messages.iter().map(|(is_stun, data)| match is_stun {
            true => stun_message(data),
            false => channel_data(0x4001, data),
        });
        let sent = sent.collect::<Vec<_>>();
        let mut wire = Vec::new();
        for message in &sent {
            wire.extend(message);
            wire.resize(wire.len().next_multiple_of(4), 0);
        }
        let (mut held, mut got) = (Vec::new(), Vec::new());
        let mut sizes = chunks.into_iter().cycle();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
            held.extend(now);
            rest = later;
            while let Cut::Message { message, consumed } = cut(&held).expect("framed") {
                got.push(held[..message].to_vec());
                held.drain(..consumed);
            }
            prop_assert!(held.len() < STREAM_MESSAGE_BYTES_MAX);
        }
        prop_assert_eq!(got, sent);
        prop_assert!(held.is_empty());
    }

    #[test]
    fn s13_no_bytes_panic_and_what_is_asked_for_has_a_bound(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        match cut(&bytes) {
            Ok(Cut::Incomplete(wanted)) => prop_assert!(bytes.len() < wanted && wanted <= STREAM_MESSAGE_BYTES_MAX),
            Ok(Cut::Message { message, consumed }) => {
                prop_assert!(message <= consumed && consumed <= bytes.len() && consumed < message + 4);
            }
            Err(NotFramed) => {}
        }
    }
}

#[test]
fn s13_a_stream_of_something_else_is_known_by_its_first_bytes() {
    for bytes in [
        &b"GET / HTTP/1.1"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"PROXY TCP4 ",
        b"\x0D\x0A\x0D\x0A\x00\x0D\x0A",
        &[0x80],
        &[0xFF; 8],
    ] {
        let outcome = cut(bytes);
        let is_channel_data = (0x40..0x80).contains(&bytes[0]);
        assert!(outcome == Err(NotFramed) || is_channel_data, "{bytes:?} {outcome:?}");
    }
    assert_eq!(cut(&[0, 1, 0, 3]), Err(NotFramed), "a length that no message has");
    assert_eq!(cut(&[0, 1, 0, 4, 0x21, 0x12]), Ok(Cut::Incomplete(24)));
    assert_eq!(cut(&[0, 1, 0, 4, 0x21, 0x13]), Err(NotFramed));
    assert_eq!(cut(&[0x40, 0, 0xFF, 0xFF]), Ok(Cut::Incomplete(65_540)));
    assert_eq!(cut(&[]), Ok(Cut::Incomplete(4)));
}
