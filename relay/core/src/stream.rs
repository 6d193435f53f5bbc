//! Where one message ends and the next begins on a stream (RFC 8656 section 12.5): both kinds say their length, and
//! channel data is padded to four bytes. It holds no bytes: the caller keeps what is not a whole message yet, which is
//! never more than one message.

use crate::channel_data;

/// The longest message on a stream: a header and what 16 bits can say, padded.
pub const STREAM_MESSAGE_BYTES_MAX: usize = 65_536 + 20;

/// What stands at the beginning of the bytes received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Less than one message; it is whole when there are this many bytes.
    Incomplete(usize),
    /// The first `message` bytes are one; the next one begins after `consumed`.
    Message { message: usize, consumed: usize },
}

/// Neither STUN nor channel data: the stream can never be in step again and has to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream carries something that is neither STUN nor channel data")]
pub struct NotFramed;

pub fn cut(bytes: &[u8]) -> Result<Cut, NotFramed> {
    let Some([first, _, length @ ..]) = bytes.first_chunk::<4>() else {
        return match bytes.first() {
            Some(0x80..) => Err(NotFramed),
            _ => Ok(Cut::Incomplete(4)),
        };
    };
    let length = usize::from(u16::from_be_bytes(*length));
    let (message, consumed) = match first {
        0x00..=0x3F if length.is_multiple_of(4) => {
            let message = stun::HEADER_BYTES + length;
            (message, message)
        }
        0x40..=0x7F => {
            let message = channel_data::HEADER_BYTES + length;
            (message, message.next_multiple_of(4))
        }
        _ => return Err(NotFramed),
    };
    // The cookie comes early, so that a stream of something else is not waited for.
    let cookie = stun::MAGIC_COOKIE.to_be_bytes();
    let is_stun = *first < 0x40;
    if is_stun && bytes[4..].iter().zip(cookie).any(|(byte, expected)| *byte != expected) {
        return Err(NotFramed);
    }
    Ok(if bytes.len() < consumed { Cut::Incomplete(consumed) } else { Cut::Message { message, consumed } })
}
