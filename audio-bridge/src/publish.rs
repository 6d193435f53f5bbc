//! From the queue to the media connection: numbers the packets and sends them, or throws them away while there is no
//! connection. The sequence goes on over reconnections; what the queue dropped is left out of it, so that receivers see
//! loss and conceal it.

use std::sync::Arc;

use crate::capture::Encoded;
use crate::metrics::Metrics;
use crate::queue::DropOldest;
use crate::session::Outlet;
use crate::webrtc::{Peer, PeerState, ProgramPacket};

/// RTP sequence numbers of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Sequence(u16);

impl Sequence {
    /// `random` gives the first number, kept below 2^15 (RFC 3711 section 3.3.1: the first roll-over must not be missed).
    #[must_use]
    pub fn new(random: u16) -> Self {
        Self(random & 0x7fff)
    }

    /// The number of the next packet, when `dropped` were left out before it.
    pub fn next(&mut self, dropped: u32) -> u16 {
        let number = self.0.wrapping_add(dropped as u16);
        self.0 = number.wrapping_add(1);
        number
    }

    /// A new connection has new keys, whose roll-over counter starts at zero.
    pub fn new_connection(&mut self) {
        self.0 &= 0x7fff;
    }
}

/// Sends for ever.
pub async fn run(queue: Arc<DropOldest<Encoded>>, outlet: Outlet, metrics: Arc<Metrics>) {
    let mut sequence = Sequence::new(rand::random());
    let mut last: Option<Arc<Peer>> = None;
    loop {
        let (frame, dropped) = queue.pop().await;
        let current = outlet.borrow().clone();
        let Some(peer) = current.filter(|peer| *peer.state().borrow() == PeerState::Connected) else { continue };
        if last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &peer)) {
            sequence.new_connection();
            last = Some(Arc::clone(&peer));
        }
        let Encoded { timestamp, marker, payload, arrived } = frame;
        let packet = ProgramPacket { marker, sequence: sequence.next(dropped), timestamp, payload };
        if peer.send(packet).await {
            metrics.frames_sent.inc();
            metrics.send_delay_seconds.observe(arrived.elapsed().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_frames_leave_a_hole_in_the_sequence() {
        let mut sequence = Sequence::new(0xffff);
        assert_eq!([sequence.next(0), sequence.next(0), sequence.next(3)], [0x7fff, 0x8000, 0x8004]);
    }

    #[test]
    fn a_new_connection_starts_far_from_the_roll_over() {
        let mut sequence = Sequence(65_530);
        sequence.new_connection();
        assert_eq!(sequence.next(0), 65_530 & 0x7fff);
    }
}
