//! Flags and settings. Every flag is optional and named like its key in the settings file and the environment
//! (`--pulse-server`, `pulse_server`, `BRIDGE_PULSE_SERVER`). `PULSE_SERVER` and `PULSE_COOKIE` are the defaults of the
//! daemon's address and cookie, as for every PulseAudio client.

use std::net::SocketAddr;
use std::path::PathBuf;

use admin::logs::LogFormat;
use admin::settings::SettingsError;
use admin::{Secret, SecretError};
use serde::{Deserialize, Serialize};
use signaling_protocol::IceServer;
use url::Url;

use crate::ice::{self, IceServerError};
use crate::profile::{EncodeError, EncodeSettings, Profile};
use crate::publish::RedundancySetting;
use crate::pulse::address::AddressError;
use crate::pulse::{PulseSettings, ServerAddress, cookie};
use crate::speakers::{Gains, MaySpeak};

#[derive(Debug, Default, clap::Args, Serialize)]
pub struct Args {
    /// Settings file (TOML). Environment variables (BRIDGE_SIGNALING ...) win over it, flags over both
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The room: ws:// or wss:// URL ending in /v1/rooms/NAME
    #[arg(long, value_name = "URL")]
    pub signaling: Option<String>,
    /// Publish to this WHIP endpoint (http:// or https://) instead of a room; nobody speaks into the desktop then
    #[arg(long, value_name = "URL")]
    #[serde(serialize_with = "Secret::expose_in_settings")]
    pub whip: Option<Secret>,
    /// Token that admits to the room or the WHIP endpoint. Others can read it in the process list: prefer the file or BRIDGE_TOKEN
    #[arg(long, value_name = "JWT")]
    #[serde(serialize_with = "Secret::expose_in_settings")]
    pub token: Option<Secret>,
    /// File with the token; read again for each attempt to join
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) that a wss:// or https:// server may have instead of those of the system
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
    /// What programs record the voices from; only `devices` and `probe` look at it [default: mic]
    #[arg(long, value_name = "NAME")]
    pub microphone: Option<String>,
    /// Metrics, liveness, readiness and status [default: 127.0.0.1:7501]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// speech (64 kb/s, 20 ms), music (128 kb/s, 10 ms), studio (510 kb/s, 10 ms), instant (128 kb/s, 5 ms) or
    /// thrift (64 kb/s, 20 ms) [default: music]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<Profile>,
    /// Bits per second of desktop sound, 16000 to 510000 [default: the profile's]
    #[arg(long, value_name = "BPS")]
    pub bitrate: Option<u32>,
    /// Milliseconds of sound in a packet: 5, 10 or 20 [default: the profile's]
    #[arg(long, value_name = "MS")]
    pub frame_ms: Option<u32>,
    /// Earlier packets that each packet repeats: auto (as the loss asks), 0, 1 or 2 [default: auto]
    #[arg(long, value_name = "BLOCKS")]
    pub redundancy: Option<RedundancySetting>,
    /// Who may speak into the desktop: all, none, role:speaker,.. or identity:alice,.. [default: all]
    #[arg(long, value_name = "WHO")]
    pub may_speak: Option<MaySpeak>,
    /// How loud people are in the desktop's microphone: alice=0.5,bob=2 [default: everybody 1]
    #[arg(long, value_name = "GAINS")]
    pub gains: Option<Gains>,
    /// STUN server, HOST:PORT [default: STUN_SERVER]
    #[arg(long, value_name = "SERVER")]
    pub ice_stun: Option<String>,
    /// TURN server, turn://USER:PASSWORD@HOST:PORT. Others can read it in the process list: prefer BRIDGE_ICE_RELAY
    /// [default: TURN_SERVER]
    #[arg(long, value_name = "URL")]
    #[serde(serialize_with = "Secret::expose_in_settings")]
    pub ice_relay: Option<Secret>,
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
    whip: Option<Secret>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
    trust: Option<PathBuf>,
    pulse_server: Option<String>,
    pulse_cookie: Option<PathBuf>,
    source: String,
    sink: String,
    microphone: String,
    admin: SocketAddr,
    profile: Profile,
    bitrate: Option<u32>,
    frame_ms: Option<u32>,
    redundancy: RedundancySetting,
    may_speak: MaySpeak,
    gains: Gains,
    ice_stun: Option<String>,
    ice_relay: Option<Secret>,
    silence_gate: bool,
    log: LogFormat,
    log_filter: String,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            signaling: None,
            whip: None,
            token: None,
            token_file: None,
            trust: None,
            pulse_server: None,
            pulse_cookie: None,
            source: "desktop.monitor".to_owned(),
            sink: "mic_in".to_owned(),
            microphone: "mic".to_owned(),
            admin: SocketAddr::from(([127, 0, 0, 1], 7501)),
            profile: Profile::default(),
            bitrate: None,
            frame_ms: None,
            redundancy: RedundancySetting::default(),
            may_speak: MaySpeak::default(),
            gains: Gains::default(),
            ice_stun: None,
            ice_relay: None,
            silence_gate: false,
            log: LogFormat::Text,
            log_filter: LOG_FILTER.to_owned(),
        }
    }
}

/// Where desktop sound goes.
#[derive(Clone)]
pub enum Destination {
    Room { url: String, token: TokenSource },
    Whip { url: Url, token: Option<TokenSource> },
}

impl std::fmt::Debug for Destination {
    /// There are WHIP endpoints whose path is the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Room { url, .. } => f.debug_struct("Room").field("url", url).finish_non_exhaustive(),
            Self::Whip { url, .. } => f.debug_struct("Whip").field("host", &url.host_str()).finish_non_exhaustive(),
        }
    }
}

/// Where the token comes from.
#[derive(Clone, Debug)]
pub enum TokenSource {
    Value(Secret),
    File(PathBuf),
}

impl TokenSource {
    /// The token as it is now; a file is read again each time, because tokens expire.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Value(token) => Ok(token.clone()),
            Self::File(path) => Secret::from_file(path),
        }
    }
}

/// What `devices` and `probe` need: no room, no token.
#[derive(Clone, Debug)]
pub struct DeviceSettings {
    pub pulse: PulseSettings,
    pub source: String,
    pub sink: String,
    pub microphone: String,
}

impl DeviceSettings {
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let raw: Raw = admin::settings::load(args.config.as_deref(), "BRIDGE_", args)?;
        Ok(Self {
            pulse: pulse(raw.pulse_server, raw.pulse_cookie, &Surroundings::of_process())?,
            source: device("source", raw.source)?,
            sink: device("sink", raw.sink)?,
            microphone: device("microphone", raw.microphone)?,
        })
    }
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub destination: Destination,
    pub trust: Option<PathBuf>,
    pub pulse: PulseSettings,
    pub source: String,
    pub sink: String,
    pub admin: SocketAddr,
    pub encode: EncodeSettings,
    pub redundancy: RedundancySetting,
    pub may_speak: MaySpeak,
    pub gains: Gains,
    pub ice_servers: Vec<IceServer>,
    pub silence_gate: bool,
    pub log: LogFormat,
    pub log_filter: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(
        "key signaling has no value: give the room's URL as --signaling or BRIDGE_SIGNALING, or a WHIP endpoint as --whip"
    )]
    NoSignaling,
    #[error("keys signaling and whip are both given; desktop sound goes to one place")]
    TwoDestinations,
    #[error(
        "key whip must be an http:// or https:// URL without a user in it; the token is given as BRIDGE_TOKEN or --token-file"
    )]
    BadWhip,
    #[error("key signaling must be a ws:// or wss:// URL")]
    BadSignaling,
    #[error("key token has no value: give it as BRIDGE_TOKEN, --token-file or --token")]
    NoToken,
    #[error("keys token and token_file are both given; one is enough")]
    TwoTokens,
    #[error("key token_file: {0}; put the token there before the start, or give it as BRIDGE_TOKEN")]
    TokenFile(#[from] SecretError),
    #[error("key pulse_server (--pulse-server, BRIDGE_PULSE_SERVER or PULSE_SERVER) is {value:?}: {source}")]
    Server { value: String, source: AddressError },
    #[error("key {key} must name one device, not {name:?}: a default device may be the microphone")]
    Device { key: &'static str, name: String },
    #[error("key {0}")]
    Encode(#[from] EncodeError),
    #[error(transparent)]
    IceServer(#[from] IceServerError),
}

/// What other PulseAudio and WebRTC programs look at.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    pub server: Option<String>,
    pub cookie: Option<PathBuf>,
    pub home: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
    pub ice_stun: Option<String>,
    pub ice_relay: Option<Secret>,
}

impl Surroundings {
    #[must_use]
    pub fn of_process() -> Self {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            server: text("PULSE_SERVER"),
            ice_stun: text("STUN_SERVER"),
            ice_relay: text("TURN_SERVER").map(|url| url.as_str().into()),
            cookie: path("PULSE_COOKIE"),
            home: path("HOME"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
        }
    }
}

impl Settings {
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let raw: Raw = admin::settings::load(args.config.as_deref(), "BRIDGE_", args)?;
        Self::check(raw, Surroundings::of_process())
    }

    fn check(raw: Raw, environment: Surroundings) -> Result<Self, ConfigError> {
        let token = match (raw.token, raw.token_file) {
            (Some(_), Some(_)) => return Err(ConfigError::TwoTokens),
            (Some(token), None) => Some(TokenSource::Value(token)),
            (None, Some(path)) => {
                // Later it may come and go; a file that is not there now is a wrong path.
                drop(Secret::from_file(&path)?);
                Some(TokenSource::File(path))
            }
            (None, None) => None,
        };
        let destination = destination(raw.signaling, raw.whip.as_ref(), token)?;
        let pulse = pulse(raw.pulse_server, raw.pulse_cookie, &environment)?;
        let stun = raw.ice_stun.or(environment.ice_stun).map(|server| ice::stun(&server));
        let turn = raw.ice_relay.or(environment.ice_relay).map(|server| ice::turn(server.expose()));
        let ice_servers = stun.into_iter().chain(turn).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            destination,
            trust: raw.trust,
            pulse,
            source: device("source", raw.source)?,
            sink: device("sink", raw.sink)?,
            admin: raw.admin,
            encode: EncodeSettings::new(raw.profile, raw.bitrate, raw.frame_ms)?,
            redundancy: raw.redundancy,
            may_speak: raw.may_speak,
            gains: raw.gains,
            ice_servers,
            silence_gate: raw.silence_gate,
            log: raw.log,
            log_filter: raw.log_filter,
        })
    }
}

fn destination(
    signaling: Option<String>,
    whip: Option<&Secret>,
    token: Option<TokenSource>,
) -> Result<Destination, ConfigError> {
    match (signaling, whip) {
        (Some(_), Some(_)) => Err(ConfigError::TwoDestinations),
        (None, None) => Err(ConfigError::NoSignaling),
        (Some(url), None) if !url.starts_with("ws://") && !url.starts_with("wss://") => {
            Err(ConfigError::BadSignaling)
        }
        (Some(url), None) => Ok(Destination::Room { url, token: token.ok_or(ConfigError::NoToken)? }),
        (None, Some(whip)) => {
            let url = Url::parse(whip.expose()).map_err(|_| ConfigError::BadWhip)?;
            let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
            let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
            if is_plain && is_web { Ok(Destination::Whip { url, token }) } else { Err(ConfigError::BadWhip) }
        }
    }
}

/// The daemon: as set, else as for every other client.
pub fn pulse(
    server: Option<String>,
    cookie: Option<PathBuf>,
    environment: &Surroundings,
) -> Result<PulseSettings, ConfigError> {
    let server = match server.or_else(|| environment.server.clone()) {
        Some(value) => value.parse().map_err(|source| ConfigError::Server { value, source })?,
        None => ServerAddress::of_this_user(environment.runtime_dir.as_deref()),
    };
    let cookie = cookie
        .or_else(|| environment.cookie.clone())
        .unwrap_or_else(|| cookie::default_path(environment.home.as_deref()));
    Ok(PulseSettings { server, cookie })
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
        Settings::check(raw, Surroundings::default()).expect_err("refused").to_string()
    }

    #[test]
    fn the_daemon_is_found_like_every_pulse_client_finds_it() {
        let environment = Surroundings {
            server: Some("tcp:desktop:4714".to_owned()),
            cookie: Some("/run/cookie".into()),
            ..Surroundings::default()
        };
        let settings = Settings::check(raw(), environment.clone()).expect("valid");
        assert_eq!(settings.pulse.server.to_string(), "tcp:desktop:4714");
        assert_eq!(settings.pulse.cookie, PathBuf::from("/run/cookie"));
        let own = Raw { pulse_server: Some("unix:/run/native".to_owned()), ..raw() };
        let settings = Settings::check(own, environment).expect("valid");
        assert_eq!(settings.pulse.server.to_string(), "unix:/run/native");
    }

    #[test]
    fn servers_of_the_environment_are_used_and_never_printed() {
        let environment = Surroundings {
            ice_stun: Some("stun.example.org:3478".to_owned()),
            ice_relay: Some("turn://me:hidden@turn.example.org".into()),
            ..Surroundings::default()
        };
        let settings = Settings::check(raw(), environment.clone()).expect("valid");
        assert_eq!(settings.ice_servers.len(), 2);
        assert!(!format!("{settings:?}").contains("hidden"));
        let own = Raw { ice_relay: Some("turn://hidden@nowhere".into()), ..raw() };
        let refused = Settings::check(own, environment).expect_err("refused").to_string();
        assert!(refused.contains("TURN_SERVER") && !refused.contains("hidden"), "{refused}");
    }

    #[test]
    fn a_default_device_is_refused() {
        let refused = refusal(Raw { source: "@DEFAULT_SOURCE@".to_owned(), ..raw() });
        assert!(refused.contains("key source") && refused.contains("microphone"), "{refused}");
    }

    #[test]
    fn a_whip_endpoint_takes_the_place_of_the_room_and_needs_no_token() {
        let whip = |url: &str| Raw { signaling: None, token: None, whip: Some(url.into()), ..Raw::default() };
        let settings = Settings::check(whip("https://live.example.org/whip/hidden-key"), Surroundings::default());
        let settings = settings.expect("valid");
        assert!(matches!(settings.destination, Destination::Whip { token: None, .. }));
        assert!(!format!("{settings:?}").contains("hidden-key"));
        for url in
            ["live.example.org/whip", "ws://live.example.org", "https://me:hidden@live.example.org/", "https://"]
        {
            let refused = refusal(whip(url));
            assert!(refused.contains("key whip") && !refused.contains("hidden"), "{refused}");
        }
        assert!(refusal(Raw { whip: Some("https://x/".into()), ..raw() }).contains("one place"));
    }

    #[test]
    fn mistakes_name_the_key_and_not_the_token() {
        assert!(refusal(Raw { token: None, ..raw() }).contains("key token"));
        assert!(refusal(Raw { token_file: Some("/t".into()), ..raw() }).contains("token_file"));
        let absent = refusal(Raw { token: None, token_file: Some("/nowhere/token".into()), ..raw() });
        for word in ["token_file", "/nowhere/token", "cannot be read", "BRIDGE_TOKEN"] {
            assert!(absent.contains(word), "{absent}");
        }
        assert!(refusal(Raw { frame_ms: Some(15), ..raw() }).contains("frame_ms"));
        assert!(refusal(Raw { bitrate: Some(8_000), ..raw() }).contains("bitrate"));
        assert!(refusal(Raw { signaling: Some("http://x".to_owned()), ..raw() }).contains("ws://"));
        assert!(!format!("{:?}", Settings::check(raw(), Surroundings::default())).contains("secret"));
    }
}
