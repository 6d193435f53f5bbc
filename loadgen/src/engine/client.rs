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
    Connected(Option<Voice>),
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

    fn install(&mut self, profile: Profile, keys: &Keys) -> Option<Option<Voice>> {
        let (ours, theirs) =
            if self.we_are_dtls_client { (&keys.client, &keys.server) } else { (&keys.server, &keys.client) };
        self.opener = Some(Opener::new(profile, theirs, SSRCS_MAX).ok()?);
        let Some(format) = self.format else { return Some(None) };
        let sealer = Sealer::new(profile, ours).ok()?;
        Some(Some(Voice::new(sealer, format, self.ssrc)))
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
        if self.has_heard && mix(self.seed ^ self.packets) % reading.open_one_in != 0 {
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
