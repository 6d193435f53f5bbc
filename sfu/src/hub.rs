//! The one task that owns what the node knows of rooms and peers. It carries out the requests of all control links one
//! after the other, passes them to the shards, and turns the shards' news into events for every link. Because answers
//! and events leave from one place, a link sees the answer to a join before any event of that peer.
//!
//! A control link that ends changes nothing here: calls go on, and the next link takes a snapshot.

mod arrivals;
mod operations;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use sfu_control::{Fingerprint, MediaAddress, NodeEvent, NodeMessage, Operation, ReplyResult, Request};
use sfu_core::{Command, CommandError};
use tokio::sync::{mpsc, oneshot};

use self::arrivals::Arrivals;
use crate::metrics::ControlMeters;
use crate::placement::{Limits, Placement};
use crate::shard::{News, Report, ShardError, ShardHandle};
use crate::translate::kind_to_core;

/// Requests of all links that may wait; a link waits for room before it reads on.
pub(crate) const INPUTS_WAITING_MAX: usize = 64;
/// Messages that may wait for one link. A full node makes about 100 events a second; a link that is this far behind is
/// closed, and signalling dials again and takes a snapshot.
pub(crate) const LINK_QUEUE_MAX: usize = 4096;
/// News of all shards that may wait; behind that they wait in the cores, which merge them.
pub(crate) const REPORTS_WAITING_MAX: usize = 4096;

/// Until a shard that was busy is told again which shards a room has.
const TELL_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// One control link, numbered by the control port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

#[derive(Debug)]
pub(crate) enum Input {
    Opened {
        link: LinkId,
        queue: mpsc::Sender<Utf8Bytes>,
    },
    Closed {
        link: LinkId,
    },
    Request {
        link: LinkId,
        request: Box<Request>,
    },
    /// The process ends: refuse joins, send everyone away, stop the shards.
    End {
        done: oneshot::Sender<()>,
    },
}

/// What does not change while the node runs.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) node: String,
    pub(crate) version: &'static str,
    pub(crate) advertise: Vec<IpAddr>,
    pub(crate) ice_tcp: bool,
    /// Part of a core from which on a shard takes nobody new, so that those it has keep all of their audio: what is left
    /// is for bursts.
    pub(crate) shed_at: f32,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) media: Vec<MediaAddress>,
    /// As signalling dials it.
    pub(crate) control_url: String,
}

/// What others may look at while the hub works.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) peers: AtomicUsize,
    pub(crate) rooms: AtomicUsize,
    pub(crate) draining: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Hub {
    facts: Arc<Facts>,
    gauges: Arc<Gauges>,
    meters: ControlMeters,
    readiness: admin::Readiness,
    placement: Placement,
    shards: Vec<ShardHandle>,
    /// Of each shard.
    arrivals: Vec<Arrivals>,
    links: HashMap<LinkId, mpsc::Sender<Utf8Bytes>>,
    /// Told when a shard has ended for good.
    failed: Option<oneshot::Sender<String>>,
}

/// Parts of `/readyz`.
pub(crate) const READY_SHARDS: &str = "shards";
pub(crate) const READY_DRAINING: &str = "draining";

impl Hub {
    pub(crate) fn new(
        facts: Arc<Facts>,
        gauges: Arc<Gauges>,
        meters: ControlMeters,
        readiness: admin::Readiness,
        (shards, limits): (Vec<ShardHandle>, Limits),
        failed: oneshot::Sender<String>,
    ) -> Self {
        let placement = Placement::new(shards.len(), limits);
        readiness.ready(READY_SHARDS);
        readiness.ready(READY_DRAINING);
        let (links, arrivals) = (HashMap::new(), vec![Arrivals::default(); shards.len()]);
        Self { facts, gauges, meters, readiness, placement, shards, arrivals, links, failed: Some(failed) }
    }

    /// Until told to end.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Input>, mut reports: mpsc::Receiver<Report>) {
        loop {
            tokio::select! {
                Some(report) = reports.recv() => self.take_report(report).await,
                input = inputs.recv() => match input {
                    Some(Input::End { done }) => {
                        self.end(&mut reports).await;
                        let _ = done.send(());
                        return;
                    }
                    Some(input) => self.take_input(input).await,
                    None => return,
                },
                () = tokio::time::sleep(TELL_AGAIN_AFTER), if self.placement.has_moved() => {}
            }
            self.tell_moved();
            self.gauges.peers.store(self.placement.peer_count(), Ordering::Relaxed);
            self.gauges.rooms.store(self.placement.room_count(), Ordering::Relaxed);
        }
    }

    async fn take_input(&mut self, input: Input) {
        match input {
            Input::Request { link, request } => {
                let is_snapshot = matches!(request.op, Operation::Snapshot {});
                let (re, result) = (request.id, self.carry_out(request.op).await);
                let label = match &result {
                    ReplyResult::Ok(_) => "ok",
                    ReplyResult::Error(error) => &error.code,
                };
                self.meters.count_request(label);
                self.send(link, &NodeMessage::Reply { re, result });
                if is_snapshot {
                    self.send_occupied_slots(link);
                }
            }
            Input::Opened { link, queue } => {
                self.links.insert(link, queue);
                self.meters.links.set(self.links.len() as i64);
                self.send(link, &self.hello());
            }
            Input::Closed { link } => self.unlink(link),
            Input::End { .. } => {}
        }
    }

    async fn take_report(&mut self, report: Report) {
        let shard = report.shard;
        match report.news {
            News::Node(event) => {
                if let Some(event) = self.placement.observe(event) {
                    self.broadcast(event);
                }
            }
            News::EventsLost => {
                tracing::warn!(shard, "Lost events of a shard, looking for peers that are gone");
                self.sweep(shard).await;
                self.broadcast(NodeEvent::Resync {});
            }
            News::Restarted => self.evict_all(shard),
            News::Ended(reason) => {
                self.evict_all(shard);
                let reason = format!("shard {shard} has ended: {reason}");
                self.readiness.not_ready(READY_SHARDS, reason.as_str());
                if let Some(failed) = self.failed.take() {
                    let _ = failed.send(reason);
                }
            }
        }
    }

    /// A shard that has too many commands waiting is told a little later.
    fn tell_moved(&mut self) {
        for (room, commands) in self.placement.moved() {
            if self.tell_all(commands).is_ok() {
                self.placement.told(room);
            }
        }
    }

    fn tell_all(&self, commands: Vec<(usize, Command)>) -> Result<(), ShardError> {
        commands.into_iter().try_for_each(|(shard, command)| self.shards[shard].tell(command))
    }

    fn hello(&self) -> NodeMessage {
        NodeMessage::Hello {
            node: self.facts.node.clone(),
            version: self.facts.version.to_owned(),
            media: self.facts.media.clone(),
            fingerprint: self.facts.fingerprint.clone(),
        }
    }

    /// Slots are told on change only: a link that takes over must hear how they stand.
    fn send_occupied_slots(&mut self, link: LinkId) {
        let events: Vec<_> = self.placement.occupied_slots().collect();
        for event in events {
            self.send(link, &NodeMessage::Event { event });
        }
    }

    /// Finds the peers whose end was among lost events: the shard no longer knows them. Setting a mute to what it is
    /// changes nothing for the others.
    async fn sweep(&mut self, shard: usize) {
        for peer in self.placement.on_shard(shard) {
            let kind = sfu_control::TrackKind::Mic;
            let muted = self.placement.is_muted(peer, kind);
            let probe = Command::Mute { peer, kind: kind_to_core(kind), muted };
            match self.shards[shard].call(probe).await {
                Ok(Err(CommandError::NoSuchPeer)) => self.evict(peer, "unknown"),
                Ok(_) => {}
                // A shard that does not answer must not hold up the others: the next loss of events looks again.
                Err(_) => return,
            }
        }
    }

    /// The shard has lost its peers.
    fn evict_all(&mut self, shard: usize) {
        for peer in self.placement.on_shard(shard) {
            self.evict(peer, "shard_failed");
        }
    }

    fn evict(&mut self, peer: sfu_core::PeerId, reason: &str) {
        if let Some(peer) = self.placement.remove(peer) {
            self.broadcast(NodeEvent::Gone { peer, reason: reason.to_owned() });
        }
    }

    fn set_draining(&mut self, on: bool) {
        if self.gauges.draining.swap(on, Ordering::Relaxed) == on {
            return;
        }
        tracing::info!(on, "Draining");
        self.meters.draining.set(i64::from(on));
        match on {
            true => self.readiness.not_ready(READY_DRAINING, "joins are refused, running calls go on"),
            false => self.readiness.ready(READY_DRAINING),
        }
        self.broadcast(NodeEvent::Draining { on });
    }

    /// Sends everyone away in order, so that clients see a close and not a silence.
    async fn end(&mut self, reports: &mut mpsc::Receiver<Report>) {
        self.set_draining(true);
        for shard in 0..self.shards.len() {
            for peer in self.placement.on_shard(shard) {
                self.send_away(shard, peer).await;
            }
            self.shards[shard].stop().await;
        }
        while let Ok(report) = reports.try_recv() {
            if let News::Node(event) = report.news
                && let Some(event) = self.placement.observe(event)
            {
                self.broadcast(event);
            }
        }
        // Their links close when the queues are gone and written out.
        self.links.clear();
    }

    async fn send_away(&self, shard: usize, peer: sfu_core::PeerId) {
        let shard = &self.shards[shard];
        if shard.tell(Command::Leave { peer }).is_err() {
            // Its queue is full: wait for this one's answer.
            let _ = shard.call(Command::Leave { peer }).await;
        }
    }

    fn broadcast(&mut self, event: NodeEvent) {
        let Ok(text) = serde_json::to_string(&NodeMessage::Event { event }) else { return };
        let text = Utf8Bytes::from(text);
        let links: Vec<_> = self.links.keys().copied().collect();
        for link in links {
            self.queue(link, text.clone());
        }
    }

    fn send(&mut self, link: LinkId, message: &NodeMessage) {
        let Ok(text) = serde_json::to_string(message) else { return };
        self.queue(link, text.into());
    }

    fn queue(&mut self, link: LinkId, text: Utf8Bytes) {
        let full = self.links.get(&link).is_some_and(|queue| queue.try_send(text).is_err());
        if full {
            tracing::warn!(link = link.0, "Closed a control link that does not take its messages");
            self.unlink(link);
        }
    }

    fn unlink(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.meters.links.set(self.links.len() as i64);
    }
}

#[cfg(test)]
mod tests;
