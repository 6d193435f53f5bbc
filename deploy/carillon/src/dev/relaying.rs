//! The way round firewalls: a relay, and the broker that mints credentials for it. Both read one file of secrets in the
//! state folder, so that a rotation can be tried by writing to that file; signalling asks the broker with a key of its own.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use admin::Secret;
use serde::Serialize;

use super::Args;
use super::ports::PortFinder;
use super::process::{Ready, Spec};
use super::secrets::{Certificate, Secrets};
use super::stack::{LOOPBACK, join, words};
use super::state::write_private;

/// By this name the broker knows signalling.
const CALLER: &str = "signaling";
const REALM: &str = "carillon";

/// Where the two processes are and what they share.
#[derive(Debug)]
pub(super) struct Relaying {
    /// Where clients reach the relay, as it stands in a URL.
    host: String,
    listen: Vec<IpAddr>,
    port: u16,
    tls_port: u16,
    relay_admin: SocketAddr,
    http: SocketAddr,
    broker_admin: SocketAddr,
    secrets_file: PathBuf,
}

/// What the ready file says of them.
#[derive(Debug, Serialize)]
pub(super) struct RelayReport {
    /// In the order in which clients try them.
    pub(super) urls: Vec<String>,
    pub(super) realm: &'static str,
    /// Secrets of relay and broker, the newest first; both notice a change within seconds.
    pub(super) secrets: PathBuf,
    pub(super) broker: String,
    /// For `Authorization: Bearer` at the broker.
    pub(super) broker_key: String,
}

impl Relaying {
    /// Chooses ports and writes the file of secrets. `outside`: where other devices reach this machine.
    pub(super) fn plan(
        ports: &mut PortFinder,
        args: &Args,
        advertise: &[IpAddr],
        outside: IpAddr,
        secrets: &Secrets,
        state: &Path,
    ) -> anyhow::Result<Self> {
        let loopback = |port| SocketAddr::new(LOOPBACK, port);
        let port = ports.udp_and_tcp("relay", args.relay_port)?;
        let tls_port = ports.udp_and_tcp("relay over TLS", args.relay_tls_port)?;
        let http = loopback(ports.tcp("credential broker", LOOPBACK, 7300)?);
        let broker_admin = loopback(ports.tcp("admin of the credential broker", LOOPBACK, 7301)?);
        let relay_admin = loopback(ports.tcp("admin of the relay", LOOPBACK, 7401)?);
        let secrets_file = state.join("relay-secrets");
        write_private(&secrets_file, secrets.relay.expose().as_bytes())?;
        let listen = own_addresses(advertise);
        let host = args.host.clone().unwrap_or_else(|| host(outside));
        Ok(Self { host, listen, port, tls_port, relay_admin, http, broker_admin, secrets_file })
    }

    /// Media nodes are at `advertise`, from the first of their ports to the last.
    pub(super) fn relay(
        &self,
        program: &Path,
        logs: &Path,
        advertise: &[IpAddr],
        media: (u16, u16),
        certificate: &Certificate,
    ) -> Spec {
        let peers: Vec<String> =
            advertise.iter().map(|ip| format!("{}:{}-{}", host(*ip), media.0, media.1)).collect();
        let mut arguments = words(&["relay", "--dev", "--listen", &join(&self.listen)]);
        arguments.extend(words(&["--port", &self.port.to_string(), "--peer", &peers.join(","), "--realm", REALM]));
        arguments.extend(["--secret-file".into(), self.secrets_file.clone().into_os_string()]);
        arguments.extend(words(&["--tls-port", &self.tls_port.to_string()]));
        arguments.extend(["--tls-cert".into(), certificate.certificate.clone().into_os_string()]);
        arguments.extend(["--tls-key".into(), certificate.key.clone().into_os_string()]);
        // At the end nobody is waited for: the calls end as well.
        arguments.extend(words(&["--drain-seconds", "0", "--admin", &self.relay_admin.to_string()]));
        let mut environment = Vec::new();
        if advertise.iter().any(IpAddr::is_loopback) {
            environment.push(("RELAY_ALLOW_LOOPBACK_PEERS", "true".into()));
        }
        Spec {
            name: "relay",
            program: program.to_owned(),
            arguments,
            environment,
            secrets: Vec::new(),
            ready: Ready::Http(self.relay_admin, "/readyz"),
            log: logs.join("relay.log"),
        }
    }

    pub(super) fn broker(&self, program: &Path, logs: &Path, secrets: &Secrets) -> Spec {
        let entry = format!("{} ready=http://{}/readyz", self.urls().join(" "), self.relay_admin);
        let mut arguments = words(&["credential-broker", "--http", &self.http.to_string(), "--relay", &entry]);
        arguments.extend(words(&["--admin", &self.broker_admin.to_string()]));
        arguments.extend(["--secret-file".into(), self.secrets_file.clone().into_os_string()]);
        let key = Secret::new(format!("{CALLER}:{}", secrets.broker_key.expose()));
        Spec {
            name: "credential-broker",
            program: program.to_owned(),
            arguments,
            environment: Vec::new(),
            secrets: vec![("BROKER_API_KEY", key), ("BROKER_TOKEN_KEYS", secrets.token_key.text().clone())],
            ready: Ready::Http(self.broker_admin, "/readyz"),
            log: logs.join("credential-broker.log"),
        }
    }

    /// For signalling.
    pub(super) fn broker_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Where each of the two answers its operator.
    pub(super) fn admin(&self) -> [(&'static str, String); 2] {
        [
            ("relay", format!("http://{}", self.relay_admin)),
            ("credential-broker", format!("http://{}", self.broker_admin)),
        ]
    }

    pub(super) fn report(&self, secrets: &Secrets) -> RelayReport {
        RelayReport {
            urls: self.urls(),
            realm: REALM,
            secrets: self.secrets_file.clone(),
            broker: self.broker_url(),
            broker_key: secrets.broker_key.expose().to_owned(),
        }
    }

    /// Where clients find the relay, for a person.
    pub(super) fn words(&self) -> String {
        format!("{} port {} over UDP and TCP, {} over TLS", self.host, self.port, self.tls_port)
    }

    fn urls(&self) -> Vec<String> {
        let (host, port, tls_port) = (&self.host, self.port, self.tls_port);
        vec![
            format!("turn:{host}:{port}?transport=udp"),
            format!("turn:{host}:{port}?transport=tcp"),
            format!("turns:{host}:{tls_port}?transport=tcp"),
        ]
    }
}

/// Those of the addresses that are this machine's own; where a router has the public one, its address in the network.
fn own_addresses(advertise: &[IpAddr]) -> Vec<IpAddr> {
    let mut own: Vec<IpAddr> = advertise.iter().copied().filter(|ip| UdpSocket::bind((*ip, 0)).is_ok()).collect();
    if own.len() < advertise.len() {
        own.extend(crate::local::network_address().filter(|ip| !own.contains(ip)));
    }
    if own.is_empty() { vec![LOOPBACK] } else { own }
}

/// As it stands in a URL.
fn host(ip: IpAddr) -> String {
    SocketAddr::new(ip, 0).to_string().trim_end_matches(":0").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Dev {
        #[command(flatten)]
        args: Args,
    }

    fn certificate() -> Certificate {
        Certificate { certificate: "c.pem".into(), key: "k.pem".into() }
    }

    fn planned(advertise: &[&str]) -> (Relaying, Vec<IpAddr>, Secrets, tempfile::TempDir) {
        let advertise: Vec<IpAddr> = advertise.iter().map(|text| text.parse().unwrap()).collect();
        let (folder, secrets) = (tempfile::tempdir().unwrap(), Secrets::generate(None).unwrap());
        let mut ports = PortFinder::new().unwrap();
        let args = Dev::parse_from(["dev", "--relay-port", "0", "--relay-tls-port", "0"]).args;
        let relaying = Relaying::plan(&mut ports, &args, &advertise, advertise[0], &secrets, folder.path()).unwrap();
        (relaying, advertise, secrets, folder)
    }

    fn value(spec: &Spec, flag: &str) -> String {
        let at = spec.arguments.iter().position(|word| word == flag).unwrap();
        spec.arguments[at + 1].to_str().unwrap().to_owned()
    }

    #[test]
    fn only_the_media_ports_are_peers_and_loopback_only_when_advertised() {
        let (relaying, advertise, ..) = planned(&["127.0.0.1", "::1"]);
        let spec = relaying.relay(Path::new("p"), Path::new("l"), &advertise, (40000, 40001), &certificate());
        assert_eq!(value(&spec, "--peer"), "127.0.0.1:40000-40001,[::1]:40000-40001");
        assert_eq!(spec.environment.len(), 1);
        let (relaying, advertise, ..) = planned(&["192.0.2.7"]);
        let spec = relaying.relay(Path::new("p"), Path::new("l"), &advertise, (40000, 40000), &certificate());
        assert!(spec.environment.is_empty());
        assert!(!value(&spec, "--listen").contains("192.0.2.7"), "not an address of this machine");
    }

    #[test]
    fn relay_and_broker_share_a_file_and_no_secret_is_an_argument() {
        let (relaying, advertise, secrets, _folder) = planned(&["127.0.0.1"]);
        let (program, logs) = (Path::new("p"), Path::new("l"));
        let specs = [
            relaying.relay(program, logs, &advertise, (1, 1), &certificate()),
            relaying.broker(program, logs, &secrets),
        ];
        assert_eq!(value(&specs[0], "--secret-file"), value(&specs[1], "--secret-file"));
        assert_eq!(std::fs::read_to_string(value(&specs[0], "--secret-file")).unwrap(), secrets.relay.expose());
        for spec in &specs {
            let arguments = format!("{:?}", spec.arguments);
            assert!([&secrets.relay, &secrets.broker_key].iter().all(|secret| !arguments.contains(secret.expose())));
        }
    }

    #[test]
    fn an_ipv6_address_stands_in_brackets() {
        assert_eq!(host("2001:db8::1".parse().unwrap()), "[2001:db8::1]");
        assert_eq!(host("192.0.2.1".parse().unwrap()), "192.0.2.1");
    }
}
