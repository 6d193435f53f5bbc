//! A sound daemon of its own for each test: PulseAudio, or PipeWire with pipewire-pulse. Own directory, own cookie, unix
//! socket, PulseAudio also TCP on a free port, the devices of a Carillon desktop. Ends with the test, by its process ids.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use audio_bridge::pulse::{PulseSettings, ServerAddress};
use tempfile::TempDir;

/// One daemon at a time: several on two cores measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const START_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    PulseAudio,
    PipeWire,
}

pub(crate) struct Daemon {
    kind: Kind,
    directory: TempDir,
    port: u16,
    processes: Vec<Child>,
    _turn: MutexGuard<'static, ()>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_as(Kind::PulseAudio)
    }

    pub(crate) fn start_pipewire() -> Self {
        Self::start_as(Kind::PipeWire)
    }

    fn start_as(kind: Kind) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::Builder::new().prefix("bridge").tempdir().expect("temporary directory");
        let cookie: Vec<u8> = (0..256).map(|_| rand::random()).collect();
        std::fs::write(directory.path().join("cookie"), cookie).expect("cookie is written");
        let port = free_port();
        let mut daemon = Self { kind, directory, port, processes: Vec::new(), _turn: turn };
        daemon.launch();
        daemon
    }

    /// Starts the daemon (again) at the same addresses.
    pub(crate) fn launch(&mut self) {
        match self.kind {
            Kind::PulseAudio => self.launch_pulseaudio(),
            Kind::PipeWire => self.launch_pipewire(),
        }
    }

    fn launch_pulseaudio(&mut self) {
        let path = self.directory.path().display();
        let script = format!(
            "load-module module-null-sink sink_name=desktop format=s16le rate=48000 channels=2\n\
             load-module module-null-sink sink_name=mic_in format=s16le rate=48000 channels=1\n\
             load-module module-remap-source source_name=mic master=mic_in.monitor\n\
             set-default-sink desktop\n\
             set-default-source mic\n\
             load-module module-native-protocol-unix socket={path}/native auth-cookie={path}/cookie\n\
             load-module module-native-protocol-tcp listen=127.0.0.1 port={} auth-cookie={path}/cookie auth-ip-acl=\n",
            self.port
        );
        let script_path = self.path("desktop.pa");
        std::fs::write(&script_path, script).expect("script is written");
        let _ = std::fs::remove_file(self.path("native"));
        let arguments = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--disallow-exit", "--use-pid-file=no", "-F"];
        self.spawn("pulseaudio", arguments.map(String::from).into_iter().chain([script_path.display().to_string()]));
        self.until_it_answers();
    }

    /// PipeWire needs a session bus, and somebody who connects what is to be heard together.
    fn launch_pipewire(&mut self) {
        let bus = format!("--address=unix:path={}", self.path("bus").display());
        for name in ["bus", "pipewire-0", "pulse/native"] {
            let _ = std::fs::remove_file(self.path(name));
        }
        std::fs::create_dir_all(self.path("pulse")).expect("directory is made");
        self.spawn("dbus-daemon", ["--session".to_owned(), "--nofork".to_owned(), bus]);
        self.until_there("bus");
        self.spawn("pipewire", []);
        self.until_there("pipewire-0");
        self.spawn("wireplumber", []);
        self.spawn("pipewire-pulse", []);
        self.until_it_answers();
        self.add_desktop_sink();
        for module in [
            &["module-null-sink", "sink_name=mic_in", "format=s16le", "rate=48000", "channels=1"][..],
            &["module-remap-source", "source_name=mic", "master=mic_in.monitor", "channels=1", "channel_map=mono"],
        ] {
            self.pactl(&[&["load-module"], module].concat()).expect("module is loaded");
        }
        let deadline = Instant::now() + START_MAX;
        while self.pactl(&["set-default-sink", "desktop"]).is_none()
            || self.pactl(&["set-default-source", "mic"]).is_none()
        {
            assert!(Instant::now() < deadline, "the devices do not come");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn spawn(&mut self, program: &str, arguments: impl IntoIterator<Item = String>) {
        let home = self.directory.path();
        let child = Command::new(program)
            .args(arguments)
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home)
            .env("PIPEWIRE_RUNTIME_DIR", home)
            .env("PULSE_RUNTIME_PATH", if self.kind == Kind::PipeWire { self.path("pulse") } else { home.to_owned() })
            .env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", self.path("bus").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.processes.push(child.unwrap_or_else(|_| panic!("{program} must be installed (tests/run installs it)")));
    }

    fn until_there(&self, name: &str) {
        let deadline = Instant::now() + START_MAX;
        while !self.path(name).exists() {
            assert!(Instant::now() < deadline, "{name} does not come");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn until_it_answers(&self) {
        let deadline = Instant::now() + START_MAX;
        while self.pactl(&["info"]).is_none() {
            assert!(Instant::now() < deadline, "the sound daemon does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the daemon the hard way.
    pub(crate) fn kill(&mut self) {
        for mut process in self.processes.drain(..).rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    pub(crate) fn unix(&self) -> PulseSettings {
        PulseSettings { server: ServerAddress::Unix(self.socket()), cookie: self.path("cookie") }
    }

    fn socket(&self) -> PathBuf {
        match self.kind {
            Kind::PulseAudio => self.path("native"),
            Kind::PipeWire => self.path("pulse/native"),
        }
    }

    pub(crate) fn tcp(&self) -> PulseSettings {
        let server = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: self.port };
        PulseSettings { server, cookie: self.path("cookie") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A client program with the daemon's address and cookie.
    pub(crate) fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("PULSE_SERVER", format!("unix:{}", self.socket().display()))
            .env("PULSE_COOKIE", self.path("cookie"))
            .env("HOME", self.directory.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// The output of pactl, when it succeeds.
    pub(crate) fn pactl(&self, arguments: &[&str]) -> Option<String> {
        let output = self.client("pactl").args(arguments).output().expect("pulseaudio-utils must be installed");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn remove_sink(&self, name: &str) {
        let modules = self.pactl(&["list", "short", "modules"]).expect("modules are listed");
        let wanted = format!("sink_name={name} ");
        let line = modules.lines().find(|line| line.contains(&wanted)).expect("the sink is there");
        let index = line.split_whitespace().next().expect("a module has an index");
        self.pactl(&["unload-module", index]).expect("the sink is removed");
    }

    pub(crate) fn add_desktop_sink(&self) {
        let arguments =
            ["load-module", "module-null-sink", "sink_name=desktop", "format=s16le", "rate=48000", "channels=2"];
        self.pactl(&arguments).expect("the sink is added");
    }

    /// Plays interleaved stereo into a sink with the daemon's own client; ends with the file or when dropped.
    pub(crate) fn play(&self, sink: &str, samples: &[i16]) -> Player {
        self.play_ahead(sink, samples, 300)
    }

    /// The same with so much sound in the daemon: the least is what a program wants that is in a hurry.
    pub(crate) fn play_ahead(&self, sink: &str, samples: &[i16], ahead_ms: u32) -> Player {
        let file = self.path(&format!("{sink}-{}.raw", rand::random::<u32>()));
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        std::fs::write(&file, bytes).expect("samples are written");
        let child = self
            .client("pacat")
            .args([
                "--playback",
                "--raw",
                "--format=s16le",
                "--rate=48000",
                "--channels=2",
                &format!("--latency-msec={ahead_ms}"),
                "-d",
                sink,
            ])
            .arg(file)
            .spawn()
            .expect("pacat starts");
        Player(child)
    }

    /// Records so much of one channel from a source with the daemon's own client.
    pub(crate) fn record(&self, source: &str, duration: Duration) -> Vec<i16> {
        let file = self.path(&format!("{source}.raw"));
        let output = std::fs::File::create(&file).expect("file is made");
        let mut child = self
            .client("parec")
            .args(["--raw", "--format=s16le", "--rate=48000", "--channels=1", "--latency-msec=10", "-d", source])
            .stdout(output)
            .spawn()
            .expect("parec starts");
        let (wanted, deadline) = ((duration.as_secs_f64() * 96_000.0) as u64, Instant::now() + START_MAX);
        while std::fs::metadata(&file).expect("file is there").len() < wanted {
            assert!(Instant::now() < deadline, "the recording of {source} does not come");
            std::thread::sleep(Duration::from_millis(50));
        }
        child.kill().expect("parec ends");
        child.wait().expect("parec is gone");
        samples_of(&file)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) struct Player(Child);

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not among those that the kernel gives to whoever asks for any: the daemon listens there a little later.
fn free_port() -> u16 {
    let ports = std::iter::repeat_with(|| rand::random_range(20_000..32_000));
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(100).find(free).expect("a free port")
}

fn samples_of(file: &Path) -> Vec<i16> {
    let bytes = std::fs::read(file).expect("recording is read");
    bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect()
}
