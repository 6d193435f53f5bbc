//! One participant's connection: its ICE agent, its DTLS channel, the opening half of SRTP, and its tracks. The sealing
//! half lies in the room, beside the other listeners. This is the only file that names the DTLS library.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dimpl::{Config, Dtls, DtlsCertificate};
use srtp::{Keys, Opener, Profile};

use crate::{
    Certificate, DtlsRole, Fingerprint, HeaderProfile, NodeError, PeerId,
    dtls::{Channel, Handshake, HandshakeFailed, Output},
    handshake::Secure,
    hello::{self, Hello},
    ice::Agent,
    protection::Protection,
    report::Hearing,
    track::{Allowance, Track},
};

pub(crate) struct Peer {
    pub(crate) id: PeerId,
    /// Key of the room in the node's table.
    pub(crate) room: usize,
    pub(crate) ice: Agent,
    pub(crate) failed_checks: Allowance,
    pub(crate) role: DtlsRole,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) secure: Secure,
    /// From the end of the handshake on.
    pub(crate) opener: Option<Opener>,
    /// Place among the room's listeners, from the end of the handshake on.
    pub(crate) listener: Option<usize>,
    pub(crate) profile: HeaderProfile,
    /// Slots that the peer receives, by [`TrackKind`](crate::TrackKind) as index.
    pub(crate) places: [u8; 2],
    pub(crate) tracks: Vec<Track>,
    pub(crate) joined_at: Instant,
    /// Last authenticated datagram of any kind.
    pub(crate) heard_at: Instant,
    pub(crate) presence: Presence,
    pub(crate) report_at: Instant,
    pub(crate) hearing: Hearing,
    pub(crate) nack: bool,
    pub(crate) protection: Protection,
    pub(crate) asked_again: Allowance,
    pub(crate) srtp_profile: Option<Profile>,
    pub(crate) dtls_version: &'static str,
}

/// What the shell knows about a peer's silence, and what it should know.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Presence {
    pub(crate) idle: bool,
    pub(crate) reported_idle: bool,
    pub(crate) queued: bool,
}

impl Peer {
    pub(crate) fn is_established(&self) -> bool {
        self.opener.is_some()
    }
}

/// Makes DTLS endpoints with the node's identity.
#[derive(Debug)]
pub(crate) struct Handshakes {
    config: Arc<Config>,
    certificate: DtlsCertificate,
}

impl Handshakes {
    pub(crate) fn new(certificate: &Certificate) -> Result<Self, NodeError> {
        if !is_usable(certificate) {
            return Err(NodeError::Certificate);
        }
        let config = Config::builder()
            // The cookie proves an address, which ICE has proven already: without it a join is one round trip shorter.
            .use_server_cookie(false)
            .flight_start_rto(FLIGHT_START)
            .flight_retries(FLIGHT_RETRIES)
            .build()
            .map_err(|_| NodeError::Certificate)?;
        let certificate = DtlsCertificate {
            certificate: certificate.certificate_der.clone(),
            private_key: certificate.private_key_der.clone(),
        };
        Ok(Self { config: Arc::new(config), certificate })
    }

    /// As a client it offers DTLS 1.3 and 1.2; as a server it looks at the client's hello first.
    pub(crate) fn start(&self, role: DtlsRole, fingerprint: Fingerprint, now: Instant) -> Channel {
        let (config, certificate) = (self.config.clone(), self.certificate.clone());
        let endpoint = match role {
            DtlsRole::Client => {
                let mut dtls = Dtls::new_auto(config, certificate, now);
                dtls.set_active(true);
                Endpoint::Chosen(Box::new(dtls))
            }
            DtlsRole::Server => Endpoint::Waiting { config, certificate, since: now },
        };
        Channel::new(Box::new(endpoint), fingerprint)
    }
}

/// A lost record costs a join this much; RFC 9147 section 5.8.2 suggests 1 s for the wide internet and less for
/// real-time media.
const FLIGHT_START: Duration = Duration::from_millis(400);
/// With doubling, about as long as a set-up may take.
const FLIGHT_RETRIES: usize = 5;

/// The library takes a broken key pair as the caller's mistake and panics, so it is looked at here, once.
fn is_usable(certificate: &Certificate) -> bool {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &certificate.private_key_der) else {
        return false;
    };
    let public = pair.public_key().as_ref();
    certificate.certificate_der.windows(public.len()).any(|window| window == public)
}

/// AES-GCM is cheaper than AES-CM, for both ends. A DTLS 1.3 server of the library takes the profile that the client
/// names first, a DTLS 1.2 server takes AES-GCM wherever it is named; so 1.3 is for clients that name AES-GCM first.
enum Endpoint {
    /// A server that has not seen a ClientHello.
    Waiting {
        config: Arc<Config>,
        certificate: DtlsCertificate,
        since: Instant,
    },
    Chosen(Box<Dtls>),
}

/// A server waits for its client as long as the peer may take to set up, which is bounded elsewhere.
const NO_DEADLINE: Duration = Duration::from_secs(86_400);

impl Endpoint {
    /// `None`: still no hello.
    fn for_datagram(&mut self, now: Instant, datagram: &[u8]) -> Option<&mut Dtls> {
        if let Self::Waiting { config, certificate, .. } = self {
            let (config, certificate) = (config.clone(), certificate.clone());
            *self = Self::Chosen(Box::new(match hello::read(datagram) {
                Hello::Other => return None,
                Hello::First(Profile::AeadAes128Gcm | Profile::AeadAes256Gcm) => {
                    Dtls::new_auto(config, certificate, now)
                }
                Hello::First(Profile::Aes128CmHmacSha1_80) | Hello::Unclear => Dtls::new_12(config, certificate, now),
            }));
        }
        self.chosen()
    }

    fn chosen(&mut self) -> Option<&mut Dtls> {
        match self {
            Self::Waiting { .. } => None,
            Self::Chosen(dtls) => Some(dtls),
        }
    }
}

impl Handshake for Endpoint {
    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), HandshakeFailed> {
        use dimpl::{Error, UnexpectedMessageError::UnrecognizedAutoServerResponse};
        let Some(dtls) = self.for_datagram(now, datagram) else { return Ok(()) };
        dtls.handle_timeout(now).map_err(|_| HandshakeFailed)?;
        match dtls.handle_packet(datagram) {
            // Nothing was learned from it, and nothing changed: a stray record must not end the handshake.
            Ok(()) | Err(Error::UnexpectedMessage(UnrecognizedAutoServerResponse)) => Ok(()),
            Err(_) => Err(HandshakeFailed),
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), HandshakeFailed> {
        self.chosen().map_or(Ok(()), |dtls| dtls.handle_timeout(now).map_err(|_| HandshakeFailed))
    }

    fn close(&mut self, now: Instant) {
        // Best effort: the peer is leaving either way.
        if let Some(dtls) = self.chosen() {
            _ = dtls.handle_timeout(now).and_then(|()| dtls.close());
        }
    }

    fn poll<'a>(&mut self, buf: &'a mut [u8]) -> Output<'a> {
        let dtls = match self {
            Self::Waiting { since, .. } => return Output::Wait(*since + NO_DEADLINE),
            Self::Chosen(dtls) => dtls,
        };
        match dtls.poll_output(buf) {
            dimpl::Output::Packet(datagram) => Output::Datagram(datagram),
            dimpl::Output::PeerCert(certificate) => Output::Certificate(certificate),
            dimpl::Output::KeyingMaterial(material, profile) => match srtp_profile(profile) {
                Some(profile) => {
                    let keys = Keys::from_keying_material(profile, &material);
                    Output::Keys(profile, keys.map_err(|_| HandshakeFailed))
                }
                None => Output::Ignored,
            },
            dimpl::Output::Connected => Output::Connected,
            dimpl::Output::CloseNotify => Output::Closed,
            dimpl::Output::BufferTooSmall { needed } => Output::NeedsBuffer(needed),
            dimpl::Output::Timeout(at) => Output::Wait(at),
            // There are no data channels here. The enum is open, too.
            dimpl::Output::ApplicationData(_) | _ => Output::Ignored,
        }
    }

    fn version(&self) -> &'static str {
        let Self::Chosen(dtls) = self else { return "DTLS" };
        match dtls.protocol_version() {
            Some(dimpl::ProtocolVersion::DTLS1_2) => "DTLS 1.2",
            Some(dimpl::ProtocolVersion::DTLS1_3) => "DTLS 1.3",
            _ => "DTLS",
        }
    }
}

fn srtp_profile(profile: dimpl::SrtpProfile) -> Option<Profile> {
    match profile {
        dimpl::SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
        dimpl::SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
        dimpl::SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::Aes128CmHmacSha1_80),
        _ => None,
    }
}
