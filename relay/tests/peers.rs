//! Peers that are learnt while the relay runs: from signalling's registry of media nodes, and from a file.

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use harness::{Process, Turn, folder, replace, until};

/// Answers each request with the text that it holds, or with nothing at all.
struct Registry {
    address: SocketAddr,
    text: Arc<Mutex<Option<String>>>,
}

impl Registry {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let text = Arc::new(Mutex::new(Some("{}".to_owned())));
        let told = Arc::clone(&text);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 1_024];
                let len = stream.read(&mut request).unwrap_or(0);
                assert!(request[..len].starts_with(b"GET /v1/nodes HTTP/1.1\r\n"));
                if let Some(text) = &*told.lock().expect("not poisoned") {
                    let length = text.len();
                    let _ = write!(
                        stream,
                        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}"
                    );
                }
            }
        });
        Self { address, text }
    }

    fn lists(&self, media: &str) {
        let line = format!(r#"{{"node-a":{{"version":"1","linked":true,"media":["{media}"]}}}}"#);
        *self.text.lock().expect("not poisoned") = Some(line);
    }

    fn falls_silent(&self) {
        *self.text.lock().expect("not poisoned") = None;
    }
}

/// Clients that ask again and again meet no limit.
const PATIENT: &[(&str, &str)] = &[("RELAY_UNAUTHORIZED_PER_S", "100000")];

/// The code of a ChannelBind to there, of a client of its own.
fn reach(process: &Process, peer: &str) -> u16 {
    let mut turn = Turn::new(process.udp, "ann", "the-password");
    assert_eq!(turn.allocate(), 200);
    let code = turn.bind(peer.parse().expect("an address"));
    assert_eq!(turn.refresh(0), 200);
    code
}

#[test]
fn media_nodes_of_the_registry_are_peers_and_stay_so_while_it_is_silent() {
    let (folder, registry) = (folder(), Registry::open());
    let url = format!("http://{}", registry.address);
    let process = Process::start_with(folder.path(), &["--registry", &url], PATIENT);
    assert_eq!(reach(&process, "127.0.0.1:40000"), 403);
    assert!(process.get("/readyz").contains("no media node"), "nobody can be reached: clients go elsewhere");

    registry.lists("127.0.0.1:40000");
    until(|| process.get("/readyz").starts_with("HTTP/1.1 200"), || process.log());
    until(|| reach(&process, "127.0.0.1:40000") == 200, || process.log());
    assert_eq!(reach(&process, "127.0.0.1:40001"), 403, "not a port that nobody listed");
    assert!(process.get("/metrics").contains("relay_registry_addresses 1"), "{}", process.get("/metrics"));

    registry.falls_silent();
    process.wait_for("the known ones stay peers");
    replace(&folder.path().join("users"), "ann:the-password\nbob:another-password\n");
    process.wait_for("loaded again");
    assert_eq!(reach(&process, "127.0.0.1:40000"), 200, "and outlives a reload of the settings");

    registry.lists("127.0.0.1:0\",\"127.0.0.1:40002");
    process.wait_for("answers again");
    until(|| reach(&process, "127.0.0.1:40002") == 200, || process.log());
    assert_eq!(reach(&process, "127.0.0.1:40000"), 200, "a registry that was started anew has not heard of all yet");
}

#[test]
fn a_changed_peer_file_changes_the_peers_and_a_broken_one_does_not() {
    let folder = folder();
    let path = folder.path().join("peers");
    std::fs::write(&path, "# media nodes\n127.0.0.1:40000\n").expect("written");
    let process = Process::start_with(folder.path(), &["--peer-file", path.to_str().expect("text")], PATIENT);
    assert_eq!((reach(&process, "127.0.0.1:40000"), reach(&process, "127.0.0.1:40009")), (200, 403));
    replace(&path, "127.0.0.1:40009\n");
    process.wait_for("loaded again");
    until(|| reach(&process, "127.0.0.1:40009") == 200, || process.log());
    assert_eq!(reach(&process, "127.0.0.1:40000"), 403);
    replace(&path, "everybody\n");
    process.wait_for("the old ones stay");
    assert_eq!(reach(&process, "127.0.0.1:40009"), 200);
}
