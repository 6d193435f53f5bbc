//! Ports kept by EVEN-PORT for a second allocation (RFC 8656 section 7.2), which may come to another thread. A reservation
//! belongs to the user who made it and ends with the allocation that made it, so there are never more than allocations.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

pub(crate) type Token = [u8; 8];

/// RFC 8656 section 7.2 asks for at least 30 seconds.
const LIFETIME: Duration = Duration::from_secs(30);

/// Of all threads.
#[derive(Debug, Default)]
pub(crate) struct Reservations(BTreeMap<Token, Reservation>);

#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) relay: usize,
    pub(crate) port: u16,
    username: Box<[u8]>,
}

impl Reservations {
    pub(crate) fn add(&mut self, token: Token, (relay, port): (usize, u16), username: &[u8]) {
        self.0.insert(token, Reservation { relay, port, username: username.into() });
    }

    /// Takes the reservation of this token if it is this user's.
    pub(crate) fn redeem(&mut self, token: Token, username: &[u8]) -> Option<Reservation> {
        self.0.get(&token).filter(|reservation| *reservation.username == *username)?;
        self.0.remove(&token)
    }

    pub(crate) fn cancel(&mut self, token: Token) -> Option<Reservation> {
        self.0.remove(&token)
    }
}

/// When the reservations that one thread made end, redeemed or not: in order, since all last equally long.
#[derive(Debug, Default)]
pub(crate) struct Ends(VecDeque<(Instant, Token)>);

impl Ends {
    pub(crate) fn add(&mut self, now: Instant, token: Token) {
        self.0.push_back((now + LIFETIME, token));
    }

    pub(crate) fn remove(&mut self, token: Token) {
        self.0.retain(|(_, other)| *other != token);
    }

    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Token> {
        self.0.front().filter(|(at, _)| *at <= now)?;
        self.0.pop_front().map(|(_, token)| token)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }
}
