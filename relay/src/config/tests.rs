use super::*;

fn machine() -> Vec<IpAddr> {
    ["127.0.0.1", "192.0.2.1", "::1", "2001:db8::1"].map(|ip| ip.parse().expect("an address")).to_vec()
}

fn made(change: impl FnOnce(&mut Settings)) -> Result<Config, ConfigError> {
    let mut settings =
        Settings { user: vec!["ann:pass".into()], peer: vec!["203.0.113.1".to_owned()], ..Settings::default() };
    change(&mut settings);
    Config::from_settings(&settings, &machine(), (Vec::new(), Vec::new()), &Found::default())
}

fn refused(change: impl FnOnce(&mut Settings)) -> String {
    made(change).expect_err("refused").to_string()
}

#[test]
fn the_machine_is_listened_on_and_relays_without_loopback() {
    let config = made(|_| {}).expect("made");
    assert_eq!(config.listen, machine());
    let locals = config.core.relays.iter().map(|relay| relay.local.to_string()).collect::<Vec<_>>();
    assert_eq!(locals, ["192.0.2.1", "2001:db8::1"]);
    assert!(!config.core.policy.general && config.core.policy.relay_ports.is_none());
}

#[test]
fn placeholders_and_empty_secrets_are_for_developers() {
    assert!(refused(|s| s.secret = vec!["CHANGEME".into()]).contains("placeholder"));
    assert!(refused(|s| s.secret = vec!["".into()]).contains("empty"));
    assert!(refused(|s| (s.secret, s.dev) = (vec!["".into()], true)).contains("empty"));
    assert!(made(|s| (s.secret, s.dev) = (vec!["CHANGEME".into()], true)).is_ok());
    assert!(refused(|s| s.user.clear()).contains("no credentials"));
}

#[test]
fn what_cannot_work_is_refused() {
    assert!(refused(|s| s.peer.clear()).contains("no peer"));
    assert!(refused(|s| s.peer = vec!["10.0.0.0-9.0.0.0".to_owned()]).starts_with("peer: "));
    assert!(refused(|s| (s.min_port, s.max_port) = (Some(100), Some(10))).contains("min_port"));
    assert!(refused(|s| s.threads = Some(0)).contains("threads"));
    assert!(refused(|s| s.relay_ip = vec!["127.0.0.1".parse().expect("ip")]).contains("relay_ip"));
    assert!(refused(|s| s.listen = vec!["127.0.0.1".parse().expect("ip")]).contains("relay sockets"));
    assert!(refused(|s| s.rest_separator = Some("::".to_owned())).contains("rest_separator"));
    assert!(refused(|s| s.user = vec!["ann".into()]).contains("user 1"));
}

#[test]
fn secrets_in_errors_and_debug_stay_secret() {
    let text = format!("{:?}", made(|s| s.secret = vec!["hunter2".into()]).expect("made"));
    assert!(!text.contains("hunter2") && !text.contains("ann:pass"));
    assert!(!refused(|s| s.user = vec!["hunter2".into()]).contains("hunter2"));
}

#[test]
fn zero_is_no_limit() {
    let config = made(|s| (s.user_allocations, s.allocation_bytes_per_s) = (Some(0), Some(0))).expect("made");
    assert_eq!((config.core.limits.user_allocations, config.core.limits.allocation_bytes_per_s), (u32::MAX, 0));
}

#[test]
fn files_give_more_secrets_and_users() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "# old\none\n\ntwo\n").expect("written");
    assert!(made(|s| s.secret_file = Some(file.path().to_owned())).is_ok());
    std::fs::write(file.path(), "CHANGEME\n").expect("written");
    assert!(refused(|s| s.secret_file = Some(file.path().to_owned())).contains("placeholder"));
}

#[test]
fn every_key_is_explained() {
    let debug = format!("{:?}", Settings::default());
    let fields = debug
        .trim_start_matches("Settings {")
        .split(", ")
        .map(|field| field.split(':').next().unwrap_or_default().trim());
    let explained = KEYS.iter().map(|(key, _)| *key).collect::<Vec<_>>();
    assert_eq!(fields.collect::<Vec<_>>(), explained);
}

#[test]
fn the_upper_settings_win() {
    let upper = Settings { port: Some(1), ..Settings::default() };
    let lower = Settings { port: Some(2), realm: Some("r".to_owned()), general: true, ..Settings::default() };
    let both = upper.over(lower);
    assert_eq!((both.port, both.realm.as_deref(), both.general), (Some(1), Some("r"), true));
}
