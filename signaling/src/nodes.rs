//! The media nodes that are there, and which of them takes a room. [`Registry`] is the seam behind which a store shared
//! by several signalling processes can stand; [`Embedded`] is the one for a single process: nodes announce themselves
//! by heartbeats and are dialled back (see [`link`]).

pub mod link;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sfu_control::{Heartbeat, MediaAddress};

/// Heartbeats come every 2 s; three missed mean that the node is gone.
pub const HEARTBEAT_MISSED_MAX: Duration = Duration::from_millis(6500);
/// Bound of the registry: each entry costs a connection.
const NODES_MAX: usize = 256;

/// Chooses nodes for rooms.
pub trait Registry: Send + Sync + std::fmt::Debug {
    /// The node that takes this room; `None` when there is none. The same room may be asked for again after a
    /// [`release`](Self::release).
    fn place<'a>(&'a self, room: &'a str) -> Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>>;

    /// The room has no media on any node any more.
    fn release<'a>(&'a self, room: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// What is known of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeState {
    pub control: String,
    pub version: String,
    pub load: f32,
    pub peers: u32,
    pub draining: bool,
    /// Where its media is, as it said when it was linked last. Kept while the link is down: its calls go on.
    pub media: Vec<MediaAddress>,
    /// The control link is up and its snapshot has been taken.
    pub linked: bool,
    last_heartbeat: Instant,
    /// Rooms given to it since its last heartbeat: load that it does not report yet.
    placed_since: u32,
}

/// What a heartbeat asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Known,
    /// Dial this control URL.
    New,
    /// The control URL changed: the node was started anew elsewhere.
    Moved,
    /// The registry is full.
    Refused,
}

/// The registry of a single signalling process.
#[derive(Debug, Default)]
pub struct Embedded {
    nodes: Mutex<BTreeMap<String, NodeState>>,
}

impl Embedded {
    pub fn heartbeat(&self, heartbeat: &Heartbeat, now: Instant) -> Admission {
        let mut nodes = self.lock();
        let Some(node) = nodes.get_mut(&heartbeat.node) else {
            if nodes.len() >= NODES_MAX {
                return Admission::Refused;
            }
            let state = NodeState {
                control: heartbeat.control.clone(),
                version: heartbeat.version.clone(),
                load: heartbeat.load,
                peers: heartbeat.peers,
                draining: heartbeat.draining,
                media: Vec::new(),
                linked: false,
                last_heartbeat: now,
                placed_since: 0,
            };
            nodes.insert(heartbeat.node.clone(), state);
            return Admission::New;
        };
        let moved = node.control != heartbeat.control;
        node.control.clone_from(&heartbeat.control);
        node.version.clone_from(&heartbeat.version);
        node.load = heartbeat.load;
        node.peers = heartbeat.peers;
        node.draining = heartbeat.draining;
        node.last_heartbeat = now;
        node.placed_since = 0;
        if moved { Admission::Moved } else { Admission::Known }
    }

    pub fn set_media(&self, node: &str, media: &[MediaAddress]) {
        if let Some(node) = self.lock().get_mut(node) {
            node.media = media.to_vec();
        }
    }

    pub fn set_linked(&self, node: &str, linked: bool) {
        if let Some(node) = self.lock().get_mut(node) {
            node.linked = linked;
        }
    }

    pub fn set_draining(&self, node: &str, draining: bool) {
        if let Some(node) = self.lock().get_mut(node) {
            node.draining = draining;
        }
    }

    /// Nothing is known of it any more.
    pub fn remove(&self, node: &str) {
        self.lock().remove(node);
    }

    /// No heartbeat for too long.
    #[must_use]
    pub fn is_silent(&self, node: &str, now: Instant) -> bool {
        let nodes = self.lock();
        nodes.get(node).is_none_or(|node| now.saturating_duration_since(node.last_heartbeat) > HEARTBEAT_MISSED_MAX)
    }

    #[must_use]
    pub fn control_of(&self, node: &str) -> Option<String> {
        self.lock().get(node).map(|node| node.control.clone())
    }

    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, NodeState> {
        self.lock().clone()
    }

    fn choose(&self) -> Option<String> {
        let mut nodes = self.lock();
        // Least load; rooms placed since the last report count, so that a burst of rooms is spread.
        let candidates = nodes.iter_mut().filter(|(_, node)| node.linked && !node.draining);
        let (name, node) = candidates.min_by(|(_, a), (_, b)| {
            let weight = |node: &NodeState| f64::from(node.load) + 0.01 * f64::from(node.placed_since);
            weight(a).total_cmp(&weight(b)).then(a.peers.cmp(&b.peers))
        })?;
        node.placed_since += 1;
        Some(name.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, NodeState>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry for Embedded {
    fn place<'a>(&'a self, _room: &'a str) -> Pin<Box<dyn Future<Output = Option<String>> + Send + 'a>> {
        Box::pin(std::future::ready(self.choose()))
    }

    fn release<'a>(&'a self, _room: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(node: &str, load: f32) -> Heartbeat {
        Heartbeat {
            node: node.into(),
            version: "1".into(),
            control: format!("ws://127.0.0.1:1/{node}"),
            load,
            peers: 0,
            draining: false,
        }
    }

    fn chosen(registry: &Embedded) -> Option<String> {
        registry.choose()
    }

    #[test]
    fn only_linked_nodes_that_do_not_drain_are_chosen() {
        let (registry, now) = (Embedded::default(), Instant::now());
        assert_eq!(registry.heartbeat(&heartbeat("a", 0.1), now), Admission::New);
        assert_eq!(registry.heartbeat(&heartbeat("b", 0.5), now), Admission::New);
        assert_eq!(chosen(&registry), None);
        registry.set_linked("a", true);
        registry.set_linked("b", true);
        assert_eq!(chosen(&registry).as_deref(), Some("a"));
        registry.set_draining("a", true);
        assert_eq!(chosen(&registry).as_deref(), Some("b"));
    }

    #[test]
    fn burst_of_rooms_is_spread_before_the_next_report() {
        let (registry, now) = (Embedded::default(), Instant::now());
        for node in ["a", "b"] {
            registry.heartbeat(&heartbeat(node, 0.1), now);
            registry.set_linked(node, true);
        }
        let placed: Vec<_> = (0..10).filter_map(|_| chosen(&registry)).collect();
        assert_eq!(placed.iter().filter(|node| *node == "a").count(), 5);
    }

    #[test]
    fn silent_after_three_missed_heartbeats() {
        let (registry, now) = (Embedded::default(), Instant::now());
        registry.heartbeat(&heartbeat("a", 0.1), now);
        assert!(!registry.is_silent("a", now + Duration::from_secs(6)));
        assert!(registry.is_silent("a", now + Duration::from_secs(7)));
        assert!(registry.is_silent("unknown", now));
    }

    #[test]
    fn new_control_address_is_noticed_and_the_registry_is_bounded() {
        let (registry, now) = (Embedded::default(), Instant::now());
        registry.heartbeat(&heartbeat("a", 0.1), now);
        let moved = Heartbeat { control: "ws://127.0.0.1:2/".into(), ..heartbeat("a", 0.1) };
        assert_eq!(registry.heartbeat(&moved, now), Admission::Moved);
        assert_eq!(registry.heartbeat(&moved, now), Admission::Known);
        for index in 1..NODES_MAX {
            registry.heartbeat(&heartbeat(&format!("n{index}"), 0.1), now);
        }
        assert_eq!(registry.heartbeat(&heartbeat("late", 0.1), now), Admission::Refused);
    }
}
