//! What may be changed while the bridge runs, and the routes for it on the admin port: `GET` shows, `PUT` changes what the
//! body names and leaves the rest. Nothing is written to the settings file: a restart brings its values back.
//!
//! - `/v1/encode`: `{"profile": "studio", "bitrate": 256000, "frame_ms": 10}`. A profile alone brings its own values.
//! - `/v1/speakers`: `{"may_speak": "role:moderator", "gains": "alice=0.5"}`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::Settings;
use crate::playout::Playout;
use crate::profile::{EncodeSettings, Profile};
use crate::speakers::{Gains, MaySpeak, Speakers};

#[derive(Debug)]
pub struct Controls {
    pub encode: watch::Sender<EncodeSettings>,
    /// The daemon is asked for sound in pieces of a frame.
    pub fragment_ms: Arc<AtomicU32>,
    pub playout: Arc<Mutex<Playout>>,
    pub speakers: Arc<Speakers>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodeChange {
    profile: Option<Profile>,
    bitrate: Option<u32>,
    frame_ms: Option<u32>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpeakersChange {
    may_speak: Option<MaySpeak>,
    gains: Option<Gains>,
}

impl Controls {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self::with(settings.encode, settings.may_speak.clone(), settings.gains.clone())
    }

    fn with(encode: EncodeSettings, may_speak: MaySpeak, gains: Gains) -> Self {
        let playout = Arc::new(Mutex::new(Playout::default()));
        let speakers = Arc::new(Speakers::new(may_speak, gains, Arc::clone(&playout)));
        let fragment_ms = Arc::new(AtomicU32::new(encode.frame_ms));
        Self { encode: watch::channel(encode).0, fragment_ms, playout, speakers }
    }

    fn change_encode(&self, change: &EncodeChange) -> Result<EncodeSettings, String> {
        let now = *self.encode.borrow();
        let kept = |value| Some(value).filter(|_| change.profile.is_none());
        let settings = EncodeSettings::new(
            change.profile.unwrap_or(now.profile),
            change.bitrate.or(kept(now.bitrate_bps)),
            change.frame_ms.or(kept(now.frame_ms)),
        )
        .map_err(|error| error.to_string())?;
        self.fragment_ms.store(settings.frame_ms, Ordering::Relaxed);
        self.encode.send_if_modified(|now| std::mem::replace(now, settings) != settings);
        Ok(settings)
    }

    fn change_speakers(&self, change: SpeakersChange) -> SpeakersChange {
        self.speakers.set(change.may_speak, change.gains);
        let (may_speak, gains) = self.speakers.rules();
        SpeakersChange { may_speak: Some(may_speak), gains: Some(gains) }
    }
}

type Shared = State<Arc<Controls>>;

pub fn routes(controls: Arc<Controls>) -> Router {
    let encode = get(async |State(controls): Shared| Json(*controls.encode.borrow())).put(
        async |State(controls): Shared, Json(change): Json<EncodeChange>| {
            controls.change_encode(&change).map(Json).map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error))
        },
    );
    let speakers = get(async |State(controls): Shared| Json(controls.change_speakers(SpeakersChange::default())))
        .put(async |State(controls): Shared, Json(change): Json<SpeakersChange>| {
            Json(controls.change_speakers(change))
        });
    Router::new().route("/v1/encode", encode).route("/v1/speakers", speakers).with_state(controls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controls() -> Controls {
        Controls::with(EncodeSettings::default(), MaySpeak::All, Gains::default())
    }

    #[test]
    fn a_profile_brings_its_values_and_parts_change_alone() {
        let controls = controls();
        let change = |json| {
            let change: EncodeChange = serde_json::from_str(json).expect("a change");
            controls.change_encode(&change).map(|s| (s.profile, s.bitrate_bps, s.frame_ms))
        };
        assert_eq!(change(r#"{"bitrate": 256000}"#), Ok((Profile::Music, 256_000, 10)));
        assert_eq!(change(r#"{"frame_ms": 20}"#), Ok((Profile::Music, 256_000, 20)));
        assert_eq!(change(r#"{"profile": "instant"}"#), Ok((Profile::Instant, 128_000, 5)));
        assert_eq!(controls.fragment_ms.load(Ordering::Relaxed), 5);
        assert!(change(r#"{"frame_ms": 7}"#).is_err_and(|error| error.contains("frame_ms")));
        assert_eq!(controls.encode.borrow().frame_ms, 5, "a refused change changes nothing");
        assert!(serde_json::from_str::<EncodeChange>(r#"{"bitrat": 1}"#).is_err());
    }

    #[test]
    fn speakers_change_and_are_shown() {
        let controls = controls();
        let change = serde_json::from_str(r#"{"may_speak": "identity:alice"}"#).expect("a change");
        controls.change_speakers(change);
        let change = serde_json::from_str(r#"{"gains": "alice=0.5"}"#).expect("a change");
        let shown = serde_json::to_value(controls.change_speakers(change)).expect("serialises");
        assert_eq!(shown, serde_json::json!({"may_speak": "identity:alice", "gains": "alice=0.5"}));
        assert!(serde_json::from_str::<SpeakersChange>(r#"{"may_speak": "everybody"}"#).is_err());
    }
}
