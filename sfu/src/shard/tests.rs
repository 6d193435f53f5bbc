use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Instant, SystemTime};

use sfu_core::{Limits, PeerId};

use super::*;
use crate::certificate::Identity;
use crate::metrics::ControlMeters;

const BUFFER_BYTES: usize = 128 * 1024;

fn running() -> (ShardHandle, mpsc::Receiver<Report>) {
    let (reports, queue) = mpsc::channel(16);
    let bound = bind(Ipv4Addr::LOCALHOST.into(), 0, BUFFER_BYTES).unwrap();
    let config = NodeConfig {
        certificate: Identity::generate().unwrap().certificate,
        seed: [7; 32],
        wall_clock_at_start: SystemTime::now(),
        limits: Limits { peers: 10, ..Limits::default() },
    };
    (spawn(0, bound, config, reports).unwrap(), queue)
}

#[tokio::test]
async fn answers_commands_while_idle() {
    let (mut shard, _reports) = running();
    let asked = Instant::now();
    let refused = shard.call(Command::Leave { peer: PeerId(1) }).await.unwrap();
    assert_eq!(refused.unwrap_err(), CommandError::NoSuchPeer);
    assert!(asked.elapsed() < Duration::from_millis(400), "the waker did not wake the shard");
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
    let mut text = String::new();
    let registry = crate::metrics::registry(vec![Arc::clone(&shard.published)], &ControlMeters::default());
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in ["sfu_datagrams_received_total{shard=\"0\"} 3", "reason=\"unknown_protocol\"} 3"] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(shard.published.busy() < 0.9);
}

#[test]
fn a_port_in_use_is_an_error_before_any_thread_starts() {
    let first = bind(Ipv4Addr::LOCALHOST.into(), 0, BUFFER_BYTES).unwrap();
    let second = bind(Ipv4Addr::LOCALHOST.into(), first.local_addr.port(), BUFFER_BYTES);
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
}
