//! Sees that the other side ends the DTLS association (close_notify, RFC 5246 section 7.2.1 and RFC 8446 section 6.1). The
//! media library answers it and tells nobody: it has no event for DTLS, and in the state of the connection an association
//! that is closed counts like one that stands, as W3C has it. What it does have is the state of DTLS itself, to be read;
//! so this reads it. Other alerts change nothing there: such an end is seen when ICE gets no more answers.

use std::sync::Arc;
use std::time::Duration;

use ::webrtc::error::Result;
use ::webrtc::peer_connection::PeerConnection;
use ::webrtc::peer_connection::transport::DtlsTransport;
use rtc::peer_connection::transport::RTCDtlsTransportState;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::PeerState;

/// Less than anybody hears, and a short lock each time.
const LOOK: Duration = Duration::from_millis(100);

/// Looks as long as it lives.
pub(super) struct Closing(AbortHandle);

impl Closing {
    /// For a connection that has its answer; nothing where it has nothing to send by.
    pub(super) async fn watch(
        connection: &dyn PeerConnection,
        state: watch::Sender<PeerState>,
    ) -> Result<Option<Self>> {
        let Some(sender) = connection.get_senders().await.into_iter().next() else { return Ok(None) };
        let transport = sender.transport().await?;
        Ok(transport.map(|transport| Self(tokio::spawn(look(transport, state)).abort_handle())))
    }

    /// What closes from now on, we close ourselves.
    pub(super) fn stop(&self) {
        self.0.abort();
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn look(transport: Arc<dyn DtlsTransport>, state: watch::Sender<PeerState>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match transport.state().await {
            Ok(RTCDtlsTransportState::Closed) => return PeerState::Closed.tell(&state),
            Ok(_) => {}
            // The connection is gone.
            Err(_) => return,
        }
    }
}
