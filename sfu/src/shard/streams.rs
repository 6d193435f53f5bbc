//! The TCP connections of a shard (RFC 6544: it is the passive side), beside its one UDP socket. A connection is nobody's
//! until a check has come over it that authenticates, and is closed when none does in time or when its peer is gone. What
//! a turn has for a connection goes out in one system call at the end of the turn.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use sfu_core::{Node, Path, Transmit, Transport};
use slab::Slab;
use udp::{Poller, Ready};

use super::stream::{End, Stream};
use crate::accept::Ticket;

/// For a check that authenticates. A client sends its first at once and repeats it within half a second.
const PROOF_TIME_MAX: Duration = Duration::from_secs(5);
/// What may come before it: some dozens of checks.
const STRANGER_BYTES_MAX: usize = 8 * 1024;
/// How late the two above, and the end of a peer, may be noticed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Tokens of the poller below this are not connections.
pub(super) const FIRST_TOKEN: u64 = 1 << 32;

/// A connection on its way to its shard.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) remote: SocketAddr,
    pub(crate) ticket: Ticket,
}

/// What became of connections and of what was meant for them.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamCounters {
    pub(crate) accepted: u64,
    pub(crate) frames_received: u64,
    pub(crate) frames_sent: u64,
    /// Media that a slow receiver has not taken in time, and datagrams for connections that are gone.
    pub(crate) frames_dropped: u64,
    /// Closed because no check authenticated in time.
    pub(crate) strangers: u64,
    /// Closed because of what the peer did or did not do: see [`End`].
    pub(crate) broken: u64,
}

#[derive(Debug)]
pub(super) struct Streams {
    entries: Slab<Entry>,
    by_remote: HashMap<SocketAddr, usize>,
    /// Those with something new to send.
    dirty: Vec<usize>,
    swept_at: Instant,
    counters: StreamCounters,
}

#[derive(Debug)]
struct Entry {
    stream: Stream<TcpStream>,
    remote: SocketAddr,
    opened_at: Instant,
    received_bytes: usize,
    is_proven: bool,
    is_dirty: bool,
    /// Found while queueing, carried out when it is flushed.
    end: Option<End>,
    /// The kernel's queue is full: the poller tells when it is not.
    is_stuck: bool,
    _ticket: Ticket,
}

impl Streams {
    pub(super) fn new(now: Instant) -> Self {
        let (entries, by_remote, dirty) = (Slab::new(), HashMap::new(), Vec::new());
        Self { entries, by_remote, dirty, swept_at: now, counters: StreamCounters::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn counters(&self) -> &StreamCounters {
        &self.counters
    }

    /// Takes a connection over. One that still seems to be there from the same address is over.
    pub(super) fn accept(&mut self, now: Instant, accepted: Accepted, (poller, node): (&Poller, &mut Node)) {
        let Accepted { stream, remote, ticket } = accepted;
        if let Some(&old) = self.by_remote.get(&remote) {
            self.close(old, node);
        }
        let place = self.entries.vacant_entry();
        // Without a poller that tells of it, it is of no use.
        if poller.add(&stream, FIRST_TOKEN + place.key() as u64).is_err() {
            return;
        }
        self.by_remote.insert(remote, place.key());
        place.insert(Entry {
            stream: Stream::new(stream),
            remote,
            opened_at: now,
            received_bytes: 0,
            is_proven: false,
            is_dirty: false,
            end: None,
            is_stuck: false,
            _ticket: ticket,
        });
        self.counters.accepted += 1;
    }

    /// Takes what has come, one read from each connection, and sends what can go out again.
    pub(super) fn serve(&mut self, now: Instant, ready: &Ready, (poller, node): (&Poller, &mut Node)) {
        for token in ready.tokens() {
            let Some(key) = token.checked_sub(FIRST_TOKEN).and_then(|key| usize::try_from(key).ok()) else {
                continue;
            };
            let served = self.receive(now, key, node).and_then(|()| self.flush_one(key, poller));
            if served.is_err() {
                self.break_off(key, node);
            }
        }
        if now.saturating_duration_since(self.swept_at) >= SWEEP_INTERVAL {
            self.swept_at = now;
            self.sweep(now, node);
        }
    }

    /// Queues what the core has for connections. What is for a connection that is gone is lost.
    pub(super) fn collect<'t>(&mut self, transmits: impl Iterator<Item = Transmit<'t>>) {
        for transmit in transmits.filter(|transmit| transmit.to.transport == Transport::Tcp) {
            let key = self.by_remote.get(&transmit.to.remote).copied();
            let Some((key, entry)) = key.and_then(|key| Some((key, self.entries.get_mut(key)?))) else {
                self.counters.frames_dropped += 1;
                continue;
            };
            match entry.stream.queue(transmit.payload) {
                Ok(dropped) => self.counters.frames_dropped += dropped as u64,
                Err(end) => entry.end = Some(end),
            }
            self.counters.frames_sent += 1;
            if !std::mem::replace(&mut entry.is_dirty, true) {
                self.dirty.push(key);
            }
        }
    }

    /// Sends what was queued, once a turn.
    pub(super) fn flush(&mut self, poller: &Poller, node: &mut Node) {
        while let Some(key) = self.dirty.pop() {
            if self.flush_one(key, poller).is_err() {
                self.break_off(key, node);
            }
        }
    }

    /// The core has begun anew and knows nobody.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.by_remote.clear();
        self.dirty.clear();
    }

    fn receive(&mut self, now: Instant, key: usize, node: &mut Node) -> Result<(), End> {
        let Some(entry) = self.entries.get_mut(key) else { return Ok(()) };
        let (path, frames) = (Path::tcp(entry.remote), &mut self.counters.frames_received);
        let read = entry.stream.receive(|datagram| {
            *frames += 1;
            node.handle_datagram(now, path, datagram);
        })?;
        entry.received_bytes = entry.received_bytes.saturating_add(read);
        if !entry.is_proven {
            entry.is_proven = node.is_proven(path);
        }
        if entry.is_proven || entry.received_bytes <= STRANGER_BYTES_MAX { Ok(()) } else { Err(End::NotReading) }
    }

    fn flush_one(&mut self, key: usize, poller: &Poller) -> Result<(), End> {
        let Some(entry) = self.entries.get_mut(key) else { return Ok(()) };
        entry.is_dirty = false;
        if let Some(end) = entry.end {
            return Err(end);
        }
        let is_stuck = !entry.stream.flush()?;
        if std::mem::replace(&mut entry.is_stuck, is_stuck) != is_stuck {
            let token = FIRST_TOKEN + key as u64;
            poller.watch_writes(entry.stream.socket(), token, is_stuck).map_err(|_| End::Closed)?;
        }
        Ok(())
    }

    /// Strangers that have had their time, and connections whose peer is gone or has no consent for them any more.
    fn sweep(&mut self, now: Instant, node: &mut Node) {
        let is_over = |entry: &Entry| {
            let late = entry.is_proven || now.saturating_duration_since(entry.opened_at) >= PROOF_TIME_MAX;
            late && !node.is_proven(Path::tcp(entry.remote))
        };
        let over: Vec<_> = self.entries.iter().filter(|(_, entry)| is_over(entry)).map(|(key, _)| key).collect();
        for key in over {
            if !self.entries[key].is_proven {
                self.counters.strangers += 1;
            }
            self.close(key, node);
        }
    }

    fn break_off(&mut self, key: usize, node: &mut Node) {
        self.counters.broken += 1;
        self.close(key, node);
    }

    fn close(&mut self, key: usize, node: &mut Node) {
        let Some(entry) = self.entries.try_remove(key) else { return };
        self.by_remote.remove(&entry.remote);
        node.handle_disconnect(Path::tcp(entry.remote));
    }
}

#[cfg(test)]
mod tests;
