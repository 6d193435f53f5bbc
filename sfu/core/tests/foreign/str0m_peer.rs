//! str0m in RTP mode, through its direct API.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use sfu_core::{DtlsRole, HeaderProfile, IceCredentials, Joined, TrackKind};
use str0m::{
    Candidate, Event, Input, Output, Rtc, RtcConfig,
    config::{DtlsVersion, Fingerprint},
    ice::IceCreds,
    media::{MediaKind, Mid},
    net::{Protocol, Receive},
    rtp::{ExtensionValues, RtpWrite, Ssrc},
};

use super::{Heard, node};
use crate::sim::{Endpoint, World, join, slots, track};

const OWN_SSRC: u32 = 0x5170;

pub(crate) struct Str0mPeer {
    rtc: Rtc,
    address: SocketAddr,
    joined: Joined,
    pub(crate) track: u32,
    pub(crate) heard: Vec<Heard>,
    sent: u32,
    wake: Option<Instant>,
    out: VecDeque<Vec<u8>>,
}

impl Str0mPeer {
    pub(crate) fn join(world: &mut World, id: u64, role: DtlsRole, version: DtlsVersion) -> Self {
        let address: SocketAddr = ([192, 0, 2, 200], 5_000 + id as u16).into();
        let mut rtc = RtcConfig::new().set_rtp_mode(true).set_dtls_version(version).build(world.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        rtc.add_remote_candidate(Candidate::host(node(), "udp").unwrap());
        let mut api = rtc.direct_api();
        let local = api.local_ice_credentials();
        let fingerprint = <[u8; 32]>::try_from(&api.local_dtls_fingerprint().bytes[..]).unwrap();
        let local = IceCredentials { ufrag: local.ufrag, pwd: local.pass };
        let mut request = join(id, local, sfu_core::Fingerprint::Sha256(fingerprint));
        request.dtls_role = role;
        // The ids of str0m's own defaults.
        request.profile = HeaderProfile { opus: 111, red: None, audio_level: Some(1), mid: Some(4) };
        request.tracks = vec![track(TrackKind::Mic, "own", None)];
        request.slots = slots(3, 1);
        let joined = world.join(request);
        api.set_ice_controlling(true);
        let remote = &joined.local_ice;
        api.set_remote_ice_credentials(IceCreds { ufrag: remote.ufrag.clone(), pass: remote.pwd.clone() });
        let sfu_core::Fingerprint::Sha256(bytes) = world.fingerprint() else { panic!("node announces SHA-256") };
        api.set_remote_fingerprint(Fingerprint { hash_func: "sha-256".into(), bytes: bytes.to_vec() });
        api.start_dtls(role == DtlsRole::Server).unwrap();
        let own: Mid = "own".into();
        api.declare_media(own, MediaKind::Audio);
        api.declare_stream_tx(OWN_SSRC.into(), None, own, None);
        for slot in &joined.slots {
            let mid: Mid = slot.mid.as_str().into();
            api.declare_media(mid, MediaKind::Audio);
            api.expect_stream_rx(slot.ssrc.0.into(), None, mid, None);
        }
        let track = joined.tracks[0].track.0;
        let mut peer =
            Self { rtc, address, joined, track, heard: Vec::new(), sent: 0, wake: None, out: VecDeque::new() };
        peer.timeout(world.now);
        peer
    }

    pub(crate) fn slot(&self, index: usize) -> u32 {
        self.joined.slots[index].ssrc.0
    }

    pub(crate) fn speak(&mut self, now: Instant, payload: &[u8]) {
        let ssrc: Ssrc = OWN_SSRC.into();
        let (sequence, timestamp) = (u64::from(500 + self.sent), 960 * self.sent);
        self.sent += 1;
        let levels = ExtensionValues { audio_level: Some(-30), voice_activity: Some(false), ..Default::default() };
        let packet = RtpWrite::new(111.into(), sequence.into(), timestamp, now, payload.to_vec()).ext_vals(levels);
        self.rtc.direct_api().stream_tx(&ssrc).unwrap().write_rtp(packet);
        self.poll();
    }

    fn poll(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => {
                    self.wake = Some(at);
                    break;
                }
                Output::Transmit(transmit) => self.out.push_back(transmit.contents.to_vec()),
                Output::Event(Event::RtpPacket(packet)) => self.heard.push(Heard {
                    ssrc: *packet.header.ssrc,
                    payload_type: *packet.header.payload_type,
                    sequence: packet.header.sequence_number,
                    csrcs: packet.header.csrc[..packet.header.csrc_count].to_vec(),
                    payload: packet.payload.to_vec(),
                }),
                Output::Event(_) => {}
            }
        }
    }
}

impl Endpoint for Str0mPeer {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) {
        let receive = Receive::new(Protocol::Udp, node(), self.address, datagram).unwrap();
        self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
        self.poll();
    }

    fn timeout(&mut self, now: Instant) {
        if self.wake.is_none_or(|at| at <= now + Duration::from_millis(10)) {
            self.rtc.handle_input(Input::Timeout(now)).unwrap();
            self.poll();
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        Some((self.address, self.out.pop_front()?))
    }
}
