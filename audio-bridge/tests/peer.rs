//! The media connection against a second one in the same process, over loopback: what is sent arrives as it was
//! numbered and timed, and a voice that is received is played.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use audio_bridge::playout::Playout;
use audio_bridge::synthetic::{Tone, amplitude_at};
use audio_bridge::webrtc::{Peer, PeerState, ProgramPacket};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::peer_connection::configuration::media_engine::MIME_TYPE_OPUS;
use rtc::rtp;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use signaling_protocol::MediaRole;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use webrtc::media_stream::MediaStreamTrack;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceGatheringState,
    RTCSessionDescription, SettingEngineBuilder, SrtpProtectionProfile,
};

const PATIENCE: Duration = Duration::from_secs(60);
const PROGRAM_SSRC: u32 = 4711;
const VOICE_SSRC: u32 = 815;

/// Plays the node.
struct Node {
    connection: Arc<dyn PeerConnection>,
    voice: Arc<TrackLocalStaticRTP>,
    gathered: watch::Receiver<bool>,
    received: mpsc::Receiver<rtp::Packet>,
}

struct Handler {
    gathered: watch::Sender<bool>,
    received: mpsc::Sender<rtp::Packet>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.gathered.send_replace(state == RTCIceGatheringState::Complete);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let received = self.received.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event
                    && received.send(packet).await.is_err()
                {
                    return;
                }
            }
        });
    }
}

fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: Vec::new(),
    }
}

fn track(name: &str, ssrc: u32) -> Arc<TrackLocalStaticRTP> {
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..RTCRtpCodingParameters::default() },
        codec: opus(),
        ..RTCRtpEncodingParameters::default()
    };
    let [stream, id, label] = ["room", name, name].map(str::to_owned);
    Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(stream, id, label, RtpCodecKind::Audio, vec![encoding])))
}

impl Node {
    async fn new(profiles: Vec<SrtpProtectionProfile>) -> Self {
        let mut media_engine = MediaEngine::default();
        let codec = RTCRtpCodecParameters { rtp_codec: opus(), payload_type: 111 };
        media_engine.register_codec(codec, RtpCodecKind::Audio).expect("codec");
        // A machine that has nothing but loopback has no multicast.
        let settings = SettingEngineBuilder::new()
            .with_srtp_protection_profiles(profiles)
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .build();
        let (gathered_writer, gathered) = watch::channel(false);
        let (received_writer, received) = mpsc::channel(256);
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(media_engine)
            .with_setting_engine(settings)
            .with_handler(Arc::new(Handler { gathered: gathered_writer, received: received_writer }))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await
            .expect("connection");
        let coding = RTCRtpCodingParameters { ssrc: Some(VOICE_SSRC), ..RTCRtpCodingParameters::default() };
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: coding,
            codec: opus(),
            ..RTCRtpEncodingParameters::default()
        };
        let names = ["room", "voice", "voice"].map(str::to_owned);
        let [stream, id, label] = names;
        let track = MediaStreamTrack::new(stream, id, label, RtpCodecKind::Audio, vec![encoding]);
        Self {
            connection: Arc::new(connection),
            voice: Arc::new(TrackLocalStaticRTP::new(track)),
            gathered,
            received,
        }
    }

    async fn answer(&mut self, offer: String) -> String {
        let offer = RTCSessionDescription::offer(offer).expect("an offer");
        self.connection.set_remote_description(offer).await.expect("takes the offer");
        // The library takes the m-lines in order; the first one only receives program sound.
        for track in [track("unused", 1), Arc::clone(&self.voice)] {
            self.connection.add_track(track as Arc<dyn TrackLocal>).await.expect("a slot is free");
        }
        let answer = self.connection.create_answer(None).await.expect("answers");
        self.connection.set_local_description(answer).await.expect("uses its answer");
        timeout(PATIENCE, self.gathered.wait_for(|done| *done)).await.expect("in time").expect("gathers");
        self.connection.local_description().await.expect("described").sdp
    }

    /// One packet of a voice.
    async fn say(&self, n: u32, payload: Vec<u8>) {
        let header = rtp::Header {
            version: 2,
            payload_type: 111,
            sequence_number: n as u16,
            timestamp: n * 960,
            ssrc: VOICE_SSRC,
            csrc: vec![42],
            ..rtp::Header::default()
        };
        self.voice.write_rtp(rtp::Packet { header, payload: payload.into() }).await.expect("sends");
    }
}

async fn call(node: &mut Node) -> (Peer, Arc<Mutex<Playout>>) {
    let playout = Arc::new(Mutex::new(Playout::default()));
    let (peer, offer) = Peer::offer(PROGRAM_SSRC, &[], Some(Arc::clone(&playout))).await.expect("offers");
    assert_eq!(offer.media.iter().filter(|media| media.use_ == MediaRole::Program).count(), 1);
    let answer = node.answer(offer.sdp).await;
    peer.answer(answer).await.expect("takes the answer");
    (peer, playout)
}

async fn connected(peer: &Peer) -> bool {
    let mut state = peer.state();
    let up = state.wait_for(|state| *state != PeerState::Connecting);
    matches!(timeout(PATIENCE, up).await, Ok(Ok(state)) if *state == PeerState::Connected)
}

/// Numbers of packets that only ask whether the other end receives.
const FIRST_PROBE: u16 = 60_000;
const FIRST_NUMBER: u16 = 65_530;

/// Sends until the other end, whose keys may come later than ours, receives.
async fn first_packet(peer: &Peer, node: &mut Node) {
    let mut sequence = FIRST_PROBE;
    loop {
        peer.send(ProgramPacket { red: false, marker: false, sequence, timestamp: 0, payload: vec![0; 40] }).await;
        sequence += 1;
        if timeout(Duration::from_millis(50), node.received.recv()).await.is_ok() {
            break;
        }
    }
    while timeout(Duration::from_millis(200), node.received.recv()).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn program_packets_keep_their_numbers_times_and_markers() {
    for profile in [SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm] {
        let mut node = Node::new(vec![profile]).await;
        let (peer, _) = call(&mut node).await;
        assert!(connected(&peer).await, "{profile:?}");
        first_packet(&peer, &mut node).await;
        for n in 0..20_u32 {
            let packet = ProgramPacket {
                red: false,
                marker: n == 0,
                sequence: FIRST_NUMBER.wrapping_add(n as u16),
                timestamp: n * 480 + if n >= 10 { 48_000 } else { 0 },
                payload: vec![n as u8; 40],
            };
            assert!(peer.send(packet).await);
        }
        for n in 0..20_u32 {
            let packet = loop {
                let packet = timeout(PATIENCE, node.received.recv()).await.expect("in time").expect("received");
                // On a machine that stalls the last probes come late.
                if !(FIRST_PROBE..FIRST_NUMBER).contains(&packet.header.sequence_number) {
                    break packet;
                }
            };
            let header = packet.header;
            assert_eq!((header.ssrc, header.payload_type, header.marker), (PROGRAM_SSRC, 111, n == 0));
            assert_eq!(header.sequence_number, FIRST_NUMBER.wrapping_add(n as u16));
            assert_eq!(header.timestamp, n * 480 + if n >= 10 { 48_000 } else { 0 });
            assert_eq!(packet.payload[..], vec![n as u8; 40]);
        }
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_in_a_slot_is_played() {
    let mut node = Node::new(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm]).await;
    let (peer, playout) = call(&mut node).await;
    assert!(connected(&peer).await);
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).expect("encoder");
    let mut tone = Tone::new(1000.0, 8000.0);
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut heard, mut best) = (Vec::new(), 0.0);
    // Three seconds do; where the machine stalls all the time, up to thirty.
    for n in 0..1_500 {
        ticks.tick().await;
        let mut pcm = [0; 960];
        tone.fill(&mut pcm);
        node.say(n, encoder.encode_vec(&pcm, 400).expect("encodes")).await;
        let mut out = [0; 960];
        playout.lock().expect("not poisoned").fill(Instant::now(), &mut out);
        heard.extend_from_slice(&out);
        if heard.len() == 4_800 {
            best = amplitude_at(&heard, 1000.0).max(best);
            heard.clear();
        }
        if n >= 150 && best > 7_200.0 {
            break;
        }
    }
    assert!((best - 8000.0).abs() < 800.0, "amplitude {best:.0}");
}

/// A machine that stalls for the six seconds of ICE may take one end for the other; hardly three times.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_dtls_is_told_as_what_it_is_and_before_ice_misses_anything() {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut node = Node::new(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm]).await;
        let (peer, _) = call(&mut node).await;
        assert!(connected(&peer).await);
        first_packet(&peer, &mut node).await;
        node.connection.close().await.expect("closes");
        let mut state = peer.state();
        let over = state.wait_for(|state| state.is_over());
        seen.push(*timeout(PATIENCE, over).await.expect("in time").expect("told"));
        if seen.ends_with(&[PeerState::Closed]) {
            return;
        }
    }
    panic!("{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_aes_gcm_is_not_talked_to() {
    let mut node = Node::new(vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80]).await;
    let (peer, _) = call(&mut node).await;
    let up = timeout(Duration::from_secs(3), connected(&peer)).await;
    assert!(!matches!(up, Ok(true)), "connected without AES-GCM");
}
