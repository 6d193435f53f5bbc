//! The bridge against a real PulseAudio daemon: what it captures, what it never captures, and that it comes back after
//! everything that can go away. One daemon a test, one test at a time.

#![expect(clippy::print_stdout, reason = "figures of a run are worth keeping in its log")]

mod daemon;
mod pipewire;
mod traps;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use audio_bridge::capture::{self, Capture, CaptureSettings, Encoded};
use audio_bridge::config::DeviceSettings;
use audio_bridge::jitter::Packet;
use audio_bridge::metrics::Metrics;
use audio_bridge::pcm::{Captured, PcmSink, PcmSource};
use audio_bridge::playout::{Playout, SlotPacket};
use audio_bridge::profile::EncodeSettings;
use audio_bridge::pulse::playback::PlaybackSettings;
use audio_bridge::pulse::record::RecordSettings;
use audio_bridge::pulse::{PulseSettings, PulseSink, PulseSource};
use audio_bridge::queue::DropOldest;
use audio_bridge::status::{DeviceState, Report, Status};
use audio_bridge::synthetic::{Tone, amplitude_at, level};
use tokio::sync::watch;
use tokio::time::timeout;

use daemon::Daemon;

const AMPLITUDE: f64 = 8000.0;
/// For what takes milliseconds; generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bridge's ends on one daemon.
struct Bridge {
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    pulse: PulseSettings,
}

impl Bridge {
    fn on(pulse: PulseSettings) -> Self {
        let status = Arc::new(Status::new("desktop.monitor".to_owned(), "mic_in".to_owned()));
        Self { status, metrics: Metrics::new().0, pulse }
    }

    fn source(&self) -> PulseSource {
        self.source_named("desktop.monitor")
    }

    fn source_named(&self, source: &str) -> PulseSource {
        let settings =
            RecordSettings { pulse: self.pulse.clone(), source: source.to_owned(), fragment_ms: Arc::new(10.into()) };
        PulseSource::new(settings, Arc::clone(&self.status), Arc::clone(&self.metrics))
    }

    fn sink(&self, sink: &str) -> PulseSink {
        let settings = PlaybackSettings { pulse: self.pulse.clone(), sink: sink.to_owned() };
        PulseSink::new(settings, Arc::clone(&self.status), Arc::clone(&self.metrics))
    }

    async fn until(&self, what: &str, reached: impl Fn(&Report) -> bool) {
        let waiting = async {
            while !reached(&self.status.report()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}: {:?}", self.status.report());
    }
}

/// Reads until `seconds` of sound from `from` on are there; interleaved.
async fn capture_from(source: &mut PulseSource, seconds: f64, from: impl Fn(&[i16]) -> bool) -> Vec<i16> {
    let mut sound: Vec<i16> = Vec::new();
    let wanted = (seconds * 96_000.0) as usize;
    let reading = async {
        let mut chunk = Vec::new();
        while sound.len() < wanted {
            chunk.clear();
            source.read(&mut chunk).await;
            if !sound.is_empty() || from(&chunk) {
                sound.extend_from_slice(&chunk);
            }
        }
    };
    timeout(PATIENCE, reading).await.expect("sound comes");
    sound
}

fn audible(chunk: &[i16]) -> bool {
    chunk.iter().any(|&sample| sample.unsigned_abs() > 100)
}

fn stereo_tone(left_hz: f64, right_hz: f64, seconds: usize) -> Vec<i16> {
    let (mut left, mut right) = (Tone::new(left_hz, AMPLITUDE), Tone::new(right_hz, AMPLITUDE));
    (0..seconds * 48_000).flat_map(|_| [left.next_sample(), right.next_sample()]).collect()
}

fn channel(sound: &[i16], channel: usize) -> Vec<i16> {
    sound.iter().skip(channel).step_by(2).copied().collect()
}

/// The amplitude of a tone in its undisturbed parts: other programs' underruns on a busy machine do not count.
fn steady_amplitude(sound: &[i16], frequency_hz: f64) -> f64 {
    let mut windows: Vec<f64> = sound.chunks_exact(4800).map(|w| amplitude_at(w, frequency_hz)).collect();
    windows.sort_by(f64::total_cmp);
    windows.get(windows.len() * 3 / 4).copied().unwrap_or(0.0)
}

/// How far the voice of `talk` is from its level in the microphone, in dB. Of several recordings the best: a stall of the
/// machine bends one, and a wrong level is wrong in all.
fn voice_error_db(daemon: &Daemon) -> f64 {
    let mut errors_db = (0..5).map(|_| {
        let heard = tokio::task::block_in_place(|| daemon.record("mic", Duration::from_secs(3)));
        decibels(steady_amplitude(&heard[heard.len() / 2..], 1000.0) / AMPLITUDE)
    });
    let first = errors_db.next().unwrap_or(f64::NAN);
    if first.abs() < 1.0 { first } else { errors_db.find(|error| error.abs() < 1.0).unwrap_or(first) }
}

fn decibels(ratio: f64) -> f64 {
    20.0 * ratio.log10()
}

#[tokio::test]
async fn desktop_sound_is_captured_at_its_level_with_its_channels_apart() {
    let daemon = Daemon::start();
    for pulse in [daemon.unix(), daemon.tcp()] {
        let bridge = Bridge::on(pulse);
        let mut source = bridge.source();
        let _player = daemon.play("desktop", &stereo_tone(440.0, 1000.0, 10));
        let sound = capture_from(&mut source, 2.0, audible).await;
        let (left, right) = (channel(&sound[48_000..], 0), channel(&sound[48_000..], 1));
        let error_db = decibels(steady_amplitude(&left, 440.0) / AMPLITUDE);
        let separation_db = decibels(steady_amplitude(&left, 440.0) / steady_amplitude(&right, 440.0).max(0.01));
        println!("{}: level error {error_db:.3} dB, separation {separation_db:.0} dB", bridge.pulse.server);
        assert!(error_db.abs() < 0.2, "level is {error_db:.2} dB off");
        assert!(decibels(steady_amplitude(&right, 1000.0) / AMPLITUDE).abs() < 0.2);
        assert!(separation_db > 50.0, "channels are only {separation_db:.0} dB apart");
    }
}

#[tokio::test]
async fn the_first_sound_after_a_silence_comes_at_once() {
    let daemon = Daemon::start();
    let bridge = Bridge::on(daemon.unix());
    let mut source = bridge.source();
    let opening = Instant::now();
    capture_from(&mut source, 0.01, |_| true).await;
    println!("first packet {} ms after the start", opening.elapsed().as_millis());
    capture_from(&mut source, 3.0, |_| true).await;
    let mut delays_ms = Vec::new();
    for _ in 0..5 {
        let player = tokio::spawn(first_write(bridge.sink("desktop")));
        let sound = async {
            let mut chunk = Vec::new();
            loop {
                chunk.clear();
                if let Captured::Chunk { at } = source.read(&mut chunk).await
                    && audible(&chunk)
                {
                    return at;
                }
            }
        };
        let heard = timeout(PATIENCE, sound).await.expect("sound comes");
        let (written, sink) = player.await.expect("player runs");
        delays_ms.push(heard.saturating_duration_since(written).as_millis());
        drop(sink);
        capture_from(&mut source, 0.7, |_| true).await;
    }
    println!("first sound after {delays_ms:?} ms");
    // An idle null sink without a permanent low-latency stream takes up to 2000 ms.
    // A sink that has to wake up takes one to two seconds each time; a machine that stalls takes them now and then.
    assert!(delays_ms.iter().filter(|&&delay| delay < 1000).count() >= 3, "{delays_ms:?} ms");
}

/// Plays 200 ms of tone; says when the first sample was written.
async fn first_write(mut sink: PulseSink) -> (Instant, PulseSink) {
    let mut tone = Tone::new(440.0, AMPLITUDE);
    let mut written = None;
    let mut left: usize = 9600;
    while left > 0 {
        let wanted = sink.wanted().await.min(left);
        let samples: Vec<i16> = (0..wanted).map(|_| tone.next_sample()).collect();
        written.get_or_insert_with(Instant::now);
        sink.write(&samples).await;
        left -= wanted;
    }
    (written.expect("something was written"), sink)
}

#[tokio::test]
async fn a_removed_sink_never_makes_the_microphone_heard() {
    let daemon = Daemon::start();
    let bridge = Bridge::on(daemon.unix());
    let mut source = bridge.source();
    // While `desktop` is away `mic_in` becomes the default sink, and when it is back the daemon moves everything that
    // plays on the old default to it: the voices would be heard by the room, were their stream not forbidden to move.
    let mut sink = bridge.sink("mic_in");
    let voices = tokio::spawn(async move {
        let mut tone = Tone::new(1500.0, AMPLITUDE);
        loop {
            let wanted = sink.wanted().await;
            let samples: Vec<i16> = (0..wanted).map(|_| tone.next_sample()).collect();
            sink.write(&samples).await;
        }
    });
    capture_from(&mut source, 0.5, |_| true).await;
    daemon.remove_sink("desktop");

    let mut heard = Vec::new();
    let waiting = async {
        let mut chunk = Vec::new();
        loop {
            source.read(&mut chunk).await;
            heard.append(&mut chunk);
        }
    };
    assert!(timeout(Duration::from_secs(3), waiting).await.is_err(), "reading only waits now");
    assert_eq!(bridge.status.report().pulse, DeviceState::WaitingForDevice);
    assert!(level(&heard) < 1.0, "level {:.1} captured without the sink", level(&heard));

    daemon.add_desktop_sink();
    let back = Instant::now();
    let _player = daemon.play("desktop", &stereo_tone(440.0, 440.0, 10));
    let sound = capture_from(&mut source, 1.0, audible).await;
    println!("sound again {} ms after the sink came back (1 s of it included)", back.elapsed().as_millis());
    let left = channel(&sound, 0);
    assert!(steady_amplitude(&left, 440.0) > 0.9 * AMPLITUDE);
    let leak = steady_amplitude(&left, 1500.0);
    assert!(leak < 5.0, "the microphone leaks: {leak:.1}");
    assert_eq!(bridge.metrics.capture_killed.get() + bridge.metrics.capture_moved.get(), 1);
    voices.abort();
}

#[tokio::test]
async fn a_restarted_daemon_continues_the_stream_with_the_gap_in_its_time() {
    let mut daemon = Daemon::start();
    let bridge = Bridge::on(daemon.unix());
    let queue = Arc::new(DropOldest::<Encoded>::with_capacity(64));
    let settings = CaptureSettings { encode: EncodeSettings::default(), timestamp: 1000, silence_gate: false };
    let capture = Capture::new(settings, Arc::clone(&queue), Arc::clone(&bridge.metrics)).expect("encoder");
    let task = tokio::spawn(capture::run(bridge.source(), capture, watch::channel(EncodeSettings::default()).1));
    let mut last = frames(&queue, 100).await;
    let mut delays_ms = Vec::new();
    for round in 0..10 {
        daemon.kill();
        bridge.until("the loss is noticed", |report| report.pulse == DeviceState::Connecting).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        daemon.launch();
        let up = Instant::now();
        while queue.try_pop().is_some() {}
        let first = frames(&queue, 1).await;
        let delay_ms = first.arrived.saturating_duration_since(up).as_millis();
        let next = frames(&queue, 30).await;
        let wall_ms = next.arrived.duration_since(last.arrived).as_millis() as i64;
        let rtp_ms = i64::from(next.timestamp.wrapping_sub(last.timestamp) as i32) / 48;
        println!("round {round}: packets {delay_ms} ms after the daemon; wall {wall_ms} ms, RTP {rtp_ms} ms");
        delays_ms.push(delay_ms);
        assert!((wall_ms - rtp_ms).abs() < 100, "wall {wall_ms} ms, RTP time {rtp_ms} ms");
        last = next;
    }
    // A machine that stalls makes some of them late.
    assert!(delays_ms.iter().filter(|&&delay| delay < 1500).count() >= 7, "packets came {delays_ms:?} ms after it");
    assert!(bridge.metrics.capture_gaps.get() >= 10);
    task.abort();
}

/// Takes that many frames and gives the one that came soonest after its time; a machine that stalls makes others late.
async fn frames(queue: &DropOldest<Encoded>, count: usize) -> Encoded {
    let taking = async {
        let first = queue.pop().await.0;
        let (started, begun) = (first.arrived, first.timestamp);
        let late_us = |frame: &Encoded| {
            let wall = frame.arrived.saturating_duration_since(started).as_micros() as i64;
            wall - i64::from(frame.timestamp.wrapping_sub(begun)) * 1000 / 48
        };
        let mut soonest = first;
        for _ in 1..count {
            let frame = queue.pop().await.0;
            if late_us(&frame) < late_us(&soonest) {
                soonest = frame;
            }
        }
        soonest
    };
    timeout(PATIENCE, taking).await.expect("frames come")
}

#[tokio::test]
async fn only_the_right_cookie_is_accepted_and_the_reason_is_said() {
    let daemon = Daemon::start();
    for (cookie, reason) in
        [(Vec::new(), "0 bytes"), (vec![7; 255], "255 bytes"), (vec![7; 256], "refused the cookie")]
    {
        let path = daemon.path("wrong-cookie");
        std::fs::write(&path, cookie).expect("cookie is written");
        let bridge = Bridge::on(PulseSettings { cookie: path, ..daemon.tcp() });
        let mut source = bridge.source();
        let reading = tokio::spawn(async move { source.read(&mut Vec::new()).await });
        bridge.until(reason, |report| report.pulse_error.as_ref().is_some_and(|e| e.contains(reason))).await;
        reading.abort();
    }
    let bridge = Bridge::on(daemon.tcp());
    capture_from(&mut bridge.source(), 0.1, |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voice_is_heard_in_the_microphone_and_not_on_the_desktop() {
    let daemon = Daemon::start();
    let bridge = Bridge::on(daemon.unix());
    let playout = Arc::new(Mutex::new(Playout::default()));
    let play = audio_bridge::play(
        bridge.sink("mic_in"),
        Arc::clone(&playout),
        Arc::clone(&bridge.status),
        Arc::clone(&bridge.metrics),
    );
    let playing = tokio::spawn(play);
    let talking = tokio::spawn(talk(Arc::clone(&playout)));
    bridge.until("playback is up", |report| report.playback == DeviceState::Connected).await;
    let error_db = voice_error_db(&daemon);
    let desktop = tokio::task::block_in_place(|| daemon.record("desktop.monitor", Duration::from_secs(5)));
    playing.abort();
    talking.abort();
    println!("microphone {error_db:.2} dB, underflows {}", bridge.metrics.playback_underflows.get());
    assert!(error_db.abs() < 1.0, "level is {error_db:.2} dB off");
    assert!(level(&desktop) < 1.0, "the voice is on the desktop with level {:.1}", level(&desktop));
    assert!(desktop.len() > 24_000, "the desktop was recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_is_in_the_microphone_at_once() {
    let daemon = Daemon::start();
    let bridge = Bridge::on(daemon.unix());
    let playout = Arc::new(Mutex::new(Playout::default()));
    let playing = tokio::spawn(audio_bridge::play(
        bridge.sink("mic_in"),
        Arc::clone(&playout),
        Arc::clone(&bridge.status),
        Arc::clone(&bridge.metrics),
    ));
    let mut microphone = bridge.source_named("mic");
    let mut delays_ms = Vec::new();
    for _ in 0..5 {
        capture_from(&mut microphone, 0.8, |_| true).await;
        let spoken = Instant::now();
        let talking = tokio::spawn(talk(Arc::clone(&playout)));
        let mut chunk = Vec::new();
        let hearing = async {
            loop {
                chunk.clear();
                if let Captured::Chunk { at } = microphone.read(&mut chunk).await
                    && audible(&chunk)
                {
                    return at;
                }
            }
        };
        let heard = timeout(PATIENCE, hearing).await.expect("the word comes");
        talking.abort();
        delays_ms.push(heard.saturating_duration_since(spoken).as_millis());
    }
    playing.abort();
    println!("a word is in the microphone after {delays_ms:?} ms");
    // A machine that stalls takes longer now and then.
    assert!(delays_ms.iter().filter(|&&delay| delay < 1000).count() >= 3, "{delays_ms:?} ms");
    drop(daemon);
}

/// A participant that talks 1000 Hz in real time.
async fn talk(playout: Arc<Mutex<Playout>>) {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Audio).expect("encoder");
    let mut tone = Tone::new(1000.0, AMPLITUDE);
    let speaker = rand::random();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for n in 0_u32.. {
        ticks.tick().await;
        let mut pcm = [0; 960];
        tone.fill(&mut pcm);
        let payload = encoder.encode_vec(&pcm, 1000).expect("encodes");
        let packet = Packet { sequence: n as u16, timestamp: n.wrapping_mul(960), payload };
        // Everyone is a new speaker in the slot.
        let slot = SlotPacket { slot: 1, source: Some(speaker), packet, earlier: Vec::new() };
        playout.lock().expect("not poisoned").receive(Instant::now(), slot);
    }
}

#[tokio::test]
async fn the_virtual_microphone_comes_back_with_its_sink() {
    let daemon = Daemon::start();
    let bridge = Bridge::on(daemon.unix());
    let mut sink = bridge.sink("desktop");
    let playing = tokio::spawn(async move {
        loop {
            let wanted = sink.wanted().await;
            sink.write(&vec![0; wanted]).await;
        }
    });
    bridge.until("playback is up", |report| report.playback == DeviceState::Connected).await;
    daemon.remove_sink("desktop");
    bridge.until("the loss is noticed", |report| report.playback == DeviceState::WaitingForDevice).await;
    daemon.add_desktop_sink();
    bridge.until("playback is back", |report| report.playback == DeviceState::Connected).await;
    playing.abort();
}

#[tokio::test]
async fn a_suspended_source_is_waited_for() {
    let daemon = Daemon::start();
    let bridge = Bridge::on(daemon.unix());
    let mut source = bridge.source();
    capture_from(&mut source, 0.2, |_| true).await;
    daemon.pactl(&["suspend-sink", "desktop", "1"]).expect("suspends");
    let reading = tokio::spawn(async move {
        let mut chunk = Vec::new();
        loop {
            chunk.clear();
            source.read(&mut chunk).await;
        }
    });
    bridge.until("suspension is seen", |report| report.pulse == DeviceState::Suspended).await;
    daemon.pactl(&["suspend-sink", "desktop", "0"]).expect("resumes");
    bridge.until("resumption is seen", |report| report.pulse == DeviceState::Connected).await;
    assert_eq!(bridge.metrics.pulse_reconnects.get(), 0);
    reading.abort();
}

#[tokio::test]
async fn the_probe_says_what_a_desktop_is_worth() {
    let daemon = Daemon::start();
    let settings = DeviceSettings {
        pulse: daemon.unix(),
        source: "desktop.monitor".to_owned(),
        sink: "mic_in".to_owned(),
        microphone: "mic".to_owned(),
    };
    let found = audio_bridge::devices::look(&settings).await.expect("looks");
    assert_eq!(found.complaints(), Vec::<String>::new());
    let mut findings = audio_bridge::probe::probe(&settings).await;
    for _ in 0..4 {
        // A stall of the machine bends a level once.
        if findings.are_good() {
            break;
        }
        findings = audio_bridge::probe::probe(&settings).await;
    }
    assert!(findings.are_good(), "{findings}");

    daemon.pactl(&["set-sink-volume", "mic_in", "50%"]).expect("volume is set");
    let findings = audio_bridge::probe::probe(&settings).await;
    assert!(!findings.are_good() && findings.to_string().contains("dB off"), "{findings}");
    daemon.remove_sink("desktop");
    let found = audio_bridge::devices::look(&settings).await.expect("looks");
    assert!(found.complaints().iter().any(|complaint| complaint.contains("desktop.monitor")), "{found}");
}

#[tokio::test]
async fn another_frame_length_asks_the_daemon_for_other_pieces() {
    let daemon = Daemon::start();
    let bridge = Bridge::on(daemon.unix());
    let fragment_ms = Arc::new(20.into());
    let settings = RecordSettings {
        pulse: bridge.pulse.clone(),
        source: "desktop.monitor".to_owned(),
        fragment_ms: Arc::clone(&fragment_ms),
    };
    let mut source = PulseSource::new(settings, Arc::clone(&bridge.status), Arc::clone(&bridge.metrics));
    capture_from(&mut source, 0.5, |_| true).await;
    let mut typical = async || typical(&mut source).await / 48;
    let before = typical().await;
    fragment_ms.store(5, std::sync::atomic::Ordering::Relaxed);
    typical().await;
    let after = typical().await;
    println!("pieces of {before} ms, then of {after} ms");
    assert!(before >= 15 && after <= 10, "pieces of {before} ms, then of {after} ms");
}

#[tokio::test]
async fn a_program_in_a_hurry_gets_smaller_pieces() {
    let daemon = Daemon::start();
    let bridge = Bridge::on(daemon.unix());
    let mut source = bridge.source();
    capture_from(&mut source, 0.5, |_| true).await;
    let alone = typical(&mut source).await;
    let _player = daemon.play_ahead("desktop", &vec![100; 96_000 * 30], 10);
    capture_from(&mut source, 0.5, |chunk| chunk.iter().any(|&sample| sample != 0)).await;
    let hurried = typical(&mut source).await;
    println!("pieces of {alone} samples, then of {hurried}");
    assert!(alone >= 240 && hurried <= 96, "pieces of {alone} samples, then of {hurried}");
}

/// Samples per channel in the middle one of the next 41 chunks.
async fn typical(source: &mut PulseSource) -> usize {
    let mut sizes = Vec::new();
    for _ in 0..41 {
        let mut chunk = Vec::new();
        source.read(&mut chunk).await;
        sizes.push(chunk.len() / 2);
    }
    sizes.sort_unstable();
    sizes[20]
}
