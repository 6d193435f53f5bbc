//! What the encoder is asked for: a profile names a trade of sound, delay and bytes; bit rate and frame length may be
//! set apart from it, and all of it may change while the bridge runs.

use serde::{Deserialize, Serialize};

/// Opus does not go higher, and lower is no sound for a desktop.
pub const BITRATES_BPS: std::ops::RangeInclusive<u32> = 16_000..=510_000;
pub const FRAMES_MS: [u32; 3] = [5, 10, 20];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Meetings and screen readers: 64 kb/s, 20 ms, with in-band FEC.
    Speech,
    /// Whatever a desktop plays: 128 kb/s, 10 ms.
    #[default]
    Music,
    /// Nothing audible is lost: 510 kb/s, 10 ms.
    Studio,
    /// The shortest way: 128 kb/s, 5 ms.
    Instant,
    /// Few bytes and few packets: 64 kb/s, 20 ms.
    Thrift,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EncodeSettings {
    pub profile: Profile,
    pub bitrate_bps: u32,
    pub frame_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("bitrate must be within 16000 and 510000, not {0}")]
    Bitrate(u32),
    #[error("frame_ms must be 5, 10 or 20, not {0}")]
    Frame(u32),
}

impl Profile {
    /// Where in-band FEC is worth having: it takes the encoder out of its music mode, which is audible (ViSQOL 3.92 falls to
    /// 3.19 at 10 % loss).
    #[must_use]
    pub const fn is_speech(self) -> bool {
        matches!(self, Self::Speech)
    }

    const fn bitrate_bps(self) -> u32 {
        match self {
            Self::Speech | Self::Thrift => 64_000,
            Self::Music | Self::Instant => 128_000,
            Self::Studio => 510_000,
        }
    }

    const fn frame_ms(self) -> u32 {
        match self {
            Self::Instant => 5,
            Self::Music | Self::Studio => 10,
            Self::Speech | Self::Thrift => 20,
        }
    }
}

impl std::str::FromStr for Profile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "speech" => Ok(Self::Speech),
            "music" => Ok(Self::Music),
            "studio" => Ok(Self::Studio),
            "instant" => Ok(Self::Instant),
            "thrift" => Ok(Self::Thrift),
            _ => Err("a profile is speech, music, studio, instant or thrift"),
        }
    }
}

impl EncodeSettings {
    /// A profile, and what differs from it.
    pub fn new(profile: Profile, bitrate_bps: Option<u32>, frame_ms: Option<u32>) -> Result<Self, EncodeError> {
        let bitrate_bps = bitrate_bps.unwrap_or(profile.bitrate_bps());
        let frame_ms = frame_ms.unwrap_or(profile.frame_ms());
        if !BITRATES_BPS.contains(&bitrate_bps) {
            return Err(EncodeError::Bitrate(bitrate_bps));
        }
        if !FRAMES_MS.contains(&frame_ms) {
            return Err(EncodeError::Frame(frame_ms));
        }
        Ok(Self { profile, bitrate_bps, frame_ms })
    }
}

impl Default for EncodeSettings {
    fn default() -> Self {
        let profile = Profile::default();
        Self { profile, bitrate_bps: profile.bitrate_bps(), frame_ms: profile.frame_ms() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_may_be_changed_in_parts() {
        let instant = EncodeSettings::new(Profile::Instant, Some(96_000), None).expect("valid");
        assert_eq!((instant.bitrate_bps, instant.frame_ms), (96_000, 5));
        assert_eq!(EncodeSettings::new(Profile::Music, Some(8_000), None), Err(EncodeError::Bitrate(8_000)));
        assert_eq!(EncodeSettings::new(Profile::Music, None, Some(15)), Err(EncodeError::Frame(15)));
    }

    #[test]
    fn only_speech_has_in_band_fec() {
        for name in ["music", "studio", "instant", "thrift"] {
            assert!(!name.parse::<Profile>().expect("a profile").is_speech());
        }
    }
}
