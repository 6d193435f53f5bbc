//! One allocation: its relayed addresses, permissions and channels. Times are compared when something is used; nothing
//! here has a timer of its own but the allocation itself, and that is the server's.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun::{IntegrityKey, TransactionId};

use crate::client::Client;
use crate::limiter::Bucket;
use crate::tcp_relay::PeerConnection;

/// Names an allocation for as long as it lives; never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationId {
    pub index: u32,
    pub generation: u32,
}

/// Of a relayed address. An allocation has one or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// RFC 8656 section 18.6.
    pub(crate) fn from_wire(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::V4),
            2 => Some(Self::V6),
            _ => None,
        }
    }

    pub(crate) fn to_wire(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }
}

/// A relayed address and the port that it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leg {
    /// Which of the relay addresses of the settings.
    pub(crate) relay: usize,
    pub(crate) port: u16,
    pub(crate) advertised: IpAddr,
}

impl Leg {
    pub(crate) fn relayed(&self) -> SocketAddr {
        SocketAddr::new(self.advertised, self.port)
    }
}

/// Whose allocation it is. The key stays good for the allocation after its credential has expired or its secret is gone
/// (but see strict expiry).
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) username: Box<[u8]>,
    /// Whom quotas count.
    pub(crate) user: Box<[u8]>,
    pub(crate) key: IntegrityKey,
    pub(crate) expires_unix_s: Option<u64>,
}

/// What the first answer said, to be said again when its request is repeated.
#[derive(Debug)]
pub(crate) struct FirstAnswer {
    pub(crate) id: TransactionId,
    pub(crate) lifetime_s: u32,
    pub(crate) token: Option<[u8; 8]>,
    /// The additional address family that could not be had, and why (RFC 8656 section 18.12).
    pub(crate) missing: Option<(Family, u16)>,
}

#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) generation: u32,
    pub(crate) client: Client,
    pub(crate) owner: Owner,
    pub(crate) first: FirstAnswer,
    pub(crate) legs: [Option<Leg>; 2],
    pub(crate) expires: Instant,
    pub(crate) to_peer: Bucket,
    pub(crate) to_client: Bucket,
    pub(crate) peers: Peers,
    /// For connections instead of datagrams (RFC 6062).
    pub(crate) is_tcp: bool,
    pub(crate) connections: Vec<PeerConnection>,
}

impl Allocation {
    pub(crate) fn has_leg(&self, ip: IpAddr) -> bool {
        self.leg_for(ip).is_some()
    }

    pub(crate) fn leg_for(&self, ip: IpAddr) -> Option<Leg> {
        self.legs[Family::of(ip) as usize]
    }
}

#[derive(Clone, Copy, Debug)]
struct Permission {
    ip: IpAddr,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel {
    pub(crate) number: u16,
    pub(crate) peer: SocketAddr,
    until: Instant,
    /// The permission of the peer's address, repeated here so that a packet needs one search.
    permitted_until: Instant,
}

/// Whom the client may talk to. A handful in practice and bounded by the settings, so they are searched one by one: for
/// a media node it is the first.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    permissions: Vec<Permission>,
    channels: Vec<Channel>,
}

/// Why a channel cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unbindable {
    /// The channel has another peer, or the peer another channel (RFC 8656 section 12.2).
    Taken,
    Full,
}

impl Peers {
    /// Most frequent first: the peer of a channel that is bound and permitted.
    pub(crate) fn peer_of(&self, number: u16, now: Instant) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.number == number && now < channel.until)
    }

    pub(crate) fn channel_of(&self, peer: SocketAddr, now: Instant) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.peer == peer && now < channel.until)
    }

    pub(crate) fn is_permitted(&self, ip: IpAddr, now: Instant) -> bool {
        self.permissions.iter().any(|permission| permission.ip == ip && now < permission.until)
    }

    /// Whether these addresses, all of them, can be permitted.
    pub(crate) fn has_room(&mut self, ips: &[IpAddr], now: Instant, max: usize) -> bool {
        self.permissions.retain(|permission| now < permission.until);
        let new = ips
            .iter()
            .enumerate()
            .filter(|(at, ip)| !ips[..*at].contains(ip) && !self.permissions.iter().any(|p| p.ip == **ip));
        self.permissions.len() + new.count() <= max
    }

    /// The caller has asked [`Peers::has_room`].
    pub(crate) fn permit(&mut self, ip: IpAddr, until: Instant) {
        match self.permissions.iter_mut().find(|permission| permission.ip == ip) {
            Some(permission) => permission.until = until,
            None => self.permissions.push(Permission { ip, until }),
        }
        for channel in self.channels.iter_mut().filter(|channel| channel.peer.ip() == ip) {
            channel.permitted_until = until;
        }
    }

    pub(crate) fn can_bind(
        &mut self,
        number: u16,
        peer: SocketAddr,
        now: Instant,
        max: usize,
    ) -> Result<(), Unbindable> {
        self.channels.retain(|channel| now < channel.until);
        match self.channels.iter().find(|channel| channel.number == number || channel.peer == peer) {
            Some(channel) if channel.number == number && channel.peer == peer => Ok(()),
            Some(_) => Err(Unbindable::Taken),
            None if self.channels.len() >= max => Err(Unbindable::Full),
            None => Ok(()),
        }
    }

    /// The caller has asked [`Peers::can_bind`], and permits the peer afterwards.
    pub(crate) fn bind(&mut self, number: u16, peer: SocketAddr, now: Instant, lifetime: Duration) {
        let until = now + lifetime;
        match self.channels.iter_mut().find(|channel| channel.number == number) {
            Some(channel) => channel.until = until,
            None => self.channels.push(Channel { number, peer, until, permitted_until: now }),
        }
    }

    /// Forgets everything about peers that are denied now.
    pub(crate) fn keep_allowed(&mut self, ip: impl Fn(IpAddr) -> bool, peer: impl Fn(SocketAddr) -> bool) {
        self.permissions.retain(|permission| ip(permission.ip));
        self.channels.retain(|channel| peer(channel.peer));
    }
}

impl Channel {
    pub(crate) fn is_permitted(&self, now: Instant) -> bool {
        now < self.permitted_until
    }
}
