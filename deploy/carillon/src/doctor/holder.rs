//! Who holds a port of this machine: the kernel's tables of sockets under /proc, and the open files of those processes
//! that this user may look at. It only reads, and of another program it tells the name and never the arguments.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

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

/// Who asks: what counts as ours, and what the kernel does not show, depend on it.
#[derive(Debug, Default)]
pub(super) struct Viewer {
    /// The folder of our own program; a program in another one is a stranger's, whatever its name.
    folder: Option<PathBuf>,
    user: Option<String>,
}

impl Viewer {
    pub(super) fn this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::new(std::env::current_exe().ok().as_deref(), &status)
    }

    /// From the file of our own program, and `/proc/self/status`.
    fn new(program: Option<&Path>, status: &str) -> Self {
        let folder = program.and_then(|program| running_file(program).parent().map(Path::to_path_buf));
        let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        // The real one, then the effective one, which decides.
        let user = users.and_then(|users| users.split_whitespace().nth(1)).map(str::to_owned);
        Self { folder, user }
    }

    /// Whether somebody with more rights would see what this one does not.
    fn may_miss(&self, user: &str) -> bool {
        self.user.as_deref().is_none_or(|own| own != "0" && own != user)
    }
}

/// The file behind an `exe` link. It may have been replaced or removed while it runs, as by a new build.
fn running_file(link: &Path) -> PathBuf {
    let bytes = link.as_os_str().as_bytes();
    OsString::from_vec(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes).to_vec()).into()
}

/// Who keeps us from `port` of `address`, according to `proc` (`/proc`).
pub(super) fn find(proc: &Path, viewer: &Viewer, transport: Transport, address: Ipv4Addr, port: u16) -> Holder {
    let in_the_way = || -> Vec<Socket> {
        let tables = transport.tables().into_iter().filter_map(|table| File::open(proc.join(table)).ok());
        let lines = tables.flat_map(|table| BufReader::new(table).lines().map_while(Result::ok));
        let sockets = lines.filter_map(|line| Socket::read(&line, transport));
        sockets.filter(|socket| socket.port == port && overlaps(address, socket.address)).collect()
    };
    let sockets = in_the_way();
    let links: HashSet<String> = sockets.iter().map(|socket| format!("socket:[{}]", socket.inode)).collect();
    match owner(proc, &links) {
        Some(pid) => describe(proc, viewer, pid),
        None => unseen(viewer, &sockets, &in_the_way()),
    }
}

/// Sockets without a process that we can see: somebody else's, unless they went away while we looked.
fn unseen(viewer: &Viewer, before: &[Socket], after: &[Socket]) -> Holder {
    let is_hidden = |socket: &&Socket| after.contains(socket) && viewer.may_miss(&socket.user);
    match before.iter().find(is_hidden) {
        Some(socket) => Holder::Hidden { user: user_name(&socket.user) },
        None => Holder::Unknown,
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

fn describe(proc: &Path, viewer: &Viewer, pid: u32) -> Holder {
    let program = Program::read(proc, pid);
    match program.process(viewer) {
        Some(name) => Holder::Carillon(Ours { name, pid, dev: dev_above(proc, viewer, pid) }),
        None => Holder::Program { name: program.shown(), pid },
    }
}

/// `carillon dev` is the parent of what it starts.
fn dev_above(proc: &Path, viewer: &Viewer, pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The name in the brackets may have any character in it; behind them come the state and the parent.
    let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    let program = Program::read(proc, parent);
    (program.file_of_ours(viewer)? == "carillon" && program.first_argument == "dev").then_some(parent)
}

struct Program {
    /// What runs, according to the kernel; none where it may not be seen.
    file: Option<PathBuf>,
    /// What it calls itself.
    zeroth_argument: String,
    first_argument: String,
}

impl Program {
    fn read(proc: &Path, pid: u32) -> Self {
        let folder = proc.join(pid.to_string());
        let arguments = fs::read(folder.join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        let mut arguments = arguments.split('\0').map(str::to_owned);
        Self {
            file: fs::read_link(folder.join("exe")).ok().as_deref().map(running_file),
            zeroth_argument: arguments.next().unwrap_or_default(),
            first_argument: arguments.next().unwrap_or_default(),
        }
    }

    /// The name of its file, if that lies beside our own program. What it calls itself proves nothing.
    fn file_of_ours(&self, viewer: &Viewer) -> Option<&str> {
        let file = self.file.as_deref()?;
        (file.parent()? == viewer.folder.as_deref()?).then_some(file.file_name()?.to_str()?)
    }

    /// Which of our processes it is.
    fn process(&self, viewer: &Viewer) -> Option<&'static str> {
        let file = self.file_of_ours(viewer)?;
        let named = if file == "carillon" { &self.first_argument } else { file };
        PROCESSES.into_iter().find(|name| *name == named)
    }

    /// For a terminal, which somebody else's name must not command.
    fn shown(&self) -> String {
        let file = self.file.as_deref().unwrap_or(Path::new(&self.zeroth_argument));
        let name = file.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
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
    use std::slice::from_ref;

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
        symlink("/opt/carillon", proc.path().join("20/exe")).unwrap();
        proc
    }

    /// An ordinary user, whose Carillon is in `/opt`.
    fn viewer() -> Viewer {
        viewer_of("/opt/carillon", "1000")
    }

    fn viewer_of(program: &str, user: &str) -> Viewer {
        let status = format!("Name:\tcarillon\nUid:\t1000\t{user}\t{user}\t{user}\nGid:\t7\t7\t7\t7\n");
        Viewer::new(Some(Path::new(program)), &status)
    }

    #[test]
    fn the_holder_of_a_port_is_found_on_this_machine() {
        let tcp = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let udp = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let held =
            [(Transport::Tcp, tcp.local_addr().unwrap().port()), (Transport::Udp, udp.local_addr().unwrap().port())];
        for (transport, port) in held {
            let holder = find(Path::new("/proc"), &viewer(), transport, LOOPBACK, port);
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
            assert_eq!(find(proc.path(), &viewer(), Transport::Tcp, LOOPBACK, 8080), ours(name), "{program}");
        }
        let proc = machine_with("carillon", "carillon sfu");
        // Our program was replaced while it runs.
        let replaced = viewer_of("/opt/carillon (deleted)", "1000");
        assert_eq!(find(proc.path(), &replaced, Transport::Tcp, LOOPBACK, 8080), ours("sfu"));
        fs::write(proc.path().join("20/cmdline"), "bash\0").unwrap();
        let alone = Holder::Carillon(Ours { name: "sfu", pid: 30, dev: None });
        assert_eq!(find(proc.path(), &viewer(), Transport::Tcp, LOOPBACK, 8080), alone);
    }

    #[test]
    fn a_program_in_another_folder_is_a_strangers() {
        for (program, arguments) in [("relay", "relay"), ("carillon", "carillon sfu"), ("sub/relay", "/opt/relay")] {
            let proc = machine(program, arguments, 4711);
            let elsewhere = viewer_of("/usr/local/bin/carillon", "1000");
            let name = program.trim_start_matches("sub/").to_owned();
            let stranger = Holder::Program { name, pid: 30 };
            assert_eq!(find(proc.path(), &elsewhere, Transport::Tcp, LOOPBACK, 8080), stranger);
            // Nor is anything ours for one who does not know where it runs from itself.
            assert_eq!(find(proc.path(), &Viewer::default(), Transport::Tcp, LOOPBACK, 8080), stranger);
        }
        let below = machine("sub/relay", "/opt/relay", 4711);
        let holder = find(below.path(), &viewer(), Transport::Tcp, LOOPBACK, 8080);
        assert_eq!(holder, Holder::Program { name: "relay".to_owned(), pid: 30 });
    }

    #[test]
    fn what_a_process_calls_itself_does_not_make_it_ours() {
        let proc = machine("carillon", "/opt/relay", 4711);
        fs::remove_file(proc.path().join("30/exe")).unwrap();
        let holder = find(proc.path(), &viewer(), Transport::Tcp, LOOPBACK, 8080);
        assert_eq!(holder, Holder::Program { name: "relay".to_owned(), pid: 30 });
        let proc = machine("carillon", "carillon sfu", 4711);
        let alone = Holder::Carillon(Ours { name: "sfu", pid: 30, dev: None });
        let parent = proc.path().join("20/exe");
        fs::remove_file(&parent).unwrap();
        assert_eq!(find(proc.path(), &viewer(), Transport::Tcp, LOOPBACK, 8080), alone);
        symlink("/home/ada/carillon", parent).unwrap();
        assert_eq!(find(proc.path(), &viewer(), Transport::Tcp, LOOPBACK, 8080), alone);
    }

    #[test]
    fn nobody_is_sent_to_who_sees_no_more() {
        let proc = machine("carillon", "carillon sfu", 1);
        let root = viewer_of("/opt/carillon", "0");
        assert_eq!(find(proc.path(), &root, Transport::Tcp, LOOPBACK, 8080), Holder::Unknown);
        let of = |user: &str, inode| Socket { address: LOOPBACK.into(), port: 8080, user: user.to_owned(), inode };
        let hidden = Holder::Hidden { user: "4294967294".to_owned() };
        let [own, other] = [of("1000", 1), of("4294967294", 2)];
        assert_eq!(unseen(&viewer(), from_ref(&own), from_ref(&own)), Holder::Unknown);
        assert_eq!(unseen(&viewer(), from_ref(&other), from_ref(&other)), hidden);
        assert_eq!(unseen(&root, from_ref(&other), from_ref(&other)), Holder::Unknown);
        assert_eq!(unseen(&Viewer::default(), from_ref(&other), from_ref(&other)), hidden);
        // It went away while we looked; perhaps another one came.
        assert_eq!(unseen(&viewer(), from_ref(&other), &[]), Holder::Unknown);
        assert_eq!(unseen(&viewer(), from_ref(&other), &[of("4294967294", 3)]), Holder::Unknown);
    }

    #[test]
    fn this_process_knows_its_folder_and_its_user() {
        let own = Viewer::this_process();
        assert_eq!(own.folder.as_deref(), std::env::current_exe().unwrap().parent());
        assert_eq!(own.user.unwrap(), rustix::process::geteuid().as_raw().to_string());
    }

    #[test]
    fn another_program_is_named_without_its_arguments_and_without_commands_to_the_terminal() {
        let proc = machine("ng\u{1b}[2Jinx", "nginx --password=1234", 4711);
        let holder = find(proc.path(), &viewer(), Transport::Tcp, LOOPBACK, 8080);
        assert_eq!(holder, Holder::Program { name: "ng[2Jinx".to_owned(), pid: 30 });
    }

    #[test]
    fn a_holder_that_may_not_be_seen_is_told_by_its_user() {
        let proc = machine("carillon", "carillon sfu", 1);
        let hidden = Holder::Hidden { user: "root".to_owned() };
        assert_eq!(find(proc.path(), &viewer(), Transport::Tcp, LOOPBACK, 8080), hidden);
        assert_eq!(user_name("4294967294"), "4294967294");
    }

    #[test]
    fn only_sockets_in_the_way_count() {
        let proc = machine("carillon", "carillon sfu", 4713);
        assert!(matches!(
            find(proc.path(), &viewer(), Transport::Udp, Ipv4Addr::UNSPECIFIED, 40000),
            Holder::Carillon(_)
        ));
        assert!(matches!(find(proc.path(), &viewer(), Transport::Udp, LOOPBACK, 40000), Holder::Carillon(_)));
        // Nobody listens there: it is one end of a connection.
        assert_eq!(find(proc.path(), &viewer(), Transport::Tcp, LOOPBACK, 8081), Holder::Unknown);
        assert_eq!(find(proc.path(), &viewer(), Transport::Tcp, LOOPBACK, 40000), Holder::Unknown);
        assert_eq!(find(proc.path(), &viewer(), Transport::Tcp, Ipv4Addr::new(192, 0, 2, 1), 8080), Holder::Unknown);
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
        let nowhere = find(Path::new("/nowhere"), &viewer(), Transport::Tcp, LOOPBACK, 8080);
        assert_eq!(nowhere, Holder::Unknown);
    }
}
