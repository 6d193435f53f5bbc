use sfu_control::{ControlError, IceParameters, Operation, PeerState, ReplyBody, TrackKind};
use sfu_core::NodeConfig;

use super::*;
use crate::certificate::Identity;
use crate::shard;

const BUFFER_BYTES: usize = 128 * 1024;

/// A hub with real shards, worked by hand.
struct Bench {
    hub: Hub,
    reports: mpsc::Receiver<Report>,
    failed: oneshot::Receiver<String>,
    readiness: admin::Readiness,
}

fn bench() -> Bench {
    bench_with(1)
}

fn bench_with(shards: usize) -> Bench {
    let identity = Identity::generate().unwrap();
    let (reports, reported) = mpsc::channel(REPORTS_WAITING_MAX);
    let config = |shard| NodeConfig {
        shard,
        certificate: identity.certificate.clone(),
        seed: [1; 32],
        wall_clock_at_start: std::time::SystemTime::UNIX_EPOCH,
        limits: sfu_core::Limits { peers: 100, ..sfu_core::Limits::default() },
    };
    let spawn = |(index, bus)| {
        let bound = shard::bind("127.0.0.1".parse().unwrap(), 0, (BUFFER_BYTES, true)).unwrap();
        let wiring = shard::Wiring { bus, core: None, tuning: shard::Tuning::default() };
        let config = config(sfu_core::ShardId::new(index).unwrap());
        shard::spawn(index, bound, (config, wiring), reports.clone()).unwrap()
    };
    let shards = shard::mesh(shards).into_iter().enumerate().map(spawn).collect();
    let facts = Facts {
        node: "n".to_owned(),
        version: "0",
        advertise: vec!["127.0.0.1".parse().unwrap()],
        ice_tcp: false,
        shed_at: 0.85,
        fingerprint: identity.fingerprint,
        media: vec![],
        control_url: String::new(),
    };
    let readiness = admin::Readiness::new(&[]);
    let (tell, failed) = oneshot::channel();
    let (facts, gauges) = (Arc::new(facts), Arc::new(Gauges::default()));
    let hub = Hub::new(
        facts,
        gauges,
        ControlMeters::default(),
        readiness.clone(),
        (shards, Limits { peers: 100, room_peers: 100, room_share: 1 }),
        tell,
    );
    Bench { hub, reports: reported, failed, readiness }
}

impl Bench {
    async fn link(&mut self, id: u64, room_for: usize) -> mpsc::Receiver<Utf8Bytes> {
        let (queue, messages) = mpsc::channel(room_for);
        self.hub.take_input(Input::Opened { link: LinkId(id), queue }).await;
        messages
    }

    async fn request(&mut self, link: u64, id: u64, op: Operation) {
        let request = Box::new(Request { id, op });
        self.hub.take_input(Input::Request { link: LinkId(link), request }).await;
    }

    async fn join(&mut self, link: u64, peer: &str) {
        self.join_as(link, peer, false).await;
    }

    async fn join_as(&mut self, link: u64, peer: &str, replaces: bool) {
        let text = include_str!("../../control/fixtures/request/join.json");
        let request: Request = serde_json::from_str(text).unwrap();
        let Operation::Join(mut join) = request.op else { panic!("not a join") };
        (join.peer, join.replaces) = (peer.to_owned(), replaces);
        self.request(link, 1, Operation::Join(join)).await;
    }

    fn peers(&self) -> Vec<PeerState> {
        self.hub.placement.snapshot()
    }
}

fn next(messages: &mut mpsc::Receiver<Utf8Bytes>) -> NodeMessage {
    serde_json::from_str(&messages.try_recv().unwrap()).unwrap()
}

#[tokio::test]
async fn a_link_begins_with_hello_and_gets_its_own_answers_only() {
    let mut bench = bench();
    let (mut one, mut two) = (bench.link(1, 8).await, bench.link(2, 8).await);
    assert!(matches!(next(&mut one), NodeMessage::Hello { .. }));
    assert!(matches!(next(&mut two), NodeMessage::Hello { .. }));
    bench.join(1, "p").await;
    assert!(matches!(next(&mut one), NodeMessage::Reply { re: 1, result: ReplyResult::Ok(_) }));
    assert!(two.try_recv().is_err());
    assert_eq!(bench.peers()[0].slots.len(), 2);
}

#[tokio::test]
async fn a_link_that_does_not_take_its_messages_is_closed_and_no_other() {
    let mut bench = bench();
    let (mut slow, mut good) = (bench.link(1, 2).await, bench.link(2, 8).await);
    for on in [true, false, true] {
        bench.request(2, 9, Operation::Drain { on }).await;
    }
    assert_eq!(bench.hub.links.len(), 1);
    let mut kept = 0;
    while slow.recv().await.is_some() {
        kept += 1;
    }
    assert_eq!(kept, 2);
    let mut heard = std::iter::from_fn(|| good.try_recv().ok());
    assert_eq!(heard.by_ref().count(), 1 + 3 * 2, "hello, and for each request its event and its answer");
}

#[tokio::test]
async fn a_shard_that_begins_anew_takes_its_peers_with_it() {
    let mut bench = bench();
    bench.join(1, "p").await;
    bench.join(1, "q").await;
    let mut link = bench.link(1, 8).await;
    next(&mut link);
    bench.hub.take_report(Report { shard: 0, news: News::Restarted }).await;
    assert!(bench.peers().is_empty());
    for _ in 0..2 {
        let NodeMessage::Event { event: NodeEvent::Gone { reason, .. } } = next(&mut link) else {
            panic!("not gone")
        };
        assert_eq!(reason, "shard_failed");
    }
}

#[tokio::test]
async fn a_link_that_takes_a_snapshot_hears_who_is_in_the_slots() {
    let mut bench = bench();
    bench.join(1, "p").await;
    let place = bench.hub.placement.find("p").unwrap();
    let slot = sfu_core::SlotAssignment {
        kind: sfu_core::TrackKind::Mic,
        index: 0,
        peer: place.peer,
        track: sfu_core::TrackId(7),
        spare: false,
    };
    let event = sfu_core::Event::Slots { room: place.room, slots: vec![slot] };
    bench.hub.take_report(Report { shard: 0, news: News::Node(event) }).await;
    let mut link = bench.link(2, 8).await;
    next(&mut link);
    bench.request(2, 5, Operation::Snapshot {}).await;
    assert!(matches!(next(&mut link), NodeMessage::Reply { re: 5, .. }));
    let NodeMessage::Event { event: NodeEvent::Slots { slots, .. } } = next(&mut link) else { panic!("no slots") };
    assert_eq!(slots.iter().map(|slot| (slot.peer.as_str(), slot.track)).collect::<Vec<_>>(), [("p", 7)]);
    assert!(link.try_recv().is_err(), "once");
}

#[tokio::test]
async fn a_shard_that_ends_makes_the_node_fail() {
    let mut bench = bench();
    assert!(bench.readiness.is_ready());
    bench.hub.take_report(Report { shard: 0, news: News::Ended("why".to_owned()) }).await;
    assert!(!bench.readiness.is_ready());
    assert_eq!(bench.failed.await.unwrap(), "shard 0 has ended: why");
}

#[tokio::test]
async fn after_lost_events_peers_that_are_gone_are_found_and_the_others_stay() {
    let mut bench = bench();
    bench.join(1, "stays").await;
    bench.join(1, "gone").await;
    // The shard forgets one of them, and the event that says so is lost.
    let place = bench.hub.placement.find("gone").unwrap();
    bench.hub.shards[0].call(Command::Leave { peer: place.peer }).await.unwrap().unwrap();
    while bench.reports.try_recv().is_ok() {}
    let mut link = bench.link(1, 8).await;
    next(&mut link);
    bench.hub.take_report(Report { shard: 0, news: News::EventsLost }).await;
    let names: Vec<_> = bench.peers().into_iter().map(|state| state.peer).collect();
    assert_eq!(names, ["stays"]);
    let gone = NodeEvent::Gone { peer: "gone".to_owned(), reason: "unknown".to_owned() };
    assert_eq!(next(&mut link), NodeMessage::Event { event: gone });
    assert_eq!(next(&mut link), NodeMessage::Event { event: NodeEvent::Resync {} });
}

#[tokio::test]
async fn a_refused_join_leaves_no_name_behind() {
    let mut bench = bench();
    bench.join(1, "p").await;
    bench.join(1, "p").await;
    assert_eq!(bench.peers().len(), 1);
    bench.join(1, &"x".repeat(200)).await;
    assert_eq!((bench.peers().len(), bench.hub.placement.room_count()), (1, 1));
}

#[tokio::test]
async fn operations_on_a_peer_reach_its_shard() {
    let mut bench = bench();
    bench.join(1, "p").await;
    let mut link = bench.link(1, 16).await;
    next(&mut link);
    let peer = || "p".to_owned();
    let new = IceParameters { ufrag: "abcd".to_owned(), pwd: "0123456789012345678901".to_owned() };
    bench.request(1, 2, Operation::RestartIce { peer: peer(), ice: new }).await;
    let NodeMessage::Reply { re: 2, result: ReplyResult::Ok(ReplyBody::Restarted { ice, candidates }) } =
        next(&mut link)
    else {
        panic!("not restarted")
    };
    assert!(ice.ufrag.len() >= 4 && ice.pwd.len() >= 22);
    assert_eq!(candidates[0].port, bench.hub.shards[0].local_addr.port());

    bench.request(1, 3, Operation::Mute { peer: peer(), kind: TrackKind::Mic, muted: true }).await;
    assert!(matches!(next(&mut link), NodeMessage::Reply { re: 3, result: ReplyResult::Ok(ReplyBody::Done {}) }));
    assert!(bench.peers()[0].tracks.iter().any(|track| track.kind == TrackKind::Mic && track.muted));

    bench.request(1, 4, Operation::Leave { peer: peer() }).await;
    let gone = NodeEvent::Gone { peer: peer(), reason: "left".to_owned() };
    assert_eq!(next(&mut link), NodeMessage::Event { event: gone });
    assert!(matches!(next(&mut link), NodeMessage::Reply { re: 4, result: ReplyResult::Ok(ReplyBody::Done {}) }));
}

#[tokio::test]
async fn who_has_left_may_come_again_under_the_same_name_at_once() {
    let mut bench = bench();
    bench.join(1, "p").await;
    bench.request(1, 2, Operation::Leave { peer: "p".to_owned() }).await;
    bench.join(1, "p").await;
    assert_eq!(bench.peers().len(), 1);
    // The shard's own news of the first one do not touch the second.
    while let Ok(report) = bench.reports.try_recv() {
        bench.hub.take_report(report).await;
    }
    assert_eq!(bench.peers().len(), 1);
}

#[tokio::test]
async fn a_shard_with_too_much_to_do_gets_nobody_new_and_keeps_whom_it_has() {
    let mut bench = bench();
    let mut messages = bench.link(1, 8_192).await;
    bench.join(1, "early").await;
    let refused = bench.refusal_at(900_000, &mut messages).await;
    assert_eq!((refused.code.as_str(), refused.retry_after_s), ("overloaded", Some(2)));
    let names: Vec<_> = bench.peers().into_iter().map(|peer| peer.peer).collect();
    assert_eq!(names, ["early"]);
}

#[tokio::test]
async fn a_new_connection_of_a_participant_is_not_refused_for_the_load() {
    let mut bench = bench();
    let mut messages = bench.link(1, 8_192).await;
    bench.join(1, "before").await;
    bench.refusal_at(900_000, &mut messages).await;
    bench.request(1, 2, Operation::Leave { peer: "before".to_owned() }).await;
    bench.show_busy(900_000);
    bench.join_as(1, "after", true).await;
    let names: Vec<_> = bench.peers().into_iter().map(|peer| peer.peer).collect();
    assert_eq!(names, ["after"]);
}

#[tokio::test]
async fn those_who_have_just_come_count_before_the_load_shows_them() {
    let mut bench = bench();
    let mut messages = bench.link(1, 8_192).await;
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        bench.join(1, name).await;
    }
    bench.hub.arrivals = vec![Arrivals::showing(5)];
    let refused = bench.refusal_at(700_000, &mut messages).await;
    assert_eq!(refused.code, "overloaded", "{}", refused.message);
}

impl Bench {
    /// What the first one who is refused hears, while the shard shows this load. The shard overwrites what is shown for it
    /// some times a second, so this may have to show it again.
    async fn refusal_at(&mut self, busy_ppm: u64, messages: &mut mpsc::Receiver<Utf8Bytes>) -> ControlError {
        for _ in 0..100 {
            let arrivals = self.hub.arrivals.clone();
            self.show_busy(busy_ppm);
            self.join(1, "late").await;
            let answers = std::iter::from_fn(|| Some(serde_json::from_str(&messages.try_recv().ok()?).unwrap()));
            let refusal = |message| match message {
                NodeMessage::Reply { result: ReplyResult::Error(error), .. } => Some(error),
                NodeMessage::Hello { .. } | NodeMessage::Reply { .. } | NodeMessage::Event { .. } => None,
            };
            if let Some(error) = answers.filter_map(refusal).next() {
                return error;
            }
            self.request(1, 2, Operation::Leave { peer: "late".to_owned() }).await;
            self.hub.arrivals = arrivals;
        }
        panic!("nobody was refused")
    }

    fn show_busy(&self, busy_ppm: u64) {
        let shell = crate::metrics::ShellCounters { busy_ppm, ..Default::default() };
        let (core, streams) = (sfu_core::Counters::default(), shard::StreamCounters::default());
        let (shell, core, streams) = (&shell, &core, (0, &streams));
        let reading = crate::metrics::Reading { core, shell, peers: 1, rooms: 1, handshakes: 0, streams };
        self.hub.shards[0].published.publish(&reading);
    }
}
