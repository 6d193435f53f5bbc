//! How many connections there may be, in all and from one address. One thread holds it, so there is no lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

#[derive(Clone, Debug)]
pub(super) struct Places(Rc<RefCell<Taken>>);

#[derive(Debug)]
struct Taken {
    total_max: usize,
    source_max: usize,
    total: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// One of the allowed connections, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    source: IpAddr,
}

impl Places {
    pub(super) fn new(total_max: usize, source_max: usize) -> Self {
        Self(Rc::new(RefCell::new(Taken { total_max, source_max, total: 0, by_source: HashMap::new() })))
    }

    /// `None` when there are too many. A balancer's connections are those of many clients: it has no limit by source
    /// until it has named the client.
    pub(super) fn take(&self, source: IpAddr, is_balancer: bool) -> Option<Place> {
        let source = network_of(source);
        let mut taken = self.0.borrow_mut();
        if taken.total >= taken.total_max {
            return None;
        }
        let source_max = if is_balancer { usize::MAX } else { taken.source_max };
        let here = taken.by_source.entry(source).or_default();
        if *here >= source_max {
            return None;
        }
        *here += 1;
        taken.total += 1;
        Some(Place { places: self.clone(), source })
    }
}

impl Place {
    /// The same connection, now known to be somebody else's.
    pub(super) fn change_source(self, source: IpAddr) -> Option<Self> {
        let places = self.places.clone();
        drop(self);
        places.take(source, false)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.borrow_mut();
        taken.total -= 1;
        if let Some(here) = taken.by_source.get_mut(&self.source) {
            *here -= 1;
            if *here == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

/// One customer has a whole /64 in IPv6.
fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn places_are_bounded_by_source_and_in_all() {
        let places = Places::new(3, 2);
        let first = places.take(ip("192.0.2.1"), false).expect("room");
        let _second = places.take(ip("::ffff:192.0.2.1"), false).expect("room");
        assert!(places.take(ip("192.0.2.1"), false).is_none());
        let _third = places.take(ip("2001:db8::1"), false).expect("room");
        assert!(places.take(ip("192.0.2.9"), false).is_none(), "three in all");
        drop(first);
        assert!(places.take(ip("192.0.2.1"), false).is_some());
    }

    #[test]
    fn a_balancer_has_the_limits_of_its_clients() {
        let places = Places::new(10, 1);
        let of = |client: &str| places.take(ip("192.0.2.1"), true).expect("room").change_source(ip(client));
        let _first = of("198.51.100.1").expect("room");
        assert!(of("198.51.100.1").is_none());
        let _second = of("198.51.100.2").expect("room");
        assert_eq!(places.0.borrow().total, 2);
        drop((_first, _second));
        assert!(places.0.borrow().by_source.is_empty(), "nothing is kept of closed connections");
    }
}
