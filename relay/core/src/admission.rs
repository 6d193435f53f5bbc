//! Allocate (RFC 8656 section 7.2): what is asked for, whether there is room, and the way from ports to sockets.

use std::time::{Duration, Instant};

use rand::RngCore;
use stun::{AttributeType, Message, Writer};

use crate::allocation::{Allocation, AllocationId, Family, FirstAnswer, Leg, Owner, Peers};
use crate::answer::{Envelope, Extra, MOBILITY_TICKET, Refusal, Signer, write_success};
use crate::auth::Caller;
use crate::client::Client;
use crate::ledger::Refused;
use crate::limiter::Bucket;
use crate::pending::{Pending, Wish};
use crate::ports::PortWish;
use crate::server::{Action, Server};

/// Another program may hold a port of our range; one of so many tries will do.
const BIND_ATTEMPTS_MAX: u8 = 8;

/// RFC 8656 section 3.2: what a client gets that does not ask.
const LIFETIME_DEFAULT_S: u32 = 600;

const UDP_PROTOCOL: u8 = 17;
const TCP_PROTOCOL: u8 = 6;

/// What coturn and its clients send for the attribute that RFC 8656 gave the number 0x8000.
const ADDITIONAL_ADDRESS_FAMILY_OF_COTURN: AttributeType = AttributeType(0x8032);

impl Server {
    pub(crate) fn allocate(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        caller: Caller,
        out: &mut [u8],
    ) -> Action {
        let signer = caller.signer.clone();
        let envelope = Envelope::of(message, self.settings.fingerprint);
        let refusal = match self.place_of(&client) {
            // The answer was lost: it is given again.
            Some(at) if self.allocations[at].first.id == message.transaction_id() => {
                return Action::Answer(self.write_allocated(at, envelope, &signer, out));
            }
            Some(_) => Refusal::new(437),
            None => match self.begin(now, client, message, caller) {
                Ok(pending) => return Action::Bind(Box::new(pending)),
                Err(refusal) => refusal,
            },
        };
        self.refuse(now, &client, envelope, Some(&signer), refusal, out)
    }

    fn begin(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        caller: Caller,
    ) -> Result<Pending, Refusal> {
        if self.is_draining() {
            let alternate = self.settings.alternate.map(|to| Refusal { code: 300, extra: Extra::Alternate(to) });
            return Err(alternate.unwrap_or(Refusal::new(508)));
        }
        // Without an allocation nobody passes on the key of one.
        let identity = caller.identity.ok_or(Refusal::new(401))?;
        let lifetime_s = self.granted_lifetime_s(now, message.lifetime(), identity.expires_unix_s);
        let wish = self.read_wish(message, client.is_stream(), lifetime_s)?;
        let username: Box<[u8]> = message.username().unwrap_or_default().into();
        let limits = &self.settings.limits;
        self.shared.ledger().admit(&identity.user, client.source(), limits).map_err(|refused| match refused {
            Refused::Quota => Refusal::new(486),
            Refused::Capacity => Refusal::new(508),
        })?;
        let mut pending = Pending {
            client,
            envelope: Envelope::of(message, self.settings.fingerprint),
            signer: caller.signer,
            username,
            identity,
            wish,
            legs: [None; 2],
            reserved: None,
            missing: None,
            attempts: 0,
            locals: [None; 2],
        };
        match self.take_ports(&mut pending) {
            Ok(()) => Ok(pending),
            Err(refusal) => {
                pending.abandon(self);
                Err(refusal)
            }
        }
    }

    fn read_wish(&self, message: &Message<'_>, is_stream: bool, lifetime_s: u32) -> Result<Wish, Refusal> {
        if message.attribute(MOBILITY_TICKET).is_some() {
            return Err(Refusal::new(405));
        }
        let is_tcp = match message.requested_transport() {
            Some(UDP_PROTOCOL) => false,
            Some(TCP_PROTOCOL) if self.settings.tcp_relay => true,
            Some(_) => return Err(Refusal::new(442)),
            None => return Err(Refusal::new(400)),
        };
        let has = |kind| message.attribute(kind).is_some();
        let family = has(AttributeType::REQUESTED_ADDRESS_FAMILY);
        let additional = message
            .attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY)
            .or_else(|| message.attribute(ADDITIONAL_ADDRESS_FAMILY_OF_COTURN));
        let even = has(AttributeType::EVEN_PORT);
        let token = has(AttributeType::RESERVATION_TOKEN);
        let port = match message.even_port() {
            None if even => return Err(Refusal::new(400)),
            None => PortWish::Any,
            Some(false) => PortWish::Even,
            Some(true) => PortWish::EvenAndNext,
        };
        // RFC 6062 section 5.1: over a stream, and without what only datagrams have.
        if is_tcp && (!is_stream || even || token || has(AttributeType::DONT_FRAGMENT)) {
            return Err(Refusal::new(400));
        }
        let reserves = port == PortWish::EvenAndNext;
        if token && (even || family || additional.is_some()) || additional.is_some() && (family || reserves) {
            return Err(Refusal::new(400));
        }
        let mut families = [true, false];
        if family {
            let wanted = message.requested_address_family().and_then(Family::from_wire).ok_or(Refusal::new(440))?;
            families = [wanted == Family::V4, wanted == Family::V6];
        }
        if let Some(value) = additional {
            // RFC 8656 section 18.11: only IPv6 can be additional.
            if value.len() != 4 || Family::from_wire(value[0]) != Some(Family::V6) {
                return Err(Refusal::new(400));
            }
            families = [true, true];
        }
        let token = match token {
            true => Some(message.reservation_token().ok_or(Refusal::new(400))?),
            false => None,
        };
        Ok(Wish { families, additional: additional.is_some(), port, token, lifetime_s, is_tcp })
    }

    /// On failure the pending allocation holds what it got so far.
    fn take_ports(&mut self, pending: &mut Pending) -> Result<(), Refusal> {
        if let Some(token) = pending.wish.token {
            let reservation = self.shared.ledger().redeem(token, &pending.username).ok_or(Refusal::new(508))?;
            self.set_leg(pending, reservation.relay, reservation.port);
            return Ok(());
        }
        for family in Family::ALL {
            if !pending.wish.families[family as usize] {
                continue;
            }
            match self.take_port(pending, family) {
                Ok(()) => {}
                Err(refusal) if pending.wish.additional && family == Family::V6 => {
                    pending.missing = Some((family, refusal.code));
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(())
    }

    fn take_port(&mut self, pending: &mut Pending, family: Family) -> Result<(), Refusal> {
        let is_of_family = |at: &usize| Family::of(self.settings.relays[*at].local) == family;
        let relays = (0..self.settings.relays.len()).filter(is_of_family).collect::<Vec<_>>();
        if relays.is_empty() {
            return Err(Refusal::new(440));
        }
        let start = self.random.next_u32() as usize % relays.len();
        for at in 0..relays.len() {
            let relay = relays[(start + at) % relays.len()];
            let random = self.random.next_u32();
            let taken = self.shared.ledger().take_port(relay, pending.wish.port, random);
            if let Some(port) = taken {
                if pending.wish.port == PortWish::EvenAndNext {
                    pending.reserved = Some((relay, port + 1));
                }
                self.set_leg(pending, relay, port);
                return Ok(());
            }
        }
        Err(Refusal::new(508))
    }

    fn set_leg(&self, pending: &mut Pending, relay: usize, port: u16) {
        let address = self.settings.relays[relay];
        let family = Family::of(address.local) as usize;
        pending.legs[family] = Some(Leg { relay, port, advertised: address.advertised });
        pending.locals[family] = Some((address.local, port).into());
    }

    /// Says whether the sockets of [`Action::Bind`] are there. When they are, the answer names the new allocation; when
    /// not, another set of ports may be asked for.
    pub fn complete(&mut self, now: Instant, mut pending: Box<Pending>, is_bound: bool, out: &mut [u8]) -> Action {
        if is_bound {
            return self.create(now, *pending, out);
        }
        pending.attempts += 1;
        pending.give_ports(self);
        // A reserved port has no substitute.
        let may_retry = pending.attempts < BIND_ATTEMPTS_MAX && pending.wish.token.is_none();
        if may_retry && self.take_ports(&mut pending).is_ok() {
            return Action::Bind(pending);
        }
        pending.abandon(self);
        let signer = pending.signer.clone();
        self.refuse(now, &pending.client, pending.envelope, Some(&signer), Refusal::new(508), out)
    }

    fn create(&mut self, now: Instant, pending: Pending, out: &mut [u8]) -> Action {
        self.generation = self.generation.wrapping_add(1);
        let entry = self.allocations.vacant_entry();
        let at = entry.key();
        // The slab has no more entries than there are ports.
        let id = AllocationId { index: at as u32, generation: self.generation };
        let token = pending.reserved.map(|_| self.random.next_u64().to_be_bytes());
        if let (Some(token), Some(port)) = (token, pending.reserved) {
            self.shared.ledger().reserve(token, port, &pending.username);
            self.reservation_ends.add(now, token);
        }
        let lifetime_s = pending.wish.lifetime_s;
        let expires = now + Duration::from_secs(u64::from(lifetime_s));
        entry.insert(Box::new(Allocation {
            generation: id.generation,
            client: pending.client,
            owner: Owner {
                username: pending.username,
                user: pending.identity.user,
                key: pending.identity.key,
                expires_unix_s: pending.identity.expires_unix_s,
            },
            first: FirstAnswer { id: pending.envelope.id, lifetime_s, token, missing: pending.missing },
            legs: pending.legs,
            expires,
            to_peer: Bucket::new(now),
            to_client: Bucket::new(now),
            peers: Peers::default(),
            is_tcp: pending.wish.is_tcp,
            connections: Vec::new(),
        }));
        self.places.insert(pending.client.key(), at);
        self.deadlines.insert((expires, id));
        self.counters.allocations_made += 1;
        let answer = self.write_allocated(at, pending.envelope, &pending.signer, out);
        Action::Created { allocation: id, answer }
    }

    fn write_allocated(&mut self, at: usize, envelope: Envelope, signer: &Signer, out: &mut [u8]) -> usize {
        let allocation = &self.allocations[at];
        let software = self.settings.software.as_deref();
        let body = |writer: &mut Writer<'_>| {
            for leg in allocation.legs.iter().flatten() {
                writer.xor_relayed_address(leg.relayed())?;
            }
            writer.lifetime(allocation.first.lifetime_s)?;
            if let Some(token) = allocation.first.token {
                writer.attribute(AttributeType::RESERVATION_TOKEN, &token)?;
            }
            if let Some((family, code)) = allocation.first.missing {
                let value = [family.to_wire(), 0, (code / 100) as u8, (code % 100) as u8];
                writer.attribute(AttributeType::ADDRESS_ERROR_CODE, &value)?;
            }
            writer.xor_mapped_address(allocation.client.address)?;
            software.map_or(Ok(()), |software| writer.software(software))
        };
        let written = write_success(out, envelope, Some(signer), body);
        self.counters.count_answer(200);
        debug_assert!(written.is_ok(), "an answer fits its buffer");
        written.unwrap_or(0)
    }

    /// RFC 8656 section 7.2: between the default and the maximum, and with strict expiry not beyond the credential.
    pub(crate) fn granted_lifetime_s(&self, now: Instant, asked_s: Option<u32>, expires_unix_s: Option<u64>) -> u32 {
        let max = u32::try_from(self.settings.limits.lifetime_max.as_secs()).unwrap_or(u32::MAX);
        let default = LIFETIME_DEFAULT_S.min(max);
        let granted = asked_s.unwrap_or(default).clamp(default, max);
        let Some(expires) = expires_unix_s.filter(|_| self.settings.strict_expiry) else { return granted };
        granted.min(u32::try_from(expires.saturating_sub(self.unix_s(now))).unwrap_or(u32::MAX))
    }
}
