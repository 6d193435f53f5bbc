//! The sound daemon (PulseAudio, or PipeWire through pipewire-pulse): a capture stream that lives as long as the
//! process, and a playback stream that feeds the virtual microphone. Wire types come from the `pulseaudio` crate; the
//! connection is ours, because its own client is limited to unix sockets and throws away the events that say a stream
//! was moved to another device.
//!
//! Each stream has its own connection, so that neither waits for the other.

pub mod address;
pub mod cookie;
pub mod latency;
mod pieces;
pub mod playback;
pub mod record;
mod wake;
pub mod wire;

use std::path::PathBuf;
use std::time::Duration;

pub use address::ServerAddress;
pub use playback::PulseSink;
pub use record::PulseSource;

use cookie::CookieError;
use pulseaudio::protocol::{ProtocolError, PulseError};

/// How to reach the daemon.
#[derive(Clone, Debug)]
pub struct PulseSettings {
    pub server: ServerAddress,
    /// Read again for each connection: the daemon may come back with another cookie.
    pub cookie: PathBuf,
}

/// The daemon answers within milliseconds or hangs.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);
/// A stream without data for this long on a device that is not suspended is dead, whatever the socket says.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// A device that is missing is looked for at every event, and this often in case an event is missed.
const DEVICE_POLL: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum PulseFailure {
    #[error(transparent)]
    Cookie(#[from] CookieError),
    #[error("cannot connect to {server}")]
    Connect {
        server: ServerAddress,
        #[source]
        source: std::io::Error,
    },
    #[error("connection to the sound daemon is lost")]
    Lost(#[from] std::io::Error),
    #[error("sound daemon refused the cookie")]
    AccessDenied,
    #[error("sound daemon answered: {0}")]
    Refused(PulseError),
    #[error("sound daemon sent what is not its protocol")]
    Protocol(#[source] ProtocolError),
    #[error("sound daemon sent a message of {0} bytes")]
    Oversized(usize),
    #[error("sound daemon does not answer")]
    Timeout,
}

impl From<ProtocolError> for PulseFailure {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::Io(error) => Self::Lost(error),
            ProtocolError::ServerError(PulseError::AccessDenied) => Self::AccessDenied,
            ProtocolError::ServerError(error) => Self::Refused(error),
            error @ (ProtocolError::UnsupportedVersion(_)
            | ProtocolError::UnexpectedCommand(_)
            | ProtocolError::Invalid(_)
            | ProtocolError::Unimplemented(..)
            | ProtocolError::Timeout) => Self::Protocol(error),
        }
    }
}
