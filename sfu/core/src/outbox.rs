//! The output arena: datagrams of one turn, back to back in one preallocated buffer, so that sealing happens in place
//! and the shell can hand the bytes to the kernel without a copy. Bounded: what does not fit is refused to the caller,
//! who counts it.

use crate::{Path, Transmit};

pub(crate) struct Outbox {
    bytes: Box<[u8]>,
    used: usize,
    entries: Vec<Entry>,
    entries_max: usize,
}

struct Entry {
    to: Path,
    start: usize,
    len: usize,
}

impl Outbox {
    pub(crate) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            bytes: vec![0; bytes_max].into_boxed_slice(),
            used: 0,
            entries: Vec::with_capacity(entries_max),
            entries_max,
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
        debug_assert!(self.used + len <= self.bytes.len());
        self.entries.push(Entry { to, start: self.used, len });
        self.used += len;
    }

    /// `false` when it does not fit.
    pub(crate) fn push(&mut self, to: Path, datagram: &[u8]) -> bool {
        let Some(place) = self.reserve(datagram.len()) else { return false };
        place.copy_from_slice(datagram);
        self.commit(to, datagram.len());
        true
    }

    pub(crate) fn transmits(&self) -> impl Iterator<Item = Transmit<'_>> {
        self.entries
            .iter()
            .map(|entry| Transmit { to: entry.to, payload: &self.bytes[entry.start..entry.start + entry.len] })
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.used = 0;
    }
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
}
