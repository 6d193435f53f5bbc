//! The silence gate: while the desktop is silent nothing is sent but one empty frame each 400 ms, as Opus does in its DTX
//! mode. Receivers know that as a pause and not as loss. Silence is digital silence, every sample zero, so nothing
//! audible is ever cut; one sample that is not zero opens the gate for its own frame.
//!
//! Not the default: nothing is cut, but Chromium's jitter buffer starts anew after a pause and bends the first quarter second
//! of the next sound (see "Decisions" in ARCHITECTURE.md). A silent frame costs 3 bytes of payload.

/// Silence that is still sent, so that the decoder's own tail ends properly.
const HOLD_MS: u32 = 500;
/// Keeps the receiver's statistics, the node's "live" state and NAT bindings alive.
const COMFORT_INTERVAL_MS: u32 = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `marker`: first frame after silence (RFC 3551 section 4.1).
    Send {
        marker: bool,
    },
    /// Send a frame that says "pause" and has no sound.
    Pause,
    Skip,
}

#[derive(Debug)]
pub struct SilenceGate {
    frame_ms: u32,
    silent_ms: u32,
    since_pause_ms: u32,
    /// The next audible frame starts a talkspurt.
    closed: bool,
}

impl SilenceGate {
    #[must_use]
    pub fn new(frame_ms: u32) -> Self {
        Self { frame_ms, silent_ms: 0, since_pause_ms: COMFORT_INTERVAL_MS, closed: true }
    }

    /// Judges frames of another length from now on.
    pub fn set_frame_ms(&mut self, frame_ms: u32) {
        self.frame_ms = frame_ms;
    }

    /// Judges the next frame.
    pub fn judge(&mut self, frame: &[i16]) -> Verdict {
        if frame.iter().any(|&sample| sample != 0) {
            self.silent_ms = 0;
            let marker = std::mem::replace(&mut self.closed, false);
            return Verdict::Send { marker };
        }
        self.silent_ms = self.silent_ms.saturating_add(self.frame_ms);
        if self.silent_ms <= HOLD_MS && !self.closed {
            // The first frame after the hold begins the pause at once.
            self.since_pause_ms = COMFORT_INTERVAL_MS;
            return Verdict::Send { marker: false };
        }
        self.closed = true;
        self.since_pause_ms += self.frame_ms;
        if self.since_pause_ms < COMFORT_INTERVAL_MS {
            return Verdict::Skip;
        }
        self.since_pause_ms = 0;
        Verdict::Pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(gate: &mut SilenceGate, frames: usize, frame: &[i16]) -> usize {
        (0..frames).filter(|_| gate.judge(frame) != Verdict::Skip).count()
    }

    #[test]
    fn the_smallest_sound_is_sent_at_once_with_the_marker() {
        let mut gate = SilenceGate::new(10);
        sent(&mut gate, 1000, &[0; 960]);
        let mut quiet = [0; 960];
        quiet[959] = -1;
        assert_eq!(gate.judge(&quiet), Verdict::Send { marker: true });
        assert_eq!(gate.judge(&quiet), Verdict::Send { marker: false });
    }

    #[test]
    fn silence_costs_two_and_a_half_frames_a_second() {
        let mut gate = SilenceGate::new(10);
        gate.judge(&[1; 960]);
        assert_eq!(sent(&mut gate, 50, &[0; 960]), 50, "the first half second is sent");
        assert_eq!(gate.judge(&[0; 960]), Verdict::Pause, "then the pause is announced");
        assert_eq!(sent(&mut gate, 1000, &[0; 960]), 25, "and again each 400 ms");
    }

    #[test]
    fn a_pause_shorter_than_the_hold_has_no_marker() {
        let mut gate = SilenceGate::new(20);
        gate.judge(&[1; 1920]);
        assert_eq!(sent(&mut gate, 24, &[0; 1920]), 24);
        assert_eq!(gate.judge(&[1; 1920]), Verdict::Send { marker: false });
    }

    #[test]
    fn a_desktop_that_was_never_audible_announces_only_its_pause() {
        let mut gate = SilenceGate::new(10);
        let verdicts: Vec<Verdict> = (0..400).map(|_| gate.judge(&[0; 960])).collect();
        assert_eq!(verdicts[0], Verdict::Pause);
        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == Verdict::Pause).count(), 10);
        assert_eq!(verdicts.iter().filter(|&&verdict| verdict == Verdict::Skip).count(), 390);
    }
}
