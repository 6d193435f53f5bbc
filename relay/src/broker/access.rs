//! Who may ask for credentials: programs with an API key, and people with a token of signalling (JWT, HS256, the key by
//! its `kid`). Tokens are as strict here as at signalling's door; which room they are for makes no difference.

use std::collections::BTreeMap;

use admin::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A key that nobody guesses; old clients that hard-code a short one get a `dev` broker only.
pub const API_KEY_BYTES_MIN: usize = 16;
/// RFC 7518 section 3.2: a key of HS256 has at least the size of the hash.
const TOKEN_SECRET_BYTES_MIN: usize = 32;
/// A JWT of signalling has about 300 bytes.
const CREDENTIAL_BYTES_MAX: usize = 4096;
/// Each request compares all of them.
const API_KEYS_MAX: usize = 64;
const IDENTITY_CHARS_MAX: usize = 128;
/// Clock skew that `nbf` forgives. `exp` forgives none: its issuer chose how long.
const NOT_BEFORE_LEEWAY_S: f64 = 30.0;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error("{0} is not in the form id:secret")]
    Form(&'static str),
    #[error("{0} id {1:?} is used twice")]
    Duplicate(&'static str, String),
    #[error("{0} {1:?} is shorter than {2} bytes: choose a longer one")]
    TooShort(&'static str, String, usize),
    #[error("there are more than {API_KEYS_MAX} API keys")]
    TooMany,
    #[error(
        "nobody could ask: name callers by --api-key-file or signalling's keys by --token-keys-file (keys api_key, token_keys)"
    )]
    None,
}

/// Everybody who may ask.
#[derive(Default)]
pub struct Access {
    api_keys: Vec<(String, [u8; 32])>,
    token_keys: BTreeMap<String, DecodingKey>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A program, by the id of its key; it may ask for anybody.
    Program(String),
    /// A person, by the `sub` of their token; they ask for themselves.
    Person(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("no API key or token")]
    Missing,
    #[error("API key or token is not known")]
    Unknown,
    #[error("token is signed with another algorithm than HS256")]
    Algorithm,
    #[error("token has no expiry")]
    NoExpiry,
    #[error("token has expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYetValid,
    #[error("claims of the token are not those of signalling")]
    Claims,
}

impl Refused {
    /// Whether it may be somebody who tries keys. Who has no key yet, or a token that was good, is none.
    #[must_use]
    pub fn is_guess(self) -> bool {
        matches!(self, Self::Unknown | Self::Algorithm)
    }
}

impl Access {
    /// From `id:secret` texts. `dev` takes short API keys.
    pub fn new<'a>(
        api_keys: impl IntoIterator<Item = &'a Secret>,
        token_keys: impl IntoIterator<Item = &'a Secret>,
        dev: bool,
    ) -> Result<Self, AccessError> {
        let mut access = Self::default();
        let key_bytes_min = if dev { 1 } else { API_KEY_BYTES_MIN };
        for entry in api_keys {
            let (id, key) = split(entry.expose(), "API key", key_bytes_min)?;
            if access.api_keys.iter().any(|(known, _)| known == id) {
                return Err(AccessError::Duplicate("API key", id.to_owned()));
            }
            access.api_keys.push((id.to_owned(), Sha256::digest(key).into()));
        }
        // One text means the same here as at signalling, whether it is a line of a file, a file or a variable.
        let token_keys = token_keys.into_iter().flat_map(|keys| keys.expose().split([',', '\n'])).map(str::trim);
        for entry in token_keys.filter(|entry| !entry.is_empty()) {
            let (id, secret) = split(entry, "token key", TOKEN_SECRET_BYTES_MIN)?;
            let key = DecodingKey::from_secret(secret.as_bytes());
            if access.token_keys.insert(id.to_owned(), key).is_some() {
                return Err(AccessError::Duplicate("token key", id.to_owned()));
            }
        }
        if access.api_keys.len() > API_KEYS_MAX {
            return Err(AccessError::TooMany);
        }
        if access.api_keys.is_empty() && access.token_keys.is_empty() {
            return Err(AccessError::None);
        }
        Ok(access)
    }

    /// An API key or a token, at a time in seconds since 1970.
    pub fn check(&self, presented: &str, unix_s: u64) -> Result<Caller, Refused> {
        if presented.is_empty() {
            return Err(Refused::Missing);
        }
        if presented.len() > CREDENTIAL_BYTES_MAX {
            return Err(Refused::Unknown);
        }
        if let Some(id) = self.api_key(presented) {
            return Ok(Caller::Program(id.to_owned()));
        }
        if presented.split('.').count() == 3 { self.token(presented, unix_s) } else { Err(Refused::Unknown) }
    }

    /// Compares the hashes of all keys, so that time tells neither which one nor how much of it was right.
    fn api_key(&self, presented: &str) -> Option<&str> {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        let mut found = None;
        for (id, hash) in &self.api_keys {
            if bool::from(hash.ct_eq(&presented)) {
                found = Some(id.as_str());
            }
        }
        found
    }

    fn token(&self, token: &str, unix_s: u64) -> Result<Caller, Refused> {
        let header = token.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
        let header: Header = header.and_then(|json| serde_json::from_slice(&json).ok()).ok_or(Refused::Unknown)?;
        if header.alg != "HS256" {
            return Err(Refused::Algorithm);
        }
        let key = header.kid.and_then(|kid| self.token_keys.get(&kid)).ok_or(Refused::Unknown)?;
        // The signature is the library's to check; times have a clock of our own.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation).map_err(|error| {
            let is_claims = matches!(error.kind(), jsonwebtoken::errors::ErrorKind::Json(_));
            if is_claims { Refused::Claims } else { Refused::Unknown }
        })?;
        claims.claims.check(unix_s)
    }
}

fn split<'a>(entry: &'a str, what: &'static str, bytes_min: usize) -> Result<(&'a str, &'a str), AccessError> {
    let (id, secret) = entry.split_once(':').filter(|(id, _)| !id.is_empty()).ok_or(AccessError::Form(what))?;
    if secret.len() < bytes_min {
        return Err(AccessError::TooShort(what, id.to_owned(), bytes_min));
    }
    Ok((id, secret))
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let api_keys = self.api_keys.iter().map(|(id, _)| id).collect::<Vec<_>>();
        f.debug_struct("Access").field("api_keys", &api_keys).field("token_keys", &self.token_keys.keys()).finish()
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    room: Option<String>,
    sub: Option<String>,
    role: Option<Role>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// Those that signalling knows.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Listener,
    Speaker,
    Publisher,
    Moderator,
}

impl Claims {
    fn check(self, unix_s: u64) -> Result<Caller, Refused> {
        #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are far below 2^53")]
        let now = unix_s as f64;
        if self.exp.ok_or(Refused::NoExpiry)? <= now {
            return Err(Refused::Expired);
        }
        if self.nbf.is_some_and(|nbf| nbf > now + NOT_BEFORE_LEEWAY_S) {
            return Err(Refused::NotYetValid);
        }
        let sub = self.sub.filter(|sub| !sub.is_empty() && sub.chars().count() <= IDENTITY_CHARS_MAX);
        match (self.room.filter(|room| !room.is_empty()), sub, self.role) {
            (Some(_), Some(sub), Some(_)) => Ok(Caller::Person(sub)),
            _ => Err(Refused::Claims),
        }
    }
}

#[cfg(test)]
mod tests {
    use hmac::{Hmac, Mac};
    use serde_json::{Value, json};

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const TOKEN_SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn access() -> Access {
        let api = ["desk:desk-key-of-16-bytes".into(), "old:another-key-of-16".into()];
        Access::new(&api, &[Secret::new(format!("a:{TOKEN_SECRET}"))], false).unwrap()
    }

    fn signed(header: &Value, claims: &Value) -> String {
        let text =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mac = Hmac::<Sha256>::new_from_slice(TOKEN_SECRET.as_bytes()).unwrap().chain_update(&text);
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    fn with(key: &str, value: Value) -> String {
        let mut claims = json!({"room": "demo", "sub": "ada", "role": "listener", "exp": NOW + 60});
        claims[key] = value;
        signed(&json!({"alg": "HS256", "kid": "a"}), &claims)
    }

    #[test]
    fn programs_are_known_by_their_key_and_people_by_their_token() {
        assert_eq!(access().check("another-key-of-16", NOW), Ok(Caller::Program("old".into())));
        assert_eq!(access().check("desk-key-of-16-bytes", NOW), Ok(Caller::Program("desk".into())));
        assert_eq!(access().check(&with("name", "Ada".into()), NOW), Ok(Caller::Person("ada".into())));
    }

    #[test]
    fn a_text_of_several_token_keys_is_several_keys() {
        let keys = Secret::new(format!("b:fedcba9876543210fedcba9876543210, a:{TOKEN_SECRET}"));
        let access = Access::new(&[], &[keys], false).unwrap();
        assert_eq!(access.check(&with("name", "Ada".into()), NOW), Ok(Caller::Person("ada".into())));
        let comma = Secret::new(format!("a:{TOKEN_SECRET},{TOKEN_SECRET}"));
        assert!(Access::new(&[], &[comma], false).is_err());
    }

    #[test]
    fn each_defect_is_refused() {
        let header =
            |header: Value| signed(&header, &json!({"room": "r", "sub": "s", "role": "speaker", "exp": NOW + 1}));
        let cases = [
            (String::new(), Refused::Missing),
            ("desk".into(), Refused::Unknown),
            ("desk:desk-key-of-16-bytes".into(), Refused::Unknown),
            ("desk-key-of-16-byte".into(), Refused::Unknown),
            ("x".repeat(5_000), Refused::Unknown),
            ("a.b.c".into(), Refused::Unknown),
            (header(json!({"alg": "none", "kid": "a"})), Refused::Algorithm),
            (header(json!({"alg": "HS512", "kid": "a"})), Refused::Algorithm),
            (header(json!({"alg": "HS256", "kid": "b"})), Refused::Unknown),
            (header(json!({"alg": "HS256"})), Refused::Unknown),
            (with("exp", NOW.into()), Refused::Expired),
            (with("exp", Value::Null), Refused::NoExpiry),
            (with("exp", "soon".into()), Refused::Claims),
            (with("nbf", (NOW + 60).into()), Refused::NotYetValid),
            (with("room", "".into()), Refused::Claims),
            (with("sub", "".into()), Refused::Claims),
            (with("sub", "x".repeat(129).into()), Refused::Claims),
            (with("role", "king".into()), Refused::Claims),
            (format!("{}x", with("a", 1.into())), Refused::Unknown),
        ];
        for (presented, refused) in cases {
            assert_eq!(access().check(&presented, NOW), Err(refused), "{presented}");
        }
    }

    #[test]
    fn keys_are_checked_when_read_and_do_not_print() {
        let of = |keys: &[&str], dev| {
            Access::new(&keys.iter().map(|key| Secret::from(*key)).collect::<Vec<_>>(), &[], dev).map(drop)
        };
        assert_eq!(of(&[], false), Err(AccessError::None));
        assert_eq!(of(&["nocolon"], false), Err(AccessError::Form("API key")));
        assert_eq!(of(&["a:4080218913"], false), Err(AccessError::TooShort("API key", "a".into(), 16)));
        assert_eq!(of(&["a:4080218913"], true), Ok(()));
        let key = "a:0123456789abcdef";
        assert_eq!(of(&[key, key], false), Err(AccessError::Duplicate("API key", "a".into())));
        assert!(!format!("{:?}", access()).contains("key-of-16"));
    }

    proptest::proptest! {
        #[test]
        fn random_text_is_refused(text in "\\PC{0,60}(\\.\\PC{0,60}\\.\\PC{0,60})?") {
            proptest::prop_assert!(access().check(&text, NOW).is_err());
        }
    }
}
