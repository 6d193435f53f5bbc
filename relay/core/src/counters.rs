//! What a server counts: plain numbers of its own thread, read by the process that publishes them.

/// Why something that arrived had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Neither STUN nor channel data, or malformed, or with a wrong FINGERPRINT.
    Malformed,
    /// A STUN response, or a method or indication that no client sends.
    Unexpected,
    /// Channel data or a Send indication of a client without allocation.
    NoAllocation,
    UnboundChannel,
    NoPermission,
    /// A peer that the policy denies, in a Send indication.
    DeniedPeer,
    /// The token bucket of the allocation.
    OverRate,
    /// A source over its limit of unauthenticated answers.
    SilencedSource,
    /// A source over its limit of wrong credentials.
    SilencedFailures,
    /// A peer's datagram that no message to the client can hold.
    TooLong,
}

impl DropReason {
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Unexpected,
        Self::NoAllocation,
        Self::UnboundChannel,
        Self::NoPermission,
        Self::DeniedPeer,
        Self::OverRate,
        Self::SilencedSource,
        Self::SilencedFailures,
        Self::TooLong,
    ];

    /// The value of a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unexpected => "unexpected",
            Self::NoAllocation => "no_allocation",
            Self::UnboundChannel => "unbound_channel",
            Self::NoPermission => "no_permission",
            Self::DeniedPeer => "denied_peer",
            Self::OverRate => "over_rate",
            Self::SilencedSource => "silenced_source",
            Self::SilencedFailures => "silenced_failures",
            Self::TooLong => "too_long",
        }
    }
}

/// How requests ended: success, or a code of the refusals that this server gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(pub u16);

impl Outcome {
    pub const SUCCESS: Self = Self(200);
    pub const ALL: [Self; 18] = [
        Self::SUCCESS,
        Self(300),
        Self(400),
        Self(401),
        Self(403),
        Self(405),
        Self(420),
        Self(437),
        Self(438),
        Self(440),
        Self(441),
        Self(442),
        Self(443),
        Self(446),
        Self(447),
        Self(486),
        Self(500),
        Self(508),
    ];
}

#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub bindings: u64,
    pub allocations_made: u64,
    pub allocations_expired: u64,
    /// Wrong user name, password or expired credential.
    pub credential_failures: u64,
    pub to_peer_packets: u64,
    pub to_peer_bytes: u64,
    pub to_client_packets: u64,
    pub to_client_bytes: u64,
    dropped: [u64; DropReason::ALL.len()],
    answered: [u64; Outcome::ALL.len()],
}

impl Counters {
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    pub fn answered(&self, outcome: Outcome) -> u64 {
        Outcome::ALL.iter().position(|known| *known == outcome).map_or(0, |at| self.answered[at])
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason) {
        self.dropped[reason as usize] += 1;
    }

    pub(crate) fn count_answer(&mut self, code: u16) {
        if let Some(at) = Outcome::ALL.iter().position(|known| known.0 == code) {
            self.answered[at] += 1;
        }
    }
}
