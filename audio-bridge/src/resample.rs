//! Plays sound a little faster or slower, by at most half a percent: how the clocks of a speaker and of the desktop are
//! kept together without a cut. Band-limited interpolation between samples; at exactly one speed it passes sound through
//! bit by bit. Larger corrections are [`crate::stretch`]'s.

use std::collections::VecDeque;
use std::sync::LazyLock;

/// Samples that one output sample is made of.
const TAPS: usize = 32;
/// The newest of the samples at or before the place in between.
const CENTRE: usize = TAPS / 2 - 1;
/// Places between two samples with coefficients of their own; between those they are interpolated.
const PHASES: usize = 128;
/// Shape of the window: side lobes 80 dB down.
const KAISER_BETA: f64 = 8.0;

/// What must be in the buffer beside what is played: the interpolation looks at both sides.
pub const CONTEXT: usize = TAPS;

#[derive(Debug, Default)]
pub struct Resampler {
    /// Place between the centre sample and the next, 0 to 1.
    fraction: f64,
}

impl Resampler {
    /// Samples that must be in the input for `len` samples of output.
    #[must_use]
    pub fn needed(len: usize, step: f64) -> usize {
        (len as f64 * step).ceil() as usize + CONTEXT
    }

    /// Fills `out` as far as the input reaches and takes what was used out of it; `step` is input samples for each output
    /// sample. Says how many samples were written.
    pub fn run(&mut self, input: &mut VecDeque<i16>, step: f64, out: &mut [i16]) -> usize {
        let x = input.make_contiguous();
        let mut at = 0;
        let mut written = 0;
        for out in out.iter_mut() {
            let Some(window) = x.get(at..at + TAPS) else { break };
            *out = if self.fraction == 0.0 { window[CENTRE] } else { interpolate(window, self.fraction) };
            written += 1;
            self.fraction += step;
            at += self.fraction as usize;
            self.fraction %= 1.0;
        }
        input.drain(..at.min(input.len()));
        written
    }
}

fn interpolate(window: &[i16], fraction: f64) -> i16 {
    let place = fraction * PHASES as f64;
    let phase = (place as usize).min(PHASES - 1);
    let weight = (place - phase as f64) as f32;
    let (before, after) = (&COEFFICIENTS[phase], &COEFFICIENTS[phase + 1]);
    let sum: f32 =
        window.iter().zip(before.iter().zip(after)).map(|(&x, (a, b))| f32::from(x) * (a + (b - a) * weight)).sum();
    // A float cast saturates at the limits of i16.
    sum.round() as i16
}

static COEFFICIENTS: LazyLock<Vec<[f32; TAPS]>> =
    LazyLock::new(|| (0..=PHASES).map(|phase| coefficients(phase as f64 / PHASES as f64)).collect());

fn coefficients(fraction: f64) -> [f32; TAPS] {
    let mut row = [0.0_f64; TAPS];
    for (tap, value) in row.iter_mut().enumerate() {
        let distance = tap as f64 - CENTRE as f64 - fraction;
        let angle = std::f64::consts::PI * distance;
        let sinc = if distance.abs() < 1e-9 { 1.0 } else { angle.sin() / angle };
        let edge = distance / (TAPS as f64 / 2.0);
        let window = bessel_i0(KAISER_BETA * (1.0 - edge * edge).max(0.0).sqrt()) / bessel_i0(KAISER_BETA);
        *value = sinc * window;
    }
    // A constant stays what it is at every place.
    let sum: f64 = row.iter().sum();
    row.map(|value| (value / sum) as f32)
}

/// Modified Bessel function of order zero, by its series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for n in 1..40 {
        term *= (x / (2.0 * f64::from(n))).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{Tone, amplitude_at};

    fn tone(frequency_hz: f64, samples: usize) -> VecDeque<i16> {
        let mut tone = Tone::new(frequency_hz, 8000.0);
        (0..samples).map(|_| tone.next_sample()).collect()
    }

    fn played(step: f64, frequency_hz: f64) -> Vec<i16> {
        let mut input = tone(frequency_hz, 60_000);
        let mut resampler = Resampler::default();
        let mut heard = Vec::new();
        for _ in 0..100 {
            let mut out = [0; 480];
            assert!(input.len() >= Resampler::needed(out.len(), step));
            assert_eq!(resampler.run(&mut input, step, &mut out), out.len());
            heard.extend_from_slice(&out);
        }
        heard
    }

    /// Mean square under the window that `amplitude_at` uses, so that both see the same part of the tone.
    fn windowed_energy(sound: &[i16]) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        for (n, &sample) in sound.iter().enumerate() {
            let window = (std::f64::consts::PI * n as f64 / sound.len() as f64).sin().powi(2);
            sum += window * f64::from(sample).powi(2);
            weights += window;
        }
        sum / weights
    }

    #[test]
    fn one_speed_passes_every_bit() {
        let heard = played(1.0, 1000.0);
        let original: Vec<i16> = tone(1000.0, 60_000).into();
        assert_eq!(heard[..], original[CENTRE..CENTRE + heard.len()]);
    }

    #[test]
    fn another_speed_moves_the_pitch_and_keeps_the_level() {
        for step in [0.995, 0.9997, 1.0003, 1.005] {
            for frequency_hz in [200.0, 1000.0, 8000.0] {
                let heard = played(step, frequency_hz);
                let level = amplitude_at(&heard, frequency_hz * step);
                assert!((level / 8000.0 - 1.0).abs() < 0.01, "{frequency_hz} Hz at {step}: level {level:.0}");
                let rest = 1.0 - level * level / 2.0 / windowed_energy(&heard);
                assert!(rest.abs() < 1e-4, "{frequency_hz} Hz at {step}: {rest:e} of it is distortion");
            }
        }
    }

    #[test]
    fn it_takes_as_much_as_it_plays() {
        let mut input = tone(500.0, 48_000);
        let mut resampler = Resampler::default();
        let mut out = vec![0; 40_000];
        assert_eq!(resampler.run(&mut input, 1.0003, &mut out), 40_000);
        assert!((48_000 - input.len()).abs_diff(40_012) <= 1);
        let mut rest = vec![0; 40_000];
        let written = resampler.run(&mut input, 1.0003, &mut rest);
        assert!(input.len() < TAPS && written < 8_000, "an input that ends is no panic");
    }
}
