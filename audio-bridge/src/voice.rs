//! One voice of the room on its way to the desktop: packets in as they arrive, samples out as the sink asks. The sink's
//! clock rules; a missing packet is recovered from the redundancy of the next one, else concealed; after 120 ms without
//! packets the voice fades and waits until enough sound is held back again. The drift of two clocks is taken up by playing
//! a trace faster or slower; far too much or too little delay is cut away or filled up by whole periods of the voice.
//!
//! Time is an argument. Nothing here knows RTP headers or sockets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::codec::{CodecError, Decoder};
use crate::jitter::{DelayTarget, Insertion, Packet, PacketStore, Stored};
use crate::patience::Patience;
use crate::pcm::samples_in_ms;
use crate::resample::{CONTEXT, Resampler};
use crate::stretch;

/// Concealment sounds like a broken robot after this; then silence is better.
const CONCEAL_SAMPLES_MAX: usize = samples_in_ms(120);
const FADE_SAMPLES: usize = samples_in_ms(20);
/// The delay that resampling steers to is this much above the target: a request of the sink.
const HEADROOM_SAMPLES: i64 = samples_in_ms(10) as i64;
/// Around it nothing is done: requests and frames beat against each other.
const DEAD_ZONE_SAMPLES: i64 = samples_in_ms(5) as i64;
/// Beyond it the speed changes by this for each sample too much or too little: 0.2 % for 10 ms.
const SPEED_PER_SAMPLE: f64 = 0.002 / samples_in_ms(10) as f64;
/// Half a percent is a twelfth of a semitone: nobody hears it.
const SPEED_CHANGE_MAX: f64 = 0.005;
/// This far above the delay that is steered to, periods are cut out: resampling would take seconds.
const SHORTEN_SAMPLES: i64 = samples_in_ms(30) as i64;
/// With less than this beside the jitter, periods are put in: the next late packet would leave a hole.
const LENGTHEN_SAMPLES: i64 = samples_in_ms(5) as i64;
/// Waiting for a packet that repeats another takes so long at most.
const REPETITION_SAMPLES_MAX: usize = samples_in_ms(20);
/// More is never held back on purpose.
const TARGET_SAMPLES_MAX: usize = samples_in_ms(200);
/// More than this above the target is dropped at once.
const EXCESS_SAMPLES_MAX: usize = samples_in_ms(200);
/// Half of the window over which the delay is measured.
const DELAY_WINDOW: Duration = Duration::from_secs(1);
/// Periods are cut or added at most this often; at 5 ms each this takes up a drift of 5 %.
const STRETCH_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VoiceCounters {
    pub received: u64,
    /// Duplicates and packets whose turn was over.
    pub useless: u64,
    pub lost: u64,
    /// Packets that came as redundancy of later ones, and not or not yet by themselves.
    pub restored: u64,
    pub undecodable: u64,
    /// Packets given up because too much sound was waiting.
    pub dropped: u64,
    pub concealed_samples: u64,
    pub shortened_samples: u64,
    pub lengthened_samples: u64,
    /// Times that nothing was there to play.
    pub underruns: u64,
}

#[derive(Debug)]
pub struct Voice {
    store: PacketStore,
    delay: DelayTarget,
    decoder: Decoder,
    /// Decoded and not played yet.
    sound: VecDeque<i16>,
    state: State,
    waiting: Waiting,
    stretched: Option<Instant>,
    resampler: Resampler,
    patience: Patience,
    frame_samples: usize,
    counters: VoiceCounters,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Holding back until the target is reached. `since`: arrival of the first packet.
    Filling {
        since: Option<Instant>,
    },
    Playing(Place),
}

/// The next packet to play.
#[derive(Clone, Copy, Debug)]
struct Place {
    sequence: i64,
    timestamp: i64,
    /// Made up since the last real packet.
    concealed: usize,
}

impl Voice {
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self {
            store: PacketStore::default(),
            delay: DelayTarget::default(),
            decoder: Decoder::new()?,
            sound: VecDeque::new(),
            state: State::Filling { since: None },
            waiting: Waiting::default(),
            stretched: None,
            resampler: Resampler::default(),
            patience: Patience::default(),
            frame_samples: samples_in_ms(20),
            counters: VoiceCounters::default(),
        })
    }

    #[must_use]
    pub fn counters(&self) -> VoiceCounters {
        self.counters
    }

    /// Sound that is held back now.
    #[must_use]
    pub fn buffered_samples(&self) -> usize {
        let stored = if self.store.is_empty() { 0 } else { self.store.span() + self.frame_samples };
        self.sound.len() + stored
    }

    /// The delay that jitter, and redundancy where it helps, need at `now`. Who waits for the second packet has waited for most
    /// of the jitter already: most packets are not the slowest.
    #[must_use]
    pub fn target_samples(&self, now: Instant) -> usize {
        let jitter = self.delay.target_samples();
        let packet = self.frame_samples.min(REPETITION_SAMPLES_MAX);
        let patience = self.patience.packets(now);
        let deep = (jitter / 2).max(DelayTarget::samples_min()) + patience * packet;
        (jitter + patience.min(1) * packet).max(deep).min(TARGET_SAMPLES_MAX)
    }

    #[must_use]
    pub fn is_playing(&self) -> bool {
        matches!(self.state, State::Playing(_))
    }

    pub fn receive(&mut self, now: Instant, packet: Packet) {
        let samples = Decoder::samples_in(&packet.payload);
        if samples == 0 {
            self.counters.undecodable += 1;
            return;
        }
        self.counters.received += 1;
        let timestamp = packet.timestamp;
        match self.store.insert(packet) {
            Insertion::Stored => {
                self.frame_samples = samples;
                self.note_waiting(now, timestamp);
            }
            Insertion::Useless => {
                self.counters.useless += 1;
                // A late packet still tells how late packets can be.
                self.delay.arrived(now, timestamp);
                return;
            }
            Insertion::Restarted => {
                self.delay = DelayTarget::default();
                self.state = State::Filling { since: None };
            }
        }
        self.delay.arrived(now, timestamp);
        if let State::Filling { since: since @ None } = &mut self.state {
            *since = Some(now);
        }
    }

    /// Takes an earlier packet that a later one repeats. To be called after [`receive`](Self::receive) of the later one.
    pub fn restore(&mut self, now: Instant, packet: Packet) {
        let sequence = packet.sequence;
        if Decoder::samples_in(&packet.payload) == 0 || !self.store.restore(packet) {
            return;
        }
        self.counters.restored += 1;
        let packets_back = self.store.newest_sequence().map_or(0, |newest| newest.wrapping_sub(sequence));
        self.patience.restored(now, packets_back.into());
    }

    /// How long until the packet that just came is played.
    fn note_waiting(&mut self, now: Instant, timestamp: u32) {
        let State::Playing(place) = self.state else { return };
        let ahead = i64::from(timestamp.wrapping_sub(place.timestamp as u32) as i32);
        self.waiting.note(now, ahead + self.sound.len() as i64);
    }

    /// Fills `out`. Says whether there was anything but silence to play.
    pub fn pull(&mut self, now: Instant, out: &mut [i16]) -> bool {
        let target = self.target_samples(now);
        if self.buffered_samples() > target + EXCESS_SAMPLES_MAX {
            self.drop_excess(now);
        }
        self.start_when_filled(now);
        let step = 1.0 + self.speed_change(target);
        let needed = Resampler::needed(out.len(), step);
        self.stretch(now, target, needed);
        while self.sound.len() < needed {
            let State::Playing(place) = self.state else { break };
            self.state = self.play_next(place);
        }
        let played = self.resampler.run(&mut self.sound, step, out);
        out[played..].fill(0);
        if played < out.len() {
            // What is left is shorter than the interpolation looks, and the fade has ended.
            self.sound.clear();
        }
        played > 0
    }

    /// How much faster (or, negative, slower) than the sink asks this voice is played.
    fn speed_change(&self, target: usize) -> f64 {
        let State::Playing(_) = self.state else { return 0.0 };
        let Some(delay) = self.waiting.longest() else { return 0.0 };
        let error = delay - target as i64 - HEADROOM_SAMPLES;
        let beyond = error - error.clamp(-DEAD_ZONE_SAMPLES, DEAD_ZONE_SAMPLES);
        (beyond as f64 * SPEED_PER_SAMPLE).clamp(-SPEED_CHANGE_MAX, SPEED_CHANGE_MAX)
    }

    /// Forgets the oldest sound until no more than the target is held back: after a stall of the network or of the sink,
    /// stretching would take half a minute.
    pub fn drop_excess(&mut self, now: Instant) {
        self.sound.clear();
        while self.buffered_samples() > self.target_samples(now).max(self.frame_samples)
            && self.store.pop_first().is_some()
        {
            self.counters.dropped += 1;
        }
        let since = match self.state {
            State::Filling { since } => since,
            State::Playing(_) => None,
        };
        self.state = match self.store.first() {
            Some(first) => {
                State::Playing(Place { sequence: first.sequence, timestamp: first.timestamp, concealed: 0 })
            }
            None => State::Filling { since },
        };
        self.waiting = Waiting::default();
    }

    fn start_when_filled(&mut self, now: Instant) {
        let State::Filling { since: Some(since) } = self.state else { return };
        let Some(first) = self.store.first() else { return };
        let waited_ms = now.saturating_duration_since(since).as_millis();
        let target = self.target_samples(now) + HEADROOM_SAMPLES as usize;
        // More than that is here only after a burst; otherwise the clock says when the delay is what it should be.
        if self.buffered_samples() < target + self.frame_samples && waited_ms < (target / samples_in_ms(1)) as u128 {
            return;
        }
        self.state = State::Playing(Place { sequence: first.sequence, timestamp: first.timestamp, concealed: 0 });
        self.waiting = Waiting::default();
    }

    /// Produces the sound of one packet, or a substitute.
    fn play_next(&mut self, place: Place) -> State {
        let Some(first) = self.store.first() else {
            if place.concealed == 0 {
                self.counters.underruns += 1;
            }
            return self.conceal(place, self.frame_samples);
        };
        // Samples that nobody sent or that are lost, beyond those already made up.
        let missing = usize::try_from(first.timestamp - place.timestamp).unwrap_or(0).saturating_sub(place.concealed);
        if first.sequence == place.sequence {
            return if missing > 0 { self.conceal(place, missing) } else { self.play_first(place) };
        }
        let lost = u64::try_from(first.sequence - place.sequence).unwrap_or(0);
        if missing == 0 {
            self.counters.lost += lost;
            return self.play_first(place);
        }
        // Of several, the last may be in the next packet.
        if lost == 1 && missing <= CONCEAL_SAMPLES_MAX || missing <= self.frame_samples {
            self.counters.lost += lost;
            return self.recover(place, missing);
        }
        self.conceal(place, missing)
    }

    fn play_first(&mut self, place: Place) -> State {
        let Some(packet) = self.store.pop_first() else { return State::Playing(place) };
        let Stored { sequence, timestamp, payload } = packet;
        let samples = match self.decoder.decode(&payload) {
            Ok(sound) => {
                self.sound.extend(sound);
                sound.len()
            }
            Err(_) => {
                self.counters.undecodable += 1;
                Decoder::samples_in(&payload)
            }
        };
        State::Playing(Place { sequence: sequence + 1, timestamp: timestamp + samples as i64, concealed: 0 })
    }

    /// One packet is lost and the next one is here.
    fn recover(&mut self, place: Place, missing: usize) -> State {
        let Some(next) = self.store.first() else { return self.conceal(place, missing) };
        if let Ok(sound) = self.decoder.recover(&next.payload, missing) {
            self.sound.extend(sound.iter().take(missing));
        }
        let place = Place { sequence: next.sequence, timestamp: next.timestamp, concealed: 0 };
        self.store.give_up_before(place.sequence);
        self.counters.concealed_samples += missing as u64;
        State::Playing(place)
    }

    fn conceal(&mut self, place: Place, wanted: usize) -> State {
        let samples = wanted.min(FADE_SAMPLES);
        let start = self.sound.len();
        match self.decoder.conceal(samples) {
            Ok(sound) => self.sound.extend(sound.iter().take(samples)),
            Err(_) => self.sound.extend(std::iter::repeat_n(0, samples)),
        }
        self.counters.concealed_samples += samples as u64;
        let concealed = place.concealed + samples;
        if concealed < CONCEAL_SAMPLES_MAX + FADE_SAMPLES {
            return State::Playing(Place { concealed, ..place });
        }
        for (n, sample) in self.sound.iter_mut().skip(start).enumerate() {
            *sample = (i32::from(*sample) * (samples - n) as i32 / samples as i32) as i16;
        }
        let since = None;
        let waiting = self.store.first().map(|first| first.sequence);
        if let Some(sequence) = waiting {
            self.counters.lost += u64::try_from(sequence - place.sequence).unwrap_or(0);
            // Sound is here, only its time was far ahead: play it without waiting for more.
            let Some(first) = self.store.first() else { return State::Filling { since } };
            return State::Playing(Place { sequence, timestamp: first.timestamp, concealed: 0 });
        }
        State::Filling { since }
    }

    /// Brings the delay toward what is needed.
    fn stretch(&mut self, now: Instant, target: usize, wanted: usize) {
        let State::Playing(place) = self.state else { return };
        let rested = self.stretched.is_none_or(|at| now.saturating_duration_since(at) >= STRETCH_INTERVAL);
        let Some(delay) = self.waiting.longest().filter(|_| rested && place.concealed == 0) else { return };
        let target = target as i64;
        let changed = if delay > target + HEADROOM_SAMPLES + SHORTEN_SAMPLES {
            self.decode_ahead(place, wanted.max(stretch::SAMPLES_MIN + CONTEXT));
            let removed = stretch::shorten(&mut self.sound);
            self.counters.shortened_samples += removed as u64;
            -(removed as i64)
        } else if delay < target - LENGTHEN_SAMPLES && delay < self.delay.spread_samples() as i64 + LENGTHEN_SAMPLES {
            self.decode_ahead(place, stretch::SAMPLES_MIN);
            let added = stretch::lengthen(&mut self.sound);
            self.counters.lengthened_samples += added as u64;
            added as i64
        } else {
            return;
        };
        if changed != 0 {
            self.stretched = Some(now);
            self.waiting.shift(changed);
        }
    }

    /// Decodes packets that are here and due next until there is enough sound to work on.
    fn decode_ahead(&mut self, mut place: Place, samples: usize) {
        while self.sound.len() < samples
            && self.store.first().is_some_and(|f| f.sequence == place.sequence && f.timestamp <= place.timestamp)
        {
            self.state = self.play_first(place);
            let State::Playing(next) = self.state else { return };
            place = next;
        }
    }
}

/// The delay of playing: how long the fastest packets of the last one to two windows waited for their turn.
#[derive(Debug, Default)]
struct Waiting {
    began: Option<Instant>,
    current: Option<i64>,
    previous: Option<i64>,
}

impl Waiting {
    fn note(&mut self, now: Instant, samples: i64) {
        let began = *self.began.get_or_insert(now);
        if now.saturating_duration_since(began) >= DELAY_WINDOW {
            self.began = Some(now);
            self.previous = self.current.take();
        }
        self.current = Some(self.current.map_or(samples, |longest| longest.max(samples)));
    }

    /// Nothing until a whole window was seen.
    fn longest(&self) -> Option<i64> {
        let previous = self.previous?;
        Some(self.current.map_or(previous, |current| current.max(previous)))
    }

    fn shift(&mut self, by: i64) {
        for longest in [&mut self.current, &mut self.previous].into_iter().flatten() {
            *longest += by;
        }
    }
}

#[cfg(test)]
mod tests;
