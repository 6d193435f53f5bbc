//! From captured chunks to frames with RTP time. Sound that arrives on time is only cut into frames. Sound that arrives
//! more than 100 ms late either follows a gap (the daemon was away) or is the backlog of a stall (we were): the newest
//! 40 ms are kept, the rest is dropped, and RTP time goes on from the wall clock. So a stall is heard as a gap and never
//! becomes delay.
//!
//! It has no clock of its own and does no I/O; silence and encoding come after it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::framing::Reframer;
use crate::pcm::{CAPTURE_CHANNELS, SAMPLE_RATE, samples_in_ms};
use crate::rtp_clock::RtpClock;

/// Later than this is a gap or a backlog. The daemon's own alternation of one and two fragments stays below 40 ms even
/// on a loaded machine.
const LATE_US: i64 = 100_000;
/// What is kept of a backlog: more would be heard as delay.
const BACKLOG_MS_MAX: u32 = 40;
/// A chunk this much too early, shortly after a recovery, is still backlog.
const LEAD_US_MAX: i64 = 40_000;
const SETTLING: Duration = Duration::from_secs(1);

/// A frame of interleaved stereo and the RTP time of its first sample.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub timestamp: u32,
    pub samples: &'a [i16],
}

/// Counters of the life of an [`Intake`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IntakeCounters {
    /// Samples per channel that came too late to be sent.
    pub dropped_samples: u64,
    /// Times that RTP time was set from the wall clock.
    pub gaps: u64,
}

#[derive(Debug)]
pub struct Intake {
    clock: RtpClock,
    frames: Reframer,
    frame_len: usize,
    recovery: Option<Recovery>,
    settling_until: Option<Instant>,
    counters: IntakeCounters,
}

/// Late sound is arriving and it is not known yet how much of it there is.
#[derive(Debug)]
struct Recovery {
    kept: VecDeque<i16>,
    last: Instant,
}

impl Intake {
    /// `frame_ms` of sound a frame; `base` is the first RTP timestamp.
    #[must_use]
    pub fn new(frame_ms: u32, base: u32) -> Self {
        let frame_len = samples_in_ms(frame_ms) * CAPTURE_CHANNELS;
        Self {
            clock: RtpClock::new(base),
            frames: Reframer::new(frame_len),
            frame_len,
            recovery: None,
            settling_until: None,
            counters: IntakeCounters::default(),
        }
    }

    /// Cuts frames of another length from now on. RTP time goes on.
    pub fn set_frame_ms(&mut self, frame_ms: u32, mut out: impl FnMut(Frame<'_>)) {
        self.frame_len = samples_in_ms(frame_ms) * CAPTURE_CHANNELS;
        let (clock, samples) = (&mut self.clock, self.frame_len / CAPTURE_CHANNELS);
        self.frames.set_frame_len(self.frame_len, |frame| {
            out(Frame { timestamp: clock.timestamp(), samples: frame });
            clock.advance(samples);
        });
    }

    #[must_use]
    pub fn counters(&self) -> IntakeCounters {
        self.counters
    }

    /// Takes a chunk that arrived at `at` and calls `out` for each frame that it completes.
    pub fn push(&mut self, at: Instant, chunk: &[i16], mut out: impl FnMut(Frame<'_>)) {
        if let Some(recovery) = self.recovery.take() {
            self.recover(recovery, at, chunk, out);
            return;
        }
        let arrival = self.clock.arrival(at, (self.frames.pending() + chunk.len()) / CAPTURE_CHANNELS);
        if arrival.lag_us > LATE_US {
            let pending = self.frames.clear();
            self.drop_values(pending);
            let mut recovery = Recovery { kept: VecDeque::new(), last: at };
            let dropped = recovery.keep(chunk);
            self.drop_values(dropped);
            self.recovery = Some(recovery);
            return;
        }
        let settling = self.settling_until.is_some_and(|until| at < until);
        if settling && arrival.lag_us < -LEAD_US_MAX {
            self.drop_values(chunk.len());
            return;
        }
        // An early chunk of a backlog must not pass for the new normal.
        if !settling || arrival.lag_us >= 0 {
            self.clock.follow(at, arrival);
        }
        self.cut(chunk, &mut out);
    }

    /// The backlog is over when a chunk took its time to come.
    fn recover(&mut self, mut recovery: Recovery, at: Instant, chunk: &[i16], mut out: impl FnMut(Frame<'_>)) {
        let paced = at.saturating_duration_since(recovery.last) >= duration_of(chunk.len()) / 2;
        recovery.last = at;
        if !paced {
            let dropped = recovery.keep(chunk);
            self.drop_values(dropped);
            self.recovery = Some(recovery);
            return;
        }
        self.clock.reanchor(at, (recovery.kept.len() + chunk.len()) / CAPTURE_CHANNELS);
        self.counters.gaps += 1;
        self.settling_until = Some(at + SETTLING);
        self.cut(recovery.kept.make_contiguous(), &mut out);
        self.cut(chunk, &mut out);
    }

    fn cut(&mut self, chunk: &[i16], out: &mut impl FnMut(Frame<'_>)) {
        let (clock, samples) = (&mut self.clock, self.frame_len / CAPTURE_CHANNELS);
        self.frames.push(chunk, |frame| {
            out(Frame { timestamp: clock.timestamp(), samples: frame });
            clock.advance(samples);
        });
    }

    fn drop_values(&mut self, values: usize) {
        self.counters.dropped_samples += (values / CAPTURE_CHANNELS) as u64;
    }
}

impl Recovery {
    /// Keeps the newest sound and says how many values fell out.
    fn keep(&mut self, chunk: &[i16]) -> usize {
        let values_max = samples_in_ms(BACKLOG_MS_MAX) * CAPTURE_CHANNELS;
        self.kept.extend(chunk);
        let excess = self.kept.len().saturating_sub(values_max);
        self.kept.drain(..excess);
        excess
    }
}

fn duration_of(values: usize) -> Duration {
    Duration::from_micros((values / CAPTURE_CHANNELS) as u64 * 1_000_000 / u64::from(SAMPLE_RATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A daemon that delivers blocks, and the intake behind it; time is ours.
    struct Desktop {
        start: Instant,
        now: Duration,
        intake: Intake,
        sent: Vec<(Duration, u32, usize)>,
    }

    impl Desktop {
        fn new() -> Self {
            Self { start: Instant::now(), now: Duration::ZERO, intake: Intake::new(10, 0), sent: Vec::new() }
        }

        fn deliver(&mut self, block_us: u64) {
            let values = (block_us * 48 / 1000) as usize * CAPTURE_CHANNELS;
            let (now, sent) = (self.now, &mut self.sent);
            self.intake.push(self.start + now, &vec![7; values], |frame| {
                sent.push((now, frame.timestamp, frame.samples.len()));
            });
        }

        /// Paced blocks for `ms`.
        fn play(&mut self, ms: u64, block_us: u64) {
            for _ in 0..ms * 1000 / block_us {
                self.now += Duration::from_micros(block_us);
                self.deliver(block_us);
            }
        }

        /// Time passes without delivery; then all of it comes at once, with a few microseconds between blocks.
        fn stall(&mut self, ms: u64, block_us: u64) {
            self.now += Duration::from_millis(ms);
            for _ in 0..ms * 1000 / block_us {
                self.now += Duration::from_micros(20);
                self.deliver(block_us);
            }
        }

        /// How far RTP time is behind the wall clock at the last frame.
        fn delay_ms(&self) -> i64 {
            let (at, timestamp, len) = *self.sent.last().expect("something was sent");
            let end = i64::from(timestamp) + (len / CAPTURE_CHANNELS) as i64;
            at.as_millis() as i64 - end / 48
        }
    }

    #[test]
    fn small_blocks_become_whole_frames_without_gaps() {
        let mut desktop = Desktop::new();
        desktop.play(1000, 2_500);
        assert_eq!(desktop.sent.len(), 100);
        assert!(
            desktop
                .sent
                .iter()
                .enumerate()
                .all(|(n, &(_, timestamp, len))| timestamp == n as u32 * 480 && len == 960)
        );
        assert_eq!(desktop.intake.counters(), IntakeCounters::default());
    }

    #[test]
    fn a_stall_does_not_become_delay() {
        for block_us in [2_500, 5_000, 10_000, 20_000] {
            let mut desktop = Desktop::new();
            desktop.play(1000, block_us);
            let before = desktop.delay_ms();
            for _ in 0..3 {
                let frames_before = desktop.sent.len();
                desktop.stall(500, block_us);
                desktop.play(1000, block_us);
                let frames = desktop.sent.len() - frames_before;
                assert!(frames <= 106, "{frames} frames in 1 s after the stall");
                let delay = desktop.delay_ms();
                assert!((delay - before).abs() <= 20, "{block_us} us blocks: delay {before} -> {delay} ms");
            }
            assert_eq!(desktop.intake.counters().gaps, 3);
        }
    }

    #[test]
    fn rtp_time_advances_by_the_time_that_the_daemon_was_away() {
        let mut desktop = Desktop::new();
        desktop.play(500, 10_000);
        let (before_at, before, _) = *desktop.sent.last().expect("sent");
        desktop.now += Duration::from_millis(1_530);
        desktop.play(200, 10_000);
        let (after_at, after, _) = *desktop.sent.last().expect("sent");
        let wall = (after_at - before_at).as_millis() as i64;
        let rtp = i64::from(after - before) / 48;
        assert!((wall - rtp).abs() <= 10, "{wall} ms passed, RTP time says {rtp}");
        assert_eq!(desktop.intake.counters().dropped_samples, 0);
    }

    #[test]
    fn a_backlog_in_two_bursts_is_still_dropped() {
        let mut desktop = Desktop::new();
        desktop.play(1000, 10_000);
        let before = desktop.delay_ms();
        desktop.now += Duration::from_millis(600);
        for _ in 0..30 {
            desktop.deliver(10_000);
        }
        desktop.now += Duration::from_millis(7);
        for _ in 0..30 {
            desktop.deliver(10_000);
        }
        desktop.play(2000, 10_000);
        let delay = desktop.delay_ms();
        assert!((delay - before).abs() <= 50, "delay {before} -> {delay} ms");
    }

    #[test]
    fn timestamps_only_go_forward() {
        let mut desktop = Desktop::new();
        desktop.play(300, 5_000);
        desktop.stall(250, 5_000);
        desktop.play(300, 2_500);
        desktop.now += Duration::from_secs(3);
        desktop.play(300, 20_000);
        assert!(desktop.sent.windows(2).all(|pair| pair[1].1 >= pair[0].1 + 480));
    }
}
