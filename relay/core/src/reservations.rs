//! Ports kept by EVEN-PORT for a second allocation (RFC 8656 section 7.2). A reservation belongs to the user who made it
//! and ends with the allocation that made it, so there are never more of them than allocations.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::allocation::AllocationId;

/// RFC 8656 section 7.2 asks for at least 30 seconds.
pub(crate) const RESERVATION_LIFETIME: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) token: [u8; 8],
    pub(crate) relay: usize,
    pub(crate) port: u16,
    pub(crate) maker: AllocationId,
    username: Box<[u8]>,
    until: Instant,
}

/// In the order in which they end, since all last equally long.
#[derive(Debug, Default)]
pub(crate) struct Reservations(VecDeque<Reservation>);

impl Reservations {
    pub(crate) fn add(
        &mut self,
        now: Instant,
        token: [u8; 8],
        (relay, port): (usize, u16),
        maker: AllocationId,
        username: &[u8],
    ) {
        let until = now + RESERVATION_LIFETIME;
        self.0.push_back(Reservation { token, relay, port, maker, username: username.into(), until });
    }

    /// Takes the reservation of this token if it is this user's.
    pub(crate) fn redeem(&mut self, token: [u8; 8], username: &[u8]) -> Option<Reservation> {
        let at = self.0.iter().position(|r| r.token == token && *r.username == *username)?;
        self.0.remove(at)
    }

    pub(crate) fn take_of(&mut self, maker: AllocationId) -> Option<Reservation> {
        let at = self.0.iter().position(|r| r.maker == maker)?;
        self.0.remove(at)
    }

    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Reservation> {
        self.0.front().filter(|r| r.until <= now)?;
        self.0.pop_front()
    }

    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.0.front().map(|r| r.until)
    }
}
