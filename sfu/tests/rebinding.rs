//! A participant behind an address translator that forgets its mapping in the middle of a call.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod peer;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use peer::{Peer, Wire, args, dial, node_with};
use sfu_control::NodeEvent;

/// One participant's: forwards both ways, and takes another port towards the node when it is told to.
struct Translator {
    inside: SocketAddr,
    mapping: Arc<AtomicUsize>,
}

const ENDED: usize = usize::MAX;
const PACE: Duration = Duration::from_millis(1);

impl Translator {
    fn start(node: SocketAddr) -> Self {
        let inside = socket();
        let address = inside.local_addr().unwrap();
        let mapping = Arc::new(AtomicUsize::new(0));
        let current = Arc::clone(&mapping);
        std::thread::spawn(move || {
            let (mut outside, mut made, mut peer) = (socket(), 0, None);
            let mut buffer = [0; 2_000];
            loop {
                match current.load(Ordering::Relaxed) {
                    ENDED => return,
                    wanted if wanted != made => (outside, made) = (socket(), wanted),
                    _ => {}
                }
                while let Ok((length, from)) = inside.recv_from(&mut buffer) {
                    peer = Some(from);
                    let _ = outside.send_to(&buffer[..length], node);
                }
                while let (Ok((length, _)), Some(peer)) = (outside.recv_from(&mut buffer), peer) {
                    let _ = inside.send_to(&buffer[..length], peer);
                }
                std::thread::sleep(PACE);
            }
        });
        Self { inside: address, mapping }
    }

    fn forget(&self) {
        self.mapping.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Translator {
    fn drop(&mut self) {
        self.mapping.store(ENDED, Ordering::Relaxed);
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_goes_on_after_a_new_mapping_without_signalling() {
    let node = node_with(&args()).await;
    let (control, mut events) = dial(&node).await;
    let media = &node.media()[0];
    let translator = Translator::start(SocketAddr::new(media.address, media.port));
    let through = |joined: &mut sfu_control::Joined| {
        joined.candidates.truncate(1);
        joined.candidates[0].port = translator.inside.port();
        Wire::Udp(UdpSocket::bind("127.0.0.1:0").unwrap())
    };
    let mut roaming = Peer::join_with(&control, "room", ("roaming", 11), through).await;
    let mut settled = Peer::join(&control, "room", "settled", 22).await;
    roaming.hears("settled").await;
    settled.hears("roaming").await;

    translator.forget();
    roaming.clear();
    settled.clear();
    // More than can have been on its way through the old one.
    for _ in 0..50 {
        roaming.hears("settled").await;
        settled.hears("roaming").await;
    }
    let ended = std::iter::from_fn(|| events.try_recv().ok()).any(|event| matches!(event, NodeEvent::Gone { .. }));
    assert!(!ended);
    node.end().await;
}
