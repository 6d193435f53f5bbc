//! What a run has to say once everything is up: the JSON object for programs, and the closing words for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Serialize;

use super::relaying::RelayReport;
use super::state::write_private;

/// The content of the ready file. Rewritten when a process came back with another id.
#[derive(Debug, Serialize)]
pub(super) struct ReadyReport {
    /// Without a token; `links` has them with one.
    pub(super) page: String,
    pub(super) ws: String,
    pub(super) room: String,
    /// By role.
    pub(super) tokens: BTreeMap<&'static str, String>,
    /// Pages by role, token inside.
    pub(super) links: BTreeMap<&'static str, String>,
    pub(super) https: Https,
    pub(super) media: Media,
    /// Process ids.
    pub(super) processes: BTreeMap<&'static str, u32>,
    pub(super) desktop: Option<DesktopReport>,
    pub(super) relay: RelayReport,
    /// Where each process answers `/metrics`, `/livez` and `/readyz`.
    pub(super) admin: BTreeMap<&'static str, String>,
    pub(super) logs: PathBuf,
}

/// Where the media node takes UDP.
#[derive(Debug, Serialize)]
pub(super) struct Media {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) first_port: u16,
    /// One port each, from the first one on.
    pub(super) shards: u16,
}

#[derive(Debug, Serialize)]
pub(super) struct Https {
    /// For browsers on other devices.
    pub(super) page: String,
    /// Self-signed unless one was brought; PEM.
    pub(super) certificate: PathBuf,
}

#[derive(Debug, Serialize)]
pub(super) struct DesktopReport {
    /// For `PULSE_SERVER`.
    pub(super) pulse_server: String,
    /// The same daemon over loopback TCP.
    pub(super) pulse_server_tcp: String,
    /// For `PULSE_COOKIE`.
    pub(super) cookie: PathBuf,
    pub(super) sink: &'static str,
    pub(super) microphone: &'static str,
}

impl ReadyReport {
    pub(super) fn set_pid(&mut self, name: &'static str, pid: u32) {
        self.processes.insert(name, pid);
    }

    /// Whole or not at all: whoever waits for the file never reads half of it. It holds tokens, so it is private.
    pub(super) fn write_file(&self, path: Option<&Path>) -> anyhow::Result<()> {
        let Some(path) = path else { return Ok(()) };
        let mut text = serde_json::to_string(self).context("ready file")?;
        text.push('\n');
        let unfinished = unfinished(path);
        write_private(&unfinished, text.as_bytes())?;
        std::fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
    }

    pub(super) fn closing_words(&self, logs: &Path) -> String {
        let mut text = format!("\nReady. Open a link for each person in room \"{}\":\n\n", self.room);
        for (role, what) in ROLES {
            if let Some(link) = self.links.get(role) {
                let _ = writeln!(text, "  {role:<10} {what}\n  {:<10} {link}\n", "");
            }
        }
        if !self.media.addresses.iter().all(IpAddr::is_loopback) {
            let _ = writeln!(
                text,
                "From another device, put {} in place of {} in a link. Its\n\
             browser warns of the self-signed certificate once; a microphone works over https only.\n",
                self.https.page, self.page
            );
        }
        if let Some(desktop) = &self.desktop {
            text.push_str(&desktop.words());
        }
        if let Some(token) = self.tokens.get("publisher") {
            let _ = writeln!(text, "Token for a publisher of your own, at {}:\n  {token}\n", self.ws);
        }
        let _ = writeln!(text, "Logs are in {}. Ctrl-C stops everything.", logs.display());
        text
    }
}

/// Whether a ready file can be written there, before anybody has waited for it.
pub(super) fn check_place(path: &Path) -> anyhow::Result<()> {
    ensure!(!path.is_dir(), "it is a folder");
    let unfinished = unfinished(path);
    write_private(&unfinished, b"")?;
    std::fs::remove_file(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// In the order in which people look for them.
const ROLES: [(&str, &str); 3] = [
    ("speaker", "talks and listens, may share a tab's sound"),
    ("listener", "listens only"),
    ("moderator", "a speaker that may mute and remove others"),
];

impl DesktopReport {
    fn words(&self) -> String {
        let environment = format!("PULSE_SERVER={} PULSE_COOKIE={}", self.pulse_server, self.cookie.display());
        format!(
            "A desktop is in the room too. What plays on it is heard by all, what people say is its microphone:\n  \
             {environment} paplay /usr/share/sounds/alsa/Rear_Center.wav\n  \
             {environment} parecord --device={} voices.wav\n\n",
            self.microphone
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> ReadyReport {
        let tokens = [("speaker", "s"), ("listener", "l"), ("moderator", "m"), ("publisher", "p")];
        ReadyReport {
            page: "http://127.0.0.1:1/r/demo".to_owned(),
            ws: "ws://127.0.0.1:1/v1/rooms/demo".to_owned(),
            room: "demo".to_owned(),
            links: tokens.map(|(role, t)| (role, format!("http://127.0.0.1:1/r/demo#token={t}"))).into(),
            tokens: tokens.map(|(role, t)| (role, t.to_owned())).into(),
            https: Https { page: "https://192.0.2.7:2/r/demo".to_owned(), certificate: "/c.pem".into() },
            media: Media { addresses: vec!["192.0.2.7".parse().unwrap()], first_port: 40000, shards: 2 },
            processes: [("sfu", 1), ("signaling", 2), ("audio-bridge", 3)].into(),
            desktop: Some(DesktopReport {
                pulse_server: "unix:/s".to_owned(),
                pulse_server_tcp: "tcp:127.0.0.1:4714".to_owned(),
                cookie: "/cookie".into(),
                sink: "desktop",
                microphone: "mic",
            }),
            relay: RelayReport {
                urls: vec!["turn:192.0.2.7:3478?transport=udp".to_owned()],
                realm: "carillon",
                secrets: "/relay-secrets".into(),
                broker: "http://127.0.0.1:7300".to_owned(),
                broker_key: "k".to_owned(),
            },
            admin: [("sfu", "http://127.0.0.1:3".to_owned())].into(),
            logs: "/logs".into(),
        }
    }

    #[test]
    fn the_file_is_one_object_that_follows_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.json");
        let mut report = report();
        report.write_file(Some(&path)).unwrap();
        report.set_pid("signaling", 77);
        report.write_file(Some(&path)).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read["processes"]["signaling"], 77);
        assert_eq!(read["tokens"]["publisher"], "p");
        assert_eq!(read["desktop"]["sink"], "desktop");
        assert_eq!(read["relay"]["urls"][0], "turn:192.0.2.7:3478?transport=udp");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_closing_words_hold_each_link_and_a_line_to_try() {
        let words = report().closing_words(Path::new("/logs"));
        for wanted in
            ["#token=s", "#token=l", "#token=m", "PULSE_SERVER=unix:/s", "Ctrl-C", "https://192.0.2.7:2/r/demo"]
        {
            assert!(words.contains(wanted), "{wanted} is missing in\n{words}");
        }
    }

    #[test]
    fn other_devices_are_not_sent_to_loopback() {
        let mut report = report();
        report.media.addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert!(!report.closing_words(Path::new("/logs")).contains("another device"));
    }

    #[test]
    fn without_a_desktop_no_line_speaks_of_one() {
        let report = ReadyReport { desktop: None, ..report() };
        assert!(!report.closing_words(Path::new("/logs")).contains("PULSE"));
    }
}
