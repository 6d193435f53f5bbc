//! The seam between sound devices and the rest: a source of captured sound, a sink that asks for sound, and the format
//! of both. The pulse module implements them on a daemon, [`crate::synthetic`] without one; nothing else knows which.

use std::future::Future;
use std::time::Instant;

/// Samples per second and channel, everywhere in this program: the rate of Opus and of the desktop's sinks.
pub const SAMPLE_RATE: u32 = 48_000;
/// Desktop sound is interleaved left, right.
pub const CAPTURE_CHANNELS: usize = 2;

/// Samples per channel in `ms` milliseconds.
#[must_use]
pub const fn samples_in_ms(ms: u32) -> usize {
    (SAMPLE_RATE / 1000 * ms) as usize
}

/// What a read of a source brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Captured {
    /// Samples were appended; the last of them left the device just before `at`.
    Chunk { at: Instant },
    /// The source is lost and will be looked for again by the next read. What it would have given meanwhile is gone.
    Lost,
}

/// Captured sound: interleaved stereo at [`SAMPLE_RATE`], in chunks of any size. Never ends: an implementation whose
/// device goes away waits for it to come back.
pub trait PcmSource: Send {
    /// Appends the next chunk to `samples`.
    fn read(&mut self, samples: &mut Vec<i16>) -> impl Future<Output = Captured> + Send;
}

/// Where voices go: mono at [`SAMPLE_RATE`]. The device's clock is the master: it asks, we answer with exactly that much.
pub trait PcmSink: Send {
    /// Waits until the device wants sound and says how many samples.
    fn wanted(&mut self) -> impl Future<Output = usize> + Send;
    /// Hands over what was asked for. Lost silently when the device went away in between.
    fn write(&mut self, samples: &[i16]) -> impl Future<Output = ()> + Send;
}
