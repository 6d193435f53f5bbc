//! The whole process in this one: real ports, the real protocol client, and a media node that speaks the real control
//! protocol but moves no media.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests look for one message among all")]

mod hostile;
mod joining;
mod media_node;
mod nodes;
mod relays;
mod resuming;
mod secure;
mod stack;
