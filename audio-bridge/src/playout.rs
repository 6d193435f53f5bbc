//! The room's voices on their way into one virtual microphone: a voice for each slot, mixed with the gain of its
//! speaker. The sink pulls; packets are pushed by the network side. A slot that another speaker takes starts afresh.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::jitter::Packet;
use crate::mixer::Mixer;
use crate::pcm::samples_in_ms;
use crate::voice::{Voice, VoiceCounters};

/// Twice the slots of a room; more streams than that are not ours to play.
const VOICES_MAX: usize = 16;
/// A voice without packets for this long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// The sink did not ask for this long: what waits is old by now.
const PULL_GAP: Duration = Duration::from_millis(300);
/// Speakers whose gain differs from 1.
const GAINS_MAX: usize = 256;

/// One packet of a slot.
#[derive(Clone, Debug)]
pub struct SlotPacket {
    /// The slot's stream (its SSRC).
    pub slot: u32,
    /// The speaker in it (the CSRC), when the packet names one.
    pub source: Option<u32>,
    pub packet: Packet,
    /// Earlier packets that it repeats, the newest first.
    pub earlier: Vec<Packet>,
}

/// Whose packets are played.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admitted {
    #[default]
    All,
    /// Only these sources, by CSRC. A packet that names no source is nobody's.
    Only(BTreeSet<u32>),
}

/// Sums over all voices, past ones included.
pub type Totals = VoiceCounters;

#[derive(Debug, Default)]
pub struct Playout {
    slots: BTreeMap<u32, Slot>,
    gains: BTreeMap<u32, f32>,
    admitted: Admitted,
    ended: Totals,
    refused: u64,
    not_admitted: u64,
    last_fill: Option<Instant>,
    mixer: Mixer,
    scratch: Vec<i16>,
}

#[derive(Debug)]
struct Slot {
    source: Option<u32>,
    voice: Voice,
    heard: Instant,
}

impl Playout {
    pub fn receive(&mut self, now: Instant, SlotPacket { slot, source, packet, earlier }: SlotPacket) {
        if !self.admits(source) {
            self.not_admitted += 1;
            return;
        }
        let known = self.slots.get(&slot).is_some_and(|s| s.source == source);
        if !known {
            self.forget(slot);
            let Some(fresh) = Slot::new(source, now).filter(|_| self.slots.len() < VOICES_MAX) else {
                self.refused += 1;
                return;
            };
            self.slots.insert(slot, fresh);
        }
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.heard = now;
            slot.voice.receive(now, packet);
            for packet in earlier {
                slot.voice.restore(now, packet);
            }
        }
    }

    pub(crate) fn admits(&self, source: Option<u32>) -> bool {
        match &self.admitted {
            Admitted::All => true,
            Admitted::Only(sources) => source.is_some_and(|source| sources.contains(&source)),
        }
    }

    /// Says whose packets are played from now on, with which gain where it is not 1. Who is not admitted any more falls
    /// silent at once.
    pub fn admit(&mut self, admitted: Admitted, gains: BTreeMap<u32, f32>) {
        self.admitted = admitted;
        self.gains.clear();
        for (source, gain) in gains {
            self.set_gain(source, gain);
        }
        let silenced: Vec<u32> =
            self.slots.iter().filter(|(_, slot)| !self.admits(slot.source)).map(|(&id, _)| id).collect();
        silenced.into_iter().for_each(|slot| self.forget(slot));
    }

    /// Mixes the next samples of all voices into `out`.
    pub fn fill(&mut self, now: Instant, out: &mut [i16]) {
        let paused = self.last_fill.replace(now).is_some_and(|last| now.saturating_duration_since(last) > PULL_GAP);
        self.mixer.begin(out.len());
        self.scratch.resize(out.len(), 0);
        for slot in self.slots.values_mut() {
            if paused {
                slot.voice.drop_excess(now);
            }
            if slot.voice.pull(now, &mut self.scratch) {
                let gain = slot.source.and_then(|source| self.gains.get(&source)).copied().unwrap_or(1.0);
                self.mixer.add(&self.scratch, gain);
            }
        }
        self.mixer.finish(out);
        let idle = |slot: &Slot| now.saturating_duration_since(slot.heard) > IDLE;
        let ended: Vec<u32> = self.slots.iter().filter(|(_, slot)| idle(slot)).map(|(&id, _)| id).collect();
        ended.into_iter().for_each(|slot| self.forget(slot));
    }

    /// Sets the gain of one speaker, by CSRC.
    pub fn set_gain(&mut self, source: u32, gain: f32) {
        if self.gains.len() < GAINS_MAX || self.gains.contains_key(&source) {
            self.gains.insert(source, gain.clamp(0.0, 4.0));
        }
    }

    /// Ends all voices: the connection that carried them is gone.
    pub fn clear(&mut self) {
        let slots: Vec<u32> = self.slots.keys().copied().collect();
        slots.into_iter().for_each(|slot| self.forget(slot));
    }

    /// Voices that are heard now.
    #[must_use]
    pub fn playing(&self) -> usize {
        self.slots.values().filter(|slot| slot.voice.is_playing()).count()
    }

    /// The longest sound held back by any voice, in milliseconds.
    #[must_use]
    pub fn buffered_ms_max(&self) -> u64 {
        let longest = self.slots.values().map(|slot| slot.voice.buffered_samples()).max().unwrap_or(0);
        (longest / samples_in_ms(1)) as u64
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        self.slots.values().fold(self.ended, |sum, slot| add(sum, slot.voice.counters()))
    }

    /// Packets of streams beyond the bound.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Packets of speakers that may not speak into this desktop.
    #[must_use]
    pub fn not_admitted(&self) -> u64 {
        self.not_admitted
    }

    fn forget(&mut self, slot: u32) {
        if let Some(slot) = self.slots.remove(&slot) {
            self.ended = add(self.ended, slot.voice.counters());
        }
    }
}

impl Slot {
    fn new(source: Option<u32>, heard: Instant) -> Option<Self> {
        Some(Self { source, voice: Voice::new().ok()?, heard })
    }
}

fn add(a: Totals, b: Totals) -> Totals {
    Totals {
        received: a.received + b.received,
        useless: a.useless + b.useless,
        lost: a.lost + b.lost,
        restored: a.restored + b.restored,
        undecodable: a.undecodable + b.undecodable,
        dropped: a.dropped + b.dropped,
        concealed_samples: a.concealed_samples + b.concealed_samples,
        shortened_samples: a.shortened_samples + b.shortened_samples,
        lengthened_samples: a.lengthened_samples + b.lengthened_samples,
        underruns: a.underruns + b.underruns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{Tone, amplitude_at};

    struct Speaker {
        slot: u32,
        source: u32,
        tone: Tone,
        encoder: opus::Encoder,
        sent: u32,
    }

    impl Speaker {
        fn new(slot: u32, source: u32, frequency_hz: f64) -> Self {
            let encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).expect("encoder");
            Self { slot, source, tone: Tone::new(frequency_hz, 4000.0), encoder, sent: 0 }
        }

        fn say(&mut self) -> SlotPacket {
            let mut pcm = [0; 960];
            self.tone.fill(&mut pcm);
            let payload = self.encoder.encode_vec(&pcm, 400).expect("encodes");
            self.sent += 1;
            let packet = Packet { sequence: self.sent as u16, timestamp: self.sent * 960, payload };
            SlotPacket { slot: self.slot, source: Some(self.source), packet, earlier: Vec::new() }
        }
    }

    fn room(playout: &mut Playout, start: Instant, speakers: &mut [Speaker], packets: u64) -> Vec<i16> {
        let mut heard = Vec::new();
        for n in 0..packets {
            for half in 0..2 {
                let now = start + Duration::from_millis(n * 20 + half * 10);
                if half == 0 {
                    speakers.iter_mut().for_each(|speaker| playout.receive(now, speaker.say()));
                }
                let mut out = [0; 480];
                playout.fill(now, &mut out);
                heard.extend_from_slice(&out);
            }
        }
        heard
    }

    #[test]
    fn all_voices_are_heard_with_their_gains() {
        let mut playout = Playout::default();
        playout.set_gain(22, 0.25);
        let mut speakers = [Speaker::new(1, 11, 700.0), Speaker::new(2, 22, 1100.0)];
        let heard = room(&mut playout, Instant::now(), &mut speakers, 150);
        let steady = &heard[96_000..];
        assert!((amplitude_at(steady, 700.0) - 4000.0).abs() < 300.0, "{:.0}", amplitude_at(steady, 700.0));
        assert!((amplitude_at(steady, 1100.0) - 1000.0).abs() < 120.0, "{:.0}", amplitude_at(steady, 1100.0));
        assert_eq!(playout.playing(), 2);
    }

    #[test]
    fn who_may_not_speak_here_is_not_heard() {
        let mut playout = Playout::default();
        let start = Instant::now();
        let mut speakers = [Speaker::new(1, 11, 700.0), Speaker::new(2, 22, 1100.0)];
        playout.admit(Admitted::Only([22].into()), [(22, 0.5)].into());
        let heard = room(&mut playout, start, &mut speakers, 100);
        assert!(amplitude_at(&heard[48_000..], 700.0) < 5.0);
        assert!((amplitude_at(&heard[48_000..], 1100.0) - 2000.0).abs() < 200.0);
        assert_eq!((playout.not_admitted(), playout.playing()), (100, 1));
        playout.admit(Admitted::Only(BTreeSet::new()), BTreeMap::new());
        let heard = room(&mut playout, start + Duration::from_secs(2), &mut speakers, 50);
        assert!(heard.iter().all(|&sample| sample == 0), "silenced at once");
        playout.receive(start, SlotPacket { source: None, ..speakers[0].say() });
        assert_eq!(playout.playing(), 0, "a packet without a name is nobody's");
    }

    #[test]
    fn a_slot_taken_by_another_speaker_starts_afresh() {
        let mut playout = Playout::default();
        let start = Instant::now();
        room(&mut playout, start, &mut [Speaker::new(1, 11, 700.0)], 50);
        let later = start + Duration::from_secs(1);
        let heard = room(&mut playout, later, &mut [Speaker::new(1, 12, 1500.0)], 100);
        assert!(amplitude_at(&heard[48_000..], 1500.0) > 3500.0);
        assert_eq!(playout.totals().received, 150);
        assert_eq!(playout.totals().lost, 0);
    }

    #[test]
    fn a_sink_that_was_away_does_not_hear_the_past() {
        let mut playout = Playout::default();
        let start = Instant::now();
        let mut speaker = Speaker::new(1, 11, 700.0);
        for n in 0..60 {
            playout.receive(start + Duration::from_millis(n * 20), speaker.say());
        }
        let mut out = [0; 480];
        playout.fill(start, &mut out);
        playout.fill(start + Duration::from_millis(1200), &mut out);
        assert!(playout.buffered_ms_max() <= 40, "{} ms", playout.buffered_ms_max());
    }

    #[test]
    fn strange_streams_are_bounded() {
        let mut playout = Playout::default();
        let now = Instant::now();
        for slot in 0..100 {
            playout.receive(now, Speaker::new(slot, slot, 700.0).say());
        }
        assert_eq!(playout.refused(), 84);
        playout.fill(now + IDLE + Duration::from_secs(1), &mut [0; 480]);
        assert_eq!(playout.totals().received, 16);
        assert_eq!(playout.playing(), 0);
    }
}
