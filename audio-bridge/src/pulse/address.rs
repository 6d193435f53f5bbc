//! Where the daemon listens, in the notation of `PULSE_SERVER`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port of module-native-protocol-tcp.
const TCP_PORT: u16 = 4713;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("server address is empty; use unix:/path/native or tcp:host:port")]
    Empty,
    #[error("server address needs an absolute path after unix:")]
    RelativePath,
    #[error("server address has no valid port")]
    Port,
}

impl ServerAddress {
    /// Where a daemon of this user listens by default.
    #[must_use]
    pub fn of_this_user(runtime_dir: Option<&Path>) -> Self {
        Self::Unix(runtime_dir.unwrap_or(Path::new("/run")).join("pulse/native"))
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    /// `unix:/path`, `/path`, `tcp:host[:port]`, `tcp4:`, `tcp6:`, `host[:port]`. Of a list, the first entry counts; a
    /// `{machine id}` prefix is skipped.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let first = text.split_whitespace().next().ok_or(AddressError::Empty)?;
        let first = match first.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((_, rest)) => rest,
            None => first,
        };
        if let Some(path) = first.strip_prefix("unix:") {
            let path = Path::new(path);
            return if path.is_absolute() {
                Ok(Self::Unix(path.to_owned()))
            } else {
                Err(AddressError::RelativePath)
            };
        }
        if first.starts_with('/') {
            return Ok(Self::Unix(PathBuf::from(first)));
        }
        let authority =
            ["tcp:", "tcp4:", "tcp6:"].iter().find_map(|prefix| first.strip_prefix(prefix)).unwrap_or(first);
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or(AddressError::Port)?)),
            None => authority.rsplit_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err(AddressError::Empty);
        }
        let port = port.map_or(Ok(TCP_PORT), |port| port.parse().map_err(|_| AddressError::Port))?;
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Result<ServerAddress, AddressError> {
        Ok(ServerAddress::Tcp { host: host.to_owned(), port })
    }

    #[test]
    fn the_notations_of_pulse_server_are_understood() {
        let unix = Ok(ServerAddress::Unix("/run/pulse/native".into()));
        assert_eq!("unix:/run/pulse/native".parse(), unix);
        assert_eq!("/run/pulse/native tcp:other".parse(), unix);
        assert_eq!("{0123abcd}unix:/run/pulse/native".parse(), unix);
        assert_eq!("tcp:127.0.0.1:4714".parse(), tcp("127.0.0.1", 4714));
        assert_eq!("tcp6:[::1]:4714".parse(), tcp("::1", 4714));
        assert_eq!("desktop".parse(), tcp("desktop", 4713));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!("".parse::<ServerAddress>(), Err(AddressError::Empty));
        assert_eq!("tcp::1".parse::<ServerAddress>(), Err(AddressError::Empty));
        assert_eq!("unix:native".parse::<ServerAddress>(), Err(AddressError::RelativePath));
        assert_eq!("tcp:desktop:sound".parse::<ServerAddress>(), Err(AddressError::Port));
        assert_eq!("[::1]4714".parse::<ServerAddress>(), Err(AddressError::Port));
    }
}
