//! Runs against a real media node in this process: its control link, its threads, real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use loadgen::results::{Media, Results, Snapshot};
use loadgen::scenario::{
    Climb, EngineSpec, Loss, Ramp, Rooms, Scenario, Talk, TalkPattern, TalkStart, TargetKind, TargetSpec, Timing,
};
use loadgen::targets::{Access, Secret};
use tokio::sync::watch;

const TOKEN: &str = "a-token-of-the-tests";

async fn node() -> sfu::Node {
    let any = "127.0.0.1:0".parse().ok();
    let args = sfu::Args {
        port: Some(0),
        shards: Some(1),
        listen: "127.0.0.1".parse().ok(),
        allow_loopback: true,
        control: any,
        admin: any,
        control_token: Some(TOKEN.into()),
        node_id: Some("test-node".to_owned()),
        ..sfu::Args::default()
    };
    sfu::start(sfu::Config::from_args(&args).unwrap()).await.unwrap()
}

fn scenario(node: &sfu::Node, rooms: Rooms) -> Scenario {
    Scenario {
        target: TargetSpec {
            kind: TargetKind::Node,
            url: format!("ws://{}", node.control_addr()),
            server_pids: vec![std::process::id()],
            ..TargetSpec::default()
        },
        rooms,
        ramp: Ramp { joins_per_s: 0.0, ..Ramp::default() },
        run: Timing { warmup_s: 0.3, duration_s: 2.0, ..Timing::default() },
        engine: EngineSpec { threads: 1, open_one_in: 4, ..EngineSpec::default() },
        ..Scenario::default()
    }
}

async fn run(scenario: Scenario) -> Results {
    let access = Access { control_token: Some(Secret(TOKEN.to_owned())), ..Access::default() };
    let (snapshots, _live) = watch::channel(Snapshot::default());
    let (_stop, stopped) = watch::channel(false);
    loadgen::engine::run(scenario.checked(None).unwrap(), access, snapshots, stopped).await.unwrap()
}

/// Of up to three runs one that holds the limits. Where the machine stalls, the node drops audio that waited for longer
/// than 50 ms, the kernel what finds a queue full, and more than a frame is on its way at the borders of the window.
async fn run_that_holds(scenario: Scenario, holds: impl Fn(&Media) -> bool) -> Results {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let results = run(scenario.clone()).await;
        if holds(&results.media) {
            return results;
        }
        seen.push(results.media);
    }
    panic!("{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_speaks_and_five_hear_everything() {
    let node = node().await;
    let rooms = Rooms { publishers: 1, listeners: 5, ..Rooms::default() };
    let results = run_that_holds(scenario(&node, rooms), |media| {
        media.lost <= media.expected / 10
            && (25..=200).contains(&media.sent)
            && media.received.abs_diff(media.expected) <= media.expected / 4
    })
    .await;
    let Results { joins, media, .. } = &results;
    assert_eq!((joins.connected, joins.failed, joins.lost), (6, 0, 0), "{joins:?}");
    assert_eq!(joins.first_packet_ms.count, 5, "all listeners, and not the publisher");
    assert_eq!((media.reordered, media.duplicated, media.unreadable), (0, 0, 0));
    assert!(media.opened >= media.received / 8 && media.opened <= media.received, "{}", media.opened);
    assert!(media.delay_ms.count > 0 && media.delay_ms.max < 10_000.0);
    assert!(results.server.is_some_and(|server| server.cpu_s() > 0.0 && server.rss_end_mib > 1.0));
    assert!(!results.interrupted && results.series.len() >= 2);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_on_purpose_is_told_from_loss() {
    let node = node().await;
    let rooms = Rooms { count: 2, publishers: 2, listeners: 3, publishers_listen: true, slots: None };
    let scenario = Scenario { loss: Loss { send: 0.1, receive: 0.2, seed: 5 }, ..scenario(&node, rooms) };
    // A gap shows only when the packet behind it comes.
    let results = run_that_holds(scenario, |media| media.lost <= 16 + media.received / 20).await;
    let media = &results.media;
    let share = |part: u64, whole: u64| part as f64 / whole as f64;
    let sent_away = share(media.sent_lost_on_purpose, media.sent + media.sent_lost_on_purpose);
    assert!((0.02..0.25).contains(&sent_away), "{media:?}");
    let received_away = share(media.received_lost_on_purpose, media.received + media.received_lost_on_purpose);
    assert!((0.12..0.28).contains(&received_away), "{media:?}");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_speakers_are_heard_and_timed() {
    let node = node().await;
    let rooms = Rooms { publishers: 3, listeners: 2, ..Rooms::default() };
    let scenario = Scenario {
        talk: Talk { pattern: TalkPattern::Churn, speakers: 1, turn_ms: 400, ..Talk::default() },
        ..scenario(&node, rooms)
    };
    let results = run(scenario).await;
    let onset = results.onset_ms.unwrap();
    // Five turns in two seconds, each heard by two; fewer and later ones where the machine stalls.
    assert!((2..=14).contains(&onset.count), "{onset:?}");
    assert!(onset.min >= 0.0 && onset.min < 400.0 && onset.p50 < 2_000.0, "{onset:?}");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_a_run_early_with_a_result() {
    let node = node().await;
    let rooms = Rooms { publishers: 1, listeners: 1, ..Rooms::default() };
    let long =
        Scenario { run: Timing { warmup_s: 0.1, duration_s: 600.0, ..Timing::default() }, ..scenario(&node, rooms) };
    let access = Access { control_token: Some(Secret(TOKEN.to_owned())), ..Access::default() };
    let (snapshots, mut live) = watch::channel(Snapshot::default());
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(loadgen::engine::run(long, access, snapshots, stopped));
    live.wait_for(|now| now.media.received > 10).await.unwrap();
    stop.send_replace(true);
    let results = running.await.unwrap().unwrap();
    assert!(results.interrupted && results.measured_s < 60.0);
    assert_eq!(results.joins.connected, 2);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_joins_are_counted_by_reason() {
    let node = node().await;
    let rooms = Rooms { publishers: 1, listeners: 2, slots: Some(60), ..Rooms::default() };
    let results = run(scenario(&node, rooms)).await;
    assert_eq!((results.joins.connected, results.joins.failed), (1, 2), "{:?}", results.joins);
    assert_eq!(results.joins.failures.values().sum::<u64>(), 2);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_climb_measures_each_step_and_ends_where_everybody_is() {
    let node = node().await;
    let rooms = Rooms { publishers: 1, listeners: 6, ..Rooms::default() };
    // Limits that hold on any machine: what is measured is that steps are taken.
    let climb = Climb { step_listeners: 2, settle_s: 0.2, hold_s: 0.5, loss_max: 1.0, delay_p99_ms_max: 60_000.0 };
    let results = run(Scenario { climb, ..scenario(&node, rooms) }).await;
    let listeners: Vec<u64> = results.steps.iter().map(|step| step.listeners).collect();
    assert_eq!(listeners, [2, 4, 6]);
    assert!(results.steps.iter().all(|step| step.holds && step.received_per_s > 0.0), "{:?}", results.steps);
    assert!(results.media.received > 100, "the window counts only what is in it: {:?}", results.media);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_climb_ends_where_a_limit_breaks_twice() {
    let node = node().await;
    let rooms = Rooms { publishers: 1, listeners: 6, ..Rooms::default() };
    let climb = Climb { step_listeners: 2, settle_s: 0.1, hold_s: 1.0, loss_max: 1.0, delay_p99_ms_max: 0.0 };
    let results = run(Scenario { climb, ..scenario(&node, rooms) }).await;
    assert_eq!(results.steps.iter().map(|step| (step.listeners, step.holds)).collect::<Vec<_>>(), [(2, false); 2]);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_may_be_silent_until_all_are_there() {
    let node = node().await;
    let rooms = Rooms { publishers: 1, listeners: 2, ..Rooms::default() };
    let talk = Talk { starts: TalkStart::Warmup, ..Talk::default() };
    let results = run(Scenario { talk, ..scenario(&node, rooms) }).await;
    let during_ramp = results.series.iter().filter(|sample| sample.phase == loadgen::results::Phase::Ramp);
    assert!(during_ramp.into_iter().all(|sample| sample.sent_per_s == 0.0));
    assert!(results.media.received > 0);
    node.end().await;
}
