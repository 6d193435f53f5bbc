//! The desk where a request is decided, whatever its form: who asks, whether they may ask now, which relays they get.
//! Settings are replaced under it while it works; limits and relays that stay survive that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::access::{Caller, Refused};
use super::config::{Config, Policy};
use super::envelope::Offer;
use super::health::Relay;
use super::limits::{Limiter, source};
use super::metrics::Meters;
use super::mint::Person;
use super::turn_url::{RelayEntry, TurnUrl};

/// Longest `username` that a program may ask for.
const USER_CHARS_MAX: usize = 128;

pub(crate) struct Desk {
    live: ArcSwap<Live>,
    callers: Limiter,
    addresses: Limiter,
    failures: Limiter,
    pub(crate) meters: Meters,
}

/// What a reload replaces.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) policy: Policy,
    relays: Vec<Arc<Relay>>,
}

/// What a request says, in any form.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'a> {
    pub(crate) presented: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) ttl: Option<&'a str>,
    /// An answer without a relay would be of no use.
    pub(crate) needs_relay: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error(transparent)]
    Credential(#[from] Refused),
    #[error("too many {what}")]
    Rate { what: &'static str, reason: &'static str, after: Duration },
    #[error("{0}")]
    Request(&'static str),
    #[error("no relay answers now")]
    NoRelay,
}

impl Desk {
    /// Must be called inside a tokio runtime: relays are watched from now on.
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        let live = Live::new(config.policy, config.relays, &[]);
        let limiter = || Limiter::new(now);
        Self {
            live: ArcSwap::from_pointee(live),
            callers: limiter(),
            addresses: limiter(),
            failures: limiter(),
            meters: Meters::default(),
        }
    }

    pub(crate) fn update(&self, config: Config) {
        let known = &self.live.load().relays;
        self.live.store(Arc::new(Live::new(config.policy, config.relays, known)));
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Decides, and hands the offer to the one who writes it down.
    pub(crate) fn serve<T>(
        &self,
        live: &Live,
        wish: Wish<'_>,
        address: IpAddr,
        (now, unix_s): (Instant, u64),
        write: impl FnOnce(Offer<'_>) -> T,
    ) -> Result<T, Denied> {
        let caller = self.admit(live, wish, address, now, unix_s)?;
        let person = person(&caller, wish)?;
        let ttl_s = ttl(wish)?;
        let turn = live.turn(&live.policy.minter.pseudonym(person));
        if wish.needs_relay && turn.is_empty() {
            return Err(Denied::NoRelay);
        }
        let credential = live.policy.minter.mint(person, ttl_s, unix_s);
        let (document, form) = (&live.policy.document, live.policy.urls);
        Ok(write(Offer { document, turn: &turn, credential: &credential, form }))
    }

    /// The cheap and the sharp limits first: who guesses is not even compared with the keys any more.
    fn admit(
        &self,
        live: &Live,
        wish: Wish<'_>,
        address: IpAddr,
        now: Instant,
        unix_s: u64,
    ) -> Result<Caller, Denied> {
        let (rates, source) = (&live.policy.rates, source(address));
        if let Some(after) = self.failures.exhausted(source, rates.failures, now) {
            return Err(Denied::Rate { what: "wrong credentials from this address", reason: "failure_rate", after });
        }
        let of_address = |after| Denied::Rate { what: "requests from this address", reason: "address_rate", after };
        let caller = match live.policy.access.check(wish.presented, unix_s) {
            Ok(caller) => caller,
            Err(refused) if refused.is_guess() => {
                // It was not exhausted: counted.
                let _ = self.failures.take(source, rates.failures, now);
                return Err(refused.into());
            }
            Err(refused) => {
                self.addresses.take(source, rates.address, now).map_err(of_address)?;
                return Err(refused.into());
            }
        };
        let of_caller = |after| Denied::Rate { what: "requests of this caller", reason: "caller_rate", after };
        match &caller {
            // Programs ask for many people from one address.
            Caller::Program(id) => self.callers.take(("program", id), rates.program, now).map_err(of_caller)?,
            Caller::Person(sub) => {
                self.addresses.take(source, rates.address, now).map_err(of_address)?;
                self.callers.take(("person", sub), rates.person, now).map_err(of_caller)?;
            }
        }
        Ok(caller)
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("live", &self.live.load()).finish_non_exhaustive()
    }
}

impl Live {
    /// Relays that were there before keep what is known of them.
    fn new(policy: Policy, entries: Vec<RelayEntry>, known: &[Arc<Relay>]) -> Self {
        let relays = entries
            .into_iter()
            .map(|entry| match known.iter().find(|relay| *relay.entry() == entry) {
                Some(relay) => Arc::clone(relay),
                None => Arc::new(Relay::start(entry)),
            })
            .collect();
        Self { policy, relays }
    }

    /// Good relays and bad ones.
    pub(crate) fn count(&self) -> (usize, usize) {
        let good = self.relays.iter().filter(|relay| relay.is_good()).count();
        (good, self.relays.len() - good)
    }

    /// The URLs for a person: of the good relays some, the same ones each time, by rendezvous hashing; those over UDP
    /// first, then TCP, then TLS.
    fn turn(&self, pseudonym: &str) -> Vec<&str> {
        let mut relays = self.relays.iter().filter(|relay| relay.is_good()).collect::<Vec<_>>();
        if relays.len() > self.policy.relays_per_answer {
            relays.sort_by_cached_key(|relay| rendezvous(pseudonym, relay.urls()));
            relays.truncate(self.policy.relays_per_answer);
        }
        let mut urls = relays.into_iter().flat_map(|relay| relay.urls()).collect::<Vec<&TurnUrl>>();
        urls.sort_by_key(|url| url.transport);
        urls.into_iter().map(|url| url.text.as_str()).collect()
    }
}

/// The same in each broker and after each start, so that the two brokers of an installation agree.
fn rendezvous(pseudonym: &str, urls: &[TurnUrl]) -> [u8; 32] {
    use sha2::Digest;
    let mut hash = sha2::Sha256::new_with_prefix(pseudonym);
    for url in urls {
        hash.update([0]);
        hash.update(&url.text);
    }
    hash.finalize().into()
}

fn person<'a>(caller: &'a Caller, wish: Wish<'a>) -> Result<Person<'a>, Denied> {
    match caller {
        // A token speaks for its owner, whatever else is asked for.
        Caller::Person(sub) => Ok(Person { caller: "", user: sub }),
        Caller::Program(id) => {
            let user = wish.user.unwrap_or_default();
            if user.chars().count() > USER_CHARS_MAX {
                return Err(Denied::Request("username is too long"));
            }
            Ok(Person { caller: id, user })
        }
    }
}

fn ttl(wish: Wish<'_>) -> Result<Option<u32>, Denied> {
    let Some(text) = wish.ttl else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More than fits is capped like all that is too long.
    let seconds = text.parse().unwrap_or(u32::MAX);
    if digits && seconds > 0 { Ok(Some(seconds)) } else { Err(Denied::Request("ttl must be a number of seconds")) }
}
