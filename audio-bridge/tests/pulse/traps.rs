//! The traps of sound daemons, each shown to be there without its cure and gone with it. When a trap vanishes from a daemon,
//! its test says so, and the cure may go too.

use std::ffi::CString;
use std::net::TcpStream;

use audio_bridge::pulse::wire::{Connection, Event, Message};
use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{
    self, AuthParams, AuthReply, ChannelMap, Command, CreateRecordStreamReply, RecordStreamParams, SampleFormat,
    SampleSpec,
};

use super::*;

/// A record stream of 10 ms pieces as a program makes it that does not know better, with these flags only.
async fn plain_recorder(pulse: &PulseSettings, flags: StreamFlags) -> Connection {
    let mut connection = Connection::open(pulse).await.expect("connects");
    let params = RecordStreamParams {
        sample_spec: SampleSpec { format: SampleFormat::S16Le, channels: 2, sample_rate: 48_000 },
        channel_map: ChannelMap::stereo(),
        source_name: Some(CString::new("desktop.monitor").expect("a name")),
        buffer_attr: BufferAttr { fragment_size: 1920, ..BufferAttr::default() },
        flags,
        ..RecordStreamParams::default()
    };
    let _: CreateRecordStreamReply =
        connection.call(&Command::CreateRecordStream(params)).await.expect("a stream is made");
    connection
}

/// When sound came, for that long.
async fn arrivals(connection: &mut Connection, duration: Duration) -> Vec<Instant> {
    let mut at = vec![Instant::now()];
    let reading = async {
        loop {
            if let Message::Sound { .. } = connection.next().await.expect("the connection stands") {
                at.push(Instant::now());
            }
        }
    };
    assert!(timeout(duration, reading).await.is_err(), "reading only ends with the time");
    at
}

fn longest_ms(at: &[Instant]) -> u128 {
    at.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_millis()).max().unwrap_or(u128::MAX)
}

/// The share of the time that lies in waits longer than that: of bursts nearly all, of a machine that stalled a part.
fn share_of_waits(at: &[Instant], over: Duration) -> f64 {
    let waits = at.windows(2).map(|pair| pair[1].duration_since(pair[0])).collect::<Vec<_>>();
    let long: Duration = waits.iter().filter(|wait| **wait > over).sum();
    long.as_secs_f64() / waits.iter().sum::<Duration>().as_secs_f64()
}

#[tokio::test]
async fn without_adjusted_latency_sound_comes_in_bursts_of_seconds() {
    let daemon = Daemon::start();
    let mut plain = plain_recorder(&daemon.unix(), StreamFlags::default()).await;
    let trap = longest_ms(&arrivals(&mut plain, Duration::from_secs(5)).await);
    drop(plain);
    let bridge = Bridge::on(daemon.unix());
    let mut source = bridge.source();
    capture_from(&mut source, 0.5, |_| true).await;
    let mut at = vec![Instant::now()];
    while at[0].elapsed() < Duration::from_secs(3) {
        source.read(&mut Vec::new()).await;
        at.push(Instant::now());
    }
    println!("longest wait for a packet: {trap} ms without, {} ms with the cure", longest_ms(&at));
    assert!(trap > 1000, "the trap is gone: {trap} ms at most");
    let share = share_of_waits(&at, Duration::from_millis(500));
    assert!(share < 0.5, "{:.0} % of the time without sound", share * 100.0);
}

#[tokio::test]
async fn an_idle_null_sink_lets_a_new_recorder_wait() {
    let daemon = Daemon::start();
    let flags = StreamFlags { adjust_latency: true, ..StreamFlags::default() };
    let mut trap = 0;
    let mut cured = Vec::new();
    // Two of three are soon; a machine that stalls may be late now and then, and is asked again.
    let is_cured = |cured: &[u128]| cured.iter().filter(|&&ms| ms < 300).count() * 3 >= cured.len() * 2;
    for n in 0..6 {
        if n >= 3 && is_cured(&cured) {
            break;
        }
        // The sink falls asleep for two seconds at a time; somewhere in such a time we knock.
        tokio::time::sleep(Duration::from_millis(2200 + n * 300)).await;
        let mut plain = plain_recorder(&daemon.unix(), flags).await;
        let asked = Instant::now();
        while !matches!(plain.next().await.expect("the connection stands"), Message::Sound { .. }) {}
        trap = trap.max(asked.elapsed().as_millis());
        drop(plain);
        tokio::time::sleep(Duration::from_millis(2200 + n * 300)).await;
        let bridge = Bridge::on(daemon.unix());
        let asked = Instant::now();
        capture_from(&mut bridge.source(), 0.01, |_| true).await;
        cured.push(asked.elapsed().as_millis());
    }
    println!("first packet after at most {trap} ms without, {cured:?} ms with the cure");
    assert!(trap > 300, "the trap is gone: {trap} ms at most");
    assert!(is_cured(&cured), "{cured:?} ms");
}

#[tokio::test]
async fn a_stream_that_may_move_is_moved_to_the_microphone() {
    let daemon = Daemon::start();
    let flags = StreamFlags { adjust_latency: true, ..StreamFlags::default() };
    let mut plain = plain_recorder(&daemon.unix(), flags).await;
    arrivals(&mut plain, Duration::from_millis(300)).await;
    daemon.remove_sink("desktop");
    let moved = async {
        while !matches!(plain.next().await.expect("the connection stands"), Message::Event(Event::Moved { .. })) {}
    };
    assert!(timeout(PATIENCE, moved).await.is_ok(), "the trap is gone: the stream was not moved");
    let outputs = daemon.pactl(&["list", "short", "source-outputs"]).expect("outputs are listed");
    let sources = daemon.pactl(&["list", "short", "sources"]).expect("sources are listed");
    let microphone = sources.lines().find(|line| line.contains("\tmic")).and_then(|line| line.split('\t').next());
    assert!(microphone.is_some() && !outputs.is_empty(), "it hears another source now: {outputs} {sources}");
    // The cure is `a_removed_sink_never_makes_the_microphone_heard`.
}

#[test]
fn an_empty_cookie_is_refused() {
    let daemon = Daemon::start();
    let PulseSettings { server: audio_bridge::pulse::ServerAddress::Tcp { host, port }, .. } = daemon.tcp() else {
        unreachable!("it is TCP")
    };
    let mut socket = TcpStream::connect((host, port)).expect("connects");
    let auth =
        AuthParams { version: protocol::MAX_VERSION, supports_shm: false, supports_memfd: false, cookie: Vec::new() };
    protocol::write_command_message(&mut socket, 0, &Command::Auth(auth), protocol::MAX_VERSION).expect("sends");
    let mut reader = std::io::BufReader::new(socket);
    let answer = protocol::read_reply_message::<AuthReply>(&mut reader, protocol::MAX_VERSION);
    // Refused with a word, or without one and the connection closed.
    assert!(answer.is_err(), "the trap is gone: the daemon lets everybody in");
    // The cure is `only_the_right_cookie_is_accepted_and_the_reason_is_said`: other lengths are never sent.
}
