//! The daemon's cookie: exactly 256 bytes, sent with every connection, unix sockets included. Without one the daemon
//! sometimes refuses its own user (it then depends on when the socket's credentials are looked at) and pipewire-pulse
//! always does. Never printed.

use std::fmt;
use std::path::{Path, PathBuf};

/// PA_NATIVE_COOKIE_LENGTH of the protocol.
pub const COOKIE_BYTES: usize = 256;

#[derive(Clone, PartialEq, Eq)]
pub struct Cookie(Vec<u8>);

#[derive(Debug, thiserror::Error)]
pub enum CookieError {
    #[error("cookie file {path} cannot be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cookie file {path} has {bytes} bytes, a cookie has exactly {COOKIE_BYTES}")]
    WrongLength { path: PathBuf, bytes: usize },
}

impl Cookie {
    pub fn load(path: &Path) -> Result<Self, CookieError> {
        let bytes =
            std::fs::read(path).map_err(|source| CookieError::Unreadable { path: path.to_owned(), source })?;
        if bytes.len() != COOKIE_BYTES {
            return Err(CookieError::WrongLength { path: path.to_owned(), bytes: bytes.len() });
        }
        Ok(Self(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(..)")
    }
}

/// Where the daemon of this user keeps its cookie.
#[must_use]
pub fn default_path(home: Option<&Path>) -> PathBuf {
    let home = home.unwrap_or(Path::new("/"));
    let old = home.join(".pulse-cookie");
    let new = home.join(".config/pulse/cookie");
    if !new.exists() && old.exists() { old } else { new }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exactly_256_bytes_are_a_cookie() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("cookie");
        assert!(matches!(Cookie::load(&path), Err(CookieError::Unreadable { .. })));
        for len in [0, 32, 255, 257] {
            std::fs::write(&path, vec![7; len]).expect("writes");
            let error = Cookie::load(&path).expect_err("refused");
            assert!(matches!(error, CookieError::WrongLength { bytes, .. } if bytes == len), "{error}");
        }
        std::fs::write(&path, [7; 256]).expect("writes");
        assert_eq!(format!("{:?}", Cookie::load(&path).expect("loads")), "Cookie(..)");
    }
}
