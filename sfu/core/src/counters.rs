//! What happened, in plain numbers that only grow. The shell reads them between batches and publishes them.

use crate::Times;

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    pub datagrams_received: u64,
    pub bytes_received: u64,
    /// Binding requests that were authenticated and answered.
    pub stun_answered: u64,
    pub dtls_received: u64,
    /// Authenticated RTP packets.
    pub rtp_received: u64,
    /// Authenticated RTCP compounds.
    pub rtcp_received: u64,
    /// RTP packets sealed for a listener.
    pub rtp_forwarded: u64,
    /// Of those: once more, because the listener asked.
    pub rtp_sent_again: u64,
    pub rtcp_sent: u64,
    /// Items from other shards.
    pub bus_received: u64,
    /// Items for other shards, each of them once.
    pub bus_sent: u64,
    pub transmits: u64,
    pub transmit_bytes: u64,
    /// Pieces of handshake work handed out.
    pub handshake_jobs: u64,
    pub handshakes_done: u64,
    /// From the turn of a handshake to its keys.
    pub handshake_times: Times,
    pub peers_admitted: u64,
    pub peers_evicted: u64,
    drops: [u64; DropReason::COUNT],
}

impl Counters {
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// One entry for each reason, in a fixed order.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|reason| (*reason, self.drops[*reason as usize]))
    }

    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why something was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            pub(crate) const COUNT: usize = Self::ALL.len();

            /// Label of the metric.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// First byte belongs to no protocol that we take (RFC 7983).
    UnknownProtocol = "unknown_protocol",
    /// RTP, RTCP or DTLS from an address that no authenticated check has validated.
    UnknownAddress = "unknown_address",
    StunMalformed = "stun_malformed",
    /// Username names no peer.
    StunUnknownUser = "stun_unknown_user",
    /// MESSAGE-INTEGRITY missing or wrong.
    StunUnauthenticated = "stun_unauthenticated",
    /// Not looked at: too many checks from new addresses have failed.
    StunFlood = "stun_flood",
    /// Authenticated, but refused with an error answer.
    StunRefused = "stun_refused",
    /// A binding indication, a response, another method.
    StunIgnored = "stun_ignored",
    DtlsFailed = "dtls_failed",
    /// More records than may wait for a handshake.
    DtlsQueueFull = "dtls_queue_full",
    RtpMalformed = "rtp_malformed",
    RtpUnauthenticated = "rtp_unauthenticated",
    RtpReplayed = "rtp_replayed",
    /// SRTP before the handshake is done.
    RtpTooEarly = "rtp_too_early",
    /// More SSRCs than a peer may use.
    RtpTooManySources = "rtp_too_many_sources",
    /// Authenticated, but no track of the peer claims it.
    RtpNoTrack = "rtp_no_track",
    RtpPayloadType = "rtp_payload_type",
    /// Padding only: nothing to hear.
    RtpEmpty = "rtp_empty",
    RtpMuted = "rtp_muted",
    /// More packets of one track than [`Limits::track_packets_per_second`](crate::Limits).
    RtpFlood = "rtp_flood",
    /// Not among the voices that are heard, or no slot for another program.
    RtpNoSlot = "rtp_no_slot",
    /// Older than what its slot has sent already from another source.
    RtpStale = "rtp_stale",
    /// Larger than a datagram that we send.
    RtpTooLarge = "rtp_too_large",
    /// Asked for again, but no longer there, or too often.
    NackUnanswered = "nack_unanswered",
    /// An item of another shard that is no item.
    BusMalformed = "bus_malformed",
    /// An item about a room, a slot or a track that is not so here any more, or not yet.
    BusStale = "bus_stale",
    /// More items for other shards than the arena holds.
    BusFull = "bus_full",
    RtcpMalformed = "rtcp_malformed",
    RtcpUnauthenticated = "rtcp_unauthenticated",
    /// The turn's output is full.
    TransmitsFull = "transmits_full",
    /// A sealing context refused: its key has seen all its indices.
    SealExhausted = "seal_exhausted",
    /// A repeatable event, because the shell has not taken those that wait. Beginnings and ends of peers are kept.
    EventsFull = "events_full",
}
