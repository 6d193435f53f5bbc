use std::net::{Ipv4Addr, UdpSocket};
use std::time::SystemTime;

use sfu_core::{Limits, PeerId};

use super::*;
use crate::certificate::Identity;
use crate::metrics::ControlMeters;

const CALLS: u32 = 40;
const BUFFER_BYTES: usize = 128 * 1024;

async fn next(reports: &mut mpsc::Receiver<Report>) -> News {
    tokio::time::timeout(ANSWER_TIME_MAX, reports.recv()).await.unwrap().unwrap().news
}

fn running() -> (ShardHandle, mpsc::Receiver<Report>) {
    running_with(Tuning::default())
}

fn running_with(tuning: Tuning) -> (ShardHandle, mpsc::Receiver<Report>) {
    let (reports, queue) = mpsc::channel(16);
    let bound = bind(Ipv4Addr::LOCALHOST.into(), 0, (BUFFER_BYTES, true)).unwrap();
    let config = NodeConfig {
        shard: sfu_core::ShardId::FIRST,
        certificate: Identity::generate().unwrap().certificate,
        seed: [7; 32],
        wall_clock_at_start: SystemTime::now(),
        limits: Limits { peers: 10, ..Limits::default() },
    };
    let bus = mesh(1).pop().unwrap();
    let wiring = Wiring { bus, core: None, tuning };
    (spawn(0, bound, (config, wiring), reports).unwrap(), queue)
}

fn scrape(shard: &ShardHandle) -> String {
    let mut text = String::new();
    let registry =
        crate::metrics::registry(vec![(shard.local_addr, Arc::clone(&shard.published))], &ControlMeters::default());
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

/// Without the waker each answer would wait for the end of the longest wait.
#[tokio::test]
async fn a_command_wakes_an_idle_shard() {
    let (mut shard, _reports) = running();
    let answers = async {
        for _ in 0..CALLS {
            let refused = shard.call(Command::Leave { peer: PeerId(1) }).await.unwrap();
            assert_eq!(refused.unwrap_err(), CommandError::NoSuchPeer);
        }
    };
    tokio::time::timeout(turn::WAIT_MAX * CALLS / 2, answers).await.expect("the waker wakes");
    shard.stop().await;
    assert_eq!(shard.call(Command::Leave { peer: PeerId(1) }).await.unwrap_err(), ShardError::Stalled);
}

#[tokio::test]
async fn counts_what_came_before_its_end() {
    let (mut shard, _reports) = running();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..3 {
        sender.send_to(&[0xff; 20], shard.local_addr).unwrap();
    }
    shard.call(Command::Leave { peer: PeerId(1) }).await.unwrap().unwrap_err();
    shard.stop().await;
    let text = scrape(&shard);
    for line in ["sfu_datagrams_received_total{shard=\"0\"} 3", "reason=\"unknown_protocol\"} 3"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(shard.published.busy() < 0.9);
}

fn value(text: &str, series: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix("{shard=\"0\"} "));
    line.unwrap_or_else(|| panic!("{series} is not in\n{text}")).parse().unwrap()
}

/// How many were sent until it gathers or no longer does; a slow machine only takes longer.
async fn comes_to_gather(shard: &ShardHandle, wanted: bool, datagrams: usize) -> usize {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..6_000 {
        if value(&scrape(shard), "sfu_shard_gathering") == usize::from(wanted) {
            return round * datagrams;
        }
        for _ in 0..datagrams {
            sender.send_to(&[0x80; 20], shard.local_addr).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("gathers: not {wanted}");
}

#[tokio::test]
async fn a_shard_that_goes_by_the_clock_takes_all_that_comes_and_stops_when_less_does() {
    let gather = Duration::from_millis(5);
    let (mut shard, _reports) = running_with(Tuning { gather, ..Tuning::default() });
    assert_eq!(comes_to_gather(&shard, false, 0).await, 0);
    let sent = comes_to_gather(&shard, true, 50).await;
    for _ in 0..3 {
        let refused = shard.call(Command::Leave { peer: PeerId(1) }).await.unwrap();
        assert_eq!(refused.unwrap_err(), CommandError::NoSuchPeer);
    }
    comes_to_gather(&shard, false, 0).await;
    shard.call(Command::Leave { peer: PeerId(1) }).await.unwrap().unwrap_err();
    // What came while the machine did not run the thread may be more than the kernel's queue holds.
    let overflowed = value(&scrape(&shard), "sfu_socket_receive_overflows_total");
    shard.stop().await;
    let late = value(&scrape(&shard), "sfu_receive_late_total");
    let taken = value(&scrape(&shard), "sfu_datagrams_received_total");
    let lost = overflowed + late;
    assert!(sent > 0 && taken > 0 && taken + lost == sent, "{taken} taken and {lost} lost of {sent}");
}

/// Checks, handshakes and reports, as in a rush of joins.
#[tokio::test]
async fn nothing_but_audio_makes_a_shard_go_by_the_clock() {
    let (mut shard, _reports) = running_with(Tuning { gather: Duration::from_millis(5), ..Tuning::default() });
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..30 {
        for first in [[0, 1], [22, 254], [128, 200]] {
            for _ in 0..20 {
                sender.send_to(&[first.as_slice(), &[0; 18]].concat(), shard.local_addr).unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(value(&scrape(&shard), "sfu_shard_gathering"), 0);
    }
    shard.stop().await;
}

/// Of the threads of this process that have the name.
fn priorities(name: &str) -> Vec<i64> {
    let stats = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = stats.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    let named = stats.filter(|stat| stat.contains(&format!("({name})")));
    // The name is the 2nd field, the priority as in nice(1) the 19th.
    named.map(|stat| stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()).collect()
}

/// Down, as everybody may.
#[tokio::test]
async fn a_shard_has_the_priority_that_was_asked_for_and_the_thread_beside_it_its_own() {
    let (mut shard, _reports) = running_with(Tuning { nice: 7, ..Tuning::default() });
    shard.call(Command::Leave { peer: PeerId(1) }).await.unwrap().unwrap_err();
    assert!(priorities("shard-0").contains(&7));
    assert!(!priorities("handshakes-0").contains(&7));
    shard.stop().await;
    assert!(scrape(&shard).contains("sfu_shard_favoured{shard=\"0\"} 1"));
}

#[test]
fn a_port_in_use_is_an_error_before_any_thread_starts() {
    let first = bind(Ipv4Addr::LOCALHOST.into(), 0, (BUFFER_BYTES, true)).unwrap();
    let second = bind(Ipv4Addr::LOCALHOST.into(), first.local_addr.port(), (BUFFER_BYTES, true));
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_core_that_fails_begins_anew_on_the_same_port() {
    let (mut shard, mut reports) = running();
    shard.order(Order::Fail).unwrap();
    assert!(matches!(next(&mut reports).await, News::Restarted));
    let refused = shard.call(Command::Leave { peer: PeerId(1) }).await.unwrap();
    assert_eq!(refused.unwrap_err(), CommandError::NoSuchPeer);
    shard.stop().await;
}

#[tokio::test]
async fn a_core_that_fails_again_and_again_ends_its_shard() {
    let (shard, mut reports) = running();
    for _ in 1..FAILURES_MAX {
        shard.order(Order::Fail).unwrap();
        assert!(matches!(next(&mut reports).await, News::Restarted));
    }
    shard.order(Order::Fail).unwrap();
    let News::Ended(reason) = next(&mut reports).await else { panic!("still there") };
    assert_eq!(reason, "core failed 5 times in a row");
}
