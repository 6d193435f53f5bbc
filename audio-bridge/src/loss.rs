//! How much redundancy the desktop's sound is sent with: none on a clean path, one earlier packet from 1 % loss on, two
//! from 5 %. It rises at once and falls one step after ten clean seconds, so that a path that loses now and then does
//! not make it swing. Time is an argument; the loss comes from receiver reports.

use std::time::{Duration, Instant};

/// Loss from which this many blocks are worth their bytes.
const BLOCKS_FROM: [f64; 2] = [0.01, 0.05];
const CLEAN: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub struct RedLevel {
    blocks: usize,
    /// When the present level was last needed.
    needed: Option<Instant>,
}

impl RedLevel {
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Takes the loss (0 to 1) of a report. Says whether the level changed.
    pub fn reported(&mut self, now: Instant, fraction_lost: f64) -> bool {
        let wanted = BLOCKS_FROM.iter().filter(|&&from| fraction_lost >= from).count();
        let before = self.blocks;
        if wanted >= self.blocks {
            self.blocks = wanted;
            self.needed = Some(now);
        } else if self.needed.is_none_or(|needed| now.saturating_duration_since(needed) >= CLEAN) {
            self.blocks -= 1;
            self.needed = Some(now);
        }
        self.blocks != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redundancy_follows_loss_up_at_once_and_down_slowly() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut level = RedLevel::default();
        assert!(!level.reported(at(0), 0.009));
        assert!(level.reported(at(1), 0.012));
        assert_eq!(level.blocks(), 1);
        assert!(level.reported(at(2), 0.2));
        assert_eq!(level.blocks(), 2);
        assert!(!level.reported(at(3), 0.0));
        assert!(!level.reported(at(11), 0.02), "9 s after it was needed");
        assert!(level.reported(at(12), 0.0));
        assert_eq!(level.blocks(), 1);
        assert!(!level.reported(at(21), 0.0));
        assert!(level.reported(at(22), 0.0));
        assert_eq!(level.blocks(), 0);
    }

    #[test]
    fn loss_that_comes_and_goes_keeps_its_redundancy() {
        let start = Instant::now();
        let mut level = RedLevel::default();
        let changes = (0..100)
            .filter(|n| level.reported(start + Duration::from_secs(*n), if n % 5 == 0 { 0.06 } else { 0.0 }))
            .count();
        assert_eq!((changes, level.blocks()), (1, 2));
    }
}
