//! What the threads of the bulk clients and the one that conducts them have in common: the phase of the run, who hears in
//! which room, and the tallies and events on their way. Touched a few times a second, not per packet.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::tally::Tally;
use crate::results::Phase;

/// In the order in which they come.
pub(super) const PHASES: [Phase; 5] = [Phase::Ramp, Phase::Warmup, Phase::Measure, Phase::Drain, Phase::Done];

#[derive(Debug)]
pub(super) struct Switchboard {
    /// Zero of the stamps.
    origin: Instant,
    phase: AtomicU8,
    talking: AtomicBool,
    /// Connected people who hear, by room.
    hearers: Box<[AtomicU32]>,
    arrived: Mutex<Arrived>,
    /// Told when there are events.
    pub(super) news: Notify,
}

#[derive(Debug)]
struct Arrived {
    by_phase: Vec<Tally>,
    /// Since it was taken.
    recent: Tally,
    /// Of the realistic peers alone, in the measured window.
    realistic: Tally,
    /// Bounded by the number of clients: each says at most four things.
    events: Vec<Event>,
}

/// What happened to one connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Event {
    pub(super) link: usize,
    pub(super) kind: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum EventKind {
    /// How long ICE and DTLS took.
    Connected {
        at: Instant,
        ice: Duration,
        dtls: Duration,
        /// Where the server sends to; `None`: not known here.
        address: Option<SocketAddr>,
    },
    Failed(&'static str),
    Lost,
    /// Since it was connected.
    FirstPacket(Duration),
}

impl Switchboard {
    pub(super) fn new(rooms: u32, talking: bool) -> Self {
        Self {
            origin: Instant::now(),
            phase: AtomicU8::new(0),
            talking: AtomicBool::new(talking),
            hearers: (0..rooms).map(|_| AtomicU32::new(0)).collect(),
            arrived: Mutex::new(Arrived {
                by_phase: vec![Tally::new(); PHASES.len()],
                recent: Tally::new(),
                realistic: Tally::new(),
                events: Vec::new(),
            }),
            news: Notify::new(),
        }
    }

    pub(super) fn origin(&self) -> Instant {
        self.origin
    }

    pub(super) fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Index into [`PHASES`].
    pub(super) fn phase(&self) -> usize {
        usize::from(self.phase.load(Ordering::Relaxed)).min(PHASES.len() - 1)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        let at = PHASES.iter().position(|known| *known == phase).unwrap_or_default();
        self.phase.store(at as u8, Ordering::Relaxed);
    }

    pub(super) fn is_talking(&self) -> bool {
        self.talking.load(Ordering::Relaxed)
    }

    pub(super) fn let_talk(&self, talk: bool) {
        self.talking.store(talk, Ordering::Relaxed);
    }

    pub(super) fn hearers(&self, room: u32) -> u32 {
        self.hearers.get(room as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn add_hearer(&self, room: u32) {
        if let Some(count) = self.hearers.get(room as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn remove_hearer(&self, room: u32) {
        if let Some(count) = self.hearers.get(room as usize) {
            // Each was added before.
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Adds what was counted during one phase, and empties it.
    pub(super) fn hand_over(&self, phase: usize, tally: &mut Tally) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.by_phase[phase].add(tally);
        arrived.recent.add(tally);
        drop(arrived);
        tally.clear();
    }

    pub(super) fn hand_over_realistic(&self, phase: usize, tally: &mut Tally) {
        if PHASES[phase] == Phase::Measure {
            self.arrived.lock().unwrap_or_else(PoisonError::into_inner).realistic.add(tally);
        }
        self.hand_over(phase, tally);
    }

    pub(super) fn realistic(&self) -> Tally {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).realistic.clone()
    }

    pub(super) fn tell(&self, events: &mut Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).events.append(events);
        self.news.notify_one();
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        std::mem::take(&mut self.arrived.lock().unwrap_or_else(PoisonError::into_inner).events)
    }

    pub(super) fn take_recent(&self) -> Tally {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut arrived.recent, Tally::new())
    }

    pub(super) fn tally_of(&self, phase: Phase) -> Tally {
        let at = PHASES.iter().position(|known| *known == phase).unwrap_or_default();
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).by_phase[at].clone()
    }

    /// Forgets what was counted in a phase that is to begin again.
    pub(super) fn forget(&self, phase: Phase) {
        let at = PHASES.iter().position(|known| *known == phase).unwrap_or_default();
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).by_phase[at].clear();
    }

    /// Over all phases.
    pub(super) fn total(&self) -> Tally {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = Tally::new();
        for tally in &arrived.by_phase {
            total.add(tally);
        }
        total
    }
}
