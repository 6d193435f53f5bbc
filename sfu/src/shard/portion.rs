//! How much of a turn the work of joins may take: audio that comes meanwhile waits for it. What is more than a portion
//! waits in its queue, in order, until the next turn has taken datagrams. It knows nothing of what is in the queues; the
//! clock is the caller's.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// A tenth of what a burst of audio that fills a turn takes. A join is some tens of microseconds in all, so that this is
/// still thousands a second.
const PORTION: Duration = Duration::from_micros(200);

/// Of one turn, for all queues that are asked.
pub(super) struct Portion<'c> {
    clock: &'c dyn Fn() -> Instant,
    ends: Instant,
}

/// What a queue may still have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nothing,
    Some,
    /// Nothing, and nobody is there to fill it.
    Closed,
}

impl<'c> Portion<'c> {
    pub(super) fn begin(clock: &'c dyn Fn() -> Instant) -> Self {
        Self { clock, ends: clock() + PORTION }
    }

    /// One item at least, so that no queue stands still because of another; then as long as the portion lasts, or until
    /// `act` breaks off.
    pub(super) fn spend<T>(&self, queue: &Receiver<T>, mut act: impl FnMut(T) -> ControlFlow<()>) -> Left {
        loop {
            match queue.try_recv() {
                Ok(item) => {
                    if act(item).is_break() {
                        return Left::Some;
                    }
                }
                Err(TryRecvError::Empty) => return Left::Nothing,
                Err(TryRecvError::Disconnected) => return Left::Closed,
            }
            if (self.clock)() >= self.ends {
                return Left::Some;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::sync_channel;

    use super::*;

    const US: Duration = Duration::from_micros(1);
    const ITEMS: u32 = 100;

    /// Turns until a queue is empty, in each of which every item costs that: what each turn has taken.
    fn turns(cost: Duration) -> Vec<Vec<u32>> {
        let time = Cell::new(Instant::now());
        let clock = || time.get();
        let (fill, queue) = sync_channel(ITEMS as usize);
        (0..ITEMS).for_each(|item| fill.send(item).unwrap());
        let mut turns = Vec::new();
        loop {
            let (portion, began, mut taken) = (Portion::begin(&clock), time.get(), Vec::new());
            let left = portion.spend(&queue, |item| {
                taken.push(item);
                time.set(time.get() + cost);
                ControlFlow::Continue(())
            });
            assert!(time.get() - began < PORTION + cost, "{cost:?}");
            turns.push(taken);
            if left == Left::Nothing {
                return turns;
            }
            assert_eq!(left, Left::Some);
        }
    }

    #[test]
    fn a_storm_is_spread_over_turns_in_order_and_nothing_is_lost() {
        for (cost_us, a_turn) in [(0, 100), (1, 100), (20, 10), (60, 4), (199, 2), (200, 1), (5_000, 1)] {
            let turns = turns(cost_us * US);
            assert!(turns.iter().all(|taken| taken.len() <= a_turn), "{cost_us} us");
            assert_eq!(turns[0].len(), a_turn, "{cost_us} us");
            assert!(turns.concat().into_iter().eq(0..ITEMS), "{cost_us} us");
        }
    }

    #[test]
    fn a_queue_gets_one_item_after_another_has_used_the_portion_up() {
        let time = Cell::new(Instant::now());
        let clock = || time.get();
        let portion = Portion::begin(&clock);
        let (fill, queue) = sync_channel(4);
        (0..4).for_each(|item| fill.send(item).unwrap());
        time.set(time.get() + PORTION);
        for wanted in 0..4 {
            let mut taken = Vec::new();
            let left = portion.spend(&queue, |item| {
                taken.push(item);
                ControlFlow::Continue(())
            });
            assert_eq!((left, taken), (Left::Some, vec![wanted]));
        }
    }

    #[test]
    fn who_breaks_off_leaves_the_rest_and_a_closed_queue_says_so() {
        let clock = Instant::now;
        let portion = Portion::begin(&clock);
        let (fill, queue) = sync_channel(2);
        (0..2).for_each(|item| fill.send(item).unwrap());
        assert_eq!(portion.spend(&queue, |_| ControlFlow::Break(())), Left::Some);
        assert_eq!(queue.try_recv(), Ok(1));
        assert_eq!(portion.spend(&queue, |_| ControlFlow::Break(())), Left::Nothing);
        drop(fill);
        assert_eq!(portion.spend(&queue, |_| ControlFlow::Break(())), Left::Closed);
    }
}
