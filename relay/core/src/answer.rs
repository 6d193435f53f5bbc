//! Writing answers: what a refusal carries, and who signs it.

use std::net::{IpAddr, SocketAddr};

use stun::{AttributeType, Class, IntegrityKey, Message, Method, TransactionId, WriteError, Writer};

use crate::nonce::NONCE_BYTES;

/// What an answer repeats of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    pub(crate) method: Method,
    pub(crate) id: TransactionId,
    has_fingerprint: bool,
    fingerprint_always: bool,
}

impl Envelope {
    pub(crate) fn of(message: &Message<'_>, fingerprint_always: bool) -> Self {
        Self {
            method: message.method(),
            id: message.transaction_id(),
            has_fingerprint: message.has_fingerprint(),
            fingerprint_always,
        }
    }
}

/// The key of an authenticated caller, and the integrity attribute that the caller used.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    pub(crate) key: IntegrityKey,
    pub(crate) is_sha256: bool,
}

/// Why a request is not granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) extra: Extra,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extra {
    Nothing,
    /// REALM and a fresh NONCE.
    Challenge,
    Unknown([AttributeType; UNKNOWN_MAX], usize),
    Alternate(SocketAddr),
}

/// Unknown attributes that a refusal names.
const UNKNOWN_MAX: usize = 8;

impl Refusal {
    pub(crate) const fn new(code: u16) -> Self {
        Self { code, extra: Extra::Nothing }
    }

    pub(crate) const fn challenge(code: u16) -> Self {
        Self { code, extra: Extra::Challenge }
    }

    /// 420 if the message has attributes that the sender insists on and that nobody here knows.
    pub(crate) fn of_unknown_attributes(message: &Message<'_>) -> Option<Self> {
        let mut kinds = [AttributeType(0); UNKNOWN_MAX];
        let mut len = 0;
        for (kind, slot) in message.unknown_comprehension_required(KNOWN).zip(&mut kinds) {
            *slot = kind;
            len += 1;
        }
        (len > 0).then_some(Self { code: 420, extra: Extra::Unknown(kinds, len) })
    }

    /// Strangers get no phrase: their answer must be small (see the crate's tests of amplification).
    fn phrase(self, is_signed: bool) -> &'static str {
        if !is_signed {
            return "";
        }
        match self.code {
            300 => "Try Alternate",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            405 => "Mobility Forbidden",
            420 => "Unknown Attribute",
            437 => "Allocation Mismatch",
            438 => "Stale Nonce",
            440 => "Address Family not Supported",
            441 => "Wrong Credentials",
            442 => "Unsupported Transport Protocol",
            443 => "Peer Address Family Mismatch",
            446 => "Connection Already Exists",
            447 => "Connection Timeout or Failure",
            486 => "Allocation Quota Reached",
            508 => "Insufficient Capacity",
            _ => "Server Error",
        }
    }
}

/// What [`write_error`] needs beside the refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Challenge<'s> {
    pub(crate) realm: &'s str,
    pub(crate) nonce: [u8; NONCE_BYTES],
}

pub(crate) fn write_error(
    out: &mut [u8],
    envelope: Envelope,
    signer: Option<&Signer>,
    refusal: Refusal,
    challenge: Challenge<'_>,
) -> Result<usize, WriteError> {
    let mut writer = Writer::new(out, Class::Error, envelope.method, envelope.id)?;
    writer.error_code(refusal.code, refusal.phrase(signer.is_some()))?;
    match refusal.extra {
        Extra::Nothing => {}
        Extra::Challenge => {
            writer.realm(challenge.realm.as_bytes())?;
            writer.nonce(&challenge.nonce)?;
        }
        Extra::Unknown(kinds, len) => writer.unknown_attributes(kinds.into_iter().take(len))?,
        Extra::Alternate(address) => write_alternate(&mut writer, address)?,
    }
    finish(writer, envelope, signer)
}

pub(crate) fn write_success(
    out: &mut [u8],
    envelope: Envelope,
    signer: Option<&Signer>,
    body: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteError>,
) -> Result<usize, WriteError> {
    let mut writer = Writer::new(out, Class::Success, envelope.method, envelope.id)?;
    body(&mut writer)?;
    finish(writer, envelope, signer)
}

fn finish(mut writer: Writer<'_>, envelope: Envelope, signer: Option<&Signer>) -> Result<usize, WriteError> {
    // A FINGERPRINT that a stranger did not use would only make the answer longer.
    let with_fingerprint = envelope.has_fingerprint || (envelope.fingerprint_always && signer.is_some());
    match signer {
        Some(signer) if signer.is_sha256 => {
            writer.integrity_sha256(&signer.key)?;
            writer.finish(None, with_fingerprint)
        }
        signer => writer.finish(signer.map(|signer| &signer.key), with_fingerprint),
    }
}

/// ALTERNATE-SERVER is not XORed (RFC 8489 section 14.15).
fn write_alternate(writer: &mut Writer<'_>, address: SocketAddr) -> Result<(), WriteError> {
    let mut value = [0; 20];
    value[2..4].copy_from_slice(&address.port().to_be_bytes());
    let len = match address.ip() {
        IpAddr::V4(ip) => {
            value[1] = 1;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = 2;
            value[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    writer.attribute(AttributeType::ALTERNATE_SERVER, &value[..len])
}

/// RFC 8016 section 3.2.1. Optional to understand, but refused by name, so that a client knows.
pub(crate) const MOBILITY_TICKET: AttributeType = AttributeType(0x8030);

const KNOWN: &[AttributeType] = &[
    AttributeType::MAPPED_ADDRESS,
    AttributeType::USERNAME,
    AttributeType::MESSAGE_INTEGRITY,
    AttributeType::MESSAGE_INTEGRITY_SHA256,
    AttributeType::ERROR_CODE,
    AttributeType::UNKNOWN_ATTRIBUTES,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::XOR_MAPPED_ADDRESS,
    AttributeType::PRIORITY,
    AttributeType::USE_CANDIDATE,
    AttributeType::CHANNEL_NUMBER,
    AttributeType::LIFETIME,
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::DATA,
    AttributeType::XOR_RELAYED_ADDRESS,
    AttributeType::REQUESTED_ADDRESS_FAMILY,
    AttributeType::EVEN_PORT,
    AttributeType::REQUESTED_TRANSPORT,
    AttributeType::DONT_FRAGMENT,
    AttributeType::RESERVATION_TOKEN,
    AttributeType::CONNECTION_ID,
];
