//! The way of desktop sound from the device to the queue in front of the network: chunks, frames with RTP time, silence
//! gate, encoder. Runs the same with listeners or without, and never waits for the network.

use std::sync::Arc;
use std::time::Instant;

use crate::codec::{CodecError, Encoder, pause_packet};
use crate::intake::{Frame, Intake};
use crate::metrics::Metrics;
use crate::pcm::{CAPTURE_CHANNELS, Captured, PcmSource, samples_in_ms};
use crate::queue::DropOldest;
use crate::silence::{SilenceGate, Verdict};

/// A chunk larger than this is no desktop sound: two seconds, the block of an idle null sink.
const CHUNK_VALUES_MAX: usize = samples_in_ms(2000) * CAPTURE_CHANNELS;

#[derive(Clone, Copy, Debug)]
pub struct CaptureSettings {
    pub frame_ms: u32,
    pub bitrate_bps: u32,
    /// First RTP timestamp.
    pub timestamp: u32,
    /// Leave digital silence out. Off, the gate still tells where sound begins again.
    pub silence_gate: bool,
}

/// An encoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
    /// When its last sample arrived from the device.
    pub arrived: Instant,
}

/// What happens to a chunk, without the device and without waiting.
#[derive(Debug)]
pub struct Capture {
    frame_ms: u32,
    intake: Intake,
    gate: SilenceGate,
    gated: bool,
    encoder: Encoder,
    queue: Arc<DropOldest<Encoded>>,
    metrics: Arc<Metrics>,
}

impl Capture {
    pub fn new(
        settings: CaptureSettings,
        queue: Arc<DropOldest<Encoded>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, CodecError> {
        Ok(Self {
            frame_ms: settings.frame_ms,
            intake: Intake::new(settings.frame_ms, settings.timestamp),
            gate: SilenceGate::new(settings.frame_ms),
            gated: settings.silence_gate,
            encoder: Encoder::new(settings.bitrate_bps)?,
            queue,
            metrics,
        })
    }

    /// Takes a chunk that arrived at `at`.
    pub fn push(&mut self, at: Instant, chunk: &[i16]) {
        let Self { frame_ms, intake, gate, gated, encoder, queue, metrics } = self;
        let newest = chunk.len().saturating_sub(CHUNK_VALUES_MAX);
        intake.push(at, &chunk[newest..], |Frame { timestamp, samples }| {
            let verdict = match gate.judge(samples) {
                Verdict::Pause | Verdict::Skip if !*gated => Verdict::Send { marker: false },
                verdict @ (Verdict::Send { .. } | Verdict::Pause | Verdict::Skip) => verdict,
            };
            let (payload, marker) = match verdict {
                Verdict::Send { marker } => {
                    let started = Instant::now();
                    // A frame of the right length is always encoded; there is nothing to tell a listener if not.
                    let Ok(payload) = encoder.encode(samples) else { return };
                    metrics.encode_seconds.observe(started.elapsed().as_secs_f64());
                    metrics.frames_encoded.inc();
                    (payload.to_vec(), marker)
                }
                Verdict::Pause => (pause_packet(*frame_ms), false),
                Verdict::Skip => {
                    metrics.frames_silent.inc();
                    return;
                }
            };
            if queue.push(Encoded { timestamp, marker, payload, arrived: at }) {
                metrics.frames_dropped.inc();
            }
        });
        metrics.copy_intake(intake.counters());
    }
}

/// Captures for ever.
pub async fn run(mut source: impl PcmSource, mut capture: Capture) {
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        match source.read(&mut chunk).await {
            Captured::Chunk { at } => capture.push(at, &chunk),
            // The next chunk comes late, and that is how the gap is seen.
            Captured::Lost => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::synthetic::{Tone, ToneSource};

    fn capture(silence_gate: bool) -> (Capture, Arc<DropOldest<Encoded>>) {
        let queue = Arc::new(DropOldest::with_capacity(1000));
        let settings = CaptureSettings { frame_ms: 10, bitrate_bps: 128_000, timestamp: 5, silence_gate };
        (Capture::new(settings, Arc::clone(&queue), Metrics::new().0).expect("encoder"), queue)
    }

    #[test]
    fn the_first_sound_after_silence_is_sent_with_the_marker_at_its_time() {
        let (mut capture, queue) = capture(true);
        let start = Instant::now();
        for n in 0..300 {
            capture.push(start + Duration::from_millis(n * 10), &[0; 960]);
        }
        while queue.try_pop().is_some() {}
        capture.push(start + Duration::from_millis(3000), &[500; 960]);
        let (frame, _) = queue.try_pop().expect("sent at once");
        assert_eq!((frame.timestamp, frame.marker), (5 + 300 * 480, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_synthetic_desktop_gives_a_packet_each_ten_milliseconds() {
        let (capture, queue) = capture(true);
        let source = ToneSource::new(Tone::new(440.0, 8000.0), Tone::new(1000.0, 8000.0), 5);
        let task = tokio::spawn(run(source, capture));
        let (first, _) = queue.pop().await;
        assert!(first.marker);
        for n in 1..50 {
            let (frame, dropped) = queue.pop().await;
            assert_eq!((frame.timestamp, dropped), (first.timestamp + n * 480, 0));
            assert!(frame.payload.len() > 40);
        }
        task.abort();
    }
}
