//! Why an offer is refused.

use signaling_protocol::ProtocolError;

use super::{MEDIA_MAX, SDP_BYTES_MAX};
use crate::codes::Code;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("offer has {0} bytes; at most {SDP_BYTES_MAX} are read")]
    TooLarge(usize),
    #[error("offer cannot be read: {0}")]
    Malformed(String),
    #[error("offer has no audio m-line that can be served")]
    NoAudio,
    #[error("no audio m-line has opus/48000/2")]
    NoOpus,
    #[error("offer has no usable ICE credentials: {0}")]
    NoIce(&'static str),
    #[error("offer has no usable certificate fingerprint: {0}")]
    NoFingerprint(&'static str),
    #[error("no audio m-line has rtcp-mux")]
    NoRtcpMux,
    #[error("offer has {0} m-lines; at most {MEDIA_MAX} are read")]
    TooManyMedia(usize),
    #[error("m-lines {0:?} and {1:?} have different payload types for Opus")]
    ProfileMismatch(String, String),
    #[error("setup {0:?} cannot be answered")]
    Setup(String),
    #[error("media list: {0}")]
    MediaUse(String),
    #[error("{0}")]
    RoleForbids(&'static str),
}

impl SdpError {
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::TooLarge(_) => Code::SdpTooLarge,
            Self::Malformed(_) => Code::SdpMalformed,
            Self::NoAudio => Code::SdpNoAudio,
            Self::NoOpus => Code::SdpNoOpus,
            Self::NoIce(_) => Code::SdpNoIce,
            Self::NoFingerprint(_) => Code::SdpNoFingerprint,
            Self::NoRtcpMux => Code::SdpNoRtcpMux,
            Self::TooManyMedia(_) => Code::SdpTooManyMedia,
            Self::ProfileMismatch(..) => Code::SdpProfileMismatch,
            Self::Setup(_) => Code::SdpSetup,
            Self::MediaUse(_) => Code::MediaUse,
            Self::RoleForbids(_) => Code::RoleForbids,
        }
    }
}

impl From<SdpError> for ProtocolError {
    fn from(error: SdpError) -> Self {
        error.code().error(error.to_string())
    }
}
