//! A client with its socket, its place in the plan, and the moments of its life.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use udp::Socket;

use super::client::{Client, Voice};
use super::mix;
use super::stamp::Stamp;
use super::talk::Talker;
use super::tally::Tally;
use super::worker::Setting;
use crate::targets::Link;

#[derive(Debug)]
pub(super) struct Seat {
    /// Place in the plan.
    pub(super) link: usize,
    pub(super) plan: Link,
    pub(super) socket: Socket,
    pub(super) client: Client,
    /// Of the client's earliest deadline in the heap.
    pub(super) armed: Option<Instant>,
    began_at: Instant,
    pub(super) path_valid_at: Instant,
    pub(super) connected_at: Instant,
    mouth: Option<Mouth>,
    voice: Option<Box<Voice>>,
    /// When the next frame is due.
    next_frame: Instant,
    frames: usize,
}

/// What a publisher says.
#[derive(Debug)]
pub(super) struct Mouth {
    pub(super) source: u32,
    pub(super) talker: Talker,
}

impl Seat {
    pub(super) fn new(
        link: usize,
        plan: Link,
        socket: Socket,
        client: Client,
        mouth: Option<Mouth>,
        now: Instant,
    ) -> Self {
        Self {
            link,
            plan,
            socket,
            client,
            armed: None,
            began_at: now,
            path_valid_at: now,
            connected_at: now,
            mouth,
            voice: None,
            next_frame: now,
            frames: 0,
        }
    }

    /// Media can flow.
    pub(super) fn connect(&mut self, now: Instant, voice: Option<Box<Voice>>, setting: &Setting) {
        self.connected_at = now;
        if self.plan.slots > 0 {
            setting.board.add_hearer(self.plan.room);
        }
        self.voice = voice.filter(|_| self.mouth.is_some());
        // Phases are spread evenly over a frame, by the source, whenever the publishers came.
        let source = self.mouth.as_ref().map_or(0, |mouth| mouth.source);
        let frame_ns = u64::try_from(setting.frame.as_nanos()).unwrap_or(u64::MAX);
        let phase = golden(source, frame_ns);
        let into = setting.board.nanos(now) % frame_ns;
        self.next_frame = now + Duration::from_nanos(frame_ns + phase - into);
        self.frames = mix(u64::from(source)) as usize % setting.frames.len();
    }

    /// How long ICE and DTLS took.
    pub(super) fn times(&self, now: Instant) -> (Duration, Duration) {
        (
            self.path_valid_at.saturating_duration_since(self.began_at),
            now.saturating_duration_since(self.path_valid_at),
        )
    }

    /// Where the server sends to, when it is on this host.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.client.remote.ip(), self.socket.local_addr().ok()?.port()))
    }

    pub(super) fn voice_at(&self) -> Option<Instant> {
        self.voice.is_some().then_some(self.next_frame)
    }

    /// The packet that is due, if the pattern has one: its length in `packet`. Moves on by one frame, never by more: when
    /// this is late, the frames behind follow at once, and each is recorded as late.
    pub(super) fn speak(
        &mut self,
        now: Instant,
        due: Instant,
        setting: &Setting,
        tally: &mut Tally,
        packet: &mut [u8],
    ) -> Option<usize> {
        self.next_frame = due + setting.frame;
        let (Some(mouth), Some(voice)) = (&mut self.mouth, &mut self.voice) else { return None };
        voice.advance(setting.frame);
        if !setting.board.is_talking() {
            return None;
        }
        let tick = mouth.talker.tick(due.saturating_duration_since(setting.board.origin()))?;
        tally.send_late.record(now.saturating_duration_since(due));
        self.frames += 1;
        if tick.is_onset {
            // Nobody begins a turn with a pause or with the end of a word, and what is timed is how long a voice goes unheard.
            self.frames = setting.frames.onset_from(self.frames);
        }
        let frame = if tick.is_pause { setting.frames.pause() } else { setting.frames.talk(self.frames) };
        let level = tick.level.unwrap_or(frame.level);
        let sent_ns = setting.board.nanos(now);
        let stamp = Stamp { source: mouth.source, sent_ns, loud_for_ms: tick.loud_for_ms };
        let len = voice.write(packet, frame, tick.marker, level, &stamp);
        let hears = u32::from(setting.senders_hear);
        let hearers = u64::from(setting.board.hearers(self.plan.room).saturating_sub(hears));
        let counts = &mut tally.counts;
        counts.expected += hearers;
        counts.onsets_expected += if tick.is_onset { hearers } else { 0 };
        let lot = mix(setting.drop_seed ^ u64::from(mouth.source) << 32 ^ self.frames as u64);
        if setting.send_drop > 0 && (lot as u32) < setting.send_drop {
            counts.sent_lost_on_purpose += 1;
            counts.missed_on_purpose += hearers;
            return None;
        }
        counts.sent += 1;
        Some(len)
    }
}

/// The n-th point of a sequence that fills `0..range` evenly at any length (multiples of the golden ratio).
fn golden(n: u32, range: u64) -> u64 {
    const RATIO: u32 = 0x9E37_79B9;
    (u64::from(n.wrapping_mul(RATIO)) * range) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_fill_a_frame_evenly() {
        for count in [10_u32, 40, 200] {
            let mut phases: Vec<u64> = (0..count).map(|n| golden(n, 20_000)).collect();
            phases.sort_unstable();
            let widest = phases.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
            assert!(widest < 3 * 20_000 / u64::from(count), "{count}: {widest}");
            assert!(phases.iter().all(|phase| *phase < 20_000));
        }
    }
}
