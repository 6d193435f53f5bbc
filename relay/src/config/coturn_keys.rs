//! The keys of `turnserver.conf`, one a line, with what becomes of each.

use admin::Secret;
use relay_core::AddressRange;

use super::coturn::Treatment::{self, Done, Ignored, Met, Refused};
use super::coturn::{flag, parse, text};

const NO_DTLS: &str = "DTLS is not offered";
const CHOSEN: &str = "the TLS library chooses, and nothing weak is among its choices";
const LOGS: &str = "logs go to standard error, and log-filter says how much";
const ONE_REALM: &str = "there is one realm";
const NO_DATABASE: &str = "there is no database: users and secrets come from files";
const NO_CONSOLE: &str = "there is no console and no web page for administration";

pub(super) const KEYS: &[(&str, Treatment)] = &[
    // Where
    ("listening-port", Done(|d, v| parse(v).map(|port| d.settings.port = Some(port)))),
    ("listening-ip", Done(|d, v| parse(v).map(|ip| d.settings.listen.push(ip)))),
    ("relay-ip", Done(|d, v| parse(v).map(|ip| d.settings.relay_ip.push(ip)))),
    ("external-ip", Done(|d, v| text(v).map(|ip| d.settings.external_ip.push(ip)))),
    ("min-port", Done(|d, v| parse(v).map(|port| d.settings.min_port = Some(port)))),
    ("max-port", Done(|d, v| parse(v).map(|port| d.settings.max_port = Some(port)))),
    ("alternate-server", Done(|d, v| parse(v).map(|to| d.settings.alternate_server = Some(to)))),
    ("listening-device", Ignored("name addresses, not devices")),
    ("relay-device", Ignored("name addresses, not devices")),
    ("alt-listening-port", Ignored("RFC 5780 is not offered")),
    // Who
    ("lt-cred-mech", Met),
    ("use-auth-secret", Done(|d, v| flag(v).map(|on| d.rest = on))),
    ("static-auth-secret", Done(|d, v| d.add_secret(v))),
    ("rest-api-separator", Done(|d, v| text(v).map(|c| d.settings.rest_separator = Some(c)))),
    ("user", Done(|d, v| text(v).map(|user| d.settings.user.push(Secret::new(user))))),
    ("realm", Done(|d, v| text(v).map(|realm| d.settings.realm = Some(realm)))),
    ("server-name", Done(|d, v| d.set_server_name(v))),
    ("stale-nonce", Done(|d, v| parse(v).map(|s| d.settings.nonce_seconds = Some(s)))),
    ("stateless-nonce", Met),
    ("stateless-nonce-secret", Ignored("nonces are checked by the relay that made them")),
    ("check-origin-consistency", Ignored(ONE_REALM)),
    ("no-auth", Refused("everybody could relay through this host: name credentials by user or static-auth-secret")),
    ("oauth", Refused("third-party authorization is not offered")),
    ("secret-key-file", Refused("passwords are not encrypted in files: protect the file itself")),
    ("raw-public-keys", Refused("TLS is by certificates: name them with cert and pkey")),
    // How much
    ("user-quota", Done(|d, v| parse(v).map(|n| d.settings.user_allocations = Some(n)))),
    ("total-quota", Done(|d, v| parse(v).map(|n| d.settings.total_allocations = Some(n)))),
    ("max-bps", Done(|d, v| parse(v).map(|n| d.settings.allocation_bytes_per_s = Some(n)))),
    ("bps-capacity", Done(|d, v| parse(v).map(|n| d.settings.total_bytes_per_s = Some(n)))),
    ("max-allocate-lifetime", Done(|d, v| parse(v).map(|s| d.settings.lifetime_seconds_max = Some(s)))),
    ("permission-lifetime", Done(|d, v| parse(v).map(|s| d.settings.permission_seconds = Some(s)))),
    ("channel-lifetime", Done(|d, v| parse(v).map(|s| d.settings.channel_seconds = Some(s)))),
    ("max-allocate-timeout", Met),
    ("unauthorized-ratelimit", Met),
    ("unauthorized-ratelimit-rps", Done(|d, v| parse(v).map(|n| d.settings.unauthorized_per_s = Some(n)))),
    ("drain-min-allocations", Done(|d, v| parse(v).map(|n| d.settings.drain_allocations = Some(n)))),
    // To whom
    ("denied-peer-ip", Done(|d, v| range(v).map(|range| d.settings.denied_peer.push(range)))),
    ("allowed-peer-ip", Done(|d, v| range(v).map(|range| d.settings.peer.push(range)))),
    ("allow-loopback-peers", Done(|d, v| flag(v).map(|on| d.settings.allow_loopback_peers = on))),
    ("no-multicast-peers", Met),
    ("no-loopback-peers", Met),
    ("server-relay", Refused("it relays without permissions of the client")),
    // What
    ("fingerprint", Done(|d, v| flag(v).map(|on| d.settings.fingerprint = on))),
    ("software-attribute", Done(|d, v| text(v).map(|name| d.settings.software = Some(name)))),
    ("stun-only", Done(|d, v| flag(v).map(|on| d.settings.stun_only = on))),
    ("no-stun", Done(|d, v| flag(v).map(|on| d.settings.no_stun = on))),
    ("no-udp", Done(|d, v| flag(v).map(|on| d.settings.no_udp = on))),
    ("no-udp-relay", Done(|d, v| flag(v).map(|on| d.settings.stun_only = on))),
    ("no-tcp-relay", Met),
    ("no-tcp", Done(|d, v| flag(v).map(|on| d.settings.no_tcp = on))),
    ("no-tls", Done(|d, v| flag(v).map(|on| d.settings.no_tls = on))),
    ("no-dtls", Met),
    ("no-rfc5780", Met),
    ("no-stun-backward-compatibility", Met),
    ("drop-invalid-packets", Met),
    ("udp-recvmmsg", Met),
    ("udp-gso", Met),
    ("secure-stun", Ignored("Binding is answered without credentials")),
    ("rfc5780", Ignored("RFC 5780 is not offered")),
    ("response-origin-only-with-rfc5780", Met),
    ("stun-backward-compatibility", Ignored("RFC 3489 clients are not served")),
    ("rfc3489-compatibility", Ignored("RFC 3489 clients are not served")),
    ("allocation-default-address-family", Done(only_ipv4)),
    ("keep-address-family", Ignored("a client that wants IPv6 asks for it")),
    ("mobility", Refused("RFC 8016 is not offered")),
    ("udp-self-balance", Ignored("threads share one port")),
    ("aux-server", Ignored("name its address with listening-ip")),
    // TLS
    ("tls-listening-port", Done(|d, v| parse(v).map(|port| d.settings.tls_port = Some(port)))),
    ("alt-tls-listening-port", Ignored("RFC 5780 is not offered")),
    ("cert", Done(|d, v| text(v).map(|path| d.settings.tls_cert = Some(path.into())))),
    ("pkey", Done(|d, v| text(v).map(|path| d.settings.tls_key = Some(path.into())))),
    ("pkey-pwd", Ignored("keys are not decrypted: protect the file")),
    ("CA-file", Ignored("certificates of clients are not asked for")),
    ("dtls", Ignored(NO_DTLS)),
    ("tcp-proxy-port", Done(|d, v| parse(v).map(|port| d.settings.proxy_port = Some(port)))),
    ("acme-redirect", Ignored("HTTP is not served")),
    ("cipher-list", Ignored(CHOSEN)),
    ("ec-curve-name", Ignored(CHOSEN)),
    ("dh-file", Ignored(CHOSEN)),
    ("dh566", Ignored(CHOSEN)),
    ("dh1066", Ignored(CHOSEN)),
    ("no-tlsv1", Met),
    ("no-tlsv1_1", Met),
    ("no-tlsv1_2", Done(|d, v| flag(v).map(|on| d.settings.tls13_only = on))),
    ("tlsv1", Refused("TLS 1.0 is broken")),
    // How it runs
    ("relay-threads", Done(|d, v| parse(v).map(|n: u16| d.settings.threads = (n > 0).then_some(n)))),
    ("cpus", Done(|d, v| parse(v).map(|n: u16| d.settings.threads = (n > 0).then_some(n)))),
    ("sock-buf-size", Done(|d, v| parse(v).map(|n| d.settings.socket_buffer_bytes = Some(n)))),
    ("verbose", Done(|d, v| flag(v).map(|on| d.settings.log_filter = on.then(|| "info,relay=debug".to_owned())))),
    ("Verbose", Done(|d, v| flag(v).map(|on| d.settings.log_filter = on.then(|| "info,relay=trace".to_owned())))),
    ("log-min-level", Ignored(LOGS)),
    ("log-file", Ignored(LOGS)),
    ("syslog", Ignored(LOGS)),
    ("no-stdout-log", Ignored(LOGS)),
    ("simple-log", Ignored(LOGS)),
    ("new-log-timestamp", Met),
    ("new-log-timestamp-format", Ignored(LOGS)),
    ("pidfile", Ignored("the service manager knows the process")),
    ("proc-user", Ignored("the service manager chooses the user")),
    ("proc-group", Ignored("the service manager chooses the group")),
    ("daemon", Ignored("the service manager starts it in the background")),
    ("prometheus", Done(|d, v| d.set_prometheus(v))),
    ("prometheus-address", Done(|d, v| d.set_admin_ip(v))),
    ("prometheus-port", Done(|d, v| d.set_admin_port(v))),
    ("prometheus-path", Ignored("the path is /metrics")),
    ("prometheus-username-labels", Ignored("labels have no user names")),
    // Consoles and databases
    ("no-cli", Met),
    ("cli", Ignored(NO_CONSOLE)),
    ("cli-ip", Ignored(NO_CONSOLE)),
    ("cli-port", Ignored(NO_CONSOLE)),
    ("cli-password", Ignored(NO_CONSOLE)),
    ("cli-max-output-sessions", Ignored(NO_CONSOLE)),
    ("web-admin", Ignored(NO_CONSOLE)),
    ("web-admin-ip", Ignored(NO_CONSOLE)),
    ("web-admin-port", Ignored(NO_CONSOLE)),
    ("web-admin-listen-on-workers", Ignored(NO_CONSOLE)),
    ("userdb", Ignored(NO_DATABASE)),
    ("psql-userdb", Ignored(NO_DATABASE)),
    ("mysql-userdb", Ignored(NO_DATABASE)),
    ("mongo-userdb", Ignored(NO_DATABASE)),
    ("redis-userdb", Ignored(NO_DATABASE)),
    ("redis-statsdb", Ignored(NO_DATABASE)),
    ("sql-userdb", Ignored(NO_DATABASE)),
];

/// Kept as it was typed, since it was found to be a range.
fn range(value: &str) -> Result<String, String> {
    value.parse::<AddressRange>().map(|_| value.to_owned()).map_err(|error| error.to_string())
}

fn only_ipv4(_: &mut super::coturn::Draft, value: &str) -> Result<(), String> {
    match value.to_ascii_lowercase().as_str() {
        "ipv4" => Ok(()),
        _ => Err("only ipv4 is offered: a client that wants IPv6 asks for it".to_owned()),
    }
}
