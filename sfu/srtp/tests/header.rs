//! The header view: agrees with an independent parser, survives any bytes.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use rtc_shared::marshal::{Marshal, Unmarshal};
use srtp::{Extension, ExtensionsFull, HeaderError, OneByteWriter, RtpHeader};

const ONE_BYTE: u16 = 0xBEDE;
const TWO_BYTE: u16 = 0x1000;

/// A packet as the independent stack writes it.
fn packet() -> impl Strategy<Value = rtp::Packet> {
    let one_byte = vec((1..15_u8, vec(any::<u8>(), 1..=16)), 0..5).prop_map(|elements| (ONE_BYTE, elements));
    let two_byte = vec((1..=255_u8, vec(any::<u8>(), 0..40)), 0..5).prop_map(|elements| (TWO_BYTE, elements));
    let extensions = proptest::option::of(prop_oneof![one_byte, two_byte]);
    let fields = (any::<bool>(), any::<bool>(), 0..=127_u8, any::<u16>(), any::<u32>(), any::<u32>());
    (fields, vec(any::<u32>(), 0..=15), extensions, vec(any::<u8>(), 1..200)).prop_map(
        |((marker, padding, payload_type, sequence_number, timestamp, ssrc), csrc, extensions, payload)| {
            let (extension_profile, elements) = extensions.clone().unwrap_or_default();
            let header = rtp::Header {
                version: 2,
                padding,
                extension: extensions.is_some(),
                marker,
                payload_type,
                sequence_number,
                timestamp,
                ssrc,
                csrc,
                extension_profile,
                extensions: elements
                    .into_iter()
                    .map(|(id, value)| rtp::header::Extension { id, payload: Bytes::from(value) })
                    .collect(),
                extensions_padding: 0,
            };
            rtp::Packet { header, payload: Bytes::from(payload) }
        },
    )
}

proptest! {
    #[test]
    fn view_agrees_with_an_independent_stack(packet in packet()) {
        let bytes = packet.marshal().unwrap();
        let header = RtpHeader::parse(&bytes).unwrap();
        let theirs = &packet.header;
        prop_assert_eq!(header.marker, theirs.marker);
        prop_assert_eq!(header.padding, theirs.padding);
        prop_assert_eq!(header.payload_type, theirs.payload_type);
        prop_assert_eq!(header.sequence, theirs.sequence_number);
        prop_assert_eq!(header.timestamp, theirs.timestamp);
        prop_assert_eq!(header.ssrc, theirs.ssrc);
        prop_assert_eq!(usize::from(header.csrc_count), theirs.csrc.len());
        prop_assert_eq!(header.csrcs(&bytes).collect::<Vec<_>>(), theirs.csrc.clone());
        prop_assert_eq!(header.extension.map(|extension| extension.profile), theirs.extension.then_some(theirs.extension_profile));
        let ours: Vec<_> = header.extensions(&bytes).map(|(id, value)| (id, value.to_vec())).collect();
        let theirs: Vec<_> = theirs.extensions.iter().map(|found| (found.id, found.payload.to_vec())).collect();
        prop_assert_eq!(ours, theirs);
        let payload = header.payload(&bytes).unwrap();
        prop_assert_eq!(&bytes[payload], &packet.payload[..]);
    }

    /// Any bytes: no panic, and what we accept the independent stack places alike.
    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..100)) {
        read_everything(&bytes);
    }

    #[test]
    fn any_packet_with_extensions_is_survived(mut bytes in vec(any::<u8>(), 16..100), two_byte: bool, words in 0..30_u8) {
        bytes[0] = 0x90;
        let profile = if two_byte { TWO_BYTE } else { ONE_BYTE };
        bytes[12..14].copy_from_slice(&profile.to_be_bytes());
        bytes[14..16].copy_from_slice(&[0, words]);
        read_everything(&bytes);
        if let (Ok(header), Ok(theirs)) = (RtpHeader::parse(&bytes), rtp::Header::unmarshal(&mut &bytes[..])) {
            // They stop later than the block's end in broken packets; up to there both read the same.
            for ((id, value), theirs) in header.extensions(&bytes).zip(&theirs.extensions) {
                prop_assert_eq!((id, value), (theirs.id, &theirs.payload[..]));
            }
        }
    }

    #[test]
    fn written_extensions_are_read(elements in vec((1..15_u8, vec(any::<u8>(), 1..=16)), 0..8)) {
        let mut bytes = vec![0; 300];
        bytes[0] = 0x90;
        let mut writer = OneByteWriter::new(&mut bytes[12..]).unwrap();
        for (id, value) in &elements {
            writer.push(*id, value).unwrap();
        }
        let len = writer.finish().unwrap();
        bytes.truncate(12 + len);
        let header = RtpHeader::parse(&bytes).unwrap();
        prop_assert_eq!(header.header_len, bytes.len());
        let read: Vec<_> = header.extensions(&bytes).map(|(id, value)| (id, value.to_vec())).collect();
        prop_assert_eq!(&read, &elements);
        for (id, _) in &elements {
            let first = elements.iter().find(|(found, _)| found == id).map(|(_, value)| &value[..]);
            prop_assert_eq!(header.extension_value(&bytes, *id), first);
        }
        // In the smallest buffer it fits, in a smaller one it is refused.
        for room in [len, len - 1] {
            let mut exact = vec![0xFF; room];
            let written = write(&mut exact, &elements);
            prop_assert_eq!(written.is_ok(), room == len);
        }
    }
}

fn write(buf: &mut [u8], elements: &[(u8, Vec<u8>)]) -> Result<usize, ExtensionsFull> {
    let mut writer = OneByteWriter::new(buf)?;
    for (id, value) in elements {
        writer.push(*id, value)?;
    }
    writer.finish()
}

fn read_everything(bytes: &[u8]) {
    let Ok(header) = RtpHeader::parse(bytes) else { return };
    assert!(header.header_len <= bytes.len());
    assert_eq!(header.csrcs(bytes).count(), usize::from(header.csrc_count));
    let read: usize = header.extensions(bytes).map(|(_, value)| 1 + value.len()).sum();
    assert!(read <= header.extension.map_or(0, |extension| extension.end - extension.start));
    if let Ok(payload) = header.payload(bytes) {
        assert!(payload.start == header.header_len && payload.start <= payload.end && payload.end <= bytes.len());
    }
    // A view of one packet must not panic on another.
    assert!(header.csrcs(&[]).count() == 0 && header.extensions(&[]).count() == 0);
    assert_eq!(header.payload(&[]), Err(HeaderError::TooShort));
}

#[test]
fn short_and_foreign_packets_are_refused() {
    let packet = [&[0x80, 0x6F][..], &[0; 10]].concat();
    assert!(RtpHeader::parse(&packet).is_ok());
    for len in 0..12 {
        assert_eq!(RtpHeader::parse(&packet[..len]), Err(HeaderError::TooShort));
    }
    for version in [0x00, 0x40, 0xC0] {
        let mut other = packet.clone();
        other[0] = version;
        assert_eq!(RtpHeader::parse(&other), Err(HeaderError::Version));
    }
    let mut csrcs = packet;
    csrcs[0] = 0x81;
    assert_eq!(RtpHeader::parse(&csrcs), Err(HeaderError::TooShort));
}

#[test]
fn extension_past_the_end_is_refused() {
    let mut packet = [&[0x90, 0x6F][..], &[0; 10], &[0xBE, 0xDE, 0, 1], &[0x10, 7, 0, 0]].concat();
    let header = RtpHeader::parse(&packet).expect("valid");
    assert_eq!(header.extension, Some(Extension { profile: ONE_BYTE, start: 16, end: 20 }));
    assert_eq!(header.extension_value(&packet, 1), Some(&[7][..]));
    for len in 12..packet.len() {
        assert_eq!(RtpHeader::parse(&packet[..len]), Err(HeaderError::Extension));
    }
    packet[14..16].copy_from_slice(&[0xFF, 0xFF]);
    assert_eq!(RtpHeader::parse(&packet), Err(HeaderError::Extension));
}

#[test]
fn padding_is_checked_against_the_payload() {
    let packet = |payload: &[u8]| [&[0xA0, 0x6F][..], &[0; 10], payload].concat();
    let read = |payload: &[u8]| {
        let packet = packet(payload);
        RtpHeader::parse(&packet).expect("valid").payload(&packet)
    };
    assert_eq!(read(&[9, 9, 0, 2]), Ok(12..14));
    assert_eq!(read(&[3, 3, 3]), Ok(12..12));
    assert_eq!(read(&[1, 1, 4]), Err(HeaderError::Padding));
    assert_eq!(read(&[0]), Err(HeaderError::Padding));
    assert_eq!(read(&[]), Err(HeaderError::Padding));
}

#[test]
fn elements_end_where_the_rfc_says() {
    let elements = |profile: u16, block: &[u8]| {
        let words = (block.len() / 4) as u16;
        let head = [&profile.to_be_bytes()[..], &words.to_be_bytes()].concat();
        let packet = [&[0x90, 0x6F][..], &[0; 10], &head, block].concat();
        let header = RtpHeader::parse(&packet).expect("valid");
        header.extensions(&packet).map(|(id, value)| (id, value.to_vec())).collect::<Vec<_>>()
    };
    // Id 15 ends the block, and so does id 0 with a length (RFC 8285 section 4.2).
    assert_eq!(elements(ONE_BYTE, &[0x10, 1, 0xF0, 2, 0x20, 3, 0, 0]), [(1, vec![1])]);
    assert_eq!(elements(ONE_BYTE, &[0x10, 1, 0x01, 2, 0x20, 3, 0, 0]), [(1, vec![1])]);
    // An element that runs past the block is not returned.
    assert_eq!(elements(ONE_BYTE, &[0x10, 1, 0x27, 2]), [(1, vec![1])]);
    assert_eq!(elements(TWO_BYTE, &[1, 1, 7, 2]), [(1, vec![7])]);
    assert_eq!(elements(TWO_BYTE, &[1, 0, 2, 9]), [(1, vec![])]);
    // Application bits do not matter, other profiles are not RFC 8285.
    assert_eq!(elements(0x100F, &[1, 1, 7, 0]), [(1, vec![7])]);
    assert_eq!(elements(0x1010, &[1, 1, 7, 0]), []);
}

#[test]
fn elements_that_the_one_byte_form_cannot_carry_are_refused() {
    let mut buf = [0; 64];
    let mut writer = OneByteWriter::new(&mut buf).expect("fits");
    assert_eq!(writer.push(0, &[1]), Err(ExtensionsFull));
    assert_eq!(writer.push(15, &[1]), Err(ExtensionsFull));
    assert_eq!(writer.push(1, &[]), Err(ExtensionsFull));
    assert_eq!(writer.push(1, &[0; 17]), Err(ExtensionsFull));
    assert_eq!(writer.finish(), Ok(4));
    assert_eq!(buf[..4], [0xBE, 0xDE, 0, 0]);
}
