//! What the servers of a process share: ports and quotas under one lock, limits by source in a table without a lock,
//! and the key of the nonces. The lock is taken when an allocation begins or ends.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;

use crate::client::KeyedHash;
use crate::limiter::SourceLimiter;
use crate::nonce::Nonces;
use crate::ports::{PortPool, PortWish};
use crate::reservations::{Reservation, Reservations, Token};
use crate::settings::Limits;

/// Made once for a process and given to each of its servers.
#[derive(Debug)]
pub struct Shared {
    ledger: Mutex<Ledger>,
    /// Answers to requests without credentials.
    pub(crate) unauthorized: SourceLimiter,
    /// Requests with wrong credentials.
    pub(crate) failures: SourceLimiter,
    pub(crate) nonces: Nonces,
}

impl Shared {
    /// `relays` is how many relay addresses the settings have; each has all the ports.
    pub fn new(relays: usize, ports: &RangeInclusive<u16>, seed: [u8; 32], now: Instant) -> Self {
        let mut random = ChaCha12Rng::from_seed(seed);
        let mut nonce_key = [0; 32];
        random.fill_bytes(&mut nonce_key);
        let mut hash = || KeyedHash::new(random.next_u64(), random.next_u64());
        Self {
            unauthorized: SourceLimiter::new(hash(), now),
            failures: SourceLimiter::new(hash(), now),
            nonces: Nonces::new(&nonce_key, now),
            ledger: Mutex::new(Ledger {
                pools: (0..relays).map(|_| PortPool::new(ports)).collect(),
                users: BTreeMap::new(),
                sources: BTreeMap::new(),
                allocations: 0,
                reservations: Reservations::default(),
            }),
        }
    }

    /// Ports in use and reserved, over all relay addresses.
    pub fn ports_used(&self) -> usize {
        self.ledger().pools.iter().map(PortPool::used_count).sum()
    }

    /// Allocations of all servers, with those that are being made.
    pub fn allocations(&self) -> usize {
        self.ledger().allocations as usize
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub(crate) struct Ledger {
    pools: Vec<PortPool>,
    users: BTreeMap<Box<[u8]>, u32>,
    sources: BTreeMap<u64, u32>,
    allocations: u32,
    reservations: Reservations,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Quota,
    Capacity,
}

impl Ledger {
    /// Counts one allocation of this user and source.
    pub(crate) fn admit(&mut self, user: &[u8], source: u64, limits: &Limits) -> Result<(), Refused> {
        let of_user = self.users.get(user).copied().unwrap_or(0);
        let of_source = self.sources.get(&source).copied().unwrap_or(0);
        if of_user >= limits.user_allocations || of_source >= limits.source_allocations {
            return Err(Refused::Quota);
        }
        if self.allocations >= limits.total() {
            return Err(Refused::Capacity);
        }
        *self.users.entry(user.into()).or_default() += 1;
        *self.sources.entry(source).or_default() += 1;
        self.allocations += 1;
        Ok(())
    }

    /// Takes back what `admit` counted.
    pub(crate) fn release(&mut self, user: &[u8], source: u64) {
        uncount(&mut self.users, user);
        uncount(&mut self.sources, &source);
        self.allocations = self.allocations.saturating_sub(1);
    }

    pub(crate) fn take_port(&mut self, relay: usize, wish: PortWish, random: u32) -> Option<u16> {
        self.pools.get_mut(relay)?.take(wish, random)
    }

    /// Keeps a port that was taken for whoever shows the token.
    pub(crate) fn reserve(&mut self, token: Token, port: (usize, u16), username: &[u8]) {
        self.reservations.add(token, port, username);
    }

    /// The port is the caller's now.
    pub(crate) fn redeem(&mut self, token: Token, username: &[u8]) -> Option<Reservation> {
        self.reservations.redeem(token, username)
    }

    pub(crate) fn cancel(&mut self, token: Token) {
        if let Some(reservation) = self.reservations.cancel(token) {
            self.give_port(reservation.relay, reservation.port);
        }
    }

    pub(crate) fn give_port(&mut self, relay: usize, port: u16) {
        if let Some(pool) = self.pools.get_mut(relay) {
            pool.give(port);
        }
    }
}

fn uncount<K: Ord + std::borrow::Borrow<Q>, Q: Ord + ?Sized>(counts: &mut BTreeMap<K, u32>, key: &Q) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
