//! VideoRoom of Janus over WebSocket, as its public documentation describes it. Publishers and hearers are connections of
//! their own there, and Janus offers to hearers.

use super::{Access, Endpoint, JoinError, Link, TargetError};
use crate::scenario::Scenario;

#[derive(Debug)]
pub struct Janus;

#[derive(Debug)]
pub struct Session;

impl Janus {
    #[expect(clippy::unused_async, reason = "opening a session is an exchange of messages")]
    pub(super) async fn open(_: &Scenario, _: &Access) -> Result<Self, TargetError> {
        Err(TargetError::Unreachable("this build has no client for janus yet".to_owned()))
    }

    #[expect(clippy::unused_async, reason = "a join is an exchange of messages")]
    pub(super) async fn join(&self, _: &Link, _: &mut dyn Endpoint) -> Result<Session, JoinError> {
        Err(JoinError::new("unsupported", "this build has no client for janus yet"))
    }

    #[expect(clippy::unused_async, reason = "leaving is an exchange of messages")]
    pub(super) async fn leave(&self, _: Session) {}

    #[expect(clippy::unused_async, reason = "closing is an exchange of messages")]
    pub(super) async fn close(self) {}
}
