//! The node's DTLS identity. Clients check it by the fingerprint that signalling hands them, so a self-signed
//! certificate that lives as long as the process is as good as any other; a file is for those who want it stable.

use std::path::{Path, PathBuf};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sfu_control::Fingerprint;
use sfu_core::Certificate;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("certificate cannot be made: {0}")]
    Generate(#[from] rcgen::Error),
    #[error("--{} (key {key}): {} is not a readable PEM file with {what}: {source}", key.replace('_', "-"), path.display())]
    File { key: &'static str, path: PathBuf, what: &'static str, source: rustls_pki_types::pem::Error },
}

#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) certificate: Certificate,
    pub(crate) fingerprint: Fingerprint,
}

impl Identity {
    pub(crate) fn generate() -> Result<Self, CertificateError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "carillon");
        let certificate = params.self_signed(&key)?;
        Ok(Self::new(certificate.der().to_vec(), key.serialize_der()))
    }

    pub(crate) fn from_files(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let certificate_der = CertificateDer::from_pem_file(certificate).map_err(|source| {
            let (key, path) = ("certificate", certificate.to_owned());
            CertificateError::File { key, path, what: "a certificate", source }
        })?;
        let key_der = PrivatePkcs8KeyDer::from_pem_file(key).map_err(|source| CertificateError::File {
            key: "private_key",
            path: key.to_owned(),
            what: "a PKCS#8 private key",
            source,
        })?;
        Ok(Self::new(certificate_der.to_vec(), key_der.secret_pkcs8_der().to_vec()))
    }

    fn new(certificate_der: Vec<u8>, private_key_der: Vec<u8>) -> Self {
        let certificate = Certificate { certificate_der, private_key_der };
        let fingerprint = crate::translate::fingerprint_text(&certificate.fingerprint());
        Self { certificate, fingerprint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_its_own() {
        let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        assert_ne!(one.fingerprint, two.fingerprint);
        assert_eq!(one.fingerprint.algorithm, "sha-256");
        assert_eq!(one.fingerprint.value.len(), 32 * 3 - 1);
    }

    #[test]
    fn files_give_the_same_identity_again() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let made = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&cert_file, made.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let read = Identity::from_files(&cert_file, &key_file).unwrap();
        assert_eq!(read.certificate.certificate_der, made.der().to_vec());
        let swapped = Identity::from_files(&key_file, &cert_file).unwrap_err().to_string();
        assert!(swapped.contains("key.pem") && swapped.contains("a certificate"), "{swapped}");
        assert!(swapped.starts_with("--certificate (key certificate): "), "{swapped}");
    }
}
