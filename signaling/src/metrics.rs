//! The series of this process. Every name is registered here and nowhere else; labels never hold rooms or people.
//!
//! | series | kind | meaning |
//! | --- | --- | --- |
//! | `signaling_sockets` | gauge | open WebSockets |
//! | `signaling_rooms` | gauge | rooms with members |
//! | `signaling_members` | gauge | members of all rooms, those without a socket too |
//! | `signaling_members_away` | gauge | members whose resume grace runs |
//! | `signaling_nodes_linked` | gauge | media nodes with a control link |
//! | `signaling_requests_total{type}` | counter | requests of clients by type |
//! | `signaling_errors_total{code}` | counter | errors sent to clients by code |
//! | `signaling_resumes_total` | counter | participations resumed with their media |
//! | `signaling_evictions_total` | counter | participations ended by a moderator |
//! | `signaling_node_lost_peers_total` | counter | peers told to offer again because their node was lost |
//! | `signaling_slow_closes_total` | counter | sockets cut off because the client did not read |
//! | `signaling_refused_connections_total{reason}` | counter | connections refused before a WebSocket was open |
//! | `signaling_broker_requests_total{result}` | counter | requests for ICE servers: `ok`, or why there were none |
//! | `signaling_welcomes_without_relay_total` | counter | welcomes without ICE servers because the broker gave none in time |
//! | `signaling_certificate_reloads_total{result}` | counter | changed certificates, taken or kept out |

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabel {
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Default)]
pub struct Metrics {
    pub sockets: Gauge,
    pub rooms: Gauge,
    pub members: Gauge,
    pub members_away: Gauge,
    pub nodes_linked: Gauge,
    pub resumes: Counter,
    pub evictions: Counter,
    pub node_lost_peers: Counter,
    pub slow_closes: Counter,
    pub welcomes_without_relay: Counter,
    broker_requests: Family<ResultLabel, Counter>,
    requests: Family<TypeLabel, Counter>,
    errors: Family<CodeLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    reloads: Family<ResultLabel, Counter>,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("signaling");
        registry.register("sockets", "Open WebSockets", self.sockets.clone());
        registry.register("rooms", "Rooms with members", self.rooms.clone());
        registry.register("members", "Members of all rooms", self.members.clone());
        registry.register("members_away", "Members whose resume grace runs", self.members_away.clone());
        registry.register("nodes_linked", "Media nodes with a control link", self.nodes_linked.clone());
        registry.register("requests", "Requests of clients by type", self.requests.clone());
        registry.register("errors", "Errors sent to clients by code", self.errors.clone());
        registry.register("resumes", "Participations resumed with their media", self.resumes.clone());
        registry.register("evictions", "Participations ended by a moderator", self.evictions.clone());
        registry.register("node_lost_peers", "Peers of lost nodes", self.node_lost_peers.clone());
        registry.register("slow_closes", "Sockets cut off because the client did not read", self.slow_closes.clone());
        registry.register("refused_connections", "Connections refused before a WebSocket", self.refused.clone());
        registry.register("broker_requests", "Requests for ICE servers by result", self.broker_requests.clone());
        let help = "Welcomes without ICE servers because the broker gave none in time";
        registry.register("welcomes_without_relay", help, self.welcomes_without_relay.clone());
        registry.register("certificate_reloads", "Changed certificates, taken or kept out", self.reloads.clone());
    }

    pub fn request(&self, kind: &'static str) {
        self.requests.get_or_create(&TypeLabel { r#type: kind }).inc();
    }

    /// `code` is one of [`Code`](crate::codes::Code), so the series are bounded.
    pub fn error(&self, code: &str) {
        self.errors.get_or_create(&CodeLabel { code: code.to_owned() }).inc();
    }

    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub fn broker_request(&self, result: &'static str) {
        self.broker_requests.get_or_create(&ResultLabel { result }).inc();
    }

    pub fn certificate_reload(&self, result: &'static str) {
        self.reloads.get_or_create(&ResultLabel { result }).inc();
    }
}
