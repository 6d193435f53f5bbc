//! A published source: which SSRC carries it, what was received of it, and how loud it is. Finding the track of
//! a packet happens here, always after the packet has been authenticated. Forwarding does not.

use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::ChaCha20Rng;

use crate::{
    Mid, ShardId, TrackId, TrackKind, TrackSpec,
    clock::{compact, compact_duration},
    level::Voice,
    rtcp::{ReportBlock, SenderInfo},
};

#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) kind: TrackKind,
    mid: Mid,
    ssrc: Option<u32>,
    pub(crate) muted: bool,
    /// How loud it is, also while it is not among those that are heard.
    pub(crate) voice: Voice,
    /// The shell has been told that the track is live, or the mark for it is queued.
    pub(crate) announced: bool,
    pub(crate) live_queued: bool,
    /// Last packet, when it found no slot and the home should give one.
    pub(crate) waited_at: Option<Instant>,
    pub(crate) reception: Reception,
    pub(crate) allowance: Allowance,
    /// After a BYE, until something newer comes.
    ended: bool,
}

impl Track {
    pub(crate) fn new(id: TrackId, spec: &TrackSpec) -> Self {
        Self {
            id,
            kind: spec.kind,
            mid: spec.mid,
            ssrc: spec.ssrc.map(|ssrc| ssrc.0),
            muted: false,
            voice: Voice::default(),
            announced: false,
            live_queued: false,
            waited_at: None,
            reception: Reception::default(),
            allowance: Allowance::default(),
            ended: false,
        }
    }

    pub(crate) fn mid(&self) -> Mid {
        self.mid
    }

    pub(crate) fn ssrc(&self) -> Option<u32> {
        self.ssrc
    }

    /// RFC 3550 section 6.6: nothing more will come of this SSRC.
    pub(crate) fn end(&mut self) {
        self.ended = true;
        self.waited_at = None;
        self.announced = false;
    }

    /// Counts a packet. `false` for a straggler behind a BYE.
    pub(crate) fn receive(&mut self, index: u64, timestamp: u32, arrival: u32) -> bool {
        if self.ended && index <= self.reception.highest {
            return false;
        }
        self.ended = false;
        self.reception.receive(index, timestamp, arrival);
        true
    }
}

/// The low bits name the shard, so it is never 0 but where the rest would be.
pub(crate) fn fresh_id(shard: ShardId, rng: &mut ChaCha20Rng) -> TrackId {
    let count = u32::from(ShardId::COUNT_MAX);
    TrackId(rng.random_range(1..u32::MAX / count) * count + shard.index() as u32)
}

/// The shard that has made the id.
pub(crate) fn shard_of(track: TrackId) -> Option<ShardId> {
    ShardId::new((track.0 % u32::from(ShardId::COUNT_MAX)) as usize)
}

/// The track of an authenticated packet: by SSRC, else by its mid extension, else the only one whose SSRC nobody has
/// named (RFC 9143 section 9.2). A track that changes its SSRC starts over; the answer says so.
pub(crate) fn find(tracks: &mut [Track], ssrc: u32, mid: Option<&[u8]>) -> Option<(usize, Restarted)> {
    if let Some(found) = tracks.iter().position(|track| track.ssrc == Some(ssrc)) {
        return Some((found, Restarted(false)));
    }
    let found = match mid {
        Some(mid) => tracks.iter().position(|track| track.mid.as_bytes() == mid)?,
        None => {
            let mut nameless = tracks.iter().enumerate().filter(|(_, track)| track.ssrc.is_none());
            let (first, _) = nameless.next()?;
            if nameless.next().is_some() {
                return None;
            }
            first
        }
    };
    let track = &mut tracks[found];
    let restarted = track.ssrc.is_some();
    track.ssrc = Some(ssrc);
    track.ended = false;
    track.reception = Reception::default();
    Some((found, Restarted(restarted)))
}

/// The sequence numbers of the track have nothing to do with those before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Restarted(pub(crate) bool);

/// What a receiver counts for its reports (RFC 3550 section 6.4.1, appendix A.3 and A.8).
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Reception {
    base: u64,
    highest: u64,
    received: u64,
    expected_before: u64,
    received_before: u64,
    transit: u32,
    /// Times 16.
    jitter_scaled: u32,
    last_sr: Option<(u32, Instant)>,
}

impl Reception {
    fn receive(&mut self, index: u64, timestamp: u32, arrival: u32) {
        let transit = arrival.wrapping_sub(timestamp);
        if self.received == 0 {
            (self.base, self.highest) = (index, index);
        } else {
            // Distance on a circle: a clock that jumps half the circle is no jitter of ours.
            let distance = (transit.wrapping_sub(self.transit) as i32).unsigned_abs().min(1 << 24);
            self.jitter_scaled += distance;
            self.jitter_scaled -= (self.jitter_scaled - distance + 8) >> 4;
        }
        self.transit = transit;
        self.base = self.base.min(index);
        self.highest = self.highest.max(index);
        self.received += 1;
    }

    pub(crate) fn hear_sender_report(&mut self, now: Instant, info: &SenderInfo) {
        self.last_sr = Some((compact(info.ntp), now));
    }

    /// The report for the interval that ends now; `None` when nothing came in it.
    pub(crate) fn report(&mut self, now: Instant, ssrc: u32) -> Option<ReportBlock> {
        if self.received == self.received_before {
            return None;
        }
        let expected = self.highest - self.base + 1;
        let expected_now = expected - self.expected_before;
        let received_now = self.received - self.received_before;
        (self.expected_before, self.received_before) = (expected, self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255);
        let lost = expected as i64 - self.received as i64;
        let (last_sr, delay) = match self.last_sr {
            Some((ntp, at)) => (ntp, compact_duration(now.saturating_duration_since(at))),
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc,
            fraction_lost: fraction as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: self.highest as u32,
            jitter: self.jitter_scaled >> 4,
            last_sr,
            delay_since_last_sr: delay,
        })
    }
}

/// Token bucket that holds two seconds of packets, so that what a network delays and delivers at once passes.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Allowance {
    /// Each packet pushes it on by its share of a second; how far it is ahead of now is what has been used.
    spent_until: Option<Instant>,
}

impl Allowance {
    pub(crate) fn take(&mut self, now: Instant, per_second: u32) -> bool {
        let spent = self.after_one_more(now, per_second);
        if spent > now + ALLOWANCE_DEPTH {
            return false;
        }
        self.spent_until = Some(spent);
        true
    }

    /// Whether [`Allowance::take`] would take one.
    pub(crate) fn has(&self, now: Instant, per_second: u32) -> bool {
        self.after_one_more(now, per_second) <= now + ALLOWANCE_DEPTH
    }

    fn after_one_more(&self, now: Instant, per_second: u32) -> Instant {
        let cost = Duration::from_secs(1) / per_second.max(1);
        self.spent_until.map_or(now, |at| at.max(now)) + cost
    }
}

const ALLOWANCE_DEPTH: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn track(id: u32, kind: TrackKind, mid: &str, ssrc: Option<u32>) -> Track {
        let ssrc = ssrc.map(crate::Ssrc);
        Track::new(TrackId(id), &TrackSpec { kind, mid: Mid::new(mid).unwrap(), ssrc })
    }

    #[test]
    fn packet_finds_its_track_by_ssrc_then_mid_then_as_the_only_one() {
        let mut tracks = [track(1, TrackKind::Mic, "0", Some(10)), track(2, TrackKind::Program, "1", None)];
        assert_eq!(find(&mut tracks, 10, None), Some((0, Restarted(false))));
        assert_eq!(find(&mut tracks, 20, None), Some((1, Restarted(false))), "the only nameless one");
        assert_eq!(find(&mut tracks, 20, Some(b"0")), Some((1, Restarted(false))), "what is known stays");
        assert_eq!(find(&mut tracks, 30, None), None, "nobody is nameless any more");
        assert_eq!(find(&mut tracks, 30, Some(b"7")), None);
        assert_eq!(find(&mut tracks, 30, Some(b"0")), Some((0, Restarted(true))));
        assert_eq!(find(&mut tracks, 10, None), None, "the replaced one is nobody's");
    }

    #[test]
    fn two_nameless_tracks_need_a_mid() {
        let mut tracks = [track(1, TrackKind::Mic, "0", None), track(2, TrackKind::Program, "1", None)];
        assert_eq!(find(&mut tracks, 20, None), None);
        assert_eq!(find(&mut tracks, 20, Some(b"1")), Some((1, Restarted(false))));
    }

    #[test]
    fn straggler_behind_a_bye_does_not_revive_its_track() {
        let mut tracks = [track(1, TrackKind::Mic, "0", Some(10))];
        assert!(tracks[0].receive(5, 0, 0));
        tracks[0].end();
        assert!(!tracks[0].receive(4, 0, 0));
        assert!(!tracks[0].receive(5, 0, 0));
        assert!(tracks[0].receive(6, 0, 0));
        assert!(tracks[0].receive(5, 0, 0));
    }
}
