//! One bulk client without its socket: ICE, DTLS, then SRTP both ways. It shares packages with our node, so what both get
//! wrong together is for the realistic peers and the browsers to find.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use srtp::{Keys, OneByteWriter, Opener, Profile, RtpHeader, Sealer};

use super::dtls::{Handshake, Identity, Input, Progress};
use super::frames::Frame;
use super::ice::{Checker, Heard};
use super::mix;
use super::stamp::{STAMPED_BYTES_MIN, Stamp};
use super::stream::Streams;
use super::tally::Tally;
use crate::targets::{Local, Remote, SendFormat};

/// What one client may hear: each source of a room of the largest size.
const SSRCS_MAX: usize = 4096;
/// The largest RTP packet here, with room for the tag.
pub(super) const PACKET_BYTES_MAX: usize = 1600;
/// Onsets of one source that lie closer are the same, read from packets with rounded times.
const ONSET_APART_NS: u64 = 100_000_000;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) remote: SocketAddr,
    ice: Checker,
    dtls: Handshake,
    we_are_dtls_client: bool,
    state: State,
    opener: Option<Opener>,
    streams: Streams,
    /// The newest onset heard of each source.
    onsets: Vec<(u32, u64)>,
    format: Option<SendFormat>,
    ssrc: u32,
    seed: u64,
    packets: u64,
    has_heard: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Checking,
    Handshaking,
    Connected,
    Over,
}

/// What changed.
#[derive(Debug)]
pub(super) enum Outcome {
    None,
    PathValid,
    Connected(Option<Box<Voice>>),
    Failed(&'static str),
    /// Ended after it stood.
    Lost,
    FirstPacket,
}

/// How received packets are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) open_one_in: u64,
    /// Share lost on purpose, of 2^32.
    pub(super) drop: u32,
    pub(super) drop_seed: u64,
}

impl Client {
    pub(super) fn new(identity: &Identity, local: &Local, remote: &Remote, now: Instant) -> Self {
        let seed = mix(u64::from(local.ssrc));
        Self {
            remote: remote.address,
            ice: Checker::new(&local.ice, &remote.ice, seed, now),
            dtls: Handshake::new(identity, remote.we_are_dtls_client, remote.fingerprint, now),
            we_are_dtls_client: remote.we_are_dtls_client,
            state: State::Checking,
            opener: None,
            streams: Streams::default(),
            onsets: Vec::new(),
            format: remote.send,
            ssrc: local.ssrc,
            seed,
            packets: 0,
            has_heard: false,
        }
    }

    /// When [`Client::handle_timeout`] is due; `None`: never again.
    pub(super) fn next_at(&self) -> Option<Instant> {
        if self.state == State::Over {
            return None;
        }
        let dtls = self.dtls.wake_at().filter(|_| self.state == State::Handshaking);
        Some(dtls.map_or(self.ice.next_at(), |at| at.min(self.ice.next_at())))
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) -> Outcome {
        if self.state == State::Over {
            return Outcome::None;
        }
        if self.ice.is_expired(now) {
            return self.end("consent_expired");
        }
        out.extend(self.ice.poll(now));
        if self.state == State::Handshaking && self.dtls.wake_at().is_some_and(|at| at <= now) {
            return self.shake_hands(now, Input::Timeout, out);
        }
        Outcome::None
    }

    /// A STUN or DTLS datagram. Media goes to [`Client::receive_media`].
    pub(super) fn handle_control(
        &mut self,
        now: Instant,
        datagram: &[u8],
        from: SocketAddr,
        out: &mut Vec<Vec<u8>>,
    ) -> Outcome {
        match datagram.first() {
            _ if self.state == State::Over => Outcome::None,
            Some(0..=3) => self.handle_stun(now, datagram, from, out),
            Some(20..=63) => {
                if self.state == State::Checking {
                    // The other side has begun before its answer to our check was here.
                    self.state = State::Handshaking;
                }
                self.shake_hands(now, Input::Datagram(datagram), out)
            }
            _ => Outcome::None,
        }
    }

    fn handle_stun(&mut self, now: Instant, datagram: &[u8], from: SocketAddr, out: &mut Vec<Vec<u8>>) -> Outcome {
        match self.ice.handle(now, datagram, from) {
            Heard::Asked(answer) => {
                out.push(answer);
                Outcome::None
            }
            Heard::Answered { first: true } => {
                if self.state == State::Checking {
                    self.state = State::Handshaking;
                }
                if self.we_are_dtls_client {
                    // Nothing to report but the path: a handshake does not end with its first flight.
                    let _ = self.dtls.handle(now, Input::Timeout, out);
                }
                Outcome::PathValid
            }
            Heard::Refused(_) if self.state != State::Connected => self.end("ice_refused"),
            Heard::Answered { first: false } | Heard::Refused(_) | Heard::Nothing => Outcome::None,
        }
    }

    fn shake_hands(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Vec<u8>>) -> Outcome {
        match self.dtls.handle(now, input, out) {
            Progress::None => Outcome::None,
            Progress::Failed(reason) => self.end(reason),
            Progress::Closed => self.end("closed"),
            Progress::Done(profile, keys) => match self.install(profile, &keys) {
                Some(voice) => {
                    self.state = State::Connected;
                    Outcome::Connected(voice)
                }
                None => self.end("keys_refused"),
            },
        }
    }

    fn install(&mut self, profile: Profile, keys: &Keys) -> Option<Option<Box<Voice>>> {
        let (ours, theirs) =
            if self.we_are_dtls_client { (&keys.client, &keys.server) } else { (&keys.server, &keys.client) };
        self.opener = Some(Opener::new(profile, theirs, SSRCS_MAX).ok()?);
        let Some(format) = self.format else { return Some(None) };
        let sealer = Sealer::new(profile, ours).ok()?;
        Some(Some(Box::new(Voice::new(sealer, format, self.ssrc))))
    }

    fn end(&mut self, reason: &'static str) -> Outcome {
        let stood = self.state == State::Connected;
        self.state = State::Over;
        if stood { Outcome::Lost } else { Outcome::Failed(reason) }
    }

    /// An RTP or RTCP datagram. Its header is read always, and it is opened when its turn has come.
    pub(super) fn receive_media(
        &mut self,
        now_ns: u64,
        packet: &mut [u8],
        reading: Reading,
        tally: &mut Tally,
    ) -> Outcome {
        let is_rtcp = packet.get(1).is_some_and(|kind| (192..=223).contains(kind));
        let (Some(opener), false) = (&mut self.opener, is_rtcp) else {
            tally.counts.other += 1;
            return Outcome::None;
        };
        let Ok(header) = RtpHeader::parse(packet) else {
            tally.counts.unreadable += 1;
            return Outcome::None;
        };
        let change = self.streams.take(header.ssrc, header.sequence);
        tally.take(change);
        if change.duplicated {
            return Outcome::None;
        }
        self.packets += 1;
        if reading.drop > 0 && (mix(self.seed ^ reading.drop_seed ^ self.packets) as u32) < reading.drop {
            tally.counts.received_lost_on_purpose += 1;
            return Outcome::None;
        }
        tally.counts.received += 1;
        tally.counts.received_bytes += packet.len() as u64;
        // The first of all says that the keys are right. Then by lot: streams that come in turn are all looked at.
        if self.has_heard && !mix(self.seed ^ self.packets).is_multiple_of(reading.open_one_in) {
            return Outcome::None;
        }
        let stamp = open(opener, packet, &header);
        match stamp {
            Ok(Some(stamp)) => self.hear(now_ns, stamp, tally),
            Ok(None) => tally.counts.opened += 1,
            Err(()) => {
                tally.counts.unreadable += 1;
                return Outcome::None;
            }
        }
        if std::mem::replace(&mut self.has_heard, true) { Outcome::None } else { Outcome::FirstPacket }
    }

    fn hear(&mut self, now_ns: u64, stamp: Stamp, tally: &mut Tally) {
        tally.counts.opened += 1;
        tally.delay.record_ns(now_ns.saturating_sub(stamp.sent_ns));
        let Some(loud_for_ms) = stamp.loud_for_ms else { return };
        let onset = stamp.sent_ns.saturating_sub(u64::from(loud_for_ms) * 1_000_000);
        let known = self.onsets.iter().position(|(source, _)| *source == stamp.source);
        let is_new = match known {
            Some(at) if onset > self.onsets[at].1 + ONSET_APART_NS => {
                self.onsets[at].1 = onset;
                true
            }
            None if self.onsets.len() < SSRCS_MAX => {
                self.onsets.push((stamp.source, onset));
                true
            }
            Some(_) | None => false,
        };
        if is_new {
            tally.onset.record_ns(now_ns.saturating_sub(onset));
        }
    }
}

/// `Ok(None)`: authentic, but too small for a stamp.
fn open(opener: &mut Opener, packet: &mut [u8], header: &RtpHeader) -> Result<Option<Stamp>, ()> {
    let opened = opener.open_rtp(packet, header).map_err(|_| ())?;
    let payload = header.payload(&packet[..opened.len]).map_err(|_| ())?;
    let payload = &packet[payload];
    if payload.len() < STAMPED_BYTES_MIN {
        return Ok(None);
    }
    Stamp::read(payload).map(Some).ok_or(())
}

/// The sending half of a client.
pub(super) struct Voice {
    sealer: Sealer,
    format: SendFormat,
    ssrc: u32,
    /// `ROC << 16 | SEQ`.
    index: u64,
    timestamp: u32,
}

impl Voice {
    fn new(sealer: Sealer, format: SendFormat, ssrc: u32) -> Self {
        let random = mix(u64::from(ssrc) ^ 0x5EED);
        // Below the half, so that the receiver's first guess of the rollover counter is right (RFC 3711 section 3.3.1).
        Self { sealer, format, ssrc, index: random % 0x7FFF, timestamp: (random >> 32) as u32 }
    }

    /// A frame of time has passed, whether or not a packet went out.
    pub(super) fn advance(&mut self, frame: Duration) {
        self.timestamp = self.timestamp.wrapping_add((frame.as_micros() * 48 / 1000) as u32);
    }

    /// The sealed packet's length in `buf`. The sequence moves on, also when the packet is then not sent.
    pub(super) fn write(&mut self, buf: &mut [u8], frame: &Frame, marker: bool, level: u8, stamp: &Stamp) -> usize {
        let index = self.index;
        self.index += 1;
        buf[0] = 0x80;
        buf[1] = self.format.payload_type | u8::from(marker) << 7;
        buf[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        buf[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        buf[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let mut header_len = 12;
        if let Some(id) = self.format.audio_level {
            // The top bit says that this is voice (RFC 6464 section 3).
            let value = level & 0x7F | u8::from(level < 60) << 7;
            header_len += write_level(&mut buf[12..], id, value).unwrap_or(0);
            buf[0] |= u8::from(header_len > 12) << 4;
        }
        let len = header_len + frame.packet.len();
        buf[header_len..len].copy_from_slice(&frame.packet);
        stamp.write(&mut buf[header_len..len]);
        // It fails only where the buffer is too small or an index is used up, neither of which happens in a run.
        self.sealer.seal_rtp(buf, header_len, len, index).unwrap_or(0)
    }
}

fn write_level(buf: &mut [u8], id: u8, value: u8) -> Option<usize> {
    let mut extensions = OneByteWriter::new(buf).ok()?;
    extensions.push(id, &[value]).ok()?;
    extensions.finish().ok()
}

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voice").field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::frames::Frames;
    use crate::scenario::Audio;
    use crate::targets::IceCredentials;

    /// Two clients of ours: one leads in DTLS and speaks, the other follows and hears.
    struct Pair {
        now: Instant,
        clients: [Client; 2],
        voice: Option<Box<Voice>>,
        path_valid: usize,
    }

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn pair(announced: Option<[u8; 32]>) -> Pair {
        let now = Instant::now();
        let identities = [Identity::generate().expect("made"), Identity::generate().expect("made")];
        let ice = |name: &str| IceCredentials { ufrag: name.repeat(4), pwd: name.repeat(24) };
        let client = |own: usize, other: usize| {
            let names = ["a", "b"];
            let fingerprint = identities[own].fingerprint();
            let local = Local { ice: ice(names[own]), fingerprint, ssrc: 500 + own as u32 };
            let remote = Remote {
                address: address(other as u16),
                ice: ice(names[other]),
                fingerprint: announced.unwrap_or(identities[other].fingerprint()),
                we_are_dtls_client: own == 0,
                send: (own == 0).then_some(SendFormat { payload_type: 111, audio_level: Some(1) }),
                receive_ssrcs: Vec::new(),
            };
            Client::new(&identities[own], &local, &remote, now)
        };
        Pair { now, clients: [client(0, 1), client(1, 0)], voice: None, path_valid: 0 }
    }

    impl Pair {
        /// Until nothing is on its way for a while; how often either failed.
        fn run(&mut self) -> usize {
            let mut failed = 0;
            for _ in 0..100 {
                self.now += Duration::from_millis(10);
                for own in 0..2 {
                    let mut out = Vec::new();
                    let outcome = self.clients[own].handle_timeout(self.now, &mut out);
                    failed += self.note(outcome);
                    self.deliver(1 - own, out, &mut failed);
                }
            }
            failed
        }

        fn deliver(&mut self, to: usize, datagrams: Vec<Vec<u8>>, failed: &mut usize) {
            for datagram in datagrams {
                let mut out = Vec::new();
                let from = address(1 - to as u16);
                let outcome = self.clients[to].handle_control(self.now, &datagram, from, &mut out);
                *failed += self.note(outcome);
                self.deliver(1 - to, out, failed);
            }
        }

        fn note(&mut self, outcome: Outcome) -> usize {
            match outcome {
                Outcome::Connected(voice) => self.voice = self.voice.take().or(voice),
                Outcome::PathValid => self.path_valid += 1,
                Outcome::Failed(_) | Outcome::Lost => return 1,
                Outcome::None | Outcome::FirstPacket => {}
            }
            0
        }
    }

    fn reading(open_one_in: u64, drop: u32) -> Reading {
        Reading { open_one_in, drop, drop_seed: 3 }
    }

    /// What the second hears of packets of the first.
    fn hear(pair: &mut Pair, reading: Reading, count: u64, keep: impl Fn(u64) -> bool) -> Tally {
        let frames = Frames::encode(&Audio::default()).expect("encodes");
        let mut tally = Tally::new();
        let mut voice = pair.voice.take().expect("connected");
        let mut buf = [0; PACKET_BYTES_MAX];
        for n in 0..count {
            voice.advance(Duration::from_millis(20));
            let stamp = Stamp { source: 9, sent_ns: n * 20_000_000, loud_for_ms: None };
            let len = voice.write(&mut buf, frames.talk(n as usize), false, 30, &stamp);
            if keep(n) {
                let at = n * 20_000_000 + 5_000_000;
                pair.clients[1].receive_media(at, &mut buf[..len], reading, &mut tally);
            }
        }
        tally
    }

    #[test]
    fn two_clients_connect_and_one_hears_the_other() {
        let mut pair = pair(None);
        assert_eq!(pair.run(), 0);
        assert_eq!(pair.path_valid, 2);
        let tally = hear(&mut pair, reading(1, 0), 50, |_| true);
        assert_eq!((tally.counts.received, tally.counts.opened, tally.counts.unreadable), (50, 50, 0));
        assert!((tally.delay.distribution().p99 - 5.0).abs() < 0.1);
    }

    #[test]
    fn most_packets_are_counted_without_being_opened() {
        let mut pair = pair(None);
        pair.run();
        let tally = hear(&mut pair, reading(16, 0), 1_000, |n| n % 10 != 5);
        assert_eq!((tally.counts.received, tally.counts.lost), (900, 100));
        assert!((20..150).contains(&tally.counts.opened), "{:?}", tally.counts);
    }

    #[test]
    fn what_is_dropped_on_purpose_is_no_loss_and_the_same_each_time() {
        let dropped = || {
            let mut pair = pair(None);
            pair.run();
            let counts = hear(&mut pair, reading(1, u32::MAX / 4), 400, |_| true).counts;
            assert_eq!((counts.lost, counts.received + counts.received_lost_on_purpose), (0, 400));
            counts.received_lost_on_purpose
        };
        let first = dropped();
        assert!((60..140).contains(&first), "{first}");
        assert_eq!(first, dropped());
    }

    #[test]
    fn another_certificate_than_the_announced_one_is_refused() {
        let mut pair = pair(Some([7; 32]));
        assert!(pair.run() >= 1);
        assert!(pair.voice.is_none());
    }

    #[test]
    fn forged_packets_are_counted_and_do_no_harm() {
        let mut pair = pair(None);
        pair.run();
        let hearer = std::cell::RefCell::new((&mut pair.clients[1], Tally::new()));
        proptest::proptest!(|(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200))| {
            let (client, tally) = &mut *hearer.borrow_mut();
            client.receive_media(1, &mut bytes, reading(1, 0), tally);
            proptest::prop_assert_eq!(tally.counts.opened, 0);
        });
        assert_eq!(hear(&mut pair, reading(1, 0), 5, |_| true).counts.opened, 5);
    }
}
