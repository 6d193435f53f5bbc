//! The processes that are compared, and what the kernel says they cost.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{PASSWORD, PEER, REALM, SERVER, USER};

const START_TIME_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Floor,
    Relay,
    Coturn,
}

pub struct Running {
    pub kind: Kind,
    pub address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Running {
    /// `threads` serve; one is enough for a comparison by CPU second, and all have the same.
    pub fn start(kind: Kind, port: u16, peer: SocketAddr, threads: u16) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = match kind {
            Kind::Floor => floor(port, peer),
            Kind::Relay => relay(port, threads),
            Kind::Coturn => coturn(port, threads, folder.path()),
        };
        let child =
            command.stdout(Stdio::null()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().expect("started");
        let running = Self { kind, address: (SERVER, port).into(), child, _folder: folder };
        running.wait();
        running
    }

    /// CPU time of all threads so far.
    pub fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a process");
        let times = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(times.sum())
    }

    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line");
        line.split_whitespace().nth(1).expect("a value").parse().expect("a number")
    }

    /// Until it answers a Binding request; the floor forwards it to nobody, so its port is looked at.
    fn wait(&self) {
        let end = Instant::now() + START_TIME_MAX;
        let socket = UdpSocket::bind((SERVER, 0)).expect("a port");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        socket.connect(self.address).expect("connected");
        let mut request = [0; 20];
        request[1] = 1;
        request[4..8].copy_from_slice(&stun::MAGIC_COOKIE.to_be_bytes());
        loop {
            assert!(Instant::now() < end, "{:?} does not start", self.kind);
            let answered = match self.kind {
                Kind::Floor => UdpSocket::bind(self.address).is_err(),
                Kind::Relay | Kind::Coturn => socket.send(&request).is_ok() && socket.recv(&mut [0; 512]).is_ok(),
            };
            if answered {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn floor(port: u16, peer: SocketAddr) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--as-floor", &port.to_string(), &peer.to_string()]);
    command
}

fn relay(port: u16, threads: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command
        .args(["--listen", &SERVER.to_string(), "--port", &port.to_string(), "--realm", REALM])
        .args(["--threads", &threads.to_string(), "--admin", "127.0.0.1:0", "--peer", &PEER.to_string()])
        .args(["--min-port", "49152", "--max-port", "56999"])
        .env("RELAY_USER", format!("{USER}:{PASSWORD}"))
        .env("RELAY_USER_ALLOCATIONS", "0")
        .env("RELAY_SOURCE_ALLOCATIONS", "0")
        .env("RELAY_ALLOCATION_BYTES_PER_S", "0")
        .env("RELAY_UNAUTHORIZED_PER_S", "100000");
    command
}

/// With nothing that costs and that nobody asked for: no log, no console, no TLS. Both run at the same time, so each has
/// ports of its own.
fn coturn(port: u16, threads: u16, folder: &Path) -> Command {
    let config = folder.join("turnserver.conf");
    let mut file = std::fs::File::create(&config).expect("a file");
    writeln!(
        file,
        "listening-ip={SERVER}\nrelay-ip={SERVER}\nlistening-port={port}\nrealm={REALM}\nlt-cred-mech\n\
         user={USER}:{PASSWORD}\nrelay-threads={threads}\nno-cli\nno-tls\nno-dtls\nno-rfc5780\n\
         no-software-attribute\nmin-port=57000\nmax-port=65000\nlog-file=/dev/null\nsimple-log\npidfile={0}/pid\nuserdb={0}/db\n",
        folder.display()
    )
    .expect("written");
    let mut command = Command::new("turnserver");
    command.arg("-c").arg(config);
    command
}
