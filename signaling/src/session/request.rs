//! The form of a request: JSON, a known type, the fields of that type; and how many of them a client may send.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore;
use serde::Deserialize;
use signaling_protocol::{ClientMessage, ProtocolError};
use tokio::time::Instant;

use crate::codes::Code;

const TYPES: [&str; 6] = ["hello", "offer", "mute", "signal", "evict", "leave"];

/// Requests that may come at once: a page that joins sends three, one that restores its mutes two more.
const BURST: f64 = 60.0;
const PER_SECOND: f64 = 20.0;
/// Refused requests after which the socket is closed: the client does not listen.
const REFUSED_MAX: u32 = 200;
/// So many of them are forgotten for each one that passes: a client in a loop is cut, however slowly its flood is read.
const FORGIVEN: u32 = 10;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    r#type: Option<std::borrow::Cow<'a, str>>,
    #[serde(default)]
    id: Option<u64>,
}

/// The request, or the error with the id of the request if that could be read.
pub(super) fn parse(text: &str) -> Result<ClientMessage, (Option<u64>, ProtocolError)> {
    let envelope: Envelope<'_> = match serde_json::from_str(text) {
        Ok(envelope) => envelope,
        Err(error) => return Err((None, bad_json(&error))),
    };
    let re = envelope.id;
    match envelope.r#type.as_deref() {
        None => Err((re, Code::BadJson.error("message has no type"))),
        Some(kind) if !TYPES.contains(&kind) => {
            let kind: String = kind.chars().take(32).collect();
            Err((re, Code::UnknownType.error(format!("there is no message of type {kind:?}"))))
        }
        Some(_) => serde_json::from_str(text).map_err(|error| (re, bad_json(&error))),
    }
}

fn bad_json(error: &serde_json::Error) -> ProtocolError {
    // The text of the error names a field or a character and where it stands; it does not repeat values of the message
    // other than short ones.
    let text: String = error.to_string().chars().take(200).collect();
    // Faults of fields have no place: they are found after the text was read.
    let place = format!("line {} column {}", error.line(), error.column());
    let complete = error.line() == 0 || text.contains(&place);
    Code::BadJson.error(if complete { text } else { format!("{text} ({place})") })
}

/// The id alone, of a message that is not looked at further.
pub(super) fn id_of(text: &str) -> Option<u64> {
    serde_json::from_str::<Envelope<'_>>(text).ok()?.id
}

pub(super) fn kind_of(message: &ClientMessage) -> &'static str {
    match message {
        ClientMessage::Hello { .. } => "hello",
        ClientMessage::Offer { .. } => "offer",
        ClientMessage::Mute { .. } => "mute",
        ClientMessage::Signal { .. } => "signal",
        ClientMessage::Evict { .. } => "evict",
        ClientMessage::Leave { .. } => "leave",
    }
}

/// 96 random bits; `None` when the operating system has none.
pub(super) fn random_id() -> Option<String> {
    let mut bytes = [0; 12];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// Token bucket over the requests of one socket.
#[derive(Debug)]
pub(super) struct Bucket {
    level: f64,
    at: Instant,
    refused: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Refuse { retry_after_ms: u64 },
    Cut,
}

impl Bucket {
    pub(super) fn new(now: Instant) -> Self {
        Self { level: BURST, at: now, refused: 0 }
    }

    pub(super) fn take(&mut self, now: Instant) -> Verdict {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * PER_SECOND).min(BURST);
        self.at = now;
        if self.level >= 1.0 {
            self.level -= 1.0;
            self.refused = self.refused.saturating_sub(FORGIVEN);
            return Verdict::Pass;
        }
        self.refused += 1;
        if self.refused > REFUSED_MAX { Verdict::Cut } else { Verdict::Refuse { retry_after_ms: 1000 } }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_kind_of_message_is_in_the_list_of_types() {
        let samples = [
            r#"{"type":"hello","id":1,"token":"t"}"#,
            r#"{"type":"offer","id":1,"sdp":""}"#,
            r#"{"type":"mute","id":1,"track":"mic","muted":true}"#,
            r#"{"type":"signal","id":1,"data":null}"#,
            r#"{"type":"evict","id":1,"peer":"p"}"#,
            r#"{"type":"leave","id":1}"#,
        ];
        let kinds: Vec<_> = samples.iter().map(|text| kind_of(&parse(text).unwrap())).collect();
        assert_eq!(kinds, TYPES);
    }

    #[test]
    fn form_errors_name_the_place_and_keep_the_id() {
        let refused = |text: &str| parse(text).map_err(|(re, error)| (re, error.code, error.message)).unwrap_err();
        let (re, code, message) = refused("{\"type\":\n \"hello\"");
        assert_eq!((re, code.as_str()), (None, "bad_json"));
        assert!(message.contains("line 2"), "{message}");
        let (re, code, message) = refused(r#"{"type":"offer","id":7}"#);
        assert_eq!((re, code.as_str()), (Some(7), "bad_json"));
        assert_eq!(message, "missing field `sdp`");
        let (_, _, message) = refused(r#"{"type":"mute","id":7,"track":"video","muted":true}"#);
        assert!(message.contains("unknown variant `video`") && !message.contains("line"), "{message}");
        let (_, _, message) = refused(r#"{"type":"leave","id":-1}"#);
        assert!(message.contains("-1") && message.matches("line 1 column").count() == 1, "{message}");
        assert_eq!(refused(r#"{"type":"dance","id":8}"#).1, "unknown_type");
        assert_eq!(refused(r#"{"id":8}"#), (Some(8), "bad_json".into(), "message has no type".into()));
        assert_eq!(refused("[1]").1, "bad_json");
        assert_eq!(refused(&format!("{}1", "[".repeat(100_000))).1, "bad_json");
    }

    #[test]
    fn unknown_fields_are_ignored() {
        assert!(parse(r#"{"type":"leave","id":1,"why":{"deep":[1,2]}}"#).is_ok());
    }

    #[test]
    fn bucket_lets_a_burst_pass_then_refuses_then_cuts() {
        let now = Instant::now();
        let mut bucket = Bucket::new(now);
        assert!((0..60).all(|_| bucket.take(now) == Verdict::Pass));
        assert!((0..200).all(|_| matches!(bucket.take(now), Verdict::Refuse { .. })));
        assert_eq!(bucket.take(now), Verdict::Cut);
        assert_eq!(bucket.take(now + Duration::from_millis(51)), Verdict::Pass);
    }

    #[test]
    fn a_slow_flood_is_cut_and_a_client_that_is_a_little_fast_is_not() {
        let cut_after_s = |per_s: u64| {
            let start = Instant::now();
            let mut bucket = Bucket::new(start);
            let at = |n: u64| start + Duration::from_micros(n * 1_000_000 / per_s);
            (0..per_s * 60).find(|n| bucket.take(at(*n)) == Verdict::Cut).map(|n| n / per_s)
        };
        assert!(cut_after_s(500).is_some_and(|s| s < 2));
        assert_eq!(cut_after_s(40), None);
    }

    #[test]
    fn ids_have_96_bits_and_do_not_repeat() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| random_id().unwrap()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 16));
    }

    proptest::proptest! {
        #[test]
        fn random_text_never_panics(text in "\\PC{0,300}") {
            let _ = parse(&text);
        }
    }
}
