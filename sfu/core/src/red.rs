//! Redundant audio (RFC 2198), read side: finds the primary block inside a packet. Nothing is built here.

/// ```text
///  0                   1                   2                   3
///  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
/// |1|   block PT  |  timestamp offset         |   block length    |   one for each redundant block
/// |0|   block PT  |                                                   the primary block, last
/// ```
pub(crate) struct Primary<'a> {
    pub(crate) payload_type: u8,
    pub(crate) payload: &'a [u8],
}

/// More redundancy than anybody sends: browsers use 1 or 2, the draft for loss-adaptive RED up to 8.
const REDUNDANT_BLOCKS_MAX: usize = 16;

/// `None` when the blocks do not add up.
pub(crate) fn primary(payload: &[u8]) -> Option<Primary<'_>> {
    let mut rest = payload;
    let mut redundant_len = 0;
    for _ in 0..=REDUNDANT_BLOCKS_MAX {
        let (first, tail) = rest.split_first()?;
        if first & 0x80 == 0 {
            let payload = tail.get(redundant_len..)?;
            return Some(Primary { payload_type: *first, payload });
        }
        let header = rest.first_chunk::<4>()?;
        redundant_len += usize::from(u16::from_be_bytes([header[2] & 0x03, header[3]]));
        rest = &rest[4..];
    }
    None
}

/// How far back the oldest redundant block lies, in units of the timestamp; 0 without any, and for what is no RED.
pub(crate) fn reach(payload: &[u8]) -> u32 {
    let headers = payload.as_chunks::<4>().0.iter().take_while(|header| header[0] & 0x80 != 0);
    let offset = |header: &[u8; 4]| u32::from(u16::from_be_bytes([header[1], header[2]]) >> 2);
    headers.map(offset).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn primary_follows_the_redundant_blocks() {
        let two_blocks = [0x80 | 111, 0x0f, 0x00, 3, 111, 1, 2, 3, 9, 8];
        let found = primary(&two_blocks).unwrap();
        assert_eq!((found.payload_type, found.payload), (111, &[9, 8][..]));
        let alone = primary(&[111, 7]).unwrap();
        assert_eq!((alone.payload_type, alone.payload), (111, &[7][..]));
    }

    #[test]
    fn reach_is_the_largest_offset() {
        let two_blocks = [0x80 | 111, 0x1e, 0x00, 1];
        let one_more = [0x80 | 111, 0x0f, 0x00, 1, 111, 1, 2, 9];
        assert_eq!(reach(&[&two_blocks[..], &one_more[..]].concat()), 1_920);
        assert_eq!(reach(&one_more), 960);
        assert_eq!((reach(&[111, 1, 2, 3, 4]), reach(&[])), (0, 0));
    }

    #[test]
    fn blocks_that_do_not_add_up_are_refused() {
        assert!(primary(&[]).is_none());
        assert!(primary(&[0x80 | 111, 0, 0]).is_none(), "cut header");
        assert!(primary(&[0x80 | 111, 0, 0, 3]).is_none(), "no primary header");
        assert!(primary(&[0x80 | 111, 0, 0, 3, 111, 1, 2]).is_none(), "redundant block is longer than the packet");
        assert!(primary(&[0x80; 200]).is_none(), "headers without an end");
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(found) = primary(&bytes) {
                prop_assert!(found.payload.len() < bytes.len());
            }
        }
    }
}
