//! Secrets and users from settings and files. None of them is repeated in an error.

use std::path::Path;

use admin::{Secret, SecretError};
use relay_core::{BadUser, Credentials, Hash};

use super::settings::Settings;

#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("{key}: {source}")]
    File { key: &'static str, source: SecretError },
    #[error("user {number}: {source}")]
    User { number: usize, source: BadUser },
    #[error("a secret is empty: remove it, or write one of 16 random characters or more")]
    Empty,
    #[error("a secret is the placeholder CHANGEME: choose one, or set dev on a developer's machine")]
    Placeholder,
    #[error(
        "there are no credentials: name a file with secrets (--secret-file) or users (--user-file), or set RELAY_SECRET, \
         RELAY_USER or the keys secret and user of the settings file"
    )]
    None,
    #[error("rest_separator must be one ASCII character")]
    Separator,
}

const REALM: &str = "relay";
const PLACEHOLDER: &str = "CHANGEME";

pub(super) fn credentials(settings: &Settings) -> Result<Credentials, SecretsError> {
    let mut credentials = Credentials::new(settings.realm.as_deref().unwrap_or(REALM));
    if let Some(separator) = &settings.rest_separator {
        match separator.as_bytes() {
            [byte] if byte.is_ascii() => credentials.set_separator(*byte),
            _ => return Err(SecretsError::Separator),
        }
    }
    let from_file = lines("secret_file", settings.secret_file.as_deref())?;
    for secret in settings.secret.iter().chain(&from_file) {
        credentials.add_secret(checked(secret, settings.dev)?, Hash::Sha1);
    }
    for secret in &settings.secret_sha256 {
        credentials.add_secret(checked(secret, settings.dev)?, Hash::Sha256);
    }
    let from_file = lines("user_file", settings.user_file.as_deref())?;
    for (at, user) in settings.user.iter().chain(&from_file).enumerate() {
        let number = at + 1;
        credentials.add_user(user.expose()).map_err(|source| SecretsError::User { number, source })?;
    }
    if credentials.is_empty() && !settings.stun_only {
        return Err(SecretsError::None);
    }
    Ok(credentials)
}

fn checked(secret: &Secret, dev: bool) -> Result<&[u8], SecretsError> {
    match secret.expose() {
        "" => Err(SecretsError::Empty),
        PLACEHOLDER if !dev => Err(SecretsError::Placeholder),
        text => Ok(text.as_bytes()),
    }
}

/// Without blank lines and comments.
fn lines(key: &'static str, path: Option<&Path>) -> Result<Vec<Secret>, SecretsError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = Secret::from_file(path).map_err(|source| SecretsError::File { key, source })?;
    let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|line| Secret::new(line.to_owned())).collect())
}
