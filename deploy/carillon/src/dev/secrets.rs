//! What a run makes up for itself: the secret between node and signalling, that of the relay, signalling's key at the
//! credential broker, the key that signs room tokens, the cookie of the desktop's sound server, and a certificate. They reach the processes by environment or by file, never by
//! argument, where every user of the machine could read them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use admin::Secret;
use anyhow::Context as _;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::state::write_private;
use crate::token::TokenKey;

/// PulseAudio reads exactly this many bytes; with fewer it refuses every client.
pub(super) const COOKIE_BYTES: usize = 256;
/// A key of this name signs the tokens when the caller brings none.
const KEY_NAME: &str = "dev";
const SECRET_BYTES: usize = 32;

#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) control: Secret,
    /// Shared by relay and broker: whoever has it can make credentials.
    pub(super) relay: Secret,
    /// Signalling's at the broker.
    pub(super) broker_key: Secret,
    pub(super) token_key: TokenKey,
    /// The token key is the caller's, not one of this run.
    pub(super) brought: bool,
}

impl Secrets {
    /// What there is, for a person.
    pub(super) fn words(&self) -> &'static str {
        if self.brought {
            "the token key of CARILLON_TOKEN_KEY, all others made up"
        } else {
            "fresh keys, none of them kept"
        }
    }

    /// `token_key`: one that the caller brings, as `kid:secret`.
    pub(super) fn generate(token_key: Option<&str>) -> anyhow::Result<Self> {
        let brought = token_key.is_some();
        let token_key = match token_key {
            Some(text) => TokenKey::parse(text).context("CARILLON_TOKEN_KEY")?,
            None => TokenKey::parse(&format!("{KEY_NAME}:{}", random_hex()?))?,
        };
        let secret = || random_hex().map(Secret::from);
        Ok(Self { control: secret()?, relay: secret()?, broker_key: secret()?, token_key, brought })
    }
}

fn random_hex() -> anyhow::Result<String> {
    let mut text = String::with_capacity(SECRET_BYTES * 2);
    for byte in random::<SECRET_BYTES>()? {
        write!(text, "{byte:02x}").context("text")?;
    }
    Ok(text)
}

pub(super) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    OsRng.try_fill_bytes(&mut bytes).context("the operating system gives no random bytes")?;
    Ok(bytes)
}

#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Self-signed, for `localhost`, this name and these addresses.
pub(super) fn write_certificate(
    folder: &Path,
    name: Option<&str>,
    addresses: &[IpAddr],
) -> anyhow::Result<Certificate> {
    let names = ["localhost"].into_iter().chain(name).map(str::to_owned).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).context("certificate")?;
    params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.distinguished_name.push(DnType::CommonName, "Carillon on this machine");
    let key = KeyPair::generate().context("certificate key")?;
    let certificate = params.self_signed(&key).context("certificate")?;
    let files = Certificate { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
    write_private(&files.certificate, certificate.pem().as_bytes())?;
    write_private(&files.key, key.serialize_pem().as_bytes())?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_share_no_secret_and_none_prints() {
        let (one, other) = (Secrets::generate(None).unwrap(), Secrets::generate(None).unwrap());
        assert_ne!(one.control.expose(), other.control.expose());
        assert_ne!(one.token_key.text().expose(), other.token_key.text().expose());
        assert_eq!(one.control.expose().len(), SECRET_BYTES * 2);
        let printed = format!("{one:?}");
        let all = [&one.control, &one.relay, &one.broker_key, one.token_key.text()];
        assert!(all.iter().all(|secret| !printed.contains(secret.expose())));
        let different: std::collections::BTreeSet<&str> = all.iter().map(|secret| secret.expose()).collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn a_key_that_is_brought_is_used_and_a_broken_one_refused() {
        let brought = "k1:0123456789abcdef0123456789abcdef";
        let secrets = Secrets::generate(Some(brought)).unwrap();
        assert_eq!(secrets.token_key.text().expose(), brought);
        assert!(!secrets.words().contains("fresh"));
        for broken in ["", "k1", "k1:", "k1:short", ":0123456789abcdef0123456789abcdef"] {
            let error = Secrets::generate(Some(broken)).unwrap_err();
            assert!(error.to_string().contains("CARILLON_TOKEN_KEY"), "{broken}: {error}");
        }
    }

    #[test]
    fn the_certificate_is_written_as_pem() {
        let folder = tempfile::tempdir().unwrap();
        let files = write_certificate(folder.path(), Some("call.test"), &["127.0.0.1".parse().unwrap()]).unwrap();
        assert!(std::fs::read_to_string(files.certificate).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(std::fs::read_to_string(files.key).unwrap().contains("PRIVATE KEY-----"));
    }
}
