//! How long sound takes inside the bridge, against a PulseAudio daemon of its own, by clicks:
//!
//! - `packet`: a click is handed to the daemon, in a stream with 10 ms of target, until the RTP packet with it was handed
//!   to a UDP socket. RTP without SRTP, which costs microseconds. Frames of 10 ms, and of 5 ms (`instant`).
//! - `mic`: the RTP packet with a click arrives until a recorder of the virtual microphone has the click.
//! - `cpu`: processor time of capture and encoder while music plays, in percent of a core, and `encoder`: that of the same
//!   frames encoded one behind the other without a daemon; `paced`: encoded as they come, one in 10 ms, when the processor's
//!   caches have forgotten the encoder.
//!
//! Prints one JSON object a round: `{"packet": [ms..], "instant": [ms..], "mic": [ms..], "cpu": percent, "encoder": percent,
//! "paced": percent}`. Percentiles are the caller's. Arguments: clicks for each measurement in a round, rounds. `cost` as the
//! first argument leaves the clicks out; their number then says how long it measures, 300 ms each.

#[expect(dead_code, reason = "shared with the tests, which use more of it")]
#[path = "../tests/pulse/daemon.rs"]
mod daemon;

use std::ffi::CString;
use std::io::Write as _;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use audio_bridge::capture::{self, Capture, CaptureSettings, Encoded};
use audio_bridge::codec::Encoder;
use audio_bridge::jitter::Packet;
use audio_bridge::metrics::Metrics;
use audio_bridge::pcm::{Captured, PcmSource};
use audio_bridge::playout::{Playout, SlotPacket};
use audio_bridge::profile::{EncodeSettings, Profile};
use audio_bridge::pulse::playback::PlaybackSettings;
use audio_bridge::pulse::record::RecordSettings;
use audio_bridge::pulse::wire::{Connection, Event, Message};
use audio_bridge::pulse::{PulseSettings, PulseSink, PulseSource};
use audio_bridge::queue::DropOldest;
use audio_bridge::status::Status;
use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{
    ChannelMap, Command, CreatePlaybackStreamReply, PlaybackStreamParams, SampleFormat, SampleSpec,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use daemon::Daemon;

const CLICK_SAMPLES: usize = 48;
const CLICK_AMPLITUDE: f64 = 26_000.0;
const HEARD_ABOVE: u16 = 5_000;
const PATIENCE: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_secs(4);

/// The click that is under way.
#[derive(Debug, Default)]
struct Click {
    due: bool,
    handed: Option<Instant>,
    heard: Option<Instant>,
}

type Shared = Arc<Mutex<Click>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo bench` adds a flag of its own, `cargo test --benches` none at all: then one click each shows that it works.
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let (clicks, rounds) = (numbers.first().copied().unwrap_or(1), numbers.get(1).copied().unwrap_or(1));
    let only_cost = std::env::args().any(|argument| argument == "cost");
    for _ in 0..rounds {
        let (mut packet, mut instant, mut mic) = (Vec::new(), Vec::new(), Vec::new());
        if !only_cost {
            packet = packets(Profile::Music, clicks).await;
            instant = packets(Profile::Instant, clicks).await;
            mic = microphone(clicks).await;
        }
        let Cost { cpu, encoder, paced } = cost(Duration::from_millis(clicks.min(70) as u64 * 300)).await;
        let round = serde_json::json!({
            "packet": packet, "instant": instant, "mic": mic, "cpu": cpu, "encoder": encoder, "paced": paced,
        });
        writeln!(std::io::stdout(), "{round}").expect("prints");
    }
}

fn lock(click: &Shared) -> std::sync::MutexGuard<'_, Click> {
    click.lock().unwrap_or_else(PoisonError::into_inner)
}

fn click_sample(n: usize) -> i16 {
    (CLICK_AMPLITUDE * (std::f64::consts::TAU * n as f64 / CLICK_SAMPLES as f64).sin()) as i16
}

fn loud(samples: &[i16]) -> bool {
    samples.iter().any(|sample| sample.unsigned_abs() > HEARD_ABOVE)
}

/// Makes clicks one after the other, at every phase of blocks and frames.
async fn latencies(click: &Shared, clicks: usize) -> Vec<f64> {
    tokio::time::sleep(SETTLE).await;
    let mut found = Vec::new();
    for n in 0..clicks {
        tokio::time::sleep(Duration::from_micros(200_000 + (n as u64 % 29) * 7_300)).await;
        *lock(click) = Click { due: true, ..Click::default() };
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Click { handed: Some(handed), heard: Some(heard), .. } = *lock(click) {
                found.push(heard.saturating_duration_since(handed).as_secs_f64() * 1e3);
                break;
            }
        }
    }
    found
}

async fn packets(profile: Profile, clicks: usize) -> Vec<f64> {
    let daemon = Daemon::start();
    let encode = EncodeSettings::new(profile, None, None).expect("a profile is valid");
    let (status, metrics) = (Arc::new(Status::new(String::new(), String::new())), Metrics::new().0);
    let queue = Arc::new(DropOldest::<Encoded>::for_frames(encode.frame_ms));
    let settings = CaptureSettings { encode, timestamp: 0, silence_gate: false };
    let capture = Capture::new(settings, Arc::clone(&queue), Arc::clone(&metrics)).expect("an encoder");
    let record = RecordSettings {
        pulse: daemon.unix(),
        source: "desktop.monitor".to_owned(),
        fragment_ms: Arc::new(encode.frame_ms.into()),
    };
    let source = PulseSource::new(record, status, metrics);
    let click = Shared::default();
    let capturing = tokio::spawn(capture::run(source, capture, watch::channel(encode).1));
    let sending = tokio::spawn(send(queue, Arc::clone(&click)));
    let playing = tokio::spawn(play(daemon.unix(), Arc::clone(&click)));
    let found = latencies(&click, clicks).await;
    for task in [capturing, sending, playing] {
        task.abort();
    }
    found
}

/// The network's end: each packet goes to a socket, then we look whether the click was in it.
async fn send(queue: Arc<DropOldest<Encoded>>, click: Shared) {
    let far = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let near = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    near.connect(far.local_addr().expect("an address")).expect("connects");
    far.set_nonblocking(true).expect("is set");
    let mut decoder = opus::Decoder::new(48_000, opus::Channels::Stereo).expect("a decoder");
    let mut pcm = vec![0; 5760 * 2];
    let mut datagram = Vec::new();
    loop {
        let (frame, _) = queue.pop().await;
        datagram.clear();
        datagram.extend_from_slice(&[0x80, 111, 0, 0]);
        datagram.extend_from_slice(&frame.timestamp.to_be_bytes());
        datagram.extend_from_slice(&[0; 4]);
        datagram.extend_from_slice(&frame.payload);
        near.send(&datagram).expect("sends");
        let sent = Instant::now();
        while far.recv(&mut [0; 1500]).is_ok() {}
        let samples = decoder.decode(&frame.payload, &mut pcm, false).expect("is Opus");
        if loud(&pcm[..samples * 2]) {
            lock(&click).heard.get_or_insert(sent);
        }
    }
}

/// A program of the desktop that wants little latency: silence, and the click when it is due.
async fn play(pulse: PulseSettings, click: Shared) {
    let mut left = 0;
    let clicks = move |samples: &mut [i16]| {
        if std::mem::take(&mut lock(&click).due) {
            left = CLICK_SAMPLES;
            lock(&click).handed = Some(Instant::now());
        }
        for pair in samples.chunks_exact_mut(2) {
            pair.fill(if left > 0 { click_sample(CLICK_SAMPLES - left) } else { 0 });
            left = left.saturating_sub(1);
        }
    };
    play_on_desktop(pulse, 1920, clicks).await;
}

/// Plays what `fill` makes, in stereo, with so many bytes in the daemon.
async fn play_on_desktop(pulse: PulseSettings, target_length: u32, mut fill: impl FnMut(&mut [i16])) {
    let mut connection = Connection::open(&pulse).await.expect("connects");
    let params = PlaybackStreamParams {
        sample_spec: SampleSpec { format: SampleFormat::S16Le, channels: 2, sample_rate: 48_000 },
        channel_map: ChannelMap::stereo(),
        sink_name: Some(CString::new("desktop").expect("a name")),
        buffer_attr: BufferAttr { target_length, ..BufferAttr::default() },
        flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
        ..PlaybackStreamParams::default()
    };
    let stream: CreatePlaybackStreamReply =
        connection.call(&Command::CreatePlaybackStream(params)).await.expect("a stream");
    let mut wanted = stream.requested_bytes as usize / 2;
    loop {
        let mut samples = vec![0; wanted];
        fill(&mut samples);
        connection.send_sound(stream.channel, &samples).await.expect("plays");
        wanted = loop {
            if let Message::Event(Event::Request { bytes, .. }) = connection.next().await.expect("stands") {
                break bytes / 2;
            }
        };
    }
}

async fn microphone(clicks: usize) -> Vec<f64> {
    let daemon = Daemon::start();
    let (status, metrics) = (Arc::new(Status::new(String::new(), String::new())), Metrics::new().0);
    let playout = Arc::new(Mutex::new(Playout::default()));
    let playback = PlaybackSettings { pulse: daemon.unix(), sink: "mic_in".to_owned() };
    let sink = PulseSink::new(playback, Arc::clone(&status), Arc::clone(&metrics));
    let record = RecordSettings { pulse: daemon.unix(), source: "mic".to_owned(), fragment_ms: Arc::new(5.into()) };
    let source = PulseSource::new(record, Arc::clone(&status), Arc::clone(&metrics));
    let click = Shared::default();
    let playing = tokio::spawn(audio_bridge::play(sink, Arc::clone(&playout), status, metrics));
    let talking = tokio::spawn(talk(playout, Arc::clone(&click)));
    let hearing = tokio::spawn(hear(source, Arc::clone(&click)));
    let found = latencies(&click, clicks).await;
    for task in [playing, talking, hearing] {
        task.abort();
    }
    found
}

/// A voice of 20 ms packets without jitter: silence, and the click when it is due.
async fn talk(playout: Arc<Mutex<Playout>>, click: Shared) {
    let mut encoder = opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).expect("an encoder");
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for n in 0_u32.. {
        ticks.tick().await;
        let mut pcm = [0; 960];
        let clicks = std::mem::take(&mut lock(&click).due);
        if clicks {
            (0..CLICK_SAMPLES).for_each(|n| pcm[n] = click_sample(n));
        }
        let payload = encoder.encode_vec(&pcm, 1000).expect("encodes");
        let packet = Packet { sequence: n as u16, timestamp: n.wrapping_mul(960), payload };
        let slot = SlotPacket { slot: 1, source: Some(7), packet, earlier: Vec::new() };
        let now = Instant::now();
        if clicks {
            lock(&click).handed = Some(now);
        }
        playout.lock().unwrap_or_else(PoisonError::into_inner).receive(now, slot);
    }
}

async fn hear(mut source: PulseSource, click: Shared) {
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        if let Captured::Chunk { at } = source.read(&mut chunk).await
            && loud(&chunk)
        {
            let mut click = lock(&click);
            if click.handed.is_some() {
                click.heard.get_or_insert(at);
            }
        }
    }
}

/// Percent of a core for the music profile: capture and encoder, and the encoder alone for as many frames.
#[derive(Clone, Copy, Debug)]
struct Cost {
    cpu: f64,
    encoder: f64,
    paced: f64,
}

/// The three by turns, for `time` each in all: what happens to the machine happens to each of them.
async fn cost(time: Duration) -> Cost {
    const TURNS: u32 = 6;
    let daemon = Daemon::start();
    let mut music = Music::default();
    let playing = tokio::spawn(play_on_desktop(daemon.unix(), 19_200, move |samples| music.fill(samples)));
    let pulse = daemon.unix();
    let measured = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let turns: Vec<[f64; 3]> = (0..TURNS)
            .map(|_| {
                let cpu = runtime.block_on(captured(pulse.clone(), time / TURNS));
                [cpu, encoded(time / TURNS, false), encoded(time / TURNS, true)]
            })
            .collect();
        let [cpu, encoder, paced] =
            [0, 1, 2].map(|side| turns.iter().map(|turn| turn[side]).sum::<f64>() / f64::from(TURNS));
        Cost { cpu, encoder, paced }
    });
    let shares = tokio::task::spawn_blocking(|| measured.join().expect("measures")).await.expect("measures");
    playing.abort();
    shares
}

/// On this thread alone, so that its processor time is that of capture and encoder.
async fn captured(pulse: PulseSettings, time: Duration) -> f64 {
    let encode = EncodeSettings::new(Profile::Music, None, None).expect("a profile is valid");
    let (status, metrics) = (Arc::new(Status::new(String::new(), String::new())), Metrics::new().0);
    let queue = Arc::new(DropOldest::<Encoded>::for_frames(encode.frame_ms));
    let settings = CaptureSettings { encode, timestamp: 0, silence_gate: false };
    let capture = Capture::new(settings, queue, Arc::clone(&metrics)).expect("an encoder");
    let fragment_ms = Arc::new(encode.frame_ms.into());
    let record = RecordSettings { pulse, source: "desktop.monitor".to_owned(), fragment_ms };
    let source = PulseSource::new(record, status, Arc::clone(&metrics));
    let spent = async {
        tokio::time::sleep(SETTLE).await;
        let (began, before, frames) = (Instant::now(), thread_time(), metrics.frames_encoded.get());
        tokio::time::sleep(time).await;
        assert!(metrics.frames_encoded.get() > frames, "nothing was captured");
        (thread_time() - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0
    };
    tokio::select! {
        spent = spent => spent,
        () = capture::run(source, capture, watch::channel(encode).1) => unreachable!("captures for ever"),
    }
}

fn encoded(time: Duration, is_paced: bool) -> f64 {
    let encode = EncodeSettings::new(Profile::Music, None, None).expect("a profile is valid");
    let mut encoder = Encoder::new(encode).expect("an encoder");
    let (mut music, mut frame, mut spent) = (Music::default(), [0; 960], Duration::ZERO);
    let frames = (time.as_millis() / u128::from(encode.frame_ms)).max(1);
    for _ in 0..frames {
        music.fill(&mut frame);
        if is_paced {
            std::thread::sleep(Duration::from_millis(encode.frame_ms.into()));
        }
        let before = thread_time();
        encoder.encode(&frame).expect("encodes");
        spent += thread_time() - before;
    }
    spent.as_secs_f64() / (frames as f64 * f64::from(encode.frame_ms) / 1e3) * 100.0
}

/// A chord in each channel over noise: what an encoder has work with.
#[derive(Default)]
struct Music {
    at: usize,
    noise: u32,
}

impl Music {
    fn fill(&mut self, samples: &mut [i16]) {
        for pair in samples.chunks_exact_mut(2) {
            for (channel, sample) in pair.iter_mut().enumerate() {
                let tones: f64 = [220.0, 277.2, 329.6, 1760.0]
                    .into_iter()
                    .map(|hz| (std::f64::consts::TAU * (hz + channel as f64) * self.at as f64 / 48_000.0).sin())
                    .sum();
                self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *sample = (tones * 3000.0 + f64::from(self.noise >> 16) / 65_536.0 * 1000.0) as i16;
            }
            self.at += 1;
        }
    }
}

/// Processor time of this thread, up to now: what `/proc` says of a thread that runs is up to a tick old.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("is not negative")
}
