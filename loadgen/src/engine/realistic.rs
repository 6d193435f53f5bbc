//! The realistic slice: complete peers of a foreign stack (str0m) with SDP of their own, each a task with a socket. They
//! find what our bulk clients and our node would get wrong together. They only listen, and cost twenty times a bulk client.

use std::net::{IpAddr, SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event as RtcEvent, Input, Output, Rtc, RtcConfig};
use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use super::stamp::{STAMPED_BYTES_MIN, Stamp};
use super::stream::Streams;
use super::switchboard::{Event, EventKind, Switchboard};
use super::tally::Tally;
use super::worker::Setting;
use crate::sdp::{self, SdpError};
use crate::targets::{BareEndpoint, Endpoint};

const DATAGRAM_BYTES_MAX: usize = 2000;
const HAND_OVER_INTERVAL: Duration = Duration::from_millis(200);

pub(super) struct Peer {
    rtc: Rtc,
    pending: Option<SdpPendingOffer>,
    /// From the first description on.
    socket: Option<(UdpSocket, SocketAddr)>,
    /// Where signalling is.
    host: String,
    slots: u32,
    /// Addresses elsewhere than on loopback may be sent to.
    owns_target: bool,
}

impl Peer {
    pub(super) fn new(slots: u32, host: String, owns_target: bool) -> Self {
        let rtc = RtcConfig::new().set_rtp_mode(true).clear_codecs().enable_opus(true, false).build(Instant::now());
        Self { rtc, pending: None, socket: None, host, slots, owns_target }
    }

    /// Its one candidate is the address from which the kernel would send to `remote`: that of signalling when we offer,
    /// that of media when we answer.
    fn attach(&mut self, remote: &str) -> std::io::Result<()> {
        let socket = StdSocket::bind(SocketAddr::new(local_address(remote)?, 0))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let address = socket.local_addr()?;
        self.rtc.add_local_candidate(Candidate::host(address, "udp").map_err(std::io::Error::other)?);
        self.socket = Some((socket, address));
        Ok(())
    }

    /// Until it is over or dropped.
    pub(super) async fn run(mut self: Box<Self>, link: usize, room: u32, setting: Arc<Setting>) {
        let mut life = Life::new(link, room);
        let Some((socket, address)) = self.socket.take() else { return life.end(&setting.board) };
        let mut buf = vec![0; DATAGRAM_BYTES_MAX];
        while let Some(wake) = self.drain(&socket, &mut life, &setting.board) {
            life.hand_over(&setting.board);
            let received = tokio::select! {
                received = socket.recv_from(&mut buf) => received.ok(),
                () = sleep_until(wake.min(Instant::now() + HAND_OVER_INTERVAL).into()) => None,
            };
            let now = Instant::now();
            let input = match &received {
                Some((len, from)) => match Receive::new(Protocol::Udp, *from, address, &buf[..*len]) {
                    Ok(receive) => Input::Receive(now, receive),
                    Err(_) => continue,
                },
                None => Input::Timeout(now),
            };
            if self.rtc.handle_input(input).is_err() {
                break;
            }
        }
        life.end(&setting.board);
    }

    /// Everything that the stack has to say; `None` when it is over.
    fn drain(&mut self, socket: &UdpSocket, life: &mut Life, board: &Switchboard) -> Option<Instant> {
        loop {
            match self.rtc.poll_output().ok()? {
                Output::Timeout(at) => return self.rtc.is_alive().then_some(at),
                Output::Transmit(transmit) => {
                    if self.owns_target || transmit.destination.ip().to_canonical().is_loopback() {
                        // A full queue loses a packet, as networks do.
                        let _ = socket.try_send_to(&transmit.contents, transmit.destination);
                    }
                }
                Output::Event(event) => life.take(event, board),
            }
        }
    }
}

/// What became of one peer.
struct Life {
    link: usize,
    room: u32,
    began_at: Instant,
    path_valid_at: Instant,
    connected_at: Option<Instant>,
    has_heard: bool,
    streams: Streams,
    tally: Tally,
    phase: usize,
    handed_over: Instant,
}

impl Life {
    fn new(link: usize, room: u32) -> Self {
        let now = Instant::now();
        Self {
            link,
            room,
            began_at: now,
            path_valid_at: now,
            connected_at: None,
            has_heard: false,
            streams: Streams::default(),
            tally: Tally::new(),
            phase: 0,
            handed_over: now,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "of many events of the stack three are told")]
    fn take(&mut self, event: RtcEvent, board: &Switchboard) {
        let now = Instant::now();
        match event {
            RtcEvent::IceConnectionStateChange(state) if !state.is_disconnected() && self.connected_at.is_none() => {
                self.path_valid_at = now;
            }
            RtcEvent::Connected => {
                self.connected_at = Some(now);
                board.add_hearer(self.room);
                let ice = self.path_valid_at.saturating_duration_since(self.began_at);
                let dtls = now.saturating_duration_since(self.path_valid_at);
                self.tell(EventKind::Connected { at: now, ice, dtls, address: None }, board);
            }
            RtcEvent::RtpPacket(packet) => {
                let change = self.streams.take(*packet.header.ssrc, packet.header.sequence_number);
                self.tally.take(change);
                if change.duplicated {
                    return;
                }
                self.hear(board.nanos(now), &packet.payload);
                if let (false, Some(connected)) = (self.has_heard, self.connected_at) {
                    self.has_heard = true;
                    self.tell(EventKind::FirstPacket(now.saturating_duration_since(connected)), board);
                }
            }
            _ => {}
        }
    }

    fn hear(&mut self, now_ns: u64, payload: &[u8]) {
        let counts = &mut self.tally.counts;
        counts.received += 1;
        counts.received_bytes += payload.len() as u64;
        counts.opened += 1;
        match Stamp::read(payload) {
            Some(stamp) => self.tally.delay.record_ns(now_ns.saturating_sub(stamp.sent_ns)),
            None if payload.len() < STAMPED_BYTES_MIN => {}
            None => counts.unreadable += 1,
        }
    }

    fn tell(&self, kind: EventKind, board: &Switchboard) {
        board.tell(&mut vec![Event { link: self.link, kind }]);
    }

    fn hand_over(&mut self, board: &Switchboard) {
        let phase = board.phase();
        if phase != self.phase || self.handed_over.elapsed() >= HAND_OVER_INTERVAL {
            board.hand_over_realistic(self.phase, &mut self.tally);
            (self.phase, self.handed_over) = (phase, Instant::now());
        }
    }

    fn end(mut self, board: &Switchboard) {
        board.hand_over_realistic(self.phase, &mut self.tally);
        let kind = if self.connected_at.is_some() { EventKind::Lost } else { EventKind::Failed("realistic_failed") };
        if self.connected_at.is_some() {
            board.remove_hearer(self.room);
        }
        self.tell(kind, board);
    }
}

impl Endpoint for Peer {
    fn offer(&mut self) -> Result<String, SdpError> {
        let host = self.host.clone();
        self.attach(&host).map_err(refused)?;
        let mut api = self.rtc.sdp_api();
        for _ in 0..self.slots {
            api.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        }
        let (offer, pending) = api.apply().ok_or(SdpError::NoOffer)?;
        self.pending = Some(pending);
        Ok(offer.to_sdp_string())
    }

    fn take_answer(&mut self, sdp: &str) -> Result<(), SdpError> {
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(refused)?;
        let pending = self.pending.take().ok_or(SdpError::NoOffer)?;
        self.rtc.sdp_api().accept_answer(pending, answer).map_err(refused)
    }

    fn answer(&mut self, offer: &str) -> Result<String, SdpError> {
        let remote = sdp::read_offer(offer)?.address;
        self.attach(&remote.to_string()).map_err(refused)?;
        let offer = SdpOffer::from_sdp_string(offer).map_err(refused)?;
        let answer = self.rtc.sdp_api().accept_offer(offer).map_err(refused)?;
        Ok(answer.to_sdp_string())
    }

    fn bare(&mut self) -> Option<&mut dyn BareEndpoint> {
        None
    }
}

fn refused(error: impl std::fmt::Display) -> SdpError {
    SdpError::Refused(error.to_string())
}

/// From which the kernel would send to that host.
fn local_address(host: &str) -> std::io::Result<IpAddr> {
    let probe = |any: &str| {
        let socket = StdSocket::bind(any)?;
        socket.connect(host)?;
        Ok(socket.local_addr()?.ip())
    };
    probe("0.0.0.0:0").or_else(|_: std::io::Error| probe("[::]:0"))
}
