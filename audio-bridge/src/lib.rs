//! The audio-bridge: publishes the sound of a desktop in a room, and plays the room's voices into the desktop's virtual
//! microphone. It joins the room like every other participant and has no special rights there.
//!
//! ```text
//! daemon -> pulse::PulseSource -> intake -> silence -> codec::Encoder -> queue -> publish -> webrtc::Peer -> node
//! daemon <- pulse::PulseSink <- mixer <- voice (jitter, codec::Decoder) <- playout <------- webrtc::Peer <- node
//!                                                         session: joins, offers, and starts again after any loss
//!                                                         whip: the same for a WHIP server, without voices
//! ```
//!
//! Capture runs whether somebody listens or not, every queue on the way drops its oldest sound when it is full, and
//! everything that can be lost is looked for again for ever.

pub mod backoff;
pub mod capture;
pub mod change;
pub mod codec;
pub mod config;
pub mod devices;
mod follow;
pub mod framing;
pub mod ice;
pub mod intake;
pub mod jitter;
pub mod loss;
pub mod metrics;
pub mod mixer;
pub mod offer;
pub mod patience;
pub mod pcm;
pub mod playout;
pub mod probe;
pub mod profile;
pub mod publish;
pub mod pulse;
pub mod queue;
pub mod red;
pub mod resample;
pub mod rtp_clock;
pub mod session;
pub mod silence;
pub mod speakers;
pub mod status;
pub mod stretch;
pub mod synthetic;
pub mod voice;
pub mod webrtc;
pub mod whip;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use signaling_protocol::client::{Trust, TrustError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use capture::{Capture, CaptureSettings};
use change::Controls;
pub use config::Args;
use config::{ConfigError, Destination, DeviceSettings, Settings};
use devices::Inventory;
use metrics::Metrics;
use pcm::PcmSink;
use playout::Playout;
use probe::Findings;
use pulse::playback::PlaybackSettings;
use pulse::record::RecordSettings;
use pulse::{PulseSink, PulseSource};
use queue::DropOldest;
use session::{Session, SessionSettings};
use status::Status;
use whip::{Publication, WhipSettings};

/// Fills of the virtual microphone between two looks at the voices' counters: about a second.
const FILLS_PER_REPORT: u32 = 64;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Logs(#[from] admin::logs::LogsError),
    #[error("certificates in {path} cannot be read: {source}")]
    Trust { path: PathBuf, source: std::io::Error },
    #[error("file {path} of key trust is of no use: {source}; it takes certificates in PEM")]
    NoRoots { path: PathBuf, source: TrustError },
    #[error("encoder cannot be made: {0}")]
    Codec(#[from] codec::CodecError),
    #[error("admin address {address} cannot be used: {source}")]
    Admin { address: std::net::SocketAddr, source: std::io::Error },
    #[error("sound daemon: {0}")]
    Daemon(#[from] pulse::PulseFailure),
    #[error("process cannot be set up: {0}")]
    Setup(#[source] std::io::Error),
    #[error("a task of the bridge ended: {0}")]
    TaskEnded(String),
}

/// The process: from the flags to the end by signal.
pub fn run(args: &Args) -> Result<(), RunError> {
    let settings = Settings::load(args)?;
    admin::logs::init(settings.log, &settings.log_filter)?;
    runtime()?.block_on(bridge(settings))
}

/// What the daemon has.
pub fn devices(args: &Args) -> Result<Inventory, RunError> {
    let settings = DeviceSettings::load(args)?;
    Ok(runtime()?.block_on(devices::look(&settings))?)
}

/// Tries the desktop's devices with a tone.
pub fn probe(args: &Args) -> Result<Findings, RunError> {
    let settings = DeviceSettings::load(args)?;
    Ok(runtime()?.block_on(probe::probe(&settings)))
}

/// One thread: all of it is a few percent of a core, and a second thread costs more in waking it than it takes over.
fn runtime() -> Result<tokio::runtime::Runtime, RunError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Setup)
}

async fn bridge(settings: Settings) -> Result<(), RunError> {
    let (metrics, registry) = Metrics::new();
    let status = Arc::new(Status::new(settings.source.clone(), settings.sink.clone()));
    let controls = Arc::new(Controls::new(&settings));
    let routes = Router::new()
        .route("/v1/status", get(async |State(status): State<Arc<Status>>| Json(status.report())))
        .with_state(Arc::clone(&status))
        .merge(change::routes(Arc::clone(&controls)));
    let admin = admin::server::serve(settings.admin, registry, status.readiness(), Some(routes))
        .await
        .map_err(|source| RunError::Admin { address: settings.admin, source })?;
    tracing::info!(admin = %admin.local_addr(), source = settings.source, sink = settings.sink, "Started");

    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let participation = spawn(&mut tasks, &settings, &controls, &status, &metrics, stopped)?;
    let outcome = tokio::select! {
        signal = admin::shutdown::signal() => {
            tracing::info!(signal = signal.map_err(RunError::Setup)?, "Ending");
            Ok(())
        }
        ended = tasks.join_next() => {
            Err(RunError::TaskEnded(ended.and_then(Result::err).map_or_else(String::new, |error| error.to_string())))
        }
    };
    stop.send_replace(true);
    // It says goodbye to the room and has its own time limit for that.
    let _ = participation.await;
    tasks.shutdown().await;
    admin.stop().await;
    outcome
}

/// Starts everything between the daemon and the room; the handle is the participation, which ends when told.
fn spawn(
    tasks: &mut JoinSet<()>,
    settings: &Settings,
    controls: &Controls,
    status: &Arc<Status>,
    metrics: &Arc<Metrics>,
    stopped: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<()>, RunError> {
    let queue = Arc::new(DropOldest::for_frames(settings.encode.frame_ms));
    let capture_settings =
        CaptureSettings { encode: settings.encode, timestamp: rand::random(), silence_gate: settings.silence_gate };
    let capture = Capture::new(capture_settings, Arc::clone(&queue), Arc::clone(metrics))?;
    let record = RecordSettings {
        pulse: settings.pulse.clone(),
        source: settings.source.clone(),
        fragment_ms: Arc::clone(&controls.fragment_ms),
    };
    let source = PulseSource::new(record, Arc::clone(status), Arc::clone(metrics));
    tasks.spawn(capture::run(source, capture, controls.encode.subscribe()));

    let trust = trust(settings.trust.as_deref())?;
    let (ssrc, ice_servers) = (rand::random(), settings.ice_servers.clone());
    match &settings.destination {
        Destination::Room { url, token } => {
            let playout = Arc::clone(&controls.playout);
            let playback = PlaybackSettings { pulse: settings.pulse.clone(), sink: settings.sink.clone() };
            let sink = PulseSink::new(playback, Arc::clone(status), Arc::clone(metrics));
            tasks.spawn(play(sink, Arc::clone(&playout), Arc::clone(status), Arc::clone(metrics)));
            let session_settings =
                SessionSettings { url: url.clone(), token: token.clone(), trust, ssrc, ice_servers };
            let speakers = Arc::clone(&controls.speakers);
            let (session, outlet) =
                Session::new(session_settings, playout, speakers, Arc::clone(status), Arc::clone(metrics));
            tasks.spawn(publish::run(queue, outlet, settings.redundancy, Arc::clone(metrics)));
            Ok(tokio::spawn(session.run(stopped)))
        }
        Destination::Whip { url, token } => {
            let whip_settings = WhipSettings { url: url.clone(), token: token.clone(), trust, ssrc, ice_servers };
            let (publication, outlet) = Publication::new(whip_settings, Arc::clone(status), Arc::clone(metrics));
            tasks.spawn(publish::run(queue, outlet, settings.redundancy, Arc::clone(metrics)));
            Ok(tokio::spawn(publication.run(stopped)))
        }
    }
}

/// A file without usable certificates is found at the start, not at each connection.
fn trust(file: Option<&Path>) -> Result<Trust, RunError> {
    let Some(path) = file else { return Ok(Trust::System) };
    let pem = std::fs::read(path).map_err(|source| RunError::Trust { path: path.to_owned(), source })?;
    let trust = Trust::Roots(pem);
    trust.client_config().map_err(|source| RunError::NoRoots { path: path.to_owned(), source })?;
    Ok(trust)
}

/// Gives the sink what it asks for, for ever.
pub async fn play(mut sink: impl PcmSink, playout: Arc<Mutex<Playout>>, status: Arc<Status>, metrics: Arc<Metrics>) {
    let mut samples = Vec::new();
    let mut fills = 0_u32;
    loop {
        let wanted = sink.wanted().await;
        samples.resize(wanted, 0);
        {
            let mut playout = playout.lock().unwrap_or_else(PoisonError::into_inner);
            playout.fill(Instant::now(), &mut samples);
            fills = fills.wrapping_add(1);
            if fills.is_multiple_of(FILLS_PER_REPORT) {
                metrics.copy_playout(&playout);
                status.voices(playout.playing());
            }
        }
        sink.write(&samples).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trust_file_without_certificates_ends_the_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("trust.pem");
        let refused = |content: &str| {
            std::fs::write(&file, content).expect("writes");
            trust(Some(&file)).expect_err("refused").to_string()
        };
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for content in ["", "no certificate", broken] {
            let text = refused(content);
            assert!(text.contains("key trust") && text.contains("trust.pem") && text.contains("PEM"), "{text}");
        }
        assert!(matches!(trust(Some(&folder.path().join("absent"))), Err(RunError::Trust { .. })));
        assert!(matches!(trust(None), Ok(Trust::System)));
    }
}
