//! Looks at this machine over its own loopback: addresses, and whether one of our admin ports answers. No packet leaves
//! the machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A process of ours that listens answers within this, or is stuck.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// RFC 1035 section 2.3.4.
const HOST_BYTES_MAX: usize = 253;
/// Status pages are a few hundred bytes; more than this is not one of ours.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// The address by which other machines reach this one, or `None` without a network. Connecting a UDP socket only asks
/// the routing table.
pub(crate) fn network_address() -> Option<IpAddr> {
    // TEST-NET-1 (RFC 5737): routed like any foreign address, belongs to nobody.
    let anywhere = SocketAddr::from(([192, 0, 2, 1], 9));
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(anywhere).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// A host name as a flag: letters, digits, hyphens and dots.
pub(crate) fn host_name(text: &str) -> Result<String, &'static str> {
    let is_label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        letters && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_name = text.len() <= HOST_BYTES_MAX && text.split('.').all(is_label) && text.parse::<IpAddr>().is_err();
    if is_name { Ok(text.to_owned()) } else { Err("a host name has letters, digits, hyphens and dots") }
}

/// Looks where a shell would look.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The status of `GET path`, `None` when nobody answers.
pub(crate) async fn http_status(address: SocketAddr, path: &str) -> Option<u16> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
        status_of(&answer)
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asking).await.ok()?
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|b| *b == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_names() {
        assert!(["localhost", "call.example.org", "a-1.b"].iter().all(|name| host_name(name).is_ok()));
        let bad = ["", ".", "a..b", "a b", "-a", "a/b", "a:1", "192.0.2.1", "käse", &"a".repeat(64)];
        assert!(bad.iter().all(|name| host_name(name).is_err()));
    }

    #[test]
    fn the_status_line_is_read_and_anything_else_is_no_answer() {
        assert_eq!(status_of(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"), Some(503));
        for noise in [&b""[..], b"HTTP/1.1", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n", b"\xff\xfe\r\n"] {
            assert_eq!(status_of(noise), None);
        }
    }
}
