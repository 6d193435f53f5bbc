//! Which addresses clients are told to send media to. A node cannot know by itself what it looks like from outside, so
//! the setting wins; without it, the addresses of this machine's interfaces are taken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Each address is one more candidate in every answer and one more path that every client checks.
const ADVERTISE_MAX: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum AdvertiseError {
    #[error(
        "advertise has the loopback address {0}, which only this machine can reach: use an address that clients \
             can reach, or --allow-loopback for a try on one machine"
    )]
    Loopback(IpAddr),
    #[error("advertise has {0}, which is not the address of one machine")]
    NotUnicast(IpAddr),
    #[error("advertise has more than {ADVERTISE_MAX} addresses")]
    TooMany,
    #[error("advertise has {address}, but media is received on {listen} only")]
    NotListening { address: IpAddr, listen: IpAddr },
    #[error(
        "this machine has no address that clients could reach: set --advertise, or --allow-loopback for a try on \
             one machine"
    )]
    NoneFound,
    #[error("interfaces of this machine cannot be listed: {0}")]
    Interfaces(#[source] std::io::Error),
}

/// `listen`: where media is received, `::` meaning both families.
pub(crate) fn choose(
    configured: Vec<IpAddr>,
    allow_loopback: bool,
    listen: IpAddr,
) -> Result<Vec<IpAddr>, AdvertiseError> {
    if !configured.is_empty() {
        return check(configured, allow_loopback, listen);
    }
    let found = match (listen.is_unspecified(), allow_loopback) {
        (false, _) => return check(vec![listen], allow_loopback, listen),
        (true, true) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        (true, false) => first_of_each_family(&interfaces()?),
    };
    let reachable: Vec<_> = found.into_iter().filter(|address| receives(listen, *address)).collect();
    if reachable.is_empty() { Err(AdvertiseError::NoneFound) } else { Ok(reachable) }
}

fn check(mut configured: Vec<IpAddr>, allow_loopback: bool, listen: IpAddr) -> Result<Vec<IpAddr>, AdvertiseError> {
    let mut seen = std::collections::HashSet::new();
    configured.retain(|address| seen.insert(*address));
    if configured.len() > ADVERTISE_MAX {
        return Err(AdvertiseError::TooMany);
    }
    for address in &configured {
        if address.is_unspecified() || address.is_multicast() || *address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(AdvertiseError::NotUnicast(*address));
        }
        if address.is_loopback() && !allow_loopback {
            return Err(AdvertiseError::Loopback(*address));
        }
        // An address of another machine (a NAT in front) is fine; one of a family that is not received is not.
        if !receives_family(listen, *address) {
            return Err(AdvertiseError::NotListening { address: *address, listen });
        }
    }
    Ok(configured)
}

/// Whether a socket bound to `listen` gets what is sent to `address`.
pub(crate) fn receives(listen: IpAddr, address: IpAddr) -> bool {
    if listen.is_unspecified() { receives_family(listen, address) } else { listen == address }
}

fn receives_family(listen: IpAddr, address: IpAddr) -> bool {
    match listen {
        IpAddr::V4(_) => address.is_ipv4(),
        IpAddr::V6(v6) => v6.is_unspecified() || address.is_ipv6(),
    }
}

fn interfaces() -> Result<Vec<IpAddr>, AdvertiseError> {
    let all = if_addrs::get_if_addrs().map_err(AdvertiseError::Interfaces)?;
    Ok(all.into_iter().filter(if_addrs::Interface::is_oper_up).map(|interface| interface.ip()).collect())
}

/// IPv4 first: where both work it makes no difference, and where one is broken it is more often IPv6.
fn first_of_each_family(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let reachable = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    };
    let v4 = addresses.iter().filter(reachable).find(|address| address.is_ipv4());
    let v6 = addresses.iter().filter(reachable).find(|address| address.is_ipv6());
    v4.into_iter().chain(v6).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips<const N: usize>(texts: [&str; N]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn loopback_needs_its_switch() {
        let refused = choose(ips(["127.0.0.1"]), false, ANY).unwrap_err().to_string();
        assert!(refused.contains("127.0.0.1") && refused.contains("--allow-loopback"), "{refused}");
        assert!(matches!(choose(ips(["::1"]), false, ANY), Err(AdvertiseError::Loopback(_))));
        assert!(matches!(choose(vec![], false, ips(["127.0.0.1"])[0]), Err(AdvertiseError::Loopback(_))));
        assert_eq!(choose(ips(["::1"]), true, ANY).unwrap(), ips(["::1"]));
    }

    #[test]
    fn the_switch_alone_gives_loopback_of_the_families_received() {
        assert_eq!(choose(vec![], true, ANY).unwrap(), ips(["127.0.0.1", "::1"]));
        assert_eq!(choose(vec![], true, ANY_V4).unwrap(), ips(["127.0.0.1"]));
        assert_eq!(choose(vec![], true, ips(["127.0.0.1"])[0]).unwrap(), ips(["127.0.0.1"]));
    }

    #[test]
    fn configured_addresses_keep_their_order_and_lose_repeats() {
        let configured = ips(["2001:db8::1", "192.0.2.1", "2001:db8::1"]);
        assert_eq!(choose(configured, false, ANY).unwrap(), ips(["2001:db8::1", "192.0.2.1"]));
    }

    #[test]
    fn what_no_client_could_use_is_refused() {
        for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            assert!(matches!(choose(ips([address]), true, ANY), Err(AdvertiseError::NotUnicast(_))), "{address}");
        }
        let other_family = choose(ips(["2001:db8::1"]), false, ANY_V4);
        assert!(matches!(other_family, Err(AdvertiseError::NotListening { .. })));
        let many = (1..=9).map(|n| IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))).collect();
        assert!(matches!(choose(many, false, ANY), Err(AdvertiseError::TooMany)));
    }

    #[test]
    fn an_address_behind_a_nat_may_be_advertised_for_one_that_is_bound() {
        let listen = ips(["10.0.0.5"])[0];
        assert_eq!(choose(ips(["198.51.100.7"]), false, listen).unwrap(), ips(["198.51.100.7"]));
    }

    #[test]
    fn the_first_address_of_each_family_is_found_among_the_interfaces() {
        let interfaces = ips(["127.0.0.1", "::1", "fe80::1", "169.254.3.4", "2001:db8::7", "192.0.2.9", "10.0.0.1"]);
        assert_eq!(first_of_each_family(&interfaces), ips(["192.0.2.9", "2001:db8::7"]));
        assert!(first_of_each_family(&ips(["127.0.0.1", "fe80::1"])).is_empty());
    }
}
