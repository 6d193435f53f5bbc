//! Runs through the whole of Carillon in this process: signalling, a media node that announces itself, real sockets on
//! loopback. Half of the listeners are peers of a foreign stack.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use loadgen::results::{Results, Snapshot};
use loadgen::scenario::{EngineSpec, Ramp, Rooms, Scenario, TargetSpec, Timing};
use loadgen::targets::{Access, TokenKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

const CONTROL_TOKEN: &str = "control-token-of-the-tests";
const TOKEN_KEY: &str = "test:0123456789abcdef0123456789abcdef";
/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn any() -> Option<SocketAddr> {
    Some(SocketAddr::from(([127, 0, 0, 1], 0)))
}

async fn signalling() -> signaling::Server {
    let args = signaling::Args {
        http: any(),
        admin: any(),
        control_token: Some(CONTROL_TOKEN.into()),
        token_keys: vec![TOKEN_KEY.into()],
        ..signaling::Args::default()
    };
    signaling::Server::start(signaling::Config::load(args).unwrap()).await.unwrap()
}

async fn node_of(server: &signaling::Server) -> sfu::Node {
    let args = sfu::Args {
        port: Some(0),
        shards: Some(1),
        listen: "127.0.0.1".parse().ok(),
        allow_loopback: true,
        control: any(),
        admin: any(),
        control_token: Some(CONTROL_TOKEN.into()),
        node_id: Some("test-node".to_owned()),
        announce: vec![format!("http://{}", server.admin_addr())],
        ..sfu::Args::default()
    };
    let node = sfu::start(sfu::Config::from_args(&args).unwrap()).await.unwrap();
    let linked = async {
        while !nodes(server.admin_addr()).await.contains("\"linked\":true") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, linked).await.expect("the node is linked");
    node
}

async fn nodes(admin: SocketAddr) -> String {
    let mut socket = TcpStream::connect(admin).await.unwrap();
    let request = "GET /v1/nodes HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.replace(' ', "")
}

/// Of up to three runs one that holds the limits. Where the machine stalls, the node drops audio that waited for longer
/// than 50 ms, the kernel what finds a queue full, and more than a frame is on its way at the borders of the window.
async fn run_that_holds(scenario: Scenario) -> Results {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let access = Access { token_key: Some(TokenKey::parse(TOKEN_KEY).unwrap()), ..Access::default() };
        let (snapshots, _live) = watch::channel(Snapshot::default());
        let (_stop, stopped) = watch::channel(false);
        let results = loadgen::engine::run(scenario.clone(), access, snapshots, stopped).await.unwrap();
        if holds(&results) {
            return results;
        }
        seen.push((results.media, results.realistic));
    }
    panic!("{seen:?}");
}

/// Two voices for two foreign peers and for each of the others: what was said, give or take what was on its way.
fn holds(results: &Results) -> bool {
    let media = &results.media;
    let foreign = results.realistic.as_ref().map_or(0, |realistic| realistic.received);
    media.sent >= 50
        && foreign.abs_diff(2 * media.sent) <= media.sent
        && media.lost <= media.expected / 10
        && media.received.abs_diff(media.expected) <= media.expected / 4
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_clients_and_foreign_peers_hear_everything_through_signalling() {
    let server = signalling().await;
    let node = node_of(&server).await;
    let scenario = Scenario {
        target: TargetSpec { url: format!("ws://{}", server.http_addr()), ..TargetSpec::default() },
        rooms: Rooms { publishers: 2, listeners: 4, publishers_listen: true, ..Rooms::default() },
        ramp: Ramp { joins_per_s: 0.0, ..Ramp::default() },
        run: Timing { warmup_s: 0.5, duration_s: 2.0, ..Timing::default() },
        engine: EngineSpec { threads: 1, realistic_share: 0.5, ..EngineSpec::default() },
        ..Scenario::default()
    };
    let results = run_that_holds(scenario).await;
    let joins = &results.joins;
    assert_eq!((joins.connected, joins.failed, joins.lost), (6, 0, 0), "{joins:?}");
    let realistic = results.realistic.unwrap();
    assert_eq!((realistic.peers, realistic.connected, realistic.lost), (2, 2, 0));
    assert!(realistic.delay_ms.count > 0);
    let media = &results.media;
    assert_eq!((media.duplicated, media.unreadable), (0, 0), "{media:?}");
    node.end().await;
    server.stop().await;
}
