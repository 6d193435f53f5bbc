//! The media node of one shard as a state machine: datagrams, commands and time go in, datagrams and events come out.
//! It has no socket, no clock, no randomness of its own, and no lock.

use std::{net::SocketAddr, time::Instant};

use crate::{Command, CommandError, Counters, Event, NodeConfig, Path, Reply};

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("certificate or private key is not usable")]
    Certificate,
}

/// A datagram to send. Borrowed from the node's output arena until [`Node::clear_transmits`].
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    pub to: SocketAddr,
    pub payload: &'a [u8],
}

#[derive(Debug)]
pub struct Node {
    counters: Counters,
}

impl Node {
    pub fn new(config: NodeConfig, now: Instant) -> Result<Self, NodeError> {
        let _ = (config, now);
        Ok(Self { counters: Counters::default() })
    }

    /// Never fails: what cannot be used is dropped and counted. `bytes` is opened in place.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, bytes: &mut [u8]) {
        let _ = (now, path, bytes);
    }

    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<Reply, CommandError> {
        let _ = (now, command);
        Err(CommandError::NodeFull)
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// When [`Node::handle_timeout`] wants to be called. `None`: nothing is waiting.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    pub fn transmits(&self) -> impl Iterator<Item = Transmit<'_>> {
        std::iter::empty()
    }

    #[must_use]
    pub fn transmit_count(&self) -> usize {
        0
    }

    pub fn clear_transmits(&mut self) {}

    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    #[must_use]
    pub fn peer_count(&self) -> usize {
        0
    }

    #[must_use]
    pub fn room_count(&self) -> usize {
        0
    }
}
