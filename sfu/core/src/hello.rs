//! A look at the first datagram of a DTLS client, before a version is chosen: which SRTP profile does it name first? It
//! decides nothing about trust: the handshake reads and authenticates the same bytes again.

use srtp::Profile;

/// What a datagram says of the client's wishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hello {
    /// Not the beginning of a handshake.
    Other,
    /// A ClientHello, or a part of one, in which no known profile was found.
    Unclear,
    /// The first profile that we know, in the order of the client.
    First(Profile),
}

const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// RFC 5764 section 4.1.1.
const EXTENSION_USE_SRTP: u16 = 14;

/// Reads the first record of a datagram (RFC 6347 sections 4.1 and 4.2.2).
pub(crate) fn read(datagram: &[u8]) -> Hello {
    let mut record = Reader(datagram);
    if record.u8() != Some(RECORD_HANDSHAKE) {
        return Hello::Other;
    }
    // Version, epoch, sequence number.
    let Some(mut message) = record.skip(2 + 2 + 6).and_then(|()| record.with_u16_length()) else {
        return Hello::Other;
    };
    if message.u8() != Some(CLIENT_HELLO) {
        return Hello::Other;
    }
    first_profile(&mut message).map_or(Hello::Unclear, Hello::First)
}

/// `None` also for a fragment: only the whole message is read.
fn first_profile(message: &mut Reader<'_>) -> Option<Profile> {
    let length = message.u24()?;
    message.skip(2)?;
    let (fragment_offset, fragment_length) = (message.u24()?, message.u24()?);
    if fragment_offset != 0 || fragment_length != length {
        return None;
    }
    // Version and random; then session, cookie, cipher suites, compression methods.
    message.skip(2 + 32)?;
    message.with_u8_length()?;
    message.with_u8_length()?;
    message.with_u16_length()?;
    message.with_u8_length()?;
    let mut extensions = message.with_u16_length()?;
    loop {
        let (kind, mut body) = (extensions.u16()?, extensions.with_u16_length()?);
        if kind == EXTENSION_USE_SRTP {
            let mut named = body.with_u16_length()?;
            return std::iter::from_fn(|| named.u16()).find_map(Profile::from_dtls_id);
        }
    }
}

/// Takes from the front; `None` where there is not enough.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u24(&mut self) -> Option<usize> {
        self.number(3)
    }

    fn with_u8_length(&mut self) -> Option<Self> {
        let length = self.number(1)?;
        self.take(length).map(Self)
    }

    fn with_u16_length(&mut self) -> Option<Self> {
        let length = self.number(2)?;
        self.take(length).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(profiles: &[u16]) -> Vec<u8> {
        let mut srtp = ((profiles.len() * 2) as u16).to_be_bytes().to_vec();
        srtp.extend(profiles.iter().flat_map(|id| id.to_be_bytes()));
        srtp.push(0);
        let mut extensions = vec![0, 23, 0, 0, 0, 14];
        extensions.extend((srtp.len() as u16).to_be_bytes());
        extensions.extend(srtp);
        let mut body = vec![0xfe, 0xfd];
        body.extend([7; 32]);
        body.extend([0, 2, 9, 9, 0, 2, 0xc0, 0x2b, 1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let length = (body.len() as u32).to_be_bytes();
        let mut message = vec![CLIENT_HELLO];
        message.extend(&length[1..]);
        message.extend([0, 0, 0, 0, 0]);
        message.extend(&length[1..]);
        message.extend(body);
        let mut datagram = vec![RECORD_HANDSHAKE, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        datagram.extend((message.len() as u16).to_be_bytes());
        datagram.extend(message);
        datagram
    }

    #[test]
    fn the_first_known_profile_counts() {
        assert_eq!(read(&hello(&[0x0001, 0x0008, 0x0007])), Hello::First(Profile::Aes128CmHmacSha1_80));
        assert_eq!(read(&hello(&[0x0002, 0x0007, 0x0001])), Hello::First(Profile::AeadAes128Gcm));
        assert_eq!(read(&hello(&[0x0002])), Hello::Unclear);
        assert_eq!(read(&hello(&[])), Hello::Unclear);
    }

    #[test]
    fn a_part_of_a_hello_is_unclear_and_anything_else_is_none() {
        let mut part = hello(&[0x0007]);
        part[13 + 10] += 1;
        assert_eq!(read(&part), Hello::Unclear, "a fragment that is shorter than its message");
        let mut server = hello(&[0x0007]);
        server[13] = 2;
        assert_eq!(read(&server), Hello::Other);
        assert_eq!(read(&[]), Hello::Other);
        assert_eq!(read(&[23; 40]), Hello::Other);
    }

    proptest! {
        #[test]
        fn a_cut_or_changed_hello_is_safe(cut in 0..120usize, at in 0..120usize, byte: u8) {
            let mut bytes = hello(&[0x0008, 0x0001]);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            _ = read(&bytes);
        }

        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = read(&bytes);
        }
    }
}
