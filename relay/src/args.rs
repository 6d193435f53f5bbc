//! The command line. Every flag is optional and named like its key in the settings file and the environment
//! (`--min-port`, `min_port`, `RELAY_MIN_PORT`); keys that are rarely set have no flag. Secrets have none either: others
//! could read them in the process list.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use admin::logs::LogFormat;
use serde::Serialize;

/// STUN and TURN server for media nodes.
#[derive(Debug, Default, clap::Parser, Serialize)]
#[command(name = "relay", version)]
pub struct Args {
    /// Settings file (TOML). Environment variables (RELAY_PORT ...) win over it, flags over both
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Settings file of coturn (turnserver.conf), beneath the other settings
    #[arg(short = 'c', long, value_name = "FILE")]
    #[serde(skip)]
    pub coturn: Option<PathBuf>,
    /// Explain each key of the settings, and end
    #[arg(long)]
    #[serde(skip)]
    pub check_config: bool,
    /// Warn of unknown keys in a coturn file, instead of refusing to start
    #[arg(long)]
    #[serde(skip)]
    pub lenient: bool,
    /// For a developer's machine: placeholder secrets and loopback relay addresses are accepted
    #[arg(long)]
    pub dev: bool,
    /// Addresses to listen on [default: those of this machine]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub listen: Vec<IpAddr>,
    /// Port to listen on. 0: the OS chooses [default: 3478]
    #[arg(long)]
    pub port: Option<u16>,
    /// Port for TLS, with --tls-cert. 0: the OS chooses [default: 5349]
    #[arg(long, value_name = "PORT")]
    pub tls_port: Option<u16>,
    /// Certificate chain in PEM, read again when it changes
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key in PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// A balancer, whose connections begin with a PROXY header; may repeat
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub proxy_from: Vec<String>,
    /// One more TCP port, for balancers only
    #[arg(long, value_name = "PORT")]
    pub proxy_port: Option<u16>,
    /// Addresses of relay sockets [default: those listened on, without loopback]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub relay_ip: Vec<IpAddr>,
    /// Public address, or PUBLIC/PRIVATE for each relay address, or stun:HOST or stun:HOST:PORT to ask. Names and
    /// servers are asked again and again
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub external_ip: Vec<String>,
    /// First port of relay sockets [default: 49152]
    #[arg(long, value_name = "PORT")]
    pub min_port: Option<u16>,
    /// Last port of relay sockets [default: 65535]
    #[arg(long, value_name = "PORT")]
    pub max_port: Option<u16>,
    /// Realm of the credentials [default: relay]
    #[arg(long)]
    pub realm: Option<String>,
    /// File with the secrets of REST credentials, one a line
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// File with static users, name:password or name:0xKEY, one a line
    #[arg(long, value_name = "FILE")]
    pub user_file: Option<PathBuf>,
    /// A media node, ADDRESS or ADDRESS:FIRST-LAST of its ports; may repeat
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub peer: Vec<String>,
    /// File with more of them, one a line, read again when it changes
    #[arg(long, value_name = "FILE")]
    pub peer_file: Option<PathBuf>,
    /// Signalling's admin port, http://HOST:PORT: the media nodes that it knows are peers
    #[arg(long, value_name = "URL")]
    pub registry: Option<String>,
    /// Relay to everybody who is not denied, not only to the media nodes
    #[arg(long)]
    pub general: bool,
    /// Relay to the media nodes only, also with a coturn file
    #[arg(long, conflicts_with = "general")]
    pub listed: bool,
    /// Metrics, liveness and readiness [default: 127.0.0.1:7401]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// Threads [default: cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<u16>,
    /// Longest wait for allocations to end after SIGTERM [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub drain_seconds: Option<u32>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log: Option<LogFormat>,
    /// What to log, for example info,relay=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}
