//! MESSAGE-INTEGRITY keys: the HMAC states of a credential, keyed once and cloned for each message.
//! Where credentials come from, and what they allow, is not known here.

use std::fmt;

use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;

/// Why a message is not authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntegrityError {
    #[error("message carries no integrity attribute")]
    Missing,
    #[error("integrity attribute does not match the credential")]
    Mismatch,
}

/// The key of one credential, ready for both HMAC-SHA1 (MESSAGE-INTEGRITY) and HMAC-SHA256
/// (MESSAGE-INTEGRITY-SHA256). It does not print.
#[derive(Clone)]
pub struct IntegrityKey {
    sha1: Hmac<Sha1>,
    sha256: Hmac<Sha256>,
}

impl IntegrityKey {
    /// ICE: the password is the key (RFC 8489 section 9.1.1). It must be prepared (OpaqueString) by the caller;
    /// ICE passwords are ASCII and need no preparation.
    pub fn short_term(password: &[u8]) -> Self {
        Self::from_bytes(password)
    }

    /// TURN: MD5 over `username:realm:password` (RFC 8489 section 9.2.2), all prepared by the caller.
    pub fn long_term(username: &[u8], realm: &[u8], password: &[u8]) -> Self {
        Self::from_bytes(&joined::<Md5>(username, realm, password))
    }

    /// As [`IntegrityKey::long_term`] for the password algorithm SHA-256 (RFC 8489 section 18.5.1.2).
    pub fn long_term_sha256(username: &[u8], realm: &[u8], password: &[u8]) -> Self {
        Self::from_bytes(&joined::<Sha256>(username, realm, password))
    }

    /// The MD5 key of a long-term credential as servers store it in place of the password.
    pub fn from_md5(key: [u8; 16]) -> Self {
        Self::from_bytes(&key)
    }

    fn from_bytes(key: &[u8]) -> Self {
        Self {
            sha1: Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
            sha256: Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
        }
    }

    pub(crate) fn sha1(&self, parts: [&[u8]; 2]) -> [u8; 20] {
        feed(&self.sha1, parts).finalize().into_bytes().into()
    }

    pub(crate) fn sha256(&self, parts: [&[u8]; 2]) -> [u8; 32] {
        feed(&self.sha256, parts).finalize().into_bytes().into()
    }

    /// In constant time.
    pub(crate) fn verify_sha1(&self, parts: [&[u8]; 2], tag: &[u8]) -> Result<(), IntegrityError> {
        feed(&self.sha1, parts).verify_slice(tag).map_err(|_| IntegrityError::Mismatch)
    }

    /// In constant time. The sender may have truncated the tag; the reader checked that 16 bytes or more are left.
    pub(crate) fn verify_sha256(&self, parts: [&[u8]; 2], tag: &[u8]) -> Result<(), IntegrityError> {
        feed(&self.sha256, parts).verify_truncated_left(tag).map_err(|_| IntegrityError::Mismatch)
    }
}

impl fmt::Debug for IntegrityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IntegrityKey(..)")
    }
}

fn feed<M: Mac + Clone>(keyed: &M, parts: [&[u8]; 2]) -> M {
    let mut mac = keyed.clone();
    for part in parts {
        mac.update(part);
    }
    mac
}

fn joined<D: Digest>(username: &[u8], realm: &[u8], password: &[u8]) -> impl std::ops::Deref<Target = [u8]> {
    D::new()
        .chain_update(username)
        .chain_update(b":")
        .chain_update(realm)
        .chain_update(b":")
        .chain_update(password)
        .finalize()
}
