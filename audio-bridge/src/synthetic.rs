//! Sound without a daemon: a tone as source, and a sink that keeps what it was given. For tests and for trying the
//! network side on a machine without a desktop.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::pcm::{CAPTURE_CHANNELS, Captured, PcmSink, PcmSource, SAMPLE_RATE, samples_in_ms};

/// A sine generator that keeps its phase.
#[derive(Clone, Debug)]
pub struct Tone {
    step: f64,
    phase: f64,
    amplitude: f64,
}

impl Tone {
    #[must_use]
    pub fn new(frequency_hz: f64, amplitude: f64) -> Self {
        Self { step: frequency_hz * std::f64::consts::TAU / f64::from(SAMPLE_RATE), phase: 0.0, amplitude }
    }

    pub fn next_sample(&mut self) -> i16 {
        let sample = self.amplitude * self.phase.sin();
        self.phase = (self.phase + self.step) % std::f64::consts::TAU;
        sample.round() as i16
    }

    pub fn fill(&mut self, out: &mut [i16]) {
        out.fill_with(|| self.next_sample());
    }
}

/// Root mean square.
#[must_use]
pub fn level(samples: &[i16]) -> f64 {
    let sum: f64 = samples.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    (sum / samples.len().max(1) as f64).sqrt()
}

/// The amplitude of one frequency (Goertzel), in sample units.
#[must_use]
pub fn amplitude_at(samples: &[i16], frequency_hz: f64) -> f64 {
    let omega = frequency_hz * std::f64::consts::TAU / f64::from(SAMPLE_RATE);
    let (mut real, mut imaginary, mut weights) = (0.0, 0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        // Hann window: without it, a tone leaks into every other frequency.
        let window = (std::f64::consts::PI * n as f64 / samples.len() as f64).sin().powi(2);
        let angle = omega * n as f64;
        real += window * f64::from(sample) * angle.cos();
        imaginary += window * f64::from(sample) * angle.sin();
        weights += window;
    }
    2.0 * real.hypot(imaginary) / f64::max(weights, 1.0)
}

/// Left and right tones in real time.
#[derive(Debug)]
pub struct ToneSource {
    left: Tone,
    right: Tone,
    chunk_ms: u32,
    next: Option<tokio::time::Instant>,
}

impl ToneSource {
    #[must_use]
    pub fn new(left: Tone, right: Tone, chunk_ms: u32) -> Self {
        Self { left, right, chunk_ms, next: None }
    }
}

impl PcmSource for ToneSource {
    async fn read(&mut self, samples: &mut Vec<i16>) -> Captured {
        let next = *self.next.get_or_insert_with(tokio::time::Instant::now);
        tokio::time::sleep_until(next).await;
        self.next = Some(next + Duration::from_millis(u64::from(self.chunk_ms)));
        samples.reserve(samples_in_ms(self.chunk_ms) * CAPTURE_CHANNELS);
        for _ in 0..samples_in_ms(self.chunk_ms) {
            samples.push(self.left.next_sample());
            samples.push(self.right.next_sample());
        }
        Captured::Chunk { at: next.into_std() }
    }
}

/// Asks for 10 ms each 10 ms and keeps the last minute.
#[derive(Debug, Default)]
pub struct MemorySink {
    heard: Arc<Mutex<Vec<i16>>>,
    next: Option<tokio::time::Instant>,
}

/// Enough for every test; more is forgotten.
const HEARD_SAMPLES_MAX: usize = SAMPLE_RATE as usize * 60;

impl MemorySink {
    /// What was played so far.
    #[must_use]
    pub fn heard(&self) -> Arc<Mutex<Vec<i16>>> {
        Arc::clone(&self.heard)
    }
}

impl PcmSink for MemorySink {
    async fn wanted(&mut self) -> usize {
        let next = *self.next.get_or_insert_with(tokio::time::Instant::now);
        tokio::time::sleep_until(next).await;
        self.next = Some(next + Duration::from_millis(10));
        samples_in_ms(10)
    }

    fn write(&mut self, samples: &[i16]) -> impl Future<Output = ()> + Send {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.extend_from_slice(samples);
        let excess = heard.len().saturating_sub(HEARD_SAMPLES_MAX);
        heard.drain(..excess);
        std::future::ready(())
    }
}
