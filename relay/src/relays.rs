//! The sockets of allocations, found by the allocation's name or by the token of a poll.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use relay_core::{AllocationId, Family};

#[derive(Debug, Default)]
pub(crate) struct Relays {
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    sockets: [Option<UdpSocket>; 2],
    /// The turn in which each had something to read last.
    ready_in: [u32; 2],
}

/// Bit 63 of a poll's token is left to the listeners.
///
/// ```text
/// | 0 | generation (32) | index (30) | family (1) |
/// ```
pub(crate) fn token_of(id: AllocationId, family: Family) -> u64 {
    u64::from(id.generation) << 31 | u64::from(id.index) << 1 | family as u64
}

fn from_token(token: u64) -> (AllocationId, Family) {
    let index = (token >> 1 & 0x3FFF_FFFF) as u32;
    let family = if token & 1 == 0 { Family::V4 } else { Family::V6 };
    (AllocationId { index, generation: (token >> 31) as u32 }, family)
}

/// All of the addresses, or none.
pub(crate) fn bind(addresses: impl Iterator<Item = (Family, SocketAddr)>) -> io::Result<Vec<(Family, UdpSocket)>> {
    addresses
        .map(|(family, address)| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok((family, socket))
        })
        .collect()
}

impl Relays {
    pub(crate) fn insert(&mut self, id: AllocationId, sockets: Vec<(Family, UdpSocket)>) {
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        slot.generation = id.generation;
        slot.sockets = [None, None];
        for (family, socket) in sockets {
            slot.sockets[family as usize] = Some(socket);
        }
    }

    pub(crate) fn get(&self, id: AllocationId, family: Family) -> Option<&UdpSocket> {
        let slot = self.slots.get(id.index as usize).filter(|slot| slot.generation == id.generation)?;
        slot.sockets[family as usize].as_ref()
    }

    pub(crate) fn get_by_token(&self, token: u64) -> Option<(AllocationId, &UdpSocket)> {
        let (id, family) = from_token(token);
        Some((id, self.get(id, family)?))
    }

    /// It has something to read in this turn. Answers whether it had in the one before, too.
    pub(crate) fn note_ready(&mut self, token: u64, turn: u32) -> bool {
        let (id, family) = from_token(token);
        self.slots.get_mut(id.index as usize).is_some_and(|slot| {
            let before = std::mem::replace(&mut slot.ready_in[family as usize], turn);
            before.wrapping_add(1) == turn
        })
    }

    pub(crate) fn close(&mut self, id: AllocationId, family: Family) {
        if let Some(slot) = self.slots.get_mut(id.index as usize).filter(|slot| slot.generation == id.generation) {
            slot.sockets[family as usize] = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_one_allocation_and_family() {
        for (index, generation) in [(0, 0), (7, 1), (0x3FFF_FFFF, u32::MAX)] {
            for family in Family::ALL {
                let id = AllocationId { index, generation };
                let token = token_of(id, family);
                assert_eq!(from_token(token), (id, family));
                assert_eq!(token >> 63, 0);
            }
        }
    }

    #[test]
    fn a_socket_is_not_found_under_the_name_of_a_later_allocation() {
        let mut relays = Relays::default();
        let id = AllocationId { index: 3, generation: 9 };
        let address = "127.0.0.1:0".parse().expect("an address");
        relays.insert(id, bind([(Family::V4, address)].into_iter()).expect("bound"));
        assert!(relays.get(id, Family::V4).is_some() && relays.get(id, Family::V6).is_none());
        let later = AllocationId { generation: 10, ..id };
        assert!(relays.get(later, Family::V4).is_none());
        relays.close(later, Family::V4);
        assert!(relays.get_by_token(token_of(id, Family::V4)).is_some());
        relays.close(id, Family::V4);
        assert!(relays.get_by_token(token_of(id, Family::V4)).is_none());
    }
}
