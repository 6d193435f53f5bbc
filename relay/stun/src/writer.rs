//! Writes one STUN message into a caller's buffer, attribute by attribute. It checks sizes and order (nothing but
//! FINGERPRINT after the integrity attributes), not whether the attributes make sense for the method.

use std::net::SocketAddr;

use crate::attribute::{ADDRESS_BYTES_MAX, AttributeType, REASON_BYTES_MAX, encode_xor_address};
use crate::header::{Class, HEADER_BYTES, MAGIC_COOKIE, Method, TransactionId, encode_type};
use crate::integrity::IntegrityKey;
use crate::reader::fingerprint;

/// Why a message cannot be written: always the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("buffer is too small for the message")]
    BufferFull,
    #[error("message is longer than its length field can say")]
    TooLong,
    #[error("attribute after the integrity attribute would not be honoured")]
    AfterIntegrity,
    #[error("value is outside what the attribute can carry")]
    InvalidValue,
}

/// A message under construction. Dropping it without [`Writer::finish`] leaves an unusable message in the buffer.
#[derive(Debug)]
pub struct Writer<'b> {
    buf: &'b mut [u8],
    len: usize,
    id: TransactionId,
    signed: bool,
}

impl<'b> Writer<'b> {
    pub fn new(buf: &'b mut [u8], class: Class, method: Method, id: TransactionId) -> Result<Self, WriteError> {
        let header = buf.first_chunk_mut::<HEADER_BYTES>().ok_or(WriteError::BufferFull)?;
        header[..2].copy_from_slice(&encode_type(class, method).to_be_bytes());
        header[2..4].fill(0);
        header[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        header[8..].copy_from_slice(id.as_bytes());
        Ok(Self { buf, len: HEADER_BYTES, id, signed: false })
    }

    /// Appends any attribute; the padding is zero. The integrity attributes and FINGERPRINT have their own methods.
    pub fn attribute(&mut self, kind: AttributeType, value: &[u8]) -> Result<(), WriteError> {
        if self.signed {
            return Err(WriteError::AfterIntegrity);
        }
        let is_seal = matches!(
            kind,
            AttributeType::MESSAGE_INTEGRITY | AttributeType::MESSAGE_INTEGRITY_SHA256 | AttributeType::FINGERPRINT
        );
        if is_seal {
            return Err(WriteError::InvalidValue);
        }
        self.append(kind, value)
    }

    pub fn username(&mut self, value: &[u8]) -> Result<(), WriteError> {
        self.attribute(AttributeType::USERNAME, value)
    }

    pub fn realm(&mut self, value: &[u8]) -> Result<(), WriteError> {
        self.attribute(AttributeType::REALM, value)
    }

    pub fn nonce(&mut self, value: &[u8]) -> Result<(), WriteError> {
        self.attribute(AttributeType::NONCE, value)
    }

    pub fn software(&mut self, value: &str) -> Result<(), WriteError> {
        self.attribute(AttributeType::SOFTWARE, value.as_bytes())
    }

    /// RFC 8489 section 14.8; `code` is 300 to 699.
    pub fn error_code(&mut self, code: u16, reason: &str) -> Result<(), WriteError> {
        if !(300..=699).contains(&code) || reason.len() > REASON_BYTES_MAX {
            return Err(WriteError::InvalidValue);
        }
        let mut value = [0; 4 + REASON_BYTES_MAX];
        value[2] = (code / 100) as u8;
        value[3] = (code % 100) as u8;
        value[4..4 + reason.len()].copy_from_slice(reason.as_bytes());
        self.attribute(AttributeType::ERROR_CODE, &value[..4 + reason.len()])
    }

    /// RFC 8489 section 14.9. At most [`UNKNOWN_ATTRIBUTES_MAX`] are named; the receiver learns enough from those.
    pub fn unknown_attributes(&mut self, kinds: impl Iterator<Item = AttributeType>) -> Result<(), WriteError> {
        let mut value = [0; 2 * UNKNOWN_ATTRIBUTES_MAX];
        let mut len = 0;
        for (kind, slot) in kinds.zip(value.chunks_exact_mut(2)) {
            slot.copy_from_slice(&kind.0.to_be_bytes());
            len += 2;
        }
        self.attribute(AttributeType::UNKNOWN_ATTRIBUTES, &value[..len])
    }

    pub fn xor_mapped_address(&mut self, address: SocketAddr) -> Result<(), WriteError> {
        self.xor_address(AttributeType::XOR_MAPPED_ADDRESS, address)
    }

    pub fn xor_peer_address(&mut self, address: SocketAddr) -> Result<(), WriteError> {
        self.xor_address(AttributeType::XOR_PEER_ADDRESS, address)
    }

    pub fn xor_relayed_address(&mut self, address: SocketAddr) -> Result<(), WriteError> {
        self.xor_address(AttributeType::XOR_RELAYED_ADDRESS, address)
    }

    pub fn priority(&mut self, value: u32) -> Result<(), WriteError> {
        self.attribute(AttributeType::PRIORITY, &value.to_be_bytes())
    }

    pub fn use_candidate(&mut self) -> Result<(), WriteError> {
        self.attribute(AttributeType::USE_CANDIDATE, &[])
    }

    pub fn ice_controlling(&mut self, tie_breaker: u64) -> Result<(), WriteError> {
        self.attribute(AttributeType::ICE_CONTROLLING, &tie_breaker.to_be_bytes())
    }

    pub fn ice_controlled(&mut self, tie_breaker: u64) -> Result<(), WriteError> {
        self.attribute(AttributeType::ICE_CONTROLLED, &tie_breaker.to_be_bytes())
    }

    pub fn lifetime(&mut self, seconds: u32) -> Result<(), WriteError> {
        self.attribute(AttributeType::LIFETIME, &seconds.to_be_bytes())
    }

    /// RFC 8656 section 18.1.
    pub fn channel_number(&mut self, channel: u16) -> Result<(), WriteError> {
        self.attribute(AttributeType::CHANNEL_NUMBER, &(u32::from(channel) << 16).to_be_bytes())
    }

    /// RFC 8656 section 18.8; 17 is UDP.
    pub fn requested_transport(&mut self, protocol: u8) -> Result<(), WriteError> {
        self.attribute(AttributeType::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0])
    }

    pub fn data(&mut self, value: &[u8]) -> Result<(), WriteError> {
        self.attribute(AttributeType::DATA, value)
    }

    /// Appends MESSAGE-INTEGRITY over what was written so far.
    pub fn integrity(&mut self, key: &IntegrityKey) -> Result<(), WriteError> {
        if self.signed {
            return Err(WriteError::AfterIntegrity);
        }
        let tag = self.reserve_tag(20, |header, body| key.sha1([header, body]))?;
        self.append(AttributeType::MESSAGE_INTEGRITY, &tag)?;
        self.signed = true;
        Ok(())
    }

    /// Appends MESSAGE-INTEGRITY-SHA256; may follow MESSAGE-INTEGRITY (RFC 8489 section 14.6).
    pub fn integrity_sha256(&mut self, key: &IntegrityKey) -> Result<(), WriteError> {
        let tag = self.reserve_tag(32, |header, body| key.sha256([header, body]))?;
        self.append(AttributeType::MESSAGE_INTEGRITY_SHA256, &tag)?;
        self.signed = true;
        Ok(())
    }

    /// Signs (HMAC-SHA1) and fingerprints as asked; returns the length of the message.
    pub fn finish(mut self, integrity: Option<&IntegrityKey>, with_fingerprint: bool) -> Result<usize, WriteError> {
        if let Some(key) = integrity {
            self.integrity(key)?;
        }
        if with_fingerprint {
            self.set_body_length(self.len + 8)?;
            let crc = fingerprint(&self.buf[..self.len]);
            self.append(AttributeType::FINGERPRINT, &crc.to_be_bytes())?;
        }
        Ok(self.len)
    }

    fn xor_address(&mut self, kind: AttributeType, address: SocketAddr) -> Result<(), WriteError> {
        let mut value = [0; ADDRESS_BYTES_MAX];
        let id = self.id;
        self.attribute(kind, encode_xor_address(address, id, &mut value))
    }

    /// The tag is computed with a length field that already counts the attribute it goes into.
    fn reserve_tag<T>(&mut self, tag_bytes: usize, tag: impl FnOnce(&[u8], &[u8]) -> T) -> Result<T, WriteError> {
        self.set_body_length(self.len + 4 + tag_bytes)?;
        Ok(tag(&self.buf[..HEADER_BYTES], &self.buf[HEADER_BYTES..self.len]))
    }

    fn append(&mut self, kind: AttributeType, value: &[u8]) -> Result<(), WriteError> {
        let value_len = u16::try_from(value.len()).map_err(|_| WriteError::TooLong)?;
        let end = self.len + 4 + value.len().next_multiple_of(4);
        let slot = self.buf.get_mut(self.len..end).ok_or(WriteError::BufferFull)?;
        slot[..2].copy_from_slice(&kind.0.to_be_bytes());
        slot[2..4].copy_from_slice(&value_len.to_be_bytes());
        slot[4..4 + value.len()].copy_from_slice(value);
        slot[4 + value.len()..].fill(0);
        self.set_body_length(end)?;
        self.len = end;
        Ok(())
    }

    fn set_body_length(&mut self, end: usize) -> Result<(), WriteError> {
        let body = u16::try_from(end - HEADER_BYTES).map_err(|_| WriteError::TooLong)?;
        self.buf[2..4].copy_from_slice(&body.to_be_bytes());
        Ok(())
    }
}

/// More unknown attributes than this in one request are an attack, not a newer client.
pub const UNKNOWN_ATTRIBUTES_MAX: usize = 16;
