//! `carillon token`: mints a room token with a key of one's own.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use signaling::tokens::{Claims, IDENTITY_CHARS_MAX, Keys, NAME_CHARS_MAX};

/// The roles by name, as a token carries them.
pub(crate) const ROLES: [&str; 4] = ["speaker", "listener", "moderator", "publisher"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long, value_name = "NAME", value_parser = room_name)]
    room: String,
    #[arg(long, default_value = "speaker", value_parser = ROLES)]
    role: String,
    /// Who this is; shown to the others where there is no name
    #[arg(long, value_name = "TEXT", value_parser = identity)]
    identity: String,
    /// Shown to the others, and not to be changed by the holder
    #[arg(long, value_name = "TEXT", value_parser = display_name)]
    name: Option<String>,
    /// How long it is good
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = crate::duration::parse)]
    ttl: Duration,
    /// Signing key, as kid:secret with a secret of at least 32 bytes; of several with commas the first. Better given by environment, where other users of the machine cannot read it
    #[arg(long, env = "CARILLON_TOKEN_KEY", hide_env_values = true, value_name = "KID:SECRET")]
    // Read in `main`: clap would repeat a key that it cannot read.
    key: Option<admin::Secret>,
}

/// A key for room tokens, as signalling takes it: `kid:secret`.
#[derive(Clone)]
pub(crate) struct TokenKey {
    text: admin::Secret,
    keys: Keys,
}

impl TokenKey {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let keys = Keys::parse([text])?;
        Ok(Self { text: text.into(), keys })
    }

    pub(crate) fn text(&self) -> &admin::Secret {
        &self.text
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey({:?})", self.keys)
    }
}

/// The rule is signalling's.
pub(crate) fn room_name(text: &str) -> Result<String, String> {
    if signaling::session::is_room_name(text) {
        return Ok(text.to_owned());
    }
    Err("the name of a room has 1 to 64 letters, digits, dashes and underscores".to_owned())
}

/// Signalling refuses a token without one, or with a longer one.
fn identity(text: &str) -> Result<String, String> {
    not_longer(seen(text)?, IDENTITY_CHARS_MAX)
}

/// Signalling would cut a longer one.
fn display_name(text: &str) -> Result<String, String> {
    not_longer(seen(text)?, NAME_CHARS_MAX)
}

fn seen(text: &str) -> Result<&str, String> {
    if signaling::names::is_visible(text) { Ok(text) } else { Err("it has no character that can be seen".to_owned()) }
}

fn not_longer(text: &str, chars_max: usize) -> Result<String, String> {
    let chars = text.chars().count();
    if chars > chars_max {
        return Err(format!("it has {chars} characters, {chars_max} are the most"));
    }
    Ok(text.to_owned())
}

pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let grant = Grant { room: &args.room, role: &args.role, identity: &args.identity, name: args.name.as_deref() };
    let key = args.key.as_ref().context("no signing key: set CARILLON_TOKEN_KEY to kid:secret, or use --key")?;
    let key = TokenKey::parse(key.expose()).context("the key in CARILLON_TOKEN_KEY or --key")?;
    let token = mint(&key, &grant, args.ttl)?;
    writeln!(std::io::stdout().lock(), "{token}").context("cannot print the token")?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant<'a> {
    pub(crate) room: &'a str,
    pub(crate) role: &'a str,
    pub(crate) identity: &'a str,
    pub(crate) name: Option<&'a str>,
}

pub(crate) fn mint(key: &TokenKey, grant: &Grant<'_>, ttl: Duration) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    let claims = Claims {
        room: grant.room.to_owned(),
        sub: grant.identity.to_owned(),
        name: grant.name.map(str::to_owned),
        role: serde_json::from_value(grant.role.into()).with_context(|| format!("no such role: {}", grant.role))?,
        exp: now.saturating_add(ttl).as_secs(),
        iat: Some(now.as_secs()),
        kinds: None,
    };
    Ok(signaling::tokens::mint(&claims, &key.keys)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "k1:0123456789abcdef0123456789abcdef";

    #[test]
    fn a_minted_token_verifies_for_its_room_until_it_expires() {
        let key = TokenKey::parse(KEY).unwrap();
        let keys = Keys::parse([KEY]).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        for role in ROLES {
            let grant = Grant { room: "demo", role, identity: "ann", name: Some("Ann") };
            let token = mint(&key, &grant, Duration::from_secs(60)).unwrap();
            let claims = signaling::tokens::verify(&token, "demo", &keys, now).unwrap();
            assert_eq!((claims.sub.as_str(), claims.name.as_deref()), ("ann", Some("Ann")));
            assert!(signaling::tokens::verify(&token, "other", &keys, now).is_err());
            assert!(signaling::tokens::verify(&token, "demo", &keys, now + 120).is_err());
        }
    }

    #[test]
    fn what_signalling_would_refuse_or_cut_is_refused_here() {
        for unseen in ["", " ", "\u{200b}"] {
            assert!(identity(unseen).is_err() && display_name(unseen).is_err(), "{unseen:?}");
        }
        assert!(identity("").is_err() && identity(&"ä".repeat(IDENTITY_CHARS_MAX + 1)).is_err());
        assert!(identity(&"ä".repeat(IDENTITY_CHARS_MAX)).is_ok());
        assert!(display_name(&"ä".repeat(NAME_CHARS_MAX)).is_ok());
        let error = display_name(&"ä".repeat(NAME_CHARS_MAX + 1)).unwrap_err();
        assert!(error.contains("64"), "{error}");
    }

    #[test]
    fn several_keys_in_one_text_are_as_many_as_at_signalling() {
        let text = format!("{KEY},k2:fedcba9876543210fedcba9876543210");
        let key = TokenKey::parse(&text).unwrap();
        let grant = Grant { room: "demo", role: "speaker", identity: "ann", name: None };
        let token = mint(&key, &grant, Duration::from_secs(60)).unwrap();
        let first = Keys::parse([KEY]).unwrap();
        assert!(signaling::tokens::verify(&token, "demo", &first, 0).is_ok(), "the first one mints");
        assert!(TokenKey::parse("k1:0123456789abcdef,0123456789abcdef").is_err(), "a comma is no part of a secret");
    }

    #[test]
    fn a_key_does_not_print() {
        assert!(!format!("{:?}", TokenKey::parse(KEY).unwrap()).contains("0123"));
    }
}
