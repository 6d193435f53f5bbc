//! One media connection from its start to its end: what is known of it is told to status and metrics, and how it ended to
//! whoever has to make the next one. When that is, is not decided here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::status::{MediaState, Status};
use crate::webrtc::{Peer, PeerState};

/// ICE and DTLS take a few round trips; longer means that they never will.
const MEDIA_UP_MAX: Duration = Duration::from_secs(10);
/// Who ends a connection sooner than this did not want it, and would end the next one as well. Of two bridges that take
/// each other's place, each stands as long as the other waits and connects: more than that, or neither would ever wait
/// longer than the first time.
const STEADY: Duration = Backoff::closed().longest().saturating_mul(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    #[error(
        "media connection did not come up: UDP may be blocked, or the server cannot be reached at its candidates"
    )]
    NeverUp,
    #[error("media connection was lost")]
    Lost,
    #[error("the server ended the media connection")]
    Closed,
}

/// How a media connection ended, and how long it stood.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) error: MediaError,
    stood: Option<Duration>,
}

impl Ending {
    pub(crate) const LOST: Self = Self { error: MediaError::Lost, stood: None };

    pub(crate) fn new(state: PeerState, up: Option<Instant>) -> Self {
        let error = match (state, up) {
            (PeerState::Closed, _) => MediaError::Closed,
            (_, None) => MediaError::NeverUp,
            (_, Some(_)) => MediaError::Lost,
        };
        Self { error, stood: up.map(|up| up.elapsed()) }
    }

    /// Whether the next attempt may be made as if nothing had failed before. A loss is noticed late enough to be no circle.
    pub(crate) fn was_good(&self) -> bool {
        match self.error {
            MediaError::Closed => self.stood.is_some_and(|stood| stood >= STEADY),
            MediaError::NeverUp | MediaError::Lost => self.stood.is_some(),
        }
    }
}

/// Reports the state of a media connection until it is over, or does not come up in time, and then why: whoever makes the
/// next one may be busy with signalling.
pub(crate) async fn follow(peer: Arc<Peer>, status: Arc<Status>, metrics: Arc<Metrics>) -> Ending {
    let ending = until_over(&peer, &status, &metrics).await;
    status.media_failed(&ending.error);
    ending
}

async fn until_over(peer: &Peer, status: &Status, metrics: &Metrics) -> Ending {
    let mut state = peer.state();
    let mut up = None;
    loop {
        let current = *state.borrow_and_update();
        let next = match current {
            PeerState::Lost | PeerState::Closed => return Ending::new(current, up),
            PeerState::Connected => {
                up.get_or_insert_with(Instant::now);
                metrics.media_connections.inc();
                status.media(MediaState::Connected);
                state.changed().await.is_ok()
            }
            PeerState::Connecting => {
                status.media(MediaState::Connecting);
                matches!(timeout(MEDIA_UP_MAX, state.changed()).await, Ok(Ok(())))
            }
        };
        if !next {
            return Ending::new(PeerState::Lost, up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_end_is_told_apart_by_who_made_it_and_whether_it_was_up() {
        let up = Some(Instant::now());
        for (state, up, error) in [
            (PeerState::Lost, None, MediaError::NeverUp),
            (PeerState::Lost, up, MediaError::Lost),
            (PeerState::Closed, up, MediaError::Closed),
            (PeerState::Closed, None, MediaError::Closed),
        ] {
            assert_eq!(Ending::new(state, up).error, error);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_ends_what_he_has_just_taken_is_not_asked_as_if_nothing_were() {
        let up = Some(Instant::now());
        assert!(Ending::new(PeerState::Lost, up).was_good());
        assert!(!Ending::new(PeerState::Lost, None).was_good());
        tokio::time::advance(STEADY.saturating_sub(Duration::from_millis(1))).await;
        assert!(!Ending::new(PeerState::Closed, up).was_good());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(Ending::new(PeerState::Closed, up).was_good());
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_displace_each_other_do_not_take_the_others_wait_for_success() {
        let mut waits = Backoff::closed();
        for _ in 0..20 {
            let up = Some(Instant::now());
            tokio::time::advance(waits.next(1.0) + MEDIA_UP_MAX).await;
            let ending = Ending::new(PeerState::Closed, up);
            assert!(!ending.was_good(), "{ending:?}");
        }
    }
}
