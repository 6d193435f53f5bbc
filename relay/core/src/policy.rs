//! Which peers may be reached: the one place that decides it, for permissions, channels and Send indications alike.
//!
//! In listed mode (the default) peers are the media nodes and nothing else. In general mode everything that is not
//! denied is a peer. In both, some addresses are never peers, whatever the lists say: this host, loopback,
//! "this network", multicast and broadcast; loopback and multicast each have a switch of their own.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::address::{AddressRange, embedded_ipv4};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Denied,
}

#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Off: only `allowed` are peers. On: all but `denied`, and `allowed` beats `denied`.
    pub general: bool,
    pub allowed: Vec<AddressRange>,
    /// General mode: beside the ranges that are denied by default.
    pub denied: Vec<AddressRange>,
    /// Addresses of this host: listeners, metrics, relays. Denied but for `relay_ports` and for entries of `allowed` that
    /// name one address and its ports (a media node on the same host).
    pub own: Vec<IpAddr>,
    /// Set when clients may reach each other through their relayed addresses: these ports of `own` are peers.
    pub relay_ports: Option<RangeInclusive<u16>>,
    pub allow_loopback: bool,
    pub allow_multicast: bool,
}

impl Policy {
    /// For permissions, which have no port (RFC 8656 section 9).
    pub fn check_ip(&self, ip: IpAddr) -> Verdict {
        self.check(ip, None)
    }

    /// For channels and Send indications.
    pub fn check_peer(&self, peer: SocketAddr) -> Verdict {
        if peer.port() == 0 { Verdict::Denied } else { self.check(peer.ip(), Some(peer.port())) }
    }

    /// The address itself and every IPv4 address inside it must pass.
    fn check(&self, ip: IpAddr, port: Option<u16>) -> Verdict {
        let hidden_passes = match ip {
            IpAddr::V4(_) => true,
            IpAddr::V6(v6) => embedded_ipv4(v6)
                .all(|v4| self.is_peer(v4.into(), port, true) && !self.is_never_peer(v4.into(), port)),
        };
        if hidden_passes && !self.is_never_peer(ip, port) && self.is_peer(ip, port, false) {
            Verdict::Allowed
        } else {
            Verdict::Denied
        }
    }

    fn is_peer(&self, ip: IpAddr, port: Option<u16>, is_hidden: bool) -> bool {
        let matches = |range: &AddressRange| range.contains(ip) && port.is_none_or(|port| range.contains_port(port));
        if self.allowed.iter().any(matches) || self.is_relay(ip, port) {
            return true;
        }
        // Who lists an IPv6 address that has an IPv4 one inside has listed both.
        if !self.general {
            return is_hidden;
        }
        let opened = (self.allow_loopback && ip.is_loopback()) || (self.allow_multicast && ip.is_multicast());
        !self.denied.iter().any(matches) && (opened || !DENIED_BY_DEFAULT.iter().any(|range| range.contains(ip)))
    }

    fn is_never_peer(&self, ip: IpAddr, port: Option<u16>) -> bool {
        if self.own.contains(&ip) {
            return !self.is_relay(ip, port) && !self.is_named(ip, port);
        }
        match ip {
            _ if ip.is_loopback() => !self.allow_loopback,
            _ if ip.is_multicast() => !self.allow_multicast,
            IpAddr::V4(ip) => ip.octets()[0] == 0 || ip.octets()[0] >= 240,
            IpAddr::V6(ip) => ip.is_unspecified(),
        }
    }

    /// A media node on this host: opened by an entry that names this address and ports of it, never by a wider range.
    fn is_named(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.allowed.iter().any(|range| {
            range.is_endpoint() && range.contains(ip) && port.is_none_or(|port| range.contains_port(port))
        })
    }

    fn is_relay(&self, ip: IpAddr, port: Option<u16>) -> bool {
        let Some(ports) = &self.relay_ports else { return false };
        self.own.contains(&ip) && port.is_none_or(|port| ports.contains(&port))
    }
}

/// Special-purpose addresses (RFC 6890 and its registries), and every form that embeds an IPv4 address.
const DENIED_BY_DEFAULT: &[AddressRange] = &[
    AddressRange::v4([0, 0, 0, 0], 8),
    AddressRange::v4([10, 0, 0, 0], 8),
    AddressRange::v4([100, 64, 0, 0], 10),
    AddressRange::v4([127, 0, 0, 0], 8),
    AddressRange::v4([169, 254, 0, 0], 16),
    AddressRange::v4([172, 16, 0, 0], 12),
    AddressRange::v4([192, 0, 0, 0], 24),
    AddressRange::v4([192, 0, 2, 0], 24),
    AddressRange::v4([192, 88, 99, 0], 24),
    AddressRange::v4([192, 168, 0, 0], 16),
    AddressRange::v4([198, 18, 0, 0], 15),
    AddressRange::v4([198, 51, 100, 0], 24),
    AddressRange::v4([203, 0, 113, 0], 24),
    AddressRange::v4([224, 0, 0, 0], 4),
    AddressRange::v4([240, 0, 0, 0], 4),
    // ::, ::1 and the IPv4-compatible, mapped and translated forms.
    AddressRange::v6([0, 0, 0, 0, 0, 0, 0, 0], 64),
    AddressRange::v6([0x64, 0xFF9B, 0, 0, 0, 0, 0, 0], 32),
    AddressRange::v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64),
    // Teredo, ORCHID and the rest of the IETF's protocol assignments.
    AddressRange::v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    AddressRange::v6([0x2001, 0xDB8, 0, 0, 0, 0, 0, 0], 32),
    AddressRange::v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    AddressRange::v6([0x3FFF, 0, 0, 0, 0, 0, 0, 0], 20),
    AddressRange::v6([0xFC00, 0, 0, 0, 0, 0, 0, 0], 7),
    AddressRange::v6([0xFE80, 0, 0, 0, 0, 0, 0, 0], 10),
    AddressRange::v6([0xFEC0, 0, 0, 0, 0, 0, 0, 0], 10),
    AddressRange::v6([0xFF00, 0, 0, 0, 0, 0, 0, 0], 8),
];
