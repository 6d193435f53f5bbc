//! The public side of relay addresses behind a one-to-one NAT: an address or host name for all of a family, or
//! `PUBLIC/PRIVATE` for one of them. Names are looked up at each load.

use std::net::{IpAddr, ToSocketAddrs};

use relay_core::{Family, RelayAddress};

#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    #[error("external_ip {name}: {source}")]
    Lookup { name: String, source: std::io::Error },
    #[error("external_ip {0}: the private address is none of the relay addresses")]
    Private(String),
    #[error("external_ip {0}: there is no relay address of its family")]
    Family(String),
}

/// Also tells whether any of it is a name.
pub(super) fn advertise(locals: &[IpAddr], external: &[String]) -> Result<(Vec<RelayAddress>, bool), ExternalError> {
    let mut relays =
        locals.iter().map(|ip| RelayAddress { local: *ip, advertised: *ip }).collect::<Vec<RelayAddress>>();
    let mut has_name = false;
    for text in external {
        let (public, private) = match text.split_once('/') {
            Some((public, private)) => {
                let ip = private.parse::<IpAddr>().ok().filter(|ip| locals.contains(ip));
                (public, Some(ip.ok_or_else(|| ExternalError::Private(text.clone()))?))
            }
            None => (text.as_str(), None),
        };
        let addresses = match public.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => {
                has_name = true;
                look_up(public)?
            }
        };
        let mut is_used = false;
        for relay in &mut relays {
            let same = |ip: &&IpAddr| Family::of(**ip) == Family::of(relay.local);
            if private.is_none_or(|private| private == relay.local)
                && let Some(ip) = addresses.iter().find(same)
            {
                relay.advertised = *ip;
                is_used = true;
            }
        }
        if !is_used {
            return Err(ExternalError::Family(text.clone()));
        }
    }
    Ok((relays, has_name))
}

fn look_up(name: &str) -> Result<Vec<IpAddr>, ExternalError> {
    let failed = |source| ExternalError::Lookup { name: name.to_owned(), source };
    Ok((name, 0).to_socket_addrs().map_err(failed)?.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advertised(locals: &[&str], external: &[&str]) -> Result<Vec<String>, ExternalError> {
        let locals = locals.iter().map(|ip| ip.parse().expect("an address")).collect::<Vec<_>>();
        let external = external.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        Ok(advertise(&locals, &external)?.0.iter().map(|relay| relay.advertised.to_string()).collect())
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
        let (relays, has_name) =
            advertise(&["10.0.0.1".parse().expect("ip")], &["localhost".to_owned()]).expect("found");
        assert!(has_name && relays[0].advertised.is_loopback());
    }
}
