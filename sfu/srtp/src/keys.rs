//! Protection profiles and master keys as DTLS-SRTP (RFC 5764, RFC 7714) hands them over. Session keys are derived
//! in `kdf`.

use std::fmt;

use zeroize::Zeroize;

/// A DTLS-SRTP protection profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    AeadAes128Gcm,
    AeadAes256Gcm,
    Aes128CmHmacSha1_80,
}

/// Why keying material does not fit a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("keying material has the wrong length for the profile")]
    Length,
    #[error("cipher refused the session key")]
    Refused,
}

impl Profile {
    /// In the order in which an answerer should prefer them: the first is the cheapest to seal.
    pub const ALL: [Self; 3] = [Self::AeadAes128Gcm, Self::AeadAes256Gcm, Self::Aes128CmHmacSha1_80];

    /// The number in the DTLS `use_srtp` extension (RFC 5764 section 4.1.2, RFC 7714 section 14.2).
    pub const fn dtls_id(self) -> u16 {
        match self {
            Self::Aes128CmHmacSha1_80 => 0x0001,
            Self::AeadAes128Gcm => 0x0007,
            Self::AeadAes256Gcm => 0x0008,
        }
    }

    pub const fn from_dtls_id(id: u16) -> Option<Self> {
        match id {
            0x0001 => Some(Self::Aes128CmHmacSha1_80),
            0x0007 => Some(Self::AeadAes128Gcm),
            0x0008 => Some(Self::AeadAes256Gcm),
            _ => None,
        }
    }

    /// The registered name without its `SRTP_` prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::Aes128CmHmacSha1_80 => "AES128_CM_HMAC_SHA1_80",
        }
    }

    /// Bytes of master (and session) encryption key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::Aes128CmHmacSha1_80 => 16,
            Self::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of master (and session) salt.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 12,
            Self::Aes128CmHmacSha1_80 => 14,
        }
    }

    /// Bytes of authentication tag, the same for RTP and RTCP in these profiles.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AeadAes128Gcm | Self::AeadAes256Gcm => 16,
            Self::Aes128CmHmacSha1_80 => 10,
        }
    }

    /// Bytes to export from the DTLS handshake: two keys and two salts.
    pub const fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Master key and salt of one direction. It does not print and is wiped when dropped.
#[derive(Clone)]
pub struct Half {
    bytes: [u8; KEY_BYTES_MAX + SALT_BYTES_MAX],
    key_len: usize,
    salt_len: usize,
}

impl Half {
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, KeyError> {
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(KeyError::Length);
        }
        let mut bytes = [0; KEY_BYTES_MAX + SALT_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        bytes[KEY_BYTES_MAX..KEY_BYTES_MAX + salt.len()].copy_from_slice(salt);
        Ok(Self { bytes, key_len: key.len(), salt_len: salt.len() })
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len]
    }

    pub(crate) fn salt(&self) -> &[u8] {
        &self.bytes[KEY_BYTES_MAX..KEY_BYTES_MAX + self.salt_len]
    }

    pub(crate) fn fits(&self, profile: Profile) -> bool {
        self.key_len == profile.key_len() && self.salt_len == profile.salt_len()
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl fmt::Debug for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Half(..)")
    }
}

/// The master keys of both directions: what the DTLS client writes with, and what the DTLS server writes with.
#[derive(Clone, Debug)]
pub struct Keys {
    pub client: Half,
    pub server: Half,
}

impl Keys {
    /// Splits what the handshake exported under the label `EXTRACTOR-dtls_srtp` (RFC 5764 section 4.2):
    /// client key, server key, client salt, server salt.
    pub fn from_keying_material(profile: Profile, material: &[u8]) -> Result<Self, KeyError> {
        if material.len() != profile.keying_material_len() {
            return Err(KeyError::Length);
        }
        let (keys, salts) = material.split_at(2 * profile.key_len());
        let (client_key, server_key) = keys.split_at(profile.key_len());
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        Ok(Self {
            client: Half::new(profile, client_key, client_salt)?,
            server: Half::new(profile, server_key, server_salt)?,
        })
    }
}

const KEY_BYTES_MAX: usize = 32;
const SALT_BYTES_MAX: usize = 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keying_material_is_split_in_the_order_of_rfc_5764() {
        for profile in Profile::ALL {
            let material: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
            let keys = Keys::from_keying_material(profile, &material).expect("right length");
            let (key, salt) = (profile.key_len(), profile.salt_len());
            assert_eq!(keys.client.key(), &material[..key]);
            assert_eq!(keys.server.key(), &material[key..2 * key]);
            assert_eq!(keys.client.salt(), &material[2 * key..2 * key + salt]);
            assert_eq!(keys.server.salt(), &material[2 * key + salt..]);
            assert_eq!(
                Keys::from_keying_material(profile, &material[1..]).map(|_| ()).unwrap_err(),
                KeyError::Length
            );
        }
    }

    #[test]
    fn dtls_numbers_round_trip_and_others_are_refused() {
        for profile in Profile::ALL {
            assert_eq!(Profile::from_dtls_id(profile.dtls_id()), Some(profile));
        }
        // The _32 form has a tag too short to be worth offering.
        assert_eq!(Profile::from_dtls_id(0x0002), None);
        // NULL ciphers.
        assert_eq!(Profile::from_dtls_id(0x0005), None);
    }

    #[test]
    fn keys_do_not_print() {
        let half = Half::new(Profile::AeadAes128Gcm, &[0xAB; 16], &[0xCD; 12]).expect("right length");
        let shown = format!("{half:?} {:?}", Keys { client: half.clone(), server: half.clone() });
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("ab,") && !shown.contains("205"), "{shown}");
    }
}
