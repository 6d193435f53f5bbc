//! The media connection: one offer with program sound to send and, in a room, speech slots to receive. SRTP has AES-GCM, and
//! with a server that is none of ours also what every WebRTC server has to have. The only file that names the WebRTC library. Signalling is not its business, nor when to connect again.
//!
//! The node is ICE-lite and needs no candidates of ours; sockets are bound to every interface and to loopback, so that
//! a node on the same machine is reached as well. Of the relays that signalling names, those over UDP are used: the library
//! has no TURN over TCP or TLS.

mod closing;
mod reports;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ::webrtc::error::Error as WebRtcError;
use ::webrtc::media_stream::MediaStreamTrack;
use ::webrtc::media_stream::track_local::TrackLocal;
use ::webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use ::webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use ::webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceGatheringState, RTCIceServer, RTCPeerConnectionState, RTCSessionDescription, Registry,
    SettingEngineBuilder, SrtpProtectionProfile, configure_rtcp_reports,
};
use ::webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::Slot;
use rtc::peer_connection::configuration::media_engine::MIME_TYPE_OPUS;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use signaling_protocol::{IceServer, MediaUse};
use tokio::sync::watch;

use crate::jitter::Packet;
use crate::offer;
use crate::pcm::SAMPLE_RATE;
use crate::playout::{Playout, SlotPacket};
use crate::red::{self, Unwrapped};
use closing::Closing;
use reports::{Loss, Reports};

/// The payload type of Chromium's offers, so that captures look familiar.
pub const OPUS_PAYLOAD_TYPE: u8 = 111;
const RED_PAYLOAD_TYPE: u8 = 63;
const MIME_TYPE_RED: &str = "audio/red";
const OPUS_PARAMETERS: &str = "minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1";
/// Voices of a room at the same time; the node leaves those beyond its own number silent.
const SPEECH_SLOTS: usize = 8;
/// Host candidates are there at once; a relay that does not answer must not hold up the offer.
const GATHERING_TIMEOUT: Duration = Duration::from_secs(3);
/// Lost after 2 s without an answer, given up 4 s later: a new connection takes less than a second.
const ICE_DISCONNECTED: Duration = Duration::from_secs(2);
const ICE_FAILED: Duration = Duration::from_secs(4);
const ICE_KEEPALIVE: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("media library refused to {doing}")]
    Library {
        doing: &'static str,
        #[source]
        source: WebRtcError,
    },
    #[error("no local description after gathering candidates")]
    NoDescription,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    Connecting,
    Connected,
    /// Will not come back: a new peer is needed.
    Lost,
    /// Likewise, and it was the other side that ended it.
    Closed,
}

impl PeerState {
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Lost | Self::Closed)
    }

    /// Makes it the state, unless that is a last one.
    fn tell(self, state: &watch::Sender<Self>) {
        state.send_if_modified(|current| {
            let changed = !current.is_over() && *current != self;
            if changed {
                *current = self;
            }
            changed
        });
    }
}

/// One media connection and its offer.
pub struct Peer {
    connection: Arc<dyn PeerConnection>,
    program: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
    state: watch::Receiver<PeerState>,
    state_writer: watch::Sender<PeerState>,
    closing: OnceLock<Closing>,
    takes_red: AtomicBool,
    loss: Loss,
}

/// The offer, as signalling wants it.
#[derive(Clone, Debug)]
pub struct Offer {
    pub sdp: String,
    pub media: Vec<MediaUse>,
}

/// What a packet of program sound consists of; the stream is the peer's own.
#[derive(Clone, Debug)]
pub struct ProgramPacket {
    /// The payload is RED around Opus.
    pub red: bool,
    pub marker: bool,
    pub sequence: u16,
    pub timestamp: u32,
    pub payload: Vec<u8>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

impl Peer {
    /// Prepares a connection that sends the stream `ssrc` and plays what it receives into `voices`; without them it only sends.
    pub async fn offer(
        ssrc: u32,
        ice_servers: &[IceServer],
        voices: Option<Arc<Mutex<Playout>>>,
    ) -> Result<(Self, Offer), PeerError> {
        let (state_writer, state) = watch::channel(PeerState::Connecting);
        let (gathered_writer, mut gathered) = watch::channel(false);
        let slots = if voices.is_some() { SPEECH_SLOTS } else { 0 };
        let handler = Handler { state: state_writer.clone(), gathered: gathered_writer, voices };
        let loss = Loss::default();
        let connection = connect(ice_servers, Reports::new(ssrc, loss.clone()), handler).await?;
        let program = program_track(ssrc);
        add_media(connection.as_ref(), &program, slots).await?;
        let (closing, takes_red) = (OnceLock::new(), AtomicBool::new(false));
        let peer = Self { connection, program, ssrc, state, state_writer, closing, takes_red, loss };

        let offer = peer.connection.create_offer(None).await.map_err(refused("create an offer"))?;
        peer.connection.set_local_description(offer).await.map_err(refused("use its own offer"))?;
        // What was gathered until the limit is offered.
        let _ = tokio::time::timeout(GATHERING_TIMEOUT, gathered.wait_for(|done| *done)).await;
        let description = peer.connection.local_description().await.ok_or(PeerError::NoDescription)?;
        let offer =
            Offer { media: offer::media_uses(&description.sdp), sdp: offer::with_mono_speech(&description.sdp) };
        Ok((peer, offer))
    }

    pub async fn answer(&self, sdp: String) -> Result<(), PeerError> {
        self.takes_red.store(offer::has_red(&sdp, RED_PAYLOAD_TYPE), Ordering::Relaxed);
        let answer = RTCSessionDescription::answer(sdp).map_err(refused("read the answer"))?;
        self.connection.set_remote_description(answer).await.map_err(refused("use the answer"))?;
        let closing = Closing::watch(self.connection.as_ref(), self.state_writer.clone()).await;
        if let Some(closing) = closing.map_err(refused("show its DTLS transport"))? {
            // A second answer is one for the same transport.
            let _ = self.closing.set(closing);
        }
        Ok(())
    }

    #[must_use]
    pub fn state(&self) -> watch::Receiver<PeerState> {
        self.state.clone()
    }

    /// Whether the node negotiated redundancy.
    #[must_use]
    pub fn takes_red(&self) -> bool {
        self.takes_red.load(Ordering::Relaxed)
    }

    /// Says whether the packet was taken.
    pub async fn send(&self, packet: ProgramPacket) -> bool {
        let header = rtc::rtp::Header {
            version: 2,
            marker: packet.marker,
            payload_type: if packet.red { RED_PAYLOAD_TYPE } else { OPUS_PAYLOAD_TYPE },
            sequence_number: packet.sequence,
            timestamp: packet.timestamp,
            ssrc: self.ssrc,
            ..rtc::rtp::Header::default()
        };
        self.program.write_rtp(rtc::rtp::Packet { header, payload: packet.payload.into() }).await.is_ok()
    }

    /// The share of packets (0 to 1) that the node missed according to its last report; `None` before the first.
    #[must_use]
    pub fn fraction_lost(&self) -> Option<f64> {
        self.loss.fraction()
    }

    pub async fn close(&self) {
        if let Some(closing) = self.closing.get() {
            closing.stop();
        }
        if let Err(error) = self.connection.close().await {
            tracing::debug!(%error, "Media connection did not close cleanly");
        }
    }
}

async fn connect(
    ice_servers: &[IceServer],
    reports: Reports,
    handler: Handler,
) -> Result<Arc<dyn PeerConnection>, PeerError> {
    let mut profiles =
        vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm, SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm];
    if handler.voices.is_none() {
        // No room, so a server of somebody's: this is the one that none may lack (RFC 8827 section 6.5).
        profiles.push(SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80);
    }
    let mut media_engine = MediaEngine::default();
    let codec = RTCRtpCodecParameters { rtp_codec: opus(), payload_type: OPUS_PAYLOAD_TYPE };
    media_engine.register_codec(codec, RtpCodecKind::Audio).map_err(refused("use Opus"))?;
    let codec = RTCRtpCodecParameters { rtp_codec: redundancy_codec(), payload_type: RED_PAYLOAD_TYPE };
    media_engine.register_codec(codec, RtpCodecKind::Audio).map_err(refused("use redundancy"))?;
    let settings = SettingEngineBuilder::new()
        .with_srtp_protection_profiles(profiles)
        .with_ice_timeouts(Some(ICE_DISCONNECTED), Some(ICE_FAILED), Some(ICE_KEEPALIVE))
        .with_include_loopback_candidate(true)
        // The node's addresses are no .local names, and a machine that has nothing but loopback has no multicast either.
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .build();
    let configuration = RTCConfigurationBuilder::new().with_ice_servers(relays(ice_servers)).build();
    let connection = PeerConnectionBuilder::new()
        .with_configuration(configuration)
        .with_media_engine(media_engine)
        .with_setting_engine(settings)
        .with_interceptor_registry(configure_rtcp_reports(Registry::new()).with(Slot::from(reports::SLOT), reports))
        .with_handler(Arc::new(handler))
        .with_udp_addrs(local_addresses())
        .build()
        .await
        .map_err(refused("make a connection"))?;
    Ok(Arc::new(connection))
}

async fn add_media(
    connection: &dyn PeerConnection,
    program: &Arc<TrackLocalStaticRTP>,
    slots: usize,
) -> Result<(), PeerError> {
    let direction =
        |direction| Some(RTCRtpTransceiverInit { direction, streams: Vec::new(), send_encodings: Vec::new() });
    let track: Arc<dyn TrackLocal> = Arc::<TrackLocalStaticRTP>::clone(program);
    connection
        .add_transceiver_from_track(track, direction(RTCRtpTransceiverDirection::Sendonly))
        .await
        .map_err(refused("send program sound"))?;
    for _ in 0..slots {
        connection
            .add_transceiver_from_kind(RtpCodecKind::Audio, direction(RTCRtpTransceiverDirection::Recvonly))
            .await
            .map_err(refused("receive voices"))?;
    }
    Ok(())
}

fn program_track(ssrc: u32) -> Arc<TrackLocalStaticRTP> {
    let coding = RTCRtpCodingParameters { ssrc: Some(ssrc), ..RTCRtpCodingParameters::default() };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: coding,
        codec: opus(),
        ..RTCRtpEncodingParameters::default()
    };
    Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
        "desktop".to_owned(),
        "program".to_owned(),
        "Desktop sound".to_owned(),
        RtpCodecKind::Audio,
        vec![encoding],
    )))
}

fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: SAMPLE_RATE,
        channels: 2,
        sdp_fmtp_line: OPUS_PARAMETERS.to_owned(),
        rtcp_feedback: Vec::new(),
    }
}

/// Redundancy over Opus (RFC 2198), as Chromium offers it.
fn redundancy_codec() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_RED.to_owned(),
        clock_rate: SAMPLE_RATE,
        channels: 2,
        sdp_fmtp_line: format!("{OPUS_PAYLOAD_TYPE}/{OPUS_PAYLOAD_TYPE}"),
        rtcp_feedback: Vec::new(),
    }
}

/// The relays among the servers that the library can use: over UDP, with a credential. It has no TURN over TCP or TLS, and
/// refuses the whole configuration for one entry without a credential. Beside them STUN servers that stand alone: who names
/// one in the desktop's environment wants it.
fn relays(ice_servers: &[IceServer]) -> Vec<RTCIceServer> {
    let is_usable = |url: &&String| url.starts_with("turn:") && !url.ends_with("=tcp");
    ice_servers
        .iter()
        .filter_map(|server| {
            if server.credential.is_none()
                && !server.urls.is_empty()
                && server.urls.iter().all(|url| url.starts_with("stun:"))
            {
                return Some(RTCIceServer { urls: server.urls.clone(), ..RTCIceServer::default() });
            }
            let urls: Vec<String> = server.urls.iter().filter(is_usable).cloned().collect();
            let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
            let (username, credential) = filled(&server.username).zip(filled(&server.credential))?;
            (!urls.is_empty()).then_some(RTCIceServer { urls, username, credential })
        })
        .collect()
}

/// Every interface, and loopback, which the library leaves out of "every". Families that this machine does not have are
/// left out.
fn local_addresses() -> Vec<String> {
    ["0.0.0.0:0", "127.0.0.1:0", "[::]:0", "[::1]:0"]
        .into_iter()
        .filter(|address| UdpSocket::bind(address).is_ok())
        .map(str::to_owned)
        .collect()
}

struct Handler {
    state: watch::Sender<PeerState>,
    gathered: watch::Sender<bool>,
    voices: Option<Arc<Mutex<Playout>>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        self.gathered.send_replace(state == RTCIceGatheringState::Complete);
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        tracing::debug!(%state, "State of the media library changed");
        let state = match state {
            RTCPeerConnectionState::Connected => PeerState::Connected,
            RTCPeerConnectionState::Failed | RTCPeerConnectionState::Closed => PeerState::Lost,
            RTCPeerConnectionState::Disconnected
            | RTCPeerConnectionState::Connecting
            | RTCPeerConnectionState::New
            | RTCPeerConnectionState::Unspecified
            | _ => PeerState::Connecting,
        };
        state.tell(&self.state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        if let Some(voices) = &self.voices {
            tokio::spawn(receive(track, Arc::clone(voices)));
        }
    }
}

/// Hands the packets of one slot to the playout until the connection ends.
async fn receive(track: Arc<dyn TrackRemote>, playout: Arc<Mutex<Playout>>) {
    while let Some(event) = track.poll().await {
        let TrackRemoteEvent::OnRtpPacket(packet) = event else { continue };
        let rtc::rtp::Packet { header, payload } = packet;
        let (sequence, timestamp) = (header.sequence_number, header.timestamp);
        let unwrapped = match header.payload_type {
            OPUS_PAYLOAD_TYPE => {
                let primary = Packet { sequence, timestamp, payload: payload.to_vec() };
                Some(Unwrapped { primary, earlier: Vec::new() })
            }
            RED_PAYLOAD_TYPE => red::unwrap(OPUS_PAYLOAD_TYPE, sequence, timestamp, &payload),
            _ => None,
        };
        let Some(Unwrapped { primary: packet, earlier }) = unwrapped else { continue };
        let source = header.csrc.first().copied();
        let slot = SlotPacket { slot: header.ssrc, source, packet, earlier };
        playout.lock().unwrap_or_else(PoisonError::into_inner).receive(Instant::now(), slot);
    }
}

fn refused(doing: &'static str) -> impl FnOnce(WebRtcError) -> PeerError {
    move |source| PeerError::Library { doing, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(urls: &[&str], credential: Option<&str>) -> IceServer {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        IceServer { urls, username: Some("1900000000:ada".to_owned()), credential: credential.map(str::to_owned) }
    }

    #[test]
    fn relays_over_udp_with_a_credential_and_lone_stun_servers_are_used() {
        let mixed =
            ["stun:r:3478", "turn:r:3478?transport=udp", "turn:r:3478?transport=tcp", "turns:r:5349?transport=tcp"];
        let usable = relays(&[
            server(&mixed, Some("c2VjcmV0")),
            server(&["turn:bare:3478"], Some("c2VjcmV0")),
            server(&["turn:without:3478"], None),
            server(&["turn:empty:3478"], Some("")),
            server(&["turns:secure:5349"], Some("c2VjcmV0")),
            server(&["stun:alone:3478"], None),
        ]);
        let urls: Vec<_> = usable.iter().flat_map(|server| &server.urls).collect();
        assert_eq!(urls, ["turn:r:3478?transport=udp", "turn:bare:3478", "stun:alone:3478"]);
    }

    #[tokio::test]
    async fn a_connection_is_made_whatever_the_servers_are() {
        let (state, _) = watch::channel(PeerState::Connecting);
        let (gathered, _) = watch::channel(false);
        let handler = Handler { state, gathered, voices: None };
        let servers =
            [server(&["turns:[::1"], Some("x")), server(&["turn:r:3478?transport=tcp"], None), server(&[], None)];
        assert!(connect(&servers, Reports::new(1, Loss::default()), handler).await.is_ok());
    }
}
