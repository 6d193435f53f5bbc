//! Clients over TCP and TLS, against the process: that they are served, what hostile ones get (S13), who a balancer's
//! connections belong to, and certificates that change.

mod harness;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{Process, Turn, WAIT_MAX, connect, folder, until};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use stun::{Class, Message, Method, TransactionId, Writer};

fn peer() -> UdpSocket {
    let peer = UdpSocket::bind("127.0.0.1:0").expect("bound");
    peer.set_read_timeout(Some(WAIT_MAX)).expect("set");
    peer
}

/// Writes a certificate for `relay.example` and gives it.
fn certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["relay.example".to_owned()]).expect("made");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("written");
    made.cert.der().clone()
}

/// Far more than the relay's own limits, so that a stall of the machine is no failure.
const HELD_MAX: Duration = Duration::from_secs(50);

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn tls(address: SocketAddr, trusted: &CertificateDer<'static>) -> Option<Tls> {
    tls_over(connect(address), trusted)
}

fn tls_over(stream: TcpStream, trusted: &CertificateDer<'static>) -> Option<Tls> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("relay.example").expect("a name");
    let client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut stream = StreamOwned::new(client, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).ok()?;
    }
    Some(stream)
}

fn start_with_tls(folder: &Path, extra: &[&str]) -> Process {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let (cert, key) = (cert.to_str().expect("text"), key.to_str().expect("text"));
    Process::start(folder, &[&["--tls-port", "0", "--tls-cert", cert, "--tls-key", key], extra].concat())
}

fn relays(turn: &mut Turn) {
    let peer = peer();
    assert_eq!(turn.allocate(), 200);
    assert_eq!(turn.bind(peer.local_addr().expect("bound")), 200);
    let mut buf = [0; 2_048];
    for n in 0..50_u8 {
        turn.send(&[0x40, 0, 0, 3, n, n, n]);
        let (len, relayed) = peer.recv_from(&mut buf).expect("relayed");
        assert_eq!(&buf[..len], [n; 3]);
        peer.send_to(&[n; 5], relayed).expect("sent");
        assert_eq!(turn.receive().expect("relayed"), [0x40, 0, 0, 5, n, n, n, n, n]);
    }
}

fn binding() -> Vec<u8> {
    let mut buf = vec![0; 20];
    let writer = Writer::new(&mut buf, Class::Request, Method::BINDING, TransactionId([9; 12])).expect("room");
    writer.finish(None, false).expect("room");
    buf
}

/// Whether the relay closes the connection, with a reset where it left something unread; it has nothing to say before.
fn is_closed(stream: &mut TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 64]) {
            Ok(len) => return len == 0,
            // A process that was stopped and goes on.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn tcp_and_tls_relay_on_both_ports() {
    let folder = folder();
    let trusted = certificate(folder.path());
    let process = start_with_tls(folder.path(), &[]);
    let at_tls = process.address("tls");
    relays(&mut Turn::over(connect(process.tcp), "ann", "the-password"));
    relays(&mut Turn::over(connect(at_tls), "ann", "the-password"));
    for address in [process.tcp, at_tls] {
        relays(&mut Turn::over(tls(address, &trusted).expect("TLS"), "ann", "the-password"));
    }
    until(|| process.get("/metrics").contains("relay_ports_used 0"), || "ports stay after disconnects".to_owned());
}

#[test]
fn a_changed_certificate_is_for_new_connections_and_a_broken_one_for_none() {
    let folder = folder();
    let first = certificate(folder.path());
    let process = start_with_tls(folder.path(), &[]);
    let at_tls = process.address("tls");
    let mut standing = Turn::over(tls(at_tls, &first).expect("TLS"), "ann", "the-password");
    assert_eq!(standing.allocate(), 200);
    let second = certificate(folder.path());
    process.signal("HUP");
    until(|| tls(at_tls, &second).is_some(), || process.log());
    assert!(tls(at_tls, &first).is_none());
    assert_eq!(standing.refresh(600), 200, "a connection that stands keeps its certificate");
    std::fs::write(folder.path().join("cert.pem"), "no certificate").expect("written");
    process.wait_for("the old ones stay");
    assert!(tls(at_tls, &second).is_some());
}

#[test]
fn s13_pipelined_halved_and_foreign_messages() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    // Pipelined: three requests in one write are three answers in order.
    let mut stream = connect(process.tcp);
    stream.write_all(&binding().repeat(3)).expect("written");
    let mut answers = [0; 3 * 32];
    stream.read_exact(&mut answers).expect("three answers");
    // Halved: byte by byte.
    for byte in binding() {
        stream.write_all(&[byte]).expect("written");
    }
    let mut answer = [0; 32];
    stream.read_exact(&mut answer).expect("an answer");
    let mapped = Message::parse(&answer).expect("an answer").xor_mapped_address();
    assert_eq!(mapped, Some(stream.local_addr().expect("connected")));
    // Foreign: closed at once, TLS too while there is no certificate.
    for foreign in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00\x01\xFF\xFF"]
    {
        let mut stream = connect(process.tcp);
        stream.write_all(foreign).expect("written");
        assert!(is_closed(&mut stream), "{foreign:?}");
    }
}

#[test]
fn s13_a_stranger_is_not_held_for_64_kilobytes_nor_for_ever() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    let mut long = connect(process.tcp);
    long.write_all(&[0x40, 0, 0xFF, 0xFF, 1, 2, 3]).expect("written");
    assert!(is_closed(&mut long), "a message that no stranger may send");
    let begun = Instant::now();
    let (mut silent, mut slow) = (connect(process.tcp), connect(process.tcp));
    for stream in [&silent, &slow] {
        stream.set_read_timeout(Some(HELD_MAX)).expect("set");
    }
    slow.write_all(&[0, 1, 0]).expect("written");
    assert!(is_closed(&mut silent) && is_closed(&mut slow));
    assert!(begun.elapsed() < HELD_MAX, "both are closed in time");
}

#[test]
fn s13_a_client_that_does_not_read_loses_the_newest_and_no_memory() {
    let folder = folder();
    let process = Process::start_with(folder.path(), &[], &[("RELAY_ALLOCATION_BYTES_PER_S", "0")]);
    let mut turn = Turn::over(connect(process.tcp), "ann", "the-password");
    let peer = peer();
    assert_eq!(turn.allocate(), 200);
    assert_eq!(turn.bind(peer.local_addr().expect("bound")), 200);
    turn.send(&[0x40, 0, 0, 1, 1]);
    let (_, relayed) = peer.recv_from(&mut [0; 16]).expect("relayed");
    // Far more than the kernel and the queue hold.
    let mut sent = 0_u64;
    let full =
        || process.get("/metrics").lines().any(|l| l.starts_with("relay_stream_dropped") && !l.ends_with(" 0"));
    while !full() {
        assert!(sent < 400_000, "never dropped");
        for _ in 0..500 {
            let mut datagram = [0; 1_000];
            datagram[..8].copy_from_slice(&sent.to_be_bytes());
            peer.send_to(&datagram, relayed).expect("sent");
            sent += 1;
        }
    }
    let first = turn.receive().expect("what was queued");
    assert_eq!(first[4..12], 0_u64.to_be_bytes(), "the oldest is there");
    let mut last = 0;
    for _ in 0..20 {
        let message = turn.receive().expect("whole messages");
        let number = u64::from_be_bytes(message[4..12].try_into().expect("eight bytes"));
        assert!(number > last && message.len() == 1_004, "in order and in step");
        last = number;
    }
}

#[test]
fn a_balancer_says_whose_connection_it_is_and_nobody_else_may() {
    let folder = folder();
    let trusted = certificate(folder.path());
    let process = start_with_tls(folder.path(), &["--proxy-from", "127.0.0.1"]);
    let v1 = b"PROXY TCP4 198.51.100.7 192.0.2.1 50000 3478\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0C".to_vec();
    v2.extend([198, 51, 100, 7, 192, 0, 2, 1, 0xC3, 0x50, 0x0D, 0x96]);
    let mapped = |stream: &mut dyn Read| {
        let mut answer = [0; 32];
        stream.read_exact(&mut answer).expect("an answer");
        Message::parse(&answer).expect("an answer").xor_mapped_address().expect("an address").to_string()
    };
    for header in [v1, v2] {
        let mut plain = connect(process.tcp);
        plain.write_all(&[header.clone(), binding()].concat()).expect("written");
        assert_eq!(mapped(&mut plain), "198.51.100.7:50000");
        let mut secure = connect(process.address("tls"));
        secure.write_all(&header).expect("written");
        let mut secure = tls_over(secure, &trusted).expect("TLS");
        secure.write_all(&binding()).expect("written");
        assert_eq!(mapped(&mut secure), "198.51.100.7:50000");
    }
    let mut without = connect(process.tcp);
    without.write_all(&binding()).expect("written");
    assert!(is_closed(&mut without), "a balancer always says it");
    let other = Process::start(folder.path(), &[]);
    let mut stranger = connect(other.tcp);
    stranger.write_all(b"PROXY TCP4 198.51.100.7 192.0.2.1 50000 3478\r\n").expect("written");
    assert!(is_closed(&mut stranger), "nobody is a balancer here");
}

#[test]
fn connections_of_one_source_and_in_all_are_bounded() {
    let folder = folder();
    for key in ["RELAY_CONNECTIONS", "RELAY_SOURCE_CONNECTIONS"] {
        let process = Process::start_with(folder.path(), &[], &[(key, "3")]);
        let served =
            |stream: &mut TcpStream| stream.write_all(&binding()).is_ok() && stream.read_exact(&mut [0; 32]).is_ok();
        let mut open = (0..3).map(|_| connect(process.tcp)).collect::<Vec<_>>();
        assert!(open.iter_mut().all(served), "{key}");
        assert!(!served(&mut connect(process.tcp)), "{key}");
        open.pop();
        until(|| served(&mut connect(process.tcp)), || "a closed one is not free again".to_owned());
    }
}
