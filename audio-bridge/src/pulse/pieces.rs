//! How much sound to ask the daemon for at a time. A frame, so that one wake-up makes one packet; but smaller pieces while a
//! program on the desktop wants so little delay that the daemon works in its smallest blocks for it anyway. Sound waits for
//! its block and then for its frame: blocks of 2.5 ms in frames of 10 ms make that a millisecond more than blocks of 2 ms, for
//! one wake-up less in five.
//!
//! It only counts; [`super::record`] tells the daemon.

use crate::pcm::samples_in_ms;

/// A whole number of pieces makes a frame, or some frames would wait for a piece of which they need a part.
const PIECES_OF_5_MS: usize = 3;
const PIECE_SAMPLES: usize = samples_in_ms(2);
/// What the daemon makes of a program's wish for 10 ms is 2.5 ms.
const SMALL_SAMPLES_MAX: usize = samples_in_ms(3);
/// One small chunk is the rest of something; so many are a program.
const SMALL_IN_A_ROW: u32 = 20;
/// Pieces hide what the program wants, so whole frames are tried again after this long: 50 ms of a minute then wait longer.
const SHORT_SAMPLES: usize = samples_in_ms(60_000);

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pieces {
    small: u32,
    /// Samples per channel that still come in pieces.
    short: usize,
}

impl Pieces {
    /// Counts a chunk of so many samples per channel.
    pub(super) fn arrived(&mut self, samples: usize) {
        if self.short > 0 {
            self.short = self.short.saturating_sub(samples);
            return;
        }
        self.small = if samples <= SMALL_SAMPLES_MAX { self.small + 1 } else { 0 };
        if self.small >= SMALL_IN_A_ROW {
            *self = Self { small: 0, short: SHORT_SAMPLES };
        }
    }

    /// Samples per channel to ask for when frames of `fragment_ms` are wanted.
    pub(super) fn samples(self, fragment_ms: u32) -> usize {
        let frame = samples_in_ms(fragment_ms);
        match fragment_ms {
            _ if self.short == 0 => frame,
            5 => frame / PIECES_OF_5_MS,
            _ => frame.min(PIECE_SAMPLES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pieces: &mut Pieces, chunks: u32, samples: usize) -> usize {
        (0..chunks).for_each(|_| pieces.arrived(samples));
        pieces.samples(10)
    }

    #[test]
    fn only_a_program_that_wants_little_delay_gets_pieces() {
        let mut pieces = Pieces::default();
        assert_eq!(after(&mut pieces, 10_000, 480), 480);
        assert_eq!(after(&mut pieces, 10_000, 240), 480);
        for _ in 0..100 {
            assert_eq!(after(&mut pieces, 19, 120), 480, "the rest of something");
            assert_eq!(after(&mut pieces, 1, 480), 480);
        }
        assert_eq!(after(&mut pieces, 20, 120), 96);
    }

    #[test]
    fn a_whole_number_of_pieces_makes_a_frame() {
        for frame_ms in crate::profile::FRAMES_MS {
            let mut pieces = Pieces::default();
            assert_eq!(pieces.samples(frame_ms), samples_in_ms(frame_ms));
            after(&mut pieces, 20, 120);
            let piece = pieces.samples(frame_ms);
            assert!(piece <= 96 && samples_in_ms(frame_ms).is_multiple_of(piece), "{piece} in {frame_ms} ms");
        }
    }

    #[test]
    fn whole_frames_are_tried_again_each_minute() {
        let mut pieces = Pieces::default();
        after(&mut pieces, 20, 120);
        assert_eq!(after(&mut pieces, 29_999, 96), 96);
        assert_eq!(after(&mut pieces, 1, 96), 480);
        assert_eq!(after(&mut pieces, 19, 120), 480);
        assert_eq!(after(&mut pieces, 1, 120), 96, "the program is still there");
        assert_eq!(after(&mut pieces, 30_000, 96), 480);
        assert_eq!(after(&mut pieces, 6_000, 480), 480, "it went");
    }
}
