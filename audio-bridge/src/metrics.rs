//! The series of the admin port, each described here, where it is registered. Counters of the pure parts are copied in
//! by whoever runs them; nothing here is on the way of a sample.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::intake::IntakeCounters;
use crate::playout::Playout;

/// Chunks of the daemon: 2.5 ms with a low-latency program on the desktop, whole seconds when something is wrong.
const CHUNK_MS: [f64; 9] = [2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 500.0, 2000.0];
const ENCODE_SECONDS: [f64; 8] = [0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01];
/// From the daemon's packet to the network queue's end.
const SEND_DELAY_SECONDS: [f64; 8] = [0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04];

#[derive(Debug)]
pub struct Metrics {
    pub capture_chunk_ms: Histogram,
    pub capture_moved: Counter,
    pub capture_killed: Counter,
    pub capture_overflows: Counter,
    pub capture_gaps: Counter,
    pub capture_late_samples: Counter,
    pub encode_seconds: Histogram,
    pub send_delay_seconds: Histogram,
    pub frames_encoded: Counter,
    pub frames_silent: Counter,
    pub frames_sent: Counter,
    pub frames_dropped: Counter,
    pub pulse_reconnects: Counter,
    pub playback_underflows: Counter,
    pub playback_moved: Counter,
    pub playback_target_ms: Gauge,
    pub signaling_reconnects: Counter,
    pub media_connections: Counter,
    pub red_blocks: Gauge,
    pub uplink_loss: Gauge<f64, AtomicU64>,
    pub bitrate_bps: Gauge,
    pub frame_ms: Gauge,
    pub queue_ms: Gauge,
    pub voices: Gauge,
    pub voice_buffer_ms: Gauge,
    pub voice_packets: Counter,
    pub voice_lost: Counter,
    pub voice_useless: Counter,
    pub voice_undecodable: Counter,
    pub voice_dropped: Counter,
    pub voice_concealed_samples: Counter,
    pub voice_stretched_samples: Counter,
    pub voice_underruns: Counter,
    pub voice_refused: Counter,
    pub voice_restored: Counter,
    pub voice_not_admitted: Counter,
}

impl Metrics {
    /// All series, and the registry that serves them.
    #[must_use]
    pub fn new() -> (Arc<Self>, Arc<Registry>) {
        let metrics = Self {
            capture_chunk_ms: Histogram::new(CHUNK_MS),
            capture_moved: Counter::default(),
            capture_killed: Counter::default(),
            capture_overflows: Counter::default(),
            capture_gaps: Counter::default(),
            capture_late_samples: Counter::default(),
            encode_seconds: Histogram::new(ENCODE_SECONDS),
            send_delay_seconds: Histogram::new(SEND_DELAY_SECONDS),
            frames_encoded: Counter::default(),
            frames_silent: Counter::default(),
            frames_sent: Counter::default(),
            frames_dropped: Counter::default(),
            pulse_reconnects: Counter::default(),
            playback_underflows: Counter::default(),
            playback_moved: Counter::default(),
            playback_target_ms: Gauge::default(),
            signaling_reconnects: Counter::default(),
            media_connections: Counter::default(),
            red_blocks: Gauge::default(),
            uplink_loss: Gauge::default(),
            bitrate_bps: Gauge::default(),
            frame_ms: Gauge::default(),
            queue_ms: Gauge::default(),
            voices: Gauge::default(),
            voice_buffer_ms: Gauge::default(),
            voice_packets: Counter::default(),
            voice_lost: Counter::default(),
            voice_useless: Counter::default(),
            voice_undecodable: Counter::default(),
            voice_dropped: Counter::default(),
            voice_concealed_samples: Counter::default(),
            voice_stretched_samples: Counter::default(),
            voice_underruns: Counter::default(),
            voice_refused: Counter::default(),
            voice_restored: Counter::default(),
            voice_not_admitted: Counter::default(),
        };
        let mut registry = Registry::with_prefix("bridge");
        metrics.register_capture(&mut registry);
        metrics.register_network(&mut registry);
        metrics.register_voices(&mut registry);
        (Arc::new(metrics), Arc::new(registry))
    }

    fn register_capture(&self, registry: &mut Registry) {
        let ms = || Unit::Other("milliseconds".to_owned());
        let chunk = self.capture_chunk_ms.clone();
        registry.register_with_unit("capture_chunk", "Sound in one packet of the daemon", ms(), chunk);
        for (name, help, counter) in [
            ("capture_moved", "Moves of the capture stream to another device; each closed it", &self.capture_moved),
            (
                "capture_killed",
                "Ends of the capture stream by the daemon, such as a removed sink",
                &self.capture_killed,
            ),
            (
                "capture_overflows",
                "Times that the daemon threw sound away because we did not read",
                &self.capture_overflows,
            ),
            ("capture_gaps", "Times that RTP time was set from the wall clock", &self.capture_gaps),
            ("capture_late_samples", "Samples a channel that came too late to be sent", &self.capture_late_samples),
            ("frames_encoded", "Frames given to the encoder", &self.frames_encoded),
            ("frames_silent", "Frames of digital silence that were not encoded", &self.frames_silent),
            ("pulse_reconnects", "Lost or failed connections to the sound daemon", &self.pulse_reconnects),
        ] {
            registry.register(name, help, counter.clone());
        }
        let encode = self.encode_seconds.clone();
        registry.register_with_unit("encode", "Time to encode one frame", Unit::Seconds, encode);
    }

    fn register_network(&self, registry: &mut Registry) {
        let delay = self.send_delay_seconds.clone();
        registry.register_with_unit(
            "send_delay",
            "Arrival of a frame's sound until its RTP packet",
            Unit::Seconds,
            delay,
        );
        for (name, help, counter) in [
            ("frames_sent", "Packets handed to the media connection", &self.frames_sent),
            ("frames_dropped", "Frames that the 40 ms queue to the network dropped", &self.frames_dropped),
            ("signaling_reconnects", "Lost or failed connections to signalling", &self.signaling_reconnects),
            ("media_connections", "Media connections that came up", &self.media_connections),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register("uplink_loss_ratio", "Share of our packets that the node missed", self.uplink_loss.clone());
        for (name, help, gauge) in [
            ("red_blocks", "Earlier packets that each packet repeats", &self.red_blocks),
            ("bitrate_bps", "Bits per second that the encoder aims at", &self.bitrate_bps),
            ("frame_milliseconds", "Sound in one packet", &self.frame_ms),
            ("queue_milliseconds", "Sound that waits for the network", &self.queue_ms),
        ] {
            registry.register(name, help, gauge.clone());
        }
    }

    fn register_voices(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("playback_underflows", "Times that the virtual microphone ran out of sound", &self.playback_underflows),
            (
                "playback_moved",
                "Moves of the playback stream to another device; each closed it",
                &self.playback_moved,
            ),
            ("voice_packets", "Packets of voices", &self.voice_packets),
            ("voice_packets_lost", "Packets of voices that never came", &self.voice_lost),
            ("voice_packets_useless", "Duplicates, and packets after their turn", &self.voice_useless),
            ("voice_packets_undecodable", "Packets that are not Opus", &self.voice_undecodable),
            ("voice_packets_dropped", "Packets given up to bound the delay", &self.voice_dropped),
            ("voice_concealed_samples", "Samples made up for missing packets", &self.voice_concealed_samples),
            ("voice_stretched_samples", "Samples cut or added to steer the delay", &self.voice_stretched_samples),
            ("voice_underruns", "Times that a voice had nothing to play", &self.voice_underruns),
            ("voice_refused", "Packets of streams beyond the bound", &self.voice_refused),
            (
                "voice_packets_restored",
                "Packets that only the redundancy of later ones brought",
                &self.voice_restored,
            ),
            (
                "voice_packets_not_admitted",
                "Packets of people who may not speak into this desktop",
                &self.voice_not_admitted,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        let ms = || Unit::Other("milliseconds".to_owned());
        registry.register("voices", "Voices heard now", self.voices.clone());
        registry.register_with_unit(
            "voice_buffer",
            "Longest sound held back by a voice",
            ms(),
            self.voice_buffer_ms.clone(),
        );
        registry.register_with_unit(
            "playback_target",
            "Sound held by the daemon",
            ms(),
            self.playback_target_ms.clone(),
        );
    }

    pub fn copy_intake(&self, counters: IntakeCounters) {
        set(&self.capture_gaps, counters.gaps);
        set(&self.capture_late_samples, counters.dropped_samples);
    }

    pub fn copy_playout(&self, playout: &Playout) {
        let totals = playout.totals();
        set(&self.voice_packets, totals.received);
        set(&self.voice_lost, totals.lost);
        set(&self.voice_useless, totals.useless);
        set(&self.voice_undecodable, totals.undecodable);
        set(&self.voice_dropped, totals.dropped);
        set(&self.voice_concealed_samples, totals.concealed_samples);
        set(&self.voice_stretched_samples, totals.shortened_samples + totals.lengthened_samples);
        set(&self.voice_underruns, totals.underruns);
        set(&self.voice_refused, playout.refused());
        set(&self.voice_restored, totals.restored);
        set(&self.voice_not_admitted, playout.not_admitted());
        self.voices.set(i64::try_from(playout.playing()).unwrap_or(i64::MAX));
        self.voice_buffer_ms.set(i64::try_from(playout.buffered_ms_max()).unwrap_or(i64::MAX));
    }
}

/// For totals that only grow and are counted elsewhere.
fn set(counter: &Counter, total: u64) {
    counter.inner().store(total, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_has_the_prefix_and_a_description() {
        let (metrics, registry) = Metrics::new();
        metrics.copy_intake(IntakeCounters { dropped_samples: 480, gaps: 2 });
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        assert!(text.contains("bridge_capture_gaps_total 2"), "{text}");
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(series.iter().all(|line| line.starts_with("bridge_")), "{text}");
        assert_eq!(text.matches("# HELP").count(), text.matches("# TYPE").count());
    }
}
