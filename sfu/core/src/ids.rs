//! Newtypes at the borders where two numbers could be swapped. No names, no strings: the shell maps those.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// A room inside one shard. Chosen by the shell, never reused while the room lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RoomId(pub u64);

/// A participant's connection. Chosen by the shell, never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PeerId(pub u64);

/// A published source. Doubles as the CSRC that names the source in every forwarded packet (RFC 3550 section 5.1),
/// therefore 32 bits, never 0, unique in the room.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct TrackId(pub u32);

/// Synchronisation source of an RTP stream (RFC 3550 section 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(pub u32);

impl fmt::Debug for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ssrc({:08x})", self.0)
    }
}

/// What a track carries and what a slot receives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum TrackKind {
    /// A voice. Competes for speech slots.
    Mic,
    /// Desktop sound or a shared tab. Has slots of its own and is never dropped for being quiet.
    Program,
}

/// Media identification of an m-line (RFC 5888), at most 16 bytes so that it fits a one-byte header extension
/// (RFC 8285 section 4.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mid {
    bytes: [u8; Self::LEN_MAX],
    len: u8,
}

impl Mid {
    pub const LEN_MAX: usize = 16;

    /// `None` when empty, longer than 16 bytes, or not a token (RFC 8866 section 9).
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let token = |b: u8| b.is_ascii_graphic() && !br#""(),/:;<=>?@[\]"#.contains(&b);
        if text.is_empty() || text.len() > Self::LEN_MAX || !text.bytes().all(token) {
            return None;
        }
        let mut bytes = [0; Self::LEN_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self { bytes, len: u8::try_from(text.len()).ok()? })
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or("")
    }
}

/// Between the shard and a peer: the shard has one port for each transport, so the remote end tells paths apart.
/// Addresses of people do not print (only the port does).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    pub transport: Transport,
    pub remote: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    Udp,
    /// A connection that the peer has opened, with a length before each datagram (RFC 6544, RFC 4571).
    Tcp,
}

impl Path {
    /// Leads nowhere: of a peer that has lost its last connection and may come back.
    pub(crate) const NOWHERE: Self = Self::tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));

    #[must_use]
    pub const fn udp(remote: SocketAddr) -> Self {
        Self { transport: Transport::Udp, remote }
    }

    #[must_use]
    pub const fn tcp(remote: SocketAddr) -> Self {
        Self { transport: Transport::Tcp, remote }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({:?} _:{})", self.transport, self.remote.port())
    }
}

/// A shard of this process: one thread with one [`Node`](crate::Node).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardId(u8);

impl ShardId {
    /// A set of shards is one machine word.
    pub const COUNT_MAX: u16 = 64;
    pub const FIRST: Self = Self(0);

    /// `None` from [`ShardId::COUNT_MAX`] on.
    #[must_use]
    pub fn new(index: usize) -> Option<Self> {
        u8::try_from(index).ok().filter(|index| u16::from(*index) < Self::COUNT_MAX).map(Self)
    }

    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct ShardSet(u64);

impl ShardSet {
    pub const NONE: Self = Self(0);

    #[must_use]
    pub fn with(self, shard: ShardId) -> Self {
        Self(self.0 | 1 << shard.0)
    }

    #[must_use]
    pub fn without(self, shard: ShardId) -> Self {
        Self(self.0 & !(1 << shard.0))
    }

    #[must_use]
    pub fn contains(self, shard: ShardId) -> bool {
        self.0 & 1 << shard.0 != 0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let next = u8::try_from(left.trailing_zeros()).ok().filter(|_| left != 0)?;
            left &= left - 1;
            Some(ShardId(next))
        })
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        shards.into_iter().fold(Self::NONE, Self::with)
    }
}
