//! The server certificate, taken anew when its files change: every 2 s they are looked at, and at once on SIGHUP. A new
//! pair that cannot be used is reported and the old one stays. Connections that stand are not touched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;

use crate::metrics::Metrics;

const POLL_INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("--{} (key {key}): file {} cannot be read: {source}", key.replace('_', "-"), path.display())]
    Unreadable { key: &'static str, path: PathBuf, source: std::io::Error },
    #[error("--tls-cert (key tls_cert): {} holds no certificate in PEM form", path.display())]
    NoCertificate { path: PathBuf },
    #[error("--tls-key (key tls_key): {} holds no private key in PEM form", path.display())]
    NoKey { path: PathBuf },
    #[error("certificate and key of --tls-cert and --tls-key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// Where the pair is.
#[derive(Clone, Debug)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Holds the pair that new connections get.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Loads the pair and keeps watching it in a task of its own.
pub fn acceptor(files: Files, metrics: Arc<Metrics>) -> Result<TlsAcceptor, TlsError> {
    let (pair, digest) = load(&files)?;
    let current = Arc::new(Current(ArcSwap::from_pointee(pair)));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    tokio::spawn(watch(files, digest, current, metrics));
    Ok(TlsAcceptor::from(config))
}

async fn watch(files: Files, mut seen: [u8; 32], current: Arc<Current>, metrics: Arc<Metrics>) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => Some(hangups),
        Err(error) => {
            tracing::warn!(%error, "SIGHUP does nothing; the certificate is still looked at every 2 s");
            None
        }
    };
    let mut failed = None;
    loop {
        let hung_up = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            _ = hung_up => {}
        }
        match load(&files) {
            Ok((_, digest)) if digest == seen => {}
            Ok((pair, digest)) => {
                seen = digest;
                failed = None;
                current.0.store(Arc::new(pair));
                metrics.certificate_reload("taken");
                tracing::info!(file = %files.certificate.display(), "Took the changed certificate");
            }
            // Half-written files are normal for a moment: once for each different error.
            Err(error) => {
                let error = error.to_string();
                if failed.as_ref() != Some(&error) {
                    metrics.certificate_reload("kept_old");
                    tracing::error!(%error, "Kept the old certificate");
                    failed = Some(error);
                }
            }
        }
    }
}

/// The pair and the digest of both files.
fn load(files: &Files) -> Result<(CertifiedKey, [u8; 32]), TlsError> {
    let (certificate, key) = (read("tls_cert", &files.certificate)?, read("tls_key", &files.key)?);
    let chain = CertificateDer::pem_slice_iter(&certificate)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate { path: files.certificate.clone() })?;
    let private = PrivateKeyDer::from_pem_slice(&key).map_err(|_| TlsError::NoKey { path: files.key.clone() })?;
    let pair = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider())?;
    pair.keys_match()?;
    let digest = Sha256::new().chain_update(&certificate).chain_update(&key).finalize();
    Ok((pair, digest.into()))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { key, path: path.to_owned(), source })
}
