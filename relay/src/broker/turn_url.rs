//! TURN addresses as clients get them (RFC 7065), and a relay as an operator writes it down: its URLs and how its health
//! is checked, in one text.
//!
//! ```text
//! turn:turn.example.org turns:turn.example.org:5349 ready=http://10.0.0.5:7401/readyz
//!   scheme ":" host [":" port] ["?transport=udp" | "?transport=tcp"]     ?proto= is read as well
//!   "ready=" URL | "stun=" host ":" port | "check=none"
//! ```

use std::fmt::Write as _;

/// How a client reaches a relay; clients try them in this order, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnUrl {
    pub text: String,
    pub transport: Transport,
}

/// What tells that a relay can serve new clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// `GET` of this path answers 200; a relay that drains answers 503.
    Ready {
        authority: String,
        path: String,
    },
    /// A Binding request is answered.
    Stun {
        address: String,
    },
    None,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayEntry {
    pub urls: Vec<TurnUrl>,
    pub check: Check,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("relay {entry:?}: {message}")]
pub struct BadRelay {
    pub entry: String,
    pub message: &'static str,
}

/// RFC 8656 section 3.
const PORT: u16 = 3478;
const HOST_BYTES_MAX: usize = 253;

impl RelayEntry {
    pub fn parse(entry: &str) -> Result<Self, BadRelay> {
        let bad = |message| BadRelay { entry: entry.to_owned(), message };
        let mut urls = Vec::new();
        let mut check = None;
        let mut binding = None;
        for word in entry.split_whitespace() {
            if let Some(found) = parse_check(word) {
                if check.replace(found.map_err(bad)?).is_some() {
                    return Err(bad("has two checks"));
                }
                continue;
            }
            let url = Parsed::parse(word).map_err(bad)?;
            if !url.tls && url.transport != Some(Transport::Tcp) && binding.is_none() {
                binding = Some(url.authority(PORT));
            }
            url.offer(&mut urls);
        }
        if urls.is_empty() {
            return Err(bad("has no turn: or turns: URL"));
        }
        let check = check.unwrap_or_else(|| binding.map_or(Check::None, |address| Check::Stun { address }));
        Ok(Self { urls, check })
    }

    /// One URL that is handed out letter by letter, as another broker did.
    pub fn verbatim(url: &str) -> Result<Self, BadRelay> {
        let bad = |message| BadRelay { entry: url.to_owned(), message };
        let parsed = Parsed::parse(url).map_err(bad)?;
        let transport = if parsed.tls { Transport::Tls } else { parsed.transport.unwrap_or(Transport::Udp) };
        let check = match transport {
            Transport::Udp => Check::Stun { address: parsed.authority(PORT) },
            Transport::Tcp | Transport::Tls => Check::None,
        };
        Ok(Self { urls: vec![TurnUrl { text: url.to_owned(), transport }], check })
    }
}

fn parse_check(word: &str) -> Option<Result<Check, &'static str>> {
    if word == "check=none" {
        return Some(Ok(Check::None));
    }
    if let Some(address) = word.strip_prefix("stun=") {
        let complete = split_host(address).is_some_and(|(_, port)| port.is_some());
        return Some(if complete {
            Ok(Check::Stun { address: address.to_owned() })
        } else {
            Err("stun= needs HOST:PORT")
        });
    }
    let url = word.strip_prefix("ready=")?;
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    Some(match split_host(authority) {
        Some((_, Some(_))) if plain => {
            let path = if path.is_empty() { "/readyz" } else { path }.to_owned();
            Ok(Check::Ready { authority: authority.to_owned(), path })
        }
        _ => Err("ready= needs http://HOST:PORT/PATH"),
    })
}

struct Parsed<'a> {
    tls: bool,
    host: &'a str,
    port: Option<u16>,
    transport: Option<Transport>,
}

impl<'a> Parsed<'a> {
    fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (tls, rest) = match text.split_once(':') {
            Some(("turn", rest)) => (false, rest),
            Some(("turns", rest)) => (true, rest),
            _ => return Err("a URL must begin with turn: or turns:"),
        };
        let (address, query) = rest.split_once('?').map_or((rest, None), |(address, query)| (address, Some(query)));
        let transport = match query.map(|query| query.strip_prefix("proto=").or(query.strip_prefix("transport="))) {
            None => None,
            Some(Some("udp")) if tls => return Err("turns: over UDP (DTLS) is not offered"),
            Some(Some("udp")) => Some(Transport::Udp),
            Some(Some("tcp")) => Some(Transport::Tcp),
            Some(_) => return Err("after ? comes transport=udp or transport=tcp"),
        };
        let (host, port) = split_host(address).ok_or("a URL must have a host, and a port from 1 to 65535 if any")?;
        Ok(Self { tls, host, port, transport })
    }

    fn authority(&self, default_port: u16) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(default_port))
    }

    /// Without a transport, a relay is offered with both.
    fn offer(&self, urls: &mut Vec<TurnUrl>) {
        let transports: &[Transport] = match (self.tls, self.transport) {
            (true, _) => &[Transport::Tls],
            (false, Some(Transport::Udp)) => &[Transport::Udp],
            (false, Some(_)) => &[Transport::Tcp],
            (false, None) => &[Transport::Udp, Transport::Tcp],
        };
        for transport in transports {
            let mut text = format!("{}:{}", if self.tls { "turns" } else { "turn" }, self.host);
            if let Some(port) = self.port {
                let _ = write!(text, ":{port}");
            }
            text.push_str(if *transport == Transport::Udp { "?transport=udp" } else { "?transport=tcp" });
            urls.push(TurnUrl { text, transport: *transport });
        }
    }
}

/// A host name, IPv4 address or IPv6 address in brackets, and its port.
fn split_host(text: &str) -> Option<(&str, Option<u16>)> {
    let host_end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, rest) = text.split_at(host_end);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port != 0)?)
        }
        Some(_) => return None,
    };
    let good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(letters)
        }
    };
    good.then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(entry: &str) -> Vec<String> {
        RelayEntry::parse(entry).unwrap().urls.into_iter().map(|url| url.text).collect()
    }

    #[test]
    fn a_relay_is_offered_with_each_transport() {
        let entry = "turn:turn.example.org turns:turn.example.org:443 ready=http://10.0.0.5:7401/readyz";
        assert_eq!(
            texts(entry),
            [
                "turn:turn.example.org?transport=udp",
                "turn:turn.example.org?transport=tcp",
                "turns:turn.example.org:443?transport=tcp"
            ]
        );
        let check = Check::Ready { authority: "10.0.0.5:7401".into(), path: "/readyz".into() };
        assert_eq!(RelayEntry::parse(entry).unwrap().check, check);
        assert_eq!(texts("turn:[2001:db8::1]:3478?proto=tcp"), ["turn:[2001:db8::1]:3478?transport=tcp"]);
    }

    #[test]
    fn health_is_checked_where_clients_go_unless_told_otherwise() {
        let check = |entry| RelayEntry::parse(entry).unwrap().check;
        assert_eq!(check("turn:a"), Check::Stun { address: "a:3478".into() });
        assert_eq!(check("turn:a:99 check=none"), Check::None);
        assert_eq!(check("turn:a stun=[::1]:7"), Check::Stun { address: "[::1]:7".into() });
        assert_eq!(check("turns:a turn:a?transport=tcp"), Check::None);
    }

    #[test]
    fn what_no_client_could_use_is_refused() {
        for entry in [
            "",
            "turn.example.org",
            "stun:a",
            "turn:",
            "turn:a:0",
            "turn:a:65536",
            "turn:a:+1",
            "turn:a:",
            "turn:a b",
            "turn:user@a",
            "turn:a\"",
            "turn:a>,<b",
            "turn:[::1",
            "turn:[x]",
            "turn:[::1]3478",
            "turn:a?transport=sctp",
            "turns:a?transport=udp",
            "turn:a ready=https://b:1/",
            "turn:a ready=http://b/",
            "turn:a stun=b",
            "turn:a check=none check=none",
            "turn:é",
        ] {
            assert!(RelayEntry::parse(entry).is_err(), "{entry}");
        }
    }

    #[test]
    fn a_verbatim_url_is_not_touched() {
        let entry = RelayEntry::verbatim("turns:turn.domain.local:3478").unwrap();
        let transport = Transport::Tls;
        assert_eq!(entry.urls, [TurnUrl { text: "turns:turn.domain.local:3478".into(), transport }]);
        assert_eq!(entry.check, Check::None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_handed_out_reads_as_itself(text in "(turn|turns):[a-z0-9.:\\[\\]?=]{0,24}( \\PC{0,12})?") {
            let Ok(entry) = RelayEntry::parse(&text) else { return Ok(()) };
            for url in entry.urls {
                proptest::prop_assert!(url.text.bytes().all(|byte| byte.is_ascii_graphic()));
                let again = RelayEntry::parse(&url.text).unwrap();
                proptest::prop_assert_eq!(&again.urls[..], &[url][..]);
            }
        }
    }
}
