//! The DTLS handshake of a bulk client, either role, and the identity that all of them share: one certificate is enough,
//! since nobody tells clients apart by it. The only file of this package that names the DTLS library.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Config, Dtls, DtlsCertificate};
use sha2::{Digest as _, Sha256};
use srtp::{Keys, Profile};

/// A lost record costs a join this much.
const FLIGHT_START: Duration = Duration::from_millis(400);
/// The largest datagram that a handshake here makes, with room for a long chain of certificates.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

#[derive(Clone)]
pub(super) struct Identity {
    config: Arc<Config>,
    certificate: DtlsCertificate,
    fingerprint: [u8; 32],
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("DTLS cannot be configured")]
    Config,
}

impl Identity {
    pub(super) fn generate() -> Result<Self, IdentityError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "loadgen");
        let certificate = params.self_signed(&key)?.der().to_vec();
        let fingerprint = Sha256::digest(&certificate).into();
        let config = Config::builder().flight_start_rto(FLIGHT_START).build().map_err(|_| IdentityError::Config)?;
        let certificate = DtlsCertificate { certificate, private_key: key.serialize_der() };
        Ok(Self { config: Arc::new(config), certificate, fingerprint })
    }

    /// SHA-256.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

pub(super) struct Handshake {
    dtls: Box<Dtls>,
    expected: [u8; 32],
    is_trusted: bool,
    is_connected: bool,
    is_over: bool,
    keys: Option<(Profile, Keys)>,
    wake_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Input<'a> {
    Datagram(&'a [u8]),
    /// Begins the handshake of a client, and is due at [`Handshake::wake_at`] from then on.
    Timeout,
}

#[derive(Debug)]
pub(super) enum Progress {
    None,
    Done(Profile, Keys),
    /// close_notify.
    Closed,
    Failed(&'static str),
}

impl Handshake {
    /// `expected` is the announced fingerprint of the other side.
    pub(super) fn new(identity: &Identity, is_client: bool, expected: [u8; 32], now: Instant) -> Self {
        let mut dtls = Dtls::new_auto(Arc::clone(&identity.config), identity.certificate.clone(), now);
        dtls.set_active(is_client);
        Self {
            dtls: Box::new(dtls),
            expected,
            is_trusted: false,
            is_connected: false,
            is_over: false,
            keys: None,
            wake_at: None,
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.wake_at.filter(|_| !self.is_over)
    }

    /// Datagrams to send are added to `out`.
    pub(super) fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Vec<u8>>) -> Progress {
        use dimpl::{Error, UnexpectedMessageError::UnrecognizedAutoServerResponse};
        if self.is_over {
            return Progress::None;
        }
        let fed = self.dtls.handle_timeout(now).and_then(|()| match input {
            Input::Datagram(datagram) => match self.dtls.handle_packet(datagram) {
                // A stray record from which nothing was learned.
                Err(Error::UnexpectedMessage(UnrecognizedAutoServerResponse)) => Ok(()),
                fed => fed,
            },
            Input::Timeout => Ok(()),
        });
        let was_connected = self.is_connected;
        // Drained even after a failure: an alert may wait there.
        let progress = self.drain(out);
        if !matches!(progress, Progress::None) || fed.is_ok() {
            return progress;
        }
        self.is_over = true;
        // After the keys are out, the call lives without DTLS.
        if was_connected { Progress::None } else { Progress::Failed("dtls_failed") }
    }

    fn drain(&mut self, out: &mut Vec<Vec<u8>>) -> Progress {
        let mut buf = vec![0; 4096];
        let was_connected = self.is_connected;
        loop {
            match self.dtls.poll_output(&mut buf) {
                dimpl::Output::Packet(datagram) => out.push(datagram.to_vec()),
                dimpl::Output::PeerCert(certificate) => {
                    self.is_trusted = self.expected == <[u8; 32]>::from(Sha256::digest(certificate));
                }
                dimpl::Output::KeyingMaterial(material, profile) => {
                    self.keys = srtp_profile(profile)
                        .and_then(|profile| Some((profile, Keys::from_keying_material(profile, &material).ok()?)));
                }
                dimpl::Output::Connected => self.is_connected = true,
                dimpl::Output::CloseNotify => {
                    self.is_over = true;
                    return Progress::Closed;
                }
                dimpl::Output::BufferTooSmall { needed } if needed <= DATAGRAM_BYTES_MAX => buf.resize(needed, 0),
                dimpl::Output::BufferTooSmall { .. } => return Progress::Failed("dtls_failed"),
                dimpl::Output::Timeout(at) => {
                    self.wake_at = Some(at);
                    break;
                }
                // There are no data channels here. The enum is open, too.
                dimpl::Output::ApplicationData(_) | _ => {}
            }
        }
        if !self.is_connected || was_connected {
            return Progress::None;
        }
        match self.keys.take() {
            Some(_) if !self.is_trusted => Progress::Failed("fingerprint_mismatch"),
            Some((profile, keys)) => Progress::Done(profile, keys),
            None => Progress::Failed("no_srtp_profile"),
        }
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("is_connected", &self.is_connected).finish_non_exhaustive()
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
