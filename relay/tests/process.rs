//! The relay as a process, over loopback: what needs files, signals and logs. The protocol itself is tested in
//! `relay-core` and by coturn's tools.

mod harness;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Process, Turn, WAIT_MAX, command, folder, replace, until};

#[test]
fn relays_between_a_client_and_a_peer() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("bound");
    peer.set_read_timeout(Some(WAIT_MAX)).expect("set");
    let mut turn = Turn::new(process.udp, "ann", "the-password");
    assert_eq!(turn.allocate(), 200);
    assert_eq!(turn.bind(peer.local_addr().expect("bound")), 200);
    let mut buf = [0; 2_048];
    for n in 0..100_u8 {
        turn.socket.send_to(&[0x40, 0, 0, 3, n, n, n], process.udp).expect("sent");
        let (len, relayed) = peer.recv_from(&mut buf).expect("relayed");
        assert_eq!(&buf[..len], [n; 3]);
        peer.send_to(&[n; 5], relayed).expect("sent");
        let (len, _) = turn.socket.recv_from(&mut buf).expect("relayed");
        assert_eq!(&buf[..len], [0x40, 0, 0, 5, n, n, n, n, n]);
    }
    assert_eq!(turn.refresh(0), 200);
    until(|| process.get("/metrics").contains("relay_ports_used 0"), || process.get("/metrics"));
    let metrics = process.get("/metrics");
    assert!(metrics.contains("relay_to_peer_packets_total{thread=\"0\"}"), "{metrics}");
    assert!(!metrics.contains("\"ann"), "no user name is a label");
}

#[test]
fn s15_the_log_has_no_secret_and_no_control_character() {
    let folder = folder();
    let process = Process::start(folder.path(), &["--log-filter", "trace"]);
    for (username, password) in [("ann", "the-password"), ("ann", "wrong"), ("evil\n\x1b[31m\"}", "x"), ("1:x", "y")]
    {
        let mut turn = Turn::new(process.udp, username, password);
        let code = turn.allocate();
        assert_eq!(code == 200, password == "the-password");
    }
    process.signal("HUP");
    process.wait_for("loaded again");
    let log = process.log();
    for secret in ["the-first-secret", "the-password", "\x1b", "wrong\""] {
        assert!(!log.contains(secret), "{log}");
    }
    assert!(log.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{log}");
}

#[test]
fn s19_a_new_secret_is_good_within_seconds_and_no_allocation_is_lost() {
    let folder = folder();
    // Who asks again and again meets no limit.
    let patient = [("RELAY_UNAUTHORIZED_PER_S", "100000"), ("RELAY_FAILURES_PER_MIN", "100000")];
    let process = Process::start_with(folder.path(), &[], &patient);
    let mut before = Turn::new(process.udp, "ann", "the-password");
    assert_eq!(before.allocate(), 200);
    replace(&folder.path().join("users"), "bob:another-password\n");
    process.wait_for("loaded again");
    let accepted = |name: &str, password: &str| Turn::new(process.udp, name, password).allocate() == 200;
    until(|| accepted("bob", "another-password"), || process.log());
    assert_eq!(Turn::new(process.udp, "ann", "the-password").allocate(), 401);
    assert_eq!(before.refresh(600), 200, "the allocation outlives its user");
}

#[test]
fn s20_settings_that_cannot_be_read_stop_a_start_and_not_a_reload() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    replace(&folder.path().join("users"), "ann\n");
    process.wait_for("the old ones stay");
    assert_eq!(Turn::new(process.udp, "ann", "the-password").allocate(), 200);
    assert!(process.get("/metrics").contains("relay_reloads_total{result=\"failed\"} 1"));
    let users = folder.path().join("users");
    for (args, said) in [
        (vec!["--user-file", users.to_str().expect("text"), "--general"], "user 1"),
        (vec!["--general"], "no credentials"),
        (vec!["--general", "--coturn", "/nonexistent/turnserver.conf"], "cannot be read"),
    ] {
        // A machine may have no address but loopback.
        let output = command().args(["--listen", "192.0.2.77"]).args(args).output().expect("run");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said), "{text}");
    }
}

#[test]
fn another_time_between_beats_is_taken_at_a_reload() {
    let folder = folder();
    let settings = folder.path().join("relay.toml");
    replace(&settings, "gather_us = 0\n");
    let process = Process::start(folder.path(), &["--config", settings.to_str().expect("text")]);
    replace(&settings, "gather_us = 5000\n");
    process.signal("HUP");
    process.wait_for("loaded again");
    let (crowd, enough) = (UdpSocket::bind("127.0.0.1:0").expect("bound"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                for _ in 0..10 {
                    let _ = crowd.send_to(&[0xff; 4], process.udp);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let goes_by_the_clock = || {
            let text = process.get("/metrics");
            text.lines().any(|line| line.starts_with("relay_gathers{") && line.ends_with(" 1"))
        };
        until(
            || {
                enough.store(goes_by_the_clock(), Ordering::Relaxed);
                enough.load(Ordering::Relaxed)
            },
            || {
                enough.store(true, Ordering::Relaxed);
                process.log()
            },
        );
    });
}

#[test]
fn draining_refuses_new_allocations_and_waits_for_the_old() {
    let folder = folder();
    let mut process = Process::start(folder.path(), &["--drain-seconds", "60"]);
    let mut turn = Turn::new(process.udp, "ann", "the-password");
    assert_eq!(turn.allocate(), 200);
    until(
        || {
            process.get("/metrics").contains("relay_allocations{thread=\"0\"} 1")
                || process.get("/metrics").contains("relay_allocations{thread=\"1\"} 1")
        },
        || process.get("/metrics"),
    );
    process.signal("TERM");
    until(|| process.get("/readyz").contains("draining"), || process.get("/readyz"));
    // A thread may hear of it a little later; then what was had is given back, and somebody else asks.
    let refused = || {
        let mut late = Turn::new(process.udp, "ann", "the-password");
        let code = late.allocate();
        assert!(code == 508 || (code == 200 && late.refresh(0) == 200), "{code}");
        code == 508
    };
    until(refused, || "still allocates".to_owned());
    assert_eq!(turn.refresh(600), 200);
    assert!(!process.has_ended());
    assert_eq!(turn.refresh(0), 200);
    until(|| process.has_ended(), || "does not end".to_owned());
    assert_eq!(process.child.wait().expect("ended").code(), Some(0));
}
