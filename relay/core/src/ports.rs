//! The ports of one relay address: which are in use, and a choice that cannot be foreseen. It binds nothing.

use std::ops::RangeInclusive;

/// What an allocation asks for (RFC 8656 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortWish {
    Any,
    /// EVEN-PORT without the R bit.
    Even,
    /// EVEN-PORT with it: the next port is taken as well.
    EvenAndNext,
}

#[derive(Debug)]
pub(crate) struct PortPool {
    first: u16,
    len: usize,
    /// One bit a port, set when in use.
    used: Box<[u64]>,
    used_count: usize,
}

impl PortPool {
    pub(crate) fn new(ports: &RangeInclusive<u16>) -> Self {
        let len = (usize::from(*ports.end()) + 1).saturating_sub(usize::from(*ports.start()));
        Self { first: *ports.start(), len, used: vec![0; len.div_ceil(64)].into(), used_count: 0 }
    }

    /// Takes the first free port at or after a place that the random number chooses, going round once.
    pub(crate) fn take(&mut self, wish: PortWish, random: u32) -> Option<u16> {
        if self.used_count == self.len {
            return None;
        }
        let start = random as usize % self.len;
        let at = self.find(start..self.len, wish).or_else(|| self.find(0..start, wish))?;
        self.mark(at);
        if wish == PortWish::EvenAndNext {
            self.mark(at + 1);
        }
        Some(self.port(at))
    }

    /// Gives a taken port back; a port that is not taken stays as it is.
    pub(crate) fn give(&mut self, port: u16) {
        let at = usize::from(port.wrapping_sub(self.first));
        if at < self.len && !self.is_free(at) {
            self.used[at / 64] &= !(1 << (at % 64));
            self.used_count -= 1;
        }
    }

    pub(crate) fn used_count(&self) -> usize {
        self.used_count
    }

    fn find(&self, places: std::ops::Range<usize>, wish: PortWish) -> Option<usize> {
        let mut at = places.start;
        while at < places.end {
            if self.used[at / 64] == u64::MAX {
                at = (at / 64 + 1) * 64;
                continue;
            }
            let fits = match wish {
                PortWish::Any => true,
                PortWish::Even => self.port(at).is_multiple_of(2),
                PortWish::EvenAndNext => self.port(at).is_multiple_of(2) && at + 1 < self.len && self.is_free(at + 1),
            };
            if fits && self.is_free(at) {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    fn is_free(&self, at: usize) -> bool {
        self.used[at / 64] & (1 << (at % 64)) == 0
    }

    fn mark(&mut self, at: usize) {
        self.used[at / 64] |= 1 << (at % 64);
        self.used_count += 1;
    }

    /// `at` is below the length, so the sum is a port.
    fn port(&self, at: usize) -> u16 {
        self.first + at as u16
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a set of ports: never a port twice, never outside the range, none lost, full only when it is.
        #[test]
        fn behaves_as_a_set_of_ports(
            first in 1_u16..2_000,
            len in 1_u16..200,
            steps in prop::collection::vec((0_u8..4, any::<u32>()), 1..400),
        ) {
            let range = first..=first + len - 1;
            let mut pool = PortPool::new(&range);
            let mut model = BTreeSet::new();
            for (kind, random) in steps {
                let wish = match kind {
                    0 => PortWish::Any,
                    1 => PortWish::Even,
                    2 => PortWish::EvenAndNext,
                    _ => {
                        if let Some(port) = model.iter().nth(random as usize % model.len().max(1)).copied() {
                            pool.give(port);
                            model.remove(&port);
                        }
                        continue;
                    }
                };
                let is_possible = range.clone().any(|port| fits(&model, &range, port, wish));
                match pool.take(wish, random) {
                    Some(port) => {
                        prop_assert!(fits(&model, &range, port, wish));
                        model.insert(port);
                        if wish == PortWish::EvenAndNext {
                            model.insert(port + 1);
                        }
                    }
                    None => prop_assert!(!is_possible),
                }
                prop_assert_eq!(pool.used_count(), model.len());
            }
        }
    }

    fn fits(model: &BTreeSet<u16>, range: &RangeInclusive<u16>, port: u16, wish: PortWish) -> bool {
        let free = |port: u16| range.contains(&port) && !model.contains(&port);
        match wish {
            PortWish::Any => free(port),
            PortWish::Even => free(port) && port.is_multiple_of(2),
            PortWish::EvenAndNext => free(port) && port.is_multiple_of(2) && free(port + 1),
        }
    }

    #[test]
    fn the_last_port_of_all_can_be_taken() {
        let mut pool = PortPool::new(&(65_535..=65_535));
        assert_eq!(pool.take(PortWish::Any, 9), Some(65_535));
        assert_eq!(pool.take(PortWish::Any, 9), None);
    }
}
