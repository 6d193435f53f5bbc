//! Session keys from master keys: AES-CM as a pseudo-random function (RFC 3711 section 4.3, RFC 6188 for 256 bits),
//! with a key derivation rate of zero, so once per context.

use aes::cipher::{InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use aes::{Aes128Enc, Aes256Enc};

use crate::keys::Half;

/// RFC 3711 section 4.3.1 and 4.3.2.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Label {
    RtpEncryption = 0x00,
    RtpAuthentication = 0x01,
    RtpSalt = 0x02,
    RtcpEncryption = 0x03,
    RtcpAuthentication = 0x04,
    RtcpSalt = 0x05,
}

/// Fills `out` with the session key of that label.
pub(crate) fn derive(master: &Half, label: Label, out: &mut [u8]) {
    // The 112-bit master salt, or the 96-bit one of RFC 7714 with 16 zero bits behind, is XORed with the label at
    // bits 55 to 48 and shifted left by 16 bits to leave room for the block counter.
    let mut iv = [0; 16];
    iv[..master.salt().len()].copy_from_slice(master.salt());
    iv[7] ^= label as u8;
    out.fill(0);
    // `Half` holds keys of 16 or 32 bytes only.
    match <&[u8; 16]>::try_from(master.key()) {
        Ok(key) => counter_mode(&Aes128Enc::new(key.into()), &iv).apply_keystream(out),
        Err(_) => {
            let mut key = [0; 32];
            key.copy_from_slice(master.key());
            counter_mode(&Aes256Enc::new(&key.into()), &iv).apply_keystream(out);
        }
    }
}

/// AES in counter mode over an expanded key, without copying the key schedule.
pub(crate) fn counter_mode<'k, C>(
    cipher: &'k C,
    iv: &[u8; 16],
) -> StreamCipherCoreWrapper<ctr::CtrCore<&'k C, ctr::flavors::Ctr128BE>>
where
    C: aes::cipher::BlockEncrypt
        + aes::cipher::BlockCipher
        + aes::cipher::BlockSizeUser<BlockSize = aes::cipher::consts::U16>,
{
    let core = ctr::CtrCore::inner_iv_init(cipher, iv.into());
    StreamCipherCoreWrapper::from_core(core)
}
