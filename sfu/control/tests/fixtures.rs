//! Each message of the control link as a file: reads, and writes back as the same JSON. A change of these files is a
//! change of the protocol.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sfu_control::{Heartbeat, NodeMessage, Request};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn load(name: &str) -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(folder(name)).unwrap();
    files
        .map(|entry| {
            let path = entry.unwrap().path();
            let value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), value)
        })
        .collect()
}

fn assert_round_trip<T: Serialize + DeserializeOwned>(name: &str, fixture: &Value) {
    let message: T = serde_json::from_value(fixture.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(&serde_json::to_value(&message).unwrap(), fixture, "{name}");
}

#[test]
fn every_request_reads_and_writes_back() {
    let fixtures = load("request");
    for (name, fixture) in &fixtures {
        assert_eq!(fixture["op"], Value::from(name.as_str()));
        assert_round_trip::<Request>(name, fixture);
    }
    let names: Vec<_> = fixtures.keys().map(String::as_str).collect();
    assert_eq!(names, ["drain", "join", "leave", "mute", "restart_ice", "set_meta", "snapshot"]);
}

#[test]
fn every_message_of_the_node_reads_and_writes_back() {
    let fixtures = load("node");
    for (name, fixture) in &fixtures {
        assert_round_trip::<NodeMessage>(name, fixture);
    }
    assert_eq!(fixtures.keys().filter(|name| name.starts_with("event_")).count(), 9);
    assert_eq!(fixtures.keys().filter(|name| name.starts_with("reply_")).count(), 5);
}

#[test]
fn the_heartbeat_reads_and_writes_back() {
    let text = std::fs::read_to_string(folder("heartbeat.json")).unwrap();
    assert_round_trip::<Heartbeat>("heartbeat", &serde_json::from_str(&text).unwrap());
}

#[test]
fn unknown_fields_are_ignored_and_unknown_operations_refused() {
    let mut join = load("request")["join"].clone();
    join["colour"] = Value::from("blue");
    join["profile"]["colour"] = Value::from("blue");
    assert!(serde_json::from_value::<Request>(join.clone()).is_ok());
    join["op"] = Value::from("dance");
    assert!(serde_json::from_value::<Request>(join).is_err());
}

#[test]
fn what_may_be_left_out_of_a_join_has_its_default() {
    let mut join = load("request")["join"].clone();
    for key in ["meta", "tracks", "slots"] {
        join.as_object_mut().unwrap().remove(key);
    }
    let request: Request = serde_json::from_value(join).unwrap();
    let sfu_control::Operation::Join(join) = request.op else { panic!("not a join") };
    assert!(join.meta.is_empty() && join.tracks.is_empty() && join.slots.is_empty());
}

#[test]
fn ice_passwords_do_not_print() {
    let request: Request = serde_json::from_value(load("request")["join"].clone()).unwrap();
    assert!(!format!("{request:?}").contains("0a1b2c3d"));
}
