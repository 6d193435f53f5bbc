//! `GET /v1/status` on the admin port: where this node really listens and what it holds, for people, scripts and tests.
//!
//! `{"node","version","control","media":[{"address","port"}],"peers","rooms","load","draining"}`: `control` is
//! the URL that signalling dials, `media` one entry for each advertised address of each shard, `load` 0.0 to 1.0 of the
//! busiest shard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use sfu_control::{Heartbeat, MediaAddress};

use crate::hub::{Facts, Gauges};
use crate::metrics::Published;

#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) facts: Arc<Facts>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) shards: Vec<Arc<Published>>,
}

#[derive(Debug, Serialize)]
struct Body {
    node: String,
    version: &'static str,
    control: String,
    media: Vec<MediaAddress>,
    peers: usize,
    rooms: usize,
    load: f32,
    draining: bool,
}

impl Status {
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new().route("/v1/status", get(async move || Json(self.body())))
    }

    pub(crate) fn heartbeat(&self) -> Heartbeat {
        let body = self.body();
        Heartbeat {
            node: body.node,
            version: body.version.to_owned(),
            control: body.control,
            load: body.load,
            peers: u32::try_from(body.peers).unwrap_or(u32::MAX),
            draining: body.draining,
        }
    }

    fn body(&self) -> Body {
        Body {
            node: self.facts.node.clone(),
            version: self.facts.version,
            control: self.facts.control_url.clone(),
            media: self.facts.media.clone(),
            peers: self.gauges.peers.load(Ordering::Relaxed),
            rooms: self.gauges.rooms.load(Ordering::Relaxed),
            load: self.shards.iter().map(|shard| shard.busy()).fold(0.0, f32::max),
            draining: self.gauges.draining.load(Ordering::Relaxed),
        }
    }
}
