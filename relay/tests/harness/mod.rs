//! A relay as a process on loopback, and a TURN client of a few lines for datagrams and streams.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stun::{IntegrityKey, Message, Method, TransactionId, Writer};

pub const REALM: &str = "example";
/// Nothing waits this long when all is well; a busy machine may stall for seconds.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two looks, so that who waits leaves the machine to what is waited for.
const PACE: Duration = Duration::from_millis(2);

/// A running relay; killed when it goes out of scope.
pub struct Process {
    pub child: Child,
    log: Arc<Mutex<String>>,
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    pub fn start(folder: &Path, extra: &[&str]) -> Self {
        Self::start_with(folder, extra, &[])
    }

    pub fn start_with(folder: &Path, extra: &[&str], environment: &[(&str, &str)]) -> Self {
        let (secrets, users) = (folder.join("secrets"), folder.join("users"));
        // Where peers come from elsewhere, there is none beside them.
        let learns = extra.iter().any(|word| matches!(*word, "--registry" | "--peer-file"));
        let peers: &[&str] = if learns { &[] } else { &["--peer", "127.0.0.1"] };
        let mut child = command()
            .args(["--dev", "--listen", "127.0.0.1", "--port", "0", "--admin", "127.0.0.1:0", "--realm", REALM])
            .args(["--log", "json", "--threads", "2"])
            .args(peers)
            .env("RELAY_ALLOW_LOOPBACK_PEERS", "true")
            .arg("--secret-file")
            .arg(secrets)
            .arg("--user-file")
            .arg(users)
            .args(extra)
            .envs(environment.iter().copied())
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

    /// One of the addresses that the relay says it listens at.
    pub fn address(&self, name: &str) -> SocketAddr {
        field(&self.log(), name)
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").clone()
    }

    pub fn wait_for(&self, text: &str) {
        until(|| self.log().contains(text), || format!("no {text:?} in {}", self.log()));
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.admin).expect("connected");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read");
        text
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("run");
        assert!(status.success());
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("asked").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection, plain or TLS.
pub trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("set");
    stream
}

pub struct Turn {
    pub socket: UdpSocket,
    server: SocketAddr,
    /// Instead of the datagram socket.
    pub stream: Option<Box<dyn Stream>>,
    username: String,
    key: IntegrityKey,
    nonce: Vec<u8>,
    next_id: u8,
}

impl Turn {
    pub fn new(server: SocketAddr, username: &str, password: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        socket.set_read_timeout(Some(WAIT_MAX)).expect("set");
        let key = IntegrityKey::long_term(username.as_bytes(), REALM.as_bytes(), password.as_bytes());
        Self { socket, server, stream: None, username: username.to_owned(), key, nonce: Vec::new(), next_id: 0 }
    }

    pub fn over(stream: impl Stream + 'static, username: &str, password: &str) -> Self {
        let mut turn = Self::new(([127, 0, 0, 1], 9).into(), username, password);
        turn.stream = Some(Box::new(stream));
        turn
    }

    pub fn allocate(&mut self) -> u16 {
        let body = |w: &mut Writer<'_>| w.requested_transport(17).expect("room");
        if self.nonce.is_empty() {
            self.learn_nonce();
        }
        code(&self.exchange(Method::ALLOCATE, body, true))
    }

    pub fn refresh(&mut self, seconds: u32) -> u16 {
        code(&self.exchange(Method::REFRESH, |w| w.lifetime(seconds).expect("room"), true))
    }

    pub fn bind(&mut self, peer: SocketAddr) -> u16 {
        let body = |w: &mut Writer<'_>| {
            w.channel_number(0x4000).expect("room");
            w.xor_peer_address(peer).expect("room");
        };
        code(&self.exchange(Method::CHANNEL_BIND, body, true))
    }

    pub fn exchange(&mut self, method: Method, body: impl FnOnce(&mut Writer<'_>), signed: bool) -> Vec<u8> {
        self.request(method, body, signed);
        self.receive().expect("an answer")
    }

    /// Takes the nonce of a fresh challenge.
    pub fn learn_nonce(&mut self) {
        let answer = self.exchange(Method::ALLOCATE, |w| w.requested_transport(17).expect("room"), false);
        self.nonce = Message::parse(&answer).expect("a challenge").nonce().expect("a nonce").to_vec();
    }

    pub fn request(&mut self, method: Method, body: impl FnOnce(&mut Writer<'_>), signed: bool) {
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
        self.send(&buf[..len]);
    }

    /// A message; on a stream with the padding that it needs.
    pub fn send(&mut self, message: &[u8]) {
        match &mut self.stream {
            None => {
                self.socket.send_to(message, self.server).expect("sent");
            }
            Some(stream) => {
                let mut padded = message.to_vec();
                padded.resize(message.len().next_multiple_of(4), 0);
                stream.write_all(&padded).expect("written");
                stream.flush().expect("written");
            }
        }
    }

    /// The next message, if one comes.
    pub fn receive(&mut self) -> std::io::Result<Vec<u8>> {
        let Some(stream) = &mut self.stream else {
            let mut buf = vec![0; 2_048];
            let (len, _) = self.socket.recv_from(&mut buf)?;
            buf.truncate(len);
            return Ok(buf);
        };
        let mut message = vec![0; 4];
        stream.read_exact(&mut message)?;
        let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
        let whole = if message[0] < 0x40 { 20 + length } else { 4 + length };
        message.resize(whole.next_multiple_of(4), 0);
        stream.read_exact(&mut message[4..])?;
        message.truncate(whole);
        Ok(message)
    }
}

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relay"));
    command.env_clear();
    command
}

pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("made");
    std::fs::write(folder.path().join("secrets"), "the-first-secret\n").expect("written");
    std::fs::write(folder.path().join("users"), "ann:the-password\n").expect("written");
    folder
}

/// A file in one step: who looks at it meanwhile never sees half of it.
pub fn replace(path: &Path, text: &str) {
    let whole = path.with_extension("new");
    std::fs::write(&whole, text).expect("written");
    std::fs::rename(whole, path).expect("renamed");
}

pub fn until(mut done: impl FnMut() -> bool, why: impl Fn() -> String) {
    let end = Instant::now() + WAIT_MAX;
    while !done() {
        assert!(Instant::now() < end, "{}", why());
        std::thread::sleep(PACE);
    }
}

pub fn field(log: &str, name: &str) -> SocketAddr {
    let from = log.find(&format!("\"{name}\":\"")).expect("a field") + name.len() + 4;
    log[from..].split('"').next().expect("a value").parse().expect("an address")
}

pub fn code(answer: &[u8]) -> u16 {
    let message = Message::parse(answer).expect("an answer");
    message.error_code().map_or(200, |error| error.code)
}
