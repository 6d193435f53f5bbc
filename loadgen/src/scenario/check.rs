//! Ranges of a scenario's values. Each bound keeps a typing error from becoming a machine out of memory or ports.

use super::{Scenario, TalkPattern};

/// Two thirds of the ports that a Linux host gives out to one address.
pub const PEERS_MAX: u32 = 20_000;
pub const ROOMS_MAX: u32 = 10_000;
/// What one node takes.
pub const PEERS_PER_ROOM_MAX: u32 = 4096;
/// The m-lines that an offer to our signalling may have, without the microphone's.
pub const SLOTS_MAX: u32 = 63;
/// A day.
pub const DURATION_S_MAX: f64 = 86_400.0;

/// A value out of its range: the path of its key, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OutOfRange {
    pub(super) key: &'static [&'static str],
    pub(super) allowed: String,
}

impl Scenario {
    pub(super) fn out_of_range(&self) -> Option<OutOfRange> {
        let Self { target, rooms, ramp, climb, talk, audio, run, loss, engine, .. } = self;
        let people = u64::from(rooms.count) * (u64::from(rooms.publishers) + u64::from(rooms.listeners));
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let seconds = |value: f64, least: f64| (least..=DURATION_S_MAX).contains(&value);
        let is_ws = target.url.starts_with("ws://") || target.url.starts_with("wss://");
        let prefix_ok = |prefix: &str| {
            (1..=48).contains(&prefix.len())
                && prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let rules: [(bool, &'static [&'static str], &str); 21] = [
            (is_ws, &["target", "url"], "a ws:// or wss:// address"),
            (prefix_ok(&target.room_prefix), &["target", "room_prefix"], "1 to 48 of A-Z a-z 0-9 _ -"),
            (prefix_ok(&target.person_prefix), &["target", "person_prefix"], "1 to 48 of A-Z a-z 0-9 _ -"),
            (target.server_pids.len() <= 64, &["target", "server_pids"], "at most 64 processes"),
            ((1..=ROOMS_MAX).contains(&rooms.count), &["rooms", "count"], "1 to 10000"),
            (rooms.publishers <= PEERS_PER_ROOM_MAX, &["rooms", "publishers"], "0 to 4096"),
            (rooms.listeners <= PEERS_PER_ROOM_MAX, &["rooms", "listeners"], "0 to 4096"),
            (
                (1..=u64::from(PEERS_MAX)).contains(&people),
                &["rooms", "count"],
                "such that there are 1 to 20000 people in all rooms together",
            ),
            (rooms.slots.is_none_or(|slots| (1..=SLOTS_MAX).contains(&slots)), &["rooms", "slots"], "1 to 63"),
            ((0.0..=10_000.0).contains(&ramp.joins_per_s), &["ramp", "joins_per_s"], "0 to 10000"),
            ((1..=256).contains(&ramp.joins_in_flight), &["ramp", "joins_in_flight"], "1 to 256"),
            (seconds(ramp.join_timeout_s, 0.1), &["ramp", "join_timeout_s"], "0.1 to 86400"),
            (
                talk.pattern == TalkPattern::All || (1..=rooms.publishers).contains(&talk.speakers),
                &["talk", "speakers"],
                "1 to the number of publishers",
            ),
            ((100..=600_000).contains(&talk.turn_ms), &["talk", "turn_ms"], "100 to 600000"),
            ((6_000..=510_000).contains(&audio.bitrate_bps), &["audio", "bitrate_bps"], "6000 to 510000"),
            ([10, 20, 40, 60].contains(&audio.frame_ms), &["audio", "frame_ms"], "10, 20, 40 or 60"),
            (seconds(run.warmup_s, 0.0), &["run", "warmup_s"], "0 to 86400"),
            (seconds(run.duration_s, 0.1), &["run", "duration_s"], "0.1 to 86400"),
            (share(loss.send), &["loss", "send"], "0 to 1"),
            (share(loss.receive), &["loss", "receive"], "0 to 1"),
            (engine.threads <= 64, &["engine", "threads"], "0 to 64"),
        ];
        let broken = rules.into_iter().find(|(holds, ..)| !holds);
        let rest: [(bool, &'static [&'static str], &str); 9] = [
            (seconds(run.floor_s, 0.0), &["run", "floor_s"], "0 to 86400"),
            (climb.step_listeners <= PEERS_MAX, &["climb", "step_listeners"], "0 to 20000"),
            (seconds(climb.settle_s, 0.0), &["climb", "settle_s"], "0 to 86400"),
            (seconds(climb.hold_s, 0.1), &["climb", "hold_s"], "0.1 to 86400"),
            (share(climb.loss_max), &["climb", "loss_max"], "0 to 1"),
            ((0.0..=60_000.0).contains(&climb.delay_p99_ms_max), &["climb", "delay_p99_ms_max"], "0 to 60000"),
            (engine.linger_us <= 10_000, &["engine", "linger_us"], "0 to 10000"),
            ((1..=100_000).contains(&engine.open_one_in), &["engine", "open_one_in"], "1 to 100000"),
            (share(engine.realistic_share), &["engine", "realistic_share"], "0 to 1"),
        ];
        let broken = broken.or_else(|| rest.into_iter().find(|(holds, ..)| !holds));
        broken.map(|(_, key, allowed)| OutOfRange { key, allowed: allowed.to_owned() })
    }
}
