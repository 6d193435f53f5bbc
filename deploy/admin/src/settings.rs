//! Settings of a process from four layers, the later one winning key by key: defaults (serde's, in the type) < TOML
//! file < environment < flags. Keys are the fields of one flat struct. A key that the struct does not have is refused
//! by name, with the nearest one that exists: a misspelt setting that is silently ignored is worse than no setting.
//!
//! Ranges and combinations are not checked here: the process turns what it gets into its own bound types, once.

mod layers;
mod probe;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use layers::{Layered, Origin, Value};

/// A settings file longer than this is a wrong path.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("settings file {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("settings file {} is longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("settings file {} line {line}: {message}", path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("{origin}: unknown key{}", nearest.as_deref().map(|n| format!(", did you mean {n}?")).unwrap_or_default())]
    UnknownKey { origin: String, nearest: Option<String> },
    #[error("{origin}: {message}")]
    BadValue { origin: String, message: String },
    #[error("key {key} has no value: set it in the settings file, as {variable} or as --{flag}")]
    Missing { key: String, variable: String, flag: String },
    #[error("settings cannot be assembled: {0}")]
    Shape(String),
}

/// Loads `T` from its layers and the process environment. Without `file`, the file named by `<PREFIX>CONFIG` is read,
/// if any. `env_prefix` ends with an underscore: with `SFU_` the key `control_token` is `SFU_CONTROL_TOKEN`, and lists
/// are separated by commas. Of `flags`, what serialises to nothing, `false` or an empty list counts as not given.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    env_prefix: &str,
    flags: impl Serialize,
) -> Result<T, SettingsError> {
    load_from(file, env_prefix, std::env::vars_os(), flags)
}

/// As [`load`], with the environment as an argument.
pub fn load_from<T: DeserializeOwned>(
    file: Option<&Path>,
    env_prefix: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: impl Serialize,
) -> Result<T, SettingsError> {
    let keys = probe::keys_of::<T>()?;
    let mut layered = Layered::default();
    let variables = variables(env_prefix, environment)?;
    let named_by_environment = variables.iter().find(|(key, _)| key == "config").map(|(_, path)| PathBuf::from(path));
    if let Some(path) = file.map(Path::to_owned).or(named_by_environment) {
        for (key, value) in read_file(&path)? {
            let origin = Origin::File { path: path.clone(), key: key.clone() };
            layered.set(known(&keys, key, &origin)?, origin, Value::Toml(value));
        }
    }
    for (key, text) in variables.into_iter().filter(|(key, _)| key != "config") {
        let origin = Origin::Environment { prefix: env_prefix.to_owned(), key: key.clone() };
        layered.set(known(&keys, key, &origin)?, origin, Value::Text(text));
    }
    let flags = toml::Table::try_from(flags).map_err(|e| SettingsError::Shape(e.to_string()))?;
    for (key, value) in flags.into_iter().filter(|(_, value)| is_given(value)) {
        let origin = Origin::Flag { key: key.clone() };
        layered.set(known(&keys, key, &origin)?, origin, Value::Toml(value));
    }
    T::deserialize(layered).map_err(|e| e.into_settings_error(env_prefix))
}

fn is_given(value: &toml::Value) -> bool {
    match value {
        toml::Value::Boolean(on) => *on,
        toml::Value::Array(items) => !items.is_empty(),
        toml::Value::Table(entries) => !entries.is_empty(),
        toml::Value::String(_) | toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Datetime(_) => true,
    }
}

/// Those with the prefix, as (key, text).
fn variables(
    prefix: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, SettingsError> {
    let mut found = Vec::new();
    for (name, value) in environment {
        let Some(key) = name.to_str().and_then(|name| name.strip_prefix(prefix)) else { continue };
        let key = key.to_ascii_lowercase();
        let Ok(text) = value.into_string() else {
            let origin = Origin::Environment { prefix: prefix.to_owned(), key }.to_string();
            return Err(SettingsError::BadValue { origin, message: "expected text in UTF-8".to_owned() });
        };
        found.push((key, text));
    }
    Ok(found)
}

fn read_file(path: &Path) -> Result<toml::Table, SettingsError> {
    let unreadable = |source| SettingsError::Unreadable { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
        return Err(SettingsError::TooLong { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    text.parse::<toml::Table>().map_err(|e| {
        let until = e.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..until].iter().filter(|b| **b == b'\n').count() + 1;
        SettingsError::Syntax { path: path.to_owned(), line, message: e.message().to_owned() }
    })
}

fn known(keys: &[&'static str], key: String, origin: &Origin) -> Result<String, SettingsError> {
    if keys.contains(&key.as_str()) {
        return Ok(key);
    }
    let normal = key.replace('-', "_");
    let nearest = keys
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&normal, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .min()
        .map(|(_, candidate)| origin.spelt(candidate));
    Err(SettingsError::UnknownKey { origin: origin.to_string(), nearest })
}

#[cfg(test)]
mod tests;
