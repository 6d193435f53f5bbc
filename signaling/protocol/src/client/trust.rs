//! Which server certificates a `wss` connection accepts. There is no way to accept any.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

#[derive(Clone)]
pub enum Trust {
    /// The roots of the operating system.
    System,
    /// Only these PEM certificates as roots (a private CA, or a self-signed certificate that is not marked as a CA).
    Roots(Vec<u8>),
    /// Exactly the certificate with this SHA-256 over its DER form, whatever name and dates it has: for self-signed
    /// certificates of development.
    Pinned([u8; 32]),
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Roots(_) => "Roots(..)",
            Self::Pinned(_) => "Pinned(..)",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("no certificate in the PEM text")]
    NoCertificate,
    #[error("a certificate of the PEM text is not usable as a root")]
    BadCertificate,
    #[error("the operating system has no usable root certificate")]
    NoSystemRoots,
    #[error("TLS is not usable")]
    Tls(#[from] rustls::Error),
}

/// What is wrong with a server's certificate: a code for programs, then what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    #[error(
        "certificate_untrusted: no authority that is trusted here has signed the server's certificate; name its authority's \
         certificate (PEM) as `trust`, or have the server's signed by a public authority"
    )]
    Untrusted,
    #[error(
        "certificate_wrong_name: the server's certificate is for other names than the one in the URL; use a URL with a name \
         that it is for"
    )]
    WrongName,
    #[error("certificate_expired: the server's certificate has expired; renew it there, or set the clock here")]
    Expired,
    #[error("certificate_not_yet_valid: the server's certificate is not valid yet; set the clock here")]
    NotYetValid,
    #[error("certificate_invalid: the server's certificate is of no use ({0})")]
    Invalid(String),
}

impl CertificateFault {
    /// Of a TLS handshake that failed, when it failed for that.
    #[must_use]
    pub fn of(error: &std::io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        let rustls::Error::InvalidCertificate(error) = error else { return None };
        use CertificateError as E;
        // A bad signature is that of another authority with the same name.
        Some(if matches!(error, E::UnknownIssuer | E::BadSignature | E::ApplicationVerificationFailure) {
            Self::Untrusted
        } else if matches!(error, E::NotValidForName | E::NotValidForNameContext { .. }) {
            Self::WrongName
        } else if matches!(error, E::Expired | E::ExpiredContext { .. }) {
            Self::Expired
        } else if matches!(error, E::NotValidYet | E::NotValidYetContext { .. }) {
            Self::NotYetValid
        } else {
            Self::Invalid(error.to_string())
        })
    }
}

impl Trust {
    /// Pins the first certificate of a PEM text, such as the file that the server was started with.
    pub fn pin_pem(pem: &[u8]) -> Result<Self, TrustError> {
        let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| TrustError::NoCertificate)?;
        Ok(Self::Pinned(Sha256::digest(&certificate).into()))
    }

    /// For TLS connections to servers that are trusted so.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        // Named here, because a process may link more than one provider and then has no default.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let config = match self {
            Self::System => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
            Self::Roots(pem) => builder.with_root_certificates(pem_roots(pem)?).with_no_client_auth(),
            Self::Pinned(sha256) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(PinVerifier { sha256: *sha256, provider }))
                .with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

fn system_roots() -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TrustError::NoSystemRoots) } else { Ok(roots) }
}

fn pem_roots(pem: &[u8]) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| TrustError::BadCertificate)?;
        roots.add(certificate).map_err(|_| TrustError::BadCertificate)?;
    }
    if roots.is_empty() { Err(TrustError::NoCertificate) } else { Ok(roots) }
}

/// Accepts one certificate and still demands the proof that the server holds its key.
#[derive(Debug)]
struct PinVerifier {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Sha256::digest(end_entity).as_slice() == self.sha256 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
