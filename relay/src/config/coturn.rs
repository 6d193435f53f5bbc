//! coturn's `turnserver.conf`, read into our settings. A key is done, or ignored with a word on why, or refused where
//! ignoring it would change who may do what. An unknown key is refused with the nearest known one.
//!
//! A coturn file means a general relay, unless `listed` is set beside it: everybody who is not denied is a peer, clients
//! among them.

use std::net::{IpAddr, SocketAddr};

use admin::Secret;

use super::coturn_keys::KEYS;
use super::settings::Settings;

/// What happens to a key.
pub(super) enum Treatment {
    Done(fn(&mut Draft, &str) -> Result<(), String>),
    /// Nothing has to be done: it is so already, or it is about something that is not here.
    Met,
    /// Ignored, and said once.
    Ignored(&'static str),
    Refused(&'static str),
}

/// A file as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) settings: Settings,
    server_name: Option<String>,
    admin_ip: Option<IpAddr>,
    admin_port: Option<u16>,
    pub(super) rest: bool,
}

/// One line of a file, for `--check-config` and for the log. The value may be a secret and is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) line: usize,
    pub(crate) key: String,
    /// Nothing: it is done or met.
    pub(crate) remark: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) settings: Settings,
    pub(crate) notes: Vec<Note>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoturnError {
    #[error("line {line}: unknown key {key}{}", nearest.map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    Unknown { line: usize, key: String, nearest: Option<&'static str> },
    #[error("line {line}: {key} is refused: {reason}; remove the line")]
    Refused { line: usize, key: String, reason: &'static str },
    #[error("line {line}: {key}: {message}")]
    Value { line: usize, key: String, message: String },
    #[error("use-auth-secret needs a static-auth-secret=SECRET beside it: add that line")]
    NoSecret,
}

/// Lenient: unknown keys become notes.
pub(crate) fn read(text: &str, lenient: bool) -> Result<Read, CoturnError> {
    let mut draft = Draft::default();
    let mut notes = Vec::new();
    for (at, raw) in text.lines().enumerate() {
        let Some((key, value)) = split(raw) else { continue };
        let (line, named) = (at + 1, key.to_owned());
        let Some((name, treatment)) = KEYS.iter().find(|(name, _)| *name == key) else {
            let nearest = nearest(key);
            if !lenient {
                return Err(CoturnError::Unknown { line, key: named, nearest });
            }
            notes.push(Note { line, key: named, remark: Some("unknown, ignored".to_owned()) });
            continue;
        };
        let remark = match treatment {
            Treatment::Done(apply) => {
                apply(&mut draft, value).map_err(|message| CoturnError::Value {
                    line,
                    key: named.clone(),
                    message,
                })?;
                None
            }
            Treatment::Met => None,
            Treatment::Ignored(why) => Some((*why).to_owned()),
            Treatment::Refused(_) if is_off(value) => None,
            Treatment::Refused(reason) => return Err(CoturnError::Refused { line, key: named, reason }),
        };
        notes.push(Note { line, key: (*name).to_owned(), remark });
    }
    Ok(Read { settings: draft.finish()?, notes })
}

impl Draft {
    pub(super) fn set_server_name(&mut self, value: &str) -> Result<(), String> {
        self.server_name = Some(text(value)?);
        Ok(())
    }

    pub(super) fn set_admin_ip(&mut self, value: &str) -> Result<(), String> {
        self.admin_ip = Some(parse(value)?);
        Ok(())
    }

    /// On without a port means coturn's own; off leaves the admin port where it is.
    pub(super) fn set_prometheus(&mut self, value: &str) -> Result<(), String> {
        if flag(value)? {
            self.admin_port = self.admin_port.or(Some(PROMETHEUS_PORT));
        }
        Ok(())
    }

    pub(super) fn set_admin_port(&mut self, value: &str) -> Result<(), String> {
        self.admin_port = Some(parse(value)?);
        Ok(())
    }

    pub(super) fn add_secret(&mut self, value: &str) -> Result<(), String> {
        self.settings.secret.push(Secret::new(value.to_owned()));
        Ok(())
    }

    fn finish(mut self) -> Result<Settings, CoturnError> {
        if self.rest && self.settings.secret.is_empty() {
            return Err(CoturnError::NoSecret);
        }
        let settings = &mut self.settings;
        settings.general = true;
        settings.realm = settings.realm.take().or(self.server_name);
        if self.admin_ip.is_some() || self.admin_port.is_some() {
            let ip = self.admin_ip.unwrap_or(IpAddr::from([127, 0, 0, 1]));
            settings.admin = Some(SocketAddr::new(ip, self.admin_port.unwrap_or(PROMETHEUS_PORT)));
        }
        Ok(self.settings)
    }
}

const PROMETHEUS_PORT: u16 = 9_641;

/// Key and value of `key`, `key=value`, `key value`; nothing for comments and blank lines.
fn split(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let line = line.trim_start_matches('-');
    let end = line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len());
    let value = line[end..].trim_start();
    let value = value.strip_prefix('=').unwrap_or(value).trim();
    let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    Some((&line[..end], if quoted { &value[1..value.len() - 1] } else { value }))
}

fn nearest(key: &str) -> Option<&'static str> {
    let distance = |name: &'static str| (strsim::damerau_levenshtein(key, name), name);
    let (distance, name) = KEYS.iter().map(|(name, _)| distance(name)).min()?;
    (distance <= 1 + name.len() / 3).then_some(name)
}

/// A type of values, in words.
pub(super) trait Expected: std::str::FromStr {
    const WORDS: &'static str;
}

impl Expected for u16 {
    const WORDS: &'static str = "a number from 0 to 65535";
}

impl Expected for u32 {
    const WORDS: &'static str = "a number from 0 to 4294967295";
}

impl Expected for u64 {
    const WORDS: &'static str = "a number from 0";
}

impl Expected for usize {
    const WORDS: &'static str = "a number from 0";
}

impl Expected for IpAddr {
    const WORDS: &'static str = "an IP address, such as 192.0.2.1 or 2001:db8::1";
}

impl Expected for SocketAddr {
    const WORDS: &'static str = "an IP address with a port, such as 192.0.2.1:3478 or [2001:db8::1]:3478";
}

pub(super) fn parse<T: Expected>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{}, must be {}", shown(value), T::WORDS))
}

pub(super) fn text(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("has no value: write it behind a =".to_owned()) } else { Ok(value.to_owned()) }
}

/// What may be said of a value: it could be a secret on the wrong line.
fn shown(value: &str) -> String {
    let is_number_or_address =
        value.len() <= 21 && value.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | ':'));
    match value {
        "" => "has no value".to_owned(),
        _ if is_number_or_address => format!("is {value}"),
        _ => "has a value that is not shown".to_owned(),
    }
}

/// A key alone is on, as coturn reads it.
pub(super) fn flag(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "" | "1" | "yes" | "true" | "on" => Ok(true),
        _ if is_off(value) => Ok(false),
        _ => Err(format!("{}, must be on or off, or stand alone, which is on", shown(value))),
    }
}

fn is_off(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "0" | "no" | "false" | "off")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        read(text, false).expect_err("refused").to_string()
    }

    #[test]
    fn the_two_files_of_the_field_are_read() {
        let rest = read(include_str!("../../fixtures/turnserver-rest.conf"), false).expect("read").settings;
        assert_eq!(
            (rest.port, rest.realm.as_deref(), rest.secret.len()),
            (Some(3_478), Some("turn.domain.local"), 1)
        );
        assert!(rest.general && !rest.fingerprint);
        let user = read(include_str!("../../fixtures/turnserver-static-user.conf"), false).expect("read").settings;
        assert_eq!((user.user.len(), user.secret.len(), user.fingerprint), (1, 0, true));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest() {
        assert_eq!(
            refused("# a comment\n\nlistening-prot=3478"),
            "line 3: unknown key listening-prot, did you mean listening-port?"
        );
        assert_eq!(refused("zzzzzzzzzzzzzzzzz"), "line 1: unknown key zzzzzzzzzzzzzzzzz");
        let notes = read("listening-prot=3478", true).expect("lenient").notes;
        assert_eq!(notes[0].remark.as_deref(), Some("unknown, ignored"));
    }

    #[test]
    fn what_would_change_who_may_do_what_is_refused() {
        for key in ["no-auth", "oauth", "server-relay", "mobility", "secret-key-file=x", "raw-public-keys", "tlsv1"] {
            assert!(refused(key).contains("is refused"), "{key}");
        }
        assert!(read("mobility=false", false).is_ok(), "off is what it is");
        assert!(refused("denied-peer-ip=10.0.0.0-9.0.0.0").contains("ends before it begins"));
        assert!(refused("allowed-peer-ip=10.0.0.256").starts_with("line 1: allowed-peer-ip:"));
        assert!(refused("use-auth-secret").contains("needs a static-auth-secret"));
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        assert_eq!(
            refused("realm=r\nmobility"),
            "line 2: mobility is refused: RFC 8016 is not offered; remove the line"
        );
        assert!(refused("no-auth").contains("name credentials"));
        assert_eq!(
            refused("listening-port=70000"),
            "line 1: listening-port: is 70000, must be a number from 0 to 65535"
        );
        assert!(refused("listening-ip=turn.example").contains("not shown, must be an IP address, such as"));
        assert!(refused("fingerprint=perhaps").contains("must be on or off"));
        assert!(refused("realm").contains("realm: has no value"));
        assert!(!refused("min-port=hunter2").contains("hunter2"), "it could be a secret on the wrong line");
    }

    #[test]
    fn forms_of_a_line_are_those_of_coturn() {
        assert_eq!(split("  --realm = a.b "), Some(("realm", "a.b")));
        assert_eq!(split("realm a.b"), Some(("realm", "a.b")));
        assert_eq!(split("user=ann:pa=ss#1"), Some(("user", "ann:pa=ss#1")));
        assert_eq!(split("static-auth-secret=\"s p\""), Some(("static-auth-secret", "s p")));
        assert_eq!(split("# realm=x"), None);
    }

    #[test]
    fn typical_lines_are_done() {
        let text = "listening-ip=192.0.2.1\nlistening-ip=2001:db8::1\nrelay-ip=192.0.2.1\nexternal-ip=198.51.100.7/192.0.2.1\n\
                    min-port=50000\nmax-port=50100\nuser=ann:pass\nuser=bob:0xbc1c3b3b4d1a3f2a5d8e9f0011223344\nrealm=r\n\
                    user-quota=0\ntotal-quota=100\nmax-bps=64000\nbps-capacity=0\nstale-nonce=300\nmax-allocate-lifetime=1800\n\
                    denied-peer-ip=10.0.0.0-10.255.255.255\nallowed-peer-ip=10.1.2.3\ndenied-peer-ip=fc00::/7\n\
                    no-multicast-peers\nno-cli\nno-tlsv1\nprometheus\nrelay-threads=2\nlog-file=/var/log/x\nsimple-log\n\
                    allow-loopback-peers=false\nalternate-server=198.51.100.9:3478\nunauthorized-ratelimit\n\
                    unauthorized-ratelimit-rps=5\nsock-buf-size=262144\ndrain-min-allocations=3\nsoftware-attribute=x\n";
        let read = read(text, false).expect("read");
        let settings = &read.settings;
        assert_eq!((settings.listen.len(), settings.relay_ip.len(), settings.user.len()), (2, 1, 2));
        assert_eq!((settings.user_allocations, settings.total_allocations), (Some(0), Some(100)));
        assert_eq!((settings.peer.len(), settings.denied_peer.len()), (1, 2));
        assert_eq!(settings.admin, Some("127.0.0.1:9641".parse().expect("an address")));
        assert!(!settings.allow_loopback_peers);
        assert_eq!(read.notes.len(), text.lines().count());
    }
}
