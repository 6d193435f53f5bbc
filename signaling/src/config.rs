//! Settings: flags as typed, keys as loaded from file, environment and flags, and the checked [`Config`] that the
//! process runs with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use admin::Secret;
use admin::logs::LogFormat;
use clap::Parser;
use serde::{Deserialize, Serialize};

use crate::ice::{BadBroker, Broker};
use crate::rooms::Limits;
use crate::tls;
use crate::tokens::{Keys, KeysError};
use crate::web::AllowedOrigins;

/// The same as at the media nodes, which refuse shorter ones: a token that can be guessed opens every call.
const TOKEN_BYTES_MIN: usize = 16;

/// Carillon's signalling: rooms, tokens, the native protocol and the web page.
///
/// Every flag is also a key of the settings file and, in capitals with SIGNALING_ before it, of the environment; flags
/// win over the environment, the environment over the file.
#[derive(Clone, Debug, Default, Parser, Serialize)]
#[command(name = "signaling", version)]
pub struct Args {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address of the plain HTTP port [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub http: Option<SocketAddr>,
    /// Address of the HTTPS port; needs a certificate
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub https: Option<SocketAddr>,
    /// Certificate chain (PEM); a change is noticed within 2 s
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Address of the admin port, which also takes the heartbeats of media nodes [default: 127.0.0.1:7201]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub admin: Option<SocketAddr>,
    /// Token shared with the media nodes. Others can read it in the process list: prefer the file or
    /// SIGNALING_CONTROL_TOKEN
    #[arg(long, value_name = "TOKEN")]
    #[serde(serialize_with = "Secret::expose_in_settings")]
    pub control_token: Option<Secret>,
    /// File with the token shared with the media nodes
    #[arg(long, value_name = "FILE")]
    pub control_token_file: Option<PathBuf>,
    /// Key of access tokens as kid:secret (HS256); several with commas, the first one mints. Others can read it in the
    /// process list: prefer the file or SIGNALING_TOKEN_KEYS
    #[arg(long, value_name = "KID:SECRET", value_delimiter = ',')]
    #[serde(serialize_with = "expose_list")]
    pub token_keys: Vec<Secret>,
    /// File with one kid:secret a line
    #[arg(long, value_name = "FILE")]
    pub token_keys_file: Option<PathBuf>,
    /// URL of the credential broker, which names relays for calls [default: none]
    #[arg(long, value_name = "URL")]
    pub broker: Option<String>,
    /// Certificates (PEM) that an https:// broker may have instead of those of the system
    #[arg(long, value_name = "FILE")]
    pub broker_trust: Option<PathBuf>,
    /// API key of this process at the broker, without its id. Others can read it in the process list: prefer the file or
    /// SIGNALING_BROKER_KEY
    #[arg(long, value_name = "KEY")]
    #[serde(serialize_with = "Secret::expose_in_settings")]
    pub broker_key: Option<Secret>,
    /// File with that key
    #[arg(long, value_name = "FILE")]
    pub broker_key_file: Option<PathBuf>,
    /// Origin of a page elsewhere that may connect, as https://host or https://host:port; several with commas
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<String>,
    /// How long a participation outlives its socket, in ms [default: 10000]
    #[arg(long, value_name = "MS")]
    pub resume_grace_ms: Option<u32>,
    /// Open connections [default: 20000]
    #[arg(long, value_name = "N")]
    pub connections_max: Option<usize>,
    /// Open connections from one address (IPv6: /64) [default: 1000]
    #[arg(long, value_name = "N")]
    pub connections_per_address_max: Option<usize>,
    /// Rooms [default: 10000]
    #[arg(long, value_name = "N")]
    pub rooms_max: Option<usize>,
    /// Members of one room [default: 2500]
    #[arg(long, value_name = "N")]
    pub members_max: Option<usize>,
    /// Form of the log [default: text]
    #[arg(long, value_name = "text|json")]
    pub log: Option<LogFormat>,
    /// What is logged, as in RUST_LOG [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}

fn expose_list<S: serde::Serializer>(secrets: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(Secret::expose))
}

/// The keys with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Settings {
    http: SocketAddr,
    https: Option<SocketAddr>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    admin: SocketAddr,
    control_token: Option<Secret>,
    control_token_file: Option<PathBuf>,
    token_keys: Vec<Secret>,
    token_keys_file: Option<PathBuf>,
    broker: Option<String>,
    broker_trust: Option<PathBuf>,
    broker_key: Option<Secret>,
    broker_key_file: Option<PathBuf>,
    allow_origin: Vec<String>,
    resume_grace_ms: u32,
    connections_max: usize,
    connections_per_address_max: usize,
    rooms_max: usize,
    members_max: usize,
    log: LogFormat,
    log_filter: String,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            http: SocketAddr::from(([127, 0, 0, 1], 8080)),
            https: None,
            tls_cert: None,
            tls_key: None,
            admin: SocketAddr::from(([127, 0, 0, 1], 7201)),
            control_token: None,
            control_token_file: None,
            token_keys: Vec::new(),
            token_keys_file: None,
            broker: None,
            broker_trust: None,
            broker_key: None,
            broker_key_file: None,
            allow_origin: Vec::new(),
            resume_grace_ms: 10_000,
            // About 20 KiB each.
            connections_max: 20_000,
            // An office or a load test behind one address.
            connections_per_address_max: 1_000,
            rooms_max: limits.rooms_max,
            members_max: limits.members_max,
            log: LogFormat::Text,
            log_filter: "info".to_owned(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Settings(#[from] admin::settings::SettingsError),
    #[error("--{} (key {key}): {source}", key.replace('_', "-"))]
    SecretFile { key: &'static str, source: admin::SecretError },
    #[error("token_keys: {0}; give keys by --token-keys-file, SIGNALING_TOKEN_KEYS or the settings file")]
    Keys(#[from] KeysError),
    #[error(transparent)]
    Origin(#[from] crate::web::BadOrigin),
    #[error(
        "control_token is not set: give it by --control-token-file, SIGNALING_CONTROL_TOKEN or the settings file, the \
         same as at the media nodes"
    )]
    NoControlToken,
    #[error("control_token is ***, must be at least {TOKEN_BYTES_MIN} printable ASCII characters without spaces")]
    BadControlToken,
    #[error(transparent)]
    Broker(#[from] BadBroker),
    #[error(
        "broker is set without a key: give one of its API keys by --broker-key-file, SIGNALING_BROKER_KEY or the \
         settings file"
    )]
    NoBrokerKey,
    #[error("{0} and {0}_file are both set: choose one")]
    Twice(&'static str),
    #[error("https is set without {0}: give a certificate by --tls-cert and its private key by --tls-key")]
    NoCertificate(&'static str),
    #[error("resume_grace_ms is {0}, must be from 1000 to 120000")]
    ResumeGrace(u32),
}

/// What the process runs with.
#[derive(Debug)]
pub struct Config {
    pub http: SocketAddr,
    pub https: Option<(SocketAddr, tls::Files)>,
    pub admin: SocketAddr,
    pub control_token: Secret,
    pub token_keys: Keys,
    pub broker: Option<Broker>,
    pub origins: AllowedOrigins,
    pub limits: Limits,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub log: LogFormat,
    pub log_filter: String,
}

impl Config {
    pub fn load(args: Args) -> Result<Self, ConfigError> {
        let file = args.config.clone();
        Self::check(admin::settings::load(file.as_deref(), "SIGNALING_", args)?)
    }

    fn check(settings: Settings) -> Result<Self, ConfigError> {
        let https = match (settings.https, settings.tls_cert, settings.tls_key) {
            (None, _, _) => None,
            (Some(address), Some(certificate), Some(key)) => Some((address, tls::Files { certificate, key })),
            (Some(_), None, _) => return Err(ConfigError::NoCertificate("tls_cert")),
            (Some(_), _, None) => return Err(ConfigError::NoCertificate("tls_key")),
        };
        let control_token = match (settings.control_token, settings.control_token_file) {
            (Some(_), Some(_)) => return Err(ConfigError::Twice("control_token")),
            (Some(token), None) => token,
            (None, Some(file)) => secret("control_token_file", &file)?,
            (None, None) => return Err(ConfigError::NoControlToken),
        };
        let acceptable = control_token.expose().bytes().all(|b| b.is_ascii_graphic());
        if control_token.expose().len() < TOKEN_BYTES_MIN || !acceptable {
            return Err(ConfigError::BadControlToken);
        }
        let token_keys = match (settings.token_keys.is_empty(), settings.token_keys_file) {
            (false, Some(_)) => return Err(ConfigError::Twice("token_keys")),
            (true, Some(file)) => Keys::parse(secret("token_keys_file", &file)?.expose().lines())?,
            (_, None) => Keys::parse(settings.token_keys.iter().map(Secret::expose))?,
        };
        let broker_key = match (settings.broker_key, settings.broker_key_file) {
            (Some(_), Some(_)) => return Err(ConfigError::Twice("broker_key")),
            (Some(key), None) => Some(key),
            (None, file) => file.as_deref().map(|file| secret("broker_key_file", file)).transpose()?,
        };
        let broker = match (settings.broker.as_deref(), &broker_key) {
            (None, _) => None,
            (Some(url), Some(key)) => Some(Broker::new(url, key, settings.broker_trust.as_deref())?),
            (Some(_), None) => return Err(ConfigError::NoBrokerKey),
        };
        if !(1_000..=120_000).contains(&settings.resume_grace_ms) {
            return Err(ConfigError::ResumeGrace(settings.resume_grace_ms));
        }
        Ok(Self {
            http: settings.http,
            https,
            admin: settings.admin,
            control_token,
            token_keys,
            broker,
            origins: AllowedOrigins::parse(&settings.allow_origin)?,
            limits: Limits {
                rooms_max: settings.rooms_max,
                members_max: settings.members_max,
                resume_grace: Duration::from_millis(settings.resume_grace_ms.into()),
                ..Limits::default()
            },
            connections_max: settings.connections_max,
            connections_per_address_max: settings.connections_per_address_max,
            log: settings.log,
            log_filter: settings.log_filter,
        })
    }
}

fn secret(key: &'static str, file: &Path) -> Result<Secret, ConfigError> {
    Secret::from_file(file).map_err(|source| ConfigError::SecretFile { key, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";
    const KEYS: &str = "a:0123456789abcdef0123456789abcdef, b:fedcba9876543210fedcba9876543210";

    fn settings() -> Settings {
        let keys = KEYS.split(',').map(Secret::from).collect();
        Settings { control_token: Some(TOKEN.into()), token_keys: keys, ..Settings::default() }
    }

    fn refusal(settings: Settings) -> String {
        Config::check(settings).unwrap_err().to_string()
    }

    #[test]
    fn a_missing_file_is_told_with_its_flag_and_key() {
        let absent = || Some(PathBuf::from("/nonexistent/file"));
        let token = refusal(Settings { control_token: None, control_token_file: absent(), ..settings() });
        assert!(token.starts_with("--control-token-file (key control_token_file): "), "{token}");
        assert!(token.contains("/nonexistent/file") && token.matches("os error 2").count() == 1, "{token}");
        let keys = refusal(Settings { token_keys: Vec::new(), token_keys_file: absent(), ..settings() });
        assert!(keys.starts_with("--token-keys-file (key token_keys_file): "), "{keys}");
    }

    #[test]
    fn what_is_missing_is_told_with_the_flags_that_give_it() {
        let https = Some(SocketAddr::from(([127, 0, 0, 1], 8443)));
        let half = refusal(Settings { https, tls_cert: Some("c.pem".into()), ..settings() });
        assert!(half.contains("without tls_key") && half.contains("--tls-key"), "{half}");
        let keys = refusal(Settings { token_keys: Vec::new(), ..settings() });
        assert!(keys.contains("there is no token key") && keys.contains("--token-keys-file"), "{keys}");
        let broker = refusal(Settings { broker: Some("http://127.0.0.1:7300".to_owned()), ..settings() });
        assert!(broker.contains("--broker-key-file"), "{broker}");
        assert!(refusal(Settings { resume_grace_ms: 5, ..settings() }).contains("is 5, must be from 1000"));
    }

    #[test]
    fn one_text_of_keys_means_the_same_however_it_is_given() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{KEYS}\n")).unwrap();
        let from_file = Settings { token_keys: Vec::new(), token_keys_file: Some(file.path().into()), ..settings() };
        let by_file = Config::check(from_file).unwrap();
        let by_list = Config::check(settings()).unwrap();
        assert_eq!(format!("{:?}", by_file.token_keys), format!("{:?}", by_list.token_keys));
        assert_eq!(by_file.token_keys.first(), by_list.token_keys.first());
    }
}
