//! `carillon dev` as a person runs it, with the real media node and signalling, on ports that the system chooses. The
//! desktop and the calls themselves are the business of `tests/run first-call`.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// Generous: a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

const CHILDREN: [&str; 4] = ["relay", "credential-broker", "signaling", "sfu"];
/// Ends of the names of variables.
const SECRETS: [&str; 4] = ["_CONTROL_TOKEN", "_TOKEN_KEYS", "_API_KEY", "_BROKER_KEY"];

struct Dev {
    child: Child,
    folder: tempfile::TempDir,
}

impl Dev {
    fn start(extra: &[&str]) -> Self {
        Self::start_in(None, extra)
    }

    /// In a folder for temporary files: then its state is there.
    fn start_in(temporary: Option<&Path>, extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = std::fs::File::create(folder.path().join("output")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
        command.args(["dev", "--no-desktop", "--advertise", "127.0.0.1", "--shards", "1"]);
        for flag in ["--http-port", "--https-port", "--media-port", "--relay-port", "--relay-tls-port"] {
            command.args([flag, "0"]);
        }
        match temporary {
            Some(temporary) => command.env("TMPDIR", temporary),
            None => command.arg("--state-dir").arg(folder.path().join("state")),
        };
        command.arg("--ready-file").arg(folder.path().join("ready.json")).args(extra);
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        let child = command.spawn().unwrap();
        Self { child, folder }
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.path().join("ready.json")
    }

    /// The ready file once it says what `wanted` looks for.
    fn ready(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = self.ready_file();
        self.eventually("ready file", |_| {
            let text = std::fs::read(&path).ok()?;
            let report: Value = serde_json::from_slice(&text).expect("the file is whole whenever it is there");
            wanted(&report).then_some(report)
        })
    }

    fn says(&mut self, text: &str) {
        self.eventually(text, |output| output.contains(text).then_some(()));
    }

    fn eventually<T>(&mut self, what: &str, found: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = std::fs::read_to_string(self.folder.path().join("output")).unwrap();
            if let Some(found) = found(&output) {
                return found;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "waiting for {what} ({ended:?}):\n{output}");
            std::thread::sleep(POLL);
        }
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(report: &Value, name: &str) -> Pid {
    let raw = report["processes"][name].as_i64().unwrap_or_else(|| panic!("{name} in {report}"));
    Pid::from_raw(i32::try_from(raw).unwrap()).unwrap()
}

fn gone(pid: Pid) -> bool {
    // A zombie that its new parent has not collected yet is gone, too.
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    test_kill_process(pid).is_err() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

fn await_gone(pids: &[Pid]) {
    let deadline = Instant::now() + PATIENCE;
    while !pids.iter().all(|pid| gone(*pid)) {
        assert!(Instant::now() < deadline, "still running: {pids:?}");
        std::thread::sleep(POLL);
    }
}

#[test]
fn becomes_ready_tells_everything_and_stops_on_request() {
    let mut dev = Dev::start(&["--room", "tea"]);
    let report = dev.ready(|_| true);
    assert_eq!(report["room"], "tea");
    assert!(report["page"].as_str().unwrap().ends_with("/r/tea"));
    assert!(report["ws"].as_str().unwrap().ends_with("/v1/rooms/tea"));
    for role in ["speaker", "listener", "moderator", "publisher"] {
        assert_eq!(report["tokens"][role].as_str().unwrap().split('.').count(), 3, "{role}");
    }
    assert!(report["desktop"].is_null());
    dev.says("Ctrl-C stops everything");
    let urls: Vec<_> = report["relay"]["urls"].as_array().unwrap().iter().map(|url| url.as_str().unwrap()).collect();
    assert!(
        urls[0].starts_with("turn:127.0.0.1:") && urls[0].ends_with("udp") && urls[1].ends_with("tcp"),
        "{urls:?}"
    );
    assert!(urls[2].starts_with("turns:127.0.0.1:"), "{urls:?}");
    let children = CHILDREN.map(|name| pid(&report, name));
    kill_process(pid(&report, "carillon"), Signal::TERM).unwrap();
    assert_eq!(dev.end().code(), Some(0));
    assert!(children.iter().all(|pid| gone(*pid)));
    assert!(!dev.ready_file().exists());
}

#[test]
fn the_doctor_says_that_it_is_carillon_who_holds_a_port() {
    let mut dev = Dev::start(&[]);
    let report = dev.ready(|_| true);
    let port = report["media"]["first_port"].to_string();
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_carillon"));
    let output = doctor.args(["doctor", "--media-port", &port]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let [sfu, carillon] = ["sfu", "carillon"].map(|name| report["processes"][name].to_string());
    let words = format!("UDP {port} is held by Carillon itself: sfu (pid {sfu}), of carillon dev (pid {carillon})");
    assert!(said.contains(&words), "{said}");
    assert!(said.contains(&format!("runs on this machine already: carillon dev (pid {carillon})")), "{said}");
}

#[test]
fn a_killed_process_is_reported_and_started_again() {
    let mut dev = Dev::start(&[]);
    let before = dev.ready(|_| true);
    for name in CHILDREN {
        kill_process(pid(&before, name), Signal::KILL).unwrap();
        dev.says(&format!("{name} was killed (signal 9). Starting it again"));
        dev.says(&format!("{name} is back"));
        let after = dev.ready(|report| report["processes"][name] != before["processes"][name]);
        assert_eq!(after["tokens"], before["tokens"]);
        assert_eq!(after["ws"], before["ws"]);
    }
}

#[test]
fn killing_carillon_itself_leaves_nothing_behind() {
    let mut dev = Dev::start(&[]);
    let report = dev.ready(|_| true);
    let children = CHILDREN.map(|name| pid(&report, name));
    dev.child.kill().unwrap();
    await_gone(&children);
}

#[test]
fn no_secret_is_an_argument() {
    let mut dev = Dev::start(&[]);
    let report = dev.ready(|_| true);
    for name in ["sfu", "signaling", "credential-broker"] {
        let process = Path::new("/proc").join(pid(&report, name).to_string());
        let arguments = std::fs::read_to_string(process.join("cmdline")).unwrap();
        let environment = String::from_utf8_lossy(&std::fs::read(process.join("environ")).unwrap()).into_owned();
        let variables = environment.split('\0').filter_map(|line| line.split_once('='));
        let secrets: Vec<&str> = variables
            .filter(|(key, _)| SECRETS.iter().any(|secret| key.ends_with(secret)))
            .map(|(_, value)| value)
            .collect();
        assert!(!secrets.is_empty() && secrets.iter().all(|secret| !arguments.contains(secret)), "{name}");
    }
}

#[test]
fn a_room_name_that_does_not_fit_into_a_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_carillon"))
        .args(["dev", "--no-desktop", "--advertise", "127.0.0.1", "--room", "bad room/name"])
        .args(["--http-port", "0", "--https-port", "0", "--media-port", "0", "--state-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("room"), "{output:?}");
}

#[test]
fn a_broken_token_key_is_told_first_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(["dev", "--no-desktop", "--advertise", "127.0.0.1"]);
    let output = command.env("TMPDIR", folder.path()).env("CARILLON_TOKEN_KEY", "nocolon").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("carillon: CARILLON_TOKEN_KEY: ") && said.contains("kid:secret"), "{said}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_cannot_be_used_is_told_first_with_its_flag() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
        command.args(["dev", "--no-desktop", "--advertise", "127.0.0.1"]).args(arguments);
        let output = command.env("TMPDIR", folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let absent = refusal(&["--ready-file", "/nonexistent/ready.json"]);
    assert!(absent.starts_with("carillon: --ready-file /nonexistent/ready.json: "), "{absent}");
    assert_eq!(absent.matches("os error 2").count(), 1, "{absent}");
    let is_folder = refusal(&["--ready-file", folder.path().to_str().unwrap()]);
    assert!(is_folder.contains("it is a folder"), "{is_folder}");
    let certificate = refusal(&["--tls-cert", "/nonexistent/c.pem", "--tls-key", "/nonexistent/k.pem"]);
    assert!(certificate.starts_with("carillon: --tls-cert /nonexistent/c.pem cannot be read: "), "{certificate}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_killed_run_leaves_nothing_that_the_next_one_does_not_remove() {
    let temporary = tempfile::tempdir().unwrap();
    // The locks of ports are those of all runs, or two tests would take the same.
    let locks = format!("carillon-ports-{}", rustix::process::getuid().as_raw());
    std::fs::create_dir_all(std::env::temp_dir().join(&locks)).unwrap();
    std::os::unix::fs::symlink(std::env::temp_dir().join(&locks), temporary.path().join(&locks)).unwrap();
    let mut killed = Dev::start_in(Some(temporary.path()), &[]);
    let report = killed.ready(|_| true);
    let folder = PathBuf::from(report["logs"].as_str().unwrap()).parent().unwrap().to_owned();
    assert!(folder.starts_with(temporary.path()) && folder.join("key.pem").exists());
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    await_gone(&CHILDREN.map(|name| pid(&report, name)));
    assert!(folder.join("key.pem").exists());
    let mut next = Dev::start_in(Some(temporary.path()), &[]);
    next.ready(|_| true);
    assert!(!folder.exists());
    kill_process(Pid::from_child(&next.child), Signal::TERM).unwrap();
    assert_eq!(next.end().code(), Some(0));
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_str().unwrap().starts_with("carillon-ports-")), "{left:?}");
}

#[test]
fn deploy_run_knows_the_flags_before_the_program_is_built() {
    let output = Command::new(env!("CARGO_BIN_EXE_carillon")).args(["dev", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(
        help == include_str!("../dev-help.txt"),
        "write `carillon dev --help` to deploy/carillon/dev-help.txt:\n{help}"
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../run");
    for (arguments, told) in [
        (&["--no-desktp"][..], "--no-desktp"),
        (&["--room", "bad room"], "bad room"),
        (&["--room=a/b"], "a/b"),
        (&["--no-desktop", "--http-port", "many"], "--http-port"),
        (&["--ready-file"], "--ready-file needs a value"),
        (&["--ready-file", "/nonexistent/ready.json"], "no folder /nonexistent"),
        // Nothing can be made there, not even by root.
        (&["--ready-file", "/proc/1/ready.json"], "--ready-file '/proc/1/ready.json'"),
        (&["--ready-file=/"], "it is a folder"),
        (&["--tls-cert", "/nonexistent/chain.pem"], "--tls-cert '/nonexistent/chain.pem'"),
        (&["demo"], "'demo'"),
    ] {
        // No cargo on this path: what is not refused fails later and otherwise.
        let refused =
            Command::new("bash").arg(&script).args(arguments).env("PATH", "/usr/bin:/bin").output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(2) && said.contains(told), "{arguments:?}: {said}");
    }
}

#[test]
fn a_token_without_a_key_names_the_variable() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(["token", "--room", "demo", "--identity", "ann"]).env_remove("CARILLON_TOKEN_KEY");
    let output = command.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("CARILLON_TOKEN_KEY"), "{output:?}");
}

#[test]
fn a_token_is_minted_with_a_key_from_the_environment() {
    let token = |key: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
        command.args(["token", "--room", "demo", "--identity", "ann", "--role", "listener", "--ttl", "5m"]);
        command.env("CARILLON_TOKEN_KEY", key).output().unwrap()
    };
    let minted = token("k1:0123456789abcdef0123456789abcdef");
    assert!(minted.status.success());
    assert_eq!(String::from_utf8(minted.stdout).unwrap().trim().split('.').count(), 3);
    let refused = token("k1:short");
    assert!(!refused.status.success());
    assert!(!String::from_utf8_lossy(&refused.stderr).contains("k1:short"), "the secret is not repeated");
}
