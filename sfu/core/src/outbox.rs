//! The output arena: datagrams of one turn, back to back in one preallocated buffer, so that sealing happens in place
//! and the shell can hand the bytes to the kernel without a copy. Bounded: what does not fit is refused to the caller,
//! who counts it. What one listener gets in a turn comes out together, in an order in which it can be sent as one.

use crate::{Path, Transmit};

pub(crate) struct Outbox {
    bytes: Box<[u8]>,
    used: usize,
    entries: Vec<Entry>,
    entries_max: usize,
    /// Changes when the arena is cleared, so that a [`Mark`] of before says nothing.
    turn: u64,
}

struct Entry {
    to: Path,
    start: usize,
    len: u32,
    /// The next one of the same listener.
    next: u32,
    is_first: bool,
}

/// Where a listener's last datagram of this turn lies.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Mark {
    turn: u64,
    entry: u32,
}

/// No next one.
const NONE: u32 = u32::MAX;

impl Outbox {
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            bytes: vec![0; bytes_max].into_boxed_slice(),
            used: 0,
            entries: Vec::with_capacity(entries_max),
            entries_max: entries_max.min(NONE as usize),
            turn: 1,
        }
    }

    /// Room for a datagram of `len` bytes: written by the caller, then kept by [`Outbox::commit`] or forgotten.
    #[inline]
    pub(crate) fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.entries.len() >= self.entries_max {
            return None;
        }
        self.bytes.get_mut(self.used..)?.get_mut(..len)
    }

    /// Keeps the first `len` bytes of what was reserved last.
    #[inline]
    pub(crate) fn commit(&mut self, to: Path, len: usize) {
        self.keep(to, len, true);
    }

    /// The same for a listener's packet, behind its others of this turn.
    #[inline]
    pub(crate) fn commit_behind(&mut self, mark: &mut Mark, to: Path, len: usize) {
        let entry = self.entries.len() as u32;
        let is_first = mark.turn != self.turn;
        if !is_first && let Some(before) = self.entries.get_mut(mark.entry as usize) {
            before.next = entry;
        }
        self.keep(to, len, is_first);
        *mark = Mark { turn: self.turn, entry };
    }

    #[inline]
    fn keep(&mut self, to: Path, len: usize, is_first: bool) {
        debug_assert!(self.used + len <= self.bytes.len());
        self.entries.push(Entry { to, start: self.used, len: len as u32, next: NONE, is_first });
        self.used += len;
    }

    /// `false` when it does not fit.
    pub(crate) fn push(&mut self, to: Path, datagram: &[u8]) -> bool {
        let Some(place) = self.reserve(datagram.len()) else { return false };
        place.copy_from_slice(datagram);
        self.commit(to, datagram.len());
        true
    }

    /// Each listener's datagrams one behind the other. Of two different streams the longer datagram goes first, since
    /// only the last one of a piece may be shorter than the others; the order inside a stream is kept.
    pub(crate) fn transmits(&self) -> impl Iterator<Item = Transmit<'_>> {
        let firsts = self.entries.iter().filter(|entry| entry.is_first);
        firsts.flat_map(|first| Chain { outbox: self, next: Some(first), later: None, size: 0 })
    }

    fn bytes_of(&self, entry: &Entry) -> &[u8] {
        &self.bytes[entry.start..entry.start + entry.len as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.used = 0;
        self.turn += 1;
    }
}

/// The datagrams of one listener.
struct Chain<'a> {
    outbox: &'a Outbox,
    next: Option<&'a Entry>,
    /// Overtaken by a longer one.
    later: Option<&'a Entry>,
    /// Of the piece that is being made; 0 when the next one starts a new piece.
    size: u32,
}

impl<'a> Iterator for Chain<'a> {
    type Item = Transmit<'a>;

    #[inline]
    fn next(&mut self) -> Option<Transmit<'a>> {
        if let Some(later) = self.later.take() {
            return Some(self.transmit(later));
        }
        let mut entry = self.take()?;
        if self.size != 0 && entry.len <= self.size {
            if entry.len < self.size {
                self.size = 0;
            }
            return Some(self.transmit(entry));
        }
        self.size = entry.len;
        if let Some(follower) = self.next
            && follower.len > entry.len
            && stream_of(self.outbox.bytes_of(follower)) != stream_of(self.outbox.bytes_of(entry))
        {
            self.next = self.outbox.entries.get(follower.next as usize);
            self.later = Some(std::mem::replace(&mut entry, follower));
            self.size = 0;
        }
        Some(self.transmit(entry))
    }
}

impl<'a> Chain<'a> {
    fn take(&mut self) -> Option<&'a Entry> {
        let entry = self.next?;
        self.next = self.outbox.entries.get(entry.next as usize);
        Some(entry)
    }

    fn transmit(&self, entry: &Entry) -> Transmit<'a> {
        Transmit { to: entry.to, payload: self.outbox.bytes_of(entry) }
    }
}

/// The SSRC of an RTP packet.
fn stream_of(datagram: &[u8]) -> Option<&[u8]> {
    datagram.get(8..12)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to() -> Path {
        Path::udp(([192, 0, 2, 1], 1000).into())
    }

    #[test]
    fn refuses_what_does_not_fit_and_recovers_when_cleared() {
        let mut outbox = Outbox::new(3, 10);
        assert!(outbox.push(to(), &[1; 6]));
        assert!(!outbox.push(to(), &[2; 5]));
        assert!(outbox.push(to(), &[3; 2]));
        assert!(outbox.push(to(), &[4; 2]));
        assert!(!outbox.push(to(), &[]), "entries are bounded too");
        let sent: Vec<_> = outbox.transmits().map(|transmit| transmit.payload.to_vec()).collect();
        assert_eq!(sent, [vec![1; 6], vec![3; 2], vec![4; 2]]);
        outbox.clear();
        assert_eq!(outbox.len(), 0);
        assert!(outbox.push(to(), &[5; 10]));
    }

    fn listened(outbox: &mut Outbox, mark: &mut Mark, port: u16, stream: u8, sequence: u8, len: usize) {
        let place = outbox.reserve(len).unwrap();
        place.fill(sequence);
        place[8..12].fill(stream);
        outbox.commit_behind(mark, Path::udp(([192, 0, 2, 1], port).into()), len);
    }

    #[test]
    fn packets_of_a_listener_leave_together_longer_first_and_each_stream_in_order() {
        let mut outbox = Outbox::new(20, 1_000);
        let (mut a, mut b) = (Mark::default(), Mark::default());
        for (sequence, (stream, len)) in
            [(1, 20), (2, 30), (2, 30), (2, 40), (1, 35), (1, 20)].into_iter().enumerate()
        {
            listened(&mut outbox, &mut a, 1, stream, sequence as u8, len);
            listened(&mut outbox, &mut b, 2, stream, sequence as u8, 25);
        }
        let sent = |outbox: &Outbox, port| {
            let of_port = outbox.transmits().filter(|transmit| transmit.to.remote.port() == port);
            of_port.map(|transmit| (transmit.payload[0], transmit.payload.len())).collect::<Vec<_>>()
        };
        assert_eq!(sent(&outbox, 1), [(1, 30), (0, 20), (2, 30), (3, 40), (4, 35), (5, 20)]);
        assert_eq!(sent(&outbox, 2), (0..6).map(|sequence| (sequence, 25)).collect::<Vec<_>>());
        let ports: Vec<_> = outbox.transmits().map(|transmit| transmit.to.remote.port()).collect();
        assert_eq!(ports, [[1; 6], [2; 6]].concat());
        outbox.clear();
        listened(&mut outbox, &mut b, 2, 1, 9, 12);
        assert_eq!(sent(&outbox, 2), [(9, 12)]);
    }

    proptest::proptest! {
        #[test]
        fn every_packet_leaves_once_and_in_the_order_of_its_stream(
            packets in proptest::collection::vec((0..3usize, 0..3u8, 12..60usize), 0..60)
        ) {
            let mut outbox = Outbox::new(100, 10_000);
            let mut marks = [Mark::default(); 3];
            for (sequence, (listener, stream, len)) in packets.iter().enumerate() {
                listened(&mut outbox, &mut marks[*listener], *listener as u16, *stream, sequence as u8, *len);
            }
            let mut sent: Vec<_> = outbox
                .transmits()
                .map(|transmit| (transmit.to.remote.port(), transmit.payload[8], transmit.payload[0]))
                .collect();
            for listener in 0..3 {
                for stream in 0..3 {
                    let of_stream = sent.iter().filter(|packet| (packet.0, packet.1) == (listener, stream));
                    proptest::prop_assert!(of_stream.map(|packet| packet.2).is_sorted());
                }
            }
            sent.sort_by_key(|packet| packet.2);
            proptest::prop_assert_eq!(sent.len(), packets.len());
            proptest::prop_assert!(sent.iter().enumerate().all(|(at, packet)| usize::from(packet.2) == at));
        }
    }
}
