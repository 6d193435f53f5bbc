//! What the replicas of a room say to each other across shards: sound of the tracks that hold a slot, the tracks of a
//! shard that want one, and who holds which. Items are bytes, written into an arena of their own and read back without
//! trust, so that a link between nodes can carry the same. What a replica does with them is in `replica`.
//!
//! ```text
//! every item:  | kind | count or flags | place | level |            room (8)            |
//! packet:      | track (4) | generation (4) | index (8) | timestamp (4) | voice (2) | Opus begins at (2) | payload ...
//! offers:      | version that was applied (8) | entries: kind, muted, voice (2), track (4), peer (8) ...
//! assignment:  | version (8)                  | entries: place, shard, 0 (2),    track (4), peer (8) ...
//! ```
//!
//! Numbers are little-endian. A packet may be lost. The other two carry the whole state of their sender, are sent again
//! when the receiver shows that it has missed one, and change nothing when they come twice.

use crate::{PeerId, RoomId, ShardId, ShardSet, TrackId, TrackKind, stamp::PAYLOAD_MAX};

/// The longest item: a packet with the largest payload. The lists are shorter, see `ENTRIES_MAX`.
pub const BUS_ITEM_MAX: usize = PACKET_HEAD + PAYLOAD_MAX;

/// Something for other shards, in the order in which each of them must get it.
#[derive(Clone, Copy, Debug)]
pub struct BusTransmit<'a> {
    pub to: ShardSet,
    pub bytes: &'a [u8],
    /// May be dropped when a queue is nearly full; what is not sound needs the rest of it.
    pub is_media: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) place: usize,
    pub(crate) track: TrackId,
    /// Changes when index and timestamp of the track start anew.
    pub(crate) generation: u32,
    pub(crate) index: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) level: Option<u8>,
    /// As in [`Offer::voice`].
    pub(crate) voice: u16,
    pub(crate) opus: &'a [u8],
    /// Ends with the Opus payload.
    pub(crate) red: Option<&'a [u8]>,
}

/// A track that is live on the sender's shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    pub(crate) kind: TrackKind,
    pub(crate) peer: PeerId,
    pub(crate) track: TrackId,
    /// Not live, but its place should be kept for it.
    pub(crate) muted: bool,
    /// Its [`Voice`](crate::level::Voice) in two bytes.
    pub(crate) voice: u16,
}

/// A taken slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Assigned {
    pub(crate) place: usize,
    pub(crate) shard: ShardId,
    pub(crate) peer: PeerId,
    pub(crate) track: TrackId,
}

pub(crate) enum Item<'a> {
    Packet(Packet<'a>),
    Offers { applied: u64, entries: Entries<'a> },
    Assignment { version: u64, entries: Entries<'a> },
}

/// Entries of a list, checked for their number only.
#[derive(Clone, Copy)]
pub(crate) struct Entries<'a>(&'a [[u8; ENTRY]]);

/// A list names each holder of a slot, or the best voices of a shard, one more than slots, and its programs: more than
/// that with the most slots that a node may be told to have.
pub(crate) const ENTRIES_MAX: usize = 84;

const HEAD: usize = 12;
const PACKET_HEAD: usize = HEAD + 24;
const LIST_HEAD: usize = HEAD + 8;
const ENTRY: usize = 16;

const PACKET: u8 = 1;
const OFFERS: u8 = 2;
const ASSIGNMENT: u8 = 3;

const HAS_MARKER: u8 = 1;
const HAS_LEVEL: u8 = 2;
const HAS_RED: u8 = 4;

const _: () = assert!(LIST_HEAD + ENTRIES_MAX * ENTRY <= BUS_ITEM_MAX);

/// `None` for bytes that are no item.
pub(crate) fn parse(bytes: &[u8]) -> Option<(RoomId, Item<'_>)> {
    let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
    let [kind, count, place, level, room @ ..] = *head;
    let room = RoomId(u64::from_le_bytes(room));
    let item = match kind {
        PACKET => Item::Packet(parse_packet(count, (place, level), rest)?),
        OFFERS | ASSIGNMENT => {
            let (version, entries) = rest.split_first_chunk()?;
            let version = u64::from_le_bytes(*version);
            let (entries, left) = entries.as_chunks::<ENTRY>();
            if !left.is_empty() || entries.len() != usize::from(count) {
                return None;
            }
            let entries = Entries(entries);
            match kind {
                OFFERS => Item::Offers { applied: version, entries },
                _ => Item::Assignment { version, entries },
            }
        }
        _ => return None,
    };
    Some((room, item))
}

fn parse_packet(flags: u8, (place, level): (u8, u8), rest: &[u8]) -> Option<Packet<'_>> {
    let (track, rest) = rest.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let (index, rest) = rest.split_first_chunk()?;
    let (timestamp, rest) = rest.split_first_chunk()?;
    let (voice, rest) = rest.split_first_chunk()?;
    let (opus_at, payload) = rest.split_first_chunk()?;
    let opus = payload.get(usize::from(u16::from_le_bytes(*opus_at))..)?;
    if opus.is_empty() || payload.len() > PAYLOAD_MAX {
        return None;
    }
    Some(Packet {
        place: usize::from(place),
        track: TrackId(u32::from_le_bytes(*track)),
        generation: u32::from_le_bytes(*generation),
        index: u64::from_le_bytes(*index),
        timestamp: u32::from_le_bytes(*timestamp),
        marker: flags & HAS_MARKER != 0,
        level: (flags & HAS_LEVEL != 0).then_some(level),
        voice: u16::from_le_bytes(*voice),
        opus,
        red: (flags & HAS_RED != 0).then_some(payload),
    })
}

impl Entries<'_> {
    pub(crate) fn offers(&self) -> impl Iterator<Item = Offer> + '_ {
        self.0.iter().map(|entry| {
            let [kind, muted, voice_low, voice_high, ..] = *entry;
            let (track, peer) = who(entry);
            let kind = if kind == 0 { TrackKind::Mic } else { TrackKind::Program };
            Offer { kind, peer, track, muted: muted != 0, voice: u16::from_le_bytes([voice_low, voice_high]) }
        })
    }

    pub(crate) fn assigned(&self) -> impl Iterator<Item = Assigned> + '_ {
        self.0.iter().filter_map(|entry| {
            let [place, shard, ..] = *entry;
            let (track, peer) = who(entry);
            Some(Assigned { place: usize::from(place), shard: ShardId::new(usize::from(shard))?, peer, track })
        })
    }
}

fn who(entry: &[u8; ENTRY]) -> (TrackId, PeerId) {
    let [_, _, _, _, a, b, c, d, peer @ ..] = *entry;
    (TrackId(u32::from_le_bytes([a, b, c, d])), PeerId(u64::from_le_bytes(peer)))
}

/// Items that wait for the shell, back to back in one preallocated buffer. The shell takes them after each batch of
/// datagrams, so the bound is what one batch may leave behind.
pub(crate) struct BusOut {
    bytes: Box<[u8]>,
    used: usize,
    entries: Vec<Entry>,
}

struct Entry {
    to: ShardSet,
    start: usize,
    len: usize,
    is_media: bool,
}

/// A batch of 64 datagrams is 64 items and some lists.
const ITEMS_MAX: usize = 256;
const BYTES_MAX: usize = 128 * 1_024;

impl BusOut {
    /// Takes its memory when the first room is spread.
    pub(crate) fn new() -> Self {
        Self { bytes: Box::default(), used: 0, entries: Vec::new() }
    }

    pub(crate) fn prepare(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = vec![0; BYTES_MAX].into_boxed_slice();
            self.entries.reserve_exact(ITEMS_MAX);
        }
    }

    pub(crate) fn packet(&mut self, to: ShardSet, room: RoomId, packet: &Packet<'_>) -> bool {
        let payload = packet.red.unwrap_or(packet.opus);
        let Some(opus_at) = payload.len().checked_sub(packet.opus.len()) else { return false };
        let (Ok(place), Ok(opus_at)) = (u8::try_from(packet.place), u16::try_from(opus_at)) else { return false };
        let flag = |is_set, bit| if is_set { bit } else { 0 };
        let flags = flag(packet.marker, HAS_MARKER)
            | flag(packet.level.is_some(), HAS_LEVEL)
            | flag(packet.red.is_some(), HAS_RED);
        self.write((to, true), PACKET_HEAD + payload.len(), |out| {
            out.put(&[PACKET, flags, place, packet.level.unwrap_or(0)]);
            out.put(&room.0.to_le_bytes());
            out.put(&packet.track.0.to_le_bytes());
            out.put(&packet.generation.to_le_bytes());
            out.put(&packet.index.to_le_bytes());
            out.put(&packet.timestamp.to_le_bytes());
            out.put(&packet.voice.to_le_bytes());
            out.put(&opus_at.to_le_bytes());
            out.put(payload);
        })
    }

    pub(crate) fn offers(&mut self, to: ShardId, room: RoomId, applied: u64, entries: &[Offer]) -> bool {
        let entries = &entries[..entries.len().min(ENTRIES_MAX)];
        self.list((ShardSet::NONE.with(to), OFFERS), room, (applied, entries.len()), |out| {
            for Offer { kind, peer, track, muted, voice } in entries {
                out.put(&[*kind as u8, u8::from(*muted)]);
                out.put(&voice.to_le_bytes());
                out.put(&track.0.to_le_bytes());
                out.put(&peer.0.to_le_bytes());
            }
        })
    }

    pub(crate) fn assignment(
        &mut self,
        to: ShardSet,
        room: RoomId,
        version: u64,
        entries: impl Iterator<Item = Assigned> + Clone,
    ) -> bool {
        let entries = entries.take(ENTRIES_MAX);
        self.list((to, ASSIGNMENT), room, (version, entries.clone().count()), |out| {
            for Assigned { place, shard, peer, track } in entries {
                out.put(&[place as u8, shard.index() as u8, 0, 0]);
                out.put(&track.0.to_le_bytes());
                out.put(&peer.0.to_le_bytes());
            }
        })
    }

    fn list(
        &mut self,
        (to, kind): (ShardSet, u8),
        room: RoomId,
        (version, count): (u64, usize),
        write: impl FnOnce(&mut Cursor<'_>),
    ) -> bool {
        self.write((to, false), LIST_HEAD + count * ENTRY, |out| {
            out.put(&[kind, count as u8, 0, 0]);
            out.put(&room.0.to_le_bytes());
            out.put(&version.to_le_bytes());
            write(out);
        })
    }

    /// `false` when it does not fit.
    fn write(&mut self, (to, is_media): (ShardSet, bool), len: usize, write: impl FnOnce(&mut Cursor<'_>)) -> bool {
        let start = self.used;
        if self.entries.len() >= ITEMS_MAX {
            return false;
        }
        let Some(place) = self.bytes.get_mut(start..start + len) else { return false };
        let mut cursor = Cursor { left: place };
        write(&mut cursor);
        debug_assert!(cursor.left.is_empty());
        self.used += len;
        self.entries.push(Entry { to, start, len, is_media });
        true
    }

    pub(crate) fn transmits(&self) -> impl Iterator<Item = BusTransmit<'_>> {
        self.entries.iter().map(|Entry { to, start, len, is_media }| BusTransmit {
            to: *to,
            bytes: &self.bytes[*start..start + len],
            is_media: *is_media,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.used = 0;
    }
}

struct Cursor<'a> {
    left: &'a mut [u8],
}

impl Cursor<'_> {
    /// The length of each item is known before it is written.
    fn put(&mut self, bytes: &[u8]) {
        if let Some((place, left)) = std::mem::take(&mut self.left).split_at_mut_checked(bytes.len()) {
            place.copy_from_slice(bytes);
            self.left = left;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: RoomId = RoomId(77);

    fn out() -> BusOut {
        let mut out = BusOut::new();
        out.prepare();
        out
    }

    fn shard(index: usize) -> ShardId {
        ShardId::new(index).unwrap()
    }

    fn only(out: &BusOut) -> BusTransmit<'_> {
        let mut transmits = out.transmits();
        let first = transmits.next().unwrap();
        assert!(transmits.next().is_none());
        first
    }

    const PACKET: Packet<'static> = Packet {
        place: 3,
        track: TrackId(4),
        generation: 5,
        index: 1 << 40,
        timestamp: 7,
        marker: true,
        level: Some(0),
        voice: 9_000,
        opus: &[1, 2],
        red: Some(&[9, 9, 1, 2]),
    };

    #[test]
    fn packets_are_read_as_they_were_written() {
        for packet in [PACKET, Packet { red: None, level: None, marker: false, ..PACKET }] {
            let mut out = out();
            assert!(out.packet(ShardSet::NONE.with(shard(1)), ROOM, &packet));
            let transmit = only(&out);
            assert!(transmit.is_media && transmit.to.contains(shard(1)));
            let Some((ROOM, Item::Packet(read))) = parse(transmit.bytes) else { panic!("no packet") };
            assert_eq!(read, packet);
        }
    }

    #[test]
    fn lists_are_read_as_they_were_written() {
        let offer = |n: u32| Offer {
            kind: if n.is_multiple_of(2) { TrackKind::Mic } else { TrackKind::Program },
            peer: PeerId(u64::from(n) << 33),
            track: TrackId(n),
            muted: n.is_multiple_of(3),
            voice: n as u16 * 300,
        };
        let offers: Vec<_> = (0..100).map(offer).collect();
        let mut written = out();
        assert!(written.offers(shard(63), ROOM, 9, &offers));
        let transmit = only(&written);
        assert!(!transmit.is_media && transmit.bytes.len() <= BUS_ITEM_MAX);
        let Some((ROOM, Item::Offers { applied: 9, entries })) = parse(transmit.bytes) else { panic!("no list") };
        assert_eq!(entries.offers().collect::<Vec<_>>(), offers[..ENTRIES_MAX]);

        let assigned = [1, 2].map(|n| Assigned { place: n, shard: shard(n), peer: PeerId(8), track: TrackId(9) });
        let mut written = out();
        assert!(written.assignment(ShardSet::NONE, ROOM, 10, assigned.iter().copied()));
        let Some((ROOM, Item::Assignment { version: 10, entries })) = parse(only(&written).bytes) else {
            panic!("no list")
        };
        assert_eq!(entries.assigned().collect::<Vec<_>>(), assigned);
    }

    #[test]
    fn a_full_arena_refuses_and_recovers() {
        let mut out = out();
        let fitting = (0..).take_while(|_| out.packet(ShardSet::NONE, ROOM, &PACKET)).count();
        assert_eq!(fitting, ITEMS_MAX);
        out.clear();
        assert!(out.len() == 0 && out.packet(ShardSet::NONE, ROOM, &PACKET));
        assert!(!BusOut::new().packet(ShardSet::NONE, ROOM, &PACKET), "no memory before it is needed");
    }

    #[test]
    fn a_set_of_shards_holds_the_first_and_the_last() {
        let set: ShardSet = [0, 63, 5].into_iter().map(shard).collect();
        assert_eq!(set.iter().map(ShardId::index).collect::<Vec<_>>(), [0, 5, 63]);
        assert!(set.without(shard(5)) != set && !set.without(shard(5)).contains(shard(5)));
        assert_eq!(ShardId::new(64), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0u8..5) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            match parse(&bytes) {
                Some((_, Item::Packet(packet))) => prop_assert!(!packet.opus.is_empty()),
                Some((_, Item::Offers { entries, .. } | Item::Assignment { entries, .. })) => {
                    prop_assert_eq!(entries.offers().count(), usize::from(bytes[1]));
                    prop_assert!(entries.assigned().count() <= usize::from(bytes[1]));
                }
                None => {}
            }
        }
    }
}
