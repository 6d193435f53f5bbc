//! A desktop without a screen: a PulseAudio daemon of our own with a sink that programs play into and a microphone that
//! they record from. It needs no user session, no D-Bus and no sound card, works as root, and shares nothing with a
//! daemon that already runs.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::process::{Ready, Spec};
use super::secrets::{COOKIE_BYTES, random};
use super::state::write_private;
use crate::local::find_program;

/// Programs play here; the bridge records its monitor.
pub(super) const SINK: &str = "desktop";
/// The bridge plays the voices of the room here. Not for programs: what they play into it is heard as microphone.
pub(super) const MICROPHONE_SINK: &str = "mic_in";
/// Programs record from here.
pub(super) const MICROPHONE: &str = "mic";

/// `sun_path` of unix(7), with its final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

#[derive(Clone, Debug)]
pub(super) struct Desktop {
    folder: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) cookie: PathBuf,
    pub(super) tcp: SocketAddr,
}

impl Desktop {
    pub(super) fn new(state: &Path, tcp_port: u16) -> Self {
        let folder = state.join("desktop");
        let tcp = SocketAddr::from((Ipv4Addr::LOCALHOST, tcp_port));
        Self { socket: folder.join("native.sock"), cookie: folder.join("cookie"), tcp, folder }
    }

    /// As `PULSE_SERVER` and the bridge take it.
    pub(super) fn server(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// The daemon, with its files written.
    pub(super) fn spec(&self, log: PathBuf) -> anyhow::Result<Spec> {
        let program = find_program("pulseaudio").context(
            "PulseAudio is not installed: apt-get install pulseaudio pulseaudio-utils, or use --no-desktop",
        )?;
        self.write_files()?;
        let arguments = ["-n", "-F"].map(OsString::from).into_iter().chain([self.script_file().into()]);
        let arguments = arguments.chain(FLAGS.map(OsString::from)).collect();
        // Everything that the daemon would keep in a home or a session goes into our folder instead.
        let home = ["HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "PULSE_RUNTIME_PATH", "PULSE_STATE_PATH"];
        let mut environment: Vec<_> = home.map(|key| (key, self.folder.clone().into_os_string())).into();
        environment.push(("PULSE_CONFIG", self.settings_file().into()));
        // An empty address keeps it from starting a session bus.
        environment.push(("DBUS_SESSION_BUS_ADDRESS", OsString::from("unix:path=/dev/null")));
        let ready = Ready::Socket(self.socket.clone());
        Ok(Spec { name: "pulseaudio", program, arguments, environment, secrets: Vec::new(), ready, log })
    }

    fn script_file(&self) -> PathBuf {
        self.folder.join("desktop.pa")
    }

    fn settings_file(&self) -> PathBuf {
        self.folder.join("daemon.conf")
    }

    fn write_files(&self) -> anyhow::Result<()> {
        ensure!(
            self.socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX,
            "{} is too long for the address of a socket: take a shorter --state-dir",
            self.socket.display()
        );
        std::fs::create_dir_all(&self.folder).with_context(|| format!("cannot make {}", self.folder.display()))?;
        write_private(&self.cookie, &random::<COOKIE_BYTES>()?)?;
        write_private(&self.script_file(), self.script().as_bytes())?;
        write_private(&self.settings_file(), SETTINGS.as_bytes())
    }

    /// The unix socket comes last: once somebody listens there, all the rest is in place.
    fn script(&self) -> String {
        let (socket, cookie) = (self.socket.display(), self.cookie.display());
        let port = self.tcp.port();
        format!(
            "load-module module-null-sink sink_name={SINK} format=s16le rate=48000 channels=2 \
             sink_properties=device.description=Desktop\n\
             load-module module-null-sink sink_name={MICROPHONE_SINK} format=s16le rate=48000 channels=1 \
             sink_properties=device.description=Room-voices-do-not-play-here\n\
             load-module module-remap-source source_name={MICROPHONE} master={MICROPHONE_SINK}.monitor \
             source_properties=device.description=Room-voices\n\
             set-default-sink {SINK}\n\
             set-default-source {MICROPHONE}\n\
             load-module module-native-protocol-tcp listen=127.0.0.1 port={port} auth-cookie=\"{cookie}\" auth-ip-acl=\n\
             load-module module-native-protocol-unix socket=\"{socket}\" auth-cookie=\"{cookie}\"\n"
        )
    }
}

/// No suspend-on-idle module: a null sink that sleeps swallows the first two seconds of the next sound.
const FLAGS: [&str; 4] = ["--daemonize=no", "--exit-idle-time=-1", "--disallow-exit", "--use-pid-file=no"];

/// The stock 44100 Hz would resample everything on its way into Opus.
const SETTINGS: &str = "default-sample-rate = 48000\nalternate-sample-rate = 48000\nflat-volumes = no\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_come_before_the_sockets() {
        let script = Desktop::new(Path::new("/tmp/x"), 4714).script();
        let place = |what: &str| script.find(what).unwrap();
        assert!(place("sink_name=desktop") < place("sink_name=mic_in"));
        assert!(place("sink_name=mic_in") < place("source_name=mic"));
        assert!(place("source_name=mic") < place("module-native-protocol-tcp"));
        assert!(place("module-native-protocol-tcp") < place("module-native-protocol-unix"));
        assert_eq!(script.lines().count(), 7);
    }

    #[test]
    fn a_folder_too_deep_for_a_socket_is_refused_in_words() {
        let state = tempfile::tempdir().unwrap().path().join("deep/".repeat(30));
        let refused = Desktop::new(&state, 4714).write_files().unwrap_err();
        assert!(refused.to_string().contains("--state-dir"), "{refused}");
    }

    #[test]
    fn the_cookie_has_the_length_that_the_protocol_wants() {
        let state = tempfile::tempdir().unwrap();
        let desktop = Desktop::new(state.path(), 4714);
        desktop.write_files().unwrap();
        assert_eq!(std::fs::metadata(desktop.cookie).unwrap().len(), 256);
    }
}
