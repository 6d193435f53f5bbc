//! Access tokens: JWT signed with HS256 by one of the configured keys. Verifying and minting are pure functions of the
//! token, the keys and the time; nothing here remembers a token.
//!
//! Claims: `room`, `sub` (identity), `name`?, `role`, `exp`, `iat`?, `nbf`?, `kinds`? (which tracks may be published).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use signaling_protocol::{ProtocolError, Role, TrackKind};

use crate::codes::Code;
use crate::names;

/// RFC 7518 section 3.2: a key of HS256 has at least the size of the hash.
pub const SECRET_BYTES_MIN: usize = 32;
/// A JWT of ours has about 300 bytes.
const TOKEN_BYTES_MAX: usize = 4096;
/// Clock skew that `nbf` forgives. `exp` forgives none: its issuer chose how long.
const NOT_BEFORE_LEEWAY_S: f64 = 30.0;
/// Longest identity and name, in characters.
pub const NAME_CHARS_MAX: usize = 64;
pub const IDENTITY_CHARS_MAX: usize = 128;

/// What a token grants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claims {
    pub room: String,
    pub sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub role: Role,
    /// Seconds since the epoch.
    pub exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Tracks that may be published; left out: what the role allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kinds: Option<Vec<TrackKind>>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    #[error("token key is not in the form kid:secret (a comma ends a key, so a secret has none)")]
    Form,
    #[error("token key id {0:?} is used twice")]
    Duplicate(String),
    #[error("secret of token key {0:?} is shorter than {SECRET_BYTES_MIN} bytes")]
    TooShort(String),
    #[error("there is no token key")]
    None,
}

/// The signing keys by id. The first one mints.
#[derive(Clone)]
pub struct Keys {
    secrets: BTreeMap<String, Vec<u8>>,
    first: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.secrets.keys()).finish()
    }
}

impl Keys {
    /// From `kid:secret` texts, the minting key first. Each may hold several keys with commas or line ends: one text
    /// means the same as a flag, a variable, a file or a line of it, and at every program that takes it.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, KeysError> {
        let mut secrets = BTreeMap::new();
        let mut first = None;
        for entry in entries
            .into_iter()
            .flat_map(|entry| entry.split([',', '\n']))
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
        {
            let (kid, secret) = entry.split_once(':').filter(|(kid, _)| !kid.is_empty()).ok_or(KeysError::Form)?;
            if secret.len() < SECRET_BYTES_MIN {
                return Err(KeysError::TooShort(kid.to_owned()));
            }
            if secrets.insert(kid.to_owned(), secret.as_bytes().to_vec()).is_some() {
                return Err(KeysError::Duplicate(kid.to_owned()));
            }
            first.get_or_insert_with(|| kid.to_owned());
        }
        Ok(Self { secrets, first: first.ok_or(KeysError::None)? })
    }

    /// The key that mints: its id and secret.
    #[must_use]
    pub fn first(&self) -> (&str, &[u8]) {
        (&self.first, self.secrets.get(&self.first).map_or(&[], Vec::as_slice))
    }

    #[must_use]
    pub fn secret(&self, kid: &str) -> Option<&[u8]> {
        self.secrets.get(kid).map(Vec::as_slice)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("no token")]
    Missing,
    #[error("token cannot be read: {0}")]
    Malformed(&'static str),
    #[error("claims of the token are wrong: {0}")]
    Claims(&'static str),
    #[error("token is signed with another algorithm than HS256")]
    Algorithm,
    #[error("token names no key that this server knows")]
    KeyUnknown,
    #[error("signature of the token is wrong")]
    Signature,
    #[error("token has no expiry")]
    NoExpiry,
    #[error("token has expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYetValid,
    #[error("token is for another room")]
    WrongRoom,
    #[error("token has no role that this server knows")]
    Role,
}

impl TokenError {
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Missing => Code::TokenMissing,
            Self::Malformed(_) => Code::TokenMalformed,
            Self::Claims(_) => Code::TokenClaims,
            Self::Algorithm => Code::TokenAlgorithm,
            Self::KeyUnknown => Code::TokenKeyUnknown,
            Self::Signature => Code::TokenSignature,
            Self::NoExpiry => Code::TokenNoExpiry,
            Self::Expired => Code::TokenExpired,
            Self::NotYetValid => Code::TokenNotYetValid,
            Self::WrongRoom => Code::TokenWrongRoom,
            Self::Role => Code::TokenRole,
        }
    }
}

impl From<TokenError> for ProtocolError {
    fn from(error: TokenError) -> Self {
        error.code().error(error.to_string())
    }
}

#[derive(Deserialize)]
struct RawHeader {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
}

#[derive(Deserialize)]
struct RawClaims {
    room: Option<String>,
    sub: Option<String>,
    name: Option<String>,
    role: Option<serde_json::Value>,
    exp: Option<f64>,
    iat: Option<f64>,
    nbf: Option<f64>,
    kinds: Option<Vec<TrackKind>>,
}

/// Checks a token for one room at one time (seconds since the epoch).
pub fn verify(token: &str, room: &str, keys: &Keys, now_s: u64) -> Result<Claims, TokenError> {
    if token.is_empty() {
        return Err(TokenError::Missing);
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed("it is too long"));
    }
    let header = parse_header(token)?;
    if header.alg != "HS256" {
        return Err(TokenError::Algorithm);
    }
    let secret = header.kid.as_deref().and_then(|kid| keys.secret(kid)).ok_or(TokenError::KeyUnknown)?;
    let claims = decode(token, secret)?;
    check_claims(claims, room, now_s)
}

/// Signs the claims with the first key.
pub fn mint(claims: &Claims, keys: &Keys) -> Result<String, TokenError> {
    let (kid, secret) = keys.first();
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret))
        .map_err(|_| TokenError::Claims("they cannot be signed"))
}

fn parse_header(token: &str) -> Result<RawHeader, TokenError> {
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(TokenError::Malformed("it does not have three parts"));
    };
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed("its header is not base64url"))?;
    serde_json::from_slice(&header).map_err(|_| TokenError::Malformed("its header is not a JSON object with alg"))
}

fn decode(token: &str, secret: &[u8]) -> Result<RawClaims, TokenError> {
    // Only the signature is the library's to check here: expiry has codes and a clock of our own.
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    match jsonwebtoken::decode::<RawClaims>(token, &DecodingKey::from_secret(secret), &validation) {
        Ok(data) => Ok(data.claims),
        Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature | ErrorKind::Base64(_)) => {
            Err(TokenError::Signature)
        }
        Err(error) if matches!(error.kind(), ErrorKind::InvalidAlgorithm) => Err(TokenError::Algorithm),
        Err(_) => Err(TokenError::Claims("one has another form than this server expects")),
    }
}

fn check_claims(raw: RawClaims, room: &str, now_s: u64) -> Result<Claims, TokenError> {
    #[expect(clippy::cast_precision_loss, reason = "seconds since the epoch are far below 2^53")]
    let now = now_s as f64;
    let exp = raw.exp.ok_or(TokenError::NoExpiry)?;
    if exp <= now {
        return Err(TokenError::Expired);
    }
    if raw.nbf.is_some_and(|nbf| nbf > now + NOT_BEFORE_LEEWAY_S) {
        return Err(TokenError::NotYetValid);
    }
    if raw.room.as_deref() != Some(room) {
        return Err(TokenError::WrongRoom);
    }
    let role = raw.role.and_then(|role| serde_json::from_value(role).ok()).ok_or(TokenError::Role)?;
    let sub = raw.sub.filter(|sub| names::is_visible(sub)).ok_or(TokenError::Claims("there is no sub"))?;
    if sub.chars().count() > IDENTITY_CHARS_MAX {
        return Err(TokenError::Claims("sub is too long"));
    }
    let name = raw.name.map(|name| name.chars().take(NAME_CHARS_MAX).collect());
    Ok(Claims { room: room.to_owned(), sub, name, role, exp: whole(exp), iat: raw.iat.map(whole), kinds: raw.kinds })
}

/// NumericDate may have a fraction (RFC 7519 section 2); negative and huge values saturate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float to integer casts saturate")]
fn whole(seconds: f64) -> u64 {
    seconds as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn keys() -> Keys {
        Keys::parse(["a:0123456789abcdef0123456789abcdef", "b:fedcba9876543210fedcba9876543210"]).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            room: "demo".into(),
            sub: "ada".into(),
            name: Some("Ada".into()),
            role: Role::Speaker,
            exp: NOW + 60,
            iat: Some(NOW),
            kinds: None,
        }
    }

    fn signed(header: &serde_json::Value, claims: &serde_json::Value, secret: &[u8]) -> String {
        use hmac::Mac as _;
        let head = URL_SAFE_NO_PAD.encode(header.to_string());
        let body = URL_SAFE_NO_PAD.encode(claims.to_string());
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret).unwrap();
        mac.update(format!("{head}.{body}").as_bytes());
        format!("{head}.{body}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    fn with(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut claims = serde_json::to_value(claims()).unwrap();
        change(&mut claims);
        signed(&serde_json::json!({"alg": "HS256", "kid": "b"}), &claims, keys().secret("b").unwrap())
    }

    fn refused(token: &str) -> &'static str {
        verify(token, "demo", &keys(), NOW).unwrap_err().code().as_str()
    }

    #[test]
    fn minted_token_is_accepted() {
        let token = mint(&claims(), &keys()).unwrap();
        assert_eq!(verify(&token, "demo", &keys(), NOW).unwrap(), claims());
    }

    #[test]
    fn token_of_another_tool_with_the_second_key_is_accepted() {
        let token = with(|claims| claims["exp"] = serde_json::json!(1_800_000_000.5));
        assert_eq!(verify(&token, "demo", &keys(), NOW).unwrap().sub, "ada");
    }

    #[test]
    fn each_defect_has_its_code() {
        let header = |header: serde_json::Value| {
            signed(&header, &serde_json::to_value(claims()).unwrap(), keys().secret("a").unwrap())
        };
        let cases = [
            (String::new(), "token_missing"),
            ("abc".into(), "token_malformed"),
            ("a.b".into(), "token_malformed"),
            ("!.b.c".into(), "token_malformed"),
            ("x".repeat(5000), "token_malformed"),
            (header(serde_json::json!({"alg": "none", "kid": "a"})), "token_algorithm"),
            (header(serde_json::json!({"alg": "None", "kid": "a"})), "token_algorithm"),
            (header(serde_json::json!({"alg": "RS256", "kid": "a"})), "token_algorithm"),
            (header(serde_json::json!({"alg": "HS512", "kid": "a"})), "token_algorithm"),
            (header(serde_json::json!({"alg": "ES256", "kid": "a"})), "token_algorithm"),
            (header(serde_json::json!({"kid": "a"})), "token_malformed"),
            (header(serde_json::json!({"alg": "HS256"})), "token_key_unknown"),
            (header(serde_json::json!({"alg": "HS256", "kid": "c"})), "token_key_unknown"),
            (header(serde_json::json!({"alg": "HS256", "kid": "../a"})), "token_key_unknown"),
            (header(serde_json::json!({"alg": "HS256", "kid": "b"})), "token_signature"),
            (with(|claims| claims["exp"] = serde_json::Value::Null), "token_no_expiry"),
            (with(|claims| drop(claims.as_object_mut().unwrap().remove("exp"))), "token_no_expiry"),
            (with(|claims| claims["exp"] = NOW.into()), "token_expired"),
            (with(|claims| claims["exp"] = (-1).into()), "token_expired"),
            (with(|claims| claims["exp"] = "soon".into()), "token_claims"),
            (with(|claims| claims["nbf"] = (NOW + 60).into()), "token_not_yet_valid"),
            (with(|claims| claims["room"] = "other".into()), "token_wrong_room"),
            (with(|claims| drop(claims.as_object_mut().unwrap().remove("room"))), "token_wrong_room"),
            (with(|claims| claims["role"] = "king".into()), "token_role"),
            (with(|claims| claims["role"] = 7.into()), "token_role"),
            (with(|claims| drop(claims.as_object_mut().unwrap().remove("role"))), "token_role"),
            (with(|claims| claims["sub"] = "".into()), "token_claims"),
            (with(|claims| claims["sub"] = " \n".into()), "token_claims"),
            (with(|claims| claims["sub"] = "\u{200b}\u{2060}".into()), "token_claims"),
            (with(|claims| claims["sub"] = "x".repeat(IDENTITY_CHARS_MAX + 1).into()), "token_claims"),
            (with(|claims| drop(claims.as_object_mut().unwrap().remove("sub"))), "token_claims"),
            (with(|claims| claims["kinds"] = serde_json::json!(["video"])), "token_claims"),
        ];
        for (token, code) in cases {
            assert_eq!(refused(&token), code, "{token}");
        }
    }

    #[test]
    fn changed_claims_break_the_signature() {
        let token = with(|_| ());
        let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
        parts[1] = URL_SAFE_NO_PAD.encode(serde_json::json!({"room": "demo", "role": "moderator"}).to_string());
        assert_eq!(refused(&parts.join(".")), "token_signature");
        parts[2].clear();
        assert_eq!(refused(&parts.join(".")), "token_signature");
    }

    #[test]
    fn keys_are_checked_when_read() {
        assert_eq!(Keys::parse(["a:short"]).unwrap_err(), KeysError::TooShort("a".into()));
        assert_eq!(Keys::parse(["nocolon"]).unwrap_err(), KeysError::Form);
        let comma = "a:0123456789abcdef0123456789abcdef,0123456789abcdef0123456789abcdef";
        assert_eq!(Keys::parse([comma]).unwrap_err(), KeysError::Form);
        assert_eq!(Keys::parse([""]).unwrap_err(), KeysError::None);
        let twice = "a:0123456789abcdef0123456789abcdef";
        assert_eq!(Keys::parse([twice, twice]).unwrap_err(), KeysError::Duplicate("a".into()));
        assert!(!format!("{:?}", keys()).contains("0123"));
    }

    proptest::proptest! {
        #[test]
        fn random_text_is_refused(token in "\\PC{0,200}") {
            proptest::prop_assert!(verify(&token, "demo", &keys(), NOW).is_err());
        }

        #[test]
        fn one_changed_byte_is_refused(index in 0usize..200, byte in 0u8..128) {
            let token = with(|_| ());
            let mut bytes = token.into_bytes();
            let index = index % bytes.len();
            proptest::prop_assume!(bytes[index] != byte);
            bytes[index] = byte;
            // The last character of a base64url text has unused bits.
            proptest::prop_assume!(index != bytes.len() - 1);
            let changed = String::from_utf8(bytes).unwrap();
            proptest::prop_assert!(verify(&changed, "demo", &keys(), NOW).is_err());
        }
    }
}
