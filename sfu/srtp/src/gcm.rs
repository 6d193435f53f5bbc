//! AEAD_AES_128_GCM and AEAD_AES_256_GCM (RFC 7714): nonce, associated data and the place of the tag.
//! No replay protection here. The key lies inside of [`Gcm`], expanded and used where it is: whoever goes through the
//! listeners of a room meets each of their keys once, in memory that nothing has warmed.

use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::error::Unspecified;

use crate::kdf::{Label, derive};
use crate::keys::{Half, KeyError, Profile};
use crate::{RTCP_CLEAR_BYTES, RTCP_ENCRYPTED, RTCP_INDEX_BYTES};

pub(crate) const TAG_BYTES: usize = 16;

/// The session key of one direction, for either RTP or RTCP.
pub(crate) struct Gcm {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Gcm {
    pub(crate) fn new(profile: Profile, master: &Half, key: Label, salt: Label) -> Result<Self, KeyError> {
        let mut session = zeroize::Zeroizing::new([0; 32]);
        let session_key = &mut session[..profile.key_len()];
        derive(master, key, session_key);
        let mut session_salt = [0; 12];
        derive(master, salt, &mut session_salt);
        Self::from_session(session_key, session_salt)
    }

    /// The key is of 16 or 32 bytes.
    pub(crate) fn from_session(key: &[u8], salt: [u8; 12]) -> Result<Self, KeyError> {
        let algorithm = if key.len() == 32 { &AES_256_GCM } else { &AES_128_GCM };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(|_| KeyError::Refused)?);
        Ok(Self { key, salt })
    }

    /// `packet` is header, payload and room for the tag.
    pub(crate) fn seal_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Unspecified> {
        let (header, rest) = packet.split_at_mut(header_len);
        let (payload, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        let sealed =
            self.key.seal_in_place_separate_tag(self.rtp_nonce(ssrc, index), Aad::from(&*header), payload)?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// `packet` is header, ciphertext and tag.
    pub(crate) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), Unspecified> {
        let (header, rest) = packet.split_at_mut(header_len);
        self.key.open_in_place(self.rtp_nonce(ssrc, index), Aad::from(&*header), rest)?;
        Ok(())
    }

    /// `packet` is the RTCP packet and room for tag and index word (RFC 7714 section 9.2).
    pub(crate) fn seal_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) -> Result<(), Unspecified> {
        let word = (RTCP_ENCRYPTED | index).to_be_bytes();
        let (sealed, tail) = packet.split_at_mut(packet.len() - RTCP_INDEX_BYTES);
        tail.copy_from_slice(&word);
        let (clear, rest) = sealed.split_at_mut(RTCP_CLEAR_BYTES);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        let sealed =
            self.key.seal_in_place_separate_tag(self.rtcp_nonce(ssrc, index), rtcp_aad(clear, word), body)?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// `packet` is the whole SRTCP packet whose last word is `word`. With E = 0 nothing is encrypted and all of it is
    /// associated data (RFC 7714 section 9.3).
    pub(crate) fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, word: u32) -> Result<(), Unspecified> {
        let nonce = self.rtcp_nonce(ssrc, word & !RTCP_ENCRYPTED);
        let sealed_end = packet.len() - RTCP_INDEX_BYTES;
        if word & RTCP_ENCRYPTED != 0 {
            let (clear, rest) = packet[..sealed_end].split_at_mut(RTCP_CLEAR_BYTES);
            self.key.open_in_place(nonce, rtcp_aad(clear, word.to_be_bytes()), rest)?;
            return Ok(());
        }
        let body_end = sealed_end - TAG_BYTES;
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&packet[body_end..sealed_end]);
        // The associated data must be contiguous: the word takes the place of the tag.
        packet[body_end..body_end + RTCP_INDEX_BYTES].copy_from_slice(&word.to_be_bytes());
        self.key.open_in_place(nonce, Aad::from(&packet[..body_end + RTCP_INDEX_BYTES]), &mut tag)?;
        Ok(())
    }

    /// RFC 7714 section 8.1: two zero bytes, SSRC, ROC, SEQ, XORed with the salt.
    fn rtp_nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut nonce = [0; 12];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[6..].copy_from_slice(&index.to_be_bytes()[2..]);
        self.salted(nonce)
    }

    /// RFC 7714 section 9.1: two zero bytes, SSRC, two zero bytes, index, XORed with the salt.
    fn rtcp_nonce(&self, ssrc: u32, index: u32) -> Nonce {
        let mut nonce = [0; 12];
        nonce[2..6].copy_from_slice(&ssrc.to_be_bytes());
        nonce[8..].copy_from_slice(&index.to_be_bytes());
        self.salted(nonce)
    }

    fn salted(&self, mut nonce: [u8; 12]) -> Nonce {
        for (byte, salt) in nonce.iter_mut().zip(self.salt) {
            *byte ^= salt;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// First eight bytes of the packet, then the index word (RFC 7714 section 9.2).
fn rtcp_aad(clear: &[u8], word: [u8; 4]) -> Aad<[u8; 12]> {
    let mut aad = [0; 12];
    aad[..RTCP_CLEAR_BYTES].copy_from_slice(clear);
    aad[RTCP_CLEAR_BYTES..].copy_from_slice(&word);
    Aad::from(aad)
}
