//! Mouth to ear: plays clicks into a sink of one sound daemon and waits for each at a source of another (or the same) one,
//! both in this process, so that one clock measures. A click counts from the moment when its first sample is handed to the
//! daemon, in a stream with 10 ms of target, to the moment when the far daemon gives out the block with the first loud sample;
//! so what lies between is everything but the sound hardware. A daemon renders a null sink a little ahead, so nothing is
//! subtracted for the place of the sample in its block.
//!
//! Prints one JSON object a round, `{"latencies_ms": [..], "lost": n}`. Rounds and statistics are the caller's.

mod daemon;

use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use daemon::Daemon;

/// Two channels of 16 bits.
const FRAME_BYTES: usize = 4;
/// A whole wave of 1 kHz: short enough for an exact moment, long enough to survive any codec.
const CLICK_FRAMES: u32 = 48;
const CLICK_AMPLITUDE: f64 = 26_000.0;
/// Far above the pre-echo of a transform codec, well below the click.
const HEARD_ABOVE: u16 = 5_000;
/// What takes longer is lost; the next click must not be taken for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause between clicks grows by this from click to click and starts anew, so that clicks fall on every phase of the
/// blocks and frames on the way.
const PAUSE_MIN: Duration = Duration::from_millis(300);
const PAUSE_STEP: Duration = Duration::from_micros(7_300);
const PAUSE_STEPS: u32 = 29;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [play, play_cookie, sink, hear, hear_cookie, source, clicks, rounds] = arguments.as_slice() else {
        bail!("usage: click unix:PLAY_SOCKET COOKIE_FILE SINK unix:HEAR_SOCKET COOKIE_FILE SOURCE CLICKS ROUNDS");
    };
    let bench = Arc::new(Bench::default());
    let player = Daemon::connect(play, play_cookie)?.playback(sink)?;
    let recorder = Daemon::connect(hear, hear_cookie)?.record(source)?;
    let (playing, hearing) = (Arc::clone(&bench), Arc::clone(&bench));
    // Both end with the process; when one fails, its clicks are lost and counted.
    thread::spawn(move || player.run(|buffer| playing.write(buffer)));
    thread::spawn(move || recorder.run(|bytes| hearing.read(bytes)));
    let clicks: u32 = clicks.parse().context("CLICKS is a number")?;
    for _ in 0..rounds.parse().context("ROUNDS is a number")? {
        let latencies = bench.round(clicks);
        let lost = clicks as usize - latencies.len();
        writeln!(std::io::stdout(), "{}", serde_json::json!({ "latencies_ms": latencies, "lost": lost }))?;
    }
    Ok(())
}

/// What the two streams and the rounds share.
#[derive(Debug, Default)]
struct Bench {
    state: Mutex<State>,
    heard: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The next sample that is asked for begins a click.
    due: bool,
    /// Frames of the present click that are still to be written.
    left: u32,
    handed: Option<Instant>,
    heard: Option<Instant>,
}

impl Bench {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the daemon asks for: silence, or the click that is due.
    fn write(&self, buffer: &mut [u8]) {
        let mut state = self.state();
        if std::mem::take(&mut state.due) {
            state.left = CLICK_FRAMES;
            state.handed = Some(Instant::now());
        }
        for frame in buffer.chunks_exact_mut(FRAME_BYTES) {
            let sample = click_sample(state.left).to_le_bytes();
            state.left = state.left.saturating_sub(1);
            frame.copy_from_slice(&[sample[0], sample[1], sample[0], sample[1]]);
        }
    }

    /// What the daemon gives out.
    fn read(&self, bytes: &[u8]) {
        let now = Instant::now();
        let mut state = self.state();
        if state.handed.is_none() || state.heard.is_some() {
            return;
        }
        let loud = |frame: &[u8]| i16::from_le_bytes([frame[0], frame[1]]).unsigned_abs() > HEARD_ABOVE;
        if bytes.chunks_exact(FRAME_BYTES).any(loud) {
            state.heard = Some(now);
            self.heard.notify_one();
        }
    }

    /// Latencies of the clicks that were heard.
    fn round(&self, clicks: u32) -> Vec<f64> {
        let mut latencies = Vec::new();
        for click in 0..clicks {
            thread::sleep(PAUSE_MIN + PAUSE_STEP * (click % PAUSE_STEPS));
            *self.state() = State { due: true, ..State::default() };
            let waited = self.heard.wait_timeout_while(self.state(), PATIENCE, |state| state.heard.is_none());
            let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if let State { handed: Some(handed), heard: Some(heard), .. } = std::mem::take(&mut *state) {
                latencies.push(heard.saturating_duration_since(handed).as_secs_f64() * 1e3);
            }
        }
        latencies
    }
}

fn click_sample(left: u32) -> i16 {
    if left == 0 {
        return 0;
    }
    let phase = f64::from(CLICK_FRAMES - left) / f64::from(CLICK_FRAMES);
    (CLICK_AMPLITUDE * (std::f64::consts::TAU * phase).sin()) as i16
}
