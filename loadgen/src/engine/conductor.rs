//! The one that knows the plan: begins joins at their rate, passes what signalling gave to the workers, walks through the
//! phases, samples, and at the end writes the results. All on one task; what lasts runs elsewhere.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use super::bulk::BulkEndpoint;
use super::joins::Book;
use super::mix;
use super::plan::Planned;
use super::process::{self, Used};
use super::realistic;
use super::sampler::Sampler;
use super::seat::Mouth;
use super::talk::Talker;
use super::worker::{Command, NewClient, Setting, Workers};
use crate::report;
use crate::results::{Phase, ProcessUse, RESULTS_VERSION, Realistic, Results, Snapshot, Step};
use crate::scenario::{Scenario, TalkPattern};
use crate::targets::{Access, IceCredentials, JoinError, Link, Local, Remote, Session, Target, host_and_port};

/// How often the live view and the sampler have news.
const TICK: Duration = Duration::from_millis(250);
/// Packets that are on their way when the publishers fall silent, and the last tallies of the workers.
const DRAIN: Duration = Duration::from_millis(500);
/// After the publishers stand, until a target that needs them first takes hearers.
const PUBLISHERS_SETTLE: Duration = Duration::from_millis(300);
/// For leaving politely; the server finds out by itself as well.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
const LEAVES_IN_FLIGHT: usize = 64;

#[derive(Debug)]
pub(super) struct Conductor {
    pub(super) scenario: Scenario,
    access: Access,
    target: Arc<Target>,
    pub(super) plan: Vec<Planned>,
    pub(super) setting: Arc<Setting>,
    workers: Workers,
    pub(super) book: Book,
    pub(super) sampler: Sampler,
    tasks: JoinSet<Signalled>,
    rng: ChaCha20Rng,
    /// Next of the plan to join.
    pub(super) next: usize,
    next_at: Instant,
    /// Where the joins of now end.
    limit: usize,
    realistic: JoinSet<()>,
    remarks: Vec<String>,
    phase: Phase,
    phase_ends: Option<Instant>,
    pub(super) is_interrupted: bool,
}

/// How signalling of one connection ended.
struct Signalled {
    link: usize,
    took: Duration,
    result: Result<(Session, Made), JoinError>,
}

/// What is ready for ICE and DTLS.
enum Made {
    Bulk(Box<(Local, Remote)>),
    Realistic(Box<realistic::Peer>),
}

impl Conductor {
    pub(super) fn new(
        scenario: Scenario,
        access: Access,
        target: Arc<Target>,
        plan: Vec<Planned>,
        (setting, workers): (Arc<Setting>, Workers),
    ) -> Self {
        let book = Book::new(plan.iter().map(|planned| planned.link.room));
        let sampler = Sampler::new(setting.board.origin(), &scenario.target.server_pids);
        Self {
            scenario,
            access,
            target,
            plan,
            setting,
            workers,
            book,
            sampler,
            tasks: JoinSet::new(),
            rng: ChaCha20Rng::from_os_rng(),
            next: 0,
            next_at: Instant::now(),
            limit: 0,
            realistic: JoinSet::new(),
            remarks: Vec::new(),
            phase: Phase::Ramp,
            phase_ends: None,
            is_interrupted: false,
        }
    }

    pub(super) async fn run(mut self, snapshots: &watch::Sender<Snapshot>, stop: watch::Receiver<bool>) -> Results {
        let started_unix_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut stage = Stage { snapshots, stop };
        let steps = self.join_all(&mut stage).await;
        let timing = self.scenario.run.clone();
        self.setting.board.let_talk(true);
        self.enter(Phase::Warmup, Some(timing.warmup_s));
        self.hold(&mut stage).await;
        self.enter(Phase::Measure, Some(timing.duration_s));
        let window = self.sampler.begin_window();
        self.hold(&mut stage).await;
        self.enter(Phase::Drain, Some(DRAIN.as_secs_f64()));
        let (measured_s, server, client) = self.sampler.end_window(&window);
        self.setting.board.let_talk(false);
        // The end of an interrupted run drains, too: it gives a result.
        tokio::time::sleep(DRAIN).await;
        self.sample(&stage);
        let tally = self.setting.board.tally_of(Phase::Measure);
        let media = tally.media(measured_s, server.as_ref().map(ProcessUse::cpu_s));
        let floor = if timing.floor_s > 0.0 && !self.is_interrupted {
            self.floor(media.per_server_cpu_s)
                .await
                .map_err(|error| self.remarks.push(format!("no floor: {error}")))
                .ok()
        } else {
            None
        };
        self.enter(Phase::Done, None);
        self.leave().await;
        let joins = self.book.joins();
        let is_churn = self.scenario.talk.pattern == TalkPattern::Churn;
        let onset_ms = is_churn.then(|| tally.onsets(self.scenario.talk.turn_ms));
        self.sample(&stage);
        let mut results = Results {
            version: RESULTS_VERSION,
            machine: process::machine(),
            started_unix_s,
            interrupted: self.is_interrupted,
            measured_s,
            verdict: Vec::new(),
            joins,
            media,
            realistic: self.realistic_results(),
            steps,
            floor,
            server,
            client,
            onset_ms,
            series: self.sampler.take_series(),
            notes: self.notes(),
            scenario: self.scenario,
        };
        results.verdict = report::judge(&results);
        results
    }

    /// Everybody, or as many as the climb comes to.
    async fn join_all(&mut self, stage: &mut Stage<'_>) -> Vec<Step> {
        let pids = self.scenario.target.server_pids.clone();
        let before = Used::read(&pids);
        let steps = if self.scenario.climb.step_listeners > 0 {
            self.climb(stage).await
        } else {
            self.ramp(stage, self.plan.len()).await;
            Vec::new()
        };
        let used = before.zip(Used::read(&pids)).map(|(before, after)| after.cpu_s() - before.cpu_s());
        self.book.server_cpu_s = used;
        steps
    }

    /// Until everybody up to a place of the plan has joined or failed.
    pub(super) async fn ramp(&mut self, stage: &mut Stage<'_>, limit: usize) {
        let mut tick = ticks();
        let setting = Arc::clone(&self.setting);
        self.limit = limit.min(self.plan.len());
        self.next_at = self.next_at.max(Instant::now());
        while !self.is_interrupted && (self.next < self.limit || self.book.under_way() > 0) {
            self.begin_joins();
            let (may_begin, next_at) = (self.may_begin(), self.next_at);
            tokio::select! {
                Some(done) = self.tasks.join_next() => {
                    if let Ok(signalled) = done {
                        self.signalled(signalled);
                    }
                }
                () = setting.board.news.notified() => self.take_events(),
                () = sleep_until(next_at.into()), if may_begin => {}
                _ = tick.tick() => {
                    self.book.expire(Instant::now(), self.join_timeout());
                    self.sample(stage);
                }
                () = stage.stopped() => self.is_interrupted = true,
            }
        }
    }

    /// Until the phase is over.
    pub(super) async fn hold(&mut self, stage: &mut Stage<'_>) {
        let mut tick = ticks();
        let setting = Arc::clone(&self.setting);
        let Some(ends) = self.phase_ends else { return };
        while !self.is_interrupted && Instant::now() < ends {
            tokio::select! {
                () = sleep_until(ends.into()) => {}
                () = setting.board.news.notified() => self.take_events(),
                _ = tick.tick() => self.sample(stage),
                () = stage.stopped() => self.is_interrupted = true,
            }
        }
    }

    pub(super) fn enter(&mut self, phase: Phase, seconds: Option<f64>) {
        self.phase = phase;
        self.phase_ends = seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds));
        self.setting.board.set_phase(phase);
        self.workers.wake();
    }

    fn may_begin(&self) -> bool {
        let in_flight = self.scenario.ramp.joins_in_flight as usize;
        self.next < self.limit && self.book.under_way() < in_flight && !self.waits_for_publishers()
    }

    fn waits_for_publishers(&self) -> bool {
        let is_first_hearer =
            self.next > 0 && !self.plan[self.next].link.publishes && self.plan[self.next - 1].link.publishes;
        self.target.publishers_first() && is_first_hearer && self.book.under_way() > 0
    }

    fn begin_joins(&mut self) {
        while self.may_begin() {
            let now = Instant::now();
            if now < self.next_at {
                return;
            }
            let link = self.next;
            self.next += 1;
            self.begin(link, now);
            let rate = self.scenario.ramp.joins_per_s;
            // From the plan, not from now: a late one does not make all others late.
            let step = if rate > 0.0 { Duration::from_secs_f64(1.0 / rate) } else { Duration::ZERO };
            self.next_at = (self.next_at + step).max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
            let turns_to_hearers =
                self.plan.get(self.next).is_some_and(|next| !next.link.publishes) && self.plan[link].link.publishes;
            if self.target.publishers_first() && turns_to_hearers {
                self.next_at = now + PUBLISHERS_SETTLE;
            }
        }
    }

    fn begin(&mut self, link: usize, now: Instant) {
        self.book.begin(link, now);
        let plan = self.plan[link].link.clone();
        let (target, limit) = (Arc::clone(&self.target), self.join_timeout());
        let owns_target = self.access.owns_target;
        let local = self.local(link);
        let host = host_and_port(&self.scenario.target.url).unwrap_or_default();
        let is_realistic = self.plan[link].is_realistic;
        self.tasks.spawn(async move {
            let joining = async {
                if is_realistic {
                    join_realistic(&target, &plan, host, owns_target).await
                } else {
                    join_bulk(&target, &plan, local, owns_target).await
                }
            };
            let joined = timeout(limit, joining).await;
            let result = joined.unwrap_or_else(|_| Err(JoinError::new("signalling_timeout", "no answer in time")));
            Signalled { link, took: now.elapsed(), result }
        });
    }

    fn local(&mut self, link: usize) -> Local {
        let mut word = |chars: usize| -> String {
            const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            (0..chars).map(|_| char::from(ICE_CHARS[(self.rng.next_u32() & 63) as usize])).collect()
        };
        let ice = IceCredentials { ufrag: word(8), pwd: word(24) };
        // An odd factor gives each its own.
        let ssrc = (link as u32 + 1).wrapping_mul(0x9E37_79B1);
        Local { ice, fingerprint: self.setting.identity.fingerprint(), ssrc }
    }

    fn signalled(&mut self, signalled: Signalled) {
        let Signalled { link, took, result } = signalled;
        match result {
            Err(error) => self.book.fail(link, &error.reason),
            Ok((session, Made::Realistic(peer))) => {
                self.book.signalled(link, took, session);
                self.realistic.spawn(peer.run(link, self.plan[link].link.room, Arc::clone(&self.setting)));
            }
            Ok((session, Made::Bulk(parts))) => {
                let (local, remote) = *parts;
                self.book.signalled(link, took, session);
                let plan = self.plan[link].link.clone();
                let mouth = plan.publishes.then(|| self.mouth(link, &plan));
                let at = link % self.workers.connecting.len();
                let new = NewClient { link, plan, local, remote, mouth };
                self.workers.connecting[at].send(Command::Connect(Box::new(new)));
            }
        }
    }

    fn mouth(&self, link: usize, plan: &Link) -> Mouth {
        let Scenario { talk, rooms, loss, .. } = &self.scenario;
        Mouth { source: link as u32, talker: Talker::new(talk, rooms, plan.room, plan.person, mix(loss.seed)) }
    }

    fn take_events(&mut self) {
        for event in self.setting.board.take_events() {
            self.book.take(event);
        }
    }

    fn sample(&mut self, stage: &Stage<'_>) {
        self.take_events();
        let phase_left =
            self.phase_ends.map_or(Duration::ZERO, |ends| ends.saturating_duration_since(Instant::now()));
        self.sampler.sample(&self.setting.board, self.phase, self.book.connected_now());
        stage.snapshots.send_replace(Snapshot {
            phase: self.phase,
            at_s: self.sampler.at_s(),
            phase_left_s: phase_left.as_secs_f64(),
            rooms: self.book.rooms(),
            people_wanted: self.plan.len() as u32,
            joins: self.book.joins(),
            media: self.setting.board.total().media(self.sampler.at_s(), None),
            last: self.sampler.last(),
        });
    }

    async fn leave(&mut self) {
        self.tasks.abort_all();
        self.realistic.abort_all();
        let mut sessions = self.book.take_sessions().into_iter();
        let target = Arc::clone(&self.target);
        let mut leaving = JoinSet::new();
        let everybody = async {
            loop {
                while leaving.len() < LEAVES_IN_FLIGHT
                    && let Some(session) = sessions.next()
                {
                    let target = Arc::clone(&target);
                    leaving.spawn(async move { target.leave(session).await });
                }
                if leaving.join_next().await.is_none() {
                    break;
                }
            }
        };
        let _ = timeout(LEAVE_TIMEOUT, everybody).await;
        self.target.close().await;
    }

    fn join_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.scenario.ramp.join_timeout_s)
    }

    fn realistic_results(&self) -> Option<Realistic> {
        let peers = self.plan.iter().filter(|planned| planned.is_realistic).count();
        let tally = self.setting.board.realistic();
        let joined = self.book.connected_of(|link| self.plan[link].is_realistic);
        (peers > 0).then(|| Realistic {
            peers: peers as u32,
            connected: joined as u32,
            received: tally.counts.received,
            lost: tally.missing(),
            delay_ms: tally.delay.distribution(),
        })
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.remarks.clone();
        let link_count = self.plan.len();
        notes.push(format!("{link_count} connections from one process of loadgen on this machine"));
        if self.scenario.target.server_pids.is_empty() {
            notes.push("the server's processes were not named: its CPU time and memory are not known".to_owned());
        } else if Used::read(&self.scenario.target.server_pids).is_none() {
            notes.push("a process of the server that was named is not there".to_owned());
        }
        notes
    }
}

/// What a phase needs of the outside.
pub(super) struct Stage<'a> {
    snapshots: &'a watch::Sender<Snapshot>,
    stop: watch::Receiver<bool>,
}

impl Stage<'_> {
    async fn stopped(&mut self) {
        if self.stop.wait_for(|stop| *stop).await.is_err() {
            // Nobody is left who could stop it.
            std::future::pending::<()>().await;
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

async fn join_bulk(
    target: &Target,
    plan: &Link,
    local: Local,
    owns_target: bool,
) -> Result<(Session, Made), JoinError> {
    let mut endpoint = BulkEndpoint::new(local, plan);
    let session = target.join(plan, &mut endpoint).await?;
    match endpoint.into_parts() {
        (local, Some(remote)) if may_send(&remote, owns_target) => {
            Ok((session, Made::Bulk(Box::new((local, remote)))))
        }
        (_, Some(_)) => Err(JoinError::new("foreign_address", "media would leave this host")),
        (_, None) => Err(JoinError::new("no_answer", "the exchange ended without an answer")),
    }
}

async fn join_realistic(
    target: &Target,
    plan: &Link,
    host: String,
    owns_target: bool,
) -> Result<(Session, Made), JoinError> {
    let mut peer = Box::new(realistic::Peer::new(plan.slots, host, owns_target));
    let session = target.join(plan, peer.as_mut()).await?;
    Ok((session, Made::Realistic(peer)))
}

/// Media goes where signalling may go: an answer must not aim the load at somebody else.
fn may_send(remote: &Remote, owns_target: bool) -> bool {
    owns_target || remote.address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cannot_aim_the_load_at_another_host() {
        let ice = IceCredentials { ufrag: "u".repeat(4), pwd: "p".repeat(24) };
        let remote = |address: &str| Remote {
            address: address.parse().expect("an address"),
            ice: ice.clone(),
            fingerprint: [0; 32],
            we_are_dtls_client: true,
            send: None,
            receive_ssrcs: Vec::new(),
        };
        for (address, allowed) in [
            ("127.0.0.1:9", true),
            ("[::1]:9", true),
            ("[::ffff:127.0.0.1]:9", true),
            ("192.0.2.1:9", false),
            ("[2001:db8::1]:9", false),
            ("0.0.0.0:9", false),
        ] {
            assert_eq!(may_send(&remote(address), false), allowed, "{address}");
            assert!(may_send(&remote(address), true));
        }
    }
}
