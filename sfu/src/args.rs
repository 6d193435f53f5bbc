//! The command line. Every flag is optional and named like its key in the settings file and the environment
//! (`--control-token`, `control_token`, `SFU_CONTROL_TOKEN`).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use admin::Secret;
use admin::logs::LogFormat;
use serde::Serialize;

/// Media node: ICE, DTLS-SRTP and forwarding of audio.
#[derive(Debug, Default, clap::Parser, Serialize)]
#[command(name = "sfu", version)]
pub struct Args {
    /// Settings file (TOML). Environment variables (SFU_PORT ...) win over it, flags over both
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address to receive media on. `::` takes IPv4 and IPv6 [default: ::, or 0.0.0.0 without IPv6]
    #[arg(long, value_name = "IP")]
    pub listen: Option<IpAddr>,
    /// UDP port of the first shard; the others follow it. 0: the OS chooses each [default: 40000]
    #[arg(long)]
    pub port: Option<u16>,
    /// Media threads, one UDP port each [default: cores]
    #[arg(long)]
    pub shards: Option<u16>,
    /// Addresses that clients are told to send media to, best first [default: those of this machine]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub advertise: Vec<IpAddr>,
    /// Accept loopback addresses in --advertise; without --advertise, use 127.0.0.1 and ::1
    #[arg(long)]
    pub allow_loopback: bool,
    /// Where signalling dials [default: 127.0.0.1:7100]
    #[arg(long, value_name = "ADDRESS")]
    pub control: Option<SocketAddr>,
    /// Control address as signalling sees it, for announcements [default: made from --control]
    #[arg(long, value_name = "WS_URL")]
    pub control_url: Option<String>,
    /// Token shared with signalling. Others can read it in the process list: prefer the file or SFU_CONTROL_TOKEN
    #[arg(long, value_name = "TOKEN")]
    #[serde(serialize_with = "Secret::expose_in_settings")]
    pub control_token: Option<Secret>,
    /// File with the token shared with signalling
    #[arg(long, value_name = "FILE")]
    pub control_token_file: Option<PathBuf>,
    /// Metrics, liveness, readiness and status [default: 127.0.0.1:7101]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// Admin address of a signalling process to announce this node to; may repeat
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub announce: Vec<String>,
    /// Name of this node [default: host name and control port]
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,
    /// DTLS certificate, ECDSA P-256 in PEM [default: a new one at each start]
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PKCS#8 in PEM
    #[arg(long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// Most peers of the node [default: 4000]
    #[arg(long, value_name = "N")]
    pub peers_max: Option<usize>,
    /// Most peers of one room, over all shards [default: 2500]
    #[arg(long, value_name = "N")]
    pub room_peers_max: Option<usize>,
    /// Peers of a room on one shard before it goes on to another one [default: 256]
    #[arg(long, value_name = "N")]
    pub room_share: Option<usize>,
    /// Voices heard at the same time in a room [default: 8]
    #[arg(long, value_name = "N")]
    pub speech_slots: Option<u8>,
    /// Desktops and shared tabs heard at the same time in a room [default: 2]
    #[arg(long, value_name = "N")]
    pub program_slots: Option<u8>,
    /// Kernel receive and send buffer of each media socket [default: 4194304]
    #[arg(long, value_name = "BYTES")]
    pub socket_buffer_bytes: Option<usize>,
    /// How long packets may wait for others to the same listener, so that they leave as one: 0 to 5 ms [default: 0]
    #[arg(long, value_name = "MS")]
    pub hold_ms: Option<u8>,
    /// Take the datagrams of one sender from the kernel one by one, not as runs (UDP_GRO)
    #[arg(long)]
    pub no_gro: bool,
    /// Take no media over TCP: without it, clients whose network lets no UDP out cannot join
    #[arg(long)]
    pub no_ice_tcp: bool,
    /// Refuse joins while a shard is busy for this part of the time; 100: never [default: 85]
    #[arg(long, value_name = "PERCENT")]
    pub shed_at_percent: Option<u8>,
    /// Tie each media thread to a core of its own, as far as there are cores
    #[arg(long)]
    pub pin: bool,
    /// Microseconds that a media thread looks for work before it sleeps: less delay for more CPU [default: 0]
    #[arg(long, value_name = "US")]
    pub busy_poll_us: Option<u32>,
    /// Microseconds that datagrams may wait for others while a media thread gets two and more in such a time: less CPU for
    /// more delay. 0: they never wait [default: 1000]
    #[arg(long, value_name = "US")]
    pub gather_us: Option<u32>,
    /// Priority of media threads as in nice(1), -20 to 0, so that other work does not delay audio: that of the same
    /// control group or session; between units and containers their CPU weights decide. Less than 0 needs CAP_SYS_NICE or
    /// LimitNICE; without the right they run like the rest [default: -10]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub media_nice: Option<i8>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log: Option<LogFormat>,
    /// What to log, for example info,sfu=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}
