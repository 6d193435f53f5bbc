//! What the bridge is doing now, for `/v1/status`, `/readyz` and the log. A state is logged when it changes and not
//! while it stays; the reason of a failure likewise.

use std::sync::{Mutex, PoisonError};

use admin::Readiness;
use admin::failure::in_full;
use serde::Serialize;

/// Parts of `/readyz`.
pub const PARTS: [&str; 2] = ["capture", "media"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamSide {
    /// Desktop sound.
    Capture,
    /// The virtual microphone.
    Playback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    Connecting,
    /// The daemon is there, the named device is not.
    WaitingForDevice,
    Connected,
    Suspended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SignalingState {
    Connecting,
    Joined,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaState {
    Disconnected,
    Connecting,
    Connected,
}

/// As `/v1/status` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub version: &'static str,
    /// The capture stream.
    pub pulse: DeviceState,
    pub source: String,
    /// Why the capture stream is not connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pulse_error: Option<String>,
    pub playback: DeviceState,
    pub sink: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub playback_error: Option<String>,
    pub signaling: SignalingState,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signaling_error: Option<String>,
    pub media: MediaState,
    /// Why the last media connection ended, until there is one again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Voices that are heard in the virtual microphone now.
    pub voices: usize,
}

#[derive(Debug)]
pub struct Status {
    report: Mutex<Report>,
    readiness: Readiness,
}

impl Status {
    #[must_use]
    pub fn new(source: String, sink: String) -> Self {
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            pulse: DeviceState::Connecting,
            source,
            pulse_error: None,
            playback: DeviceState::Connecting,
            sink,
            playback_error: None,
            signaling: SignalingState::Connecting,
            signaling_error: None,
            media: MediaState::Disconnected,
            media_error: None,
            room: None,
            peer: None,
            voices: 0,
        };
        Self { report: Mutex::new(report), readiness: Readiness::new(&PARTS) }
    }

    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    #[must_use]
    pub fn report(&self) -> Report {
        self.lock().clone()
    }

    pub fn device(&self, side: StreamSide, state: DeviceState) {
        let mut report = self.lock();
        let (current, error, device) = report.device(side);
        let changed = *current != state;
        *current = state;
        // An attempt that only begins keeps the reason of the last failure in sight.
        if state != DeviceState::Connecting {
            *error = None;
        }
        if changed && state != DeviceState::Connecting {
            tracing::info!(device, ?state, "{} changed", side.name());
        }
        drop(report);
        if side == StreamSide::Capture {
            self.ready("capture", state == DeviceState::Connected, || format!("{state:?}"));
        }
    }

    /// The connection to the daemon failed and will be tried again.
    pub fn device_failed(&self, side: StreamSide, failure: &(dyn std::error::Error + 'static)) {
        let reason = in_full(failure);
        let mut report = self.lock();
        let (current, error, device) = report.device(side);
        *current = DeviceState::Connecting;
        if error.as_ref() != Some(&reason) {
            tracing::warn!(device, reason, "{} failed; trying again until it works", side.name());
            *error = Some(reason.clone());
        }
        drop(report);
        if side == StreamSide::Capture {
            self.ready("capture", false, || reason);
        }
    }

    pub fn joined(&self, room: &str, peer: &str) {
        let mut report = self.lock();
        report.room = Some(room.to_owned());
        report.peer = Some(peer.to_owned());
        report.signaling_error = None;
        if report.signaling != SignalingState::Joined {
            report.signaling = SignalingState::Joined;
            tracing::info!(room, peer, "Joined the room");
        }
    }

    /// A WHIP server took our offer.
    pub fn published(&self, host: &str) {
        let mut report = self.lock();
        report.signaling_error = None;
        if report.signaling != SignalingState::Joined {
            report.signaling = SignalingState::Joined;
            tracing::info!(host, "Publishing to a WHIP server");
        }
    }

    pub fn signaling_failed(&self, failure: &(dyn std::error::Error + 'static)) {
        self.lock().signaling = SignalingState::Connecting;
        self.signaling_refused(failure);
    }

    /// Signalling is there and refuses for now.
    pub fn signaling_refused(&self, failure: &(dyn std::error::Error + 'static)) {
        let reason = in_full(failure);
        let mut report = self.lock();
        if report.signaling_error.as_ref() != Some(&reason) {
            tracing::warn!(reason, "Signalling failed; trying again until it works");
            report.signaling_error = Some(reason);
        }
    }

    pub fn media(&self, state: MediaState) {
        let mut report = self.lock();
        if state == MediaState::Connected {
            report.signaling_error = None;
            report.media_error = None;
        }
        if report.media != state {
            report.media = state;
            tracing::info!(?state, "Media connection changed");
        }
        let error = report.media_error.clone();
        drop(report);
        self.ready("media", state == MediaState::Connected, || error.unwrap_or_else(|| format!("{state:?}")));
    }

    /// The media connection ended, and the next one will be tried.
    pub fn media_failed(&self, failure: &(dyn std::error::Error + 'static)) {
        let reason = in_full(failure);
        let mut report = self.lock();
        report.media = MediaState::Disconnected;
        if report.media_error.as_ref() != Some(&reason) {
            tracing::warn!(reason, "Media connection failed; trying again until it works");
            report.media_error = Some(reason.clone());
        }
        drop(report);
        self.ready("media", false, || reason);
    }

    /// Likewise, and with it went the session at the WHIP server.
    pub fn publication_failed(&self, failure: &(dyn std::error::Error + 'static)) {
        self.lock().signaling = SignalingState::Connecting;
        self.media_failed(failure);
    }

    pub fn voices(&self, voices: usize) {
        self.lock().voices = voices;
    }

    fn ready(&self, part: &'static str, ready: bool, reason: impl FnOnce() -> String) {
        if ready {
            self.readiness.ready(part);
        } else {
            self.readiness.not_ready(part, reason());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report {
    fn device(&mut self, side: StreamSide) -> (&mut DeviceState, &mut Option<String>, &str) {
        match side {
            StreamSide::Capture => (&mut self.pulse, &mut self.pulse_error, &self.source),
            StreamSide::Playback => (&mut self.playback, &mut self.playback_error, &self.sink),
        }
    }
}

impl StreamSide {
    const fn name(self) -> &'static str {
        match self {
            Self::Capture => "Capture of desktop sound",
            Self::Playback => "Virtual microphone",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_captured_and_connected() {
        let status = Status::new("desktop.monitor".to_owned(), "mic_in".to_owned());
        let readiness = status.readiness();
        status.device(StreamSide::Capture, DeviceState::Connected);
        assert!(!readiness.is_ready());
        status.media(MediaState::Connected);
        assert!(readiness.is_ready(), "the microphone side is not asked for");
        status.device(StreamSide::Capture, DeviceState::WaitingForDevice);
        assert!(!readiness.is_ready());
    }

    #[test]
    fn a_failure_stays_in_sight_until_it_is_over() {
        let status = Status::new("desktop.monitor".to_owned(), "mic_in".to_owned());
        let failure = std::io::Error::other("no such daemon");
        status.device_failed(StreamSide::Playback, &failure);
        status.device(StreamSide::Playback, DeviceState::Connecting);
        assert_eq!(status.report().playback_error.as_deref(), Some("no such daemon"));
        status.device(StreamSide::Playback, DeviceState::Connected);
        assert_eq!(status.report().playback_error, None);
    }

    #[test]
    fn the_end_of_a_media_connection_is_told_until_there_is_one_again() {
        let status = Status::new("desktop.monitor".to_owned(), "mic_in".to_owned());
        status.media(MediaState::Connected);
        status.media_failed(&std::io::Error::other("the other side ended it"));
        status.media(MediaState::Connecting);
        let report = status.report();
        assert_eq!(
            (report.media, report.media_error.as_deref()),
            (MediaState::Connecting, Some("the other side ended it"))
        );
        assert!(!status.readiness().is_ready());
        status.media(MediaState::Connected);
        assert_eq!(status.report().media_error, None);
    }

    #[test]
    fn the_report_has_the_documented_words() {
        let status = Status::new("desktop.monitor".to_owned(), "mic_in".to_owned());
        status.device(StreamSide::Capture, DeviceState::Connected);
        status.media(MediaState::Connected);
        let json = serde_json::to_value(status.report()).expect("serialises");
        assert_eq!((&json["pulse"], &json["media"]), (&"connected".into(), &"connected".into()));
        assert_eq!((&json["source"], &json["signaling"]), (&"desktop.monitor".into(), &"connecting".into()));
    }
}
