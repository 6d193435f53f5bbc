//! `carillon doctor`: looks at this machine and says in words what would get in the way of a call, and what to do about
//! it. It changes nothing. A port that a running Carillon holds is no obstacle, and is told as what it is.

mod holder;

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use holder::{Holder, Ours, Transport, Viewer};

/// A burst of a busy room is a few hundred datagrams of up to 1.5 kB.
const SOCKET_BUFFER_BYTES_MIN: u64 = 2 * 1024 * 1024;
/// A socket and a few files for each participant.
const OPEN_FILES_MIN: u64 = 4096;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// First media port
    #[arg(long, default_value_t = 40000, value_name = "PORT")]
    media_port: u16,
}

/// From the best to the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    Good,
    /// Works, but not well, or not for everybody.
    Mind,
    Bad,
}

#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    about: &'static str,
    text: String,
    /// Who has the port, as far as that is known: one for each transport that is taken.
    holders: Vec<Holder>,
}

impl Finding {
    fn new(verdict: Verdict, about: &'static str, text: impl Into<String>) -> Self {
        Self { verdict, about, text: text.into(), holders: Vec::new() }
    }
}

pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let findings = [
        media_port(args.media_port),
        tcp_port("page", 8080),
        tcp_port("page over https", 8443),
        relay_port(3478),
        relay_port(5349),
        tcp_port("credentials", 7300),
        socket_buffer("receive buffer", "/proc/sys/net/core/rmem_max", "net.core.rmem_max"),
        socket_buffer("send buffer", "/proc/sys/net/core/wmem_max", "net.core.wmem_max"),
        open_files(std::fs::read_to_string("/proc/self/limits").unwrap_or_default().as_str()),
        network(crate::local::network_address()),
        pulseaudio(crate::local::find_program("pulseaudio")),
        bridge(std::env::current_exe().ok().map(|program| program.with_file_name("audio-bridge"))),
        browsers(),
    ];
    let mut out = io::stdout().lock();
    for finding in &findings {
        let sign = match finding.verdict {
            Verdict::Good => "good",
            Verdict::Mind => "mind",
            Verdict::Bad => "BAD ",
        };
        let _ = writeln!(out, "  {sign}  {:<16} {}", finding.about, finding.text);
    }
    let holders: Vec<&Holder> = findings.iter().flat_map(|finding| &finding.holders).collect();
    for words in running(&holders).into_iter().chain(hidden(&holders)) {
        let _ = writeln!(out, "\n{words}");
    }
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    let _ = match bad {
        0 => writeln!(out, "\nNothing stands in the way of a call."),
        bad => writeln!(out, "\n{bad} to repair before a call can work."),
    };
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a person who finds Carillon running here may want to know.
fn running(holders: &[&Holder]) -> Option<String> {
    let mut processes = Vec::new();
    for holder in holders {
        let Holder::Carillon(Ours { name, pid, dev }) = holder else { continue };
        let process = dev.map_or((*name, *pid), |dev| ("carillon dev", dev));
        if !processes.contains(&process) {
            processes.push(process);
        }
    }
    if processes.is_empty() {
        return None;
    }
    let names: Vec<String> = processes.iter().map(|(name, pid)| format!("{name} (pid {pid})")).collect();
    let pids: Vec<String> = processes.iter().map(|(_, pid)| pid.to_string()).collect();
    let end = match processes.as_slice() {
        [("carillon dev", _)] => "Ctrl-C in its terminal",
        _ => "systemctl stop what is a service, Ctrl-C in the terminal of a carillon dev",
    };
    Some(format!(
        "Carillon runs on this machine already: {}. If that is the call you want, there is nothing to do.\n\
         A carillon dev started beside it takes other ports by itself. To end what runs: {end}, or kill {}.",
        names.join(", "),
        pids.join(" ")
    ))
}

/// What to do about ports of other users.
fn hidden(holders: &[&Holder]) -> Option<String> {
    let user = holders.iter().find_map(|holder| match holder {
        Holder::Hidden { user } => Some(user),
        Holder::Carillon(_) | Holder::Program { .. } | Holder::Unknown => None,
    })?;
    let program =
        std::env::current_exe().ok().map_or_else(|| "carillon".to_owned(), |path| path.display().to_string());
    Some(format!(
        "Which process of user {user} holds a port, only root and that user may see: sudo {program} doctor\n\
         If it is Carillon, there is nothing to do."
    ))
}

fn media_port(port: u16) -> Finding {
    let instead = "carillon dev takes another, in production set sfu --port";
    port_finding("media port", Ipv4Addr::UNSPECIFIED, port, &[Transport::Udp], instead)
}

fn relay_port(port: u16) -> Finding {
    let instead =
        "carillon dev takes another, which firewalls let through less often; in production set relay --port";
    port_finding("relay port", Ipv4Addr::UNSPECIFIED, port, &[Transport::Udp, Transport::Tcp], instead)
}

fn tcp_port(about: &'static str, port: u16) -> Finding {
    port_finding(about, Ipv4Addr::LOCALHOST, port, &[Transport::Tcp], "carillon dev takes another one")
}

/// Whether a port can be had; if not, who has it, and what happens instead.
fn port_finding(
    about: &'static str,
    address: Ipv4Addr,
    port: u16,
    transports: &[Transport],
    instead: &str,
) -> Finding {
    let bind = |transport: Transport| match transport {
        Transport::Udp => UdpSocket::bind((address, port)).map(drop),
        Transport::Tcp => TcpListener::bind((address, port)).map(drop),
    };
    let mut held = Vec::new();
    for transport in transports {
        let Err(error) = bind(*transport) else { continue };
        let find = || holder::find(Path::new("/proc"), &Viewer::this_process(), *transport, address, port);
        let holder = if error.kind() == io::ErrorKind::AddrInUse { find() } else { Holder::Unknown };
        held.push(Taken { transports: vec![transport.name()], holder, error });
    }
    if !held.is_empty() {
        return taken(about, port, held, instead);
    }
    let names: Vec<&str> = transports.iter().map(|transport| transport.name()).collect();
    let are = if names.len() > 1 { "are" } else { "is" };
    Finding::new(Verdict::Good, about, format!("{} {port} {are} free", names.join(" and ")))
}

/// Why a port cannot be had, for the transports where the reason is the same.
struct Taken {
    transports: Vec<&'static str>,
    holder: Holder,
    error: io::Error,
}

impl Taken {
    fn words(&self, port: u16) -> (Verdict, String) {
        let names = self.transports.join(" and ");
        let is = if self.transports.len() > 1 { "are" } else { "is" };
        match &self.holder {
            Holder::Carillon(Ours { name, pid, dev }) => {
                let of = dev.map_or_else(String::new, |dev| format!(", of carillon dev (pid {dev})"));
                let text = format!("{names} {port} {is} held by Carillon itself: {name} (pid {pid}){of}");
                (Verdict::Good, text)
            }
            Holder::Program { name, pid } => {
                (Verdict::Mind, format!("{names} {port} {is} held by {name} (pid {pid})"))
            }
            Holder::Hidden { user } => {
                (Verdict::Mind, format!("{names} {port} {is} held by a process of user {user}, see below"))
            }
            Holder::Unknown => (Verdict::Mind, format!("{names} {port} cannot be used ({})", self.error)),
        }
    }
}

/// All that is taken of a port, judged by the worst of it: one transport may be ours and the other a stranger's.
fn taken(about: &'static str, port: u16, held: Vec<Taken>, instead: &str) -> Finding {
    let mut reasons: Vec<Taken> = Vec::new();
    for next in held {
        let is_same = |known: &&mut Taken| known.holder == next.holder && known.error.kind() == next.error.kind();
        match reasons.iter_mut().find(is_same) {
            Some(known) => known.transports.extend(next.transports),
            None => reasons.push(next),
        }
    }
    let (verdicts, mut words): (Vec<Verdict>, Vec<String>) = reasons.iter().map(|reason| reason.words(port)).unzip();
    let verdict = verdicts.into_iter().max().unwrap_or(Verdict::Good);
    if verdict != Verdict::Good {
        words.push(instead.to_owned());
    }
    let holders = reasons.into_iter().map(|reason| reason.holder).collect();
    Finding { holders, ..Finding::new(verdict, about, words.join("; ")) }
}

fn socket_buffer(about: &'static str, file: &str, key: &str) -> Finding {
    let Some(bytes) = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
        return Finding::new(Verdict::Mind, about, format!("{key} cannot be read here"));
    };
    if bytes >= SOCKET_BUFFER_BYTES_MIN {
        return Finding::new(Verdict::Good, about, format!("{key} allows {bytes} bytes"));
    }
    let text = format!(
        "{key} allows {bytes} bytes: bursts of a large room can be lost. As root: sysctl -w {key}={SOCKET_BUFFER_BYTES_MIN}"
    );
    Finding::new(Verdict::Mind, about, text)
}

fn open_files(limits: &str) -> Finding {
    let about = "open files";
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    match line.and_then(|line| line.split_whitespace().nth(3)) {
        Some("unlimited") => Finding::new(Verdict::Good, about, "no limit"),
        Some(soft) => match soft.parse::<u64>() {
            Ok(count) if count >= OPEN_FILES_MIN => Finding::new(Verdict::Good, about, format!("{count} allowed")),
            Ok(count) => {
                let text = format!("{count} allowed, enough to try; for many people: ulimit -n {OPEN_FILES_MIN}");
                Finding::new(Verdict::Mind, about, text)
            }
            Err(_) => Finding::new(Verdict::Mind, about, "the limit cannot be read here"),
        },
        None => Finding::new(Verdict::Mind, about, "the limit cannot be read here"),
    }
}

fn network(address: Option<IpAddr>) -> Finding {
    let about = "network";
    match address {
        Some(address) => {
            let text = format!("other devices reach this machine at {address}, if its firewall lets UDP through");
            Finding::new(Verdict::Good, about, text)
        }
        None => Finding::new(Verdict::Mind, about, "none: only browsers on this machine can take part"),
    }
}

fn pulseaudio(program: Option<PathBuf>) -> Finding {
    let about = "desktop sound";
    match program {
        Some(program) => Finding::new(Verdict::Good, about, format!("PulseAudio is {}", program.display())),
        None => {
            let text = "PulseAudio is not installed: carillon dev needs --no-desktop, or: apt-get install pulseaudio";
            Finding::new(Verdict::Mind, about, text)
        }
    }
}

fn bridge(program: Option<PathBuf>) -> Finding {
    let about = "audio bridge";
    match program {
        Some(program) if program.is_file() => Finding::new(Verdict::Good, about, format!("is {}", program.display())),
        _ => Finding::new(
            Verdict::Mind,
            about,
            "is not beside this program: build it (cargo build --release -p audio-bridge), or use --no-desktop",
        ),
    }
}

/// Nothing to measure here, and the most frequent trap of all.
fn browsers() -> Finding {
    let text = "give a microphone only to pages from https:// or from localhost and 127.0.0.1; links to other devices \
                must be https";
    Finding::new(Verdict::Good, "browsers", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(transport: Transport, holder: Holder) -> Taken {
        Taken { transports: vec![transport.name()], holder, error: io::Error::from_raw_os_error(98) }
    }

    fn told(holder: Holder) -> Finding {
        taken("page", 8080, vec![held(Transport::Tcp, holder)], "carillon dev takes another one")
    }

    fn ours(name: &'static str, pid: u32, dev: Option<u32>) -> Holder {
        Holder::Carillon(Ours { name, pid, dev })
    }

    #[test]
    fn a_port_that_carillon_holds_is_good_and_any_other_holder_is_to_be_minded() {
        let finding = told(ours("signaling", 12, Some(7)));
        assert_eq!(finding.verdict, Verdict::Good);
        assert_eq!(finding.text, "TCP 8080 is held by Carillon itself: signaling (pid 12), of carillon dev (pid 7)");
        for (holder, words) in [
            (Holder::Program { name: "nginx".to_owned(), pid: 77 }, "is held by nginx (pid 77); "),
            (Holder::Hidden { user: "ada".to_owned() }, "is held by a process of user ada, see below; "),
            (Holder::Unknown, "cannot be used (Address"),
        ] {
            let finding = told(holder);
            assert_eq!(finding.verdict, Verdict::Mind);
            assert!(finding.text.contains(words), "{}", finding.text);
            assert!(finding.text.ends_with("carillon dev takes another one"), "{}", finding.text);
        }
    }

    #[test]
    fn a_port_is_judged_by_the_worst_of_its_transports() {
        let relay = || ours("relay", 5, None);
        let nginx = || Holder::Program { name: "nginx".to_owned(), pid: 77 };
        let told = |udp, tcp| {
            let held = vec![held(Transport::Udp, udp), held(Transport::Tcp, tcp)];
            taken("relay port", 3478, held, "set relay --port")
        };
        let mixed = told(relay(), nginx());
        assert_eq!(mixed.verdict, Verdict::Mind);
        assert_eq!(
            mixed.text,
            "UDP 3478 is held by Carillon itself: relay (pid 5); TCP 3478 is held by nginx (pid 77); set relay --port"
        );
        assert_eq!(mixed.holders, [relay(), nginx()]);
        assert_eq!(told(nginx(), relay()).verdict, Verdict::Mind);
        let both = told(relay(), relay());
        assert_eq!(both.verdict, Verdict::Good);
        assert_eq!(both.text, "UDP and TCP 3478 are held by Carillon itself: relay (pid 5)");
    }

    #[test]
    fn all_transports_of_a_port_are_looked_at() {
        let pair = || {
            let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
            let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, tcp.local_addr().ok()?.port())).ok()?;
            Some((tcp, udp))
        };
        // The number may be in use on UDP; hardly several times.
        let (tcp, _udp) = std::iter::repeat_with(pair).take(9).flatten().next().unwrap();
        let port = tcp.local_addr().unwrap().port();
        let text = relay_port(port).text;
        let this = format!("(pid {})", std::process::id());
        assert!(text.starts_with(&format!("UDP and TCP {port} are held by ")) && text.contains(&this), "{text}");
    }

    #[test]
    fn what_runs_is_named_once_with_the_way_to_end_it() {
        assert_eq!(running(&[]), None);
        assert_eq!(running(&[&Holder::Program { name: "nginx".to_owned(), pid: 77 }]), None);
        let dev = running(&[&ours("sfu", 2, Some(1)), &ours("signaling", 3, Some(1))]).unwrap();
        assert!(dev.contains("already: carillon dev (pid 1). "), "{dev}");
        assert!(dev.ends_with("To end what runs: Ctrl-C in its terminal, or kill 1."), "{dev}");
        let service = running(&[&ours("relay", 2, None), &ours("relay", 2, None), &ours("sfu", 3, None)]).unwrap();
        assert!(service.contains("already: relay (pid 2), sfu (pid 3). "), "{service}");
        assert!(service.contains("systemctl stop") && service.ends_with("kill 2 3."), "{service}");
    }

    #[test]
    fn a_holder_that_may_not_be_seen_comes_with_the_command_that_shows_it() {
        assert_eq!(hidden(&[&ours("sfu", 2, None), &Holder::Unknown]), None);
        let words = hidden(&[&Holder::Unknown, &Holder::Hidden { user: "ada".to_owned() }]).unwrap();
        assert!(words.contains("user ada") && words.contains("sudo /") && words.contains("doctor\n"), "{words}");
    }

    #[test]
    fn a_taken_port_is_noticed_with_its_holder() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(tcp_port("page", port).verdict, Verdict::Mind);
        // Anybody may have the same number on UDP: whose that is, is not the matter here.
        let relay = relay_port(port);
        assert!(relay.verdict == Verdict::Mind && relay.text.contains(&format!("TCP {port} ")), "{}", relay.text);
        assert!(tcp_port("page", port).text.contains(&format!("(pid {})", std::process::id())));
        drop(taken);
        // Anybody may take a port that has just become free; hardly one after the other.
        let free =
            |port: u16| (tcp_port("page", port).verdict, relay_port(port).verdict) == (Verdict::Good, Verdict::Good);
        let next = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        assert!(free(port) || std::iter::repeat_with(next).take(5).any(free));
    }

    #[test]
    fn the_limit_of_open_files_is_read_from_its_line() {
        let limits =
            |soft: &str| format!("Limit Soft Hard Units\nMax open files            {soft}    524288    files\n");
        assert_eq!(open_files(&limits("1024")).verdict, Verdict::Mind);
        assert_eq!(open_files(&limits("65536")).verdict, Verdict::Good);
        assert_eq!(open_files(&limits("unlimited")).verdict, Verdict::Good);
        assert_eq!(open_files("").verdict, Verdict::Mind);
    }

    #[test]
    fn what_is_missing_comes_with_what_to_do() {
        for finding in [pulseaudio(None), bridge(None), network(None)] {
            assert_eq!(finding.verdict, Verdict::Mind);
            assert!(finding.text.contains("--no-desktop") || finding.text.contains("this machine"));
        }
    }

    #[test]
    fn a_small_socket_buffer_comes_with_the_command_that_mends_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "212992\n").unwrap();
        let finding = socket_buffer("receive buffer", file.path().to_str().unwrap(), "net.core.rmem_max");
        assert!(finding.verdict == Verdict::Mind && finding.text.contains("sysctl -w net.core.rmem_max="));
    }
}
