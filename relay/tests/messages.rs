//! What an operator reads when something is wrong: the value, where it came from, and what to change.

mod harness;

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use harness::{command, folder};

/// Of a relay that must not start. Its address is one of documentation: a machine may have none but loopback.
fn refused(args: &[&str], environment: &[(&str, &str)]) -> String {
    let address = [("RELAY_LISTEN", "192.0.2.77")];
    let environment = environment.iter().chain(&address).copied();
    let output = command().args(args).envs(environment).output().expect("run");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it started: {text}");
    text
}

fn with_coturn_file(lines: &str, args: &[&str]) -> (bool, String) {
    let folder = folder();
    let path = folder.path().join("turnserver.conf");
    std::fs::write(&path, lines).expect("written");
    let output = command().arg("--coturn").arg(path).args(args).output().expect("run");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_port_in_use_is_named_with_the_flag_that_chooses_another() {
    let (udp, tcp) =
        (UdpSocket::bind("127.0.0.1:0").expect("bound"), TcpListener::bind("127.0.0.1:0").expect("bound"));
    let (udp, tcp) = (udp.local_addr().expect("bound"), tcp.local_addr().expect("bound"));
    let (udp_port, admin) = (udp.port().to_string(), tcp.to_string());
    let base = ["--dev", "--listen", "127.0.0.1", "--general"];
    let user = [("RELAY_USER", "ann:pass")];
    let text = refused(&[&base[..], &["--port", &udp_port, "--admin", "127.0.0.1:0"]].concat(), &user);
    assert!(text.contains(&format!("UDP port {udp} cannot be bound: Address already in use")), "{text}");
    assert!(text.contains("choose another by --port (key port)"), "{text}");
    let text = refused(&[&base[..], &["--port", "0", "--admin", &admin]].concat(), &user);
    assert!(text.contains(&format!("admin port {tcp} cannot")) && text.contains("by --admin"), "{text}");
    let text = refused(&["--dev", "--listen", "192.0.2.77", "--general", "--port", "0"], &user);
    assert!(text.contains("192.0.2.77") && text.contains("an address of this machine by --listen"), "{text}");
}

#[test]
fn a_missing_file_of_secrets_is_named_by_its_key_and_once() {
    let text = refused(&["--general", "--secret-file", "/nonexistent/secrets"], &[]);
    assert!(text.contains("secret_file: secret file /nonexistent/secrets cannot be read: No such file"), "{text}");
    assert_eq!(text.matches("os error 2").count(), 1, "{text}");
    let text = refused(&["--general"], &[]);
    assert!(text.contains("--secret-file") && text.contains("RELAY_SECRET"), "{text}");
    let text = refused(&["--peer-file", "/nonexistent/peers"], &[("RELAY_USER", "ann:pass")]);
    assert!(text.contains("peer_file /nonexistent/peers cannot be read"), "{text}");
    let text = refused(&[], &[("RELAY_USER", "ann:pass")]);
    assert!(text.contains("--peer") && text.contains("--general"), "{text}");
}

#[test]
fn a_line_of_coturn_that_is_refused_says_what_to_do() {
    let (good, text) = with_coturn_file("user=ann:pass\nmobility\n", &["--check-config"]);
    assert!(
        !good && text.contains("line 2: mobility is refused: RFC 8016 is not offered; remove the line"),
        "{text}"
    );
    let (good, text) = with_coturn_file("user=ann:pass\nlistening-port=99999\n", &["--check-config"]);
    assert!(!good && text.contains("line 2: listening-port: is 99999, must be a number from 0 to 65535"), "{text}");
}

#[test]
fn a_general_relay_by_a_coturn_file_is_said_and_can_be_limited() {
    let lines = "listening-ip=192.0.2.1\nuser=ann:pass\nallowed-peer-ip=198.51.100.7\n";
    let (good, text) = with_coturn_file(lines, &["--check-config"]);
    assert!(good && text.contains("relays to everybody who is not denied"), "{text}");
    assert!(text.contains("WARNING: A coturn file means a general relay") && text.contains("--listed"), "{text}");
    let (good, text) = with_coturn_file(lines, &["--check-config", "--listed"]);
    assert!(good && text.contains("relays to the media nodes that are named") && !text.contains("WARNING"), "{text}");
    let (good, text) = with_coturn_file("listening-ip=192.0.2.1\nuser=ann:pass\n", &["--check-config", "--listed"]);
    assert!(!good && text.contains("no peer is allowed"), "{text}");
}

#[test]
fn both_files_of_the_field_are_explained() {
    for (file, args) in [("turnserver-rest.conf", vec!["--dev"]), ("turnserver-static-user.conf", vec![])] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(file);
        let mut command = command();
        command.args(["--check-config", "--listen", "192.0.2.1", "--coturn"]).arg(path).args(args);
        let output = command.output().expect("run");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("The configuration is good"), "{text}");
        assert!(text.contains("listening-port") && !text.contains("CHANGEME") && !text.contains("pass1"), "{text}");
    }
}
