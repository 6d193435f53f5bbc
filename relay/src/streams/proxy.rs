//! The PROXY protocol (haproxy's `proxy-protocol.txt`), versions 1 and 2, as a balancer in front of the relay speaks it:
//! the first bytes of a connection say whose it is. Only the parser; who is believed is decided by the caller.
//!
//! ```text
//! v1  PROXY TCP4 198.51.100.1 192.0.2.1 50000 3478\r\n
//! v2  signature(12) version and command(1) family(1) length(2) addresses and extensions(length)
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the specification allows for a line of version 1.
const LINE_BYTES_MAX: usize = 107;
/// Addresses and extensions of version 2; real ones have some dozens of bytes.
const BODY_BYTES_MAX: usize = 1_024;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const HEAD_BYTES: usize = 16;

/// The longest header that is taken.
pub(super) const HEADER_BYTES_MAX: usize = HEAD_BYTES + BODY_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Incomplete,
    /// The connection's own bytes begin after `consumed`; without an address it is the balancer itself (a health
    /// check) or somebody that it cannot name.
    Complete {
        consumed: usize,
        client: Option<SocketAddr>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection does not begin with a PROXY header")]
pub(super) struct NoHeader;

pub(super) fn parse(bytes: &[u8]) -> Result<Header, NoHeader> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] == SIGNATURE[..seen] {
        return parse_binary(bytes);
    }
    parse_line(bytes)
}

fn parse_line(bytes: &[u8]) -> Result<Header, NoHeader> {
    const START: &[u8] = b"PROXY ";
    let seen = bytes.len().min(START.len());
    if bytes[..seen] != START[..seen] {
        return Err(NoHeader);
    }
    let Some(end) = bytes.windows(2).take(LINE_BYTES_MAX - 1).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(Header::Incomplete) } else { Err(NoHeader) };
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| NoHeader)?;
    let words = line.split(' ').collect::<Vec<_>>();
    let client = match words[..] {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family @ ("TCP4" | "TCP6"), source, _, port, _] => {
            let ip = source.parse::<IpAddr>().map_err(|_| NoHeader)?;
            if ip.is_ipv4() != (family == "TCP4") {
                return Err(NoHeader);
            }
            Some(SocketAddr::new(ip, port.parse().map_err(|_| NoHeader)?))
        }
        _ => return Err(NoHeader),
    };
    Ok(Header::Complete { consumed: end + 2, client })
}

fn parse_binary(bytes: &[u8]) -> Result<Header, NoHeader> {
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(Header::Incomplete) };
    let (command, family) = (head[12], head[13]);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if !matches!(command, 0x20 | 0x21) || length > BODY_BYTES_MAX {
        return Err(NoHeader);
    }
    let consumed = HEAD_BYTES + length;
    let Some(body) = bytes.get(HEAD_BYTES..consumed) else { return Ok(Header::Incomplete) };
    let is_local = command == 0x20;
    let client = match family {
        _ if is_local => None,
        0x11 => Some(source::<4>(body, 8)?),
        0x21 => Some(source::<16>(body, 32)?),
        // Datagrams, sockets of one host, or nothing that the balancer can name.
        _ => None,
    };
    Ok(Header::Complete { consumed, client })
}

/// Source and destination address, then source and destination port, which begin at `ports`.
fn source<const N: usize>(body: &[u8], ports: usize) -> Result<SocketAddr, NoHeader>
where
    IpAddr: FromOctets<N>,
{
    let ip = body.first_chunk::<N>().ok_or(NoHeader)?;
    let port = body.get(ports..ports + 4).ok_or(NoHeader)?;
    Ok(SocketAddr::new(IpAddr::from_octets(*ip), u16::from_be_bytes([port[0], port[1]])))
}

trait FromOctets<const N: usize> {
    fn from_octets(octets: [u8; N]) -> Self;
}

impl FromOctets<4> for IpAddr {
    fn from_octets(octets: [u8; 4]) -> Self {
        Ipv4Addr::from(octets).into()
    }
}

impl FromOctets<16> for IpAddr {
    fn from_octets(octets: [u8; 16]) -> Self {
        Ipv6Addr::from(octets).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(bytes: &[u8]) -> Option<String> {
        match parse(bytes).expect("a header") {
            Header::Complete { consumed, client } => {
                assert_eq!(consumed, bytes.len());
                client.map(|client| client.to_string())
            }
            Header::Incomplete => panic!("incomplete"),
        }
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn lines_name_the_client() {
        assert_eq!(
            client(b"PROXY TCP4 198.51.100.1 192.0.2.1 50000 3478\r\n").as_deref(),
            Some("198.51.100.1:50000")
        );
        assert_eq!(client(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n").as_deref(), Some("[2001:db8::1]:1"));
        assert_eq!(client(b"PROXY UNKNOWN\r\n"), None);
        for bad in
            ["PROXY TCP4 2001:db8::1 192.0.2.1 1 2\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 70000 1\r\n", "GET / HTTP/1.1"]
        {
            assert_eq!(parse(bad.as_bytes()), Err(NoHeader), "{bad}");
        }
        assert_eq!(parse(&[&b"PROXY "[..], &[b'x'; 110]].concat()), Err(NoHeader), "no line is that long");
    }

    #[test]
    fn binary_headers_name_the_client_and_extensions_are_skipped() {
        let v4 = [198, 51, 100, 1, 192, 0, 2, 1, 0xC3, 0x50, 0x0D, 0x96];
        assert_eq!(client(&binary(0x21, 0x11, &v4)).as_deref(), Some("198.51.100.1:50000"));
        let with_extension = [&v4[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(client(&binary(0x21, 0x11, &with_extension)).as_deref(), Some("198.51.100.1:50000"));
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[33]) = (0x20, 0x01, 9, 7);
        assert_eq!(client(&binary(0x21, 0x21, &v6)).as_deref(), Some("[2001::9]:7"));
        assert_eq!(client(&binary(0x20, 0x00, &[])), None, "a health check of the balancer");
        assert_eq!(parse(&binary(0x21, 0x11, &v4[..11])), Err(NoHeader));
        assert_eq!(parse(&binary(0x31, 0x11, &v4)), Err(NoHeader));
        assert_eq!(parse(&binary(0x21, 0x11, &[0; BODY_BYTES_MAX + 1])), Err(NoHeader));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..3) {
            let bytes = match kind {
                0 => bytes,
                1 => [&SIGNATURE[..], &bytes].concat(),
                _ => [&b"PROXY TCP4 "[..], &bytes].concat(),
            };
            if let Ok(Header::Complete { consumed, .. }) = parse(&bytes) {
                prop_assert!(consumed <= bytes.len());
            }
        }

        #[test]
        fn a_part_of_a_header_is_incomplete(cut in 0_usize..48) {
            let line = b"PROXY TCP4 198.51.100.1 192.0.2.1 50000 3478\r\n";
            prop_assert_eq!(parse(&line[..cut.min(line.len() - 1)]), Ok(Header::Incomplete));
            let binary = binary(0x21, 0x21, &[1; 36]);
            prop_assert_eq!(parse(&binary[..cut]), Ok(Header::Incomplete));
        }
    }
}
