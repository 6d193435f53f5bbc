//! Ranges of IP addresses (and ports) as operators write them, and the IPv4 addresses that hide inside IPv6 ones.
//! What a range means for a peer is the policy's business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// `192.0.2.1`, `192.0.2.0-192.0.2.9`, `2001:db8::/32`, each optionally with ports: `192.0.2.1:40000-40063`,
/// `[2001:db8::1]:40000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
    ports: Option<RangeInclusive<u16>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRange {
    #[error("{0:?} is not an address, a range a-b or a prefix a/n")]
    Address(String),
    #[error("prefix length {0:?} is too long for its address")]
    Prefix(String),
    #[error("range {0:?} mixes IPv4 and IPv6")]
    MixedFamilies(String),
    #[error("range {0:?} ends before it begins")]
    Backwards(String),
    #[error("ports {0:?} are not a port or a range a-b")]
    Ports(String),
}

impl AddressRange {
    pub const fn v4(a: [u8; 4], prefix: u8) -> Self {
        let bits = u32::from_be_bytes(a);
        let host = if prefix == 0 { u32::MAX } else { (1_u32 << (32 - prefix)).wrapping_sub(1) };
        Self {
            first: IpAddr::V4(Ipv4Addr::from_bits(bits & !host)),
            last: IpAddr::V4(Ipv4Addr::from_bits(bits | host)),
            ports: None,
        }
    }

    pub const fn v6(segments: [u16; 8], prefix: u8) -> Self {
        let [a, b, c, d, e, f, g, h] = segments;
        let bits = Ipv6Addr::new(a, b, c, d, e, f, g, h).to_bits();
        let host = if prefix == 0 { u128::MAX } else { (1_u128 << (128 - prefix)).wrapping_sub(1) };
        Self {
            first: IpAddr::V6(Ipv6Addr::from_bits(bits & !host)),
            last: IpAddr::V6(Ipv6Addr::from_bits(bits | host)),
            ports: None,
        }
    }

    pub fn single(ip: IpAddr) -> Self {
        Self { first: ip, last: ip, ports: None }
    }

    #[must_use]
    pub fn with_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Whatever the port.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.first, self.last, ip) {
            (IpAddr::V4(first), IpAddr::V4(last), IpAddr::V4(ip)) => first <= ip && ip <= last,
            // The order of `Ipv6Addr` is that of its bytes from the left, so that of the 128-bit number.
            (IpAddr::V6(first), IpAddr::V6(last), IpAddr::V6(ip)) => first <= ip && ip <= last,
            _ => false,
        }
    }

    /// One address with some of its ports.
    pub(crate) fn is_endpoint(&self) -> bool {
        self.first == self.last && self.ports.is_some()
    }

    pub fn contains_port(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }
}

impl From<IpAddr> for AddressRange {
    fn from(ip: IpAddr) -> Self {
        Self::single(ip)
    }
}

impl FromStr for AddressRange {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let text = text.trim();
        let (addresses, ports) = split_ports(text);
        let ports = ports.map(parse_ports).transpose()?;
        let (first, last) = parse_addresses(addresses)?;
        Ok(Self { first, last, ports })
    }
}

/// A colon begins ports after a closing bracket, or when it is the only one (IPv6 has at least two).
fn split_ports(text: &str) -> (&str, Option<&str>) {
    if let Some((inside, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return match rest.strip_prefix(':') {
            Some(ports) => (inside, Some(ports)),
            None if rest.is_empty() => (inside, None),
            None => (text, None),
        };
    }
    match text.split_once(':') {
        Some((address, ports)) if !ports.contains(':') => (address, Some(ports)),
        _ => (text, None),
    }
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, BadRange> {
    let bad = || BadRange::Ports(text.to_owned());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first > last { Err(bad()) } else { Ok(first..=last) }
}

fn parse_addresses(text: &str) -> Result<(IpAddr, IpAddr), BadRange> {
    let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| BadRange::Address(text.to_owned()));
    if let Some((ip, prefix)) = text.split_once('/') {
        let bad = || BadRange::Prefix(text.to_owned());
        let prefix: u8 = prefix.trim().parse().map_err(|_| bad())?;
        let range = match address(ip)? {
            IpAddr::V4(ip) if prefix <= 32 => AddressRange::v4(ip.octets(), prefix),
            IpAddr::V6(ip) if prefix <= 128 => AddressRange::v6(ip.segments(), prefix),
            IpAddr::V4(_) | IpAddr::V6(_) => return Err(bad()),
        };
        return Ok((range.first, range.last));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (address(first)?, address(last)?);
    if first.is_ipv4() != last.is_ipv4() {
        return Err(BadRange::MixedFamilies(text.to_owned()));
    }
    if first > last { Err(BadRange::Backwards(text.to_owned())) } else { Ok((first, last)) }
}

/// The IPv4 addresses that a packet to this address could end at: mapped, compatible, 6to4, NAT64 (well-known and
/// local-use prefix), ISATAP and Teredo (its server and its client).
pub(crate) fn embedded_ipv4(ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let bits = ip.to_bits();
    let segments = ip.segments();
    let low = Ipv4Addr::from_bits(bits as u32);
    let [a, b, ..] = segments;
    let ends_in_ipv4 = bits >> 32 == 0xFFFF // ::ffff:a.b.c.d, RFC 4291 section 2.5.5.2
        || bits >> 32 == 0xFFFF_0000 // ::ffff:0:a.b.c.d, RFC 2765
        || (bits >> 32 == 0 && bits > 1) // ::a.b.c.d, RFC 4291 section 2.5.5.1
        || (a == 0x64 && b == 0xFF9B) // RFC 6052 and RFC 8215
        || matches!(segments[4..6], [0 | 0x0200, 0x5EFE]); // RFC 5214
    let teredo = a == 0x2001 && b == 0; // RFC 4380 section 4
    let six_to_four = a == 0x2002; // RFC 3056
    [
        ends_in_ipv4.then_some(low),
        six_to_four.then(|| Ipv4Addr::from_bits((bits >> 80) as u32)),
        teredo.then(|| Ipv4Addr::from_bits((bits >> 64) as u32)),
        teredo.then(|| Ipv4Addr::from_bits(!(bits as u32))),
    ]
    .into_iter()
    .flatten()
}
