use std::net::SocketAddr;

use serde::Deserialize;

use super::*;
use crate::Secret;
use crate::logs::LogFormat;

#[derive(Debug, Deserialize)]
#[serde(default)]
struct Settings {
    listen: Vec<SocketAddr>,
    port: u16,
    control_token: Option<Secret>,
    token_keys: Vec<Secret>,
    allow_loopback: bool,
    log: LogFormat,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            port: 40_000,
            control_token: None,
            token_keys: Vec::new(),
            allow_loopback: false,
            log: LogFormat::Text,
        }
    }
}

#[derive(Default, Serialize)]
struct Flags {
    port: Option<u16>,
    listen: Vec<String>,
    allow_loopback: bool,
    #[serde(serialize_with = "Secret::expose_in_settings")]
    control_token: Option<Secret>,
}

fn from(file: Option<&str>, env: &[(&str, &str)], flags: Flags) -> Result<Settings, SettingsError> {
    let written = file.map(|text| {
        let file = tempfile::Builder::new().prefix("sfu").suffix(".toml").tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    });
    let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    load_from(written.as_ref().map(tempfile::NamedTempFile::path), "SFU_", env, flags)
}

fn refusal(file: Option<&str>, env: &[(&str, &str)]) -> String {
    from(file, env, Flags::default()).unwrap_err().to_string()
}

#[test]
fn later_layers_win_key_by_key() {
    let file = "port = 1\nlisten = [\"127.0.0.1:1\"]\nlog = \"json\"\ncontrol_token = \"file\"";
    let env = [("SFU_PORT", "2"), ("SFU_CONTROL_TOKEN", "env"), ("OTHER_PORT", "9")];
    let flags = Flags { port: Some(3), ..Flags::default() };
    let settings = from(Some(file), &env, flags).unwrap();
    assert_eq!(settings.port, 3);
    assert_eq!(settings.control_token.unwrap().expose(), "env");
    assert_eq!(settings.listen, ["127.0.0.1:1".parse().unwrap()]);
    assert_eq!(settings.log, LogFormat::Json);
    assert!(!settings.allow_loopback);
}

#[test]
fn without_any_layer_the_defaults_stand() {
    let settings = from(None, &[], Flags::default()).unwrap();
    assert_eq!((settings.port, settings.listen.len()), (40_000, 0));
}

#[test]
fn environment_reads_lists_booleans_and_names() {
    let env = [("SFU_LISTEN", "127.0.0.1:1, [::1]:2,"), ("SFU_ALLOW_LOOPBACK", "true"), ("SFU_LOG", "json")];
    let settings = from(None, &env, Flags::default()).unwrap();
    assert_eq!(settings.listen, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
    assert!(settings.allow_loopback);
    assert_eq!(settings.log, LogFormat::Json);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "port = 7").unwrap();
    let env = [(OsString::from("SFU_CONFIG"), file.path().as_os_str().to_owned())];
    let settings: Settings = load_from(None, "SFU_", env, Flags::default()).unwrap();
    assert_eq!(settings.port, 7);
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_key() {
    let file = refusal(Some("prot = 1"), &[]);
    assert!(
        file.starts_with("settings file /") && file.ends_with(".toml, key prot: unknown key, did you mean port?")
    );
    assert!(refusal(Some("allow-loopback = true"), &[]).ends_with("did you mean allow_loopback?"));
    let env = refusal(None, &[("SFU_CONTROL_TOKE", "x")]);
    assert_eq!(env, "SFU_CONTROL_TOKE: unknown key, did you mean SFU_CONTROL_TOKEN?");
    assert_eq!(refusal(None, &[("SFU_COLOUR_OF_THE_SKY", "x")]), "SFU_COLOUR_OF_THE_SKY: unknown key");
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_what_is_expected() {
    let file = refusal(Some("port = \"many\""), &[]);
    assert!(file.contains("key port: ") && file.contains("\"many\""), "{file}");
    assert!(file.ends_with("expected a whole number from 0 to 65535"), "{file}");
    let range = refusal(Some("port = 70000"), &[]);
    assert!(range.contains("`70000`") && range.ends_with("from 0 to 65535"), "{range}");
    let address = refusal(Some("listen = [\"nowhere\"]"), &[]);
    assert!(address.contains("key listen: invalid socket address") && address.contains("nowhere"), "{address}");
    let env = refusal(None, &[("SFU_PORT", "many")]);
    assert_eq!(env, "SFU_PORT: expected a whole number from 0 to 65535, got \"many\"");
    let item = refusal(None, &[("SFU_LISTEN", "127.0.0.1:1,nowhere")]);
    assert!(item.starts_with("SFU_LISTEN: invalid socket address") && item.contains("nowhere"), "{item}");
    let name = refusal(None, &[("SFU_LOG", "yaml")]);
    assert!(name.contains("`yaml`") && name.contains("`json`"), "{name}");
}

#[test]
fn a_secret_of_the_wrong_type_does_not_print() {
    let error = refusal(Some("control_token = 123456789"), &[]);
    assert!(error.contains("control_token") && !error.contains("123456789"), "{error}");
    let list = refusal(Some("control_token = [\"hunter2\"]"), &[]);
    assert!(list.contains("control_token") && !list.contains("hunter2"), "{list}");
    let text = refusal(Some("token_keys = \"k:hunter2\""), &[]);
    assert!(text.contains("token_keys") && !text.contains("hunter2"), "{text}");
}

#[test]
fn a_syntax_error_names_the_line() {
    let error = refusal(Some("port = 1\nlisten = [\n= 3"), &[]);
    assert!(error.contains(".toml line 3: "), "{error}");
}

#[test]
fn an_absent_file_is_an_error_by_name() {
    let error =
        load_from::<Settings>(Some(Path::new("/nonexistent.toml")), "SFU_", [], Flags::default()).unwrap_err();
    assert!(error.to_string().starts_with("settings file /nonexistent.toml cannot be read"), "{error}");
}

#[test]
fn a_key_without_default_is_named_in_all_three_spellings() {
    #[derive(Debug, Deserialize)]
    struct Strict {
        #[expect(dead_code, reason = "only its absence matters")]
        control_token: Secret,
    }
    let error = load_from::<Strict>(None, "SFU_", [], Flags::default()).unwrap_err().to_string();
    assert!(
        error.contains("control_token") && error.contains("SFU_CONTROL_TOKEN") && error.contains("--control-token")
    );
}

#[test]
fn a_struct_that_hides_its_fields_is_refused() {
    #[derive(Debug, Deserialize)]
    struct Hidden {
        #[serde(flatten)]
        _rest: std::collections::BTreeMap<String, String>,
    }
    assert!(matches!(load_from::<Hidden>(None, "SFU_", [], Flags::default()), Err(SettingsError::Shape(_))));
}
