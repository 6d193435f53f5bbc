//! One voice of the room on its way to the desktop: packets in as they arrive, samples out as the sink asks. The sink's
//! clock rules; a missing packet is recovered from the redundancy of the next one, else concealed; after 120 ms without
//! packets the voice fades and waits until enough sound is held back again. Delay beyond what the jitter needs is
//! shortened away, too little is lengthened, so clocks may drift.
//!
//! Time is an argument. Nothing here knows RTP headers or sockets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::codec::{CodecError, Decoder};
use crate::jitter::{DelayTarget, Insertion, Packet, PacketStore, Stored};
use crate::pcm::samples_in_ms;
use crate::stretch;

/// Concealment sounds like a broken robot after this; then silence is better.
const CONCEAL_SAMPLES_MAX: usize = samples_in_ms(120);
const FADE_SAMPLES: usize = samples_in_ms(20);
/// The delay may be this much above the target before it is shortened: two requests of the sink.
const TOLERANCE_SAMPLES: i64 = samples_in_ms(30) as i64;
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

    #[must_use]
    pub fn target(&self) -> Duration {
        self.delay.target()
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

    /// How long until the packet that just came is played.
    fn note_waiting(&mut self, now: Instant, timestamp: u32) {
        let State::Playing(place) = self.state else { return };
        let ahead = i64::from(timestamp.wrapping_sub(place.timestamp as u32) as i32);
        self.waiting.note(now, ahead + self.sound.len() as i64);
    }

    /// Fills `out`. Says whether there was anything but silence to play.
    pub fn pull(&mut self, now: Instant, out: &mut [i16]) -> bool {
        if self.buffered_samples() > self.delay.target_samples() + EXCESS_SAMPLES_MAX {
            self.drop_excess();
        }
        self.start_when_filled(now);
        self.stretch(now, out.len());
        while self.sound.len() < out.len() {
            let State::Playing(place) = self.state else { break };
            self.state = self.play_next(place);
        }
        let playable = self.sound.len().min(out.len());
        for (out, sample) in out.iter_mut().zip(self.sound.drain(..playable)) {
            *out = sample;
        }
        out[playable..].fill(0);
        playable > 0
    }

    /// Forgets the oldest sound until no more than the target is held back: after a stall of the network or of the sink,
    /// stretching would take half a minute.
    pub fn drop_excess(&mut self) {
        self.sound.clear();
        while self.buffered_samples() > self.delay.target_samples().max(self.frame_samples)
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
        let waited = now.saturating_duration_since(since);
        if self.buffered_samples() < self.delay.target_samples() && waited < self.delay.target() {
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
        if lost == 1 && missing <= CONCEAL_SAMPLES_MAX {
            self.counters.lost += 1;
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
    fn stretch(&mut self, now: Instant, wanted: usize) {
        let State::Playing(place) = self.state else { return };
        let rested = self.stretched.is_none_or(|at| now.saturating_duration_since(at) >= STRETCH_INTERVAL);
        let Some(delay) = self.waiting.longest().filter(|_| rested && place.concealed == 0) else { return };
        let target = self.delay.target_samples() as i64;
        let changed = if delay > target + TOLERANCE_SAMPLES {
            self.decode_ahead(place, wanted.max(stretch::SAMPLES_MIN));
            let removed = stretch::shorten(&mut self.sound);
            self.counters.shortened_samples += removed as u64;
            -(removed as i64)
        } else if delay < target {
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
mod tests {
    use super::*;
    use crate::synthetic::{Tone, level};

    /// A talker, a network that is ours, and a desktop that pulls 10 ms at a time.
    struct Call {
        start: Instant,
        now: Duration,
        voice: Voice,
        encoder: opus::Encoder,
        tone: Tone,
        sequence: u16,
        timestamp: u32,
        heard: Vec<i16>,
    }

    impl Call {
        fn new() -> Self {
            Self {
                start: Instant::now(),
                now: Duration::ZERO,
                voice: Voice::new().expect("decoder"),
                encoder: opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).expect("encoder"),
                tone: Tone::new(700.0, 6000.0),
                sequence: 65_500,
                timestamp: u32::MAX - 48_000,
                heard: Vec::new(),
            }
        }

        fn packet(&mut self) -> Packet {
            let mut pcm = [0; 960];
            self.tone.fill(&mut pcm);
            let payload = self.encoder.encode_vec(&pcm, 400).expect("encodes");
            let packet = Packet { sequence: self.sequence, timestamp: self.timestamp, payload };
            self.sequence = self.sequence.wrapping_add(1);
            self.timestamp = self.timestamp.wrapping_add(960);
            packet
        }

        fn pull(&mut self) {
            let mut out = [0; 480];
            self.voice.pull(self.start + self.now, &mut out);
            self.heard.extend_from_slice(&out);
        }

        /// `packets` of 20 ms, each arriving after `delay_us(n)`; `None` is lost. The sender's clock is `ppm` slow.
        fn talk(&mut self, packets: u64, ppm: i64, delay_us: impl Fn(u64) -> Option<u64>) {
            let begin = self.now.as_micros() as u64;
            let interval = (20_000 * (1_000_000 + ppm) / 1_000_000) as u64;
            let mut arrivals: Vec<(u64, Packet)> = (0..packets)
                .filter_map(|n| {
                    let packet = self.packet();
                    delay_us(n).map(|delay| (begin + n * interval + delay, packet))
                })
                .collect();
            arrivals.sort_by_key(|(at, _)| *at);
            let mut arrivals = arrivals.into_iter().peekable();
            let end = begin + packets * interval;
            let mut pulled = begin;
            while pulled < end {
                while let Some((at, packet)) = arrivals.next_if(|(at, _)| *at <= pulled) {
                    self.voice.receive(self.start + Duration::from_micros(at), packet);
                }
                self.now = Duration::from_micros(pulled);
                self.pull();
                pulled += 10_000;
            }
            self.now = Duration::from_micros(end);
        }

        fn buffered_ms(&self) -> usize {
            self.voice.buffered_samples() / 48
        }
    }

    #[test]
    fn a_clean_voice_is_played_at_its_level_without_concealment() {
        let mut call = Call::new();
        call.talk(200, 0, |_| Some(5_000));
        let counters = call.voice.counters();
        assert_eq!((counters.lost, counters.underruns, counters.undecodable), (0, 0, 0));
        let rms = level(&call.heard[48_000..]);
        assert!((rms - 6000.0 / f64::sqrt(2.0)).abs() < 200.0, "level {rms:.0}");
        assert!(call.buffered_ms() <= 60, "{} ms held back", call.buffered_ms());
    }

    #[test]
    fn loss_is_concealed_and_the_voice_stays() {
        let mut call = Call::new();
        call.talk(500, 0, |n| (n % 10 != 3).then_some(5_000));
        let counters = call.voice.counters();
        assert_eq!(counters.lost, 50);
        let rms = level(&call.heard[48_000..]);
        assert!((rms - 6000.0 / f64::sqrt(2.0)).abs() < 400.0, "level {rms:.0}");
    }

    #[test]
    fn jitter_raises_the_delay_and_little_is_concealed() {
        let mut call = Call::new();
        // 0 to 80 ms in a fixed pseudo-random order; also reorders.
        call.talk(1500, 0, |n| Some(n.wrapping_mul(2_654_435_761) % 80_000));
        let before = call.voice.counters().concealed_samples;
        call.talk(1500, 0, |n| Some(n.wrapping_mul(2_654_435_761) % 80_000));
        let concealed = call.voice.counters().concealed_samples - before;
        assert!(concealed * 100 <= 1500 * 960 * 2, "{concealed} samples concealed in 30 s");
        assert!(call.buffered_ms() <= 200, "{} ms held back", call.buffered_ms());
    }

    #[test]
    fn a_burst_after_a_stall_does_not_stay_as_delay() {
        let mut call = Call::new();
        call.talk(200, 0, |_| Some(5_000));
        // The network stops for 600 ms, then everything comes at once.
        call.talk(30, 0, |n| Some(600_000 - n * 20_000));
        call.talk(50, 0, |_| Some(5_000));
        let after = call.buffered_ms();
        call.talk(500, 0, |_| Some(5_000));
        assert!(call.buffered_ms() <= 80, "{after} ms, ten seconds later {} ms", call.buffered_ms());
    }

    #[test]
    fn drifting_clocks_do_not_make_gaps() {
        for ppm in [-300, 300] {
            let mut call = Call::new();
            call.talk(30_000, ppm, |n| Some(5_000 + n % 7 * 300));
            let counters = call.voice.counters();
            assert!(counters.underruns <= 1, "{ppm} ppm: {counters:?}");
            assert!(call.buffered_ms() <= 80, "{ppm} ppm: {} ms held back", call.buffered_ms());
        }
    }

    #[test]
    fn a_voice_that_stops_fades_and_comes_back() {
        let mut call = Call::new();
        call.talk(100, 0, |_| Some(5_000));
        let stopped = call.heard.len();
        for _ in 0..100 {
            call.now += Duration::from_millis(10);
            call.pull();
        }
        assert!(!call.voice.is_playing());
        assert!(call.heard[stopped + 48 * 300..].iter().all(|&sample| sample == 0));
        call.timestamp = call.timestamp.wrapping_add(48_000);
        let resumed = call.heard.len();
        call.talk(100, 0, |_| Some(5_000));
        let rms = level(&call.heard[resumed + 48 * 200..]);
        assert!(rms > 3500.0, "level {rms:.0} after the pause");
    }

    #[test]
    fn pauses_of_the_sender_are_not_loss() {
        let mut call = Call::new();
        for _ in 0..20 {
            call.talk(1, 0, |_| Some(5_000));
            // Opus DTX: 380 ms without packets, time goes on.
            call.timestamp = call.timestamp.wrapping_add(48 * 380);
            for _ in 0..38 {
                call.now += Duration::from_millis(10);
                call.pull();
            }
        }
        assert_eq!(call.voice.counters().lost, 0);
        assert!(call.buffered_ms() <= 40, "{} ms held back", call.buffered_ms());
    }

    #[test]
    fn garbage_is_counted_and_harmless() {
        let mut call = Call::new();
        call.talk(20, 0, |_| Some(5_000));
        let now = call.start + call.now;
        for n in 0..2000_u32 {
            let payload = (0..n % 40).map(|i| (n.wrapping_mul(31) ^ i) as u8).collect();
            let packet =
                Packet { sequence: n.wrapping_mul(7919) as u16, timestamp: n.wrapping_mul(0x9e37_79b9), payload };
            call.voice.receive(now, packet);
            call.pull();
        }
        assert!(call.voice.counters().undecodable > 0);
    }
}
