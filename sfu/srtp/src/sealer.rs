//! The sending side of one direction: header checks, then the cipher. The caller owns sequence numbers and rollover
//! counters of RTP, since it rewrites them; the SRTCP index is counted here.

use std::fmt;

use crate::cm::Cm;
use crate::gcm::Gcm;
use crate::header::RTP_HEADER_BYTES;
use crate::kdf::Label;
use crate::keys::{Half, KeyError, Profile};
use crate::{RTCP_CLEAR_BYTES, RTCP_INDEX_BYTES, RTCP_INDEX_MAX, RTP_INDEX_MAX, ssrc_at};

/// Why a packet cannot be sealed: the caller's fault, except that a key may be used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("buffer has no room for the authentication tag")]
    BufferTooSmall,
    #[error("packet is shorter than its header")]
    Header,
    #[error("packet index does not end in the sequence number of the header")]
    IndexMismatch,
    #[error("key has sealed as many packets as it may")]
    KeyExhausted,
    #[error("cipher failed")]
    Cipher,
}

/// Seals RTP and RTCP with the session keys of one [`Half`].
pub struct Sealer {
    profile: Profile,
    rtp: Cipher,
    /// Used each few seconds, and apart, so that the ciphers of a room's listeners lie close together.
    rtcp: Box<Cipher>,
    next_rtcp_index: u32,
}

#[expect(clippy::large_enum_variant, reason = "both live inline: a pointer to follow costs more than the bytes")]
pub(crate) enum Cipher {
    Gcm(Gcm),
    Cm(Cm),
}

impl Sealer {
    pub fn new(profile: Profile, half: &Half) -> Result<Self, KeyError> {
        let (rtp, rtcp) = Cipher::pair(profile, half)?;
        Ok(Self { profile, rtp, rtcp: Box::new(rtcp), next_rtcp_index: 0 })
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Seals `buf[..len]` (header of `header_len` bytes, then payload) in place and returns the length with the tag,
    /// for which `buf` must have room. `index` is the rollover counter and the header's sequence number,
    /// `ROC << 16 | SEQ`. An index must never be used twice for an SSRC with different bytes: that gives the key
    /// stream away.
    pub fn seal_rtp(
        &mut self,
        buf: &mut [u8],
        header_len: usize,
        len: usize,
        index: u64,
    ) -> Result<usize, SealError> {
        if header_len < RTP_HEADER_BYTES || header_len > len {
            return Err(SealError::Header);
        }
        let end = len.saturating_add(self.profile.tag_len());
        let packet = buf.get_mut(..end).ok_or(SealError::BufferTooSmall)?;
        let ssrc = ssrc_at(packet, 8).ok_or(SealError::Header)?;
        if packet[2..4] != index.to_be_bytes()[6..] {
            return Err(SealError::IndexMismatch);
        }
        if index > RTP_INDEX_MAX {
            return Err(SealError::KeyExhausted);
        }
        match &self.rtp {
            Cipher::Gcm(gcm) => gcm.seal_rtp(packet, header_len, ssrc, index).map_err(|_| SealError::Cipher)?,
            Cipher::Cm(cm) => cm.seal_rtp(packet, header_len, ssrc, index),
        }
        Ok(end)
    }

    /// Seals the compound RTCP packet `buf[..len]` in place and returns the length with index and tag, for which
    /// `buf` must have room. All SSRCs share one counter, so an index is never used twice.
    pub fn seal_rtcp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, SealError> {
        if len < RTCP_CLEAR_BYTES {
            return Err(SealError::Header);
        }
        let end = len.saturating_add(RTCP_INDEX_BYTES + self.profile.tag_len());
        let packet = buf.get_mut(..end).ok_or(SealError::BufferTooSmall)?;
        let ssrc = ssrc_at(packet, 4).ok_or(SealError::Header)?;
        let index = self.next_rtcp_index;
        if index > RTCP_INDEX_MAX {
            return Err(SealError::KeyExhausted);
        }
        self.next_rtcp_index += 1;
        match &*self.rtcp {
            Cipher::Gcm(gcm) => gcm.seal_rtcp(packet, ssrc, index).map_err(|_| SealError::Cipher)?,
            Cipher::Cm(cm) => cm.seal_rtcp(packet, ssrc, index),
        }
        Ok(end)
    }
}

impl Cipher {
    /// The ciphers of RTP and RTCP.
    pub(crate) fn pair(profile: Profile, half: &Half) -> Result<(Self, Self), KeyError> {
        use Label::{RtcpAuthentication, RtcpEncryption, RtcpSalt, RtpAuthentication, RtpEncryption, RtpSalt};
        if !half.fits(profile) {
            return Err(KeyError::Length);
        }
        Ok(match profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => (
                Self::Gcm(Gcm::new(profile, half, RtpEncryption, RtpSalt)?),
                Self::Gcm(Gcm::new(profile, half, RtcpEncryption, RtcpSalt)?),
            ),
            Profile::Aes128CmHmacSha1_80 => (
                Self::Cm(Cm::new(half, RtpEncryption, RtpAuthentication, RtpSalt)),
                Self::Cm(Cm::new(half, RtcpEncryption, RtcpAuthentication, RtcpSalt)),
            ),
        })
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("profile", &self.profile).finish_non_exhaustive()
    }
}
