//! The requests of a client that has an allocation: Refresh, CreatePermission, ChannelBind (RFC 8656 sections 8, 10, 12).
//! Each is the same when it comes twice, so nothing is kept for repetitions.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun::{AttributeType, Message, Method};

use crate::allocation::{Family, Unbindable};
use crate::answer::Refusal;
use crate::auth::Caller;
use crate::channel_data::CHANNELS;
use crate::policy::Verdict;
use crate::server::Server;

/// What a granted request is answered with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Granted {
    Plain,
    Lifetime(u32),
}

impl Server {
    /// `at` is the place of the caller's allocation.
    pub(crate) fn serve(
        &mut self,
        now: Instant,
        at: usize,
        message: &Message<'_>,
        caller: &Caller,
    ) -> Result<Granted, Refusal> {
        match message.method() {
            Method::REFRESH => self.refresh(now, at, message, caller),
            Method::CREATE_PERMISSION => self.create_permission(now, at, message),
            Method::CHANNEL_BIND => self.channel_bind(now, at, message),
            // RFC 6062 section 5: there is no TCP allocation.
            Method::CONNECT | Method::CONNECTION_BIND => Err(Refusal::new(437)),
            _ => Err(Refusal::new(400)),
        }
    }

    fn refresh(
        &mut self,
        now: Instant,
        at: usize,
        message: &Message<'_>,
        caller: &Caller,
    ) -> Result<Granted, Refusal> {
        let family = match message.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY) {
            None => None,
            Some(_) => {
                let family = message.requested_address_family().and_then(Family::from_wire);
                let family = family.filter(|family| self.allocations[at].legs[*family as usize].is_some());
                Some(family.ok_or(Refusal::new(443))?)
            }
        };
        if message.lifetime() == Some(0) {
            let has_both = self.allocations[at].legs.iter().all(Option::is_some);
            match family {
                Some(family) if has_both => self.remove_leg(at, family),
                _ => self.remove(at),
            }
            return Ok(Granted::Lifetime(0));
        }
        if let Some(identity) = &caller.identity {
            // The secret was rotated under a user name that stayed.
            let owner = &mut self.allocations[at].owner;
            owner.key = identity.key.clone();
            owner.expires_unix_s = identity.expires_unix_s;
        }
        let expires_unix_s = self.allocations[at].owner.expires_unix_s;
        let lifetime_s = self.granted_lifetime_s(now, message.lifetime(), expires_unix_s);
        if lifetime_s == 0 {
            return Err(Refusal::challenge(401));
        }
        self.set_expiry(at, now + Duration::from_secs(u64::from(lifetime_s)));
        Ok(Granted::Lifetime(lifetime_s))
    }

    /// All addresses or none (RFC 8656 section 10.2).
    fn create_permission(&mut self, now: Instant, at: usize, message: &Message<'_>) -> Result<Granted, Refusal> {
        let max = self.settings.limits.permissions;
        let mut ips = Vec::new();
        for attribute in message.attributes().filter(|a| a.kind == AttributeType::XOR_PEER_ADDRESS) {
            let peer = message.decode_xor_address(attribute.value).ok_or(Refusal::new(400))?;
            self.check_ip(at, peer.ip())?;
            ips.push(peer.ip());
        }
        if ips.is_empty() {
            return Err(Refusal::new(400));
        }
        let until = now + self.settings.limits.permission_lifetime;
        let peers = &mut self.allocations[at].peers;
        if ips.len() > max || !peers.has_room(&ips, now, max) {
            return Err(Refusal::new(508));
        }
        for ip in ips {
            peers.permit(ip, until);
        }
        Ok(Granted::Plain)
    }

    fn channel_bind(&mut self, now: Instant, at: usize, message: &Message<'_>) -> Result<Granted, Refusal> {
        let (Some(number), Some(peer)) = (message.channel_number(), message.xor_peer_address()) else {
            return Err(Refusal::new(400));
        };
        // RFC 6062 section 4.1: connections have no channels.
        if !CHANNELS.contains(&number) || self.allocations[at].is_tcp {
            return Err(Refusal::new(400));
        }
        self.check_peer(at, peer)?;
        let limits = &self.settings.limits;
        let peers = &mut self.allocations[at].peers;
        peers.can_bind(number, peer, now, limits.channels).map_err(|why| match why {
            Unbindable::Taken => Refusal::new(400),
            Unbindable::Full => Refusal::new(508),
        })?;
        if !peers.has_room(&[peer.ip()], now, limits.permissions) {
            return Err(Refusal::new(508));
        }
        peers.bind(number, peer, now, limits.channel_lifetime);
        peers.permit(peer.ip(), now + limits.permission_lifetime);
        Ok(Granted::Plain)
    }

    fn check_ip(&self, at: usize, ip: IpAddr) -> Result<(), Refusal> {
        self.check(at, ip, self.settings.policy.check_ip(ip))
    }

    fn check_peer(&self, at: usize, peer: SocketAddr) -> Result<(), Refusal> {
        self.check(at, peer.ip(), self.settings.policy.check_peer(peer))
    }

    fn check(&self, at: usize, ip: IpAddr, verdict: Verdict) -> Result<(), Refusal> {
        if !self.allocations[at].has_leg(ip) {
            return Err(Refusal::new(443));
        }
        match verdict {
            Verdict::Allowed => Ok(()),
            Verdict::Denied => Err(Refusal::new(403)),
        }
    }
}
