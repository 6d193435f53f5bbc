//! What a credential costs through the whole credential broker, HTTP included: the process itself on a port, asked over
//! connections that stay open, first as fast as they go (credentials for each second of the broker's processor time), then
//! at a steady pace (how long one answer takes). Prints one JSON object as its last line; without `--bench` it only shows
//! that it works.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement stops at what it does not expect, and prints"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const KEY: &str = "key-of-the-measurement";
/// As many as a signalling process has on their way at once, or fewer.
const CONNECTIONS: u64 = 8;
const PACED_PER_S: u64 = 2_000;
/// Ticks of `/proc/PID/stat` in a second, on every Linux that we meet.
const TICKS_PER_S: f64 = 100.0;

/// How long each part lasts.
struct Length {
    full: Duration,
    paced: Duration,
}

struct Broker {
    child: Child,
    http: SocketAddr,
}

impl Broker {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_credential-broker"))
            .args(["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log", "json"])
            .args([
                "--relay",
                "turn:turn.example.org turns:turn.example.org check=none",
                "--stun",
                "stun:turn.example.org",
            ])
            .env("BROKER_SECRET", "secret-of-the-measurement")
            .env("BROKER_API_KEY", format!("bench:{KEY}"))
            // The limit is another test's business.
            .env("BROKER_PROGRAM_PER_S", "1000000")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let http = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the broker ended");
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
            let http = entry.get("http").or_else(|| entry["fields"].get("http"));
            if let Some(http) = http.and_then(serde_json::Value::as_str) {
                break http.parse().unwrap();
            }
        };
        // Nobody may wait for a reader of its log.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, http }
    }

    /// User and system time so far.
    fn cpu_s(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
        // utime and stime are fields 14 and 15 of proc(5); the name with its bracket was field 2.
        (ticks(11) + ticks(12)) / TICKS_PER_S
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Caller {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Caller {
    fn connect(http: SocketAddr, number: u64) -> Self {
        let stream = TcpStream::connect(http).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!(
            "POST /v1alpha/iceconfig?username=person{number} HTTP/1.1\r\nhost: {http}\r\nauthorization: Bearer {KEY}\r\n\
             content-length: 0\r\n\r\n"
        );
        Self { stream, request: request.into_bytes(), answer: Vec::with_capacity(4096) }
    }

    /// One credential; its answer is read to the end and must hold one.
    fn ask(&mut self) {
        self.stream.write_all(&self.request).unwrap();
        self.answer.clear();
        loop {
            let mut chunk = [0; 4096];
            let len = self.stream.read(&mut chunk).unwrap();
            assert!(len > 0, "the broker closed: {}", String::from_utf8_lossy(&self.answer));
            self.answer.extend_from_slice(&chunk[..len]);
            if is_whole(&self.answer) {
                break;
            }
        }
        assert!(self.answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.answer));
        assert!(find(&self.answer, b"\"credential\":").is_some());
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(head) = find(answer, b"\r\n\r\n") else { return false };
    let text = std::str::from_utf8(&answer[..head]).unwrap().to_ascii_lowercase();
    let length: usize =
        text.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap().trim().parse().unwrap();
    answer.len() >= head + 4 + length
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Credentials for each second of the broker's processor time.
fn at_full_speed(broker: &Broker, lasts: Duration) -> f64 {
    let before = broker.cpu_s();
    let callers = (0..CONNECTIONS).map(|number| {
        let http = broker.http;
        thread::spawn(move || {
            let mut caller = Caller::connect(http, number);
            let began = Instant::now();
            let mut made = 0_u64;
            while began.elapsed() < lasts {
                caller.ask();
                made += 1;
            }
            made
        })
    });
    let callers: Vec<_> = callers.collect();
    let made: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    let cpu_s = (broker.cpu_s() - before).max(1.0 / TICKS_PER_S);
    let per_cpu_s = made as f64 / cpu_s;
    println!("at full speed: {made} credentials in {cpu_s:.2} s of processor time, {per_cpu_s:.0} a second");
    per_cpu_s
}

/// The 99th percentile in ms. Measured from when a request was due, so that a slow answer counts for those behind it too.
fn at_a_pace(broker: &Broker, lasts: Duration) -> f64 {
    let interval = Duration::from_secs(1) * CONNECTIONS as u32 / PACED_PER_S as u32;
    let callers = (0..CONNECTIONS).map(|number| {
        let http = broker.http;
        thread::spawn(move || {
            let mut caller = Caller::connect(http, number);
            caller.ask();
            let began = Instant::now() + interval * number as u32 / CONNECTIONS as u32;
            let count = lasts.as_nanos() / interval.as_nanos();
            let mut took = Vec::with_capacity(count as usize);
            for n in 0..count as u32 {
                let due = began + interval * n;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                caller.ask();
                took.push(Instant::now().saturating_duration_since(due));
            }
            took
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut took: Vec<Duration> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    println!("at {PACED_PER_S} a second: p50 {:.3} ms, p99 {:.3} ms of {} answers", at(0.5), at(0.99), took.len());
    at(0.99)
}

fn main() {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let length = if is_bench {
        Length { full: Duration::from_secs(4), paced: Duration::from_secs(4) }
    } else {
        Length { full: Duration::from_millis(200), paced: Duration::from_millis(200) }
    };
    let broker = Broker::start();
    let credentials_per_cpu_s = at_full_speed(&broker, length.full);
    let p99_ms = at_a_pace(&broker, length.paced);
    println!(
        "{}",
        serde_json::json!({"figures": {"credentials_per_cpu_s": credentials_per_cpu_s, "p99_ms": p99_ms}})
    );
}
