//! Settings turned into values that need no further check: ranges, combinations and files are dealt with here, once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use admin::logs::LogFormat;
use admin::settings::SettingsError;
use admin::{Secret, SecretError};
use hyper::Uri;
use serde::Deserialize;
use sfu_control::{ID_BYTES_MAX, PEERS_MAX};

use crate::advertise::{self, AdvertiseError};
use crate::args::Args;
use crate::certificate::{CertificateError, Identity};
use crate::shard::Tuning;

pub(crate) const ENV_PREFIX: &str = "SFU_";
/// A machine with more cores runs several nodes.
const SHARDS_MAX: u16 = sfu_core::ShardId::COUNT_MAX;
const SPEECH_SLOTS_MAX: u8 = 32;
const PROGRAM_SLOTS_MAX: u8 = 8;
/// Below this a burst of one turn (64 datagrams) does not fit; above it the kernel would hold seconds of audio.
const SOCKET_BUFFER_BYTES: std::ops::RangeInclusive<usize> = 128 * 1024..=256 * 1024 * 1024;
/// More would be heard: a room's sound may lose 100 ms between mouth and ear in all.
const HOLD_MS_MAX: u8 = 5;
/// Lower, and an idle machine would refuse calls for somebody else's burst.
const SHED_AT_PERCENT: std::ops::RangeInclusive<u8> = 30..=100;
/// The longest time between two packets of a quiet room: who looks for longer never sleeps.
const BUSY_POLL_US_MAX: u32 = 20_000;
/// A quarter of a frame: more would be heard as delay, and saves little.
const GATHER_US_MAX: u32 = 5_000;
/// More would be less than that of others, which nobody wants for audio.
const MEDIA_NICE: std::ops::RangeInclusive<i8> = -20..=0;
/// A token that can be guessed opens every call of the node.
const TOKEN_BYTES_MIN: usize = 16;
/// Signalling processes that a node announces itself to.
const ANNOUNCE_MAX: usize = 16;

/// What the layers give, with the defaults.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Settings {
    listen: Option<IpAddr>,
    port: u16,
    shards: Option<u16>,
    advertise: Vec<IpAddr>,
    allow_loopback: bool,
    control: SocketAddr,
    control_url: Option<String>,
    control_token: Option<Secret>,
    control_token_file: Option<PathBuf>,
    admin: SocketAddr,
    announce: Vec<String>,
    node_id: Option<String>,
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    peers_max: usize,
    room_peers_max: usize,
    room_share: usize,
    speech_slots: u8,
    program_slots: u8,
    socket_buffer_bytes: usize,
    hold_ms: u8,
    no_gro: bool,
    no_ice_tcp: bool,
    shed_at_percent: u8,
    pin: bool,
    busy_poll_us: u32,
    gather_us: u32,
    media_nice: i8,
    log: LogFormat,
    log_filter: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: None,
            port: 40_000,
            shards: None,
            advertise: Vec::new(),
            allow_loopback: false,
            control: (Ipv4Addr::LOCALHOST, 7100).into(),
            control_url: None,
            control_token: None,
            control_token_file: None,
            admin: (Ipv4Addr::LOCALHOST, 7101).into(),
            announce: Vec::new(),
            node_id: None,
            certificate: None,
            private_key: None,
            peers_max: 4_000,
            // As many as signalling takes into a room.
            room_peers_max: 2_500,
            // Ten who talk to so many take some six tenths of a core (`tests/bench listeners`); a busier shard sends new
            // peers elsewhere.
            room_share: 256,
            speech_slots: 8,
            program_slots: 2,
            socket_buffer_bytes: 4 * 1024 * 1024,
            hold_ms: 0,
            no_gro: false,
            no_ice_tcp: false,
            shed_at_percent: 85,
            pin: false,
            busy_poll_us: 0,
            gather_us: 1_000,
            // Nine times the weight of other work, which keeps a tenth of a core that both want all the time.
            media_nice: -10,
            log: LogFormat::Text,
            log_filter: "info".to_owned(),
        }
    }
}

/// A node's configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// `None`: made from the host name once the control port is known.
    pub(crate) node_id: Option<String>,
    /// `None`: `::`, or `0.0.0.0` where IPv6 is off.
    pub(crate) listen: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) shards: u16,
    pub(crate) advertise: Vec<IpAddr>,
    pub(crate) control: SocketAddr,
    pub(crate) control_url: Option<String>,
    pub(crate) control_token: Secret,
    pub(crate) admin: SocketAddr,
    pub(crate) announce: Vec<Uri>,
    pub(crate) identity: Identity,
    pub(crate) peers_max: usize,
    pub(crate) room_peers_max: usize,
    pub(crate) room_share: usize,
    pub(crate) speech_slots: u8,
    pub(crate) program_slots: u8,
    pub(crate) socket_buffer_bytes: usize,
    pub(crate) gro: bool,
    pub(crate) ice_tcp: bool,
    /// Part of a core from which on a shard takes nobody new; above 1 it always does.
    pub(crate) shed_at: f32,
    pub(crate) pin: bool,
    pub(crate) tuning: Tuning,
    pub(crate) log: LogFormat,
    pub(crate) log_filter: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("--control-token-file (key control_token_file): {0}")]
    TokenFile(#[from] SecretError),
    #[error(transparent)]
    Advertise(#[from] AdvertiseError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{key} is {value}, must be {expected}")]
    OutOfRange { key: &'static str, value: String, expected: String },
    #[error("{first} and {second} are both set: choose one")]
    Both { first: &'static str, second: &'static str },
    #[error("{present} is set without {absent}: give both, or neither for a certificate made at each start")]
    Without { present: &'static str, absent: &'static str },
    #[error("control_token is not set: give it by --control-token-file, SFU_CONTROL_TOKEN or the settings file")]
    NoToken,
    #[error("{key} {value:?} is not a URL of the form {form}")]
    BadUrl { key: &'static str, value: String, form: &'static str },
}

impl Config {
    /// From all four layers.
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        Self::check(admin::settings::load(args.config.as_deref(), ENV_PREFIX, args)?)
    }

    /// From flags alone, as a test or an embedding program wants it.
    pub fn from_args(args: &Args) -> Result<Self, ConfigError> {
        Self::check(admin::settings::load_from(args.config.as_deref(), ENV_PREFIX, [], args)?)
    }

    fn check(settings: Settings) -> Result<Self, ConfigError> {
        let shards = match settings.shards {
            Some(count) => within("shards", count, 1..=SHARDS_MAX)?,
            None => std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(SHARDS_MAX)),
        };
        if settings.port != 0 && settings.port.checked_add(shards - 1).is_none() {
            let expected = format!("at most {} with {shards} shards", u16::MAX - shards + 1);
            return Err(ConfigError::OutOfRange { key: "port", value: settings.port.to_string(), expected });
        }
        let listen_family = settings.listen.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        Ok(Self {
            control_token: token(settings.control_token, settings.control_token_file.as_deref())?,
            advertise: advertise::choose(settings.advertise, settings.allow_loopback, listen_family)?,
            identity: identity(settings.certificate.as_deref(), settings.private_key.as_deref())?,
            announce: announce_urls(settings.announce)?,
            control_url: settings.control_url.map(control_url).transpose()?,
            node_id: settings.node_id.map(node_id).transpose()?,
            peers_max: within("peers_max", settings.peers_max, 1..=PEERS_MAX)?,
            room_peers_max: within("room_peers_max", settings.room_peers_max, 1..=PEERS_MAX)?,
            room_share: within("room_share", settings.room_share, 1..=PEERS_MAX)?,
            speech_slots: within("speech_slots", settings.speech_slots, 1..=SPEECH_SLOTS_MAX)?,
            program_slots: within("program_slots", settings.program_slots, 0..=PROGRAM_SLOTS_MAX)?,
            socket_buffer_bytes: within("socket_buffer_bytes", settings.socket_buffer_bytes, SOCKET_BUFFER_BYTES)?,
            gro: !settings.no_gro,
            ice_tcp: !settings.no_ice_tcp,
            shed_at: shed_at(within("shed_at_percent", settings.shed_at_percent, SHED_AT_PERCENT)?),
            pin: settings.pin,
            tuning: Tuning {
                hold: Duration::from_millis(within("hold_ms", settings.hold_ms, 0..=HOLD_MS_MAX)?.into()),
                busy_poll: Duration::from_micros(
                    within("busy_poll_us", settings.busy_poll_us, 0..=BUSY_POLL_US_MAX)?.into(),
                ),
                gather: Duration::from_micros(within("gather_us", settings.gather_us, 0..=GATHER_US_MAX)?.into()),
                nice: within("media_nice", settings.media_nice, MEDIA_NICE)?,
            },
            listen: settings.listen,
            port: settings.port,
            shards,
            control: settings.control,
            admin: settings.admin,
            log: settings.log,
            log_filter: settings.log_filter,
        })
    }
}

fn within<T: PartialOrd + std::fmt::Display>(
    key: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, ConfigError> {
    if range.contains(&value) {
        return Ok(value);
    }
    let expected = format!("from {} to {}", range.start(), range.end());
    Err(ConfigError::OutOfRange { key, value: value.to_string(), expected })
}

/// 100 is never reached for long, and is to mean never.
fn shed_at(percent: u8) -> f32 {
    if percent == 100 { f32::INFINITY } else { f32::from(percent) / 100.0 }
}

fn token(value: Option<Secret>, file: Option<&Path>) -> Result<Secret, ConfigError> {
    let token = match (value, file) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::Both { first: "control_token", second: "control_token_file" });
        }
        (Some(token), None) => token,
        (None, Some(path)) => Secret::from_file(path)?,
        (None, None) => return Err(ConfigError::NoToken),
    };
    let acceptable = token.expose().bytes().all(|b| b.is_ascii_graphic());
    if token.expose().len() < TOKEN_BYTES_MIN || !acceptable {
        let expected = format!("at least {TOKEN_BYTES_MIN} printable ASCII characters without spaces");
        return Err(ConfigError::OutOfRange { key: "control_token", value: token.to_string(), expected });
    }
    Ok(token)
}

fn identity(certificate: Option<&Path>, private_key: Option<&Path>) -> Result<Identity, ConfigError> {
    match (certificate, private_key) {
        (Some(certificate), Some(key)) => Ok(Identity::from_files(certificate, key)?),
        (None, None) => Ok(Identity::generate()?),
        (Some(_), None) => Err(ConfigError::Without { present: "certificate", absent: "private_key" }),
        (None, Some(_)) => Err(ConfigError::Without { present: "private_key", absent: "certificate" }),
    }
}

/// The route is ours, so the URL is only scheme and authority.
fn announce_urls(urls: Vec<String>) -> Result<Vec<Uri>, ConfigError> {
    if urls.len() > ANNOUNCE_MAX {
        let expected = format!("at most {ANNOUNCE_MAX} addresses");
        return Err(ConfigError::OutOfRange {
            key: "announce",
            value: format!("{} addresses", urls.len()),
            expected,
        });
    }
    let parse = |value: String| {
        let parsed = value.parse::<Uri>().ok();
        let good = |uri: &Uri| uri.scheme_str() == Some("http") && uri.host().is_some() && uri.path() == "/";
        parsed.filter(good).ok_or(ConfigError::BadUrl { key: "announce", value, form: "http://host:port" })
    };
    urls.into_iter().map(parse).collect()
}

fn control_url(value: String) -> Result<String, ConfigError> {
    let parsed = value.parse::<Uri>().ok();
    let good = parsed.is_some_and(|uri| matches!(uri.scheme_str(), Some("ws" | "wss")) && uri.host().is_some());
    let form = "ws://host:port/v1/control";
    if good { Ok(value) } else { Err(ConfigError::BadUrl { key: "control_url", value, form }) }
}

fn node_id(value: String) -> Result<String, ConfigError> {
    if !value.is_empty() && value.len() <= ID_BYTES_MAX && value.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(value);
    }
    let expected = format!("1 to {ID_BYTES_MAX} printable ASCII characters without spaces");
    Err(ConfigError::OutOfRange { key: "node_id", value, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("allow_loopback = true\n{text}")).unwrap();
        Config::from_args(&Args { config: Some(file.path().to_owned()), ..Args::default() })
    }

    fn refusal(text: &str) -> String {
        load(text).unwrap_err().to_string()
    }

    fn with_token(text: &str) -> String {
        format!("control_token = \"{TOKEN}\"\n{text}")
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let config = load(&with_token("")).unwrap();
        assert_eq!((config.port, config.control.port(), config.admin.port()), (40_000, 7100, 7101));
        assert_eq!((config.speech_slots, config.program_slots, config.tuning.nice), (8, 2, -10));
        assert!(config.shards >= 1 && config.listen.is_none());
        assert_eq!(config.advertise, [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    }

    #[test]
    fn every_flag_is_a_key() {
        let args = Args {
            listen: Some(Ipv4Addr::LOCALHOST.into()),
            port: Some(50_000),
            shards: Some(2),
            advertise: vec!["192.0.2.1".parse().unwrap()],
            allow_loopback: true,
            control: Some("127.0.0.1:1".parse().unwrap()),
            control_url: Some("ws://node:1/v1/control".to_owned()),
            control_token: Some(TOKEN.into()),
            admin: Some("127.0.0.1:2".parse().unwrap()),
            announce: vec!["http://127.0.0.1:7201".to_owned()],
            node_id: Some("n-1".to_owned()),
            peers_max: Some(10),
            room_peers_max: Some(5),
            room_share: Some(3),
            speech_slots: Some(4),
            program_slots: Some(1),
            socket_buffer_bytes: Some(1 << 20),
            hold_ms: Some(3),
            no_gro: true,
            no_ice_tcp: true,
            shed_at_percent: Some(70),
            pin: true,
            busy_poll_us: Some(50),
            gather_us: Some(250),
            media_nice: Some(-3),
            log: Some(LogFormat::Json),
            log_filter: Some("debug".to_owned()),
            ..Args::default()
        };
        let config = Config::from_args(&args).unwrap();
        assert_eq!((config.port, config.shards, config.peers_max, config.room_peers_max), (50_000, 2, 10, 5));
        assert_eq!(config.room_share, 3);
        assert!(config.pin && config.tuning.busy_poll == Duration::from_micros(50));
        assert_eq!((config.tuning.gather, config.tuning.nice), (Duration::from_micros(250), -3));
        assert_eq!(config.control_token.expose(), TOKEN);
        assert_eq!(config.announce[0].host(), Some("127.0.0.1"));
        assert_eq!((config.tuning.hold, config.gro, config.ice_tcp), (Duration::from_millis(3), false, false));
        assert!((config.shed_at - 0.7).abs() < f32::EPSILON);
        assert_eq!(config.log, LogFormat::Json);
    }

    #[test]
    fn a_misspelt_key_is_refused_with_the_nearest_one() {
        let refused = refusal("contrl_token = \"x\"");
        assert!(refused.ends_with("key contrl_token: unknown key, did you mean control_token?"), "{refused}");
    }

    #[test]
    fn a_token_is_needed_once_and_must_be_long() {
        assert!(refusal("").starts_with("control_token is not set"));
        let short = refusal("control_token = \"short\"");
        assert!(short.starts_with("control_token is ***, must be at least 16"), "{short}");
        let both = refusal(&with_token("control_token_file = \"/nonexistent\""));
        assert_eq!(both, "control_token and control_token_file are both set: choose one");
    }

    #[test]
    fn a_token_may_come_from_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{TOKEN}\n")).unwrap();
        let config = load(&format!("control_token_file = {:?}", file.path())).unwrap();
        assert_eq!(config.control_token.expose(), TOKEN);
    }

    #[test]
    fn values_out_of_range_name_their_key() {
        for (line, start) in [
            ("shards = 0", "shards is 0, must be from 1 to 64"),
            ("busy_poll_us = 100000", "busy_poll_us is 100000, must be from 0 to 20000"),
            ("media_nice = 1", "media_nice is 1, must be from -20 to 0"),
            ("media_nice = -21", "media_nice is -21, must be from -20 to 0"),
            ("gather_us = 5001", "gather_us is 5001, must be from 0 to 5000"),
            ("port = 65535\nshards = 2", "port is 65535, must be at most 65534 with 2 shards"),
            ("peers_max = 5000", "peers_max is 5000, must be from 1 to 4096"),
            ("shed_at_percent = 101", "shed_at_percent is 101, must be from 30 to 100"),
            ("speech_slots = 0", "speech_slots is 0, must be from 1 to 32"),
            ("hold_ms = 6", "hold_ms is 6, must be from 0 to 5"),
            ("socket_buffer_bytes = 1", "socket_buffer_bytes is 1, must be from"),
            ("node_id = \"two words\"", "node_id is two words, must be 1 to 128"),
            ("announce = [\"ftp://x\"]", "announce \"ftp://x\" is not a URL of the form http://host:port"),
            ("control_url = \"http://x\"", "control_url \"http://x\" is not a URL of the form ws://"),
            ("certificate = \"c.pem\"", "certificate is set without private_key"),
        ] {
            let refused = refusal(&with_token(line));
            assert!(refused.starts_with(start), "{refused}");
        }
    }
}
