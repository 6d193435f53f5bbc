//! Each limit of the settings, end to end: set by its key, met by a client on a socket.

mod harness;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use harness::{Process, Turn, WAIT_MAX, folder};
use stun::Method;

const PASSWORD: &str = "the-password";

fn start(folder: &tempfile::TempDir, environment: &[(&str, &str)]) -> Process {
    Process::start_with(folder.path(), &[], environment)
}

fn client(process: &Process) -> Turn {
    Turn::new(process.udp, "ann", PASSWORD)
}

/// Codes of so many clients that allocate; they are kept until the end.
fn allocate(process: &Process, count: usize) -> (Vec<Turn>, Vec<u16>) {
    let mut clients = (0..count).map(|_| client(process)).collect::<Vec<_>>();
    let codes = clients.iter_mut().map(Turn::allocate).collect();
    (clients, codes)
}

#[test]
fn allocations_of_a_user_a_source_and_all() {
    let folder = folder();
    for (key, code) in
        [("RELAY_USER_ALLOCATIONS", 486), ("RELAY_SOURCE_ALLOCATIONS", 486), ("RELAY_TOTAL_ALLOCATIONS", 508)]
    {
        let process = start(&folder, &[(key, "3"), ("RELAY_UNAUTHORIZED_PER_S", "100")]);
        let (mut clients, codes) = allocate(&process, 4);
        assert_eq!(codes, [200, 200, 200, code], "{key}");
        assert_eq!(clients[0].refresh(0), 200);
        assert_eq!(clients[3].allocate(), 200, "{key}: what was given back can be had");
    }
}

#[test]
fn ports_of_a_range() {
    let folder = folder();
    // Below the ports that the system gives to whoever asks for any.
    let process = Process::start(folder.path(), &["--min-port", "15100", "--max-port", "15101"]);
    assert_eq!(allocate(&process, 3).1, [200, 200, 508]);
}

#[test]
fn permissions_and_channels_of_an_allocation() {
    let folder = folder();
    let process = Process::start(folder.path(), &["--peer", "127.0.1.0/24"]);
    let mut turn = client(&process);
    assert_eq!(turn.allocate(), 200);
    let mut bind = |n: u16| {
        harness::code(&turn.exchange(
            Method::CHANNEL_BIND,
            |w| {
                w.channel_number(0x4000 + n).expect("room");
                w.xor_peer_address(([127, 0, 0, 1], 10_000 + n).into()).expect("room");
            },
            true,
        ))
    };
    assert!((0..64).all(|n| bind(n) == 200));
    assert_eq!(bind(64), 508);
    let mut other = client(&process);
    assert_eq!(other.allocate(), 200);
    let mut permit = |peers: std::ops::Range<u8>| {
        let body = |w: &mut stun::Writer<'_>| {
            for n in peers {
                w.xor_peer_address(([127, 0, 1, n], 1).into()).expect("room");
            }
        };
        harness::code(&other.exchange(Method::CREATE_PERMISSION, body, true))
    };
    assert_eq!(permit(0..65), 508, "all or none");
    assert_eq!((permit(0..40), permit(40..64), permit(64..65), permit(0..64)), (200, 200, 508, 200));
}

#[test]
fn bytes_of_an_allocation_each_second() {
    let folder = folder();
    let process = start(&folder, &[("RELAY_ALLOCATION_BYTES_PER_S", "10000")]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("bound");
    peer.set_read_timeout(Some(WAIT_MAX)).expect("set");
    let mut turn = client(&process);
    assert_eq!(turn.allocate(), 200);
    assert_eq!(turn.bind(peer.local_addr().expect("bound")), 200);
    let message = [&[0x40, 0, 0x03, 0xE8][..], &[7; 1_000]].concat();
    let begun = Instant::now();
    (0..100).for_each(|_| turn.send(&message));
    let burst = (0..10).filter(|_| peer.recv(&mut [0; 2_048]).is_ok()).count();
    peer.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    let passed = burst + std::iter::from_fn(|| peer.recv(&mut [0; 2_048]).ok()).count();
    let allowed = 11.0 + 10.0 * begun.elapsed().as_secs_f64();
    assert!(
        burst == 10 && passed < 100 && (passed as f64) <= allowed,
        "{passed} of 100 packets: one second of burst, and what time has passed make {allowed:.0}"
    );
}

#[test]
fn wrong_passwords_of_a_source() {
    let folder = folder();
    let process = start(&folder, &[("RELAY_FAILURES_PER_MIN", "3"), ("RELAY_UNAUTHORIZED_PER_S", "100")]);
    for _ in 0..3 {
        assert_eq!(Turn::new(process.udp, "ann", "a guess").allocate(), 401);
    }
    let mut turn = client(&process);
    let body = |w: &mut stun::Writer<'_>| w.requested_transport(17).expect("room");
    turn.request(Method::ALLOCATE, body, false);
    assert!(turn.receive().is_ok(), "a challenge");
    turn.learn_nonce();
    turn.socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
    turn.request(Method::ALLOCATE, body, true);
    assert!(turn.receive().is_err(), "not even the right one is answered now");
}

#[test]
fn answers_to_strangers_of_a_source() {
    let folder = folder();
    let process = start(&folder, &[("RELAY_UNAUTHORIZED_PER_S", "1")]);
    let mut turn = client(&process);
    let (begun, mut answers) = (Instant::now(), 0);
    for n in 0..20 {
        if n == 5 {
            turn.socket.set_read_timeout(Some(Duration::from_millis(300))).expect("set");
        }
        turn.request(Method::ALLOCATE, |w| w.requested_transport(17).expect("room"), false);
        answers += u32::from(turn.receive().is_ok());
    }
    // Five at once, and one for each second that has passed.
    let allowed = 6.0 + begun.elapsed().as_secs_f64();
    assert!(answers >= 5 && f64::from(answers) <= allowed, "{answers} of 20, {allowed:.0} allowed");
    turn.socket.set_read_timeout(Some(WAIT_MAX)).expect("set");
    turn.request(Method::BINDING, |_| {}, false);
    assert!(turn.receive().is_ok(), "Binding is always answered");
}
