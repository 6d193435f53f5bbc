//! Who sent a request (RFC 8489 section 9.2.4, RFC 8656 section 5). Nothing is remembered about a sender that fails here,
//! but for a mark in the tables that limit answers by source.

use std::time::Instant;

use stun::Message;

use crate::answer::{Refusal, Signer};
use crate::client::Client;
use crate::counters::DropReason;
use crate::credentials::{Identity, verify};
use crate::nonce::NonceState;
use crate::server::Server;

/// A request whose integrity was checked. There is no other way to make one.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) signer: Signer,
    /// What the credentials said; nothing when the key of the caller's own allocation was enough.
    pub(crate) identity: Option<Identity>,
}

#[derive(Debug)]
pub(crate) enum Denial {
    /// Answer without a signature.
    Refuse(Refusal),
    /// Answer with the caller's own key.
    RefuseSigned(Refusal, Box<Signer>),
    Silent(DropReason),
}

impl Server {
    /// `owned` is the place of the sender's allocation, if there is one.
    pub(crate) fn authenticate(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'_>,
        owned: Option<usize>,
    ) -> Result<Caller, Denial> {
        if !message.has_integrity() && !message.has_integrity_sha256() {
            return Err(self.challenge_stranger(now, client, 401));
        }
        let (Some(username), Some(_), Some(nonce)) = (message.username(), message.realm(), message.nonce()) else {
            return Err(Denial::Refuse(Refusal::new(400)));
        };
        match self.shared.nonces.check(now, client, nonce, self.settings.limits.nonce_lifetime) {
            NonceState::Fresh => {}
            NonceState::Old => return Err(Denial::Refuse(Refusal::challenge(438))),
            NonceState::Forged => return Err(self.challenge_stranger(now, client, 438)),
        }
        let is_sha256 = message.has_integrity_sha256();
        let owner = owned.and_then(|at| self.allocations.get(at)).map(|allocation| &allocation.owner);
        if let Some(owner) = owner.filter(|owner| *owner.username == *username)
            && verify(message, &owner.key).is_ok()
        {
            return Ok(Caller { signer: Signer { key: owner.key.clone(), is_sha256 }, identity: None });
        }
        let failures = self.settings.limits.failures();
        if self.shared.failures.is_exhausted(now, client.source(), failures) {
            return Err(Denial::Silent(DropReason::SilencedFailures));
        }
        let Ok(identity) = self.settings.credentials.check(message, username, self.unix_s(now)) else {
            self.shared.failures.take(now, client.source(), failures);
            self.counters.credential_failures += 1;
            return Err(Denial::Refuse(Refusal::challenge(401)));
        };
        let signer = Signer { key: identity.key.clone(), is_sha256 };
        match owner {
            // RFC 8656 section 5: the credentials are good, but not those of this allocation.
            Some(owner) if *owner.username != *username => {
                Err(Denial::RefuseSigned(Refusal::new(441), Box::new(signer)))
            }
            _ => Ok(Caller { signer, identity: Some(identity) }),
        }
    }

    fn challenge_stranger(&self, now: Instant, client: &Client, code: u16) -> Denial {
        if self.shared.unauthorized.take(now, client.source(), self.settings.limits.unauthorized()) {
            Denial::Refuse(Refusal::challenge(code))
        } else {
            Denial::Silent(DropReason::SilencedSource)
        }
    }
}
