//! When a publisher sends what: the talk pattern as a pure function of time and seed.

use std::time::Duration;

use super::mix;
use crate::scenario::{Rooms, Talk, TalkPattern};

/// How often an Opus encoder sends in a pause with DTX.
const DTX_INTERVAL: Duration = Duration::from_millis(400);
/// Of a person who listens while others talk: a quiet room.
const BACKGROUND_LEVEL: u8 = 72;

#[derive(Clone, Debug)]
pub(super) struct Talker {
    pattern: TalkPattern,
    turn: Duration,
    /// How long the others talk, on average.
    pause: Duration,
    speakers: u64,
    publishers: u64,
    person: u64,
    seed: u64,
    /// Of this room against the others.
    shift: Duration,
    turns: u64,
    state: State,
    was_loud: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    New,
    Talks { until: Duration },
    Pauses { until: Duration, next_dtx: Duration },
}

/// What goes out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) is_pause: bool,
    /// First packet after a pause (RFC 7587 section 4.1).
    pub(super) marker: bool,
    /// In place of the frame's own.
    pub(super) level: Option<u8>,
    /// With churn: how long this one has been among the loud.
    pub(super) loud_for_ms: Option<u16>,
    /// It is among the loud from now on.
    pub(super) is_onset: bool,
}

const PLAIN: Tick = Tick { is_pause: false, marker: false, level: None, loud_for_ms: None, is_onset: false };

impl Talker {
    pub(super) fn new(talk: &Talk, rooms: &Rooms, room: u32, person: u32, seed: u64) -> Self {
        let turn = Duration::from_millis(talk.turn_ms.into());
        let others = f64::from(rooms.publishers) / f64::from(talk.speakers.max(1)) - 1.0;
        let seed = mix(seed ^ u64::from(room) << 32 ^ u64::from(person));
        let shift = mix(seed ^ u64::from(room)) % u64::from(talk.turn_ms.max(1));
        Self {
            pattern: talk.pattern,
            turn,
            pause: turn.mul_f64(others.max(0.0)),
            speakers: u64::from(talk.speakers.max(1)),
            publishers: u64::from(rooms.publishers.max(1)),
            person: person.into(),
            seed,
            // The same for all of a room.
            shift: if talk.pattern == TalkPattern::Churn {
                Duration::from_millis(mix(u64::from(room)) % u64::from(talk.turn_ms.max(1)))
            } else {
                Duration::from_millis(shift)
            },
            turns: 0,
            state: State::New,
            was_loud: false,
        }
    }

    /// Called once a frame; `at` is the time since the run began.
    pub(super) fn tick(&mut self, at: Duration) -> Option<Tick> {
        match self.pattern {
            TalkPattern::All => Some(PLAIN),
            TalkPattern::Conversational => self.converse(at),
            TalkPattern::Churn => Some(self.churn(at)),
        }
    }

    fn converse(&mut self, at: Duration) -> Option<Tick> {
        match self.state {
            State::New => {
                // Somewhere inside a turn or a pause, as if it had gone on for ever.
                let talks = mix(self.seed) % self.publishers < self.speakers;
                self.state = if talks { self.talk(at) } else { self.hush(at) };
            }
            State::Talks { until } if at >= until && !self.pause.is_zero() => self.state = self.hush(at),
            State::Pauses { until, .. } if at >= until => {
                self.state = self.talk(at);
                return Some(Tick { marker: true, ..PLAIN });
            }
            State::Talks { .. } | State::Pauses { .. } => {}
        }
        match &mut self.state {
            State::Talks { .. } | State::New => Some(PLAIN),
            State::Pauses { next_dtx, .. } if at >= *next_dtx => {
                *next_dtx = at + DTX_INTERVAL;
                Some(Tick { is_pause: true, ..PLAIN })
            }
            State::Pauses { .. } => None,
        }
    }

    fn talk(&mut self, at: Duration) -> State {
        State::Talks { until: at + self.some(self.turn) }
    }

    fn hush(&mut self, at: Duration) -> State {
        State::Pauses { until: at + self.some(self.pause), next_dtx: at }
    }

    /// Exponentially distributed, up to six times the mean.
    fn some(&mut self, mean: Duration) -> Duration {
        self.turns += 1;
        let uniform = (mix(self.seed ^ self.turns) >> 11) as f64 / (1_u64 << 53) as f64;
        mean.mul_f64((-(1.0 - uniform).ln()).min(6.0))
    }

    fn churn(&mut self, at: Duration) -> Tick {
        let at = at + self.shift;
        let turn_ms = self.turn.as_millis().max(1);
        let epoch = (at.as_millis() / turn_ms) as u64;
        let first = epoch.wrapping_mul(self.speakers) % self.publishers;
        let is_loud = (self.person + self.publishers - first) % self.publishers < self.speakers;
        let is_onset = is_loud && !self.was_loud;
        self.was_loud = is_loud;
        if !is_loud {
            return Tick { level: Some(BACKGROUND_LEVEL), ..PLAIN };
        }
        let loud_for = u16::try_from(at.as_millis() % turn_ms).unwrap_or(u16::MAX - 1);
        Tick { loud_for_ms: Some(loud_for), is_onset, ..PLAIN }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Duration = Duration::from_millis(20);

    fn talkers(pattern: TalkPattern, publishers: u32, speakers: u32) -> Vec<Talker> {
        let talk = Talk { pattern, speakers, turn_ms: 2000, ..Talk::default() };
        let rooms = Rooms { publishers, ..Rooms::default() };
        (0..publishers).map(|person| Talker::new(&talk, &rooms, 3, person, 9)).collect()
    }

    #[test]
    fn everybody_talks_all_the_time() {
        let mut talkers = talkers(TalkPattern::All, 2, 1);
        assert!((0..100).all(|n| talkers[0].tick(FRAME * n) == Some(PLAIN)));
    }

    #[test]
    fn in_a_conversation_about_as_many_talk_as_wanted_and_pauses_are_nearly_silent() {
        let mut talkers = talkers(TalkPattern::Conversational, 8, 2);
        let (mut talk, mut pause, mut ticks) = (0, 0, 0);
        for n in 0..30_000 {
            for talker in &mut talkers {
                ticks += 1;
                match talker.tick(FRAME * n) {
                    Some(tick) if tick.is_pause => pause += 1,
                    Some(_) => talk += 1,
                    None => {}
                }
            }
        }
        let share = f64::from(talk) / f64::from(ticks);
        assert!((0.2..0.3).contains(&share), "{share}");
        assert!(pause > 0 && f64::from(pause) < 0.06 * f64::from(ticks - talk), "{pause}");
    }

    #[test]
    fn talk_after_a_pause_is_marked() {
        let mut talkers = talkers(TalkPattern::Conversational, 8, 2);
        let mut was_silent = false;
        for n in 0..10_000 {
            let tick = talkers[1].tick(FRAME * n);
            let talks = tick.is_some_and(|tick| !tick.is_pause);
            assert_eq!(tick.is_some_and(|tick| tick.marker), talks && was_silent && n > 0);
            was_silent = !talks;
        }
    }

    #[test]
    fn with_churn_as_many_are_loud_as_wanted_and_everybody_has_a_turn() {
        let mut talkers = talkers(TalkPattern::Churn, 5, 2);
        let mut onsets = [0; 5];
        for n in 0..1_000 {
            let ticks: Vec<_> = talkers.iter_mut().map(|talker| talker.tick(FRAME * n).expect("sends")).collect();
            assert_eq!(ticks.iter().filter(|tick| tick.loud_for_ms.is_some()).count(), 2);
            assert!(ticks.iter().all(|tick| tick.loud_for_ms.is_some() != (tick.level == Some(BACKGROUND_LEVEL))));
            for (person, tick) in ticks.iter().enumerate().filter(|(_, tick)| tick.is_onset) {
                onsets[person] += 1;
                assert!(n == 0 || tick.loud_for_ms < Some(20), "{tick:?}");
            }
        }
        assert!(onsets.iter().all(|count| (3..=6).contains(count)), "{onsets:?}");
    }
}
