//! A stretch of real Opus, encoded once at the start and played round and round by all publishers: a signal like speech for
//! the sizes and levels of talk, and what the encoder makes of silence with DTX. Nobody encodes while a run goes on.

use opus::{Application, Bitrate, Channels};

use super::mix;
use crate::scenario::Audio;

/// Twelve seconds: longer than people need to notice a pattern in sizes, shorter than encoding becomes a wait.
const LENGTH_MS: u32 = 12_000;
const SAMPLE_RATE: u32 = 48_000;
const PACKET_BYTES_MAX: usize = 1275;
/// Louder than -40 dBov is a voice near its microphone.
const VOICED_LEVEL: u8 = 40;
/// What RFC 6464 allows: -127 dBov.
const SILENCE_LEVEL: u8 = 127;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) packet: Vec<u8>,
    /// As RFC 6464 counts: minus dBov.
    pub(super) level: u8,
}

#[derive(Clone, Debug)]
pub(super) struct Frames {
    talk: Vec<Frame>,
    /// What DTX sends in a pause.
    pause: Frame,
}

#[derive(Debug, thiserror::Error)]
#[error("opus refused: {0}")]
pub struct FramesError(#[from] opus::Error);

impl Frames {
    pub(super) fn encode(audio: &Audio) -> Result<Self, FramesError> {
        let mut encoder = opus::Encoder::new(SAMPLE_RATE, Channels::Mono, Application::Voip)?;
        encoder.set_bitrate(Bitrate::Bits(i32::try_from(audio.bitrate_bps).unwrap_or(i32::MAX)))?;
        encoder.set_vbr(true)?;
        encoder.set_complexity(5)?;
        let samples = (SAMPLE_RATE / 1000 * audio.frame_ms) as usize;
        let mut voice = Voice::default();
        let mut talk = Vec::new();
        for _ in 0..LENGTH_MS / audio.frame_ms {
            let pcm: Vec<i16> = (0..samples).map(|_| voice.next()).collect();
            let packet = encoder.encode_vec(&pcm, PACKET_BYTES_MAX)?;
            talk.push(Frame { packet, level: level_of(&pcm) });
        }
        encoder.set_dtx(true)?;
        let silence = vec![0; samples];
        let mut pause = encoder.encode_vec(&silence, PACKET_BYTES_MAX)?;
        // It takes some frames until the encoder is sure that this is a pause.
        for _ in 0..50 {
            let packet = encoder.encode_vec(&silence, PACKET_BYTES_MAX)?;
            if packet.len() < pause.len() {
                pause = packet;
            }
        }
        Ok(Self { talk, pause: Frame { packet: pause, level: SILENCE_LEVEL } })
    }

    pub(super) fn talk(&self, at: usize) -> &Frame {
        &self.talk[at % self.talk.len()]
    }

    /// The first place from there on where somebody begins to speak: the sound rises, and goes on. The last moment of a
    /// word before a pause is no beginning, and nobody could tell it from a knock.
    pub(super) fn onset_from(&self, at: usize) -> usize {
        let is_voiced = |at: usize| self.talk(at).level < VOICED_LEVEL;
        let rises = |at: usize| !is_voiced(at + self.talk.len() - 1) && is_voiced(at) && is_voiced(at + 1);
        (at..at + self.talk.len()).find(|at| rises(*at)).unwrap_or(at)
    }

    pub(super) fn pause(&self) -> &Frame {
        &self.pause
    }

    pub(super) fn len(&self) -> usize {
        self.talk.len()
    }
}

fn level_of(pcm: &[i16]) -> u8 {
    let energy: f64 = pcm.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    let rms = (energy / pcm.len() as f64).sqrt() / 32_768.0;
    (-20.0 * rms.max(1e-9).log10()).clamp(0.0, f64::from(SILENCE_LEVEL)) as u8
}

/// A glottal pulse train through two resonators, with the rhythm of syllables and noise between them.
#[derive(Debug, Default)]
struct Voice {
    at: u64,
    phase: f64,
    formants: [Resonator; 2],
}

impl Voice {
    fn next(&mut self) -> i16 {
        let time = self.at as f64 / f64::from(SAMPLE_RATE);
        self.at += 1;
        // Four syllables a second, one in five a pause; each has its own pitch and vowel.
        let syllable = (time * 4.0) as u64;
        let within = (time * 4.0).fract();
        let kind = mix(syllable) % 5;
        let strength = if kind == 0 { 0.02 } else { (within * std::f64::consts::PI).sin().powi(2) };
        let pitch = 95.0 + (mix(syllable ^ 77) % 80) as f64;
        self.phase += pitch / f64::from(SAMPLE_RATE);
        let pulse = if self.phase >= 1.0 { 1.0 } else { 0.0 };
        self.phase = self.phase.fract();
        let noise = (mix(self.at) % 2001) as f64 / 1000.0 - 1.0;
        let source = pulse + noise * if kind == 1 { 0.05 } else { 0.004 };
        let vowel = (mix(syllable ^ 99) % 400) as f64;
        let [low, high] = &mut self.formants;
        let sound = low.next(source, 350.0 + vowel) + 0.6 * high.next(source, 1100.0 + 2.0 * vowel);
        (sound * strength * 9_000.0).clamp(-32_000.0, 32_000.0) as i16
    }
}

#[derive(Debug, Default)]
struct Resonator {
    before: [f64; 2],
}

impl Resonator {
    fn next(&mut self, input: f64, hertz: f64) -> f64 {
        const RADIUS: f64 = 0.985;
        let angle = std::f64::consts::TAU * hertz / f64::from(SAMPLE_RATE);
        let output = (1.0 - RADIUS) * 8.0 * input + 2.0 * RADIUS * angle.cos() * self.before[0]
            - RADIUS * RADIUS * self.before[1];
        self.before = [output, self.before[0]];
        output
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_levels_are_those_of_speech() {
        let frames = Frames::encode(&Audio::default()).expect("encodes");
        assert_eq!(frames.len(), 600);
        let sizes: Vec<usize> = (0..frames.len()).map(|at| frames.talk(at).packet.len()).collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        // 32 kb/s in frames of 20 ms is 80 bytes.
        assert!((50..=110).contains(&mean), "{mean}");
        let (least, most) = (sizes.iter().min().expect("some"), sizes.iter().max().expect("some"));
        assert!(*most > least + least / 2, "{least} to {most}");
        let loud = (0..frames.len()).filter(|at| frames.talk(*at).level < 40).count();
        assert!(loud > frames.len() / 3, "{loud}");
    }

    #[test]
    fn a_turn_can_begin_with_sound_from_anywhere() {
        let frames = Frames::encode(&Audio::default()).expect("encodes");
        for at in 0..2 * frames.len() {
            let onset = frames.onset_from(at);
            // What is left of a syllable, and the longest pause, of four.
            assert!(onset - at < 5 * 13, "{at}: {onset}");
            let voiced = (0..8).take_while(|n| frames.talk(onset + n).level < VOICED_LEVEL).count();
            assert!(voiced >= 5, "{at}: {voiced} frames from {onset} on");
        }
    }

    #[test]
    fn a_pause_is_a_packet_of_dtx() {
        let frames = Frames::encode(&Audio::default()).expect("encodes");
        assert!((1..=3).contains(&frames.pause().packet.len()), "{}", frames.pause().packet.len());
        assert_eq!(frames.pause().level, 127);
    }
}
