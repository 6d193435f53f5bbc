//! The queues between all shards: from each to each other one [`ring`](super::ring), and for each a bell that is rung
//! only when it sleeps. What the items say is the core's; here they are bytes, in order, from one thread to another.

use std::sync::{Arc, OnceLock};

use sfu_core::{BUS_ITEM_MAX, BusTransmit, ShardId, ShardSet};
use udp::Waker;

use super::ring::{Bell, Consumer, Producer, ring};
use crate::metrics::ShellCounters;

/// Of all queues together, so that many shards do not take memory with their square.
const QUEUES_BYTES: usize = 32 << 20;
/// The most that one queue may hold: with the hundred packets of 150 bytes in 20 ms that a busy shard shares, some
/// hundreds of milliseconds of sound; who is further behind gets the rest as loss and not as delay.
const QUEUE_BYTES_MAX: usize = 256 << 10;
const QUEUE_BYTES_MIN: usize = 16 << 10;
/// Part of a queue that sound may not fill: it is kept for what must arrive.
const KEPT_PART: usize = 8;
/// Items taken in one turn; bounds how long outputs and datagrams wait.
const ITEMS_A_TURN: usize = 64;

/// One shard's end of all its queues.
pub(crate) struct BusEnd {
    shard: ShardId,
    /// By shard; `None` for itself.
    to: Vec<Option<Producer>>,
    from: Vec<Option<Consumer>>,
    bells: Arc<[DoorBell]>,
    kept_bytes: usize,
    /// Have got something since the bells were rung last.
    unrung: ShardSet,
    /// Whose queue is looked at first: takes turns.
    first: usize,
    item: Box<[u8; BUS_ITEM_MAX]>,
}

struct DoorBell {
    bell: Bell,
    /// From the moment on when the shard has its poller. Before that it does not sleep.
    waker: OnceLock<Waker>,
}

/// As many as there are shards, at most [`ShardId::COUNT_MAX`].
pub(crate) fn mesh(shards: usize) -> Vec<BusEnd> {
    let ids: Vec<ShardId> = (0..shards).map_while(ShardId::new).collect();
    let queues = (ids.len() * ids.len().saturating_sub(1)).max(1);
    let bytes = (QUEUES_BYTES / queues).clamp(QUEUE_BYTES_MIN, QUEUE_BYTES_MAX);
    let bells = ids.iter().map(|_| DoorBell { bell: Bell::new(), waker: OnceLock::new() }).collect::<Arc<[_]>>();
    let end = |shard: &ShardId| BusEnd {
        shard: *shard,
        to: Vec::new(),
        from: Vec::new(),
        bells: Arc::clone(&bells),
        kept_bytes: bytes / KEPT_PART,
        unrung: ShardSet::NONE,
        first: 0,
        item: Box::new([0; BUS_ITEM_MAX]),
    };
    let mut ends: Vec<BusEnd> = ids.iter().map(end).collect();
    for sender in 0..ends.len() {
        for receiver in 0..ends.len() {
            let (producer, consumer) = if sender == receiver {
                (None, None)
            } else {
                let (producer, consumer) = ring(bytes);
                (Some(producer), Some(consumer))
            };
            ends[sender].to.push(producer);
            ends[receiver].from.push(consumer);
        }
    }
    ends
}

impl BusEnd {
    /// Who waits with this waker can be woken by the others.
    pub(super) fn connect(&self, waker: Waker) {
        // A shard has one poller for life.
        _ = self.bells[self.shard.index()].waker.set(waker);
    }

    /// What does not fit is dropped: sound first, and the rest is said again by the core.
    pub(super) fn send<'a>(&mut self, items: impl Iterator<Item = BusTransmit<'a>>, counters: &mut ShellCounters) {
        for item in items {
            let spare = if item.is_media { self.kept_bytes } else { 0 };
            for shard in item.to.iter() {
                let queue = self.to.get_mut(shard.index()).and_then(Option::as_mut);
                match queue.map(|queue| queue.push(item.bytes, spare)) {
                    Some(Ok(())) => self.unrung = self.unrung.with(shard),
                    Some(Err(_)) => counters.bus_dropped += 1,
                    // The control plane names no shard that is not there.
                    None => {}
                }
            }
        }
    }

    /// Wakes those that have got something and sleep. Once a batch, for the fence is dearer than the rest.
    pub(super) fn ring(&mut self, counters: &mut ShellCounters) {
        for shard in std::mem::take(&mut self.unrung).iter() {
            let DoorBell { bell, waker } = &self.bells[shard.index()];
            if bell.is_to_ring()
                && let Some(waker) = waker.get()
            {
                counters.bus_wakes += 1;
                waker.wake();
            }
        }
    }

    /// The next item of this turn, which `taken` counts; the queues take turns.
    pub(super) fn receive(&mut self, taken: &mut usize) -> Option<(ShardId, &[u8])> {
        if *taken >= ITEMS_A_TURN {
            return None;
        }
        let count = self.from.len();
        let mut shards = (0..count).map(|n| (self.first + n) % count);
        let found = shards.find(|shard| self.from[*shard].as_mut().is_some_and(|queue| !queue.is_empty()))?;
        *taken += 1;
        self.first = (found + 1) % count;
        let bytes = self.from[found].as_mut()?.pop(&mut self.item[..])?;
        Some((ShardId::new(found)?, bytes))
    }

    pub(super) fn is_empty(&mut self) -> bool {
        self.from.iter_mut().flatten().all(Consumer::is_empty)
    }

    /// Before waiting. When `false`, there is something to do and nothing to wait for.
    pub(super) fn may_sleep(&mut self) -> bool {
        self.bells[self.shard.index()].bell.announce();
        self.is_empty()
    }

    pub(super) fn awake(&self) {
        self.bells[self.shard.index()].bell.awake();
    }
}

impl std::fmt::Debug for BusEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BusEnd").field("shard", &self.shard).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(to: &[usize], bytes: &[u8], is_media: bool, from: &mut BusEnd, counters: &mut ShellCounters) {
        let to = to.iter().filter_map(|shard| ShardId::new(*shard)).collect();
        from.send([BusTransmit { to, bytes, is_media }].into_iter(), counters);
    }

    fn all(end: &mut BusEnd) -> Vec<(usize, Vec<u8>)> {
        let (mut taken, mut found) = (0, Vec::new());
        while let Some((from, bytes)) = end.receive(&mut taken) {
            found.push((from.index(), bytes.to_vec()));
        }
        found
    }

    #[test]
    fn items_reach_those_they_are_for_and_queues_take_turns() {
        let mut ends = mesh(3);
        let mut counters = ShellCounters::default();
        for n in 0..2 {
            item(&[1, 2], &[n], true, &mut ends[0], &mut counters);
            item(&[1], &[10 + n], true, &mut ends[2], &mut counters);
        }
        assert_eq!(all(&mut ends[1]), [(0, vec![0]), (2, vec![10]), (0, vec![1]), (2, vec![11])]);
        assert_eq!(all(&mut ends[2]), [(0, vec![0]), (0, vec![1])]);
        assert!(all(&mut ends[0]).is_empty() && counters.bus_dropped == 0);
    }

    #[test]
    fn a_turn_takes_a_bounded_number() {
        let mut ends = mesh(2);
        let mut counters = ShellCounters::default();
        for n in 0..100 {
            item(&[1], &[n], true, &mut ends[0], &mut counters);
        }
        assert_eq!(all(&mut ends[1]).len(), ITEMS_A_TURN);
        assert_eq!(all(&mut ends[1]).len(), 100 - ITEMS_A_TURN);
    }

    #[test]
    fn a_full_queue_loses_the_newest_sound_and_still_takes_what_must_arrive() {
        let mut ends = mesh(2);
        let mut counters = ShellCounters::default();
        while counters.bus_dropped == 0 {
            item(&[1], &[1; 100], true, &mut ends[0], &mut counters);
        }
        item(&[1], &[2; 1_000], false, &mut ends[0], &mut counters);
        assert_eq!(counters.bus_dropped, 1);
        let mut last = None;
        while !ends[1].is_empty() {
            last = all(&mut ends[1]).pop();
        }
        assert_eq!(last, Some((0, vec![2; 1_000])));
    }

    #[test]
    fn memory_does_not_grow_with_the_square_of_many_shards() {
        assert_eq!(mesh(64).len(), 64);
        assert_eq!(mesh(65).len(), 64, "more are not there");
        assert_eq!(mesh(1)[0].to.len(), 1);
    }

    #[test]
    fn only_who_sleeps_is_woken() {
        let mut ends = mesh(2);
        let mut counters = ShellCounters::default();
        let mut poller = udp::Poller::new().unwrap();
        ends[1].connect(poller.waker());
        item(&[1], b"to one who is awake", true, &mut ends[0], &mut counters);
        ends[0].ring(&mut counters);
        assert_eq!(counters.bus_wakes, 0);
        assert!(!ends[1].may_sleep(), "there is something to do");
        ends[1].awake();
        assert_eq!(all(&mut ends[1]).len(), 1);
        assert!(ends[1].may_sleep());
        for _ in 0..2 {
            item(&[1], b"to a sleeper", true, &mut ends[0], &mut counters);
            ends[0].ring(&mut counters);
        }
        assert_eq!(counters.bus_wakes, 1);
        assert!(poller.wait(Some(std::time::Duration::from_secs(5))).unwrap().is_woken());
    }
}
