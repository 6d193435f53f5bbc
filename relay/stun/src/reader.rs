//! A checked view over the bytes of one STUN message. It borrows the datagram, copies nothing, and after
//! [`Message::parse`] no getter can fail other than by returning `None`.

use std::net::SocketAddr;

use crate::attribute::{AttributeType, ErrorCode, decode_error_code, decode_xor_address};
use crate::header::{Class, HEADER_BYTES, MAGIC_COOKIE, Method, TransactionId, decode_type};
use crate::integrity::{IntegrityError, IntegrityKey};

/// Why bytes are not a STUN message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("message is shorter than a header")]
    TooShort,
    #[error("first two bits are not zero or the magic cookie is wrong")]
    NotStun,
    #[error("length field does not match the bytes received")]
    LengthMismatch,
    #[error("attribute runs past the end of the message")]
    AttributeOverrun,
    #[error("integrity attribute has a length that no sender may choose")]
    IntegrityLength,
    #[error("fingerprint is wrong, too short or not the last attribute")]
    Fingerprint,
}

/// One message that fills the whole slice it was parsed from.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    /// Where the attributes end that a reader may act on: at the first integrity attribute, else at the end.
    honoured_end: usize,
    /// Offset of MESSAGE-INTEGRITY (its header).
    integrity_at: Option<usize>,
    integrity_sha256: Option<Tag>,
    has_fingerprint: bool,
}

/// Where MESSAGE-INTEGRITY-SHA256 stands; unlike the SHA-1 form it may be truncated.
#[derive(Clone, Copy, Debug)]
struct Tag {
    at: usize,
    len: usize,
}

/// One attribute without its padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    pub kind: AttributeType,
    pub value: &'a [u8],
}

impl<'a> Message<'a> {
    /// The bytes must be one whole message: a datagram, or what a stream's framing cut out.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(ParseError::TooShort)?;
        if header[0] & 0xC0 != 0 || header[4..8] != MAGIC_COOKIE.to_be_bytes() {
            return Err(ParseError::NotStun);
        }
        let body = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if !body.is_multiple_of(4) || body != bytes.len() - HEADER_BYTES {
            return Err(ParseError::LengthMismatch);
        }
        let mut message = Self {
            bytes,
            honoured_end: bytes.len(),
            integrity_at: None,
            integrity_sha256: None,
            has_fingerprint: false,
        };
        message.scan()?;
        Ok(message)
    }

    pub fn class(&self) -> Class {
        decode_type(self.type_field()).0
    }

    pub fn method(&self) -> Method {
        decode_type(self.type_field()).1
    }

    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_BYTES]);
        TransactionId(id)
    }

    /// The attributes before the first integrity attribute, in order.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: &self.bytes[HEADER_BYTES..self.honoured_end] }
    }

    /// The value of the first attribute of this type that stands before the integrity attribute.
    pub fn attribute(&self, kind: AttributeType) -> Option<&'a [u8]> {
        self.attributes().find(|attribute| attribute.kind == kind).map(|attribute| attribute.value)
    }

    /// Comprehension-required attributes that are not in `known`, for UNKNOWN-ATTRIBUTES of an error 420. One that
    /// occurs twice is named twice.
    pub fn unknown_comprehension_required(&self, known: &[AttributeType]) -> impl Iterator<Item = AttributeType> {
        self.attributes()
            .map(|attribute| attribute.kind)
            .filter(|kind| kind.is_comprehension_required() && !known.contains(kind))
    }

    /// Whether a FINGERPRINT is present; when it is, [`Message::parse`] has checked it.
    pub fn has_fingerprint(&self) -> bool {
        self.has_fingerprint
    }

    pub fn has_integrity(&self) -> bool {
        self.integrity_at.is_some()
    }

    pub fn has_integrity_sha256(&self) -> bool {
        self.integrity_sha256.is_some()
    }

    /// Checks MESSAGE-INTEGRITY in constant time.
    pub fn verify_integrity(&self, key: &IntegrityKey) -> Result<(), IntegrityError> {
        let at = self.integrity_at.ok_or(IntegrityError::Missing)?;
        let tag = &self.bytes[at + 4..at + 24];
        key.verify_sha1([&self.header_ending_at(at + 24), &self.bytes[HEADER_BYTES..at]], tag)
    }

    /// Checks MESSAGE-INTEGRITY-SHA256 in constant time.
    pub fn verify_integrity_sha256(&self, key: &IntegrityKey) -> Result<(), IntegrityError> {
        let Tag { at, len } = self.integrity_sha256.ok_or(IntegrityError::Missing)?;
        let tag = &self.bytes[at + 4..at + 4 + len];
        key.verify_sha256([&self.header_ending_at(at + 4 + len), &self.bytes[HEADER_BYTES..at]], tag)
    }

    fn type_field(&self) -> u16 {
        u16::from_be_bytes([self.bytes[0], self.bytes[1]])
    }

    /// The header as the sender hashed it: its length field ends the message after the integrity attribute.
    fn header_ending_at(&self, end: usize) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header.copy_from_slice(&self.bytes[..HEADER_BYTES]);
        // `end` lies inside a message whose body fits the 16-bit length field.
        let body = (end - HEADER_BYTES) as u16;
        header[2..4].copy_from_slice(&body.to_be_bytes());
        header
    }

    /// Walks all attributes once: bounds, where the integrity attributes stand, and the fingerprint.
    fn scan(&mut self) -> Result<(), ParseError> {
        let mut at = HEADER_BYTES;
        while at < self.bytes.len() {
            let (kind, len) = attribute_header(&self.bytes[at..]).ok_or(ParseError::AttributeOverrun)?;
            let next = at + 4 + len.next_multiple_of(4);
            if next > self.bytes.len() {
                return Err(ParseError::AttributeOverrun);
            }
            match kind {
                AttributeType::MESSAGE_INTEGRITY => self.note_integrity(at, len)?,
                AttributeType::MESSAGE_INTEGRITY_SHA256 => self.note_integrity_sha256(at, len)?,
                AttributeType::FINGERPRINT => {
                    if len != 4 || next != self.bytes.len() || !self.is_fingerprint_right(at) {
                        return Err(ParseError::Fingerprint);
                    }
                    self.has_fingerprint = true;
                    self.honoured_end = self.honoured_end.min(at);
                }
                _ => {}
            }
            at = next;
        }
        Ok(())
    }

    /// The first one counts, and one behind MESSAGE-INTEGRITY-SHA256 does not (RFC 8489 section 14.6).
    fn note_integrity(&mut self, at: usize, len: usize) -> Result<(), ParseError> {
        if self.integrity_at.is_some() || self.integrity_sha256.is_some() {
            return Ok(());
        }
        if len != 20 {
            return Err(ParseError::IntegrityLength);
        }
        self.integrity_at = Some(at);
        self.honoured_end = self.honoured_end.min(at);
        Ok(())
    }

    /// May follow MESSAGE-INTEGRITY; 16 to 32 bytes in steps of 4 (RFC 8489 section 14.6).
    fn note_integrity_sha256(&mut self, at: usize, len: usize) -> Result<(), ParseError> {
        if self.integrity_sha256.is_some() {
            return Ok(());
        }
        if !(16..=32).contains(&len) || !len.is_multiple_of(4) {
            return Err(ParseError::IntegrityLength);
        }
        self.integrity_sha256 = Some(Tag { at, len });
        self.honoured_end = self.honoured_end.min(at);
        Ok(())
    }

    /// The length field of a message with FINGERPRINT already counts it, so the bytes are hashed as they stand.
    fn is_fingerprint_right(&self, at: usize) -> bool {
        let expected = fingerprint(&self.bytes[..at]);
        self.bytes[at + 4..at + 8] == expected.to_be_bytes()
    }
}

/// Values of single attributes: `None` when absent or when the value does not have the form the RFC gives it.
impl<'a> Message<'a> {
    pub fn username(&self) -> Option<&'a [u8]> {
        self.attribute(AttributeType::USERNAME)
    }

    pub fn realm(&self) -> Option<&'a [u8]> {
        self.attribute(AttributeType::REALM)
    }

    pub fn nonce(&self) -> Option<&'a [u8]> {
        self.attribute(AttributeType::NONCE)
    }

    pub fn software(&self) -> Option<&'a [u8]> {
        self.attribute(AttributeType::SOFTWARE)
    }

    pub fn error_code(&self) -> Option<ErrorCode<'a>> {
        decode_error_code(self.attribute(AttributeType::ERROR_CODE)?)
    }

    /// The attribute types that the sender of an error 420 did not know.
    pub fn unknown_attributes(&self) -> Option<impl Iterator<Item = AttributeType> + use<'a>> {
        let value = self.attribute(AttributeType::UNKNOWN_ATTRIBUTES)?;
        Some(value.chunks_exact(2).map(|pair| AttributeType(u16::from_be_bytes([pair[0], pair[1]]))))
    }

    pub fn xor_mapped_address(&self) -> Option<SocketAddr> {
        self.xor_address(AttributeType::XOR_MAPPED_ADDRESS)
    }

    /// RFC 8445 section 7.1.1.
    pub fn priority(&self) -> Option<u32> {
        self.u32(AttributeType::PRIORITY)
    }

    /// RFC 8445 section 7.1.2.
    pub fn use_candidate(&self) -> bool {
        self.attribute(AttributeType::USE_CANDIDATE).is_some()
    }

    /// The tie-breaker of a controlling agent (RFC 8445 section 7.1.3).
    pub fn ice_controlling(&self) -> Option<u64> {
        self.u64(AttributeType::ICE_CONTROLLING)
    }

    /// The tie-breaker of a controlled agent (RFC 8445 section 7.1.3).
    pub fn ice_controlled(&self) -> Option<u64> {
        self.u64(AttributeType::ICE_CONTROLLED)
    }

    /// Seconds (RFC 8656 section 18.2).
    pub fn lifetime(&self) -> Option<u32> {
        self.u32(AttributeType::LIFETIME)
    }

    /// RFC 8656 section 18.1.
    pub fn channel_number(&self) -> Option<u16> {
        self.u32(AttributeType::CHANNEL_NUMBER).map(|value| (value >> 16) as u16)
    }

    /// RFC 8656 section 18.3. CreatePermission may carry several: walk [`Message::attributes`] for those and decode
    /// with [`Message::decode_xor_address`].
    pub fn xor_peer_address(&self) -> Option<SocketAddr> {
        self.xor_address(AttributeType::XOR_PEER_ADDRESS)
    }

    /// RFC 8656 section 18.5.
    pub fn xor_relayed_address(&self) -> Option<SocketAddr> {
        self.xor_address(AttributeType::XOR_RELAYED_ADDRESS)
    }

    /// RFC 8656 section 18.4.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.attribute(AttributeType::DATA)
    }

    /// The IP protocol number, 17 for UDP (RFC 8656 section 18.8).
    pub fn requested_transport(&self) -> Option<u8> {
        self.u32(AttributeType::REQUESTED_TRANSPORT).map(|value| (value >> 24) as u8)
    }

    /// 1 for IPv4, 2 for IPv6 (RFC 8656 section 18.6).
    pub fn requested_address_family(&self) -> Option<u8> {
        self.u32(AttributeType::REQUESTED_ADDRESS_FAMILY).map(|value| (value >> 24) as u8)
    }

    /// 1 for IPv4, 2 for IPv6 (RFC 8656 section 18.11).
    pub fn additional_address_family(&self) -> Option<u8> {
        self.u32(AttributeType::ADDITIONAL_ADDRESS_FAMILY).map(|value| (value >> 24) as u8)
    }

    /// Whether the next port is to be reserved as well (RFC 8656 section 18.7).
    pub fn even_port(&self) -> Option<bool> {
        match self.attribute(AttributeType::EVEN_PORT)? {
            [flags] => Some(flags & 0x80 != 0),
            _ => None,
        }
    }

    /// RFC 8656 section 18.9.
    pub fn dont_fragment(&self) -> bool {
        self.attribute(AttributeType::DONT_FRAGMENT).is_some()
    }

    /// RFC 8656 section 18.10.
    pub fn reservation_token(&self) -> Option<[u8; 8]> {
        self.attribute(AttributeType::RESERVATION_TOKEN)?.try_into().ok()
    }

    /// Undoes the XOR of an address attribute of this message.
    pub fn decode_xor_address(&self, value: &[u8]) -> Option<SocketAddr> {
        decode_xor_address(value, self.transaction_id())
    }

    fn xor_address(&self, kind: AttributeType) -> Option<SocketAddr> {
        self.decode_xor_address(self.attribute(kind)?)
    }

    fn u32(&self, kind: AttributeType) -> Option<u32> {
        Some(u32::from_be_bytes(self.attribute(kind)?.try_into().ok()?))
    }

    fn u64(&self, kind: AttributeType) -> Option<u64> {
        Some(u64::from_be_bytes(self.attribute(kind)?.try_into().ok()?))
    }
}

/// Iterator over attributes whose bounds were checked by [`Message::parse`].
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, len) = attribute_header(self.rest)?;
        let value = self.rest.get(4..4 + len)?;
        self.rest = self.rest.get(4 + len.next_multiple_of(4)..)?;
        Some(Attribute { kind, value })
    }
}

fn attribute_header(bytes: &[u8]) -> Option<(AttributeType, usize)> {
    let [a, b, c, d] = *bytes.first_chunk::<4>()?;
    Some((AttributeType(u16::from_be_bytes([a, b])), usize::from(u16::from_be_bytes([c, d]))))
}

/// RFC 8489 section 14.7.
pub(crate) fn fingerprint(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes) ^ 0x5354_554E
}
