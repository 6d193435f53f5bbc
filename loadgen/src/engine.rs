//! Runs a scenario against a target: joins everybody, lets them talk, counts, and gives [`Results`]. It knows targets only
//! through [`Target`], and prints nothing.

use tokio::sync::watch;

use crate::results::{Results, Snapshot};
use crate::scenario::Scenario;
use crate::targets::{Access, Target, TargetError};

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("this build has no bulk clients yet")]
    NoClients,
}

/// Until the scenario is over or `stop` says true. Snapshots end when this returns.
pub async fn run(
    scenario: Scenario,
    access: Access,
    _snapshots: watch::Sender<Snapshot>,
    _stop: watch::Receiver<bool>,
) -> Result<Results, EngineError> {
    let target = Target::open(&scenario, &access).await?;
    target.close().await;
    Err(EngineError::NoClients)
}
