//! The ICE agent of a bulk client: controlling, one candidate pair, nominates with its first check (RFC 8445), then asks for
//! consent (RFC 7675). It answers the checks of a full agent, and does nothing else. No socket and no clock.

use std::time::{Duration, Instant};

use stun::{Class, IntegrityKey, Message, Method, TransactionId, Writer};

use crate::targets::IceCredentials;

/// Until the first check is answered it is repeated after this, doubling: a loaded host is not a lost packet.
const RETRY_START: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_millis(1600);
/// RFC 7675 section 5.1: about 5 s between checks, and 30 s without an answer end it.
const CONSENT_INTERVAL: Duration = Duration::from_secs(5);
const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Checks that may still be answered.
const PENDING_MAX: usize = 4;
/// The longest message here: a check with two user fragments of 256 characters.
pub(super) const MESSAGE_BYTES_MAX: usize = 700;

pub(super) struct Checker {
    username: Vec<u8>,
    remote_key: IntegrityKey,
    local_key: IntegrityKey,
    tie_breaker: u64,
    checks: u64,
    pending: [Option<TransactionId>; PENDING_MAX],
    next_at: Instant,
    retry: Duration,
    answered_at: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A check of ours was answered; the first time, the path is valid.
    Answered {
        first: bool,
    },
    /// The other side checks: this is the answer.
    Asked(Vec<u8>),
    Refused(u16),
    Nothing,
}

impl Checker {
    /// `seed` makes transaction ids and the tie breaker: different for each client.
    pub(super) fn new(local: &IceCredentials, remote: &IceCredentials, seed: u64, now: Instant) -> Self {
        Self {
            username: format!("{}:{}", remote.ufrag, local.ufrag).into_bytes(),
            remote_key: IntegrityKey::short_term(remote.pwd.as_bytes()),
            local_key: IntegrityKey::short_term(local.pwd.as_bytes()),
            tie_breaker: super::mix(seed),
            checks: 0,
            pending: [None; PENDING_MAX],
            next_at: now,
            retry: RETRY_START,
            answered_at: None,
        }
    }

    /// When [`Checker::poll`] is due.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Nothing was answered for too long.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.answered_at.is_some_and(|at| now.saturating_duration_since(at) >= CONSENT_TIMEOUT)
    }

    /// The check that is due.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next_at {
            return None;
        }
        if self.answered_at.is_some() {
            // Spread by a fifth (RFC 7675 section 5.1), so that thousands of clients do not ask in step.
            let spread = super::mix(self.tie_breaker ^ self.checks) % 2_000;
            self.next_at = now + CONSENT_INTERVAL - Duration::from_secs(1) + Duration::from_millis(spread);
        } else {
            self.next_at = now + self.retry;
            self.retry = (self.retry * 2).min(RETRY_MAX);
        }
        self.check()
    }

    fn check(&mut self) -> Option<Vec<u8>> {
        let mut id = [0; 12];
        id[..8].copy_from_slice(&super::mix(self.tie_breaker.wrapping_add(self.checks)).to_be_bytes());
        id[8..].copy_from_slice(&(self.checks as u32).to_be_bytes());
        let id = TransactionId(id);
        let place = (self.checks % PENDING_MAX as u64) as usize;
        self.pending[place] = Some(id);
        self.checks += 1;
        let mut buf = vec![0; MESSAGE_BYTES_MAX];
        let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, id).ok()?;
        writer.username(&self.username).ok()?;
        // A peer-reflexive candidate of the first component (RFC 8445 section 5.1.2.1).
        writer.priority(110 << 24 | 65_535 << 8 | 255).ok()?;
        writer.ice_controlling(self.tie_breaker).ok()?;
        writer.use_candidate().ok()?;
        let len = writer.finish(Some(&self.remote_key), true).ok()?;
        buf.truncate(len);
        Some(buf)
    }

    pub(super) fn handle(&mut self, now: Instant, datagram: &[u8], from: std::net::SocketAddr) -> Heard {
        let Ok(message) = Message::parse(datagram) else { return Heard::Nothing };
        if message.method() != Method::BINDING {
            return Heard::Nothing;
        }
        match message.class() {
            Class::Request => self.answer(&message, from).map_or(Heard::Nothing, Heard::Asked),
            Class::Indication => Heard::Nothing,
            Class::Success | Class::Error => self.take_answer(now, &message),
        }
    }

    fn take_answer(&mut self, now: Instant, message: &Message<'_>) -> Heard {
        let place = self.pending.iter().position(|pending| *pending == Some(message.transaction_id()));
        let Some(place) = place else { return Heard::Nothing };
        if message.verify_integrity(&self.remote_key).is_err() {
            return Heard::Nothing;
        }
        self.pending[place] = None;
        if message.class() == Class::Error {
            return Heard::Refused(message.error_code().map_or(0, |error| error.code));
        }
        let first = self.answered_at.is_none();
        self.answered_at = Some(now);
        if first {
            self.next_at = now + CONSENT_INTERVAL;
        }
        Heard::Answered { first }
    }

    fn answer(&self, request: &Message<'_>, from: std::net::SocketAddr) -> Option<Vec<u8>> {
        request.verify_integrity(&self.local_key).ok()?;
        let mut buf = vec![0; MESSAGE_BYTES_MAX];
        let mut writer = Writer::new(&mut buf, Class::Success, Method::BINDING, request.transaction_id()).ok()?;
        writer.xor_mapped_address(from).ok()?;
        let len = writer.finish(Some(&self.local_key), true).ok()?;
        buf.truncate(len);
        Some(buf)
    }
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").field("checks", &self.checks).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(name: &str) -> IceCredentials {
        IceCredentials { ufrag: name.repeat(4), pwd: name.repeat(24) }
    }

    /// What the other side would answer.
    fn answer(check: &[u8], class: Class, password: &str) -> Vec<u8> {
        let request = Message::parse(check).expect("a message");
        assert!(request.use_candidate() && request.ice_controlling().is_some() && request.has_fingerprint());
        assert_eq!(request.username(), Some(&b"rrrr:llll"[..]));
        let key = IntegrityKey::short_term(password.as_bytes());
        let mut buf = vec![0; 300];
        let mut writer = Writer::new(&mut buf, class, Method::BINDING, request.transaction_id()).expect("room");
        if class == Class::Error {
            writer.error_code(487, "Role Conflict").expect("room");
        }
        let len = writer.finish(Some(&key), true).expect("room");
        buf.truncate(len);
        buf
    }

    fn address() -> std::net::SocketAddr {
        ([127, 0, 0, 1], 9).into()
    }

    #[test]
    fn checks_repeat_until_answered_and_then_ask_for_consent() {
        let start = Instant::now();
        let mut checker = Checker::new(&credentials("l"), &credentials("r"), 1, start);
        let lost = checker.poll(start).expect("a check");
        assert!(checker.poll(start + Duration::from_millis(99)).is_none());
        let now = start + Duration::from_millis(100);
        let check = checker.poll(now).expect("again");
        assert_ne!(lost, check);
        let password = "r".repeat(24);
        assert_eq!(checker.handle(now, &answer(&check, Class::Success, "wrong"), address()), Heard::Nothing);
        let right = answer(&check, Class::Success, &password);
        assert_eq!(checker.handle(now, &right, address()), Heard::Answered { first: true });
        assert_eq!(checker.handle(now, &right, address()), Heard::Nothing, "an answer counts once");
        let later = checker.handle(now, &answer(&lost, Class::Success, &password), address());
        assert_eq!(later, Heard::Answered { first: false });
        assert!(checker.poll(now + Duration::from_secs(3)).is_none());
        assert!(checker.poll(now + Duration::from_secs(6)).is_some());
        assert!(!checker.is_expired(now + Duration::from_secs(29)));
        assert!(checker.is_expired(now + Duration::from_secs(30)));
    }

    #[test]
    fn a_refusal_is_told_with_its_code() {
        let now = Instant::now();
        let mut checker = Checker::new(&credentials("l"), &credentials("r"), 1, now);
        let check = checker.poll(now).expect("a check");
        let refused = answer(&check, Class::Error, &"r".repeat(24));
        assert_eq!(checker.handle(now, &refused, address()), Heard::Refused(487));
    }

    #[test]
    fn checks_of_a_full_agent_are_answered_when_they_know_our_password() {
        let now = Instant::now();
        let mut ours = Checker::new(&credentials("l"), &credentials("r"), 1, now);
        let mut theirs = Checker::new(&credentials("r"), &credentials("l"), 2, now);
        let check = theirs.poll(now).expect("a check");
        let Heard::Asked(reply) = ours.handle(now, &check, address()) else { panic!("not answered") };
        assert_eq!(theirs.handle(now, &reply, address()), Heard::Answered { first: true });
        let mut stranger = Checker::new(&credentials("r"), &credentials("x"), 3, now);
        let check = stranger.poll(now).expect("a check");
        assert_eq!(ours.handle(now, &check, address()), Heard::Nothing);
    }

    #[test]
    fn no_datagram_makes_it_panic() {
        let now = Instant::now();
        proptest::proptest!(|(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200))| {
            let mut checker = Checker::new(&credentials("l"), &credentials("r"), 1, now);
            proptest::prop_assert_eq!(checker.handle(now, &bytes, address()), Heard::Nothing);
        });
    }
}
