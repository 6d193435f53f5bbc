//! `carillon doctor`: looks at this machine and says in words what would get in the way of a call, and what to do about
//! it. It changes nothing.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;

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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
}

impl Finding {
    fn new(verdict: Verdict, about: &'static str, text: impl Into<String>) -> Self {
        Self { verdict, about, text: text.into() }
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
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        let sign = match finding.verdict {
            Verdict::Good => "good",
            Verdict::Mind => "mind",
            Verdict::Bad => "BAD ",
        };
        let _ = writeln!(out, "  {sign}  {:<16} {}", finding.about, finding.text);
    }
    let bad = findings.iter().filter(|finding| finding.verdict == Verdict::Bad).count();
    let _ = match bad {
        0 => writeln!(out, "\nNothing stands in the way of a call."),
        bad => writeln!(out, "\n{bad} to repair before a call can work."),
    };
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn media_port(port: u16) -> Finding {
    let about = "media port";
    match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => Finding::new(Verdict::Good, about, format!("UDP {port} is free")),
        Err(error) => Finding::new(
            Verdict::Mind,
            about,
            format!("UDP {port} cannot be used ({error}); carillon dev takes another, in production set sfu --port"),
        ),
    }
}

fn relay_port(port: u16) -> Finding {
    let about = "relay port";
    let everywhere = (Ipv4Addr::UNSPECIFIED, port);
    match UdpSocket::bind(everywhere).and_then(|_| TcpListener::bind(everywhere)) {
        Ok(_) => Finding::new(Verdict::Good, about, format!("UDP and TCP {port} are free")),
        Err(error) => Finding::new(
            Verdict::Mind,
            about,
            format!(
                "UDP or TCP {port} cannot be used ({error}); carillon dev takes another, which firewalls let through less \
                 often; in production set relay --port"
            ),
        ),
    }
}

fn tcp_port(about: &'static str, port: u16) -> Finding {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Finding::new(Verdict::Good, about, format!("TCP {port} is free")),
        Err(error) => {
            let text = format!("TCP {port} cannot be used ({error}); carillon dev takes another one");
            Finding::new(Verdict::Mind, about, text)
        }
    }
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

    #[test]
    fn a_taken_port_is_noticed() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(tcp_port("page", port).verdict, Verdict::Mind);
        assert_eq!(relay_port(port).verdict, Verdict::Mind);
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
