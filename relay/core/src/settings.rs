//! What an operator decides, checked. A server takes a new set at any time; allocations that are there go on, except for
//! permissions and channels to peers that the new policy denies.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::credentials::Credentials;
use crate::limiter::Rate;
use crate::policy::Policy;

#[derive(Clone, Debug)]
pub struct Settings {
    pub credentials: Credentials,
    pub policy: Policy,
    pub limits: Limits,
    /// The same list, in the same order, for the life of a [`Shared`](crate::Shared); what is advertised may change.
    pub relays: Vec<RelayAddress>,
    /// Close allocations when the credential they began with expires.
    pub strict_expiry: bool,
    /// FINGERPRINT in all signed answers; otherwise only in answers to requests that have it.
    pub fingerprint: bool,
    /// The value of SOFTWARE, if any is to be sent.
    pub software: Option<String>,
    /// Where clients are sent (300) while this server drains; without it they get 508.
    pub alternate: Option<SocketAddr>,
    /// TCP allocations (RFC 6062) for clients on streams.
    pub tcp_relay: bool,
    /// Serve STUN Binding.
    pub stun: bool,
    /// Serve TURN.
    pub turn: bool,
}

/// An address that allocations are made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// To bind.
    pub local: IpAddr,
    /// To tell clients: the public side of a one-to-one NAT, else the same.
    pub advertised: IpAddr,
}

#[derive(Clone, Debug)]
pub struct Limits {
    /// Allocations of one user (486).
    pub user_allocations: u32,
    /// Allocations from one source address (486).
    pub source_allocations: u32,
    /// Allocations in all (508).
    pub total_allocations: u32,
    /// Bytes per second of one allocation in each direction; 0: no limit.
    pub allocation_bytes_per_s: u64,
    /// Sum of what allocations may send (508); 0: no limit.
    pub total_bytes_per_s: u64,
    pub permissions: usize,
    pub channels: usize,
    /// Answers 401 and 438 to one source without credentials, per second; then silence.
    pub unauthorized_per_s: u32,
    /// Wrong credentials of one source per minute; then silence.
    pub failures_per_min: u32,
    pub nonce_lifetime: Duration,
    pub lifetime_max: Duration,
    pub permission_lifetime: Duration,
    pub channel_lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            user_allocations: 8,
            // An office behind one address.
            source_allocations: 256,
            total_allocations: 16_384,
            // 1 Mbit/s: ten times what one voice and one desktop need.
            allocation_bytes_per_s: 125_000,
            total_bytes_per_s: 0,
            permissions: 64,
            channels: 64,
            unauthorized_per_s: 10,
            failures_per_min: 60,
            nonce_lifetime: Duration::from_secs(600),
            lifetime_max: Duration::from_secs(3_600),
            // RFC 8656 section 9
            permission_lifetime: Duration::from_secs(300),
            // RFC 8656 section 12
            channel_lifetime: Duration::from_secs(600),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("realm must have 1 to {REALM_BYTES_MAX} bytes")]
    Realm,
    #[error("software must have at most {SOFTWARE_BYTES_MAX} bytes")]
    Software,
    #[error("there is no relay address")]
    NoRelay,
    #[error("relay addresses cannot change while allocations use them")]
    RelaysChanged,
    #[error("permissions and channels of an allocation must be 1 to {PEERS_MAX}")]
    Peers,
}

impl Settings {
    pub fn new(credentials: Credentials, policy: Policy, relays: Vec<RelayAddress>) -> Self {
        Self {
            credentials,
            policy,
            limits: Limits::default(),
            relays,
            strict_expiry: false,
            fingerprint: false,
            software: None,
            alternate: None,
            tcp_relay: false,
            stun: true,
            turn: true,
        }
    }

    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        if !(1..=REALM_BYTES_MAX).contains(&self.credentials.realm().len()) {
            return Err(SettingsError::Realm);
        }
        if self.software.as_ref().is_some_and(|software| software.len() > SOFTWARE_BYTES_MAX) {
            return Err(SettingsError::Software);
        }
        if self.relays.is_empty() && self.turn {
            return Err(SettingsError::NoRelay);
        }
        let peers = 1..=PEERS_MAX;
        if !peers.contains(&self.limits.permissions) || !peers.contains(&self.limits.channels) {
            return Err(SettingsError::Peers);
        }
        Ok(())
    }
}

impl Limits {
    pub(crate) fn unauthorized(&self) -> Rate {
        let per_s = self.unauthorized_per_s.max(1);
        Rate { interval: Duration::from_secs(1) / per_s, burst: per_s.saturating_mul(BURST_S) }
    }

    pub(crate) fn failures(&self) -> Rate {
        let per_min = self.failures_per_min.max(1);
        Rate { interval: Duration::from_secs(60) / per_min, burst: per_min }
    }

    pub(crate) fn total(&self) -> u32 {
        let by_rate = self.total_bytes_per_s.checked_div(self.allocation_bytes_per_s).filter(|n| *n > 0);
        let by_rate = by_rate.map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX));
        self.total_allocations.min(by_rate)
    }
}

/// 128 characters in RFC 8489 section 14.9; answers stay far below the size of their buffer.
const REALM_BYTES_MAX: usize = 127;
const SOFTWARE_BYTES_MAX: usize = 127;
/// Channels and permissions of an allocation are searched one by one.
const PEERS_MAX: usize = 256;
/// The people of an office join at the same time and each needs one 401: five seconds of the rate at once.
const BURST_S: u32 = 5;
