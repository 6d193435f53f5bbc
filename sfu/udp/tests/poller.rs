//! Waking and waiting.

use std::time::{Duration, Instant};

use udp::{Options, Poller, Socket};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_wake_from_another_thread_ends_the_wait() {
    let mut poller = Poller::new().expect("epoll works");
    let waker = poller.waker();
    let thread = std::thread::spawn(move || waker.wake());
    let ready = poller.wait(Some(PATIENCE)).expect("epoll works");
    assert!(ready.is_woken() && ready.tokens().is_empty());
    thread.join().expect("thread ran");
}

#[test]
fn wakes_before_the_wait_count_as_one() {
    let mut poller = Poller::new().expect("epoll works");
    let waker = poller.waker();
    for _ in 0..3 {
        waker.wake();
        waker.clone().wake();
        assert!(poller.wait(None).expect("epoll works").is_woken());
        assert!(!poller.wait(Some(Duration::ZERO)).expect("epoll works").is_woken());
    }
}

#[test]
fn no_wake_is_lost_between_two_threads() {
    const ROUNDS: usize = 10_000;
    let mut poller = Poller::new().expect("epoll works");
    let waker = poller.waker();
    let (queue, queued) = std::sync::mpsc::sync_channel(4);
    let thread = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            queue.send(round).expect("the other end reads");
            waker.wake();
        }
    });
    let mut taken = 0;
    while taken < ROUNDS {
        assert!(poller.wait(Some(PATIENCE)).expect("epoll works").is_woken(), "stuck after {taken}");
        taken += queued.try_iter().count();
    }
    thread.join().expect("thread ran");
}

#[test]
fn a_wait_ends_no_earlier_than_its_timeout() {
    let mut poller = Poller::new().expect("epoll works");
    let timeout = Duration::from_micros(2_500);
    let start = Instant::now();
    let ready = poller.wait(Some(timeout)).expect("epoll works");
    assert!(!ready.is_woken() && ready.tokens().is_empty());
    assert!(start.elapsed() >= timeout);
}

#[test]
fn only_sockets_with_data_are_ready() {
    let bind = || Socket::bind(([127, 0, 0, 1], 0).into(), Options::default()).expect("loopback can be bound");
    let (quiet, busy) = (bind(), bind());
    let mut poller = Poller::new().expect("epoll works");
    poller.add(&quiet, 10).expect("socket can be watched");
    poller.add(&busy, 20).expect("socket can be watched");
    poller.add(&busy, u64::MAX).expect_err("the waker's token is refused");
    let peer = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback can be bound");
    peer.send_to(b"x", busy.local_addr().expect("bound")).expect("loopback sends");
    let ready = poller.wait(Some(PATIENCE)).expect("epoll works");
    assert_eq!(ready.tokens(), [20]);
    assert!(!ready.contains(10) && !ready.is_woken());
    drop(busy);
    assert!(poller.wait(Some(Duration::ZERO)).expect("epoll works").tokens().is_empty());
}

#[test]
fn a_removed_socket_is_reported_by_its_new_poller_only() {
    let socket = Socket::bind(([127, 0, 0, 1], 0).into(), Options::default()).expect("binds");
    let (mut old, mut new) = (Poller::new().expect("epoll works"), Poller::new().expect("epoll works"));
    old.add(&socket, 1).expect("adds");
    old.remove(&socket).expect("removes");
    assert!(old.remove(&socket).is_err(), "it is gone");
    new.add(&socket, 2).expect("adds");
    let to = socket.local_addr().expect("bound");
    std::net::UdpSocket::bind("127.0.0.1:0").expect("binds").send_to(b"x", to).expect("sends");
    assert!(new.wait(Some(PATIENCE)).expect("epoll works").contains(2));
    assert!(old.wait(Some(Duration::ZERO)).expect("epoll works").tokens().is_empty());
}

#[test]
fn room_to_write_is_reported_while_it_is_asked_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback can be bound");
    let stream = std::net::TcpStream::connect(listener.local_addr().expect("has an address")).expect("connects");
    let mut poller = Poller::new().expect("epoll works");
    poller.add(&stream, 5).expect("stream can be watched");
    let look = |poller: &Poller, on| {
        poller.watch_writes(&stream, 5, on).expect("interest can be changed");
    };
    look(&poller, true);
    assert_eq!(poller.wait(Some(PATIENCE)).expect("epoll works").tokens(), [5]);
    look(&poller, false);
    assert!(poller.wait(Some(Duration::ZERO)).expect("epoll works").tokens().is_empty());
}
