//! How loud a voice is over some packets, from the levels that the senders write beside them (RFC 6464), and whether
//! that counts as speaking. It decodes no sound. Smoothing goes by the time that a packet plays, so that long and short
//! packets rise alike.

use std::time::{Duration, Instant};

use crate::{clock::rtp_units, opus};

/// Attenuation in 1/64 dB below overload: the smaller the louder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Attenuation(pub(crate) u16);

impl Attenuation {
    pub(crate) const fn from_db(db: u16) -> Self {
        Self(db * 64)
    }

    /// Whether it is louder by at least so many dB.
    pub(crate) fn beats(self, other: Self, margin_db: u16) -> bool {
        self.0 + margin_db * 64 <= other.0
    }
}

/// Nobody hears a difference below: digital silence (127) and room noise after noise suppression (65-80) are one thing,
/// and a voice that rises out of either is noticed after the same time.
const QUIETEST: Attenuation = Attenuation::from_db(80);
/// Becomes a speaker at this level, stops below the other: the distance keeps a voice from flickering between words.
/// Speech with gain control lies at 15-35 dB, a quiet speaker at 40, what noise suppression leaves above 55.
const SPEAKS_FROM: Attenuation = Attenuation::from_db(45);
const SPEAKS_TO: Attenuation = Attenuation::from_db(55);
/// Sound must last as long as this to count, by the quieter one of two packets where they are shorter: a key or a knock
/// lasts 10-30 ms, a syllable 80 and more.
const LASTING: u32 = rtp_ms(40);
/// Time constant upwards: a voice counts after 60-140 ms of a word, and two knocks in a row do not.
const RISE: u32 = rtp_ms(60);
/// Time constant downwards: carries over the closures and pauses of 100-250 ms inside fluent speech.
const FALL: u32 = rtp_ms(300);
/// Publishers that write no level count by the presence of sound. 40 dB is above the threshold, so that they are heard,
/// and below most voices that say their level, so that a sender that never pauses does not push those out.
const UNKNOWN: Attenuation = Attenuation::from_db(40);
/// Packets come each 10-120 ms and DTX sends one each 400 ms: after this the voice is over.
const STALE_AFTER: Duration = Duration::from_millis(500);

/// Beyond every attenuation. The rest of the numbers reach over nine minutes of silence.
const SILENT_ON_WIRE: u16 = 8_192;
const WIRE_SILENCE_STEP: Duration = Duration::from_millis(10);

const fn rtp_ms(ms: u32) -> u32 {
    ms * 48
}

/// The smoothed level of one track.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    average: Attenuation,
    /// Of the packet before.
    last: Attenuation,
    heard_at: Option<Instant>,
    speaking: bool,
    spoke_at: Option<Instant>,
}

impl Default for Voice {
    fn default() -> Self {
        Self { average: QUIETEST, last: QUIETEST, heard_at: None, speaking: false, spoke_at: None }
    }
}

impl Voice {
    /// One packet. `level`: the byte of RFC 6464, its low seven bits are the attenuation in dB. The voice activity bit is
    /// not used: senders set it for every packet that is not DTX.
    #[inline]
    pub(crate) fn hear(&mut self, now: Instant, level: Option<u8>, packet: &[u8]) {
        let elapsed = self.heard_at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        if elapsed > STALE_AFTER {
            (self.average, self.last) = (QUIETEST, QUIETEST);
            self.speaking = false;
        }
        self.heard_at = Some(now);
        let sample = match level {
            Some(level) => Attenuation::from_db(u16::from(level & 0x7f)),
            None if opus::is_silence(packet) => QUIETEST,
            None => UNKNOWN,
        };
        let duration = opus::duration(packet);
        let last = std::mem::replace(&mut self.last, sample);
        let lasting = if duration < LASTING { sample.max(last) } else { sample };
        let (sample, average) = (i64::from(lasting.min(QUIETEST).0), i64::from(self.average.0));
        // A gap is silence (DTX) when silence follows it, and loss when sound does.
        let (time, constant) = if sample < average {
            (duration, RISE)
        } else {
            (duration.max(rtp_units(elapsed.min(STALE_AFTER))), FALL)
        };
        let step = (sample - average) * i64::from(time) / i64::from(time + constant);
        self.average = Attenuation((average + step) as u16);
        self.speaking = self.average <= if self.speaking { SPEAKS_TO } else { SPEAKS_FROM };
        if self.speaking {
            self.spoke_at = Some(now);
        }
    }

    pub(crate) fn loudness(&self) -> Attenuation {
        self.average
    }

    /// Whether it speaks, as of its last packet.
    pub(crate) fn is_speaking(&self, now: Instant) -> bool {
        self.speaking && self.heard_at.is_some_and(|at| now.saturating_duration_since(at) <= STALE_AFTER)
    }

    /// For other shards, in two bytes: how loud it speaks, or how long it has been silent.
    pub(crate) fn to_wire(self, now: Instant) -> u16 {
        if self.is_speaking(now) {
            return self.average.0;
        }
        let silent_for = self.spoke_at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let steps = silent_for.as_millis() / WIRE_SILENCE_STEP.as_millis();
        SILENT_ON_WIRE + u16::try_from(steps).unwrap_or(u16::MAX).min(u16::MAX - SILENT_ON_WIRE)
    }

    /// What another shard has said of its track. Any number means something.
    pub(crate) fn from_wire(now: Instant, wire: u16) -> Self {
        match wire.checked_sub(SILENT_ON_WIRE) {
            None => {
                let average = Attenuation(wire.min(SPEAKS_TO.0));
                Self { average, last: average, heard_at: Some(now), speaking: true, spoke_at: Some(now) }
            }
            Some(steps) => {
                let spoke_at = now.checked_sub(WIRE_SILENCE_STEP * u32::from(steps));
                Self { average: QUIETEST, last: QUIETEST, heard_at: Some(now), speaking: false, spoke_at }
            }
        }
    }

    /// The last moment of speech.
    pub(crate) fn spoke_at(&self) -> Option<Instant> {
        self.spoke_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 20 ms.
    const PACKET: [u8; 40] = [0x78; 40];

    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
    fn origin() -> Instant {
        Instant::now()
    }

    /// Whether it speaks, packet by packet of 20 ms; `read_trace` explains the text.
    fn speaks(trace: &str) -> Vec<bool> {
        let (mut voice, mut now) = (Voice::default(), origin());
        let levels = trace.split_whitespace().map(|level| level.parse().unwrap());
        let speaks = levels.map(|level| {
            now += Duration::from_millis(20);
            voice.hear(now, Some(level), &PACKET);
            voice.is_speaking(now)
        });
        speaks.collect()
    }

    fn share(speaks: &[bool]) -> f64 {
        speaks.iter().filter(|speaks| **speaks).count() as f64 / speaks.len() as f64
    }

    #[test]
    fn speech_counts_from_its_first_word_and_through_its_pauses() {
        for (trace, name) in [
            (include_str!("../tests/levels/speech-20-fast.txt"), "fast and loud"),
            (include_str!("../tests/levels/speech-26.txt"), "usual"),
            (include_str!("../tests/levels/speech-38.txt"), "quiet"),
        ] {
            let loud = trace.split_whitespace().position(|level| level.parse::<u8>().unwrap() < 50).unwrap();
            let speaks = speaks(trace);
            let onset = speaks.iter().position(|speaks| *speaks).unwrap();
            assert!(onset - loud <= 9, "{name}: {} packets after the first sound", onset - loud);
            let spoken = &speaks[onset..speaks.len() - 75];
            assert!(share(spoken) > 0.75, "{name}: {}", share(spoken));
            let changes = spoken.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(changes <= 12, "{name}: flickers {changes} times in {} packets", spoken.len());
            assert!(!speaks.last().unwrap(), "{name}: ends");
        }
    }

    #[test]
    fn one_word_is_enough_and_music_never_pauses() {
        assert!(share(&speaks(include_str!("../tests/levels/word-24.txt"))) > 0.05);
        assert!(share(&speaks(include_str!("../tests/levels/music-24.txt"))) > 0.95);
    }

    #[test]
    fn typing_and_room_noise_are_no_speech() {
        assert_eq!(share(&speaks(include_str!("../tests/levels/keyboard.txt"))), 0.0);
        assert_eq!(share(&speaks(include_str!("../tests/levels/noise-58.txt"))), 0.0);
    }

    #[test]
    fn packets_of_any_length_rise_in_about_the_same_time() {
        for (toc, ms) in [(0x70, 10), (0x78, 20), (0x18, 60)] {
            let (mut voice, now) = (Voice::default(), origin());
            let until = (1..).find(|n| {
                voice.hear(now + Duration::from_millis(n * ms), Some(30), &[toc; 40]);
                voice.is_speaking(now + Duration::from_millis(n * ms))
            });
            let took_ms = until.unwrap() * ms;
            assert!((60..=140).contains(&took_ms), "packets of {ms} ms: {took_ms} ms");
        }
    }

    #[test]
    fn voice_without_levels_counts_while_it_sends_sound() {
        let (mut voice, mut now) = (Voice::default(), origin());
        let mut hear = |packet: &[u8], gap_ms| {
            now += Duration::from_millis(gap_ms);
            voice.hear(now, None, packet);
            voice.is_speaking(now)
        };
        assert!((0..20).any(|_| hear(&PACKET, 20)));
        assert!(!hear(&[0x78, 0], 400), "DTX is silence");
        assert!(!hear(&PACKET, 20), "not at once");
    }

    #[test]
    fn who_stops_sending_stops_speaking() {
        let (mut voice, now) = (Voice::default(), origin());
        for _ in 0..50 {
            voice.hear(now, Some(20), &PACKET);
        }
        assert!(voice.is_speaking(now + Duration::from_millis(400)));
        assert!(!voice.is_speaking(now + Duration::from_millis(600)));
    }

    #[test]
    fn another_shard_reads_what_matters_for_the_choice() {
        let (mut voice, now) = (Voice::default(), origin() + Duration::from_secs(1_000));
        let other = Voice::from_wire(now, voice.to_wire(now));
        assert!(!other.is_speaking(now));
        for _ in 0..50 {
            voice.hear(now, Some(25), &PACKET);
        }
        let other = Voice::from_wire(now, voice.to_wire(now));
        assert!(other.is_speaking(now));
        assert_eq!(other.loudness(), voice.loudness());
        let later = now + Duration::from_secs(7);
        let other = Voice::from_wire(later, voice.to_wire(later));
        assert!(!other.is_speaking(later));
        assert_eq!(other.spoke_at(), voice.spoke_at());
        for wire in 0..=u16::MAX {
            let voice = Voice::from_wire(now, wire);
            assert!(voice.loudness() <= QUIETEST);
        }
    }
}
