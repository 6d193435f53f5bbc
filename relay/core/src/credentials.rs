//! Who may allocate: static users, and TURN REST credentials (draft-uberti-behave-turn-rest-00), whose user name
//! carries its own expiry and whose password is an HMAC that only holders of a secret can make:
//!
//! ```text
//! username  expiry ":" user | user ":" expiry | ":" expiry | expiry      (seconds since 1970; ":" is configurable)
//! password  base64( HMAC( secret, username ) )
//! ```

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use stun::{IntegrityKey, Message};
use zeroize::Zeroizing;

/// All credentials of a realm. Every live secret is tried, so that a new one can be rolled out before the old one goes.
#[derive(Clone, Debug)]
pub struct Credentials {
    realm: String,
    users: BTreeMap<Vec<u8>, IntegrityKey>,
    secrets: Vec<RestSecret>,
    separator: u8,
    /// Stands in for the key of an unknown user, so that both refusals take the same time.
    nobody: IntegrityKey,
}

/// A secret shared with whoever mints credentials. It does not print.
#[derive(Clone)]
pub struct RestSecret {
    secret: Zeroizing<Vec<u8>>,
    hash: Hash,
}

/// The hash in the password of a REST credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha1,
    Sha256,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUser {
    #[error("user is not in the form name:password or name:0xKEY")]
    Form,
    #[error("key of a user is not 32 hexadecimal digits")]
    Key,
}

/// A user name and the key that its message was signed with.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) key: IntegrityKey,
    /// Whom quotas count: the user name without its expiry, or all of it when nothing else is there.
    pub(crate) user: Box<[u8]>,
    pub(crate) expires_unix_s: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Unknown,
    WrongPassword,
    Expired,
}

impl Credentials {
    pub fn new(realm: &str) -> Self {
        Self {
            realm: realm.to_owned(),
            users: BTreeMap::new(),
            secrets: Vec::new(),
            separator: b':',
            nobody: IntegrityKey::from_md5([0; 16]),
        }
    }

    pub fn add_secret(&mut self, secret: &[u8], hash: Hash) {
        self.secrets.push(RestSecret { secret: Zeroizing::new(secret.to_vec()), hash });
    }

    /// What stands between expiry and user in a REST user name.
    pub fn set_separator(&mut self, separator: u8) {
        self.separator = separator;
    }

    /// `name:password`, or `name:0xKEY` with the MD5 of `name:realm:password` in place of the password.
    pub fn add_user(&mut self, text: &str) -> Result<(), BadUser> {
        let (name, password) = text.split_once(':').ok_or(BadUser::Form)?;
        if name.is_empty() || password.is_empty() {
            return Err(BadUser::Form);
        }
        let key = match password.strip_prefix("0x") {
            Some(digits) => IntegrityKey::from_md5(decode_md5(digits).ok_or(BadUser::Key)?),
            None => IntegrityKey::long_term(name.as_bytes(), self.realm.as_bytes(), password.as_bytes()),
        };
        self.users.insert(name.as_bytes().to_vec(), key);
        Ok(())
    }

    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Whether anybody at all can sign in.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.secrets.is_empty()
    }

    pub(crate) fn check(&self, message: &Message<'_>, username: &[u8], unix_s: u64) -> Result<Identity, Refused> {
        if let Some(key) = self.users.get(username) {
            verify(message, key).map_err(|()| Refused::WrongPassword)?;
            return Ok(Identity { key: key.clone(), user: username.into(), expires_unix_s: None });
        }
        let Some((expires, user)) = parse_rest(username, self.separator) else {
            let _ = verify(message, &self.nobody);
            return Err(Refused::Unknown);
        };
        let mut keys = self.secrets.iter().map(|secret| secret.key(username, &self.realm));
        let key = keys.find(|key| verify(message, key).is_ok()).ok_or(Refused::WrongPassword)?;
        if expires.saturating_add(CLOCK_SKEW_S) <= unix_s {
            return Err(Refused::Expired);
        }
        let user = if user.is_empty() { username } else { user };
        Ok(Identity { key, user: user.into(), expires_unix_s: Some(expires) })
    }
}

impl RestSecret {
    fn key(&self, username: &[u8], realm: &str) -> IntegrityKey {
        let password = Zeroizing::new(match self.hash {
            Hash::Sha1 => STANDARD.encode(hmac::<Hmac<Sha1>>(&self.secret, username)),
            Hash::Sha256 => STANDARD.encode(hmac::<Hmac<Sha256>>(&self.secret, username)),
        });
        IntegrityKey::long_term(username, realm.as_bytes(), password.as_bytes())
    }
}

impl fmt::Debug for RestSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestSecret").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// By the stronger of the integrity attributes that the message carries.
pub(crate) fn verify(message: &Message<'_>, key: &IntegrityKey) -> Result<(), ()> {
    let verified = match message.has_integrity_sha256() {
        true => message.verify_integrity_sha256(key),
        false => message.verify_integrity(key),
    };
    verified.map_err(|_| ())
}

fn hmac<M: Mac + hmac::digest::KeyInit>(secret: &[u8], username: &[u8]) -> impl AsRef<[u8]> {
    <M as Mac>::new_from_slice(secret)
        .expect("HMAC takes keys of any length")
        .chain_update(username)
        .finalize()
        .into_bytes()
}

/// The expiry and the user, which may be empty.
fn parse_rest(username: &[u8], separator: u8) -> Option<(u64, &[u8])> {
    let Some(at) = username.iter().position(|byte| *byte == separator) else {
        return Some((parse_seconds(username)?, &[]));
    };
    let (left, right) = (&username[..at], &username[at + 1..]);
    match parse_seconds(left) {
        Some(expires) => Some((expires, right)),
        None => Some((parse_seconds(right)?, left)),
    }
}

fn parse_seconds(digits: &[u8]) -> Option<u64> {
    // A sign, which `parse` would take, is no digit.
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok()
}

fn decode_md5(digits: &str) -> Option<[u8; 16]> {
    let digits = digits.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let mut key = [0; 16];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(key)
}

/// Clocks of the minting host and of this one may differ by this much before a credential seems expired.
const CLOCK_SKEW_S: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_orders_of_expiry_and_user_are_read() {
        let parsed = |name: &'static str| parse_rest(name.as_bytes(), b':');
        assert_eq!(parsed("1700000000:ann"), Some((1_700_000_000, &b"ann"[..])));
        assert_eq!(parsed("ann:1700000000"), Some((1_700_000_000, &b"ann"[..])));
        assert_eq!(parsed(":1700000000"), Some((1_700_000_000, &b""[..])));
        assert_eq!(parsed("1700000000"), Some((1_700_000_000, &b""[..])));
        assert_eq!(parsed("1700000000:12:34"), Some((1_700_000_000, &b"12:34"[..])));
        for bad in ["", "ann", "ann:bob", "+17", ":", "99999999999999999999999"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
        assert_eq!(parse_rest(b"1700000000_ann", b'_'), Some((1_700_000_000, &b"ann"[..])));
    }

    #[test]
    fn users_are_read_in_clear_and_as_keys() {
        let mut credentials = Credentials::new("r");
        credentials.add_user("ann:secret:with:colons").expect("a user");
        credentials.add_user("bob:0xbc1c3b3b4d1a3f2a5d8e9f0011223344").expect("a user");
        assert_eq!(credentials.add_user("ann"), Err(BadUser::Form));
        assert_eq!(credentials.add_user("ann:"), Err(BadUser::Form));
        assert_eq!(credentials.add_user("bob:0x12"), Err(BadUser::Key));
        assert_eq!(credentials.add_user("bob:0xbc1c3b3b4d1a3f2a5d8e9f001122334g"), Err(BadUser::Key));
    }

    #[test]
    fn secrets_and_keys_do_not_print() {
        let mut credentials = Credentials::new("r");
        credentials.add_secret(b"hunter2", Hash::Sha1);
        credentials.add_user("ann:hunter2").expect("a user");
        assert!(!format!("{credentials:?}").contains("hunter2"));
        assert!(!format!("{credentials:?}").contains(&format!("{:?}", b"hunter2")));
    }
}
