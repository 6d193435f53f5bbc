//! The control link between signalling and one media node: JSON text frames over one WebSocket that signalling dials
//! (`GET /v1/control`, `Authorization: Bearer <shared token>`), and the heartbeat by which a node announces itself
//! (`POST <signaling admin>/v1/nodes`, the same token). This package is the messages and a typed client of the link; it
//! holds no policy. Unknown fields are ignored, so that either side may be updated first.
//!
//! Every request carries an `id`; the node answers each with one [`NodeMessage::Reply`] that names it in `re`.

mod client;
mod message;

pub use client::*;
pub use message::*;

/// Longest message that a node takes. A join of 10 m-lines is about 2 KiB.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Longest message that a node sends: a snapshot of [`PEERS_MAX`] peers, at most 8 KiB each.
pub const NODE_MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most peers of one node.
pub const PEERS_MAX: usize = 4096;
/// Longest [`Join::meta`].
pub const META_BYTES_MAX: usize = 2048;
/// Longest room or peer id, in bytes.
pub const ID_BYTES_MAX: usize = 128;
