//! Batches over loopback sockets: everything here talks to itself only.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use udp::{Options, Poller, RecvBatch, SEGMENTS_MAX, SendBatch, SendReport, Socket, Transmit};

/// How long loopback may take on a busy machine before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

const DATAGRAM_BYTES_MAX: usize = 2_048;

/// A receiving socket with its poller and batch.
struct Receiver {
    socket: Socket,
    poller: Poller,
    batch: RecvBatch,
}

impl Receiver {
    fn bind(address: &str, options: Options, datagram_bytes_max: usize) -> Self {
        let socket = bind(address, options);
        let poller = Poller::new().expect("epoll works");
        poller.add(&socket, 1).expect("socket can be watched");
        Self { socket, poller, batch: RecvBatch::new(64, datagram_bytes_max) }
    }

    fn plain() -> Self {
        Self::bind("127.0.0.1:0", Options::default(), DATAGRAM_BYTES_MAX)
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("socket is bound")
    }

    /// Waits for one batch: sender, payload and segment size of each datagram.
    fn receive(&mut self) -> Vec<(SocketAddr, Vec<u8>, Option<usize>)> {
        let ready = self.poller.wait(Some(PATIENCE)).expect("epoll works");
        assert!(ready.contains(1), "nothing arrived");
        self.batch.recv(&self.socket).expect("socket works");
        self.batch.iter_mut().map(|got| (got.remote, got.data.to_vec(), got.segment_size)).collect()
    }

    /// Waits until this many datagrams arrived.
    fn receive_all(&mut self, count: usize) -> Vec<(SocketAddr, Vec<u8>, Option<usize>)> {
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(self.receive());
        }
        all
    }
}

fn bind(address: &str, options: Options) -> Socket {
    Socket::bind(address.parse().expect("an address"), options).expect("loopback can be bound")
}

/// Some containers and kernels have none.
fn has_ipv6() -> bool {
    let found = std::net::UdpSocket::bind("[::1]:0").is_ok();
    if !found {
        eprintln!("skipped: this machine has no IPv6");
    }
    found
}

fn plain(to: SocketAddr, payload: &[u8]) -> Transmit<'_> {
    Transmit { to, payload, segment_size: None }
}

fn send(socket: &Socket, datagrams: &[Transmit<'_>]) -> SendReport {
    SendBatch::new(16).send(socket, datagrams.iter().copied())
}

#[test]
fn more_datagrams_than_a_batch_arrive_in_order() {
    let mut receiver = Receiver::plain();
    let sender = bind("127.0.0.1:0", Options::default());
    let payloads: Vec<Vec<u8>> = (0..100_usize).map(|n| vec![n as u8; n * 10]).collect();
    let datagrams: Vec<_> = payloads.iter().map(|payload| plain(receiver.address(), payload)).collect();
    let report = send(&sender, &datagrams);
    assert_eq!((report.sent, report.dropped, report.syscalls), (100, 0, 100_usize.div_ceil(16)));
    let got = receiver.receive_all(100);
    let from = sender.local_addr().expect("bound");
    for (received, payload) in got.iter().zip(&payloads) {
        assert_eq!(received, &(from, payload.clone(), None));
    }
}

#[test]
fn nothing_waiting_is_not_an_error() {
    let mut receiver = Receiver::plain();
    assert_eq!(receiver.batch.recv(&receiver.socket).expect("socket works"), 0);
    assert_eq!(receiver.batch.iter_mut().count(), 0);
}

#[test]
fn a_batch_can_be_used_again_after_longer_datagrams() {
    let mut receiver = Receiver::plain();
    let sender = bind("127.0.0.1:0", Options::default());
    for payload in [vec![1; 1_500], vec![2; 3], vec![3; 700]] {
        send(&sender, &[plain(receiver.address(), &payload)]);
        assert_eq!(receiver.receive_all(1)[0].1, payload);
    }
}

#[test]
fn a_run_of_segments_arrives_as_datagrams() {
    let mut receiver = Receiver::plain();
    let sender = bind("127.0.0.1:0", Options::default());
    let run: Vec<u8> = (0..1_050_u32).map(|n| n as u8).collect();
    let datagram = Transmit { to: receiver.address(), payload: &run, segment_size: Some(100) };
    let report =
        send(&sender, &[plain(receiver.address(), b"before"), datagram, plain(receiver.address(), b"after")]);
    assert_eq!((report.sent, report.dropped), (13, 0));
    let got = receiver.receive_all(13);
    assert_eq!(got[0].1, b"before");
    let lengths: Vec<usize> = got[1..12].iter().map(|(_, data, _)| data.len()).collect();
    assert_eq!(lengths, [vec![100; 10], vec![50]].concat());
    assert_eq!(got[1..12].iter().flat_map(|(_, data, _)| data.clone()).collect::<Vec<_>>(), run);
    assert_eq!(got[12].1, b"after");
}

#[test]
fn a_run_too_long_for_one_piece_is_sent_one_by_one() {
    let mut receiver = Receiver::plain();
    let sender = bind("127.0.0.1:0", Options::default());
    let run = vec![5; SEGMENTS_MAX + 6];
    let report = send(&sender, &[Transmit { to: receiver.address(), payload: &run, segment_size: Some(1) }]);
    assert_eq!((report.sent, report.dropped), (SEGMENTS_MAX + 6, 0));
    assert_eq!(receiver.receive_all(SEGMENTS_MAX + 6).len(), SEGMENTS_MAX + 6);
}

#[test]
fn coalesced_runs_come_apart_into_the_datagrams_sent() {
    let options = Options { gro: true, ..Options::default() };
    let mut receiver = Receiver::bind("127.0.0.1:0", options, 65_535);
    let sender = bind("127.0.0.1:0", Options::default());
    let run: Vec<u8> = (0..950_u32).map(|n| n as u8).collect();
    send(&sender, &[Transmit { to: receiver.address(), payload: &run, segment_size: Some(100) }]);
    let ready = receiver.poller.wait(Some(PATIENCE)).expect("epoll works");
    assert!(ready.contains(1));
    let mut segments = Vec::new();
    while segments.len() < 10 {
        receiver.batch.recv(&receiver.socket).expect("socket works");
        for got in receiver.batch.iter_mut() {
            if receiver.socket.has_gro() {
                assert_eq!(got.segment_size, Some(100));
            }
            segments.extend(got.into_segments().map(|segment| segment.to_vec()));
        }
    }
    assert_eq!(segments.len(), 10);
    assert_eq!(segments.concat(), run);
}

#[test]
fn a_datagram_longer_than_its_buffer_is_dropped_and_counted() {
    let mut receiver = Receiver::bind("127.0.0.1:0", Options::default(), 100);
    let sender = bind("127.0.0.1:0", Options::default());
    let to = receiver.address();
    send(&sender, &[plain(to, &[1; 100]), plain(to, &[2; 101]), plain(to, &[3; 99])]);
    let lengths: Vec<usize> = receiver.receive_all(2).iter().map(|(_, data, _)| data.len()).collect();
    assert_eq!(lengths, [100, 99]);
    assert_eq!(receiver.batch.truncated(), 1);
}

#[test]
fn a_bad_destination_costs_only_its_own_datagram() {
    let mut receiver = Receiver::plain();
    let sender = bind("127.0.0.1:0", Options::default());
    let closed = bind("127.0.0.1:0", Options::default()).local_addr().expect("bound");
    let port_zero = SocketAddr::from(([127, 0, 0, 1], 0));
    let wrong_family: SocketAddr = "[::1]:9".parse().expect("an address");
    let too_long = vec![0; 70_000];
    let to = receiver.address();
    for _ in 0..2 {
        let report = send(
            &sender,
            &[
                plain(to, b"one"),
                plain(closed, b"nobody"),
                plain(port_zero, b"refused"),
                plain(to, b"two"),
                plain(wrong_family, b"refused"),
                plain(to, &too_long),
                Transmit { to: port_zero, payload: b"refused", segment_size: Some(4) },
                plain(to, b"three"),
            ],
        );
        // The closed port is found out by the network, not by us.
        assert_eq!((report.sent, report.dropped), (4, 5));
        assert!(report.last_error.is_some());
        let got: Vec<Vec<u8>> = receiver.receive_all(3).into_iter().map(|(_, data, _)| data).collect();
        assert_eq!(got, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
    }
    // Nor does the answer of the closed port spoil the sender's next read.
    assert_eq!(RecvBatch::new(1, 100).recv(&sender).expect("socket works"), 0);
}

#[test]
fn a_receiver_that_does_not_read_loses_datagrams_and_recovers() {
    let options = Options { recv_buffer: Some(1), ..Options::default() };
    let mut receiver = Receiver::bind("127.0.0.1:0", options, DATAGRAM_BYTES_MAX);
    let sender = bind("127.0.0.1:0", Options::default());
    let to = receiver.address();
    let flood: Vec<_> = (0..500).map(|_| plain(to, &[7; 1_000])).collect();
    let report = send(&sender, &flood);
    assert_eq!(report.sent + report.dropped, 500);
    let mut got = 0;
    while let Ok(count @ 1..) = receiver.batch.recv(&receiver.socket) {
        got += count;
    }
    assert!((1..500).contains(&got), "{got} of 500 fitted the smallest queue");
    send(&sender, &[plain(to, b"after")]);
    // What the kernel delivers late comes before it.
    while receiver.receive_all(1).last().is_none_or(|last| last.1 != b"after") {}
}

#[test]
fn ipv6_sockets_talk_ipv6() {
    if !has_ipv6() {
        return;
    }
    let mut receiver = Receiver::bind("[::1]:0", Options::default(), DATAGRAM_BYTES_MAX);
    let sender = bind("[::1]:0", Options::default());
    send(&sender, &[plain(receiver.address(), b"six")]);
    let got = receiver.receive_all(1);
    assert_eq!((got[0].0, &got[0].1[..]), (sender.local_addr().expect("bound"), &b"six"[..]));
    assert!(got[0].0.is_ipv6());
}

#[test]
fn a_dual_stack_socket_shows_ipv4_peers_as_ipv4_and_answers_them() {
    if !has_ipv6() {
        return;
    }
    let mut dual = Receiver::bind("[::]:0", Options::default(), DATAGRAM_BYTES_MAX);
    let mut v4 = Receiver::plain();
    let mut v6 = Receiver::bind("[::1]:0", Options::default(), DATAGRAM_BYTES_MAX);
    let port = dual.address().port();
    send(&v4.socket, &[plain(SocketAddr::from(([127, 0, 0, 1], port)), b"four")]);
    let from = dual.receive_all(1)[0].0;
    assert_eq!(from, v4.address());
    send(&v6.socket, &[plain(format!("[::1]:{port}").parse().expect("an address"), b"six")]);
    let from_v6 = dual.receive_all(1)[0].0;
    assert_eq!(from_v6, v6.address());
    let run = Transmit { to: from, payload: b"aabbc", segment_size: Some(2) };
    assert_eq!(send(&dual.socket, &[run, plain(from_v6, b"to six")]).sent, 4);
    let back: Vec<Vec<u8>> = v4.receive_all(3).into_iter().map(|(_, data, _)| data).collect();
    assert_eq!(back, [b"aa".to_vec(), b"bb".to_vec(), b"c".to_vec()]);
    assert_eq!(v6.receive_all(1)[0].1, b"to six");
}

#[test]
fn buffers_are_set_and_reported() {
    let options = Options { recv_buffer: Some(64 * 1024), send_buffer: Some(96 * 1024), ..Options::default() };
    let socket = bind("127.0.0.1:0", options);
    assert!(socket.recv_buffer().expect("readable") >= 64 * 1024);
    assert!(socket.send_buffer().expect("readable") >= 96 * 1024);
}

#[test]
fn a_port_is_shared_only_when_asked() {
    let options = Options { reuse_port: true, ..Options::default() };
    let first = bind("127.0.0.1:0", options);
    let address = first.local_addr().expect("bound");
    assert!(Socket::bind(address, options).is_ok());
    let error = Socket::bind(address, Options::default()).expect_err("port is taken");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn neighbours_of_one_destination_leave_as_one_and_arrive_as_they_were() {
    let options = Options { gro: true, ..Options::default() };
    let (mut plain_receiver, mut coalescing) = (Receiver::plain(), Receiver::bind("127.0.0.1:0", options, 65_535));
    let sender = bind("127.0.0.1:0", Options::default());
    let payloads: Vec<Vec<u8>> = [90, 90, 90, 40, 70, 80].map(|len| vec![len as u8; len]).into();
    for receiver in [&mut plain_receiver, &mut coalescing] {
        let datagrams: Vec<_> = payloads.iter().map(|payload| plain(receiver.address(), payload)).collect();
        let report = send(&sender, &datagrams);
        assert_eq!((report.sent, report.dropped, report.syscalls), (6, 0, 1));
    }
    let got = plain_receiver.receive_all(6);
    assert!(got.iter().map(|(_, payload, _)| payload).eq(&payloads));
    let first = &coalescing.receive_all(3)[0];
    assert_eq!((first.1.len(), first.2), (90 * 3 + 40, Some(90)));
}

#[test]
fn datagrams_tell_when_they_came_where_that_was_asked_for() {
    let gro = Options { gro: true, ..Options::default() };
    let mut receiver = Receiver::bind("127.0.0.1:0", gro, 65_535);
    let sender = bind("127.0.0.1:0", Options::default());
    let arrivals = |receiver: &mut Receiver| {
        let mut batch = SendBatch::new(4);
        batch.send(&sender, [plain(receiver.address(), b"first"), plain(receiver.address(), b"second")]);
        let mut found = Vec::new();
        while found.len() < 2 {
            receiver.poller.wait(Some(PATIENCE)).expect("epoll works");
            receiver.batch.recv(&receiver.socket).expect("socket works");
            found.extend(receiver.batch.iter_mut().map(|got| got.arrived));
        }
        found
    };
    assert_eq!(arrivals(&mut receiver), [None, None]);
    receiver.socket.ask_for_arrival_times().expect("the kernel knows the option");
    let times: Option<Vec<_>> = arrivals(&mut receiver).into_iter().collect();
    let times = times.expect("each has a time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    assert!(times[0] <= times[1] && times[1] <= now && now - times[0] < PATIENCE);
}
