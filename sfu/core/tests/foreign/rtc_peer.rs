//! The sans-IO core of the webrtc crate. It wants descriptions, so the little that it says and needs to hear in SDP is
//! read and written here.

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use bytes::{Bytes, BytesMut};
use rtc::{
    dtls::extension::extension_use_srtp::SrtpProtectionProfile,
    media_stream::MediaStreamTrack,
    peer_connection::{
        RTCPeerConnection, RTCPeerConnectionBuilder,
        configuration::{
            RTCConfigurationBuilder,
            media_engine::{MIME_TYPE_OPUS, MediaEngine},
            setting_engine::SettingEngineBuilder,
        },
        message::RTCMessage,
        sdp::RTCSessionDescription,
        transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate},
    },
    rtp_transceiver::{
        RTCRtpSenderId,
        rtp_sender::{
            RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
        },
    },
    sansio::Protocol,
    shared::{TaggedBytesMut, TransportContext, TransportProtocol},
};
use sfu_core::{DtlsRole, Fingerprint, HeaderProfile, IceCredentials, Joined, SlotSpec, TrackKind};

use super::{Heard, node};
use crate::sim::{Endpoint, World, join, mid, track};

const OWN_SSRC: u32 = 0x7c00;
const SLOTS: usize = 3;

pub(crate) struct RtcPeer {
    connection: RTCPeerConnection,
    sender: RTCRtpSenderId,
    address: SocketAddr,
    joined: Joined,
    pub(crate) track: u32,
    pub(crate) heard: Vec<Heard>,
    sent: u16,
    out: VecDeque<Vec<u8>>,
}

impl RtcPeer {
    pub(crate) fn join(world: &mut World, id: u64, role: DtlsRole, profiles: &[SrtpProtectionProfile]) -> Self {
        let address: SocketAddr = ([192, 0, 2, 201], 5_000 + id as u16).into();
        let (mut connection, sender) = offerer(world.now, address, profiles);
        let offer = connection.create_offer(None).unwrap();
        let sdp = offer.sdp.clone();
        connection.set_local_description(world.now, offer).unwrap();
        let mids = all(&sdp, "a=mid:");
        let ice = IceCredentials { ufrag: first(&sdp, "a=ice-ufrag:"), pwd: first(&sdp, "a=ice-pwd:") };
        let mut request = join(id, ice, fingerprint(&sdp));
        request.dtls_role = role;
        request.profile = HeaderProfile { opus: 111, red: None, audio_level: None, mid: None };
        request.tracks = vec![track(TrackKind::Mic, &mids[0], Some(OWN_SSRC))];
        request.slots = mids[1..].iter().map(|name| SlotSpec { kind: TrackKind::Mic, mid: mid(name) }).collect();
        let joined = world.join(request);
        let answer = answer(world, role, &mids[0], &joined);
        connection.set_remote_description(world.now, RTCSessionDescription::answer(answer).unwrap()).unwrap();
        let track = joined.tracks[0].track.0;
        Self { connection, sender, address, joined, track, heard: Vec::new(), sent: 0, out: VecDeque::new() }
    }

    pub(crate) fn slot(&self, index: usize) -> u32 {
        self.joined.slots[index].ssrc.0
    }

    pub(crate) fn speak(&mut self, now: Instant, payload: &[u8]) {
        let header = rtp::header::Header {
            version: 2,
            payload_type: 111,
            sequence_number: 65_530_u16.wrapping_add(self.sent),
            timestamp: 960 * u32::from(self.sent),
            ssrc: OWN_SSRC,
            ..Default::default()
        };
        self.sent += 1;
        let packet = rtp::packet::Packet { header, payload: Bytes::copy_from_slice(payload) };
        self.connection.rtp_sender(self.sender).unwrap().write_rtp(now, packet).unwrap();
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(datagram) = self.connection.poll_write() {
            self.out.push_back(datagram.message.to_vec());
        }
        while self.connection.poll_event().is_some() {}
        while let Some(tagged) = self.connection.poll_read() {
            if let RTCMessage::RtpPacket(_, packet) = tagged.message {
                self.heard.push(Heard {
                    ssrc: packet.header.ssrc,
                    payload_type: packet.header.payload_type,
                    sequence: packet.header.sequence_number,
                    csrcs: packet.header.csrc.to_vec(),
                    payload: packet.payload.to_vec(),
                });
            }
        }
    }
}

impl Endpoint for RtcPeer {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) {
        let transport = TransportContext {
            local_addr: self.address,
            peer_addr: node(),
            ecn: None,
            transport_protocol: TransportProtocol::UDP,
        };
        let read = self.connection.handle_read(TaggedBytesMut { now, transport, message: BytesMut::from(datagram) });
        read.unwrap();
        self.poll();
    }

    fn timeout(&mut self, now: Instant) {
        self.connection.handle_timeout(now).unwrap();
        self.poll();
    }

    fn transmit(&mut self, _: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        Some((self.address, self.out.pop_front()?))
    }
}

fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: vec![],
    }
}

/// One microphone, then m-lines that only receive.
fn offerer(
    now: Instant,
    address: SocketAddr,
    profiles: &[SrtpProtectionProfile],
) -> (RTCPeerConnection, RTCRtpSenderId) {
    let mut media = MediaEngine::default();
    let parameters = RTCRtpCodecParameters { rtp_codec: opus(), payload_type: 111 };
    media.register_codec(parameters, RtpCodecKind::Audio).unwrap();
    let settings = SettingEngineBuilder::new().with_srtp_protection_profiles(profiles.to_vec()).build();
    let mut connection = RTCPeerConnectionBuilder::new()
        .with_configuration(RTCConfigurationBuilder::new().build())
        .with_setting_engine(settings)
        .with_media_engine(media)
        .build(now)
        .unwrap();
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(OWN_SSRC), ..Default::default() },
        codec: opus(),
        ..Default::default()
    };
    let name = || "microphone".to_owned();
    let microphone = MediaStreamTrack::new(name(), name(), name(), RtpCodecKind::Audio, vec![encoding]);
    let sender = connection.add_track(microphone).unwrap();
    for _ in 0..SLOTS {
        connection.add_transceiver_from_kind(RtpCodecKind::Audio, None).unwrap();
    }
    let base_config = CandidateConfig {
        network: "udp".to_owned(),
        address: address.ip().to_string(),
        port: address.port(),
        component: 1,
        ..Default::default()
    };
    let candidate = CandidateHostConfig { base_config, ..Default::default() }.new_candidate_host().unwrap();
    connection.add_local_candidate(RTCIceCandidate::from(&candidate).to_json().unwrap()).unwrap();
    (connection, sender)
}

fn answer(world: &World, role: DtlsRole, own: &str, joined: &Joined) -> String {
    let Fingerprint::Sha256(digest) = world.fingerprint() else { panic!("node announces SHA-256") };
    let digest = digest.map(|byte| format!("{byte:02X}")).join(":");
    let setup = if role == DtlsRole::Client { "active" } else { "passive" };
    let mids: Vec<&str> = std::iter::once(own).chain(joined.slots.iter().map(|slot| slot.mid.as_str())).collect();
    let mut sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE {}\r\n\
         a=fingerprint:sha-256 {digest}\r\n",
        mids.join(" ")
    );
    for (n, name) in mids.iter().enumerate() {
        let direction = if n == 0 { "recvonly" } else { "sendonly" };
        sdp += &format!(
            "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:{name}\r\na={direction}\r\n\
             a=setup:{setup}\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
             a=candidate:1 1 udp 2130706431 {} {} typ host\r\na=end-of-candidates\r\n",
            joined.local_ice.ufrag,
            joined.local_ice.pwd,
            node().ip(),
            node().port(),
        );
        if n > 0 {
            let ssrc = joined.slots[n - 1].ssrc.0;
            sdp += &format!("a=msid:slot{n} slot{n}\r\na=ssrc:{ssrc} cname:node\r\n");
        }
    }
    sdp
}

fn all(sdp: &str, prefix: &str) -> Vec<String> {
    sdp.lines().filter_map(|line| line.strip_prefix(prefix)).map(|rest| rest.trim().to_owned()).collect()
}

fn first(sdp: &str, prefix: &str) -> String {
    all(sdp, prefix).swap_remove(0)
}

fn fingerprint(sdp: &str) -> Fingerprint {
    let text = first(sdp, "a=fingerprint:sha-256 ");
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    Fingerprint::Sha256(bytes.try_into().unwrap())
}
