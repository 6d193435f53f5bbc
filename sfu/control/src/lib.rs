//! The control link between signalling and one media node: JSON text frames over one WebSocket that signalling dials
//! (`GET /v1/control`, `Authorization: Bearer <shared token>`), and the heartbeat by which a node announces itself
//! (`POST <signaling admin>/v1/nodes`, the same token). This package is the messages and a typed client of the link; it
//! holds no policy. Unknown fields are ignored, so that either side may be updated first.
//!
//! Every request carries an `id`; the node answers each with one [`NodeMessage::Reply`] that names it in `re`.

mod client;
mod message;


pub use message::*;
