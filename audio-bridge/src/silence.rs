//! The silence gate: desktops are silent most of the time, and nothing is sent then but one frame each 400 ms, the pace
//! of Opus DTX. Silence is digital silence, every sample zero, so nothing audible is ever cut; one sample that is not
//! zero opens the gate for its own frame.

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
    Skip,
}

#[derive(Debug)]
pub struct SilenceGate {
    frame_ms: u32,
    silent_ms: u32,
    since_sent_ms: u32,
    /// The next audible frame starts a talkspurt.
    closed: bool,
}

impl SilenceGate {
    #[must_use]
    pub fn new(frame_ms: u32) -> Self {
        Self { frame_ms, silent_ms: 0, since_sent_ms: 0, closed: true }
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
            self.since_sent_ms = 0;
            return Verdict::Send { marker: false };
        }
        self.closed = true;
        self.since_sent_ms += self.frame_ms;
        if self.since_sent_ms < COMFORT_INTERVAL_MS {
            return Verdict::Skip;
        }
        self.since_sent_ms = 0;
        Verdict::Send { marker: false }
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
        assert_eq!(sent(&mut gate, 1000, &[0; 960]), 25, "then one frame each 400 ms");
    }

    #[test]
    fn a_pause_shorter_than_the_hold_has_no_marker() {
        let mut gate = SilenceGate::new(20);
        gate.judge(&[1; 1920]);
        assert_eq!(sent(&mut gate, 24, &[0; 1920]), 24);
        assert_eq!(gate.judge(&[1; 1920]), Verdict::Send { marker: false });
    }

    #[test]
    fn a_desktop_that_was_never_audible_sends_only_comfort_frames() {
        let mut gate = SilenceGate::new(10);
        assert_eq!(sent(&mut gate, 400, &[0; 960]), 10);
    }
}
