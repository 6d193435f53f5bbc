//! Settings turned into values that need no further check: files read, URLs parsed. Loaded again for each reload; the two
//! ports are taken from the first. abcdesktop's settings lie beneath our own, and with them come the habits of its broker:
//! bare user names, one URL as a text.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use admin::logs::LogFormat;
use admin::{Secret, SecretError};
use relay_core::Hash;
use serde::Deserialize;

use super::access::{Access, AccessError};
use super::args::Args;
use super::envelope::{BadDocument, Document, UrlsForm};
use super::limits::Rate;
use super::literal::{BadLiteral, Literal};
use super::mint::{Lifetime, Minter, NameForm, Naming, RestSecret};
use super::origins::{BadOrigin, Origins};
use super::turn_url::{BadRelay, RelayEntry};

const ENV_PREFIX: &str = "BROKER_";
const PLACEHOLDER: &str = "CHANGEME";
const TTL_S: u32 = 3_600;
/// A day: whoever gets hold of a credential has it for that long.
const TTL_S_MAX: u32 = 86_400;
/// A relay is written in about 100 bytes; each is a task that checks its health.
const RELAYS_MAX: usize = 64;
/// Browsers slow down with many servers; two relays survive the end of one.
const RELAYS_PER_ANSWER: usize = 2;

/// The keys as they are typed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    http: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    /// One relay each, in the grammar of `turn_url`.
    relay: Vec<String>,
    /// How many relays a person is offered; default 2.
    relays_per_answer: Option<usize>,
    /// URLs of STUN servers, where there is no `rtc_configuration`.
    stun: Vec<String>,
    /// RTCConfiguration as JSON or a Python literal, with which minted entries are merged.
    rtc_configuration: Option<String>,
    rtc_configuration_file: Option<PathBuf>,
    /// Secrets shared with the relays, the newest first; those of the file stand before these.
    secret: Vec<Secret>,
    secret_file: Option<PathBuf>,
    /// Secrets whose passwords are made with SHA-256; they sign where there is no other.
    secret_sha256: Vec<Secret>,
    secret_sha256_file: Option<PathBuf>,
    /// Makes pseudonyms of people; set it for them to outlive a rotation of secrets.
    identity_key: Option<Secret>,
    /// `expiry-first` (default), `person-first` or `bare`.
    name_form: Option<NameForm>,
    /// Between expiry and person; default `:`.
    rest_separator: Option<char>,
    /// `list` (default) or `string`: an entry for each URL.
    urls: Option<UrlsForm>,
    /// Lifetime of credentials in seconds; default 3600.
    ttl: Option<u32>,
    /// Longest lifetime that may be asked for; default and maximum 86400.
    ttl_max: Option<u32>,
    /// Programs that may ask, as `id:key`.
    api_key: Vec<Secret>,
    api_key_file: Option<PathBuf>,
    /// Keys of signalling's tokens, as `kid:secret`.
    token_keys: Vec<Secret>,
    token_keys_file: Option<PathBuf>,
    /// abcdesktop's od.config.
    abcdesktop_config: Option<PathBuf>,
    allow_origin: Vec<String>,
    /// Addresses of proxies whose `X-Forwarded-For` is believed.
    trusted_proxy: Vec<IpAddr>,
    /// Requests of a program; default 5000.
    program_per_s: Option<f64>,
    /// Requests of a person; default 20.
    person_per_min: Option<f64>,
    /// Requests of people from one address (IPv6: /64); default 50.
    address_per_s: Option<f64>,
    /// Wrong keys from one address before it is not heard any more; default 30.
    failures_per_min: Option<f64>,
    dev: bool,
    log: Option<LogFormat>,
    log_filter: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Settings(#[from] admin::settings::SettingsError),
    #[error("{key}: {source}")]
    Secret { key: &'static str, source: SecretError },
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error(transparent)]
    Relay(#[from] BadRelay),
    #[error(transparent)]
    Origin(#[from] BadOrigin),
    #[error("{key}: {source}")]
    Literal { key: &'static str, source: BadLiteral },
    #[error("{key}: {source}")]
    Document { key: &'static str, source: BadDocument },
    #[error("webrtc.coturn: {0}")]
    Coturn(&'static str),
    #[error("there is no secret: give what the relays know by --secret-file, BROKER_SECRET or the key secret")]
    NoSecret,
    #[error("a secret is empty: remove it, or write what the relays know")]
    EmptySecret,
    #[error("a secret is the placeholder CHANGEME: choose one, or set dev on a developer's machine")]
    Placeholder,
    #[error("{key} is {value}, must be {expected}")]
    Range { key: &'static str, value: String, expected: &'static str },
    #[error("stun cannot be set beside rtc_configuration, which names its own servers: write them there")]
    Twice,
    #[error("there are more than {RELAYS_MAX} relays: leave some out, each person is offered a few of them only")]
    TooManyRelays,
}

/// What the process runs with.
#[derive(Debug)]
pub struct Config {
    pub http: SocketAddr,
    pub admin: SocketAddr,
    pub(crate) relays: Vec<RelayEntry>,
    pub(crate) policy: Policy,
    /// Those to watch for changes.
    pub(crate) files: Vec<PathBuf>,
    pub log: LogFormat,
    pub log_filter: String,
}

/// What decides a request.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) minter: Minter,
    pub(crate) access: Access,
    pub(crate) document: Document,
    pub(crate) urls: UrlsForm,
    pub(crate) relays_per_answer: usize,
    pub(crate) origins: Origins,
    pub(crate) trusted_proxies: Vec<IpAddr>,
    pub(crate) rates: Rates,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) program: Rate,
    pub(crate) person: Rate,
    pub(crate) address: Rate,
    pub(crate) failures: Rate,
}

impl Config {
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let settings: Settings = admin::settings::load(args.config.as_deref(), ENV_PREFIX, args)?;
        let named_by_environment = std::env::var_os(format!("{ENV_PREFIX}CONFIG")).map(PathBuf::from);
        Self::check(settings, args.config.clone().or(named_by_environment).as_deref())
    }

    #[cfg(test)]
    pub(crate) fn of_json(settings: serde_json::Value) -> Result<Self, ConfigError> {
        Self::check(serde_json::from_value(settings).expect("the keys of a test exist"), None)
    }

    fn check(mut settings: Settings, own: Option<&Path>) -> Result<Self, ConfigError> {
        let files = settings.files(own);
        let mut relays = settings.relay.iter().map(|text| RelayEntry::parse(text)).collect::<Result<Vec<_>, _>>()?;
        relays.extend(settings.take_abcdesktop()?);
        if relays.len() > RELAYS_MAX {
            return Err(ConfigError::TooManyRelays);
        }
        let policy = Policy {
            minter: settings.minter()?,
            access: settings.access()?,
            document: settings.document()?,
            urls: settings.urls.unwrap_or_default(),
            relays_per_answer: settings.relays_per_answer.unwrap_or(RELAYS_PER_ANSWER).max(1),
            origins: Origins::parse(&settings.allow_origin)?,
            trusted_proxies: settings.trusted_proxy.iter().map(IpAddr::to_canonical).collect(),
            rates: settings.rates()?,
        };
        Ok(Self {
            http: settings.http.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7300))),
            admin: settings.admin.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7301))),
            relays,
            policy,
            files,
            log: settings.log.unwrap_or_default(),
            log_filter: settings.log_filter.unwrap_or_else(|| "info".to_owned()),
        })
    }
}

impl Settings {
    fn files(&self, own: Option<&Path>) -> Vec<PathBuf> {
        let named = [
            &self.secret_file,
            &self.secret_sha256_file,
            &self.api_key_file,
            &self.token_keys_file,
            &self.abcdesktop_config,
            &self.rtc_configuration_file,
        ];
        named.into_iter().filter_map(Option::as_deref).chain(own).map(Path::to_owned).collect()
    }

    /// Takes over what abcdesktop's file says and our own keys do not.
    fn take_abcdesktop(&mut self) -> Result<Option<RelayEntry>, ConfigError> {
        let Some(path) = &self.abcdesktop_config else { return Ok(None) };
        let text = file("abcdesktop_config", path)?;
        let read = |key| Literal::of_key(text.expose(), key).map_err(|source| ConfigError::Literal { key, source });
        let document = read("webrtc.rtc_configuration")?;
        if let (Some(document), None, None) = (document, &self.rtc_configuration, &self.rtc_configuration_file) {
            let json = serde_json::to_string(&document).unwrap_or_default();
            self.rtc_configuration = Some(json);
        }
        let Some(coturn) = read("webrtc.coturn")? else { return Ok(None) };
        let field = |key| coturn.get(key).and_then(Literal::as_text);
        let secret =
            field("coturn_static_auth_secret").ok_or(ConfigError::Coturn("coturn_static_auth_secret is missing"))?;
        let url = field("url").ok_or(ConfigError::Coturn("url is missing"))?;
        let protocol = field("protocol").unwrap_or("turn");
        // Beneath our own, so that a rotation can begin in a file of ours.
        if self.secret_file.is_none() {
            self.secret.push(Secret::from(secret));
        }
        if let Some(ttl) = coturn.get("ttl") {
            let ttl = ttl.as_whole().and_then(|ttl| u32::try_from(ttl).ok());
            self.ttl = self.ttl.or(Some(ttl.ok_or(ConfigError::Coturn("ttl must be a number of seconds"))?));
        }
        self.name_form = self.name_form.or(Some(NameForm::Bare));
        self.urls = self.urls.or(Some(UrlsForm::String));
        Ok(Some(RelayEntry::verbatim(&format!("{protocol}:{url}"))?))
    }

    fn minter(&self) -> Result<Minter, ConfigError> {
        let mut secrets = Vec::new();
        for (given, key, path, hash) in [
            (&self.secret, "secret_file", &self.secret_file, Hash::Sha1),
            (&self.secret_sha256, "secret_sha256_file", &self.secret_sha256_file, Hash::Sha256),
        ] {
            for secret in lines(key, path.as_deref())?.into_iter().chain(given.iter().cloned()) {
                match secret.expose() {
                    "" => return Err(ConfigError::EmptySecret),
                    PLACEHOLDER if !self.dev => return Err(ConfigError::Placeholder),
                    _ => secrets.push(RestSecret { secret, hash }),
                }
            }
        }
        let separator = self.rest_separator.unwrap_or(':');
        // What stands in time or pseudonym cannot part them.
        if !separator.is_ascii_graphic() || separator.is_ascii_alphanumeric() || matches!(separator, '-' | '_' | '"')
        {
            let expected = "one ASCII character that is no letter, digit, - _ or \"";
            return Err(range("rest_separator", format!("{separator:?}"), expected));
        }
        let naming = Naming { form: self.name_form.unwrap_or_default(), separator };
        let lifetime = Lifetime {
            default_s: self.ttl.unwrap_or(TTL_S.min(self.ttl_max.unwrap_or(TTL_S))),
            max_s: self.ttl_max.unwrap_or(TTL_S_MAX),
        };
        if !(1..=TTL_S_MAX).contains(&lifetime.max_s) {
            return Err(range("ttl_max", lifetime.max_s, "from 1 to 86400 seconds"));
        }
        if !(1..=lifetime.max_s).contains(&lifetime.default_s) {
            return Err(range("ttl", lifetime.default_s, "from 1 second to ttl_max (at most 86400)"));
        }
        Minter::new(&secrets, self.identity_key.as_ref(), naming, lifetime).ok_or(ConfigError::NoSecret)
    }

    fn access(&self) -> Result<Access, ConfigError> {
        let api_keys = lines("api_key_file", self.api_key_file.as_deref())?;
        let token_keys = lines("token_keys_file", self.token_keys_file.as_deref())?;
        let access =
            Access::new(self.api_key.iter().chain(&api_keys), self.token_keys.iter().chain(&token_keys), self.dev)?;
        Ok(access)
    }

    fn document(&self) -> Result<Document, ConfigError> {
        let key = "rtc_configuration";
        let text = match (&self.rtc_configuration_file, &self.rtc_configuration) {
            (Some(path), _) => Some(file("rtc_configuration_file", path)?),
            (None, text) => text.as_deref().map(Secret::from),
        };
        let Some(text) = text else {
            return Document::of_stun(&self.stun).map_err(|source| ConfigError::Document { key: "stun", source });
        };
        if !self.stun.is_empty() {
            return Err(ConfigError::Twice);
        }
        let document = Literal::parse(text.expose()).map_err(|source| ConfigError::Literal { key, source })?;
        Document::new(document).map_err(|source| ConfigError::Document { key, source })
    }

    fn rates(&self) -> Result<Rates, ConfigError> {
        let rate = |key, value: Option<f64>, default: f64, seconds: f64| {
            let value = value.unwrap_or(default);
            if !(1.0..=1_000_000.0).contains(&value) {
                return Err(range(key, value, "from 1 to 1000000"));
            }
            Ok((value, value / seconds))
        };
        // A whole second, or minute, may come at once.
        let burst = |(value, per_s): (f64, f64)| Rate { per_s, burst: value as u32 };
        Ok(Rates {
            // Signalling asks for everybody.
            program: burst(rate("program_per_s", self.program_per_s, 5_000.0, 1.0)?),
            // A page asks once a call and before its credential ends.
            person: burst(rate("person_per_min", self.person_per_min, 20.0, 60.0)?),
            // An office behind one address.
            address: burst(rate("address_per_s", self.address_per_s, 50.0, 1.0)?),
            failures: burst(rate("failures_per_min", self.failures_per_min, 30.0, 60.0)?),
        })
    }
}

fn range(key: &'static str, value: impl Display, expected: &'static str) -> ConfigError {
    ConfigError::Range { key, value: value.to_string(), expected }
}

/// Without blank lines and comments.
fn lines(key: &'static str, path: Option<&Path>) -> Result<Vec<Secret>, ConfigError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = file(key, path)?;
    let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(Secret::from).collect())
}

fn file(key: &'static str, path: &Path) -> Result<Secret, ConfigError> {
    Secret::from_file(path).map_err(|source| ConfigError::Secret { key, source })
}

#[cfg(test)]
mod tests;
