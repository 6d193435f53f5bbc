//! Nonces that need no memory: the second they were made and an HMAC over it and the client's address. Anybody who
//! presents one again has received it at that address.
//!
//! ```text
//! base64url( seconds(4) hmac(8) )      16 characters
//! ```

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::client::{Client, Link};

pub(crate) const NONCE_BYTES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NonceState {
    Fresh,
    /// We made it for this client, but too long ago.
    Old,
    /// Not ours, or made for another client.
    Forged,
}

#[derive(Clone)]
pub(crate) struct Nonces {
    keyed: Hmac<Sha256>,
    epoch: Instant,
}

impl Nonces {
    pub(crate) fn new(key: &[u8; 32], epoch: Instant) -> Self {
        Self { keyed: Hmac::new_from_slice(key).expect("HMAC takes keys of any length"), epoch }
    }

    pub(crate) fn make(&self, now: Instant, client: &Client) -> [u8; NONCE_BYTES] {
        let seconds = self.seconds(now).to_be_bytes();
        let mut raw = [0; RAW_BYTES];
        raw[..4].copy_from_slice(&seconds);
        raw[4..].copy_from_slice(&self.mac(seconds, client).finalize().into_bytes()[..MAC_BYTES]);
        let mut text = [0; NONCE_BYTES];
        let written = URL_SAFE_NO_PAD.encode_slice(raw, &mut text);
        debug_assert_eq!(written, Ok(NONCE_BYTES));
        text
    }

    /// The HMAC is compared in constant time.
    pub(crate) fn check(&self, now: Instant, client: &Client, nonce: &[u8], lifetime: Duration) -> NonceState {
        let mut raw = [0; RAW_BYTES];
        if nonce.len() != NONCE_BYTES || URL_SAFE_NO_PAD.decode_slice(nonce, &mut raw) != Ok(RAW_BYTES) {
            return NonceState::Forged;
        }
        let seconds = [raw[0], raw[1], raw[2], raw[3]];
        if self.mac(seconds, client).verify_truncated_left(&raw[4..]).is_err() {
            return NonceState::Forged;
        }
        let age = self.seconds(now).saturating_sub(u32::from_be_bytes(seconds));
        if u64::from(age) <= lifetime.as_secs() { NonceState::Fresh } else { NonceState::Old }
    }

    fn mac(&self, seconds: [u8; 4], client: &Client) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(&seconds);
        match client.address.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&client.address.port().to_be_bytes());
        mac.update(&[u8::from(matches!(client.link, Link::Stream { .. }))]);
        mac
    }

    /// A server that runs for 136 years stops accepting nonces.
    fn seconds(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.epoch).as_secs()).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces(..)")
    }
}

/// 64 bits cannot be guessed at the rate that forged nonces are answered.
const MAC_BYTES: usize = 8;
const RAW_BYTES: usize = 4 + MAC_BYTES;
