//! The native client protocol: JSON text frames over a WebSocket at `/v1/rooms/{room}`, subprotocol `carillon.v1`.
//! `README.md` beside this package describes it for strangers; its examples are the fixtures in `fixtures/` that the
//! tests load. This package is the messages and, with feature `client`, a Rust client; it knows no SDP and no rooms.

#[cfg(feature = "client")]
pub mod client;
mod message;

pub use message::*;
