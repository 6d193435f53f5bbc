//! Socket addresses in the kernel's layout. IPv4 peers of an IPv6 socket appear as IPv4 to our callers: one peer has
//! one address whatever socket it arrives on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// `struct sockaddr_in` (16 bytes) or `struct sockaddr_in6` (28 bytes), see `ip(7)` and `ipv6(7)`:
///
/// ```text
/// in   family(2, native) port(2) address(4)  zero(8)
/// in6  family(2, native) port(2) flowinfo(4) address(16) scope(4, native)
/// ```
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct RawAddress([u8; V6_BYTES]);

impl RawAddress {
    pub(crate) const BYTES: usize = V6_BYTES;

    pub(crate) const EMPTY: Self = Self([0; Self::BYTES]);

    /// The address as a socket of that family takes it, and its length; `None` for an IPv6 address on an IPv4 socket.
    pub(crate) fn encode(address: SocketAddr, is_ipv6_socket: bool) -> Option<(Self, usize)> {
        match (address, is_ipv6_socket) {
            (SocketAddr::V4(address), false) => Some(Self::v4(address)),
            (SocketAddr::V4(address), true) => {
                Some(Self::v6(SocketAddrV6::new(address.ip().to_ipv6_mapped(), address.port(), 0, 0)))
            }
            (SocketAddr::V6(address), true) => Some(Self::v6(address)),
            (SocketAddr::V6(address), false) => {
                let ip = address.ip().to_ipv4_mapped()?;
                Some(Self::v4(SocketAddrV4::new(ip, address.port())))
            }
        }
    }

    /// `None` when the family is neither IPv4 nor IPv6 or the kernel wrote less than the family needs.
    pub(crate) fn decode(&self, len: usize) -> Option<SocketAddr> {
        let bytes = &self.0;
        let family = i32::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        if family == libc::AF_INET && len >= V4_BYTES {
            let ip: [u8; 4] = bytes[4..8].try_into().ok()?;
            return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port));
        }
        if family != libc::AF_INET6 || len < Self::BYTES {
            return None;
        }
        let octets: [u8; 16] = bytes[8..24].try_into().ok()?;
        let ip = Ipv6Addr::from(octets);
        if let Some(ip) = ip.to_ipv4_mapped() {
            return Some(SocketAddr::new(IpAddr::V4(ip), port));
        }
        let scope = u32::from_ne_bytes(bytes[24..28].try_into().ok()?);
        Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
    }

    fn v4(address: SocketAddrV4) -> (Self, usize) {
        let mut bytes = Self::head(libc::AF_INET, address.port());
        bytes[4..8].copy_from_slice(&address.ip().octets());
        (Self(bytes), V4_BYTES)
    }

    fn v6(address: SocketAddrV6) -> (Self, usize) {
        let mut bytes = Self::head(libc::AF_INET6, address.port());
        bytes[4..8].copy_from_slice(&address.flowinfo().to_be_bytes());
        bytes[8..24].copy_from_slice(&address.ip().octets());
        bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
        (Self(bytes), Self::BYTES)
    }

    fn head(family: i32, port: u16) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        // Address families are small positive numbers.
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&port.to_be_bytes());
        bytes
    }
}

/// `sizeof(struct sockaddr_in)`.
const V4_BYTES: usize = 16;

/// `sizeof(struct sockaddr_in6)`.
const V6_BYTES: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_one_of_libc() {
        assert_eq!(V4_BYTES, size_of::<libc::sockaddr_in>());
        assert_eq!(RawAddress::BYTES, size_of::<libc::sockaddr_in6>());
        assert!(align_of::<RawAddress>() >= align_of::<libc::sockaddr_in6>());
    }

    #[test]
    fn addresses_round_trip() {
        for (text, is_ipv6_socket) in [
            ("192.0.2.1:5000", false),
            ("192.0.2.1:5000", true),
            ("[2001:db8::1]:65535", true),
            ("[fe80::1%7]:1", true),
        ] {
            let address: SocketAddr = text.parse().expect("an address");
            let (raw, len) = RawAddress::encode(address, is_ipv6_socket).expect("family fits");
            assert_eq!(raw.decode(len), Some(address), "{text}");
        }
    }

    #[test]
    fn mapped_addresses_become_ipv4_and_real_ipv6_does_not_fit_an_ipv4_socket() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:9".parse().expect("an address");
        let (raw, len) = RawAddress::encode(mapped, false).expect("mapped fits");
        assert_eq!(raw.decode(len), Some("192.0.2.1:9".parse().expect("an address")));
        assert!(RawAddress::encode("[2001:db8::1]:9".parse().expect("an address"), false).is_none());
    }

    #[test]
    fn short_or_foreign_addresses_are_not_decoded() {
        let (raw, len) = RawAddress::encode("[2001:db8::1]:9".parse().expect("an address"), true).expect("fits");
        assert_eq!(raw.decode(len - 1), None);
        assert_eq!(RawAddress::EMPTY.decode(RawAddress::BYTES), None);
    }
}
