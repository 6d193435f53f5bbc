//! Rust client of the protocol.
