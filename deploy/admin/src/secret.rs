//! A password, token or key that cannot be printed by accident and is wiped when dropped. It does not protect memory
//! against a debugger or a core dump.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serializer, de};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

#[derive(Clone)]
pub struct Secret(String);

/// A secret file longer than this is a wrong path, not a secret.
const FILE_BYTES_MAX: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("secret file {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("secret file {} is empty", path.display())]
    Empty { path: PathBuf },
    #[error("secret file {} is longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
}

impl Secret {
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The whole file without its trailing line end, as editors and `echo` leave one.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(SecretError::TooLong { path: path.to_owned() });
        }
        let mut text = std::fs::read_to_string(path).map_err(unreadable)?;
        let trimmed = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(trimmed);
        if text.is_empty() {
            return Err(SecretError::Empty { path: path.to_owned() });
        }
        Ok(Self(text))
    }

    /// The value itself. Every call is a place where it can leak: hand it to what needs it and to nothing else.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in time that depends on the lengths only.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }

    /// For `#[serde(serialize_with = "admin::Secret::expose_in_settings")]` on a flag, so that
    /// [`settings::load`](crate::settings::load) can take it. There is no plain `Serialize` on purpose.
    pub fn expose_in_settings<S: Serializer>(flag: &Option<Self>, serializer: S) -> Result<S::Ok, S::Error> {
        match flag {
            Some(secret) => serializer.serialize_str(&secret.0),
            None => serializer.serialize_none(),
        }
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        /// serde's own text of a type error repeats the value, which must not reach a log.
        fn not_a_string<E: de::Error>() -> E {
            E::custom("expected a secret in quotes (its value is not shown)")
        }

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret in quotes")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Secret, E> {
                Ok(Secret(value.to_owned()))
            }

            fn visit_string<E: de::Error>(self, value: String) -> Result<Secret, E> {
                Ok(Secret(value))
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(not_a_string())
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(not_a_string())
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
                Err(not_a_string())
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(not_a_string())
            }
        }

        deserializer.deserialize_string(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_not_print() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
    }

    #[test]
    fn a_file_gives_its_text_without_the_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "two words\r\n").unwrap();
        assert_eq!(Secret::from_file(file.path()).unwrap().expose(), "two words");
    }

    #[test]
    fn an_empty_or_absent_file_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\n").unwrap();
        let empty = Secret::from_file(file.path()).unwrap_err().to_string();
        assert!(empty.contains(file.path().to_str().unwrap()) && empty.ends_with("is empty"), "{empty}");
        let absent = Secret::from_file(Path::new("/nonexistent/token")).unwrap_err();
        assert!(matches!(absent, SecretError::Unreadable { .. }));
    }

    #[test]
    fn matches_only_the_same_bytes() {
        let secret = Secret::from("token");
        assert!(secret.matches(b"token"));
        for wrong in [&b"toke"[..], b"tokens", b"Token", b""] {
            assert!(!secret.matches(wrong));
        }
    }
}
