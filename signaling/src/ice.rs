//! The ICE servers of a person: asked for at the credential broker when they join, kept for their other sockets, and asked
//! for again before they expire. A broker that is slow or gone costs a join a second at most; the call then begins without a
//! relay, and gets one when the broker is back. What the servers are is the broker's business.

mod broker;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use signaling_protocol::IceServer;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::metrics::Metrics;
pub use broker::{BadBroker, Broker};
use broker::{Failure, Minted};

/// A join waits no longer.
const WELCOME_WAIT_MAX: Duration = Duration::from_secs(1);
/// For an answer that nobody waits for any more, but others may use.
const ASK_TIME_MAX: Duration = Duration::from_secs(3);
/// Until somebody who has none, or old ones, asks again; also how long joins do not wait for a broker that just failed.
const RETRY: Duration = Duration::from_secs(3);
/// No relay was there, though the broker answered: it may be so for the length of a restart.
const RELAYLESS: Duration = Duration::from_secs(15);
/// Requests on their way to the broker; the others queue here instead of there.
const ASKING_MAX: usize = 64;
/// People whose servers are kept, about 500 bytes each. Beyond it all are forgotten, which costs each one more request.
const KEPT_MAX: usize = 50_000;

/// The servers of everybody.
pub struct IceServers {
    /// `None`: calls have no relay.
    broker: Option<Broker>,
    people: Mutex<HashMap<String, Person>>,
    asking: Semaphore,
    /// Joins do not wait before this.
    down_until: Mutex<Option<Instant>>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Person {
    lease: Option<Lease>,
    /// True once the request is over. Dropped with its task.
    asked: Option<watch::Receiver<bool>>,
}

#[derive(Clone)]
struct Lease {
    servers: Arc<[IceServer]>,
    renew_at: Instant,
    expires_at: Instant,
}

impl IceServers {
    #[must_use]
    pub fn new(broker: Option<Broker>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            broker,
            people: Mutex::default(),
            asking: Semaphore::new(ASKING_MAX),
            down_until: Mutex::default(),
            metrics,
        })
    }

    /// For one socket of a person.
    #[must_use]
    pub fn feed(self: &Arc<Self>, identity: &str) -> Feed {
        Feed { source: Arc::clone(self), identity: identity.to_owned(), sent: Arc::new([]), due: Instant::now() }
    }

    /// What is kept, or what the broker answers to one request that all who want the same share.
    async fn fresh(self: &Arc<Self>, identity: &str) -> Option<Lease> {
        let mut asked = {
            let now = Instant::now();
            let mut people = self.people();
            if people.len() >= KEPT_MAX && !people.contains_key(identity) {
                people.retain(|_, person| {
                    person.asked.is_some() || person.lease.as_ref().is_some_and(|lease| now < lease.renew_at)
                });
                if people.len() >= KEPT_MAX {
                    people.clear();
                }
            }
            let person = people.entry(identity.to_owned()).or_default();
            if let Some(lease) = person.lease.as_ref().filter(|lease| now < lease.renew_at) {
                return Some(lease.clone());
            }
            person.asked.get_or_insert_with(|| self.ask(identity)).clone()
        };
        // The task may have ended without a word only when it panicked: then there is nothing.
        let _ = asked.wait_for(|done| *done).await;
        self.kept(identity).filter(|lease| Instant::now() < lease.renew_at)
    }

    fn ask(self: &Arc<Self>, identity: &str) -> watch::Receiver<bool> {
        let (done, asked) = watch::channel(false);
        let (source, identity) = (Arc::clone(self), identity.to_owned());
        tokio::spawn(async move {
            let outcome = source.ask_broker(&identity).await;
            source.take(&identity, outcome);
            done.send_replace(true);
        });
        asked
    }

    async fn ask_broker(&self, identity: &str) -> Result<Minted, Failure> {
        let Some(broker) = &self.broker else { return Err(Failure::Unreachable) };
        let asking = async {
            let _turn = self.asking.acquire().await;
            broker.mint(identity).await
        };
        timeout(ASK_TIME_MAX, asking).await.unwrap_or(Err(Failure::Silent))
    }

    fn take(&self, identity: &str, outcome: Result<Minted, Failure>) {
        self.metrics.broker_request(outcome.as_ref().map_or_else(|failure| failure.label(), |_| "ok"));
        let now = Instant::now();
        let was_down = {
            let mut down_until = self.down_until.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *down_until, outcome.is_err().then(|| now + RETRY)).is_some()
        };
        match (&outcome, was_down) {
            (Err(failure), false) => tracing::warn!(%failure, "No credentials from the broker: calls have no relay"),
            (Ok(_), true) => tracing::info!("The credential broker answers again"),
            _ => {}
        }
        let mut people = self.people();
        let Some(person) = people.get_mut(identity) else { return };
        person.asked = None;
        match outcome {
            Ok(minted) => {
                // Early enough for some tries before the end.
                let good_for = minted.lifetime.mul_f64(0.8);
                let has_relay = minted.servers.iter().any(|server| server.credential.is_some());
                let renew_at = now + if has_relay { good_for } else { good_for.min(RELAYLESS) };
                let expires_at = now + minted.lifetime;
                person.lease = Some(Lease { servers: minted.servers.into(), renew_at, expires_at });
            }
            Err(_) if person.lease.is_none() => drop(people.remove(identity)),
            Err(_) => {}
        }
    }

    fn kept(&self, identity: &str) -> Option<Lease> {
        self.people().get(identity)?.lease.clone()
    }

    fn is_down(&self) -> bool {
        let down_until = *self.down_until.lock().unwrap_or_else(PoisonError::into_inner);
        down_until.is_some_and(|until| Instant::now() < until)
    }

    fn people(&self) -> MutexGuard<'_, HashMap<String, Person>> {
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for IceServers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceServers").field("broker", &self.broker).finish_non_exhaustive()
    }
}

/// The servers over the life of one socket.
pub struct Feed {
    source: Arc<IceServers>,
    identity: String,
    /// What the client has.
    sent: Arc<[IceServer]>,
    /// When to ask (again).
    due: Instant,
}

impl Feed {
    /// For the welcome.
    pub async fn first(&mut self) -> Vec<IceServer> {
        if self.source.broker.is_none() {
            return Vec::new();
        }
        let wait = if self.source.is_down() { Duration::ZERO } else { WELCOME_WAIT_MAX };
        let lease = timeout(wait, self.source.fresh(&self.identity)).await.ok().flatten();
        // Good for a while yet, though a newer one was wanted.
        let old = || self.source.kept(&self.identity).filter(|lease| Instant::now() < lease.expires_at);
        self.due = lease.as_ref().map_or_else(|| Instant::now() + RETRY, |lease| lease.renew_at);
        match lease.or_else(old) {
            Some(lease) => self.sent = lease.servers,
            None => drop(self.source.metrics.welcomes_without_relay.inc()),
        }
        self.sent.to_vec()
    }

    /// New ones, when it is time for them. Nothing is lost when the wait is given up and begun again.
    pub async fn next(&mut self) -> Vec<IceServer> {
        if self.source.broker.is_none() {
            return std::future::pending().await;
        }
        loop {
            sleep_until(self.due).await;
            let lease = self.source.fresh(&self.identity).await;
            self.due = lease.as_ref().map_or_else(|| Instant::now() + RETRY, |lease| lease.renew_at);
            if let Some(lease) = lease.filter(|lease| lease.servers != self.sent) {
                self.sent = lease.servers;
                return self.sent.to_vec();
            }
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("due", &self.due).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
