//! The binary as an operator meets it.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing waits this long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

struct Process {
    child: Child,
    admin: String,
}

impl Process {
    /// Starts a node on ports that the OS chooses and waits for the line that says where.
    fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sfu"))
            .args(["--allow-loopback", "--port", "0", "--control", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--log", "json"])
            .args(flags)
            .env("SFU_CONTROL_TOKEN", "a-token-of-the-tests")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let admin = loop {
            let line = lines.next().expect("the node ended").unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["message"] == "Node is running" {
                break line["admin"].as_str().unwrap().to_owned();
            }
        };
        // Nobody reads on: keep the pipe from filling.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, admin }
    }

    fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn says_where_it_listens_and_ends_on_sigterm() {
    let mut node = Process::start(&["--shards", "2", "--node-id", "n-1"]);
    let (status, body) = node.get("/v1/status");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let status: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status["node"], "n-1");
    assert!(status["control"].as_str().unwrap().starts_with("ws://127.0.0.1:"));
    let media = status["media"].as_array().unwrap();
    assert!(media.len() >= 2 && media.iter().all(|m| m["port"].as_u64().unwrap() > 0), "{media:?}");
    assert_eq!((&status["peers"], &status["rooms"], &status["draining"]), (&0.into(), &0.into(), &false.into()));
    assert_eq!(node.get("/readyz").0, "HTTP/1.1 200 OK");
    assert!(node.get("/metrics").1.contains("sfu_shard_busy_ratio{shard=\"1\"}"));

    let asked = Instant::now();
    node.signal("-TERM");
    assert!(node.child.wait().unwrap().success());
    assert!(asked.elapsed() < PATIENCE);
}

#[test]
fn a_setting_that_does_not_exist_stops_the_start() {
    let refused = Command::new(env!("CARGO_BIN_EXE_sfu")).env("SFU_PROT", "1").output().unwrap();
    assert!(!refused.status.success());
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "sfu: SFU_PROT: unknown key, did you mean SFU_PORT?\n");
}

#[test]
fn a_port_in_use_stops_the_start_and_is_named() {
    let node = Process::start(&[]);
    let refused = Command::new(env!("CARGO_BIN_EXE_sfu"))
        .args(["--allow-loopback", "--port", "0", "--control", "127.0.0.1:0", "--admin", &node.admin])
        .env("SFU_CONTROL_TOKEN", "a-token-of-the-tests")
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains(&format!("admin port {} cannot be bound", node.admin)), "{text}");
}

#[test]
fn announces_itself_with_the_address_to_dial() {
    let signalling = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("http://{}", signalling.local_addr().unwrap());
    let node = Process::start(&["--announce", &target, "--node-id", "n-2"]);
    let (mut stream, _) = signalling.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = Vec::new();
    let mut part = [0; 4096];
    while !request.ends_with(b"}") {
        let length = stream.read(&mut part).unwrap();
        assert!(length > 0, "closed early");
        request.extend_from_slice(&part[..length]);
    }
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    let request = String::from_utf8(request).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/nodes HTTP/1.1"), "{head}");
    assert!(head.contains("authorization: Bearer a-token-of-the-tests"), "{head}");
    let beat: sfu_control::Heartbeat = serde_json::from_str(body).unwrap();
    let status: serde_json::Value = serde_json::from_str(&node.get("/v1/status").1).unwrap();
    assert_eq!((beat.node.as_str(), beat.peers, beat.draining), ("n-2", 0, false));
    assert_eq!(beat.control, status["control"].as_str().unwrap());
}
