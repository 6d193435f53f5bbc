//! Who makes which connection, in which order.

use crate::scenario::Scenario;
use crate::targets::Link;

/// One connection of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) link: Link,
    /// A complete peer of a foreign stack makes it.
    pub(super) is_realistic: bool,
}

/// Publishers first, rooms in turn, so that hearers find somebody talking and rooms grow evenly.
pub(super) fn plan(scenario: &Scenario, splits_directions: bool, speaks_sdp: bool) -> Vec<Planned> {
    let rooms = &scenario.rooms;
    let slots = rooms.slots_wanted();
    let plain = |link| Planned { link, is_realistic: false };
    let mut links = Vec::new();
    let each = |people: std::ops::Range<u32>| {
        people.flat_map(move |person| (0..rooms.count).map(move |room| (room, person)))
    };
    let hears_too = rooms.publishers_listen && !splits_directions;
    for (room, person) in each(0..rooms.publishers) {
        let slots = if hears_too { slots } else { 0 };
        links.push(plain(Link { room, person, publishes: true, slots }));
    }
    if rooms.publishers_listen && splits_directions {
        links.extend(
            each(0..rooms.publishers).map(|(room, person)| plain(Link { room, person, publishes: false, slots })),
        );
    }
    let share = if speaks_sdp { scenario.engine.realistic_share } else { 0.0 };
    let listeners = u64::from(rooms.count) * u64::from(rooms.listeners);
    let wanted = (listeners as f64 * share).ceil() as u64;
    for (n, (room, person)) in each(rooms.publishers..rooms.people_per_room()).enumerate() {
        // Evenly among the others, the first one included.
        let is_realistic = (n as u64 * wanted) % listeners < wanted;
        links.push(Planned { link: Link { room, person, publishes: false, slots }, is_realistic });
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{EngineSpec, Rooms};

    fn scenario(realistic_share: f64, publishers_listen: bool) -> Scenario {
        Scenario {
            rooms: Rooms { count: 3, publishers: 2, listeners: 50, publishers_listen, slots: None },
            engine: EngineSpec { realistic_share, ..EngineSpec::default() },
            ..Scenario::default()
        }
    }

    #[test]
    fn publishers_come_first_and_rooms_in_turn() {
        let plan = plan(&scenario(0.0, false), false, true);
        assert_eq!(plan.len(), 3 * 52);
        assert!(plan[..6].iter().all(|planned| planned.link.publishes && planned.link.slots == 0));
        assert!(plan[6..].iter().all(|planned| !planned.link.publishes && planned.link.slots == 2));
        assert_eq!(plan[..3].iter().map(|planned| planned.link.room).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn who_sends_and_hears_has_one_connection_or_two() {
        let together = plan(&scenario(0.0, true), false, true);
        assert_eq!(together.len(), 3 * 52);
        assert!(together[..6].iter().all(|planned| planned.link.publishes && planned.link.slots == 2));
        let split = plan(&scenario(0.0, true), true, true);
        assert_eq!(split.len(), 3 * 54);
        assert!(split.iter().all(|planned| planned.link.publishes != (planned.link.slots > 0)));
    }

    #[test]
    fn the_realistic_share_is_of_the_listeners_and_at_least_one() {
        let count = |share| plan(&scenario(share, false), false, true).iter().filter(|p| p.is_realistic).count();
        assert_eq!((count(0.0), count(0.001), count(0.02), count(0.5), count(1.0)), (0, 1, 3, 75, 150));
        assert!(plan(&scenario(0.5, false), false, false).iter().all(|planned| !planned.is_realistic));
    }
}
