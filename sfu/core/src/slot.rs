//! One slot of a room: the stream that every listener hears in one place, continuous over changes of who is in it. The
//! sequence is counted in 64 bits here and mapped to each listener's own 48-bit packet index, which never repeats.
//! Who gets a slot is decided in `assign`.

use std::time::{Duration, Instant};

use crate::{PeerId, ShardId, TrackId, TrackKind, clock::rtp_units, history::History, redundancy::Recent};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    /// Key in the node's table of peers; `None` for a peer of another shard.
    pub(crate) key: Option<usize>,
    pub(crate) shard: ShardId,
    pub(crate) peer: PeerId,
    pub(crate) track: TrackId,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) kind: TrackKind,
    pub(crate) index: u8,
    pub(crate) ssrc: u32,
    pub(crate) holder: Option<Holder>,
    /// One for each of the room's listeners, in their order.
    pub(crate) streams: Vec<Stream>,
    /// For listeners that lose packets, and for those that ask for them again.
    pub(crate) recent: Recent,
    pub(crate) history: History,
    keeps_history: bool,
    /// Since the slot carried its first packet, for sender reports.
    pub(crate) packets: u32,
    pub(crate) octets: u32,
    source: Source,
    /// Of the source: the replicas of the room on other shards start a new one with it.
    generation: u32,
    /// Highest sequence so far; 0 before the first packet.
    top: u64,
    last_timestamp: u32,
    /// How long that packet plays.
    last_duration: u32,
    last_at: Option<Instant>,
    /// How far the timestamp is ahead of the clock, because a source began before the last one had been played: made up
    /// for at the next chance, so that many changes do not add up.
    lead: u32,
}

/// A source that begins while the last packet is still played pushes the timestamp ahead of the clock, and listeners wait
/// that long for it. More than the longest packet, 120 ms, and the source begins a packet later.
const LEAD_MAX: u32 = 120 * 48;

/// How numbers of the present source become numbers of the slot. Wrapping: an offset may be negative.
#[derive(Debug)]
enum Source {
    /// The next packet starts a new one.
    New,
    Running {
        sequence_offset: u64,
        timestamp_offset: u32,
        /// Nothing older than the first packet of the source fits behind it.
        first: u64,
        first_timestamp: u32,
    },
}

/// A packet's place in the slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    /// First packet of a source: a talk spurt begins (RFC 3551 section 4.1).
    pub(crate) starts: bool,
    /// No packet with a higher sequence came before it.
    pub(crate) is_newest: bool,
    /// Time of the source in this slot: what its packet repeats from before was not for these listeners.
    pub(crate) since_start: u32,
}

impl Slot {
    pub(crate) fn new(kind: TrackKind, index: u8, ssrc: u32, first_timestamp: u32) -> Self {
        Self {
            kind,
            index,
            ssrc,
            holder: None,
            streams: Vec::new(),
            recent: Recent::default(),
            history: History::default(),
            keeps_history: false,
            packets: 0,
            octets: 0,
            source: Source::New,
            generation: 0,
            top: 0,
            last_timestamp: first_timestamp,
            last_duration: 0,
            last_at: None,
            lead: 0,
        }
    }

    pub(crate) fn change_holder(&mut self, holder: Option<Holder>) {
        self.holder = holder;
        if self.keeps_history && holder.is_some() {
            self.history.enable();
        }
        self.restart_source();
    }

    /// From now on the last second is kept; its memory is taken when somebody is in the slot.
    pub(crate) fn keep_history(&mut self) {
        self.keeps_history = true;
        if self.holder.is_some() {
            self.history.enable();
        }
    }

    /// The next packet belongs to another source, or to the same one after a break in which nothing was forwarded:
    /// listeners see an unbroken sequence and a timestamp that has moved on by the clock.
    pub(crate) fn restart_source(&mut self) {
        self.source = Source::New;
        self.generation = self.generation.wrapping_add(1);
    }

    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// The source is numbered on another shard: it restarts here when it did there.
    pub(crate) fn follow(&mut self, generation: u32) {
        if self.generation != generation {
            self.source = Source::New;
            self.generation = generation;
        }
    }

    /// For a packet that plays for `duration`. `None`: older than the source's first packet here, or its first and too
    /// early after those before.
    pub(crate) fn stamp(&mut self, now: Instant, index: u64, timestamp: u32, duration: u32) -> Option<Stamp> {
        let starts = matches!(self.source, Source::New);
        if starts {
            let first = self.top + 1;
            let begins = self.next_timestamp(now);
            let lead = begins.wrapping_sub(self.timestamp_at(now)).wrapping_add(self.lead);
            if lead > LEAD_MAX {
                return None;
            }
            self.lead = lead;
            self.recent.clear();
            self.source = Source::Running {
                sequence_offset: first.wrapping_sub(index),
                timestamp_offset: begins.wrapping_sub(timestamp),
                first,
                first_timestamp: begins,
            };
        }
        let Source::Running { sequence_offset, timestamp_offset, first, first_timestamp } = self.source else {
            return None;
        };
        let sequence = index.wrapping_add(sequence_offset);
        // Signed distance: an index below the first one wraps.
        if (sequence.wrapping_sub(first) as i64) < 0 {
            return None;
        }
        let timestamp = timestamp.wrapping_add(timestamp_offset);
        if sequence > self.top {
            self.top = sequence;
            self.last_timestamp = timestamp;
            self.last_duration = duration;
            self.last_at = Some(now);
        }
        Some(Stamp {
            sequence,
            timestamp,
            starts,
            is_newest: sequence == self.top,
            since_start: timestamp.wrapping_sub(first_timestamp),
        })
    }

    /// Where another source goes on: by the clock, but not before the last packet has been played.
    pub(crate) fn next_timestamp(&self, now: Instant) -> u32 {
        let elapsed = self.timestamp_at(now).wrapping_sub(self.last_timestamp);
        self.last_timestamp.wrapping_add(elapsed.saturating_sub(self.lead).max(self.last_duration))
    }

    /// What the stream's timestamp would be now.
    pub(crate) fn timestamp_at(&self, now: Instant) -> u32 {
        let elapsed = self.last_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.last_timestamp.wrapping_add(rtp_units(elapsed))
    }
}

/// One slot as one listener gets it. Its packets come from one *lane* at a time: from the slot itself, or from the spare
/// slot while the listener's own voice is in this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    /// From the lane's sequence to this listener's packet index, wrapping.
    offset: u64,
    /// Lowest sequence of the lane that the present offset may be used for.
    floor: u64,
    /// Highest sequence of the lane sent to this listener.
    top: u64,
    /// From the lane's timestamp to this listener's, wrapping.
    pub(crate) shift: u32,
    /// Where the last packet ends, in the listener's timestamps.
    end: u32,
    /// Lowest sequence of the lane since which neither offset nor shift have changed.
    steady_from: u64,
    started: bool,
    /// The present lane, as index into the room's slots.
    pub(crate) lane: u8,
}

/// A listener must guess the roll-over counter from what it gets: a stretch that was not sent to it (its own voice was
/// in the slot) is closed up before it could reach half of 2^15.
const GAP_MAX: u64 = 1 << 14;

/// No lane: nothing comes at present.
const AWAY: u8 = u8::MAX;

/// On the circle of timestamps.
fn is_later(timestamp: u32, than: u32) -> bool {
    (timestamp.wrapping_sub(than) as i32) > 0
}

impl Stream {
    /// Of a slot that has sent nothing yet.
    pub(crate) fn new(lane: u8) -> Self {
        Self { offset: 0, floor: 0, top: 0, shift: 0, end: 0, steady_from: 0, started: false, lane }
    }

    pub(crate) fn has_sent(&self) -> bool {
        self.started
    }

    /// The listener's packet index (`ROC << 16 | SEQ`) for a sequence of the lane; each index is given out once, as long
    /// as each sequence is asked for once. `first` is where the listener starts counting, below 2^15.
    #[inline]
    pub(crate) fn index(&mut self, sequence: u64, first: u16) -> Option<u64> {
        if !self.started {
            self.started = true;
            self.offset = u64::from(first).wrapping_sub(sequence);
            self.floor = sequence.saturating_sub(u64::from(first));
            self.steady_from = self.floor;
            self.top = sequence;
        } else if sequence > self.top {
            if sequence - self.top > GAP_MAX {
                self.go_on_with(sequence);
            }
            self.top = sequence;
        } else if sequence < self.floor {
            return None;
        }
        Some(sequence.wrapping_add(self.offset))
    }

    /// The next packet, `timestamp` in its lane, comes from another lane: it gets the index behind the last one and the
    /// slot's time of now, `home`, or a little more where the last packet has not been played by then.
    pub(crate) fn change_lane(&mut self, lane: u8, sequence: u64, timestamp: u32, home: u32) {
        self.lane = lane;
        let next = if self.started && is_later(self.end, home) { self.end } else { home };
        self.shift = next.wrapping_sub(timestamp);
        self.steady_from = sequence;
        if self.started {
            self.go_on_with(sequence);
            self.top = sequence;
        }
    }

    /// The listener's own voice is in the slot: whatever comes next joins on.
    pub(crate) fn leave_lane(&mut self, lane: u8) {
        if self.lane == lane {
            self.lane = AWAY;
        }
    }

    /// Back in its own lane and ahead of it: the first pause makes up for that.
    #[inline]
    pub(crate) fn come_home(&mut self, sequence: u64, timestamp: u32) {
        if self.shift != 0 && sequence > self.top && !is_later(self.end, timestamp) {
            self.shift = 0;
            self.steady_from = sequence;
        }
    }

    /// The sequence of the lane and the packet index behind a sequence number that the listener asks for again; `None`
    /// when it was not sent to it, or not with the present offset and shift.
    pub(crate) fn sent_as(&self, number: u16) -> Option<(u64, u64)> {
        let top = self.top.wrapping_add(self.offset);
        let behind = u64::from((top as u16).wrapping_sub(number));
        let sequence = self.top.checked_sub(behind).filter(|sequence| *sequence >= self.steady_from)?;
        self.started.then(|| (sequence, sequence.wrapping_add(self.offset)))
    }

    /// A packet with this sequence and timestamp of the lane has been sent.
    #[inline]
    pub(crate) fn sent(&mut self, sequence: u64, timestamp: u32, duration: u32) {
        if sequence == self.top {
            self.end = timestamp.wrapping_add(self.shift).wrapping_add(duration);
        }
    }

    fn go_on_with(&mut self, sequence: u64) {
        let next = self.top.wrapping_add(self.offset) + 1;
        self.offset = next.wrapping_sub(sequence);
        self.floor = sequence;
        self.steady_from = sequence;
    }
}

/// Lowest first sequence number of a listener: room for packets that were overtaken by the first one.
pub(crate) const FIRST_SEQUENCE_MIN: u16 = 1 << 10;
/// Below this every receiver agrees that the roll-over counter is 0 (RFC 3711 section 3.3.1).
pub(crate) const FIRST_SEQUENCE_END: u16 = 1 << 15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn slot() -> Slot {
        Slot::new(TrackKind::Mic, 0, 1, 5_000)
    }

    #[test]
    fn gaps_and_reordering_of_a_source_are_kept() {
        let mut slot = slot();
        let now = start();
        let stamps = [100, 101, 104, 103].map(|index| slot.stamp(now, index, 960 * index as u32, 960).unwrap());
        assert_eq!(stamps.map(|stamp| stamp.sequence), [1, 2, 5, 4]);
        assert_eq!(stamps.map(|stamp| stamp.timestamp.wrapping_sub(5_000)), [0, 960, 3_840, 2_880]);
        assert_eq!(stamps.map(|stamp| stamp.starts), [true, false, false, false]);
        assert_eq!(slot.stamp(now, 99, 0, 960), None, "older than the first of its source");
    }

    #[test]
    fn another_source_goes_on_where_the_first_one_ended() {
        let mut slot = slot();
        let now = start();
        let last = slot.stamp(now, 70_000, 1, 960).unwrap();
        slot.restart_source();
        let next = slot.stamp(now + Duration::from_millis(100), 9, 77, 960).unwrap();
        assert_eq!(next.sequence, last.sequence + 1);
        assert_eq!(next.timestamp, last.timestamp + 4_800);
        assert!(next.starts);
        assert_eq!(slot.stamp(now, 8, 0, 960), None);
        slot.restart_source();
        let at_once = slot.stamp(now + Duration::from_millis(101), 500, 7, 960).unwrap();
        assert_eq!(at_once.timestamp, next.timestamp + 960, "not before the last packet has been played");
    }

    #[test]
    fn listener_starts_low_whenever_it_joins() {
        let mut stream = Stream::new(0);
        assert_eq!(stream.index(10_000_000, 2_000), Some(2_000));
        assert_eq!(stream.index(10_000_002, 2_000), Some(2_002));
        assert_eq!(stream.index(9_999_999, 2_000), Some(1_999), "overtaken by the first");
        assert_eq!(stream.index(9_990_000, 2_000), None);
    }

    #[test]
    fn long_gap_is_closed_up_and_what_lies_in_it_is_lost() {
        let mut stream = Stream::new(0);
        stream.index(1, 2_000);
        assert_eq!(stream.index(1 + GAP_MAX, 2_000), Some(2_000 + GAP_MAX), "not yet long");
        let far = 100_000;
        assert_eq!(stream.index(far, 2_000), Some(2_001 + GAP_MAX));
        assert_eq!(stream.index(far - 1, 2_000), None, "would repeat an index");
        assert_eq!(stream.index(far + 1, 2_000), Some(2_002 + GAP_MAX));
    }

    /// At home with its own time, then ahead of it by one packet after a turn in another lane.
    fn came_back() -> Stream {
        let mut stream = Stream::new(0);
        stream.index(10, 2_000);
        stream.sent(10, 9_600, 960);
        stream.change_lane(9, 50, 100, 9_600);
        assert_eq!((stream.index(50, 2_000), stream.shift), (Some(2_001), 10_460));
        stream.sent(50, 100, 960);
        stream.change_lane(0, 12, 10_560, 10_560);
        assert_eq!((stream.index(12, 2_000), stream.shift), (Some(2_002), 960));
        stream.sent(12, 10_560, 960);
        stream
    }

    #[test]
    fn what_was_sent_with_another_offset_or_shift_is_not_sent_again() {
        let mut stream = came_back();
        assert_eq!(stream.sent_as(2_002), Some((12, 2_002)));
        assert_eq!(stream.sent_as(2_001), None, "it came from another lane");
        stream.come_home(13, 20_000);
        assert_eq!((stream.shift, stream.index(13, 2_000)), (0, Some(2_003)));
        assert_eq!(stream.sent_as(2_002), None, "its timestamp was moved");
        assert_eq!(stream.sent_as(2_003), Some((13, 2_003)));
    }

    #[test]
    fn a_straggler_moves_no_timestamps() {
        let mut stream = came_back();
        stream.come_home(12, 50_000);
        assert_eq!((stream.shift, stream.sent_as(2_002)), (960, Some((12, 2_002))));
    }

    #[test]
    fn a_turn_of_the_own_voice_leaves_no_gap() {
        let mut stream = Stream::new(0);
        stream.index(10, 2_000);
        stream.leave_lane(9);
        assert_eq!(stream.lane, 0, "the voice is in another slot");
        stream.leave_lane(0);
        assert_ne!(stream.lane, 0);
        stream.change_lane(0, 500, 1, 1);
        assert_eq!(stream.index(500, 2_000), Some(2_001));
    }

    proptest! {
        #[test]
        fn no_index_is_ever_given_out_twice_and_no_step_confuses_the_roll_over_counter(
            first in FIRST_SEQUENCE_MIN..FIRST_SEQUENCE_END,
            steps in proptest::collection::vec((0u64..40_000, 0u64..200), 1..200),
        ) {
            let (mut stream, mut asked, mut given) = (Stream::new(0), HashSet::new(), HashSet::new());
            let (mut at, mut highest) = (1, u64::from(first));
            for (forward, back) in steps {
                at += forward;
                let sequence = at.saturating_sub(back).max(1);
                if !asked.insert(sequence) {
                    continue;
                }
                if let Some(index) = stream.index(sequence, first) {
                    prop_assert!(given.insert(index));
                    prop_assert!(index < highest + (1 << 15));
                    highest = highest.max(index);
                }
            }
        }
    }
}
