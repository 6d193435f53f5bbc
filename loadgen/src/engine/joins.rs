//! The book of joins: what became of each connection, and how long its parts took.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::switchboard::{Event, EventKind};
use super::tally::Micros;
use crate::results::Joins;
use crate::targets::Session;

#[derive(Debug)]
pub(super) struct Book {
    entries: Vec<Entry>,
    started: u64,
    connected: u64,
    failed: u64,
    lost: u64,
    /// Connections that are neither connected nor failed.
    under_way: usize,
    failures: BTreeMap<String, u64>,
    first_at: Option<Instant>,
    last_at: Option<Instant>,
    total: Micros,
    signalling: Micros,
    ice: Micros,
    dtls: Micros,
    first_packet: Micros,
    /// Of the server, while they joined.
    pub(super) server_cpu_s: Option<f64>,
}

#[derive(Debug, Default)]
struct Entry {
    state: State,
    room: u32,
    began_at: Option<Instant>,
    session: Option<Session>,
    address: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Planned,
    UnderWay,
    Connected,
    Failed,
    Lost,
}

/// Names of failures that are counted; a target that makes up more has them counted together.
const FAILURES_MAX: usize = 64;

impl Book {
    pub(super) fn new(rooms: impl Iterator<Item = u32>) -> Self {
        Self {
            entries: rooms.map(|room| Entry { room, ..Entry::default() }).collect(),
            started: 0,
            connected: 0,
            failed: 0,
            lost: 0,
            under_way: 0,
            failures: BTreeMap::new(),
            first_at: None,
            last_at: None,
            total: Micros::new(),
            signalling: Micros::new(),
            ice: Micros::new(),
            dtls: Micros::new(),
            first_packet: Micros::new(),
            server_cpu_s: None,
        }
    }

    pub(super) fn begin(&mut self, link: usize, now: Instant) {
        let entry = &mut self.entries[link];
        (entry.state, entry.began_at) = (State::UnderWay, Some(now));
        self.first_at.get_or_insert(now);
        self.started += 1;
        self.under_way += 1;
    }

    pub(super) fn signalled(&mut self, link: usize, took: Duration, session: Session) {
        self.entries[link].session = Some(session);
        self.signalling.record(took);
    }

    pub(super) fn fail(&mut self, link: usize, reason: &str) {
        if self.entries[link].state != State::UnderWay {
            return;
        }
        self.entries[link].state = State::Failed;
        self.failed += 1;
        self.under_way -= 1;
        let known = self.failures.contains_key(reason) || self.failures.len() < FAILURES_MAX;
        *self.failures.entry(if known { reason } else { "other" }.to_owned()).or_default() += 1;
    }

    pub(super) fn take(&mut self, event: Event) {
        match event.kind {
            EventKind::Connected { at, ice, dtls, address } => {
                self.entries[event.link].address = address;
                self.connect(event.link, at, ice, dtls);
            }
            EventKind::Failed(reason) => self.fail(event.link, reason),
            EventKind::FirstPacket(after) => self.first_packet.record(after),
            EventKind::Lost if self.entries[event.link].state == State::Connected => {
                self.entries[event.link].state = State::Lost;
                self.lost += 1;
            }
            EventKind::Lost => {}
        }
    }

    fn connect(&mut self, link: usize, at: Instant, ice: Duration, dtls: Duration) {
        let entry = &mut self.entries[link];
        if entry.state != State::UnderWay {
            return;
        }
        entry.state = State::Connected;
        self.connected += 1;
        self.under_way -= 1;
        self.last_at = Some(at);
        self.ice.record(ice);
        self.dtls.record(dtls);
        self.total.record(entry.began_at.map_or(Duration::ZERO, |began| at.saturating_duration_since(began)));
    }

    /// Fails those that have been under way for longer.
    pub(super) fn expire(&mut self, now: Instant, timeout: Duration) {
        if self.under_way == 0 {
            return;
        }
        let is_late = |entry: &Entry| {
            entry.state == State::UnderWay && entry.began_at.is_some_and(|began| now.duration_since(began) >= timeout)
        };
        let late: Vec<usize> = (0..self.entries.len()).filter(|link| is_late(&self.entries[*link])).collect();
        for link in late {
            self.fail(link, "timeout");
        }
    }

    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Of those that stand, by their place in the plan.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        let standing = self.entries.iter().enumerate().filter(|(_, entry)| entry.state == State::Connected);
        standing.filter_map(|(link, entry)| Some((link, entry.address?)))
    }

    pub(super) fn connected_of(&self, of: impl Fn(usize) -> bool) -> usize {
        let standing = self.entries.iter().enumerate().filter(|(_, entry)| entry.state == State::Connected);
        standing.filter(|(link, _)| of(*link)).count()
    }

    pub(super) fn connected_now(&self) -> u64 {
        self.connected - self.lost
    }

    /// Rooms with at least one connection that stands.
    pub(super) fn rooms(&self) -> u32 {
        let standing = self.entries.iter().filter(|entry| entry.state == State::Connected);
        let mut rooms: Vec<u32> = standing.map(|entry| entry.room).collect();
        rooms.sort_unstable();
        rooms.dedup();
        rooms.len() as u32
    }

    pub(super) fn take_sessions(&mut self) -> Vec<Session> {
        self.entries.iter_mut().filter_map(|entry| entry.session.take()).collect()
    }

    pub(super) fn joins(&self) -> Joins {
        let span = self.first_at.zip(self.last_at).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        Joins {
            started: self.started,
            connected: self.connected,
            failed: self.failed,
            lost: self.lost,
            failures: self.failures.clone(),
            connected_per_s: if span > 0.0 { self.connected as f64 / span } else { 0.0 },
            total_ms: self.total.distribution(),
            signalling_ms: self.signalling.distribution(),
            ice_ms: self.ice.distribution(),
            dtls_ms: self.dtls.distribution(),
            first_packet_ms: self.first_packet.distribution(),
            server_cpu_s: self.server_cpu_s,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(link: usize, at: Instant) -> Event {
        let (ice, dtls) = (Duration::from_millis(1), Duration::from_millis(2));
        Event { link, kind: EventKind::Connected { at, ice, dtls, address: None } }
    }

    #[test]
    fn each_connection_counts_once_whatever_comes_late() {
        let now = Instant::now();
        let mut book = Book::new([0, 0, 1].into_iter());
        for link in 0..3 {
            book.begin(link, now);
        }
        book.take(connected(0, now + Duration::from_millis(10)));
        book.take(connected(0, now + Duration::from_millis(11)));
        book.take(Event { link: 1, kind: EventKind::Failed("dtls_failed") });
        book.expire(now + Duration::from_secs(9), Duration::from_secs(10));
        assert_eq!(book.under_way(), 1);
        book.expire(now + Duration::from_secs(10), Duration::from_secs(10));
        book.take(connected(2, now + Duration::from_secs(11)));
        book.take(Event { link: 0, kind: EventKind::Lost });
        book.take(Event { link: 0, kind: EventKind::Lost });
        let joins = book.joins();
        assert_eq!((joins.started, joins.connected, joins.failed, joins.lost), (3, 1, 2, 1));
        assert_eq!((joins.failures["dtls_failed"], joins.failures["timeout"]), (1, 1));
        assert!((joins.total_ms.p50 - 10.0).abs() < 0.1);
        assert_eq!((book.under_way(), book.connected_now(), book.rooms()), (0, 0, 0));
    }
}
