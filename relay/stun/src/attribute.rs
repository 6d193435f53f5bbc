//! Attribute numbers and the encodings of attribute values that are more than a plain number.
//! Where an attribute stands in a message is the reader's and writer's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::header::{MAGIC_COOKIE, TransactionId};

/// The type of an attribute: its number in the STUN attribute registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttributeType(pub u16);

impl AttributeType {
    // RFC 8489 section 18.3
    pub const MAPPED_ADDRESS: Self = Self(0x0001);
    pub const USERNAME: Self = Self(0x0006);
    pub const MESSAGE_INTEGRITY: Self = Self(0x0008);
    pub const ERROR_CODE: Self = Self(0x0009);
    pub const UNKNOWN_ATTRIBUTES: Self = Self(0x000A);
    pub const REALM: Self = Self(0x0014);
    pub const NONCE: Self = Self(0x0015);
    pub const MESSAGE_INTEGRITY_SHA256: Self = Self(0x001C);
    pub const PASSWORD_ALGORITHM: Self = Self(0x001D);
    pub const USERHASH: Self = Self(0x001E);
    pub const XOR_MAPPED_ADDRESS: Self = Self(0x0020);
    pub const PASSWORD_ALGORITHMS: Self = Self(0x8002);
    pub const ALTERNATE_DOMAIN: Self = Self(0x8003);
    pub const SOFTWARE: Self = Self(0x8022);
    pub const ALTERNATE_SERVER: Self = Self(0x8023);
    pub const FINGERPRINT: Self = Self(0x8028);
    // RFC 8445 section 16.1
    pub const PRIORITY: Self = Self(0x0024);
    pub const USE_CANDIDATE: Self = Self(0x0025);
    pub const ICE_CONTROLLED: Self = Self(0x8029);
    pub const ICE_CONTROLLING: Self = Self(0x802A);
    // RFC 8656 section 18
    pub const CHANNEL_NUMBER: Self = Self(0x000C);
    pub const LIFETIME: Self = Self(0x000D);
    pub const XOR_PEER_ADDRESS: Self = Self(0x0012);
    pub const DATA: Self = Self(0x0013);
    pub const XOR_RELAYED_ADDRESS: Self = Self(0x0016);
    pub const REQUESTED_ADDRESS_FAMILY: Self = Self(0x0017);
    pub const EVEN_PORT: Self = Self(0x0018);
    pub const REQUESTED_TRANSPORT: Self = Self(0x0019);
    pub const DONT_FRAGMENT: Self = Self(0x001A);
    pub const RESERVATION_TOKEN: Self = Self(0x0022);
    pub const ADDITIONAL_ADDRESS_FAMILY: Self = Self(0x8000);
    pub const ADDRESS_ERROR_CODE: Self = Self(0x8001);
    pub const ICMP: Self = Self(0x8004);
    // RFC 6062 section 6.2
    pub const CONNECTION_ID: Self = Self(0x002A);

    /// Whether a receiver that does not know the attribute must refuse the message (RFC 8489 section 14).
    pub const fn is_comprehension_required(self) -> bool {
        self.0 < 0x8000
    }
}

/// The value of ERROR-CODE (RFC 8489 section 14.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    /// 300 to 699.
    pub code: u16,
    /// Empty when the sender's phrase is not UTF-8.
    pub reason: &'a str,
}

/// The longest value of an address attribute: family and port, then 16 bytes of IPv6.
pub(crate) const ADDRESS_BYTES_MAX: usize = 20;

/// The longest reason phrase: fewer than 128 characters of up to 6 bytes (RFC 8489 section 14.8).
pub(crate) const REASON_BYTES_MAX: usize = 763;

const FAMILY_IPV4: u8 = 0x01;
const FAMILY_IPV6: u8 = 0x02;

/// RFC 8489 section 14.2. Returns the used part of `out`.
pub(crate) fn encode_xor_address(address: SocketAddr, id: TransactionId, out: &mut [u8; ADDRESS_BYTES_MAX]) -> &[u8] {
    let mask = mask(id);
    let port = address.port() ^ (MAGIC_COOKIE >> 16) as u16;
    out[0] = 0;
    out[2..4].copy_from_slice(&port.to_be_bytes());
    let len = match address.ip() {
        IpAddr::V4(ip) => {
            out[1] = FAMILY_IPV4;
            out[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            out[1] = FAMILY_IPV6;
            out[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    for (byte, mask) in out[4..len].iter_mut().zip(mask) {
        *byte ^= mask;
    }
    &out[..len]
}

pub(crate) fn decode_xor_address(value: &[u8], id: TransactionId) -> Option<SocketAddr> {
    let mask = mask(id);
    let port = u16::from_be_bytes([*value.get(2)?, *value.get(3)?]) ^ (MAGIC_COOKIE >> 16) as u16;
    let ip = match (value.get(1), value.len()) {
        (Some(&FAMILY_IPV4), 8) => IpAddr::V4(Ipv4Addr::from(unmask::<4>(&value[4..], &mask)?)),
        (Some(&FAMILY_IPV6), 20) => IpAddr::V6(Ipv6Addr::from(unmask::<16>(&value[4..], &mask)?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

pub(crate) fn decode_error_code(value: &[u8]) -> Option<ErrorCode<'_>> {
    let (head, reason) = value.split_first_chunk::<4>()?;
    let (class, number) = (head[2] & 0x07, head[3]);
    if !(3..=6).contains(&class) || number > 99 || reason.len() > REASON_BYTES_MAX {
        return None;
    }
    let code = u16::from(class) * 100 + u16::from(number);
    Some(ErrorCode { code, reason: std::str::from_utf8(reason).unwrap_or_default() })
}

fn mask(id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(id.as_bytes());
    mask
}

fn unmask<const N: usize>(value: &[u8], mask: &[u8; 16]) -> Option<[u8; N]> {
    let mut bytes: [u8; N] = value.try_into().ok()?;
    for (byte, mask) in bytes.iter_mut().zip(mask) {
        *byte ^= mask;
    }
    Some(bytes)
}
