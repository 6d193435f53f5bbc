//! Drives a TURN server over UDP from outside: clients, an echoing peer, the server processes and what they cost. The
//! benches that use it run in a network namespace with the three addresses below.

#![allow(dead_code, unreachable_pub, reason = "each bench uses its part")]

pub mod floor;
pub mod load;
pub mod servers;
pub mod turn;

use std::net::{IpAddr, Ipv4Addr};

pub const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
pub const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
/// Whoever floods.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 4));

pub const REALM: &str = "example";
pub const USER: &str = "ann";
pub const PASSWORD: &str = "the-password";
pub const CHANNEL: u16 = 0x4001;
pub const PAYLOAD_BYTES: usize = 120;

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

/// Median and extremes of a figure over the rounds, as the harness takes them.
pub fn figure(name: &str, values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!(r#""{name}": {:.4}, "{name}_min": {low:.4}, "{name}_max": {high:.4}"#, median(values))
}
