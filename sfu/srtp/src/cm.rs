//! AES128_CM_HMAC_SHA1_80 (RFC 3711 sections 4.1.1 and 4.2.1): AES in counter mode, then HMAC-SHA1 cut to 80 bits.
//! No replay protection here.

use aes::Aes128Enc;
use aes::cipher::{KeyInit, StreamCipher};
use hmac::{Hmac, Mac};
use sha1::Sha1;

use crate::kdf::{Label, counter_mode, derive};
use crate::keys::Half;
use crate::{RTCP_CLEAR_BYTES, RTCP_ENCRYPTED, RTCP_INDEX_BYTES};

pub(crate) const TAG_BYTES: usize = 10;

/// Tag that does not belong to the packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrongTag;

/// The session keys of one direction, for either RTP or RTCP: schedule expanded and HMAC keyed once.
pub(crate) struct Cm {
    cipher: Aes128Enc,
    salt: [u8; 14],
    mac: Hmac<Sha1>,
}

impl Cm {
    pub(crate) fn new(master: &Half, key: Label, authentication: Label, salt: Label) -> Self {
        let mut session_key = zeroize::Zeroizing::new([0; 16]);
        derive(master, key, &mut *session_key);
        let mut mac_key = zeroize::Zeroizing::new([0; 20]);
        derive(master, authentication, &mut *mac_key);
        let mut session_salt = [0; 14];
        derive(master, salt, &mut session_salt);
        Self::from_session(&session_key, &mac_key, session_salt)
    }

    pub(crate) fn from_session(key: &[u8; 16], mac_key: &[u8; 20], salt: [u8; 14]) -> Self {
        Self {
            cipher: Aes128Enc::new(key.into()),
            salt,
            mac: <Hmac<Sha1> as Mac>::new_from_slice(mac_key).expect("HMAC takes keys of any length"),
        }
    }

    /// `packet` is header, payload and room for the tag.
    pub(crate) fn seal_rtp(&self, packet: &mut [u8], header_len: usize, ssrc: u32, index: u64) {
        let (sealed, tag) = packet.split_at_mut(packet.len() - TAG_BYTES);
        self.apply_keystream(&mut sealed[header_len..], ssrc, index);
        let mac = self.rtp_mac(sealed, index).finalize().into_bytes();
        tag.copy_from_slice(&mac[..TAG_BYTES]);
    }

    /// `packet` is header, ciphertext and tag.
    pub(crate) fn open_rtp(
        &self,
        packet: &mut [u8],
        header_len: usize,
        ssrc: u32,
        index: u64,
    ) -> Result<(), WrongTag> {
        let (sealed, tag) = packet.split_at_mut(packet.len() - TAG_BYTES);
        self.rtp_mac(sealed, index).verify_truncated_left(tag).map_err(|_| WrongTag)?;
        self.apply_keystream(&mut sealed[header_len..], ssrc, index);
        Ok(())
    }

    /// `packet` is the RTCP packet and room for index word and tag (RFC 3711 section 3.4).
    pub(crate) fn seal_rtcp(&self, packet: &mut [u8], ssrc: u32, index: u32) {
        let (covered, tag) = packet.split_at_mut(packet.len() - TAG_BYTES);
        let (clear_and_body, word) = covered.split_at_mut(covered.len() - RTCP_INDEX_BYTES);
        self.apply_keystream(&mut clear_and_body[RTCP_CLEAR_BYTES..], ssrc, index.into());
        word.copy_from_slice(&(RTCP_ENCRYPTED | index).to_be_bytes());
        let mut mac = self.mac.clone();
        mac.update(covered);
        tag.copy_from_slice(&mac.finalize().into_bytes()[..TAG_BYTES]);
    }

    /// `packet` is the whole SRTCP packet, whose index word is `word`. The tag covers the word, E bit included.
    pub(crate) fn open_rtcp(&self, packet: &mut [u8], ssrc: u32, word: u32) -> Result<(), WrongTag> {
        let (covered, tag) = packet.split_at_mut(packet.len() - TAG_BYTES);
        let mut mac = self.mac.clone();
        mac.update(covered);
        mac.verify_truncated_left(tag).map_err(|_| WrongTag)?;
        if word & RTCP_ENCRYPTED != 0 {
            let end = covered.len() - RTCP_INDEX_BYTES;
            let index = word & !RTCP_ENCRYPTED;
            self.apply_keystream(&mut covered[RTCP_CLEAR_BYTES..end], ssrc, index.into());
        }
        Ok(())
    }

    /// The rollover counter is authenticated but not sent (RFC 3711 section 4.2).
    fn rtp_mac(&self, covered: &[u8], index: u64) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        mac.update(covered);
        mac.update(&index.to_be_bytes()[2..6]);
        mac
    }

    /// RFC 3711 section 4.1.1: salt, SSRC and index are XORed above a 16-bit block counter.
    fn apply_keystream(&self, bytes: &mut [u8], ssrc: u32, index: u64) {
        let mut iv = [0; 16];
        iv[4..8].copy_from_slice(&ssrc.to_be_bytes());
        iv[8..14].copy_from_slice(&index.to_be_bytes()[2..]);
        for (byte, salt) in iv.iter_mut().zip(self.salt) {
            *byte ^= salt;
        }
        counter_mode(&self.cipher, &iv).apply_keystream(bytes);
    }
}
