//! The relay as a process, over loopback: what needs files, signals and logs. The protocol itself is tested in
//! `relay-core` and by coturn's tools.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stun::{IntegrityKey, Message, Method, TransactionId, Writer};

const REALM: &str = "example";
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A running relay; killed when it goes out of scope.
struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    udp: SocketAddr,
    tcp: SocketAddr,
    admin: SocketAddr,
}

impl Process {
    fn start(folder: &Path, extra: &[&str]) -> Self {
        let (secrets, users) = (folder.join("secrets"), folder.join("users"));
        let mut child = command()
            .args(["--dev", "--listen", "127.0.0.1", "--port", "0", "--admin", "127.0.0.1:0", "--realm", REALM])
            .args(["--peer", "127.0.0.1", "--log", "json", "--threads", "2"])
            .env("RELAY_ALLOW_LOOPBACK_PEERS", "true")
            .arg("--secret-file")
            .arg(secrets)
            .arg("--user-file")
            .arg(users)
            .args(extra)
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("piped");
        let copy = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = copy.lock().expect("not poisoned");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut process =
            Self { child, log, udp: ([0; 4], 0).into(), tcp: ([0; 4], 0).into(), admin: ([0; 4], 0).into() };
        process.wait_for("Relay is running");
        let text = process.log();
        process.udp = field(&text, "udp");
        process.tcp = field(&text, "tcp");
        process.admin = field(&text, "admin");
        process
    }

    fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    fn wait_for(&self, text: &str) {
        until(|| self.log().contains(text), || format!("no {text:?} in {}", self.log()));
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read");
        text
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("run");
        assert!(status.success());
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("asked").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Turn {
    socket: UdpSocket,
    server: SocketAddr,
    username: String,
    key: IntegrityKey,
    nonce: Vec<u8>,
    next_id: u8,
}

impl Turn {
    fn new(server: SocketAddr, username: &str, password: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        socket.set_read_timeout(Some(WAIT_MAX)).expect("set");
        let key = IntegrityKey::long_term(username.as_bytes(), REALM.as_bytes(), password.as_bytes());
        Self { socket, server, username: username.to_owned(), key, nonce: Vec::new(), next_id: 0 }
    }

    fn allocate(&mut self) -> u16 {
        let body = |w: &mut Writer<'_>| w.requested_transport(17).expect("room");
        if self.nonce.is_empty() {
            let answer = self.exchange(Method::ALLOCATE, body, false);
            self.nonce = Message::parse(&answer).expect("a challenge").nonce().expect("a nonce").to_vec();
        }
        code(&self.exchange(Method::ALLOCATE, body, true))
    }

    fn refresh(&mut self, seconds: u32) -> u16 {
        code(&self.exchange(Method::REFRESH, |w| w.lifetime(seconds).expect("room"), true))
    }

    fn bind(&mut self, peer: SocketAddr) -> u16 {
        let body = |w: &mut Writer<'_>| {
            w.channel_number(0x4000).expect("room");
            w.xor_peer_address(peer).expect("room");
        };
        code(&self.exchange(Method::CHANNEL_BIND, body, true))
    }

    fn exchange(&mut self, method: Method, body: impl FnOnce(&mut Writer<'_>), signed: bool) -> Vec<u8> {
        self.next_id += 1;
        let mut buf = vec![0; 2_048];
        let mut writer =
            Writer::new(&mut buf, stun::Class::Request, method, TransactionId([self.next_id; 12])).expect("room");
        body(&mut writer);
        if signed {
            writer.username(self.username.as_bytes()).expect("room");
            writer.realm(REALM.as_bytes()).expect("room");
            writer.nonce(&self.nonce).expect("room");
        }
        let len = writer.finish(signed.then_some(&self.key), true).expect("room");
        self.socket.send_to(&buf[..len], self.server).expect("sent");
        let (len, _) = self.socket.recv_from(&mut buf).expect("an answer");
        buf.truncate(len);
        buf
    }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.env_clear();
    command
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("made");
    std::fs::write(folder.path().join("secrets"), "the-first-secret\n").expect("written");
    std::fs::write(folder.path().join("users"), "ann:the-password\n").expect("written");
    folder
}

fn until(mut done: impl FnMut() -> bool, why: impl Fn() -> String) {
    let end = Instant::now() + WAIT_MAX;
    while !done() {
        assert!(Instant::now() < end, "{}", why());
        std::thread::yield_now();
    }
}

fn field(log: &str, name: &str) -> SocketAddr {
    let from = log.find(&format!("\"{name}\":\"")).expect("a field") + name.len() + 4;
    log[from..].split('"').next().expect("a value").parse().expect("an address")
}

fn code(answer: &[u8]) -> u16 {
    let message = Message::parse(answer).expect("an answer");
    message.error_code().map_or(200, |error| error.code)
}

#[test]
fn relays_between_a_client_and_a_peer() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("bound");
    peer.set_read_timeout(Some(WAIT_MAX)).expect("set");
    let mut turn = Turn::new(process.udp, "ann", "the-password");
    assert_eq!(turn.allocate(), 200);
    assert_eq!(turn.bind(peer.local_addr().expect("bound")), 200);
    let mut buf = [0; 2_048];
    for n in 0..100_u8 {
        turn.socket.send_to(&[0x40, 0, 0, 3, n, n, n], process.udp).expect("sent");
        let (len, relayed) = peer.recv_from(&mut buf).expect("relayed");
        assert_eq!(&buf[..len], [n; 3]);
        peer.send_to(&[n; 5], relayed).expect("sent");
        let (len, _) = turn.socket.recv_from(&mut buf).expect("relayed");
        assert_eq!(&buf[..len], [0x40, 0, 0, 5, n, n, n, n, n]);
    }
    assert_eq!(turn.refresh(0), 200);
    until(|| process.get("/metrics").contains("relay_ports_used 0"), || process.get("/metrics"));
    let metrics = process.get("/metrics");
    assert!(metrics.contains("relay_to_peer_packets_total{thread=\"0\"}"), "{metrics}");
    assert!(!metrics.contains("\"ann"), "no user name is a label");
}

#[test]
fn s15_the_log_has_no_secret_and_no_control_character() {
    let folder = folder();
    let process = Process::start(folder.path(), &["--log-filter", "trace"]);
    for (username, password) in [("ann", "the-password"), ("ann", "wrong"), ("evil\n\x1b[31m\"}", "x"), ("1:x", "y")]
    {
        let mut turn = Turn::new(process.udp, username, password);
        let code = turn.allocate();
        assert_eq!(code == 200, password == "the-password");
    }
    process.signal("HUP");
    process.wait_for("loaded again");
    let log = process.log();
    for secret in ["the-first-secret", "the-password", "\x1b", "wrong\""] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{log}");
}

#[test]
fn s19_a_new_secret_is_good_within_seconds_and_no_allocation_is_lost() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    let mut before = Turn::new(process.udp, "ann", "the-password");
    assert_eq!(before.allocate(), 200);
    std::fs::write(folder.path().join("users"), "bob:another-password\n").expect("written");
    process.wait_for("loaded again");
    let accepted = |name: &str, password: &str| Turn::new(process.udp, name, password).allocate() == 200;
    until(|| accepted("bob", "another-password"), || process.log());
    assert_eq!(Turn::new(process.udp, "ann", "the-password").allocate(), 401);
    assert_eq!(before.refresh(600), 200, "the allocation outlives its user");
}

#[test]
fn s20_settings_that_cannot_be_read_stop_a_start_and_not_a_reload() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    std::fs::write(folder.path().join("users"), "ann\n").expect("written");
    process.wait_for("the old ones stay");
    assert_eq!(Turn::new(process.udp, "ann", "the-password").allocate(), 200);
    assert!(process.get("/metrics").contains("relay_reloads_total{result=\"failed\"} 1"));
    let users = folder.path().join("users");
    for (args, said) in [
        (vec!["--user-file", users.to_str().expect("text"), "--general"], "user 1"),
        (vec!["--general"], "no credentials"),
        (vec!["--general", "--coturn", "/nonexistent/turnserver.conf"], "cannot be read"),
    ] {
        let output = command().args(args).output().expect("run");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said), "{text}");
    }
}

#[test]
fn draining_refuses_new_allocations_and_waits_for_the_old() {
    let folder = folder();
    let mut process = Process::start(folder.path(), &["--drain-seconds", "60"]);
    let mut turn = Turn::new(process.udp, "ann", "the-password");
    let mut late = Turn::new(process.udp, "ann", "the-password");
    assert_eq!(turn.allocate(), 200);
    until(
        || {
            process.get("/metrics").contains("relay_allocations{thread=\"0\"} 1")
                || process.get("/metrics").contains("relay_allocations{thread=\"1\"} 1")
        },
        || process.get("/metrics"),
    );
    process.signal("TERM");
    until(|| process.get("/readyz").contains("draining"), || process.get("/readyz"));
    until(|| late.allocate() == 508, || "still allocates".to_owned());
    assert_eq!(turn.refresh(600), 200);
    assert!(!process.has_ended());
    assert_eq!(turn.refresh(0), 200);
    until(|| process.has_ended(), || "does not end".to_owned());
    assert_eq!(process.child.wait().expect("ended").code(), Some(0));
}

#[test]
fn both_files_of_the_field_are_explained() {
    for (file, args) in [("turnserver-rest.conf", vec!["--dev"]), ("turnserver-static-user.conf", vec![])] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(file);
        let output = command().arg("--check-config").arg("--coturn").arg(path).args(args).output().expect("run");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("The configuration is good"), "{text}");
        assert!(text.contains("listening-port") && !text.contains("CHANGEME") && !text.contains("pass1"), "{text}");
    }
}
