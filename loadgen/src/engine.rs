//! Runs a scenario against a target: joins everybody, lets them talk, counts, and gives [`Results`]. It knows targets only
//! through [`Target`], and prints nothing.
//!
//! Signalling is on tokio, media on threads of its own (`worker`); `conductor` is the one that knows the plan.

pub mod bare;
mod bulk;
mod client;
mod climb;
mod conductor;
mod dtls;
mod frames;
mod ice;
mod joins;
mod plan;
mod process;
mod realistic;
mod sampler;
mod seat;
mod stamp;
mod stream;
mod switchboard;
mod talk;
mod tally;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use client::Reading;
use conductor::Conductor;
use dtls::Identity;
use frames::Frames;
use switchboard::Switchboard;
use worker::{Setting, Workers};

use crate::results::{Results, Snapshot};
use crate::scenario::{Scenario, TalkPattern, TalkStart};
use crate::targets::{Access, Target, TargetError};

pub use dtls::IdentityError;
pub use frames::FramesError;

/// More than the cores that one would give to a load generator.
const THREADS_MAX: usize = 8;
/// Handshakes beyond what two threads do come from a machine with more cores than this is for.
const CONNECTING_MAX: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Frames(#[from] FramesError),
    #[error("threads cannot be started: {0}")]
    Workers(#[from] std::io::Error),
    #[error("{wanted} connections need as many open files, the limit allows {allowed}: raise it with ulimit -n")]
    Files { wanted: u64, allowed: u64 },
}

/// Until the scenario is over or `stop` says true. Snapshots end when this returns.
pub async fn run(
    scenario: Scenario,
    access: Access,
    snapshots: watch::Sender<Snapshot>,
    stop: watch::Receiver<bool>,
) -> Result<Results, EngineError> {
    let target = Target::open(&scenario, &access).await?;
    let planned = plan::plan(&scenario, target.splits_directions(), target.speaks_sdp());
    let wanted = 2 * planned.len() as u64;
    process::allow_files(wanted).map_err(|allowed| EngineError::Files { wanted, allowed })?;
    let setting = Arc::new(setting(&scenario)?);
    let threads = threads(&scenario);
    let workers = Workers::start(&setting, threads.clamp(1, CONNECTING_MAX), threads)?;
    let conductor = Conductor::new(scenario, access, Arc::new(target), planned, (setting, workers));
    Ok(conductor.run(&snapshots, stop).await)
}

fn setting(scenario: &Scenario) -> Result<Setting, EngineError> {
    // With churn, the time until a new voice is heard is read from the packets: all of them.
    let is_churn = scenario.talk.pattern == TalkPattern::Churn;
    let open_one_in = if is_churn { 1 } else { u64::from(scenario.engine.open_one_in) };
    let lot = |share: f64| (share * f64::from(u32::MAX)) as u32;
    Ok(Setting {
        board: Switchboard::new(scenario.rooms.count, scenario.talk.starts == TalkStart::Join),
        identity: Identity::generate()?,
        frames: Frames::encode(&scenario.audio)?,
        frame: Duration::from_millis(scenario.audio.frame_ms.into()),
        reading: Reading { open_one_in, drop: lot(scenario.loss.receive), drop_seed: mix(scenario.loss.seed) },
        coalesce: scenario.engine.coalesce,
        linger: Duration::from_micros(scenario.engine.linger_us.into()),
        send_drop: lot(scenario.loss.send),
        drop_seed: mix(scenario.loss.seed ^ 0x5E4D),
        senders_hear: scenario.rooms.publishers_listen,
    })
}

fn threads(scenario: &Scenario) -> usize {
    match scenario.engine.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(THREADS_MAX),
        threads => threads as usize,
    }
}

/// Scatters numbers (SplitMix64): for lots that must fall the same way each time.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
