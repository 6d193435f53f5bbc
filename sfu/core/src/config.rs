//! What a [`Node`](crate::Node) is built from. Plain values: reading files, environment and flags is the shell's work.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::{Fingerprint, ShardId};

#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Is part of every track id, so that those of two shards never meet in a room.
    pub shard: ShardId,
    pub certificate: Certificate,
    /// Seeds credentials, SSRCs and track ids: from the OS in production, a constant in a simulation.
    pub seed: [u8; 32],
    /// What the wall clock shows at the `now` given to [`Node::new`](crate::Node::new): names the time in sender
    /// reports. Nothing else depends on it.
    pub wall_clock_at_start: SystemTime,
    pub limits: Limits,
}

/// The node's DTLS identity: ECDSA P-256.
#[derive(Clone)]
pub struct Certificate {
    pub certificate_der: Vec<u8>,
    /// PKCS#8.
    pub private_key_der: Vec<u8>,
}

impl Certificate {
    /// What the answer's `a=fingerprint` says.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::Sha256(Sha256::digest(&self.certificate_der).into())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate(..)")
    }
}

/// Bounds of one shard. The defaults fit one core.
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// A core forwards about 400,000 datagrams a second: 4,000 peers hearing two voices each fill it.
    pub peers: usize,
    /// Everyone hears everyone: the work of a room grows with its square, above this a room wants several nodes.
    pub peers_per_room: usize,
    /// Voices heard at the same time, and m-lines a client offers for them.
    pub speech_slots: u8,
    /// Desktops and shared tabs heard at the same time.
    pub program_slots: u8,
    /// Datagrams that one turn of the shell's loop may leave behind: 64 received, each to every listener of a room of
    /// some hundreds; the rest is dropped and counted.
    pub transmits: usize,
    /// Bytes of those datagrams.
    pub transmit_bytes: usize,
    /// Events waiting for the shell. Repeatable ones are merged.
    pub events: usize,
    /// ICE and DTLS must be done: browsers give up after about 15 s too.
    pub setup_timeout: Duration,
    /// DTLS handshakes under way at once; later ones wait. One costs about a millisecond, so the last of these waits less
    /// than a tenth of a second for its flights and nobody repeats them.
    pub handshakes: usize,
    /// A handshake that is not done by then gives its place among those to the next one and goes on beside them: a round
    /// trip or two, with a lost flight.
    pub handshake_turn: Duration,
    /// RFC 7675 section 5.1: 30 s at most without an authenticated check.
    pub consent_timeout: Duration,
    /// Silence after which [`Event::Idle`](crate::Event::Idle) says so. Who talks or hears sends more often than that, and
    /// Chromium checks each 2.5 s; a Firefox that only listens in a quiet room checks each 4-6 s, so it comes and goes.
    pub idle_after: Duration,
    /// Addresses that passed an authenticated check and are kept for one peer: two interfaces, two families, one move.
    pub paths_per_peer: usize,
    /// Authenticated SSRCs of one peer, for RTP and RTCP each: two tracks and ten slots (some clients report each m-line
    /// under an SSRC of its own), the rest for a client that restarts its senders.
    pub ssrcs_per_peer: usize,
    /// Checks from new addresses that are looked at although so many did not authenticate, over two seconds: each costs
    /// about 1.5 us of hashing, these a hundredth of a core.
    pub failed_checks_per_second: u32,
    /// The same for the checks that name one peer. A client that has the right password needs none.
    pub failed_checks_of_peer_per_second: u32,
    /// The shortest Opus frame lasts 2.5 ms: 400 a second. What a track sends beyond this, over two seconds, is dropped:
    /// each of its packets would cost the room one for each listener.
    pub track_packets_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers: 4_000,
            peers_per_room: 1_000,
            speech_slots: 8,
            program_slots: 2,
            transmits: 16_384,
            transmit_bytes: 4 << 20,
            events: 8_192,
            setup_timeout: Duration::from_secs(15),
            handshakes: 64,
            handshake_turn: Duration::from_secs(2),
            consent_timeout: Duration::from_secs(30),
            idle_after: Duration::from_secs(3),
            paths_per_peer: 8,
            ssrcs_per_peer: 32,
            failed_checks_per_second: 5_000,
            failed_checks_of_peer_per_second: 20,
            track_packets_per_second: 500,
        }
    }
}
