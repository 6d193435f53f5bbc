//! The fixtures are the contract: they parse, they come out as they went in, and the README shows exactly them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use signaling_protocol::{ClientMessage, ServerMessage};

fn fixtures() -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), value)
    };
    files.map(read).collect()
}

#[test]
fn client_messages_come_out_as_they_went_in() {
    let fixtures = fixtures();
    let mut count = 0;
    for (name, value) in fixtures.iter().filter(|(name, _)| name.starts_with("client-")) {
        let message: ClientMessage = serde_json::from_value(value.clone()).expect(name);
        assert_eq!(serde_json::to_value(&message).unwrap(), *value, "{name}");
        count += 1;
    }
    assert_eq!(count, 8);
}

#[test]
fn server_messages_come_out_as_they_went_in() {
    let fixtures = fixtures();
    let mut kinds = Vec::new();
    for (name, value) in fixtures.iter().filter(|(name, _)| name.starts_with("server-")) {
        let message: ServerMessage = serde_json::from_value(value.clone()).expect(name);
        assert_eq!(serde_json::to_value(&message).unwrap(), *value, "{name}");
        kinds.push(value["type"].as_str().unwrap().to_owned());
    }
    kinds.sort_unstable();
    let all = [
        "answer",
        "error",
        "ice_servers",
        "joined",
        "left",
        "moved",
        "mute",
        "ok",
        "signal",
        "slots",
        "speakers",
        "welcome",
    ];
    assert_eq!(kinds, all);
}

#[test]
fn readme_shows_each_fixture_once_and_as_it_is() {
    let readme = include_str!("../README.md");
    let mut shown = BTreeMap::new();
    for example in readme.split("```json ").skip(1) {
        let (name, rest) = example.split_once('\n').unwrap();
        let (body, _) = rest.split_once("\n```").unwrap();
        let value: Value = serde_json::from_str(body).expect(name);
        assert!(shown.insert(name.to_owned(), value).is_none(), "{name} twice");
    }
    assert_eq!(shown, fixtures());
}

#[test]
fn fields_of_a_newer_peer_are_ignored() {
    let text = r#"{"type":"joined","member":{"peer":"p","identity":"i","name":"n","role":"speaker","connected":true,
        "away":false,"tracks":[],"mood":"good"},"later":1}"#;
    assert!(serde_json::from_str::<ServerMessage>(text).is_ok());
    assert!(serde_json::from_str::<ClientMessage>(r#"{"type":"leave","id":1,"later":{}}"#).is_ok());
}

#[test]
fn credentials_do_not_print() {
    let servers = serde_json::from_value::<ServerMessage>(fixtures()["server-welcome"].clone()).unwrap();
    assert!(!format!("{servers:?}").contains("c2VjcmV0"));
    assert!(!format!("{servers:?}").contains("c2lnbmF0dXJl"));
    for name in ["client-hello", "client-resume"] {
        let hello = serde_json::from_value::<ClientMessage>(fixtures()[name].clone()).unwrap();
        assert!(!format!("{hello:?}").contains("c2lnbmF0dXJl"), "{name}");
    }
}
