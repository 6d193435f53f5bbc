//! The way of desktop sound from the device to the queue in front of the network: chunks, frames with RTP time, silence
//! gate, encoder. Runs the same with listeners or without, and never waits for the network.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::codec::{CodecError, Encoder, pause_packet};
use crate::intake::{Frame, Intake};
use crate::metrics::Metrics;
use crate::pcm::{CAPTURE_CHANNELS, Captured, PcmSource, samples_in_ms};
use crate::profile::EncodeSettings;
use crate::queue::DropOldest;
use crate::silence::{SilenceGate, Verdict};

/// A chunk larger than this is no desktop sound: two seconds, the block of an idle null sink.
const CHUNK_VALUES_MAX: usize = samples_in_ms(2000) * CAPTURE_CHANNELS;

#[derive(Clone, Copy, Debug)]
pub struct CaptureSettings {
    pub encode: EncodeSettings,
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
    intake: Intake,
    stage: Stage,
}

/// What happens to a frame.
#[derive(Debug)]
struct Stage {
    frame_ms: u32,
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
        let EncodeSettings { frame_ms, .. } = settings.encode;
        let stage = Stage {
            frame_ms,
            gate: SilenceGate::new(frame_ms),
            gated: settings.silence_gate,
            encoder: Encoder::new(settings.encode)?,
            queue,
            metrics,
        };
        stage.show(settings.encode);
        Ok(Self { intake: Intake::new(frame_ms, settings.timestamp), stage })
    }

    /// Takes a chunk that arrived at `at`.
    pub fn push(&mut self, at: Instant, chunk: &[i16]) {
        let newest = chunk.len().saturating_sub(CHUNK_VALUES_MAX);
        let Self { intake, stage } = self;
        intake.push(at, &chunk[newest..], |frame| stage.take(at, frame));
        stage.metrics.copy_intake(intake.counters());
    }

    /// Encodes otherwise from the next frame on.
    pub fn change(&mut self, at: Instant, encode: EncodeSettings) {
        let Self { intake, stage } = self;
        if let Err(error) = stage.encoder.change(encode) {
            tracing::warn!(%error, "Encoder keeps its settings");
            return;
        }
        if encode.frame_ms != stage.frame_ms {
            stage.frame_ms = encode.frame_ms;
            stage.gate.set_frame_ms(encode.frame_ms);
            stage.queue.set_frame_ms(encode.frame_ms);
            intake.set_frame_ms(encode.frame_ms, |frame| stage.take(at, frame));
        }
        stage.show(encode);
        let EncodeSettings { profile, bitrate_bps, frame_ms } = encode;
        tracing::info!(?profile, bitrate_bps, frame_ms, "Encoding changed");
    }
}

impl Stage {
    fn take(&mut self, at: Instant, Frame { timestamp, samples }: Frame<'_>) {
        let verdict = match self.gate.judge(samples) {
            Verdict::Pause | Verdict::Skip if !self.gated => Verdict::Send { marker: false },
            verdict @ (Verdict::Send { .. } | Verdict::Pause | Verdict::Skip) => verdict,
        };
        let (payload, marker) = match verdict {
            Verdict::Send { marker } => {
                let started = Instant::now();
                // A frame of the right length is always encoded; there is nothing to tell a listener if not.
                let Ok(payload) = self.encoder.encode(samples) else { return };
                self.metrics.encode_seconds.observe(started.elapsed().as_secs_f64());
                self.metrics.frames_encoded.inc();
                (payload.to_vec(), marker)
            }
            Verdict::Pause => (pause_packet(self.frame_ms), false),
            Verdict::Skip => {
                self.metrics.frames_silent.inc();
                return;
            }
        };
        if self.queue.push(Encoded { timestamp, marker, payload, arrived: at }) {
            self.metrics.frames_dropped.inc();
        }
        let waiting_ms = self.queue.len() * self.frame_ms as usize;
        self.metrics.queue_ms.set(i64::try_from(waiting_ms).unwrap_or(i64::MAX));
    }

    fn show(&self, encode: EncodeSettings) {
        self.metrics.bitrate_bps.set(i64::from(encode.bitrate_bps));
        self.metrics.frame_ms.set(i64::from(encode.frame_ms));
    }
}

/// Captures for ever, as `encode` asks now.
pub async fn run(mut source: impl PcmSource, mut capture: Capture, mut encode: watch::Receiver<EncodeSettings>) {
    let mut chunk = Vec::new();
    loop {
        if encode.has_changed().unwrap_or(false) {
            let wanted = *encode.borrow_and_update();
            capture.change(Instant::now(), wanted);
        }
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
    use crate::profile::Profile;
    use crate::synthetic::{Tone, ToneSource};

    fn capture(silence_gate: bool) -> (Capture, Arc<DropOldest<Encoded>>) {
        let queue = Arc::new(DropOldest::with_capacity(1000));
        let settings = CaptureSettings { encode: EncodeSettings::default(), timestamp: 5, silence_gate };
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

    #[test]
    fn frames_change_their_length_without_losing_a_sample() {
        let (mut capture, queue) = capture(true);
        let start = Instant::now();
        let (mut pushed, mut expected) = (0, 5);
        let mut check = |queue: &DropOldest<Encoded>| {
            while let Some((frame, dropped)) = queue.try_pop() {
                assert_eq!((frame.timestamp, dropped), (expected, 0));
                expected += crate::codec::Decoder::samples_in(&frame.payload) as u32;
            }
            expected
        };
        for (n, frame_ms) in [10, 5, 20, 10].into_iter().enumerate() {
            let encode = EncodeSettings::new(Profile::Music, None, Some(frame_ms)).expect("valid");
            capture.change(start + Duration::from_millis(pushed), encode);
            for _ in 0..=n * 2 {
                check(&queue);
                // Chunks that never end where frames do.
                pushed += 7;
                capture.push(start + Duration::from_millis(pushed), &[100; 7 * 96]);
            }
        }
        let expected = check(&queue);
        assert!(u64::from(expected - 5) / 48 + 10 > pushed, "{expected} of {pushed} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn a_synthetic_desktop_gives_a_packet_each_ten_milliseconds() {
        let (capture, queue) = capture(true);
        let source = ToneSource::new(Tone::new(440.0, 8000.0), Tone::new(1000.0, 8000.0), 5);
        let task = tokio::spawn(run(source, capture, watch::channel(EncodeSettings::default()).1));
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
