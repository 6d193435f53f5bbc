//! Datagrams are sent and received without the heap, refused ones included.

use std::time::Duration;

use allocation_counter::measure;
use udp::{Options, Poller, RecvBatch, SendBatch, Socket, Transmit};

#[test]
fn sending_and_receiving_allocate_nothing() {
    let bind = || Socket::bind(([127, 0, 0, 1], 0).into(), Options::default()).expect("loopback can be bound");
    let (sender, receiver) = (bind(), bind());
    let to = receiver.local_addr().expect("bound");
    let refused = ([127, 0, 0, 1], 0).into();
    let mut poller = Poller::new().expect("epoll works");
    poller.add(&receiver, 1).expect("socket can be watched");
    let waker = poller.waker();
    let (mut outgoing, mut incoming) = (SendBatch::new(8), RecvBatch::new(8, 2_000));
    let payload = [7; 1_000];
    let mut received = 0;
    let info = measure(|| {
        for _ in 0..10 {
            let datagrams = [
                Transmit { to, payload: &payload, segment_size: None },
                Transmit { to: refused, payload: &payload, segment_size: None },
                Transmit { to, payload: &payload, segment_size: Some(300) },
            ];
            assert_eq!(outgoing.send(&sender, datagrams).sent, 5);
            waker.wake();
            let ready = poller.wait(Some(Duration::from_secs(5))).expect("epoll works");
            assert!(ready.is_woken());
            while incoming.recv(&receiver).expect("socket works") > 0 {
                received += incoming.iter_mut().map(|got| got.into_segments().len()).sum::<usize>();
            }
        }
        // Under load the kernel may deliver the last ones later.
        while received < 50 {
            poller.wait(Some(Duration::from_secs(60))).expect("epoll works");
            assert!(incoming.recv(&receiver).expect("socket works") > 0, "only {received} came");
            received += incoming.iter_mut().map(|got| got.into_segments().len()).sum::<usize>();
        }
    });
    assert_eq!(info.count_total, 0);
    assert_eq!(received, 50);
}
