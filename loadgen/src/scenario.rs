//! What a run is to do, as data: the type behind a scenario file and behind the flags. [`Scenario::parse`] is the only way
//! from text, and says file, line, key and the nearest valid key when something is wrong. Secrets are never part of a
//! scenario: they come from flags or the environment.

mod check;
mod parse;

use serde::{Deserialize, Serialize};

pub use check::{DURATION_S_MAX, PEERS_MAX, PEERS_PER_ROOM_MAX, ROOMS_MAX, SLOTS_MAX};
pub use parse::ScenarioError;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    /// Shown in reports.
    pub name: String,
    pub target: TargetSpec,
    pub rooms: Rooms,
    pub ramp: Ramp,
    pub climb: Climb,
    pub talk: Talk,
    pub audio: Audio,
    pub run: Timing,
    pub loss: Loss,
    pub engine: EngineSpec,
    pub thresholds: Thresholds,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetSpec {
    pub kind: TargetKind,
    /// `ws://` or `wss://`: of signalling (`carillon`), of the node's control link (`node`), of Janus's WebSocket.
    pub url: String,
    /// Processes of the server, where it runs on this machine: their CPU time and memory are reported.
    pub server_pids: Vec<u32>,
    /// Rooms are called `PREFIX-N`. A target that wants numbers makes them of `N`.
    pub room_prefix: String,
    /// People are called `PREFIX-N`. Several generators that fill the same rooms need one each.
    pub person_prefix: String,
}

impl Default for TargetSpec {
    fn default() -> Self {
        Self {
            kind: TargetKind::default(),
            url: String::new(),
            server_pids: Vec::new(),
            room_prefix: "load".to_owned(),
            person_prefix: "load".to_owned(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    /// The native protocol over WebSocket, SDP and all.
    #[default]
    Carillon,
    /// The control link of a media node, without signalling: cheap joins.
    Node,
    /// VideoRoom of Janus over WebSocket.
    Janus,
}

impl TargetKind {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Carillon => "carillon",
            Self::Node => "node",
            Self::Janus => "janus",
        }
    }
}

/// Who is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rooms {
    pub count: u32,
    /// People who send, in each room.
    pub publishers: u32,
    /// People who only listen, in each room.
    pub listeners: u32,
    /// Whether publishers also receive.
    pub publishers_listen: bool,
    /// Voices that each listener can hear at a time; left out: one for each publisher, up to 8.
    pub slots: Option<u32>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { count: 1, publishers: 1, listeners: 10, publishers_listen: false, slots: None }
    }
}

impl Rooms {
    /// What a client of ours offers when the scenario does not say.
    pub const SLOTS_DEFAULT: u32 = 8;

    #[must_use]
    pub fn slots_wanted(&self) -> u32 {
        self.slots.unwrap_or_else(|| self.publishers.clamp(1, Self::SLOTS_DEFAULT))
    }

    #[must_use]
    pub fn people_per_room(&self) -> u32 {
        self.publishers + self.listeners
    }

    /// People who hear, in each room.
    #[must_use]
    pub fn hearers_per_room(&self) -> u32 {
        self.listeners + if self.publishers_listen { self.publishers } else { 0 }
    }

    #[must_use]
    pub fn people(&self) -> u32 {
        self.count * self.people_per_room()
    }
}

/// How they come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ramp {
    /// Joins begun per second; 0: as fast as `joins_in_flight` allows.
    pub joins_per_s: f64,
    /// Joins that may be under way at a time.
    pub joins_in_flight: u32,
    /// A join that takes longer has failed.
    pub join_timeout_s: f64,
}

impl Default for Ramp {
    fn default() -> Self {
        Self { joins_per_s: 100.0, joins_in_flight: 64, join_timeout_s: 15.0 }
    }
}

/// Listeners who come in steps, each measured, until a limit breaks twice. Publishers are there from the first step on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Climb {
    /// Who come at each step, in all rooms together; 0: everybody comes at once, and nothing is measured on the way.
    pub step_listeners: u32,
    /// After the last join of a step, before anything counts.
    pub settle_s: f64,
    /// What is measured at each step.
    pub hold_s: f64,
    pub loss_max: f64,
    pub delay_p99_ms_max: f64,
}

impl Default for Climb {
    fn default() -> Self {
        Self { step_listeners: 0, settle_s: 0.5, hold_s: 1.5, loss_max: 0.01, delay_p99_ms_max: 10.0 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Talk {
    pub pattern: TalkPattern,
    /// Who is loud at a time in each room (`conversational`: on average).
    pub speakers: u32,
    /// Mean length of a turn.
    pub turn_ms: u32,
    pub starts: TalkStart,
}

impl Default for Talk {
    fn default() -> Self {
        Self { pattern: TalkPattern::All, speakers: 1, turn_ms: 3000, starts: TalkStart::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TalkStart {
    /// Each publisher talks as soon as it is connected.
    #[default]
    Join,
    /// All begin together when everybody has joined: a load that no admission could refuse.
    Warmup,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TalkPattern {
    /// Every publisher sends every frame.
    #[default]
    All,
    /// Turns and pauses; in a pause only the rare packets of Opus DTX.
    Conversational,
    /// Every publisher sends every frame, `speakers` of them loud and the others as a quiet background; the loud ones
    /// change each `turn_ms`. For nodes that forward the loudest.
    Churn,
}

/// The Opus stream whose packet sizes are used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audio {
    pub bitrate_bps: u32,
    /// 10, 20, 40 or 60.
    pub frame_ms: u32,
}

impl Default for Audio {
    fn default() -> Self {
        Self { bitrate_bps: 32_000, frame_ms: 20 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// After the last join, before anything counts.
    pub warmup_s: f64,
    /// What is measured.
    pub duration_s: f64,
    /// Then, for so long, a bare sender sends the same datagrams to the same sockets; 0: it does not. For a server on
    /// this host whose processes are named.
    pub floor_s: f64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { warmup_s: 1.5, duration_s: 10.0, floor_s: 0.0 }
    }
}

/// Packets that the clients lose on purpose, as shares. Reports count them apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Loss {
    /// Of what publishers would send.
    pub send: f64,
    /// Of what listeners receive.
    pub receive: f64,
    pub seed: u64,
}

impl Default for Loss {
    fn default() -> Self {
        Self { send: 0.0, receive: 0.0, seed: 1 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSpec {
    /// Threads of the bulk clients; 0: one for each core, at most 8.
    pub threads: u32,
    /// Of the packets received, one in so many is opened, and the delay read from it. The headers of all are checked.
    pub open_one_in: u32,
    /// Take runs of datagrams from the kernel in one piece (UDP_GRO), where the sender sent them so. It halves the cost
    /// of receiving here, and spares a sender on this host the cutting, as a network card would.
    pub coalesce: bool,
    /// Microseconds that a thread of bulk clients waits after reading, so that the server does not pay for waking it each
    /// time. Delays are read from the kernel's times of arrival and do not grow.
    pub linger_us: u32,
    /// Share of the people who only listen that are complete peers of a foreign stack (str0m) with real SDP.
    pub realistic_share: f64,
}

impl Default for EngineSpec {
    fn default() -> Self {
        Self { threads: 0, open_one_in: 16, coalesce: false, linger_us: 500, realistic_share: 0.02 }
    }
}

/// What decides the exit code. Those left out hold always.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Thresholds {
    /// Share of the packets missing in the sequences of what was received.
    pub loss_max: Option<f64>,
    /// Received of what was to be delivered.
    pub delivered_share_min: Option<f64>,
    pub delay_p50_ms_max: Option<f64>,
    pub delay_p99_ms_max: Option<f64>,
    pub join_p99_ms_max: Option<f64>,
    pub joins_failed_max: Option<f64>,
    pub packets_per_s_min: Option<f64>,
    pub packets_per_cpu_s_min: Option<f64>,
    /// Honesty of the generator itself: how late its own packets leave.
    pub send_late_p99_ms_max: Option<f64>,
}
