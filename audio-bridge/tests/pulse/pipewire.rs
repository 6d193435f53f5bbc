//! The same code against pipewire-pulse.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn pipewire_is_captured_and_played_by_the_same_code() {
    let mut daemon = Daemon::start_pipewire();
    let bridge = Bridge::on(daemon.unix());
    let mut source = bridge.source();
    let player = daemon.play("desktop", &stereo_tone(440.0, 1000.0, 10));
    let sound = capture_from(&mut source, 2.0, audible).await;
    let (left, right) = (channel(&sound[48_000..], 0), channel(&sound[48_000..], 1));
    let error_db = decibels(steady_amplitude(&left, 440.0) / AMPLITUDE);
    let separation_db = decibels(steady_amplitude(&left, 440.0) / steady_amplitude(&right, 440.0).max(0.01));
    println!("level error {error_db:.3} dB, separation {separation_db:.0} dB");
    assert!(error_db.abs() < 0.2 && separation_db > 50.0, "{error_db:.2} dB off, {separation_db:.0} dB apart");
    drop(player);

    // A voice into the microphone, while the sink of the desktop goes away: it must not be captured.
    let playout = Arc::new(Mutex::new(Playout::default()));
    let (status, metrics) = (Arc::clone(&bridge.status), Arc::clone(&bridge.metrics));
    let playing = tokio::spawn(audio_bridge::play(bridge.sink("mic_in"), Arc::clone(&playout), status, metrics));
    let talking = tokio::spawn(talk(playout));
    bridge.until("playback is up", |report| report.playback == DeviceState::Connected).await;
    let error_db = voice_error_db(&daemon);
    assert!(error_db.abs() < 1.0, "the voice is {error_db:.2} dB off");
    // What the desktop played before lies unread in the stream.
    let mut before = Vec::new();
    let draining = async {
        loop {
            source.read(&mut before).await;
        }
    };
    assert!(timeout(Duration::from_secs(2), draining).await.is_err());
    tokio::task::block_in_place(|| daemon.remove_sink("desktop"));
    let mut after = Vec::new();
    let reading = async {
        loop {
            source.read(&mut after).await;
        }
    };
    assert!(timeout(Duration::from_secs(2), reading).await.is_err());
    assert!(amplitude_at(&after, 1000.0) < 5.0, "the microphone is captured: {:.0}", amplitude_at(&after, 1000.0));
    tokio::task::block_in_place(|| daemon.add_desktop_sink());
    capture_from(&mut source, 0.2, |_| true).await;

    // The daemon is killed and comes back.
    tokio::task::block_in_place(|| {
        daemon.kill();
        daemon.launch();
    });
    let _player = daemon.play("desktop", &stereo_tone(440.0, 1000.0, 10));
    let sound = capture_from(&mut source, 1.0, audible).await;
    assert!(steady_amplitude(&channel(&sound, 0), 440.0) > 0.9 * AMPLITUDE);
    playing.abort();
    talking.abort();
}
