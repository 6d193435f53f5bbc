//! The processes of one run and the order in which they come up: relay, credential broker, signalling, media node, desktop,
//! bridge. They end bridge first; signalling ends before the media node, and the relay last.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Args;
use super::desktop::{Desktop, MICROPHONE, MICROPHONE_SINK, SINK};
use super::links::{DesktopReport, Https, Media, ReadyReport};
use super::ports::{PortFinder, PortLocks};
use super::process::{Ready, Running, Spec};
use super::relaying::Relaying;
use super::secrets::{Certificate, Secrets, write_certificate};
use super::supervise::{News, Supervised, show_log};
use super::terminal::Terminal;
use crate::token::{Grant, ROLES, mint};

pub(super) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Debug, Default)]
pub(super) struct Stack {
    /// The last one ends first.
    processes: Vec<Supervised>,
    shown_logs: Vec<JoinHandle<()>>,
    ports: Option<PortLocks>,
}

impl Stack {
    /// Brings everything up. On an error, what runs already is for [`Stack::stop`].
    pub(super) async fn start(
        &mut self,
        args: &Args,
        secrets: Secrets,
        state: &Path,
        terminal: &Terminal,
        news: mpsc::Sender<News>,
    ) -> anyhow::Result<ReadyReport> {
        let plan = Plan::make(args, secrets, state, terminal)?;
        let mut report = plan.report()?;
        self.start_relaying(args, &plan, terminal, &news, &mut report).await?;
        // Signalling listens before the media node announces itself, or the node would wait for its next heartbeat.
        let (sfu, signaling) = (plan.sfu(), plan.signaling());
        let mut signaling_process = self.spawn(&signaling, args.verbose)?;
        signaling_process.until(&signaling, &plan.signaling_listens()).await?;
        terminal.done("Signalling", &format!("listens at {}", plan.http));
        let mut sfu_process = self.spawn(&sfu, args.verbose)?;
        sfu_process.until(&sfu, &sfu.ready).await?;
        signaling_process.until(&signaling, &signaling.ready).await?;
        terminal.done("Media node", &format!("reached at {}, known to signalling", join(&plan.advertise)));
        for (spec, process) in [(sfu, sfu_process), (signaling, signaling_process)] {
            self.watch(spec, process, &news, &mut report);
        }
        if let Some((desktop, admin)) = &plan.desktop {
            let daemon = desktop.spec(plan.logs.join("pulseaudio.log"))?;
            let mut process = self.spawn(&daemon, args.verbose)?;
            process.until(&daemon, &daemon.ready).await?;
            terminal.done("Desktop", &desktop.server());
            self.watch(daemon, process, &news, &mut report);
            let bridge = plan.bridge(desktop, *admin)?;
            let mut process = self.spawn(&bridge, args.verbose)?;
            process.until(&bridge, &bridge.ready).await?;
            terminal.done("Audio bridge", "the desktop is in the room");
            self.watch(bridge, process, &news, &mut report);
        }
        self.ports = Some(plan.locks);
        Ok(report)
    }

    /// Before signalling, whose first welcome then names the relay.
    async fn start_relaying(
        &mut self,
        args: &Args,
        plan: &Plan,
        terminal: &Terminal,
        news: &mpsc::Sender<News>,
        report: &mut ReadyReport,
    ) -> anyhow::Result<()> {
        let relaying = &plan.relaying;
        let relay = relaying.relay(&plan.program, &plan.logs, &plan.advertise, plan.media_ports(), &plan.certificate);
        let broker = relaying.broker(&plan.program, &plan.logs, &plan.secrets);
        let steps = [("Relay", relay, relaying.words()), ("Credential broker", broker, relaying.broker_url())];
        for (step, spec, detail) in steps {
            let mut process = self.spawn(&spec, args.verbose)?;
            process.until(&spec, &spec.ready).await?;
            terminal.done(step, &detail);
            self.watch(spec, process, news, report);
        }
        Ok(())
    }

    fn spawn(&mut self, spec: &Spec, verbose: bool) -> anyhow::Result<Running> {
        let running = Running::spawn(spec)?;
        if verbose {
            self.shown_logs.push(tokio::spawn(show_log(spec.name, spec.log.clone())));
        }
        Ok(running)
    }

    fn watch(&mut self, spec: Spec, process: Running, news: &mpsc::Sender<News>, report: &mut ReadyReport) {
        report.set_pid(spec.name, process.pid());
        self.processes.push(Supervised::watch(spec, process, news.clone()));
    }

    pub(super) async fn stop(&mut self, terminal: &Terminal) {
        while let Some(process) = self.processes.pop() {
            let name = process.name;
            process.stop().await;
            terminal.say(&format!("{name} is stopped."));
        }
        for shown in self.shown_logs.drain(..) {
            shown.abort();
        }
    }
}

/// Everything that is decided before the first process starts, and kept when one is started again.
#[derive(Debug)]
struct Plan {
    args: Args,
    advertise: Vec<IpAddr>,
    shards: u16,
    media_port: u16,
    control: SocketAddr,
    sfu_admin: SocketAddr,
    http: SocketAddr,
    https: SocketAddr,
    signaling_admin: SocketAddr,
    secrets: Secrets,
    certificate: Certificate,
    relaying: Relaying,
    desktop: Option<(Desktop, SocketAddr)>,
    program: PathBuf,
    logs: PathBuf,
    locks: PortLocks,
}

impl Plan {
    fn make(args: &Args, secrets: Secrets, state: &Path, terminal: &Terminal) -> anyhow::Result<Self> {
        let advertise = match (args.advertise.as_slice(), crate::local::network_address()) {
            ([], Some(address)) => vec![address, LOOPBACK],
            ([], None) => vec![LOOPBACK],
            (named, _) => named.to_vec(),
        };
        let shards = args.shards.unwrap_or_else(cores);
        let mut ports = PortFinder::new()?;
        let loopback = |port| SocketAddr::new(LOOPBACK, port);
        let media_port = ports.media(args.media_port, shards)?;
        let http = loopback(ports.tcp("page", LOOPBACK, args.http_port)?);
        let https_address = listen_address(&advertise);
        let https = SocketAddr::new(https_address, ports.tcp("page over https", https_address, args.https_port)?);
        let control = loopback(ports.tcp("control of the media node", LOOPBACK, 7100)?);
        let sfu_admin = loopback(ports.tcp("admin of the media node", LOOPBACK, 7101)?);
        let signaling_admin = loopback(ports.tcp("admin of signalling", LOOPBACK, 7201)?);
        let host = outside(&advertise);
        let relaying = Relaying::plan(&mut ports, args, &advertise, host, &secrets, state)?;
        let desktop = if args.no_desktop {
            None
        } else {
            let desktop = Desktop::new(state, ports.tcp("desktop sound", LOOPBACK, 4714)?);
            Some((desktop, loopback(ports.tcp("admin of the bridge", LOOPBACK, 7501)?)))
        };
        terminal.done("Ports", &format!("page {http}, https {}, media {media_port}+{shards}", https.port()));
        let (locks, notes) = ports.finish();
        notes.iter().for_each(|note| terminal.say(note));
        let certificate = certificate(args, state, &advertise)?;
        terminal.done("Secrets", secrets.words());
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let logs = state.join("logs");
        let args = args.clone();
        Ok(Self {
            args,
            advertise,
            shards,
            media_port,
            control,
            sfu_admin,
            http,
            https,
            signaling_admin,
            secrets,
            certificate,
            relaying,
            desktop,
            program,
            logs,
            locks,
        })
    }

    /// Signalling is there, whether or not it knows a media node.
    fn signaling_listens(&self) -> Ready {
        Ready::Http(self.signaling_admin, "/livez")
    }

    fn sfu(&self) -> Spec {
        let (port, shards) = (self.media_port.to_string(), self.shards.to_string());
        let mut arguments = words(&["sfu", "--port", &port, "--shards", &shards]);
        arguments.extend(words(&["--listen", &listen_address(&self.advertise).to_string()]));
        arguments.extend(words(&["--advertise", &join(&self.advertise), "--node-id", "dev"]));
        if self.advertise.iter().any(IpAddr::is_loopback) {
            arguments.extend(words(&["--allow-loopback"]));
        }
        let announce = format!("http://{}", self.signaling_admin);
        arguments.extend(words(&["--control", &self.control.to_string(), "--announce", &announce]));
        arguments.extend(words(&["--admin", &self.sfu_admin.to_string()]));
        Spec {
            name: "sfu",
            program: self.program.clone(),
            arguments,
            environment: Vec::new(),
            secrets: vec![("SFU_CONTROL_TOKEN", self.secrets.control.clone())],
            ready: Ready::Http(self.sfu_admin, "/readyz"),
            log: self.logs.join("sfu.log"),
        }
    }

    fn signaling(&self) -> Spec {
        let mut arguments =
            words(&["signaling", "--http", &self.http.to_string(), "--https", &self.https.to_string()]);
        arguments.extend(words(&["--admin", &self.signaling_admin.to_string()]));
        arguments.extend(words(&["--broker", &self.relaying.broker_url()]));
        arguments.extend(["--tls-cert".into(), self.certificate.certificate.clone().into_os_string()]);
        arguments.extend(["--tls-key".into(), self.certificate.key.clone().into_os_string()]);
        Spec {
            name: "signaling",
            program: self.program.clone(),
            arguments,
            environment: Vec::new(),
            secrets: vec![
                ("SIGNALING_CONTROL_TOKEN", self.secrets.control.clone()),
                ("SIGNALING_TOKEN_KEYS", self.secrets.token_key.text().clone()),
                ("SIGNALING_BROKER_KEY", self.secrets.broker_key.clone()),
            ],
            ready: Ready::Http(self.signaling_admin, "/readyz"),
            log: self.logs.join("signaling.log"),
        }
    }

    fn bridge(&self, desktop: &Desktop, admin: SocketAddr) -> anyhow::Result<Spec> {
        let program = self.program.with_file_name("audio-bridge");
        ensure!(
            program.is_file(),
            "there is no audio-bridge beside {}: build it (cargo build -p audio-bridge), or use --no-desktop",
            self.program.display()
        );
        let monitor = format!("{SINK}.monitor");
        let mut arguments = words(&["--signaling", &self.ws(), "--pulse-server", &desktop.server()]);
        arguments.extend(["--pulse-cookie".into(), desktop.cookie.clone().into_os_string()]);
        arguments.extend(words(&["--source", &monitor, "--sink", MICROPHONE_SINK, "--admin", &admin.to_string()]));
        let token = self.mint("speaker", "desktop", Some("Desktop"), BRIDGE_TOKEN_TTL)?;
        Ok(Spec {
            name: "audio-bridge",
            program,
            arguments,
            environment: Vec::new(),
            secrets: vec![("BRIDGE_TOKEN", token.into())],
            ready: Ready::Http(admin, "/readyz"),
            log: self.logs.join("audio-bridge.log"),
        })
    }

    fn report(&self) -> anyhow::Result<ReadyReport> {
        let page = format!("http://{}/r/{}", self.http, self.args.room);
        let mut tokens = BTreeMap::new();
        for role in ROLES {
            tokens.insert(role, self.mint(role, role, None, self.args.token_ttl)?);
        }
        let links = tokens.iter().map(|(role, token)| (*role, format!("{page}#token={token}"))).collect();
        let mut admin = BTreeMap::from([
            ("sfu", format!("http://{}", self.sfu_admin)),
            ("signaling", format!("http://{}", self.signaling_admin)),
        ]);
        if let Some((_, bridge)) = &self.desktop {
            admin.insert("audio-bridge", format!("http://{bridge}"));
        }
        admin.extend(self.relaying.admin());
        let port = self.https.port();
        let host = match &self.args.host {
            Some(name) => format!("{name}:{port}"),
            None => SocketAddr::new(outside(&self.advertise), port).to_string(),
        };
        Ok(ReadyReport {
            ws: self.ws(),
            room: self.args.room.clone(),
            tokens,
            links,
            https: Https {
                page: format!("https://{host}/r/{}", self.args.room),
                certificate: self.certificate.certificate.clone(),
            },
            media: Media { addresses: self.advertise.clone(), first_port: self.media_port, shards: self.shards },
            processes: BTreeMap::from([("carillon", std::process::id())]),
            desktop: self.desktop.as_ref().map(|(desktop, _)| DesktopReport {
                pulse_server: desktop.server(),
                pulse_server_tcp: format!("tcp:{}", desktop.tcp),
                cookie: desktop.cookie.clone(),
                sink: SINK,
                microphone: MICROPHONE,
            }),
            relay: self.relaying.report(&self.secrets),
            admin,
            logs: self.logs.clone(),
            page,
        })
    }

    /// The first and the last.
    fn media_ports(&self) -> (u16, u16) {
        (self.media_port, self.media_port.saturating_add(self.shards - 1))
    }

    fn ws(&self) -> String {
        format!("ws://{}/v1/rooms/{}", self.http, self.args.room)
    }

    fn mint(&self, role: &str, identity: &str, name: Option<&str>, ttl: Duration) -> anyhow::Result<String> {
        mint(&self.secrets.token_key, &Grant { room: &self.args.room, role, identity, name }, ttl)
    }
}

/// Outlives any run: the bridge joins again whenever the media node or signalling was away.
const BRIDGE_TOKEN_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The caller's, or one of our own.
fn certificate(args: &Args, state: &Path, advertise: &[IpAddr]) -> anyhow::Result<Certificate> {
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let find = |file: &Path| file.canonicalize().with_context(|| format!("cannot find {}", file.display()));
        return Ok(Certificate { certificate: find(certificate)?, key: find(key)? });
    }
    let mut names = vec![LOOPBACK, IpAddr::V6(Ipv6Addr::LOCALHOST)];
    names.extend(advertise.iter().filter(|address| !address.is_loopback()));
    write_certificate(state, args.host.as_deref(), &names)
}

fn cores() -> u16 {
    std::thread::available_parallelism().ok().and_then(|n| u16::try_from(n.get()).ok()).unwrap_or(1).min(64)
}

/// Where other devices reach this machine, when they do.
fn outside(advertise: &[IpAddr]) -> IpAddr {
    let outside = advertise.iter().find(|address| !address.is_loopback());
    outside.or(advertise.first()).copied().unwrap_or(LOOPBACK)
}

/// Where to listen: not at the network when only loopback is advertised.
fn listen_address(advertise: &[IpAddr]) -> IpAddr {
    match advertise {
        [only] if only.is_loopback() => *only,
        all if all.iter().all(|address| address.is_ipv4() && address.is_loopback()) => LOOPBACK,
        // Takes IPv4 as well.
        all if all.iter().any(IpAddr::is_ipv6) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

pub(super) fn join(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_loopback_is_listened_at_when_only_loopback_is_advertised() {
        for (advertised, listened) in [
            (&["127.0.0.1"][..], "127.0.0.1"),
            (&["::1"], "::1"),
            (&["127.0.0.1", "::1"], "::"),
            (&["192.0.2.1", "127.0.0.1"], "0.0.0.0"),
            (&["192.0.2.1", "2001:db8::1"], "::"),
        ] {
            assert_eq!(listen_address(&addresses(advertised)), listened.parse::<IpAddr>().unwrap(), "{advertised:?}");
        }
    }
}
