//! The media node without its surroundings: ICE-lite, DTLS-SRTP, slots and forwarding for the peers of one shard, as one
//! sans-IO state machine, [`Node`]. Sockets, threads, the clock and the control link belong to the package `sfu`; SDP
//! belongs to `signaling`.

mod command;
mod config;
mod counters;
mod event;
mod ids;
mod node;

pub use command::*;
pub use config::*;
pub use counters::*;
pub use event::*;
pub use ids::*;
pub use node::*;
