//! The public side of relay addresses behind a one-to-one NAT: an address or host name for all of a family, or
//! `PUBLIC/PRIVATE` for one of them, or `stun:HOST[:PORT]`, a STUN server that is asked from each relay address. Names
//! are looked up and servers asked at each load; what fails later than at the start leaves what was found before.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use rand::TryRngCore;
use stun::{Class, Message, Method, TransactionId, Writer};

use relay_core::{Family, RelayAddress};

/// A STUN answer takes a round trip; three are waited for at most.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(500);
const ATTEMPTS: usize = 3;
const STUN_PORT: u16 = 3_478;

/// What was found last: by the text of the setting, then by relay address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found(HashMap<(String, IpAddr), IpAddr>);

#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    #[error("external_ip {name}: {source}")]
    Lookup { name: String, source: io::Error },
    #[error("external_ip {0}: no STUN server answers there: name another one, or the address itself")]
    Silent(String),
    #[error("external_ip {0}: the private address is none of the relay addresses: name it in relay_ip too")]
    Private(String),
    #[error("external_ip {0}: there is no relay address of its family")]
    Family(String),
}

/// The addresses, and what was found for names and by servers: nothing, when there are none of them.
pub(super) fn advertise(
    locals: &[IpAddr],
    external: &[String],
    before: &Found,
) -> Result<(Vec<RelayAddress>, Found), ExternalError> {
    let mut relays =
        locals.iter().map(|ip| RelayAddress { local: *ip, advertised: *ip }).collect::<Vec<RelayAddress>>();
    let mut found = Found::default();
    for text in external {
        let (public, private) = match text.split_once('/') {
            Some((public, private)) => {
                let ip = private.parse::<IpAddr>().ok().filter(|ip| locals.contains(ip));
                (public, Some(ip.ok_or_else(|| ExternalError::Private(text.clone()))?))
            }
            None => (text.as_str(), None),
        };
        let public = Public::parse(public);
        let mut is_used = false;
        for relay in relays.iter_mut().filter(|relay| private.is_none_or(|private| private == relay.local)) {
            let key = (text.clone(), relay.local);
            let ip = match public.seen_from(relay.local) {
                Ok(ip) => ip,
                Err(error) => match before.0.get(&key) {
                    Some(ip) => {
                        tracing::warn!(%error, "Kept the public address that was found before");
                        Some(*ip)
                    }
                    None => return Err(error),
                },
            };
            let Some(ip) = ip else { continue };
            relay.advertised = ip;
            is_used = true;
            if !matches!(public, Public::Address(_)) {
                found.0.insert(key, ip);
            }
        }
        if !is_used {
            return Err(ExternalError::Family(text.clone()));
        }
    }
    Ok((relays, found))
}

impl Found {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

enum Public<'t> {
    Address(IpAddr),
    Name(&'t str),
    Stun(&'t str),
}

impl<'t> Public<'t> {
    fn parse(text: &'t str) -> Self {
        match (text.parse(), text.strip_prefix("stun:")) {
            (Ok(ip), _) => Self::Address(ip),
            (Err(_), Some(server)) => Self::Stun(server),
            (Err(_), None) => Self::Name(text),
        }
    }

    /// `None`: nothing of the family of that relay address.
    fn seen_from(&self, local: IpAddr) -> Result<Option<IpAddr>, ExternalError> {
        let same = |ip: &IpAddr| Family::of(*ip) == Family::of(local);
        match self {
            Self::Address(ip) => Ok(Some(*ip).filter(same)),
            Self::Name(name) => Ok(look_up(name, 0)?.map(|address| address.ip()).find(same)),
            Self::Stun(server) => {
                let (host, port) = match server.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
                    Some((host, Ok(port))) => (host.trim_matches(['[', ']']), port),
                    Some((_, Err(_))) | None => (*server, STUN_PORT),
                };
                let Some(address) = look_up(host, port)?.find(|address| same(&address.ip())) else { return Ok(None) };
                let mapped =
                    ask(local, address).map_err(|source| ExternalError::Lookup { name: host.to_owned(), source })?;
                mapped.map(Some).ok_or_else(|| ExternalError::Silent(format!("stun:{server}")))
            }
        }
    }
}

fn look_up(name: &str, port: u16) -> Result<impl Iterator<Item = SocketAddr> + use<>, ExternalError> {
    (name, port).to_socket_addrs().map_err(|source| ExternalError::Lookup { name: name.to_owned(), source })
}

/// How a STUN server sees this address (RFC 8489 section 14.2); nothing when it does not say.
fn ask(local: IpAddr, server: SocketAddr) -> io::Result<Option<IpAddr>> {
    let socket = UdpSocket::bind((local, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    let mut id = [0; 12];
    rand::rngs::OsRng.try_fill_bytes(&mut id).map_err(io::Error::other)?;
    let mut request = [0; stun::HEADER_BYTES];
    let writer = Writer::new(&mut request, Class::Request, Method::BINDING, TransactionId(id));
    writer.and_then(|writer| writer.finish(None, false)).map_err(io::Error::other)?;
    let mut buf = [0; 1_024];
    for _ in 0..ATTEMPTS {
        socket.send(&request)?;
        // Unreachable or silent: asked again.
        let Ok(len) = socket.recv(&mut buf) else { continue };
        let Ok(message) = Message::parse(&buf[..len]) else { continue };
        if message.class() == Class::Success && message.transaction_id() == TransactionId(id) {
            return Ok(message.xor_mapped_address().map(|address| address.ip()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertised(locals: &[&str], external: &[&str]) -> Result<Vec<String>, ExternalError> {
        let locals = locals.iter().map(|ip| ip.parse().expect("an address")).collect::<Vec<_>>();
        let external = external.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Ok(advertise(&locals, &external, &Found::default())?
            .0
            .iter()
            .map(|relay| relay.advertised.to_string())
            .collect())
    }

    #[test]
    fn public_addresses_are_told_apart_by_family_and_by_private_address() {
        let locals = ["10.0.0.1", "10.0.0.2", "fd00::1"];
        assert_eq!(advertised(&locals, &[]).expect("none"), locals);
        let all = advertised(&locals, &["198.51.100.7"]).expect("all of a family");
        assert_eq!(all, ["198.51.100.7", "198.51.100.7", "fd00::1"]);
        let one = advertised(&locals, &["198.51.100.7/10.0.0.2", "2001:db8::7"]).expect("one of them");
        assert_eq!(one, ["10.0.0.1", "198.51.100.7", "2001:db8::7"]);
    }

    #[test]
    fn what_fits_nowhere_is_refused() {
        assert!(matches!(advertised(&["10.0.0.1"], &["198.51.100.7/10.0.0.9"]), Err(ExternalError::Private(_))));
        assert!(matches!(advertised(&["10.0.0.1"], &["2001:db8::7"]), Err(ExternalError::Family(_))));
    }

    #[test]
    fn a_name_is_looked_up() {
        let locals = ["10.0.0.1".parse().expect("ip")];
        let (relays, found) = advertise(&locals, &["localhost".to_owned()], &Found::default()).expect("found");
        assert!(!found.is_empty() && relays[0].advertised.is_loopback());
    }

    /// Answers one Binding request with an address of its own choice.
    fn stun_server(mapped: &'static str) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let address = socket.local_addr().expect("bound");
        std::thread::spawn(move || {
            let mut buf = [0; 64];
            let (len, from) = socket.recv_from(&mut buf).expect("a request");
            let id = Message::parse(&buf[..len]).expect("a message").transaction_id();
            let mut out = [0; 64];
            let mut writer = Writer::new(&mut out, Class::Success, Method::BINDING, id).expect("room");
            writer.xor_mapped_address(mapped.parse().expect("an address")).expect("room");
            let len = writer.finish(None, false).expect("room");
            socket.send_to(&out[..len], from).expect("sent");
        });
        address
    }

    #[test]
    fn a_stun_server_tells_the_public_address_and_may_be_silent_later() {
        let locals = [IpAddr::from([127, 0, 0, 1])];
        let external = [format!("stun:{}", stun_server("198.51.100.7:5"))];
        let (relays, found) = advertise(&locals, &external, &Found::default()).expect("discovered");
        assert_eq!(relays[0].advertised.to_string(), "198.51.100.7");
        // The server answered once and is gone.
        let (again, _) = advertise(&locals, &external, &found).expect("kept");
        assert_eq!(again[0].advertised.to_string(), "198.51.100.7");
        assert!(advertise(&locals, &external, &Found::default()).is_err(), "at the start it must be there");
    }
}
