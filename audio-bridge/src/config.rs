//! Flags and settings. Every flag is optional and named like its key in the settings file and the environment
//! (`--pulse-server`, `pulse_server`, `BRIDGE_PULSE_SERVER`). `PULSE_SERVER` and `PULSE_COOKIE` are the defaults of the
//! daemon's address and cookie, as for every PulseAudio client.

use std::net::SocketAddr;
use std::path::PathBuf;

use admin::Secret;
use admin::logs::LogFormat;
use admin::settings::SettingsError;
use serde::{Deserialize, Serialize};

use crate::pulse::address::AddressError;
use crate::pulse::{PulseSettings, ServerAddress, cookie};

#[derive(Debug, Default, clap::Args, Serialize)]
pub struct Args {
    /// Settings file (TOML). Environment variables (BRIDGE_SIGNALING ...) win over it, flags over both
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The room: ws:// or wss:// URL ending in /v1/rooms/NAME
    #[arg(long, value_name = "URL")]
    pub signaling: Option<String>,
    /// Token that admits to the room. Others can read it in the process list: prefer the file or BRIDGE_TOKEN
    #[arg(long, value_name = "JWT")]
    #[serde(serialize_with = "Secret::expose_in_settings")]
    pub token: Option<Secret>,
    /// File with the token; read again for each attempt to join
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) that a wss:// server may have instead of those of the system
    #[arg(long, value_name = "FILE")]
    pub trust: Option<PathBuf>,
    /// Sound daemon: unix:/path/native or tcp:host:port [default: PULSE_SERVER, else the daemon of this user]
    #[arg(long, value_name = "ADDRESS")]
    pub pulse_server: Option<String>,
    /// Its cookie, 256 bytes [default: PULSE_COOKIE, else ~/.config/pulse/cookie]
    #[arg(long, value_name = "FILE")]
    pub pulse_cookie: Option<PathBuf>,
    /// Source to publish; never another one [default: desktop.monitor]
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,
    /// Sink behind the virtual microphone [default: mic_in]
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
    /// Metrics, liveness, readiness and status [default: 127.0.0.1:7501]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// Bits per second of desktop sound, 16000 to 510000 [default: 128000]
    #[arg(long, value_name = "BPS")]
    pub bitrate: Option<u32>,
    /// Milliseconds of sound in a packet: 5, 10 or 20 [default: 10]
    #[arg(long, value_name = "MS")]
    pub frame_ms: Option<u32>,
    /// Send next to nothing while the desktop is digitally silent. Saves 100 small packets a second; browsers then bend
    /// the first quarter second of the next sound
    #[arg(long)]
    pub silence_gate: bool,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log: Option<LogFormat>,
    /// What to log, for example info,audio_bridge=debug [default: info, less of the media library]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}

/// The media library logs every step of every connection at INFO, and a missing TLS server name, which media has not, as
/// a warning.
const LOG_FILTER: &str = "info,webrtc=warn,rtc=warn,rtc_ice=warn,rtc_dtls=error,rtc_interceptor=warn";

/// The settings as they come from their layers.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Raw {
    signaling: Option<String>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    trust: Option<PathBuf>,
    pulse_server: Option<String>,
    pulse_cookie: Option<PathBuf>,
    source: String,
    sink: String,
    admin: SocketAddr,
    bitrate: u32,
    frame_ms: u32,
    silence_gate: bool,
    log: LogFormat,
    log_filter: String,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            signaling: None,
            token: None,
            token_file: None,
            trust: None,
            pulse_server: None,
            pulse_cookie: None,
            source: "desktop.monitor".to_owned(),
            sink: "mic_in".to_owned(),
            admin: SocketAddr::from(([127, 0, 0, 1], 7501)),
            bitrate: 128_000,
            frame_ms: 10,
            silence_gate: false,
            log: LogFormat::Text,
            log_filter: LOG_FILTER.to_owned(),
        }
    }
}

/// Where the token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    Value(Secret),
    File(PathBuf),
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub signaling: String,
    pub token: TokenSource,
    pub trust: Option<PathBuf>,
    pub pulse: PulseSettings,
    pub source: String,
    pub sink: String,
    pub admin: SocketAddr,
    pub bitrate_bps: u32,
    pub frame_ms: u32,
    pub silence_gate: bool,
    pub log: LogFormat,
    pub log_filter: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("key signaling has no value: give the room's URL as --signaling or BRIDGE_SIGNALING")]
    NoSignaling,
    #[error("key signaling must be a ws:// or wss:// URL")]
    BadSignaling,
    #[error("key token has no value: give it as BRIDGE_TOKEN, --token-file or --token")]
    NoToken,
    #[error("keys token and token_file are both given; one is enough")]
    TwoTokens,
    #[error("key pulse_server: {0}")]
    Server(#[from] AddressError),
    #[error("key {key} must name one device, not {name:?}: a default device may be the microphone")]
    Device { key: &'static str, name: String },
    #[error("key bitrate must be within 16000 and 510000, not {0}")]
    Bitrate(u32),
    #[error("key frame_ms must be 5, 10 or 20, not {0}")]
    Frame(u32),
}

/// What other PulseAudio clients look at.
#[derive(Clone, Debug, Default)]
pub struct PulseEnvironment {
    pub server: Option<String>,
    pub cookie: Option<PathBuf>,
    pub home: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
}

impl PulseEnvironment {
    #[must_use]
    pub fn of_process() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Self {
            server: std::env::var("PULSE_SERVER").ok().filter(|server| !server.is_empty()),
            cookie: path("PULSE_COOKIE"),
            home: path("HOME"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
        }
    }
}

impl Settings {
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let raw: Raw = admin::settings::load(args.config.as_deref(), "BRIDGE_", args)?;
        Self::check(raw, PulseEnvironment::of_process())
    }

    fn check(raw: Raw, environment: PulseEnvironment) -> Result<Self, ConfigError> {
        let signaling = raw.signaling.ok_or(ConfigError::NoSignaling)?;
        if !signaling.starts_with("ws://") && !signaling.starts_with("wss://") {
            return Err(ConfigError::BadSignaling);
        }
        let token = match (raw.token, raw.token_file) {
            (Some(_), Some(_)) => return Err(ConfigError::TwoTokens),
            (Some(token), None) => TokenSource::Value(token),
            (None, Some(path)) => TokenSource::File(path),
            (None, None) => return Err(ConfigError::NoToken),
        };
        if !(16_000..=510_000).contains(&raw.bitrate) {
            return Err(ConfigError::Bitrate(raw.bitrate));
        }
        if ![5, 10, 20].contains(&raw.frame_ms) {
            return Err(ConfigError::Frame(raw.frame_ms));
        }
        let server = match raw.pulse_server.or(environment.server) {
            Some(server) => server.parse()?,
            None => ServerAddress::of_this_user(environment.runtime_dir.as_deref()),
        };
        let cookie = raw
            .pulse_cookie
            .or(environment.cookie)
            .unwrap_or_else(|| cookie::default_path(environment.home.as_deref()));
        Ok(Self {
            signaling,
            token,
            trust: raw.trust,
            pulse: PulseSettings { server, cookie },
            source: device("source", raw.source)?,
            sink: device("sink", raw.sink)?,
            admin: raw.admin,
            bitrate_bps: raw.bitrate,
            frame_ms: raw.frame_ms,
            silence_gate: raw.silence_gate,
            log: raw.log,
            log_filter: raw.log_filter,
        })
    }
}

/// `@DEFAULT_SOURCE@` and its like are refused: what they mean changes when a device goes away.
fn device(key: &'static str, name: String) -> Result<String, ConfigError> {
    let names_one = !name.is_empty() && !name.starts_with('@') && !name.contains('\0');
    if names_one { Ok(name) } else { Err(ConfigError::Device { key, name }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> Raw {
        Raw {
            signaling: Some("ws://127.0.0.1:8080/v1/rooms/demo".to_owned()),
            token: Some("secret".into()),
            ..Raw::default()
        }
    }

    fn refusal(raw: Raw) -> String {
        Settings::check(raw, PulseEnvironment::default()).expect_err("refused").to_string()
    }

    #[test]
    fn the_daemon_is_found_like_every_pulse_client_finds_it() {
        let environment = PulseEnvironment {
            server: Some("tcp:desktop:4714".to_owned()),
            cookie: Some("/run/cookie".into()),
            ..PulseEnvironment::default()
        };
        let settings = Settings::check(raw(), environment.clone()).expect("valid");
        assert_eq!(settings.pulse.server.to_string(), "tcp:desktop:4714");
        assert_eq!(settings.pulse.cookie, PathBuf::from("/run/cookie"));
        let own = Raw { pulse_server: Some("unix:/run/native".to_owned()), ..raw() };
        let settings = Settings::check(own, environment).expect("valid");
        assert_eq!(settings.pulse.server.to_string(), "unix:/run/native");
    }

    #[test]
    fn a_default_device_is_refused() {
        let refused = refusal(Raw { source: "@DEFAULT_SOURCE@".to_owned(), ..raw() });
        assert!(refused.contains("key source") && refused.contains("microphone"), "{refused}");
    }

    #[test]
    fn mistakes_name_the_key_and_not_the_token() {
        assert!(refusal(Raw { token: None, ..raw() }).contains("key token"));
        assert!(refusal(Raw { token_file: Some("/t".into()), ..raw() }).contains("token_file"));
        assert!(refusal(Raw { frame_ms: 15, ..raw() }).contains("frame_ms"));
        assert!(refusal(Raw { bitrate: 8_000, ..raw() }).contains("bitrate"));
        assert!(refusal(Raw { signaling: Some("http://x".to_owned()), ..raw() }).contains("ws://"));
        assert!(!format!("{:?}", Settings::check(raw(), PulseEnvironment::default())).contains("secret"));
    }
}
