//! Who a client is to the server: its half of the 5-tuple, and the key that finds its allocation with one hash.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

/// A client as its transport sees it. It does not print: the address is a person's.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub address: SocketAddr,
    pub link: Link,
}

/// The server's half of the 5-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The number of the UDP listener that the datagram came in on.
    Udp { listener: u16 },
    /// A connection over TCP or TLS. Numbers are not used again while one is open.
    Stream { connection: u32 },
}

impl Client {
    /// Messages on a stream are padded to four bytes (RFC 8656 section 12.5).
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.link, Link::Stream { .. })
    }

    pub(crate) fn key(&self) -> ClientKey {
        let (family, high, low) = match self.address.ip() {
            IpAddr::V4(ip) => (0, 0, u64::from(ip.to_bits())),
            IpAddr::V6(ip) => (1, (ip.to_bits() >> 64) as u64, ip.to_bits() as u64),
        };
        let (stream, number) = match self.link {
            Link::Udp { listener } => (0, u64::from(listener)),
            Link::Stream { connection } => (1, u64::from(connection)),
        };
        ClientKey([high, low, u64::from(self.address.port()) | family << 16 | stream << 17 | number << 32])
    }

    /// What limits by source count: the IPv4 address, or the /64 of an IPv6 address, which one host can fill alone.
    pub(crate) fn source(&self) -> u64 {
        match self.address.ip() {
            // No source has an IPv6 address that begins with 32 ones.
            IpAddr::V4(ip) => 0xFFFF_FFFF_0000_0000 | u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("link", &self.link).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientKey([u64; 3]);

impl Hash for ClientKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for word in self.0 {
            state.write_u64(word);
        }
    }
}

/// A keyed hash for tables whose keys are words that clients have a say in.
#[derive(Clone, Copy)]
pub(crate) struct KeyedHash {
    start: u64,
    factor: u64,
}

impl KeyedHash {
    pub(crate) fn new(start: u64, factor: u64) -> Self {
        Self { start, factor: factor | 1 }
    }

    pub(crate) fn of(&self, word: u64) -> u64 {
        let mut hasher = self.build_hasher();
        hasher.write_u64(word);
        hasher.finish()
    }
}

impl BuildHasher for KeyedHash {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { state: self.start, factor: self.factor }
    }
}

pub(crate) struct Folded {
    state: u64,
    factor: u64,
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = (product >> 64) as u64 ^ product as u64 ^ self.state.rotate_left(23);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(0x9E37_79B9_7F4A_7C15_u64);
        (product >> 64) as u64 ^ product as u64
    }
}
