//! Settings turned into values that need no further check: addresses found, files read, ranges parsed. Loaded again for
//! each reload; what cannot change while the process runs (ports, threads, relay addresses) is taken from the first.

mod coturn;
mod coturn_keys;
mod external;
mod secrets;
mod settings;
mod streams;

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use admin::logs::LogFormat;
use admin::settings::SettingsError;
use relay_core::{AddressRange, BadRange, Limits, Policy, RelayAddress, Settings as CoreSettings};

use crate::args::Args;
use crate::registry::{BadRegistry, Endpoint};
use crate::tls::TlsError;
pub use coturn::CoturnError;
pub(crate) use coturn::Note;
pub use external::ExternalError;
pub(crate) use external::Found;
pub use secrets::SecretsError;
pub(crate) use settings::KEYS;
use settings::Settings;
pub(crate) use streams::Streams;

pub(crate) const ENV_PREFIX: &str = "RELAY_";
/// A settings file longer than this is a wrong path.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const THREADS_MAX: u16 = 256;
/// Below this a batch does not fit; above it the kernel would hold seconds of audio.
const SOCKET_BUFFER_BYTES: RangeInclusive<usize> = 64 * 1024..=256 * 1024 * 1024;
/// What [`Config::gather`] is unless it is set.
const GATHER_US: u32 = 250;
/// A packet may wait as long on its way there and on its way back; more than this would be heard.
const GATHER_US_MAX: u32 = 5_000;

#[derive(Debug)]
pub struct Config {
    pub(crate) listen: Vec<IpAddr>,
    pub(crate) port: u16,
    pub(crate) udp: bool,
    pub(crate) streams: Streams,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) threads: u16,
    pub(crate) socket_buffer_bytes: usize,
    /// Between two beats of a thread to which much comes; zero: it has none.
    pub(crate) gather: Duration,
    pub(crate) admin: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) core: CoreSettings,
    /// Where more media nodes are learnt from.
    pub(crate) registry: Option<Endpoint>,
    /// Public addresses found by name or by a STUN server, to be looked at from time to time.
    pub(crate) external: Found,
    /// Files that are read again when they change.
    pub(crate) files: Vec<PathBuf>,
    /// What was ignored in a coturn file, and everything that was not.
    pub(crate) notes: Vec<Note>,
    pub(crate) log: LogFormat,
    pub(crate) log_filter: String,
}

/// How the process ends: at the latest after a time, at once with this few allocations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    pub(crate) time: Duration,
    pub(crate) allocations: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("settings file {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("settings file {} is longer than {FILE_BYTES_MAX} bytes", .0.display())]
    TooLong(PathBuf),
    #[error("settings file {} {source}", path.display())]
    Coturn { path: PathBuf, source: CoturnError },
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    External(#[from] ExternalError),
    #[error("{key}: {source}")]
    Range { key: &'static str, source: BadRange },
    #[error("{key} is {value}, must be {expected}")]
    OutOfRange { key: &'static str, value: String, expected: String },
    #[error("addresses of this machine cannot be found: {0}")]
    Interfaces(#[source] std::io::Error),
    #[error("there is no address for relay sockets: set relay_ip, or dev to use loopback")]
    NoRelayAddress,
    #[error(
        "no peer is allowed: name the media nodes with peer (--peer), peer_file or registry, or set general (--general) to \
         relay to everybody who is not denied"
    )]
    NoPeers,
    #[error("peer_file {} cannot be read: {source}", path.display())]
    PeerFile { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Registry(#[from] BadRegistry),
}

impl Config {
    /// A coturn file means a general relay, which is not said anywhere in it.
    pub(crate) fn is_general_by_coturn(&self) -> bool {
        self.core.policy.general && !self.notes.is_empty()
    }

    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        Self::load_again(args, &Found::default())
    }

    /// With what was found before, for names and servers that do not answer now.
    pub(crate) fn load_again(args: &Args, before: &Found) -> Result<Self, ConfigError> {
        let mut settings: Settings = admin::settings::load(args.config.as_deref(), ENV_PREFIX, args)?;
        let mut notes = Vec::new();
        let mut files = args.config.iter().chain(&args.coturn).cloned().collect::<Vec<_>>();
        if let Some(path) = &args.coturn {
            let unreadable = |source| ConfigError::Unreadable { path: path.clone(), source };
            if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
                return Err(ConfigError::TooLong(path.clone()));
            }
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            let read = coturn::read(&text, args.lenient)
                .map_err(|source| ConfigError::Coturn { path: path.clone(), source })?;
            let mut beneath = read.settings;
            notes = read.notes;
            streams::forgive_missing_certificate(&mut beneath, &mut notes);
            settings = settings.over(beneath);
        }
        let named = [&settings.secret_file, &settings.user_file, &settings.peer_file];
        let named = named.into_iter().chain([&settings.tls_cert, &settings.tls_key]);
        files.extend(named.flatten().cloned());
        let machine = machine_addresses()?;
        Self::from_settings(&settings, &machine, (notes, files), before)
    }

    fn from_settings(
        settings: &Settings,
        machine: &[IpAddr],
        (notes, files): (Vec<Note>, Vec<PathBuf>),
        before: &Found,
    ) -> Result<Self, ConfigError> {
        let listen = if settings.listen.is_empty() { machine.to_vec() } else { settings.listen.clone() };
        let (relays, external) = relay_addresses(settings, &listen, before)?;
        let ports = settings.min_port.unwrap_or(49_152)..=settings.max_port.unwrap_or(65_535);
        if ports.is_empty() || *ports.start() == 0 {
            return Err(out_of_range("min_port", ports.start(), "1 to max_port"));
        }
        let threads = match settings.threads {
            Some(n @ 1..=THREADS_MAX) => n,
            Some(n) => return Err(out_of_range("threads", n, format!("1 to {THREADS_MAX}"))),
            None => std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX.into()) as u16),
        };
        let socket_buffer_bytes = settings.socket_buffer_bytes.unwrap_or(4 * 1024 * 1024);
        if !SOCKET_BUFFER_BYTES.contains(&socket_buffer_bytes) {
            return Err(out_of_range("socket_buffer_bytes", socket_buffer_bytes, "64 KiB to 256 MiB"));
        }
        let drain = Drain {
            time: Duration::from_secs(settings.drain_seconds.unwrap_or(30).into()),
            allocations: settings.drain_allocations.unwrap_or(0) as usize,
        };
        let admin = settings.admin.unwrap_or((Ipv4Addr::LOCALHOST, 7_401).into());
        let own = own_addresses(&listen, &relays, admin.ip());
        let mut core = CoreSettings::new(
            secrets::credentials(settings)?,
            policy(settings, own, machine, &ports)?,
            if settings.stun_only { Vec::new() } else { relays },
        );
        core.limits = limits(settings);
        core.strict_expiry = settings.strict_expiry;
        core.fingerprint = settings.fingerprint;
        core.software.clone_from(&settings.software);
        core.alternate = settings.alternate_server;
        core.tcp_relay = settings.tcp_relay;
        let registry = settings.registry.as_deref().map(str::parse).transpose()?;
        core.stun = !settings.no_stun;
        core.turn = !settings.stun_only;
        Ok(Self {
            listen,
            port: settings.port.unwrap_or(3_478),
            udp: !settings.no_udp,
            streams: streams::streams(settings)?,
            ports,
            threads,
            socket_buffer_bytes,
            gather: gather(settings)?,
            admin,
            drain,
            core,
            registry,
            external,
            files,
            notes,
            log: settings.log.unwrap_or_default(),
            log_filter: settings.log_filter.clone().unwrap_or_else(|| "info".to_owned()),
        })
    }
}

/// Between two beats of a thread with much to do.
fn gather(settings: &Settings) -> Result<Duration, ConfigError> {
    let gather_us = settings.gather_us.unwrap_or(GATHER_US);
    if gather_us > GATHER_US_MAX {
        return Err(out_of_range("gather_us", gather_us, format!("0 to {GATHER_US_MAX}")));
    }
    Ok(Duration::from_micros(gather_us.into()))
}

fn out_of_range(key: &'static str, value: impl Display, expected: impl Into<String>) -> ConfigError {
    ConfigError::OutOfRange { key, value: format!("{value}"), expected: expected.into() }
}

/// Of all interfaces, without link-local ones, which need a scope to be reached.
fn machine_addresses() -> Result<Vec<IpAddr>, ConfigError> {
    let interfaces = if_addrs::get_if_addrs().map_err(ConfigError::Interfaces)?;
    let mut found: Vec<IpAddr> = interfaces.into_iter().map(|i| i.ip()).filter(|ip| !is_link_local(*ip)).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn relay_addresses(
    settings: &Settings,
    listen: &[IpAddr],
    before: &Found,
) -> Result<(Vec<RelayAddress>, Found), ConfigError> {
    let mut locals = if settings.relay_ip.is_empty() {
        listen.iter().copied().filter(|ip| !ip.is_loopback() && !ip.is_unspecified()).collect()
    } else {
        settings.relay_ip.clone()
    };
    if locals.is_empty() && settings.dev {
        locals = listen.to_vec();
    }
    if locals.is_empty() && !settings.stun_only {
        return Err(ConfigError::NoRelayAddress);
    }
    if let Some(ip) = locals.iter().find(|ip| ip.is_unspecified() || (ip.is_loopback() && !settings.dev)) {
        return Err(out_of_range("relay_ip", ip, "an address that peers can answer to, or dev for loopback"));
    }
    Ok(external::advertise(&locals, &settings.external_ip, before)?)
}

/// Never peers, whatever is allowed. Loopback is denied by itself.
fn own_addresses(listen: &[IpAddr], relays: &[RelayAddress], admin: IpAddr) -> Vec<IpAddr> {
    let relays = relays.iter().flat_map(|relay| [relay.local, relay.advertised]);
    let mut own = listen.iter().copied().chain(relays).chain([admin]).collect::<Vec<_>>();
    own.retain(|ip| !ip.is_loopback() && !ip.is_unspecified());
    own.sort_unstable();
    own.dedup();
    own
}

fn policy(
    settings: &Settings,
    own: Vec<IpAddr>,
    machine: &[IpAddr],
    ports: &RangeInclusive<u16>,
) -> Result<Policy, ConfigError> {
    let ranges = |key: &'static str, texts: &[String]| {
        let parsed = texts.iter().map(|text| text.parse::<AddressRange>());
        parsed.collect::<Result<Vec<_>, _>>().map_err(|source| ConfigError::Range { key, source })
    };
    let mut allowed = ranges("peer", &settings.peer)?;
    allowed.extend(ranges("peer_file", &peer_lines(settings.peer_file.as_deref())?)?);
    let general = settings.general && !settings.listed;
    if allowed.is_empty() && settings.registry.is_none() && !general && !settings.stun_only {
        return Err(ConfigError::NoPeers);
    }
    // What listens on this machine's other addresses is no peer either, unless it is named.
    let mut denied = ranges("denied_peer", &settings.denied_peer)?;
    denied
        .extend(machine.iter().copied().filter(|ip| !own.contains(ip) && !ip.is_loopback()).map(AddressRange::from));
    Ok(Policy {
        general,
        allowed,
        denied,
        own,
        relay_ports: general.then(|| ports.clone()),
        allow_loopback: settings.allow_loopback_peers,
        allow_multicast: settings.allow_multicast_peers,
    })
}

/// Without blank lines and comments.
fn peer_lines(path: Option<&Path>) -> Result<Vec<String>, ConfigError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let unreadable = |source| ConfigError::PeerFile { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(ConfigError::TooLong(path.to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

fn limits(settings: &Settings) -> Limits {
    let default = Limits::default();
    let count = |set: Option<u32>, default: u32| match set {
        Some(0) => u32::MAX,
        Some(n) => n,
        None => default,
    };
    let seconds = |set: Option<u32>, default: Duration| match set {
        None | Some(0) => default,
        Some(s) => Duration::from_secs(s.into()),
    };
    Limits {
        user_allocations: count(settings.user_allocations, default.user_allocations),
        source_allocations: count(settings.source_allocations, default.source_allocations),
        total_allocations: count(settings.total_allocations, default.total_allocations),
        allocation_bytes_per_s: settings.allocation_bytes_per_s.unwrap_or(default.allocation_bytes_per_s),
        total_bytes_per_s: settings.total_bytes_per_s.unwrap_or(default.total_bytes_per_s),
        unauthorized_per_s: settings.unauthorized_per_s.unwrap_or(default.unauthorized_per_s),
        failures_per_min: settings.failures_per_min.unwrap_or(default.failures_per_min),
        nonce_lifetime: seconds(settings.nonce_seconds, default.nonce_lifetime),
        lifetime_max: seconds(settings.lifetime_seconds_max, default.lifetime_max),
        permission_lifetime: seconds(settings.permission_seconds, default.permission_lifetime),
        channel_lifetime: seconds(settings.channel_seconds, default.channel_lifetime),
        ..default
    }
}

#[cfg(test)]
mod tests;
