//! Who holds a port of this machine: the kernel's tables of sockets under /proc, and the open files of those processes
//! that this user may look at. It only reads, and of another program it tells the name and never the arguments.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Names of our processes, each a program of its own or the first word after `carillon`.
const PROCESSES: [&str; 5] = ["sfu", "signaling", "relay", "credential-broker", "audio-bridge"];
/// "listens", as the kernel writes it (`TCP_LISTEN` of tcp_states.h).
const LISTENS: &str = "0A";
/// No program that anybody knows by name has a longer one.
const NAME_CHARS_MAX: usize = 40;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }

    const fn tables(self) -> [&'static str; 2] {
        match self {
            Self::Udp => ["net/udp", "net/udp6"],
            Self::Tcp => ["net/tcp", "net/tcp6"],
        }
    }
}

/// A process of Carillon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ours {
    pub(super) name: &'static str,
    pub(super) pid: u32,
    /// The `carillon dev` that started it.
    pub(super) dev: Option<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Holder {
    Carillon(Ours),
    Program {
        name: String,
        pid: u32,
    },
    /// A process that this user may not look at.
    Hidden {
        user: String,
    },
    /// It went away in between, or this machine does not tell.
    Unknown,
}

/// Who keeps us from `port` of `address`, according to `proc` (`/proc`).
pub(super) fn find(proc: &Path, transport: Transport, address: Ipv4Addr, port: u16) -> Holder {
    let sockets: Vec<Socket> = transport
        .tables()
        .into_iter()
        .filter_map(|table| File::open(proc.join(table)).ok())
        .flat_map(|table| BufReader::new(table).lines().map_while(Result::ok))
        .filter_map(|line| Socket::read(&line, transport))
        .filter(|socket| socket.port == port && overlaps(address, socket.address))
        .collect();
    let Some(first) = sockets.first() else { return Holder::Unknown };
    let links = sockets.iter().map(|socket| format!("socket:[{}]", socket.inode)).collect();
    match owner(proc, &links) {
        Some(pid) => describe(proc, pid),
        None => Holder::Hidden { user: user_name(&first.user) },
    }
}

#[derive(PartialEq, Eq, Debug)]
struct Socket {
    address: IpAddr,
    port: u16,
    user: String,
    inode: u64,
}

impl Socket {
    /// A line of a table, when the socket is one that keeps others from its port.
    fn read(line: &str, transport: Transport) -> Option<Self> {
        // sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, state, user, inode) = (words.get(1)?, words.get(3)?, words.get(7)?, words.get(9)?);
        if transport == Transport::Tcp && *state != LISTENS {
            return None;
        }
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Self { address: read_address(address)?, port, user: (*user).to_owned(), inode: inode.parse().ok()? })
    }
}

/// Words of 32 bits as this machine has them in its memory, where they are in network order.
fn read_address(digits: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(digits.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match digits.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (n, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(n * 8)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// Whether a socket at `held` is in the way of one at `wanted`. The one at all IPv6 addresses has the IPv4 ones as well.
fn overlaps(wanted: Ipv4Addr, held: IpAddr) -> bool {
    held.is_unspecified() || (wanted.is_unspecified() && held.is_ipv4()) || held == IpAddr::V4(wanted)
}

/// The process that has one of the sockets open; the first, where several inherited it.
fn owner(proc: &Path, links: &HashSet<String>) -> Option<u32> {
    let has_one = |pid: &u32| {
        // Not ours to look at, or gone.
        let Ok(files) = fs::read_dir(proc.join(pid.to_string()).join("fd")) else { return false };
        let mut targets = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        targets.any(|target| target.to_str().is_some_and(|target| links.contains(target)))
    };
    let entries = fs::read_dir(proc).ok()?.flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_one).min()
}

fn describe(proc: &Path, pid: u32) -> Holder {
    let program = Program::read(proc, pid);
    match program.process() {
        Some(name) => Holder::Carillon(Ours { name, pid, dev: dev_above(proc, pid) }),
        None => Holder::Program { name: program.shown(), pid },
    }
}

/// `carillon dev` is the parent of what it starts.
fn dev_above(proc: &Path, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The name in the brackets may have any character in it; behind them come the state and the parent.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    let program = Program::read(proc, parent);
    (program.file == "carillon" && program.first_argument == "dev").then_some(parent)
}

struct Program {
    file: String,
    first_argument: String,
}

impl Program {
    fn read(proc: &Path, pid: u32) -> Self {
        let folder = proc.join(pid.to_string());
        let arguments = fs::read(folder.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        let mut arguments = arguments.split('\0');
        let zeroth = arguments.next().unwrap_or_default();
        let file = fs::read_link(folder.join("exe")).ok();
        let file = file.as_deref().and_then(Path::to_str).unwrap_or(zeroth);
        // Its file was replaced or removed while it runs, as by a new build.
        let file = file.strip_suffix(" (deleted)").unwrap_or(file);
        let file = file.rsplit_once('/').map_or(file, |(_, name)| name).to_owned();
        Self { file, first_argument: arguments.next().unwrap_or_default().to_owned() }
    }

    /// Which of our processes it is.
    fn process(&self) -> Option<&'static str> {
        let named = if self.file == "carillon" { &self.first_argument } else { &self.file };
        PROCESSES.into_iter().find(|name| name == named)
    }

    /// For a terminal, which somebody else's name must not command.
    fn shown(&self) -> String {
        let name: String = self.file.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
        if name.is_empty() { "a program without a name".to_owned() } else { name }
    }
}

/// The name of the user with this number, or the number where there is no name for it.
fn user_name(number: &str) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::fs::symlink;

    use super::*;

    const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
    /// Real lines: 127.0.0.1:8080 and [::]:40000, held by root; the last one is a connection, not a listener.
    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n\
        \x20  1: 0100007F:1F91 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1\n";
    const UDP6: &str = "  0: 00000000000000000000000000000000:9C40 00000000000000000000000000000000:0000 07 \
        00000000:00000000 00:00000000 00000000     0        0 4713 2 0 0\n";

    /// A machine with one process, whose name is `program` and which has the socket `inode`.
    fn machine(program: &str, arguments: &str, inode: u64) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for folder in ["net", "30/fd", "20"] {
            fs::create_dir_all(proc.path().join(folder)).unwrap();
        }
        let process = proc.path().join("30");
        fs::write(proc.path().join("net/tcp"), TCP).unwrap();
        fs::write(proc.path().join("net/udp6"), UDP6).unwrap();
        symlink(format!("socket:[{inode}]"), process.join("fd/5")).unwrap();
        symlink(format!("/opt/{program}"), process.join("exe")).unwrap();
        fs::write(process.join("cmdline"), arguments.replace(' ', "\0")).unwrap();
        fs::write(process.join("stat"), "30 (a) b) S 20 30 30 0 -1").unwrap();
        fs::write(proc.path().join("20/cmdline"), "target/release/carillon\0dev\0").unwrap();
        proc
    }

    #[test]
    fn the_holder_of_a_port_is_found_on_this_machine() {
        let tcp = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let udp = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let held =
            [(Transport::Tcp, tcp.local_addr().unwrap().port()), (Transport::Udp, udp.local_addr().unwrap().port())];
        for (transport, port) in held {
            let holder = find(Path::new("/proc"), transport, LOOPBACK, port);
            assert!(matches!(holder, Holder::Program { pid, .. } if pid == std::process::id()), "{holder:?}");
        }
    }

    #[test]
    fn a_process_of_ours_is_known_by_its_program_and_its_parent() {
        let ours = |name| Holder::Carillon(Ours { name, pid: 30, dev: Some(20) });
        let machine_with = |program, arguments| machine(program, arguments, 4711);
        for (program, arguments, name) in [
            ("carillon", "carillon signaling --http 127.0.0.1:8080", "signaling"),
            ("carillon (deleted)", "/opt/carillon signaling", "signaling"),
            ("credential-broker", "credential-broker", "credential-broker"),
        ] {
            let proc = machine_with(program, arguments);
            assert_eq!(find(proc.path(), Transport::Tcp, LOOPBACK, 8080), ours(name), "{program}");
        }
        let proc = machine_with("carillon", "carillon sfu");
        fs::write(proc.path().join("20/cmdline"), "bash\0").unwrap();
        let alone = Holder::Carillon(Ours { name: "sfu", pid: 30, dev: None });
        assert_eq!(find(proc.path(), Transport::Tcp, LOOPBACK, 8080), alone);
    }

    #[test]
    fn another_program_is_named_without_its_arguments_and_without_commands_to_the_terminal() {
        let proc = machine("ng\u{1b}[2Jinx", "nginx --password=1234", 4711);
        let holder = find(proc.path(), Transport::Tcp, LOOPBACK, 8080);
        assert_eq!(holder, Holder::Program { name: "ng[2Jinx".to_owned(), pid: 30 });
    }

    #[test]
    fn a_holder_that_may_not_be_seen_is_told_by_its_user() {
        let proc = machine("carillon", "carillon sfu", 1);
        let hidden = Holder::Hidden { user: "root".to_owned() };
        assert_eq!(find(proc.path(), Transport::Tcp, LOOPBACK, 8080), hidden);
        assert_eq!(user_name("4294967294"), "4294967294");
    }

    #[test]
    fn only_sockets_in_the_way_count() {
        let proc = machine("carillon", "carillon sfu", 4713);
        assert!(matches!(find(proc.path(), Transport::Udp, Ipv4Addr::UNSPECIFIED, 40000), Holder::Carillon(_)));
        assert!(matches!(find(proc.path(), Transport::Udp, LOOPBACK, 40000), Holder::Carillon(_)));
        // Nobody listens there: it is one end of a connection.
        assert_eq!(find(proc.path(), Transport::Tcp, LOOPBACK, 8081), Holder::Unknown);
        assert_eq!(find(proc.path(), Transport::Tcp, LOOPBACK, 40000), Holder::Unknown);
        assert_eq!(find(proc.path(), Transport::Tcp, Ipv4Addr::new(192, 0, 2, 1), 8080), Holder::Unknown);
        assert!(overlaps(Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(192, 0, 2, 1).into()));
        assert!(!overlaps(Ipv4Addr::UNSPECIFIED, "2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn lines_of_another_shape_are_passed_over() {
        for line in [
            "",
            "0: 0100007F",
            "0: x:1F90 0 0A 0 0 0 0 0 1",
            "0: 0100007:1F90 0 0A 0 0 0 0 0 1",
            "0: ä00007F:1 0 0A 0 0 0 0 0 1",
        ] {
            assert_eq!(Socket::read(line, Transport::Tcp), None, "{line}");
        }
        let mapped =
            Socket::read("0: 0000000000000000FFFF00000100007F:1F90 0 0A 0 0 0 7 0 1", Transport::Tcp).unwrap();
        assert_eq!((mapped.address, mapped.user.as_str()), (IpAddr::V4(LOOPBACK), "7"));
        let nowhere = find(Path::new("/nowhere"), Transport::Tcp, LOOPBACK, 8080);
        assert_eq!(nowhere, Holder::Unknown);
    }
}
