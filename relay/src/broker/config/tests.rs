use serde_json::{Value, json};

use super::*;

fn settings() -> Value {
    json!({"secret": ["north"], "api_key": ["desk:desk-key-of-16-bytes"], "relay": ["turn:turn.example.org"]})
}

fn with(key: &str, value: Value) -> Result<Config, ConfigError> {
    let mut settings = settings();
    settings[key] = value;
    Config::of_json(settings)
}

fn fixture(name: &str) -> String {
    format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn each_wrong_value_is_refused_by_name() {
    let cases = [
        ("secret", json!([]), "there is no secret"),
        ("secret", json!([""]), "a secret is empty"),
        ("secret", json!(["CHANGEME"]), "placeholder CHANGEME"),
        ("secret_sha256", json!(["CHANGEME"]), "placeholder CHANGEME"),
        ("secret_file", json!("/nonexistent/secret"), "secret_file: secret file /nonexistent/secret cannot be read"),
        ("api_key", json!([]), "nobody could ask"),
        ("api_key", json!(["desk:short"]), "\"desk\" is shorter than 16 bytes"),
        ("relay", json!(["turn.example.org"]), "must begin with turn: or turns:"),
        ("relay", json!(vec!["turn:a"; 65]), "more than 64 relays"),
        ("ttl", json!(0), "ttl is 0, must be from 1"),
        ("ttl", json!(86_401), "ttl is 86401, must be"),
        ("ttl_max", json!(86_401), "ttl_max is 86401, must be"),
        ("rest_separator", json!("-"), "rest_separator is '-', must be"),
        ("allow_origin", json!(["*"]), "\"*\" is not an origin"),
        ("rtc_configuration", json!("{'iceServers': [{}]}"), "has no urls"),
        ("rtc_configuration", json!("{"), "line 1"),
        ("stun", json!(["stun:a>, <b"]), "has no urls"),
        ("person_per_min", json!(0), "person_per_min is 0, must be"),
        ("address_per_s", json!(-1), "address_per_s is -1, must be"),
    ];
    for (key, value, expected) in cases {
        let error = with(key, value).unwrap_err().to_string();
        assert!(error.contains(expected), "{key}: {error}");
        assert!(!error.contains("short") || key == "api_key", "{error}");
    }
}

#[test]
fn the_settings_do_not_print_secrets() {
    let printed = format!("{:?}", with("token_keys", json!(["a:0123456789abcdef0123456789abcdef"])).unwrap());
    for secret in ["north", "desk-key", "0123456789abcdef"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[test]
fn abcdesktops_file_brings_its_habits() {
    let file = json!(fixture("od.config.webrtc"));
    let refused = with("abcdesktop_config", file.clone()).unwrap_err();
    assert!(matches!(refused, ConfigError::Placeholder), "its secret is the placeholder");
    let config = Config::of_json(json!({"dev": true, "abcdesktop_config": file, "api_key": ["a:b"]})).unwrap();
    assert_eq!(config.relays, [RelayEntry::verbatim("turns:turn.domain.local:3478").unwrap()]);
    assert_eq!(config.policy.urls, UrlsForm::String);
    assert_eq!(config.files, [PathBuf::from(fixture("od.config.webrtc"))]);
}

#[test]
fn our_own_keys_win_over_abcdesktops() {
    let file = fixture("od.config.webrtc");
    let own =
        json!({"dev": true, "abcdesktop_config": file, "api_key": ["a:b"], "urls": "list", "secret": ["newer"]});
    let config = Config::of_json(own).unwrap();
    assert_eq!(config.policy.urls, UrlsForm::List);
    let newer = with("secret", json!(["newer"])).unwrap();
    assert_eq!(config.policy.minter.secret_ids().len(), 2);
    assert_eq!(config.policy.minter.secret_ids()[0], newer.policy.minter.secret_ids()[0], "the newer one signs");
}

#[test]
fn secrets_of_a_file_come_before_those_of_a_key() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "# rotated in spring\nspring\n\nwinter\n").unwrap();
    let config = with("secret_file", json!(file.path())).unwrap();
    let ids = config.policy.minter.secret_ids();
    let id = |secret: &str| with("secret", json!([secret])).unwrap().policy.minter.secret_ids()[0].clone();
    assert_eq!(ids, [id("spring"), id("winter"), id("north")]);
    assert_eq!(config.files, [file.path()]);
}

#[test]
fn every_flag_is_a_key() {
    use clap::Parser;
    let args = Args::parse_from([
        "credential-broker",
        "--http",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--relay",
        "turn:a,turn:b",
        "--stun",
        "stun:c",
        "--secret",
        "north",
        "--api-key",
        "a:b",
        "--token-keys",
        "k:0123456789abcdef0123456789abcdef",
        "--allow-origin",
        "https://desk.example",
        "--dev",
        "--log",
        "json",
        "--log-filter",
        "debug",
    ]);
    let config = Config::load(&args).unwrap();
    assert_eq!((config.relays.len(), config.http.port(), config.log), (2, 0, LogFormat::Json));
    for (flag, value) in [("--secret-file", "x"), ("--api-key-file", "x"), ("--token-keys-file", "x")] {
        let args = Args::parse_from(["credential-broker", flag, value, "--secret", "s", "--dev", "--api-key", "a:b"]);
        assert!(matches!(Config::load(&args).unwrap_err(), ConfigError::Secret { .. }), "{flag}");
    }
}
