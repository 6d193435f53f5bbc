//! What a run gives: the contract between the engine, the live view, the reports and the thresholds. [`Snapshot`] is the
//! state of a running one, several times a second; [`Results`] is what is left at the end, and what `--out-json` writes and
//! `compare` reads. Nothing here measures or prints.
//!
//! Times are milliseconds, shares are 0 to 1, rates are per second.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::scenario::Scenario;

/// Version of the JSON; raised when a field changes its meaning.
pub const RESULTS_VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub version: u32,
    pub scenario: Scenario,
    pub machine: Machine,
    /// Seconds since 1970.
    pub started_unix_s: u64,
    /// Ended by a signal before its time.
    pub interrupted: bool,
    /// Length of the measured window.
    pub measured_s: f64,
    pub joins: Joins,
    /// In the measured window.
    pub media: Media,
    /// The realistic peers alone; they are also part of `media`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realistic: Option<Realistic>,
    /// `None`: the server runs elsewhere, or its process was not named.
    pub server: Option<ProcessUse>,
    /// The load generator itself.
    pub client: ProcessUse,
    /// How long it took until a listener heard a new speaker, with the pattern `churn`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onset_ms: Option<Distribution>,
    /// What a climb found, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The same datagrams to the same sockets by a sender that does nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// One sample a second over the whole run, ramp included.
    pub series: Vec<Sample>,
    pub verdict: Vec<Judged>,
    /// What a reader must know about these figures.
    pub notes: Vec<String>,
}

impl Results {
    /// Whether every threshold holds.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.verdict.iter().all(|judged| judged.ok)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: u32,
    pub kernel: String,
}

/// A running run, as the live view shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub phase: Phase,
    /// Since the start.
    pub at_s: f64,
    /// Of this phase; 0 when it has no fixed length.
    pub phase_left_s: f64,
    /// Rooms with at least one connected person.
    pub rooms: u32,
    pub people_wanted: u32,
    pub joins: Joins,
    /// Since the start.
    pub media: Media,
    /// The last second.
    pub last: Sample,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Ramp,
    Warmup,
    Measure,
    Drain,
    Done,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Joins {
    pub started: u64,
    /// Media can flow: ICE and DTLS are done.
    pub connected: u64,
    pub failed: u64,
    /// Connections that ended by themselves after they stood.
    pub lost: u64,
    /// By the reason's stable name.
    pub failures: BTreeMap<String, u64>,
    /// From the first to the last.
    pub connected_per_s: f64,
    /// From the first byte of signalling until ICE and DTLS are done.
    pub total_ms: Distribution,
    /// Until both sides have exchanged their parameters.
    pub signalling_ms: Distribution,
    /// From then until the first check is answered.
    pub ice_ms: Distribution,
    /// From then until the keys are there.
    pub dtls_ms: Distribution,
    /// From then until the first packet of somebody else.
    pub first_packet_ms: Distribution,
    /// CPU time of the server over the whole ramp, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_cpu_s: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Media {
    /// RTP packets of publishers.
    pub sent: u64,
    /// That were kept back on purpose.
    pub sent_lost_on_purpose: u64,
    /// That the operating system refused.
    pub send_failed: u64,
    /// What listeners should have got from what was sent, when everything is forwarded to everybody.
    pub expected: u64,
    /// RTP packets that listeners received.
    pub received: u64,
    pub received_bytes: u64,
    pub received_lost_on_purpose: u64,
    /// Missing in the sequences of the streams received.
    pub lost: u64,
    pub reordered: u64,
    pub duplicated: u64,
    /// Opened, their payload looked at.
    pub opened: u64,
    /// Did not open, or carried no stamp of ours.
    pub unreadable: u64,
    /// RTCP, STUN and DTLS datagrams.
    pub other: u64,
    pub received_per_s: f64,
    pub loss_share: f64,
    /// `received` of `expected`.
    pub delivered_share: f64,
    /// Received packets for each second of the server's CPU time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_server_cpu_s: Option<f64>,
    /// From the send call of the publisher until the packet is read by the listener.
    pub delay_ms: Distribution,
    /// How late the generator's own packets left. When this is large, the delays above are partly its own.
    pub send_late_ms: Distribution,
    /// How long a batch of received packets took in the generator before the next one was read.
    pub receive_turn_ms: Distribution,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Realistic {
    pub peers: u32,
    pub connected: u32,
    pub received: u64,
    pub lost: u64,
    pub delay_ms: Distribution,
}

/// CPU time and memory over the measured window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessUse {
    pub pids: Vec<u32>,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    /// 1 is one core.
    pub cores_used: f64,
    pub rss_start_mib: f64,
    pub rss_end_mib: f64,
    pub rss_max_mib: f64,
    pub threads: u32,
}

impl ProcessUse {
    #[must_use]
    pub fn cpu_s(&self) -> f64 {
        self.cpu_user_s + self.cpu_system_s
    }
}

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Since the start.
    pub at_s: f64,
    pub phase: Phase,
    pub connected: u64,
    pub sent_per_s: f64,
    pub received_per_s: f64,
    pub loss_share: f64,
    pub delay_p50_ms: f64,
    pub delay_p99_ms: f64,
    pub server_cores: Option<f64>,
    pub server_rss_mib: Option<f64>,
    pub client_cores: f64,
}

/// Percentiles of something, from an HDR histogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    pub count: u64,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    /// (value, share of all that are not above it), rising: enough points to draw the curve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(f64, f64)>,
}

/// One step of a climb: so many hearers, and how it went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub listeners: u64,
    /// Joins that failed so far.
    pub failed: u64,
    pub received_per_s: f64,
    pub loss_share: f64,
    pub delivered_share: f64,
    pub delay_p50_ms: f64,
    pub delay_p99_ms: f64,
    /// Of the generator itself.
    pub send_late_p99_ms: f64,
    pub server_cores: Option<f64>,
    pub server_rss_mib: Option<f64>,
    pub client_cores: f64,
    /// Within the limits of the climb.
    pub holds: bool,
}

/// What a bare sender reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Floor {
    pub sent: u64,
    /// Counted by the listeners.
    pub received: u64,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    /// Received packets for each second of its CPU time.
    pub per_cpu_s: f64,
    /// The server's packets for each second of its CPU time, by this.
    pub ratio: Option<f64>,
}

/// One threshold of the scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The key in the scenario.
    pub threshold: String,
    pub limit: f64,
    /// `None`: it could not be measured, which breaks the threshold.
    pub value: Option<f64>,
    pub ok: bool,
}
