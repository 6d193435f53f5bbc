//! RTCP of a forwarding node: what a publisher is told about its packets, what a listener is told about the slots, and
//! what both say back. One compound for each peer, every one or two seconds (RFC 3550 section 6).

use std::time::{Duration, Instant};

use crate::{
    clock::{Clock, compact, from_compact},
    rtcp::{ReportBlock, SenderInfo, Writer},
    slot::Slot,
    track::Track,
};

/// A publisher's browser adapts to what it hears; once a second is what browsers do themselves.
pub(crate) const PUBLISHER_INTERVAL: Duration = Duration::from_secs(1);
/// Who only listens needs the time mapping of the slots and nothing more.
pub(crate) const LISTENER_INTERVAL: Duration = Duration::from_secs(2);

/// Two blocks, then 28 bytes and a name of 24 for each of ten slots; with many more slots the last ones go without.
pub(crate) const COMPOUND_MAX: usize = 1_100;

/// How a peer hears us, by its own receiver reports.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Hearing {
    pub(crate) round_trip: Option<Duration>,
    /// Worst slot of the present interval, and of the one before, in 1/256.
    worst: u8,
    worst_before: u8,
}

impl Hearing {
    pub(crate) fn hear(&mut self, clock: &Clock, now: Instant, block: &ReportBlock) {
        self.worst = self.worst.max(block.fraction_lost);
        if block.last_sr != 0 {
            let elapsed = compact(clock.ntp(now)).wrapping_sub(block.last_sr);
            // More delay than time has passed is a clock that runs fast over a short path: zero.
            let round_trip = from_compact(elapsed.saturating_sub(block.delay_since_last_sr));
            if round_trip < ROUND_TRIP_MAX {
                self.round_trip = Some(round_trip);
            }
        }
    }

    pub(crate) fn fraction_lost(&self) -> f32 {
        f32::from(self.worst.max(self.worst_before)) / 256.0
    }

    pub(crate) fn end_interval(&mut self) {
        self.worst_before = std::mem::take(&mut self.worst);
    }
}

/// Longer than any path with a voice on it: such a figure is a mistake of the other side.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(60);

/// Who signs the reports of this node.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub(crate) ssrc: u32,
    pub(crate) cname: [u8; 16],
}

impl Reporter {
    /// Writes the compound for one peer; 0 when there is nothing to say.
    pub(crate) fn compound<'s>(
        &self,
        buf: &mut [u8],
        (clock, now): (&Clock, Instant),
        tracks: &mut [Track],
        slots: impl Iterator<Item = (&'s Slot, u32)>,
    ) -> usize {
        let blocks: Vec<ReportBlock> = tracks
            .iter_mut()
            .filter_map(|track| track.ssrc().and_then(|ssrc| track.reception.report(now, ssrc)))
            .collect();
        let mut writer = Writer::new(buf);
        writer.receiver_report(self.ssrc, &blocks);
        let mut ssrcs = [0; 31];
        ssrcs[0] = self.ssrc;
        let mut named = 1;
        for (slot, rtp_timestamp) in slots.take(ssrcs.len() - 1) {
            let info = SenderInfo {
                ssrc: slot.ssrc,
                ntp: clock.ntp(now),
                rtp_timestamp,
                packets: slot.packets,
                octets: slot.octets,
            };
            if !writer.sender_report(&info) {
                break;
            }
            ssrcs[named] = slot.ssrc;
            named += 1;
        }
        if blocks.is_empty() && named == 1 {
            return 0;
        }
        // A compound without names is still a compound; a report without room for them goes without.
        writer.cname(&ssrcs[..named], &self.cname);
        writer.len()
    }
}
