//! How loud a voice is over some packets, from the levels that the senders write beside them (RFC 6464), and whether
//! that counts as speaking. It decodes no sound.

use std::time::{Duration, Instant};

/// Attenuation in dB below overload: 0 is loudest, 127 silence.
const SILENCE: u16 = 127;
/// Fixed point of the average.
const SCALE: u16 = 64;
/// Becomes a speaker at this level, stops below the other: the distance keeps a voice from flickering between words.
const SPEAKS_FROM: u16 = 45;
const SPEAKS_TO: u16 = 55;
/// Packets come each 10-60 ms and DTX sends one each 400 ms: after this the voice is over.
const STALE_AFTER: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    average: u16,
    heard_at: Option<Instant>,
    speaking: bool,
}

impl Default for Level {
    fn default() -> Self {
        Self { average: SILENCE * SCALE, heard_at: None, speaking: false }
    }
}

impl Level {
    /// `attenuation`: the low seven bits of the extension. Rises fast (1/4) and falls slowly (1/16).
    pub(crate) fn hear(&mut self, now: Instant, attenuation: u8) {
        let sample = u16::from(attenuation & 0x7f) * SCALE;
        if sample < self.average {
            self.average -= (self.average - sample).div_ceil(4);
        } else {
            self.average += (sample - self.average) / 16;
        }
        self.heard_at = Some(now);
    }

    /// The attenuation of a speaker; `None` for everybody else.
    pub(crate) fn speaking(&mut self, now: Instant) -> Option<u16> {
        if self.heard_at.is_none_or(|at| now.saturating_duration_since(at) > STALE_AFTER) {
            *self = Self::default();
            return None;
        }
        let limit = if self.speaking { SPEAKS_TO } else { SPEAKS_FROM };
        self.speaking = self.average <= limit * SCALE;
        self.speaking.then_some(self.average)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
    fn a_voice_starts_within_a_few_packets_and_does_not_flicker() {
        let mut now = Instant::now();
        let mut level = Level::default();
        let mut hear = |level: &mut Level, attenuation: u8| {
            now += Duration::from_millis(20);
            level.hear(now, attenuation);
            level.speaking(now).is_some()
        };
        let packets_until_heard = (1..50).find(|_| hear(&mut level, 20)).unwrap();
        assert!(packets_until_heard <= 6, "{packets_until_heard}");
        assert!((0..5).all(|_| hear(&mut level, 90)), "a gap between words");
        assert!((0..60).any(|_| !hear(&mut level, 90)), "and an end");
        let late = now + Duration::from_secs(1);
        assert!(level.speaking(late).is_none());
    }
}
