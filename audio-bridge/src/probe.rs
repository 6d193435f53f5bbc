//! `audio-bridge probe`: plays a tone into the desktop and into the virtual microphone, listens where it must come back and
//! where it must not, and says in words what it found. Needs the sound daemon only, neither room nor network; a bridge
//! that runs at the same time publishes the tone.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::config::DeviceSettings;
use crate::metrics::Metrics;
use crate::pcm::{CAPTURE_CHANNELS, Captured, PcmSink, PcmSource, SAMPLE_RATE};
use crate::pulse::playback::PlaybackSettings;
use crate::pulse::record::RecordSettings;
use crate::pulse::{PulseSink, PulseSource};
use crate::status::{DeviceState, Status};
use crate::synthetic::{Tone, amplitude_at};

const TONE_HZ: f64 = 1000.0;
/// A quarter of full scale.
const AMPLITUDE: f64 = 8192.0;
/// The first sample of the tone that counts as heard.
const HEARD_ABOVE: u16 = 1000;
const TONE: Duration = Duration::from_millis(1200);
/// Streams run before the tone: an idle null sink works in blocks of two seconds.
const SETTLE: Duration = Duration::from_millis(2500);
const PATIENCE: Duration = Duration::from_secs(12);
const FRAGMENT_MS: u32 = 10;
/// What is quieter than this, against the tone, is not there.
const LEAK_DB: f64 = -60.0;
const LEVEL_ERROR_DB_MAX: f64 = 1.0;
const LATENCY_MAX: Duration = Duration::from_millis(200);

/// A tone's way from a sink to a source.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    pub from: String,
    pub to: String,
    /// The tone should come back there.
    pub wanted: bool,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A stream could not be opened, for this reason.
    NoStream(String),
    Nothing,
    /// The tone's level against what was played, and how long its first sample took.
    Heard {
        level_db: f64,
        latency: Option<Duration>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Findings(pub Vec<Path>);

pub async fn probe(settings: &DeviceSettings) -> Findings {
    let DeviceSettings { source, sink, microphone, .. } = settings;
    let mut paths = Vec::new();
    if let Some(desktop) = source.strip_suffix(".monitor") {
        paths.extend(play_and_listen(settings, desktop, [(source, true), (microphone, false)]).await);
    }
    paths.extend(play_and_listen(settings, sink, [(microphone, true), (source, false)]).await);
    Findings(paths)
}

/// Plays the tone into a sink and listens at two sources at once.
async fn play_and_listen(settings: &DeviceSettings, sink: &str, at: [(&String, bool); 2]) -> [Path; 2] {
    let (status, metrics) = (Arc::new(Status::new(String::new(), sink.to_owned())), Metrics::new().0);
    let playback = PlaybackSettings { pulse: settings.pulse.clone(), sink: sink.to_owned() };
    let player = PulseSink::new(playback, Arc::clone(&status), metrics);
    let begin = Instant::now() + SETTLE;
    let [(first, first_wanted), (second, second_wanted)] = at;
    let (played, heard_first, heard_second) = tokio::join!(
        timeout(PATIENCE, play(player, begin)),
        listen(settings, first, begin),
        listen(settings, second, begin),
    );
    let path = |to: &String, wanted, heard: Result<Recording, String>| {
        let outcome = match (&played, heard) {
            (Err(_), _) => Outcome::NoStream(reason(&status, true)),
            (Ok(_), Err(reason)) => Outcome::NoStream(reason),
            (Ok(written), Ok(recording)) => recording.judge(*written),
        };
        Path { from: sink.to_owned(), to: to.clone(), wanted, outcome }
    };
    [path(first, first_wanted, heard_first), path(second, second_wanted, heard_second)]
}

/// Plays silence until `begin`, then the tone. Says when its first sample was handed over.
async fn play(mut sink: PulseSink, begin: Instant) -> Instant {
    let mut tone = Tone::new(TONE_HZ, AMPLITUDE);
    let mut written: Option<Instant> = None;
    let mut samples = Vec::new();
    loop {
        let wanted = sink.wanted().await;
        samples.clear();
        samples.resize(wanted, 0);
        let now = Instant::now();
        if now >= begin {
            let started = *written.get_or_insert(now);
            if now.saturating_duration_since(started) > TONE {
                return started;
            }
            tone.fill(&mut samples);
        }
        sink.write(&samples).await;
    }
}

struct Recording {
    /// Left channel, from the beginning of the tone on.
    sound: Vec<i16>,
    first_loud: Option<Instant>,
}

/// Records from before the tone until after it.
async fn listen(settings: &DeviceSettings, source: &str, begin: Instant) -> Result<Recording, String> {
    let status = Arc::new(Status::new(source.to_owned(), String::new()));
    let record = RecordSettings {
        pulse: settings.pulse.clone(),
        source: source.to_owned(),
        fragment_ms: Arc::new(FRAGMENT_MS.into()),
    };
    let mut source = PulseSource::new(record, Arc::clone(&status), Metrics::new().0);
    let mut recording = Recording { sound: Vec::new(), first_loud: None };
    let reading = async {
        let mut chunk = Vec::new();
        while Instant::now() < begin + TONE {
            chunk.clear();
            let Captured::Chunk { at } = source.read(&mut chunk).await else { continue };
            if at < begin {
                continue;
            }
            if chunk.iter().any(|sample| sample.unsigned_abs() > HEARD_ABOVE) {
                recording.first_loud.get_or_insert(at);
            }
            recording.sound.extend(chunk.iter().step_by(CAPTURE_CHANNELS));
        }
    };
    let whole = timeout(PATIENCE, reading).await;
    if whole.is_err() && recording.sound.is_empty() {
        return Err(reason(&status, false));
    }
    Ok(recording)
}

fn reason(status: &Status, playback: bool) -> String {
    let report = status.report();
    let (state, error) =
        if playback { (report.playback, report.playback_error) } else { (report.pulse, report.pulse_error) };
    error.unwrap_or_else(|| match state {
        DeviceState::WaitingForDevice => "there is no such device".to_owned(),
        DeviceState::Suspended => "the device is suspended".to_owned(),
        DeviceState::Connecting | DeviceState::Connected => "no sound flows".to_owned(),
    })
}

impl Recording {
    fn judge(&self, written: Instant) -> Outcome {
        // The best half second: the tone begins somewhere in the recording.
        let window = SAMPLE_RATE as usize / 2;
        let levels = self.sound.windows(window).step_by(window / 5).map(|sound| amplitude_at(sound, TONE_HZ));
        let level_db = 20.0 * (levels.fold(0.0, f64::max).max(0.01) / AMPLITUDE).log10();
        if level_db < LEAK_DB {
            return Outcome::Nothing;
        }
        Outcome::Heard { level_db, latency: self.first_loud.map(|at| at.saturating_duration_since(written)) }
    }
}

impl Path {
    #[must_use]
    pub fn is_good(&self) -> bool {
        match (&self.outcome, self.wanted) {
            (Outcome::Nothing, wanted) => !wanted,
            (Outcome::NoStream(_), _) | (Outcome::Heard { .. }, false) => false,
            (Outcome::Heard { level_db, latency }, true) => {
                level_db.abs() <= LEVEL_ERROR_DB_MAX && latency.is_some_and(|latency| latency <= LATENCY_MAX)
            }
        }
    }
}

impl Findings {
    #[must_use]
    pub fn are_good(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(Path::is_good)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_good() { "good" } else { "BAD" };
        write!(f, "{verdict}: ")?;
        let Self { from, to, .. } = self;
        match (&self.outcome, self.wanted) {
            (Outcome::NoStream(reason), _) => {
                write!(f, "what is played into {from} could not be tried at {to}: {reason}")
            }
            (Outcome::Nothing, true) => write!(f, "what is played into {from} does not arrive at {to}"),
            (Outcome::Nothing, false) => write!(f, "what is played into {from} stays out of {to}"),
            (Outcome::Heard { level_db, .. }, false) => {
                write!(f, "what is played into {from} leaks into {to}, {level_db:.0} dB below the tone")
            }
            (Outcome::Heard { level_db, latency }, true) => {
                write!(f, "what is played into {from} arrives at {to}, ")?;
                match level_db.abs() <= LEVEL_ERROR_DB_MAX {
                    true => write!(f, "at its level ({level_db:+.2} dB), ")?,
                    false => write!(f, "with a level that is {level_db:+.1} dB off (is a volume not at 100 %?), ")?,
                }
                match latency {
                    Some(latency) => write!(f, "after {} ms", latency.as_millis()),
                    None => write!(f, "too quiet to time it"),
                }
            }
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|path| writeln!(f, "{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(wanted: bool, outcome: Outcome) -> Path {
        Path { from: "desktop".to_owned(), to: "desktop.monitor".to_owned(), wanted, outcome }
    }

    #[test]
    fn the_words_say_what_is_wrong() {
        let heard = |level_db, ms| Outcome::Heard { level_db, latency: Some(Duration::from_millis(ms)) };
        for (path, words, good) in [
            (path(true, heard(-0.01, 14)), "at its level (-0.01 dB), after 14 ms", true),
            (path(true, heard(-6.0, 14)), "-6.0 dB off", false),
            (path(true, heard(0.0, 1900)), "after 1900 ms", false),
            (path(true, Outcome::Nothing), "does not arrive", false),
            (path(false, Outcome::Nothing), "stays out", true),
            (path(false, heard(-30.0, 10)), "leaks into desktop.monitor, -30 dB", false),
            (path(true, Outcome::NoStream("no such device".to_owned())), "no such device", false),
        ] {
            assert_eq!(path.is_good(), good, "{path}");
            assert!(path.to_string().contains(words), "{path}");
        }
        assert!(!Findings(Vec::new()).are_good());
    }

    #[test]
    fn a_recording_is_judged_by_its_best_half_second() {
        let mut tone = Tone::new(TONE_HZ, AMPLITUDE);
        let mut sound = vec![0; 20_000];
        sound.extend((0..40_000).map(|_| tone.next_sample()));
        let outcome = Recording { sound, first_loud: None }.judge(Instant::now());
        assert!(matches!(outcome, Outcome::Heard { level_db, latency: None } if level_db.abs() < 0.1), "{outcome:?}");
        let silence = Recording { sound: vec![0; 48_000], first_loud: None };
        assert_eq!(silence.judge(Instant::now()), Outcome::Nothing);
    }
}
