//! The media node without its surroundings: ICE-lite, DTLS-SRTP, slots and forwarding for the peers of one shard, as one
//! sans-IO state machine, [`Node`]. Sockets, threads, the clock and the control link belong to the package `sfu`; SDP
//! belongs to `signaling`.

mod assign;
mod bus;
mod clock;
mod command;
mod config;
mod counters;
mod dtls;
mod event;
mod events;
mod handshake;
mod hello;
mod history;
mod ice;
mod ids;
mod inbound;
mod level;
mod loudest;
mod node;
mod opus;
mod outbox;
mod peer;
mod protection;
mod red;
mod redundancy;
mod replica;
mod report;
mod room;
mod rtcp;
mod slot;
mod stamp;
mod timers;
mod times;
mod track;
mod upkeep;

pub use bus::{BUS_ITEM_MAX, BusTransmit};
pub use command::*;
pub use config::*;
pub use counters::*;
pub use event::*;
pub use handshake::HandshakeJob;
pub use ids::*;
pub use node::*;
pub use times::*;
