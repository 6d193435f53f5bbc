//! The packets of one voice between arrival and playing: put in order, bounded, and how long to hold them back. What
//! is played when a packet is missing is decided in [`crate::voice`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::pcm::SAMPLE_RATE;

/// 1.28 s of 20 ms packets. More is a burst after a stall, and its oldest packets are of no use any more.
const PACKETS_MAX: usize = 64;
/// A jump of the sequence number further than this is a new stream, not loss.
const JUMP_MAX: i64 = 1000;
/// Arrivals whose spread decides the target: two seconds of 20 ms packets.
const ARRIVALS: usize = 100;
/// Holding back less saves nothing: it is one packet of most browsers.
const TARGET_MIN: Duration = Duration::from_millis(20);
/// Holding back more would make talking to each other impossible; later packets are concealed.
const TARGET_MAX: Duration = Duration::from_millis(200);

/// What of an RTP packet matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub sequence: u16,
    pub timestamp: u32,
    pub payload: Vec<u8>,
}

/// A packet with its place in an endless sequence and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub sequence: i64,
    pub timestamp: i64,
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    Stored,
    /// Its turn is over, or it is here already.
    Useless,
    /// It belongs to a new stream: everything older was dropped.
    Restarted,
}

/// Ordered packets by unwrapped sequence number.
#[derive(Debug, Default)]
pub struct PacketStore {
    packets: BTreeMap<i64, Stored>,
    newest: Option<(i64, i64)>,
    /// Packets below this were played or given up.
    next: Option<i64>,
    overflowed: u64,
}

impl PacketStore {
    pub fn insert(&mut self, packet: Packet) -> Insertion {
        let Some((newest_sequence, newest_timestamp)) = self.newest else {
            self.store(i64::from(packet.sequence), i64::from(packet.timestamp), packet.payload);
            return Insertion::Stored;
        };
        let sequence = newest_sequence + i64::from(packet.sequence.wrapping_sub(newest_sequence as u16) as i16);
        let timestamp = newest_timestamp + i64::from(packet.timestamp.wrapping_sub(newest_timestamp as u32) as i32);
        if (sequence - newest_sequence).abs() > JUMP_MAX {
            self.packets.clear();
            self.next = None;
            self.newest = None;
            self.store(sequence, timestamp, packet.payload);
            return Insertion::Restarted;
        }
        if self.next.is_some_and(|next| sequence < next) || self.packets.contains_key(&sequence) {
            return Insertion::Useless;
        }
        self.store(sequence, timestamp, packet.payload);
        Insertion::Stored
    }

    /// Takes an earlier packet that is only here because a later one repeats it. Says whether it was of use.
    pub fn restore(&mut self, packet: Packet) -> bool {
        let Some((newest_sequence, newest_timestamp)) = self.newest else { return false };
        let sequence = newest_sequence + i64::from(packet.sequence.wrapping_sub(newest_sequence as u16) as i16);
        let timestamp = newest_timestamp + i64::from(packet.timestamp.wrapping_sub(newest_timestamp as u32) as i32);
        // Before the first packet that was ever played or held back there is nothing to fill.
        let begins = self.next.or_else(|| self.first().map(|first| first.sequence)).unwrap_or(i64::MAX);
        let missing = sequence >= begins && !self.packets.contains_key(&sequence);
        let older = sequence < newest_sequence && timestamp < newest_timestamp;
        if !missing || !older || newest_sequence - sequence > JUMP_MAX {
            return false;
        }
        self.store(sequence, timestamp, packet.payload);
        true
    }

    fn store(&mut self, sequence: i64, timestamp: i64, payload: Vec<u8>) {
        if self.newest.is_none_or(|(newest, _)| sequence > newest) {
            self.newest = Some((sequence, timestamp));
        }
        self.packets.insert(sequence, Stored { sequence, timestamp, payload });
        if self.packets.len() > PACKETS_MAX {
            self.packets.pop_first();
            self.overflowed += 1;
        }
    }

    /// Of the newest packet that ever came.
    #[must_use]
    pub fn newest_sequence(&self) -> Option<u16> {
        self.newest.map(|(sequence, _)| sequence as u16)
    }

    /// The oldest packet.
    #[must_use]
    pub fn first(&self) -> Option<&Stored> {
        self.packets.values().next()
    }

    /// Takes the oldest packet out; what is older counts as late from now on.
    pub fn pop_first(&mut self) -> Option<Stored> {
        let (sequence, packet) = self.packets.pop_first()?;
        self.next = Some(sequence + 1);
        Some(packet)
    }

    /// Gives up the packets below `sequence`.
    pub fn give_up_before(&mut self, sequence: i64) {
        self.next = Some(self.next.map_or(sequence, |next| next.max(sequence)));
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Samples between the first sample of the oldest and of the newest packet.
    #[must_use]
    pub fn span(&self) -> usize {
        match (self.packets.values().next(), self.packets.values().next_back()) {
            (Some(first), Some(last)) => usize::try_from(last.timestamp - first.timestamp).unwrap_or(0),
            _ => 0,
        }
    }

    /// Packets that fell out because too many came.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }
}

/// How long to hold packets back: long enough for 98 of the last 100 arrivals.
#[derive(Debug)]
pub struct DelayTarget {
    origin: Option<(Instant, u32)>,
    /// Microseconds of arrival against the sender's time, a ring.
    transits: Vec<i64>,
    oldest: usize,
    spread: Duration,
}

impl Default for DelayTarget {
    fn default() -> Self {
        Self { origin: None, transits: Vec::with_capacity(ARRIVALS), oldest: 0, spread: Duration::ZERO }
    }
}

impl DelayTarget {
    /// Notes an arrival.
    pub fn arrived(&mut self, at: Instant, timestamp: u32) {
        let (origin, first) = *self.origin.get_or_insert((at, timestamp));
        let wall_us = i64::try_from(at.saturating_duration_since(origin).as_micros()).unwrap_or(i64::MAX);
        let media_us = i64::from(timestamp.wrapping_sub(first) as i32) * 1_000_000 / i64::from(SAMPLE_RATE);
        let transit = wall_us - media_us;
        if self.transits.len() < ARRIVALS {
            self.transits.push(transit);
        } else {
            self.transits[self.oldest] = transit;
            self.oldest = (self.oldest + 1) % ARRIVALS;
        }
        self.spread = self.estimate();
        // The sender's time wraps after 12 hours as a signed number; start again long before.
        if media_us.abs() > 3_600_000_000 {
            self.origin = None;
            self.transits.clear();
            self.oldest = 0;
        }
    }

    fn estimate(&self) -> Duration {
        let mut sorted = self.transits.clone();
        sorted.sort_unstable();
        let Some(&fastest) = sorted.first() else { return Duration::ZERO };
        let slow = sorted[(sorted.len() * 98 / 100).min(sorted.len() - 1)];
        Duration::from_micros(u64::try_from(slow - fastest).unwrap_or(0)).min(TARGET_MAX)
    }

    #[must_use]
    pub fn target(&self) -> Duration {
        self.spread.clamp(TARGET_MIN, TARGET_MAX)
    }

    /// What is held back at least.
    #[must_use]
    pub fn samples_min() -> usize {
        samples_of(TARGET_MIN)
    }

    #[must_use]
    pub fn target_samples(&self) -> usize {
        samples_of(self.target())
    }

    /// The jitter itself, which may be less than is ever held back.
    #[must_use]
    pub fn spread_samples(&self) -> usize {
        samples_of(self.spread)
    }
}

fn samples_of(duration: Duration) -> usize {
    (duration.as_micros() * u128::from(SAMPLE_RATE) / 1_000_000) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(sequence: u16) -> Packet {
        Packet { sequence, timestamp: u32::from(sequence).wrapping_mul(960), payload: vec![sequence as u8] }
    }

    fn order(store: &mut PacketStore) -> Vec<u8> {
        std::iter::from_fn(|| store.pop_first()).map(|stored| stored.payload[0]).collect()
    }

    #[test]
    fn reordered_packets_come_out_in_order_across_the_wrap() {
        let mut store = PacketStore::default();
        for sequence in [65_534, 0, 65_535, 2, 1] {
            assert_eq!(store.insert(packet(sequence)), Insertion::Stored);
        }
        assert_eq!(order(&mut store), [254, 255, 0, 1, 2]);
    }

    #[test]
    fn duplicates_and_late_packets_are_useless() {
        let mut store = PacketStore::default();
        store.insert(packet(10));
        assert_eq!(store.insert(packet(10)), Insertion::Useless);
        store.pop_first();
        assert_eq!(store.insert(packet(9)), Insertion::Useless);
        store.give_up_before(20);
        assert_eq!(store.insert(packet(19)), Insertion::Useless);
        assert_eq!(store.insert(packet(20)), Insertion::Stored);
    }

    #[test]
    fn a_burst_keeps_the_newest() {
        let mut store = PacketStore::default();
        for sequence in 0..200 {
            store.insert(packet(sequence));
        }
        assert_eq!((store.len(), store.overflowed()), (64, 136));
        assert_eq!(store.first().map(|first| first.sequence), Some(136));
    }

    #[test]
    fn a_new_stream_replaces_the_old() {
        let mut store = PacketStore::default();
        store.insert(packet(10));
        assert_eq!(store.insert(packet(30_000)), Insertion::Restarted);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_repeated_packet_fills_its_gap_and_nothing_else() {
        let mut store = PacketStore::default();
        assert!(!store.restore(packet(9)), "there is no stream yet");
        store.insert(packet(10));
        assert!(!store.restore(packet(9)), "nobody waits for what was before the beginning");
        store.insert(packet(12));
        assert!(store.restore(packet(11)));
        assert!(!store.restore(packet(11)), "here already");
        assert!(!store.restore(packet(13)), "not earlier");
        assert_eq!(order(&mut store), [10, 11, 12]);
        assert!(!store.restore(packet(11)), "played already");
    }

    #[test]
    fn target_follows_jitter_within_its_limits() {
        let start = Instant::now();
        let run = |jitter_ms: &dyn Fn(u64) -> u64| {
            let mut target = DelayTarget::default();
            for n in 0..400_u64 {
                let at = start + Duration::from_millis(n * 20 + jitter_ms(n));
                target.arrived(at, (n as u32).wrapping_mul(960));
            }
            target.target().as_millis()
        };
        assert_eq!(run(&|_| 0), 20);
        assert_eq!(run(&|n| (n % 10) * 6), 54);
        assert_eq!(run(&|n| (n % 3) * 300), 200);
        assert_eq!(run(&|n| if n < 200 { (n % 10) * 10 } else { 0 }), 20, "the target falls again");
    }

    proptest! {
        #[test]
        fn any_input_stays_bounded(packets in prop::collection::vec((any::<u16>(), any::<u32>()), 0..500)) {
            let mut store = PacketStore::default();
            for (sequence, timestamp) in packets {
                store.insert(Packet { sequence, timestamp, payload: Vec::new() });
                prop_assert!(store.len() <= PACKETS_MAX);
                let _ = store.span();
            }
            let mut last = None;
            while let Some(stored) = store.pop_first() {
                prop_assert!(last.is_none_or(|last| stored.sequence > last));
                last = Some(stored.sequence);
            }
        }
    }
}
