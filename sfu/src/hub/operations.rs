//! The operations of the control link, one method each.

use std::sync::atomic::Ordering;
use std::time::Instant;

use sfu_control::{ControlError, Join, Joined, Operation, ReplyBody, ReplyResult};
use sfu_core::{Command, Reply};

use super::Hub;
use crate::placement::{Place, PlaceError};
use crate::shard::ShardError;
use crate::translate::{self, refuse};

impl Hub {
    pub(super) async fn carry_out(&mut self, op: Operation) -> ReplyResult {
        let result = match op {
            Operation::Join(join) => self.join(join).await,
            Operation::RestartIce { peer, ice } => self.restart_ice(&peer, &ice).await,
            Operation::Mute { peer, kind, muted } => self.mute(&peer, kind, muted).await,
            Operation::SetMeta { peer, meta } => self.set_meta(&peer, meta),
            Operation::Leave { peer } => self.leave(&peer).await,
            Operation::Snapshot {} => Ok(ReplyBody::Snapshot { peers: self.placement.snapshot() }),
            Operation::Drain { on } => {
                self.set_draining(on);
                Ok(ReplyBody::Done {})
            }
        };
        match result {
            Ok(body) => ReplyResult::Ok(body),
            Err(error) => ReplyResult::Error(error),
        }
    }

    async fn join(&mut self, join: Join) -> Result<ReplyBody, ControlError> {
        if self.gauges.draining.load(Ordering::Relaxed) {
            return Err(refuse("draining", "node takes no new peers", "place the peer on another node"));
        }
        translate::check_id("room", &join.room)?;
        translate::check_id("peer", &join.peer)?;
        translate::check_meta(&join.meta)?;
        let busy = self.expected_busy(Instant::now());
        let place = self.placement.place(&join.room, &join.peer, &join.meta, &busy).map_err(|error| match error {
            PlaceError::PeerExists => translate::command_error(sfu_core::CommandError::PeerExists),
            PlaceError::NodeFull => translate::command_error(sfu_core::CommandError::NodeFull),
            PlaceError::RoomFull => translate::command_error(sfu_core::CommandError::RoomFull),
        })?;
        let refusal = shed(busy[place.shard], self.facts.shed_at);
        if let Some(refusal) = refusal.filter(|_| !join.replaces) {
            self.placement.remove(place.peer);
            return Err(refusal);
        }
        let admitted = self.admit(&join, place).await;
        if admitted.is_err() {
            self.placement.remove(place.peer);
        }
        admitted
    }

    /// Of each shard, with those who have just come.
    fn expected_busy(&mut self, now: Instant) -> Vec<f32> {
        let shards = self.shards.iter().zip(&mut self.arrivals).zip(self.placement.loads());
        shards.map(|((shard, arrivals), peers)| arrivals.expected(shard.published.busy(), *peers, now)).collect()
    }

    async fn admit(&mut self, join: &Join, place: Place) -> Result<ReplyBody, ControlError> {
        let command = Command::Join(Box::new(translate::join(join, place.room, place.peer)?));
        let joined = match self.ask(place.shard, command).await {
            Ok(Reply::Joined(joined)) => joined,
            Ok(Reply::Restarted { .. } | Reply::Done) => return Err(unexpected()),
            Err(error) => {
                // After no answer the join may still be carried out; whatever comes of it must not stay.
                let _ = self.shards[place.shard].tell(Command::Leave { peer: place.peer });
                return Err(error);
            }
        };
        // Before the peer can send anything, its shard must know that it does not decide alone.
        let spread = self.placement.spread_by(place);
        if !spread.is_empty() {
            if let Err(error) = self.tell_all(spread) {
                let _ = self.shards[place.shard].tell(Command::Leave { peer: place.peer });
                self.placement.doubt(place.room);
                return Err(overloaded(error));
            }
            self.placement.told(place.room);
        }
        self.placement.joined(place.peer, &joined);
        tracing::debug!(room = join.room, peer = join.peer, shard = place.shard, "Peer admitted");
        Ok(ReplyBody::Joined(Joined {
            shard: u16::try_from(place.shard).unwrap_or(u16::MAX),
            tracks: joined.tracks.iter().map(translate::track_from_core).collect(),
            slots: joined.slots.iter().map(translate::slot_from_core).collect(),
            ice: translate::ice_from_core(joined.local_ice),
            fingerprint: self.facts.fingerprint.clone(),
            dtls_role: join.dtls_role,
            candidates: self.candidates(place.shard),
        }))
    }

    async fn restart_ice(&mut self, peer: &str, ice: &sfu_control::IceParameters) -> Result<ReplyBody, ControlError> {
        let place = self.find(peer)?;
        let command = Command::RestartIce { peer: place.peer, remote: translate::ice_to_core(ice) };
        match self.ask(place.shard, command).await? {
            Reply::Restarted { local } => {
                let ice = translate::ice_from_core(local);
                Ok(ReplyBody::Restarted { ice, candidates: self.candidates(place.shard) })
            }
            Reply::Joined(_) | Reply::Done => Err(unexpected()),
        }
    }

    async fn mute(
        &mut self,
        peer: &str,
        kind: sfu_control::TrackKind,
        muted: bool,
    ) -> Result<ReplyBody, ControlError> {
        let place = self.find(peer)?;
        self.ask(place.shard, Command::Mute { peer: place.peer, kind: translate::kind_to_core(kind), muted }).await?;
        self.placement.set_muted(place.peer, kind, muted);
        Ok(ReplyBody::Done {})
    }

    fn set_meta(&mut self, peer: &str, meta: String) -> Result<ReplyBody, ControlError> {
        translate::check_meta(&meta)?;
        let place = self.find(peer)?;
        self.placement.set_meta(place.peer, meta);
        Ok(ReplyBody::Done {})
    }

    /// The name is free at once, so that the same peer may join again with the next request; the shard's own event of
    /// this end finds nobody and is kept back.
    async fn leave(&mut self, peer: &str) -> Result<ReplyBody, ControlError> {
        let place = self.find(peer)?;
        let left = self.ask(place.shard, Command::Leave { peer: place.peer }).await;
        match &left {
            Ok(_) => self.evict(place.peer, translate::gone_reason(sfu_core::GoneReason::Left)),
            Err(error) if error.code == NO_SUCH_PEER => self.evict(place.peer, "unknown"),
            Err(_) => {}
        }
        left.map(|_| ReplyBody::Done {})
    }

    fn find(&self, peer: &str) -> Result<Place, ControlError> {
        let absent = || translate::command_error(sfu_core::CommandError::NoSuchPeer);
        self.placement.find(peer).ok_or_else(absent)
    }

    fn candidates(&self, shard: usize) -> Vec<sfu_control::Candidate> {
        translate::candidates(&self.facts.advertise, self.shards[shard].local_addr.port(), self.facts.ice_tcp)
    }

    async fn ask(&self, shard: usize, command: Command) -> Result<Reply, ControlError> {
        match self.shards[shard].call(command).await {
            Ok(answer) => answer.map_err(translate::command_error),
            Err(error) => Err(overloaded(error)),
        }
    }
}

/// The load that a shard shows is that of the last second; calls end at any time.
const SHED_RETRY_S: u32 = 2;

/// Placement has looked for a shard with more room before.
fn shed(busy: f32, limit: f32) -> Option<ControlError> {
    let refusal = || {
        let message = format!("node is at its limit: {:.0} % of a core", busy * 100.0);
        let refusal = refuse("overloaded", message, "try again soon, or place the room on another node");
        ControlError { retry_after_s: Some(SHED_RETRY_S), ..refusal }
    };
    (busy >= limit).then(refusal)
}

const NO_SUCH_PEER: &str = "no_such_peer";

fn overloaded(error: ShardError) -> ControlError {
    let refusal = refuse("overloaded", error.to_string(), "try again, or place the room on another node");
    ControlError { retry_after_s: Some(1), ..refusal }
}

fn unexpected() -> ControlError {
    refuse("internal", "shard gave an answer of another kind", "this is a defect of the node: report it with its log")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_refused_above_the_limit_with_a_time_to_come_again() {
        assert_eq!(shed(0.84, 0.85), None);
        assert_eq!(shed(1.0, f32::INFINITY), None);
        let refusal = shed(0.9, 0.85).unwrap();
        assert_eq!((refusal.code.as_str(), refusal.retry_after_s), ("overloaded", Some(SHED_RETRY_S)));
        assert_eq!(refusal.message, "node is at its limit: 90 % of a core");
    }
}
