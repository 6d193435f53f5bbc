//! Opus, both ways; the only file that names the codec's crate.
//!
//! Desktop sound is encoded in restricted low-delay mode: 2.5 ms lookahead instead of 6.5, and a mode without SILK, so
//! that no setting can trade music for in-band FEC (which measurably harms it). Only the speech profile has another mode,
//! with FEC. Voices are decoded to mono.

use opus::{Application, Bandwidth, Bitrate, Channels};

use crate::pcm::{SAMPLE_RATE, samples_in_ms};
use crate::profile::EncodeSettings;

/// The longest packet that Opus can make for one frame; more would not fit a datagram anyway.
const PACKET_BYTES_MAX: usize = 1275;
/// The longest duration of one Opus packet (RFC 6716 section 2.1.4).
const PACKET_MS_MAX: u32 = 120;
/// Half a percent of a core at 128 kb/s; less saves nothing worth having.
const COMPLEXITY: i32 = 10;
/// What the speech profile makes its in-band FEC for.
const SPEECH_LOSS_PERCENT: i32 = 5;

#[derive(Debug, thiserror::Error)]
#[error("opus refused: {0}")]
pub struct CodecError(#[from] opus::Error);

/// Stereo encoder of desktop sound.
#[derive(Debug)]
pub struct Encoder {
    inner: opus::Encoder,
    speech: bool,
    packet: Vec<u8>,
}

impl Encoder {
    pub fn new(settings: EncodeSettings) -> Result<Self, CodecError> {
        let speech = settings.profile.is_speech();
        let application = if speech { Application::Voip } else { Application::LowDelay };
        let mut inner = opus::Encoder::new(SAMPLE_RATE, Channels::Stereo, application)?;
        inner.set_bandwidth(Bandwidth::Fullband)?;
        inner.set_force_channels(Some(Channels::Stereo))?;
        inner.set_vbr(true)?;
        inner.set_vbr_constraint(true)?;
        inner.set_inband_fec(speech)?;
        inner.set_packet_loss_perc(if speech { SPEECH_LOSS_PERCENT } else { 0 })?;
        inner.set_dtx(false)?;
        inner.set_complexity(COMPLEXITY)?;
        let mut encoder = Self { inner, speech, packet: vec![0; PACKET_BYTES_MAX] };
        encoder.set_bitrate(settings.bitrate_bps)?;
        Ok(encoder)
    }

    /// Takes other settings from the next frame on. Where the mode stays, the sound goes on without a seam.
    pub fn change(&mut self, settings: EncodeSettings) -> Result<(), CodecError> {
        if settings.profile.is_speech() == self.speech {
            return self.set_bitrate(settings.bitrate_bps);
        }
        *self = Self::new(settings)?;
        Ok(())
    }

    fn set_bitrate(&mut self, bitrate_bps: u32) -> Result<(), CodecError> {
        Ok(self.inner.set_bitrate(Bitrate::Bits(i32::try_from(bitrate_bps).unwrap_or(i32::MAX)))?)
    }

    /// One packet from one interleaved frame of 2.5, 5, 10 or 20 ms.
    pub fn encode(&mut self, frame: &[i16]) -> Result<&[u8], CodecError> {
        let len = self.inner.encode(frame, &mut self.packet)?;
        Ok(&self.packet[..len])
    }
}

/// A packet without sound that announces a pause: only the table-of-contents byte of a full-band stereo frame (RFC 6716
/// section 3.1), the form in which Opus encoders send DTX. A decoder conceals it, and what came before was silence.
#[must_use]
pub fn pause_packet(frame_ms: u32) -> Vec<u8> {
    const STEREO: u8 = 1 << 2;
    let configuration: u8 = match frame_ms {
        5 => 29,
        10 => 30,
        _ => 31,
    };
    vec![configuration << 3 | STEREO]
}

/// Mono decoder of one voice.
#[derive(Debug)]
pub struct Decoder {
    inner: opus::Decoder,
    pcm: Vec<i16>,
}

impl Decoder {
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self {
            inner: opus::Decoder::new(SAMPLE_RATE, Channels::Mono)?,
            pcm: vec![0; samples_in_ms(PACKET_MS_MAX)],
        })
    }

    pub fn decode(&mut self, packet: &[u8]) -> Result<&[i16], CodecError> {
        let len = self.inner.decode(packet, &mut self.pcm, false)?;
        Ok(&self.pcm[..len])
    }

    /// The frame before `next`, from the redundancy that `next` may carry; concealment when it carries none.
    pub fn recover(&mut self, next: &[u8], samples: usize) -> Result<&[i16], CodecError> {
        let samples = Self::concealable(samples);
        let len = self.inner.decode(next, &mut self.pcm[..samples], true)?;
        Ok(&self.pcm[..len])
    }

    /// Makes up sound for a frame that never came.
    pub fn conceal(&mut self, samples: usize) -> Result<&[i16], CodecError> {
        let samples = Self::concealable(samples);
        let len = self.inner.decode(&[], &mut self.pcm[..samples], false)?;
        Ok(&self.pcm[..len])
    }

    /// Samples in a packet, zero when it is not Opus.
    #[must_use]
    pub fn samples_in(packet: &[u8]) -> usize {
        if packet.is_empty() {
            return 0;
        }
        opus::packet::get_nb_samples(packet, SAMPLE_RATE).unwrap_or(0)
    }

    /// Opus conceals in steps of 2.5 ms.
    fn concealable(samples: usize) -> usize {
        let step = samples_in_ms(5) / 2;
        (samples.div_ceil(step) * step).clamp(step, samples_in_ms(PACKET_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn stereo_stays_stereo_at_the_asked_rate() {
        let mut encoder = Encoder::new(EncodeSettings::default()).expect("encoder");
        let mut decoder = opus::Decoder::new(SAMPLE_RATE, Channels::Stereo).expect("decoder");
        let (mut bytes, mut left, mut right) = (0, 0_f64, 0_f64);
        for n in 0..100 {
            let frame: Vec<i16> = (0..480)
                .flat_map(|i| {
                    let t = f64::from(n * 480 + i) / 48_000.0;
                    [(8000.0 * (t * 440.0 * std::f64::consts::TAU).sin()) as i16, 0]
                })
                .collect();
            let packet = encoder.encode(&frame).expect("encodes").to_vec();
            bytes += packet.len();
            let mut pcm = [0; 960];
            assert_eq!(decoder.decode(&packet, &mut pcm, false).expect("decodes"), 480);
            for pair in pcm.chunks_exact(2) {
                left += f64::from(pair[0]).powi(2);
                right += f64::from(pair[1]).powi(2);
            }
        }
        assert!((1_000..18_000).contains(&bytes), "{bytes} bytes a second for 128 kb/s");
        assert!(left > 10_000.0 * right.max(1.0), "left {left:.0} right {right:.0}");
    }

    #[test]
    fn the_rate_follows_a_change_and_music_never_gets_a_speech_mode() {
        let mut encoder = Encoder::new(EncodeSettings::default()).expect("encoder");
        let mut noise = (0..).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 18) as i16 - 8192);
        let mut second_of = |encoder: &mut Encoder, frame_ms: u32| {
            (0..1000 / frame_ms)
                .map(|_| {
                    let frame: Vec<i16> = noise.by_ref().take(samples_in_ms(frame_ms) * 2).collect();
                    let packet = encoder.encode(&frame).expect("encodes");
                    // RFC 6716 section 3.1: configurations from 16 on are CELT only.
                    assert!(packet[0] >> 3 >= 16, "music is encoded in mode {}", packet[0] >> 3);
                    packet.len()
                })
                .sum::<usize>()
        };
        let at_128 = second_of(&mut encoder, 10);
        for (profile, bitrate, frame_ms) in
            [(Profile::Studio, 510_000, 10), (Profile::Thrift, 64_000, 20), (Profile::Instant, 128_000, 5)]
        {
            let settings = EncodeSettings::new(profile, None, None).expect("valid");
            assert_eq!((settings.bitrate_bps, settings.frame_ms), (bitrate, frame_ms));
            encoder.change(settings).expect("changes");
            let bytes = second_of(&mut encoder, frame_ms) as f64;
            let expected = f64::from(bitrate) / 8.0;
            assert!((bytes / expected - 1.0).abs() < 0.15, "{profile:?}: {bytes} bytes a second");
        }
        assert!((14_000..18_000).contains(&at_128), "{at_128}");
    }

    #[test]
    fn the_speech_profile_carries_redundancy_for_one_lost_frame() {
        let settings = EncodeSettings::new(Profile::Speech, Some(32_000), None).expect("valid");
        let mut encoder = Encoder::new(EncodeSettings::default()).expect("encoder");
        encoder.change(settings).expect("changes");
        let mut tone = crate::synthetic::Tone::new(300.0, 8000.0);
        let mut decoder = Decoder::new().expect("decoder");
        let mut recovered = 0.0;
        for n in 0..100 {
            let frame: Vec<i16> = (0..960).flat_map(|_| [tone.next_sample(); 2]).collect();
            let packet = encoder.encode(&frame).expect("encodes").to_vec();
            if n % 10 == 8 {
                continue;
            }
            if n % 10 == 9 {
                recovered += crate::synthetic::level(decoder.recover(&packet, 960).expect("recovers"));
            }
            decoder.decode(&packet).expect("decodes");
        }
        assert!(recovered / 10.0 > 4000.0, "level {:.0} recovered", recovered / 10.0);
    }

    #[test]
    fn a_pause_lasts_one_frame_and_is_silent() {
        for frame_ms in [5, 10, 20] {
            let mut encoder = Encoder::new(EncodeSettings::default()).expect("encoder");
            let silence = vec![0; samples_in_ms(frame_ms) * 2];
            let mut decoder = Decoder::new().expect("decoder");
            decoder.decode(encoder.encode(&silence).expect("encodes")).expect("decodes");
            let pause = pause_packet(frame_ms);
            assert_eq!(Decoder::samples_in(&pause), samples_in_ms(frame_ms));
            let sound = decoder.decode(&pause).expect("decodes");
            assert!(sound.iter().all(|sample| sample.abs() <= 1), "{frame_ms} ms");
        }
    }

    #[test]
    fn hostile_packets_are_errors() {
        let mut decoder = Decoder::new().expect("decoder");
        assert_eq!(Decoder::samples_in(&[]), 0);
        assert!(decoder.decode(&[0xff]).is_err());
        assert!(decoder.decode(&[0xff; 1500]).is_err() || Decoder::samples_in(&[0xff; 1500]) > 0);
        assert_eq!(decoder.conceal(960).expect("conceals").len(), 960);
    }
}
