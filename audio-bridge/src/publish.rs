//! From the queue to the media connection: numbers the packets and sends them, or throws them away while there is no
//! connection. The sequence goes on over reconnections; what the queue dropped is left out of it, so that receivers see
//! loss and conceal it. How much of the past each packet repeats follows the loss that the node reports.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::capture::Encoded;
use crate::loss::RedLevel;
use crate::metrics::Metrics;
use crate::queue::DropOldest;
use crate::red::Redundancy;
use crate::session::Outlet;
use crate::webrtc::{OPUS_PAYLOAD_TYPE, Peer, PeerState, ProgramPacket};

/// How often the node's reports are looked at; they come about once a second.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How many earlier packets each packet repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedundancySetting {
    /// As the loss asks.
    #[default]
    Auto,
    #[serde(rename = "0")]
    None,
    #[serde(rename = "1")]
    One,
    #[serde(rename = "2")]
    Two,
}

impl std::str::FromStr for RedundancySetting {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "0" => Ok(Self::None),
            "1" => Ok(Self::One),
            "2" => Ok(Self::Two),
            _ => Err("redundancy is auto, 0, 1 or 2"),
        }
    }
}

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
pub async fn run(queue: Arc<DropOldest<Encoded>>, outlet: Outlet, setting: RedundancySetting, metrics: Arc<Metrics>) {
    let mut sequence = Sequence::new(rand::random());
    let mut protection = Protection::new(setting, Arc::clone(&metrics));
    let mut last: Option<Arc<Peer>> = None;
    loop {
        let (frame, dropped) = queue.pop().await;
        let current = outlet.borrow().clone();
        let Some(peer) = current.filter(|peer| *peer.state().borrow() == PeerState::Connected) else { continue };
        if last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &peer)) {
            sequence.new_connection();
            protection.redundancy = Redundancy::default();
            last = Some(Arc::clone(&peer));
        }
        protection.follow(&peer);
        let Encoded { timestamp, marker, payload, arrived } = frame;
        let number = sequence.next(dropped);
        let blocks = if peer.takes_red() { protection.blocks() } else { 0 };
        let wrapped = protection.redundancy.wrap(OPUS_PAYLOAD_TYPE, number, timestamp, &payload, blocks);
        let red = wrapped.is_some();
        let payload = wrapped.unwrap_or(payload);
        if peer.send(ProgramPacket { red, marker, sequence: number, timestamp, payload }).await {
            metrics.frames_sent.inc();
            metrics.send_delay_seconds.observe(arrived.elapsed().as_secs_f64());
        }
    }
}

/// What is repeated, and how much of it.
#[derive(Debug)]
struct Protection {
    setting: RedundancySetting,
    level: RedLevel,
    redundancy: Redundancy,
    looked: Option<Instant>,
    metrics: Arc<Metrics>,
}

impl Protection {
    fn new(setting: RedundancySetting, metrics: Arc<Metrics>) -> Self {
        Self { setting, level: RedLevel::default(), redundancy: Redundancy::default(), looked: None, metrics }
    }

    fn blocks(&self) -> usize {
        match self.setting {
            RedundancySetting::Auto => self.level.blocks(),
            RedundancySetting::None => 0,
            RedundancySetting::One => 1,
            RedundancySetting::Two => 2,
        }
    }

    /// Looks at the newest report of the node, now and then.
    fn follow(&mut self, peer: &Peer) {
        let now = Instant::now();
        if self.looked.is_some_and(|at| now.saturating_duration_since(at) < REPORT_INTERVAL) {
            return;
        }
        self.looked = Some(now);
        let Some(lost) = peer.fraction_lost() else { return };
        self.metrics.uplink_loss.set(lost);
        if self.level.reported(now, lost) {
            tracing::info!(blocks = self.level.blocks(), loss_percent = lost * 100.0, "Redundancy changed");
        }
        self.metrics.red_blocks.set(i64::try_from(self.blocks()).unwrap_or(i64::MAX));
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
