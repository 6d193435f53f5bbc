//! The keys of the settings, as they are typed: all optional, so that one set can lie over another.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use admin::Secret;
use admin::logs::LogFormat;
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    pub(crate) listen: Vec<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) no_udp: bool,
    pub(crate) no_tcp: bool,
    pub(crate) no_tls: bool,
    pub(crate) tls_port: Option<u16>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tls13_only: bool,
    pub(crate) proxy_from: Vec<String>,
    pub(crate) proxy_port: Option<u16>,
    pub(crate) connections: Option<u32>,
    pub(crate) source_connections: Option<u32>,
    pub(crate) relay_ip: Vec<IpAddr>,
    pub(crate) external_ip: Vec<String>,
    pub(crate) min_port: Option<u16>,
    pub(crate) max_port: Option<u16>,
    pub(crate) realm: Option<String>,
    pub(crate) secret: Vec<Secret>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) secret_sha256: Vec<Secret>,
    pub(crate) rest_separator: Option<String>,
    pub(crate) user: Vec<Secret>,
    pub(crate) user_file: Option<PathBuf>,
    pub(crate) peer: Vec<String>,
    pub(crate) peer_file: Option<PathBuf>,
    pub(crate) registry: Option<String>,
    pub(crate) denied_peer: Vec<String>,
    pub(crate) general: bool,
    pub(crate) listed: bool,
    pub(crate) allow_loopback_peers: bool,
    pub(crate) allow_multicast_peers: bool,
    pub(crate) user_allocations: Option<u32>,
    pub(crate) source_allocations: Option<u32>,
    pub(crate) total_allocations: Option<u32>,
    pub(crate) allocation_bytes_per_s: Option<u64>,
    pub(crate) total_bytes_per_s: Option<u64>,
    pub(crate) unauthorized_per_s: Option<u32>,
    pub(crate) failures_per_min: Option<u32>,
    pub(crate) nonce_seconds: Option<u32>,
    pub(crate) lifetime_seconds_max: Option<u32>,
    pub(crate) permission_seconds: Option<u32>,
    pub(crate) channel_seconds: Option<u32>,
    pub(crate) strict_expiry: bool,
    pub(crate) fingerprint: bool,
    pub(crate) software: Option<String>,
    pub(crate) alternate_server: Option<SocketAddr>,
    pub(crate) tcp_relay: bool,
    pub(crate) no_stun: bool,
    pub(crate) stun_only: bool,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) threads: Option<u16>,
    pub(crate) socket_buffer_bytes: Option<usize>,
    pub(crate) gather_us: Option<u32>,
    pub(crate) drain_seconds: Option<u32>,
    pub(crate) drain_allocations: Option<u32>,
    pub(crate) dev: bool,
    pub(crate) log: Option<LogFormat>,
    pub(crate) log_filter: Option<String>,
}

/// Every key with what it means, for `--check-config`; a test compares it with the struct.
pub(crate) const KEYS: &[(&str, &str)] = &[
    ("listen", "addresses to listen on; default: those of this machine"),
    ("port", "port to listen on; default 3478"),
    ("no_udp", "clients over UDP are not served"),
    ("no_tcp", "clients over TCP are not served, nor over TLS"),
    ("no_tls", "clients over TLS are not served"),
    ("tls_port", "port for TLS; default 5349. Both ports tell TLS, TURN and STUN apart by themselves"),
    ("tls_cert", "certificate chain in PEM; read again when it changes"),
    ("tls_key", "private key in PEM"),
    ("tls13_only", "refuse TLS 1.2"),
    ("proxy_from", "balancers, whose connections begin with a PROXY header (version 1 or 2): ADDRESS, A-B or A/N"),
    (
        "proxy_port",
        "one more TCP port, for balancers only; without proxy_from they are looked for in private networks",
    ),
    ("connections", "connections over TCP and TLS in all; default 16384"),
    ("source_connections", "connections from one address; default 256"),
    ("relay_ip", "addresses of relay sockets; default: those listened on, without loopback"),
    ("external_ip", "public address or name, PUBLIC/PRIVATE for each relay address, or stun:HOST[:PORT] to ask"),
    ("min_port", "first port of relay sockets; default 49152"),
    ("max_port", "last port of relay sockets; default 65535"),
    ("realm", "realm of the credentials; default relay"),
    ("secret", "secrets of REST credentials, all of them good"),
    ("secret_file", "file with more of them, one a line"),
    ("secret_sha256", "secrets whose passwords are made with SHA-256"),
    ("rest_separator", "what stands between time and user in a REST user name; default :"),
    ("user", "static users, name:password or name:0xKEY"),
    ("user_file", "file with more of them, one a line"),
    ("peer", "media nodes: ADDRESS, ADDRESS:FIRST-LAST of ports, A-B, or a prefix A/N"),
    ("peer_file", "file with more of them, one a line; read again when it changes"),
    (
        "registry",
        "admin port of signalling, http://HOST:PORT, whose media nodes are peers until a minute after they were last listed there",
    ),
    ("denied_peer", "in general mode, ranges that are no peers"),
    ("general", "relay to everybody who is not denied"),
    ("listed", "relay to the media nodes only, also with a coturn file, which means general without it"),
    ("allow_loopback_peers", "loopback addresses may be peers"),
    ("allow_multicast_peers", "multicast addresses may be peers"),
    ("user_allocations", "allocations of one user, 0: no limit; default 8"),
    ("source_allocations", "allocations from one address, 0: no limit; default 256"),
    ("total_allocations", "allocations in all, 0: no limit; default 16384"),
    ("allocation_bytes_per_s", "rate of an allocation in each direction, 0: no limit; default 125000"),
    ("total_bytes_per_s", "sum of those rates, 0: no limit; default 0"),
    ("unauthorized_per_s", "answers to strangers from one address; default 10"),
    ("failures_per_min", "wrong passwords from one address before silence; default 60"),
    ("nonce_seconds", "life of a nonce; default 600"),
    ("lifetime_seconds_max", "longest life of an allocation between refreshes; default 3600"),
    ("permission_seconds", "life of a permission; default 300"),
    ("channel_seconds", "life of a channel; default 600"),
    ("strict_expiry", "end allocations when their credential expires"),
    ("fingerprint", "FINGERPRINT in all signed answers"),
    ("software", "value of SOFTWARE; default: none is sent"),
    ("alternate_server", "where clients are sent while this relay drains"),
    ("tcp_relay", "TCP allocations (RFC 6062), for clients over TCP and TLS"),
    ("no_stun", "do not answer Binding requests"),
    ("stun_only", "answer Binding requests only"),
    ("admin", "metrics, liveness and readiness; default 127.0.0.1:7401"),
    ("threads", "threads; default: cores"),
    ("socket_buffer_bytes", "kernel buffers of each listening socket; default 4194304"),
    (
        "gather_us",
        "microseconds between two turns of a thread to which two datagrams or more come in that time, so that it serves them together; 0: serve each as it comes; default 250",
    ),
    ("drain_seconds", "longest wait for allocations to end; default 30"),
    ("drain_allocations", "allocations that need not be waited for; default 0"),
    ("dev", "a developer's machine: placeholder secrets and loopback relay addresses are accepted"),
    ("log", "text or json; default text"),
    ("log_filter", "what to log; default info"),
];

/// Each key in one of three ways, none left out: the struct would not be whole.
macro_rules! laid_over {
    ($upper:expr, $lower:expr; set: $($option:ident)*; on: $($switch:ident)*; not_empty: $($list:ident)*;) => {
        Self {
            $($option: $upper.$option.or($lower.$option),)*
            $($switch: $upper.$switch || $lower.$switch,)*
            $($list: if $upper.$list.is_empty() { $lower.$list } else { $upper.$list },)*
        }
    };
}

impl Settings {
    /// These where they are set, else the lower ones.
    pub(crate) fn over(self, lower: Self) -> Self {
        laid_over! { self, lower;
            set:
                port tls_port tls_cert tls_key proxy_port connections source_connections min_port
                max_port realm secret_file rest_separator user_file peer_file registry
                user_allocations source_allocations total_allocations allocation_bytes_per_s
                total_bytes_per_s unauthorized_per_s failures_per_min nonce_seconds
                lifetime_seconds_max permission_seconds channel_seconds software alternate_server
                admin threads socket_buffer_bytes gather_us drain_seconds drain_allocations log log_filter;
            on:
                no_udp no_tcp no_tls tls13_only general listed allow_loopback_peers
                allow_multicast_peers strict_expiry fingerprint tcp_relay no_stun stun_only dev;
            not_empty:
                listen proxy_from relay_ip external_ip secret secret_sha256 user peer denied_peer;
        }
    }
}
