//! The receiving side of one direction: guess the index, refuse replays, authenticate, and only then remember.

use std::fmt;

use crate::header::RtpHeader;
use crate::keys::{Half, KeyError, Profile};
use crate::replay::{ReplayWindow, Verdict, guess_index};
use crate::sealer::Cipher;
use crate::{RTCP_CLEAR_BYTES, RTCP_ENCRYPTED, RTCP_INDEX_BYTES, ssrc_at};

/// Why a packet is dropped. All of these can be caused by anyone who can send us a datagram, except
/// [`OpenError::TooManySsrcs`] and [`OpenError::Unencrypted`], which name what an authentic peer did or would start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("packet is too short to carry a tag")]
    TooShort,
    #[error("packet was received before")]
    Replayed,
    #[error("packet is older than the replay window")]
    TooOld,
    #[error("authentication tag is wrong")]
    Unauthentic,
    #[error("peer uses more synchronisation sources than allowed")]
    TooManySsrcs,
    #[error("authentic rtcp packet is not encrypted")]
    Unencrypted,
}

/// An authentic RTP packet, now in clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Header and payload (padding included), without the tag.
    pub len: usize,
    /// Rollover counter and sequence number: `ROC << 16 | SEQ`.
    pub index: u64,
}

/// Opens RTP and RTCP with the session keys of one [`Half`].
pub struct Opener {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    rtp_streams: Streams,
    rtcp_streams: Streams,
}

impl Opener {
    /// `ssrcs_max` bounds the SSRCs remembered, for RTP and RTCP each. None is ever forgotten: that would allow its
    /// packets to be replayed.
    pub fn new(profile: Profile, half: &Half, ssrcs_max: usize) -> Result<Self, KeyError> {
        let (rtp, rtcp) = Cipher::pair(profile, half)?;
        Ok(Self {
            profile,
            rtp,
            rtcp,
            rtp_streams: Streams::with_capacity(ssrcs_max),
            rtcp_streams: Streams::with_capacity(ssrcs_max),
        })
    }

    /// Takes over an RTP stream whose highest packet had this rollover counter and sequence number; nothing up to it
    /// is accepted again. Ignored when the table is full.
    #[must_use]
    pub fn with_roc(mut self, ssrc: u32, roc: u32, sequence: u16) -> Self {
        let window = ReplayWindow::closed_up_to(u64::from(roc) << 16 | u64::from(sequence));
        match self.rtp_streams.find(ssrc) {
            Place::Known(at) => self.rtp_streams.windows[at] = window,
            Place::New => self.rtp_streams.add(ssrc, window),
            Place::Full => {}
        }
        self
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Opens a packet in place; `header` is the view of this very packet.
    pub fn open_rtp(&mut self, packet: &mut [u8], header: &RtpHeader) -> Result<Opened, OpenError> {
        let len = packet.len().checked_sub(self.profile.tag_len()).ok_or(OpenError::TooShort)?;
        if len < header.header_len {
            return Err(OpenError::TooShort);
        }
        let place = self.rtp_streams.find(header.ssrc);
        let index = match place {
            // RFC 3711 section 3.3.1: the rollover counter of a new stream is zero.
            Place::New => u64::from(header.sequence),
            Place::Known(at) => {
                let window = &self.rtp_streams.windows[at];
                let index = guess_index(window.highest(), header.sequence).ok_or(OpenError::TooOld)?;
                refuse_replay(window, index)?;
                index
            }
            Place::Full => return Err(OpenError::TooManySsrcs),
        };
        let authentic = match &self.rtp {
            Cipher::Gcm(gcm) => gcm.open_rtp(packet, header.header_len, header.ssrc, index).is_ok(),
            Cipher::Cm(cm) => cm.open_rtp(packet, header.header_len, header.ssrc, index).is_ok(),
        };
        if !authentic {
            return Err(OpenError::Unauthentic);
        }
        self.rtp_streams.accept(place, header.ssrc, index);
        Ok(Opened { len, index })
    }

    /// Opens a compound packet in place and returns its length without tag and index.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, OpenError> {
        let overhead = self.profile.tag_len() + RTCP_INDEX_BYTES;
        let len = packet.len().checked_sub(overhead).ok_or(OpenError::TooShort)?;
        if len < RTCP_CLEAR_BYTES {
            return Err(OpenError::TooShort);
        }
        let word_at = match &self.rtcp {
            Cipher::Gcm(_) => packet.len() - RTCP_INDEX_BYTES,
            Cipher::Cm(_) => len,
        };
        let ssrc = ssrc_at(packet, 4).ok_or(OpenError::TooShort)?;
        let word = ssrc_at(packet, word_at).ok_or(OpenError::TooShort)?;
        let index = u64::from(word & !RTCP_ENCRYPTED);
        let place = self.rtcp_streams.find(ssrc);
        match place {
            Place::New => {}
            Place::Known(at) => refuse_replay(&self.rtcp_streams.windows[at], index)?,
            Place::Full => return Err(OpenError::TooManySsrcs),
        }
        let authentic = match &self.rtcp {
            Cipher::Gcm(gcm) => gcm.open_rtcp(packet, ssrc, word).is_ok(),
            Cipher::Cm(cm) => cm.open_rtcp(packet, ssrc, word).is_ok(),
        };
        if !authentic {
            return Err(OpenError::Unauthentic);
        }
        self.rtcp_streams.accept(place, ssrc, index);
        if word & RTCP_ENCRYPTED == 0 { Err(OpenError::Unencrypted) } else { Ok(len) }
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("profile", &self.profile).finish_non_exhaustive()
    }
}

fn refuse_replay(window: &ReplayWindow, index: u64) -> Result<(), OpenError> {
    match window.check(index) {
        Verdict::Fresh => Ok(()),
        Verdict::Replayed => Err(OpenError::Replayed),
        Verdict::TooOld => Err(OpenError::TooOld),
    }
}

/// The SSRCs of a peer are a handful, so they are searched in order; the capacity is the bound.
struct Streams {
    ssrcs: Vec<u32>,
    windows: Vec<ReplayWindow>,
    max: usize,
}

#[derive(Clone, Copy)]
enum Place {
    Known(usize),
    New,
    Full,
}

impl Streams {
    fn with_capacity(max: usize) -> Self {
        Self { ssrcs: Vec::with_capacity(max), windows: Vec::with_capacity(max), max }
    }

    fn find(&self, ssrc: u32) -> Place {
        match self.ssrcs.iter().position(|&known| known == ssrc) {
            Some(at) => Place::Known(at),
            None if self.ssrcs.len() < self.max => Place::New,
            None => Place::Full,
        }
    }

    /// Only after the tag was verified.
    fn accept(&mut self, place: Place, ssrc: u32, index: u64) {
        match place {
            Place::Known(at) => self.windows[at].accept(index),
            Place::New => self.add(ssrc, ReplayWindow::starting_at(index)),
            Place::Full => {}
        }
    }

    fn add(&mut self, ssrc: u32, window: ReplayWindow) {
        self.ssrcs.push(ssrc);
        self.windows.push(window);
    }
}
