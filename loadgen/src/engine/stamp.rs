//! The stamp inside a payload: who sent it and when. The table-of-contents byte of Opus stays, what follows is overwritten:
//! nobody decodes these packets, and the sizes stay those of real speech. Packets too small for it (Opus DTX) go without.
//!
//! ```text
//! 0    toc
//! 1    magic (2)
//! 3    source (4)
//! 7    sent, nanoseconds of the generator's clock (8)
//! 15   milliseconds since the source became loud, 65535: not loud (2)
//! ```

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) source: u32,
    pub(super) sent_ns: u64,
    /// See [`super::talk`].
    pub(super) loud_for_ms: Option<u16>,
}

pub(super) const STAMPED_BYTES_MIN: usize = 17;
const MAGIC: u16 = 0xCA51;
const NOT_LOUD: u16 = u16::MAX;

impl Stamp {
    /// Whether it fitted.
    pub(super) fn write(&self, payload: &mut [u8]) -> bool {
        let Some(bytes) = payload.get_mut(1..STAMPED_BYTES_MIN) else { return false };
        bytes[0..2].copy_from_slice(&MAGIC.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.source.to_be_bytes());
        bytes[6..14].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes[14..16].copy_from_slice(&self.loud_for_ms.unwrap_or(NOT_LOUD).to_be_bytes());
        true
    }

    /// `None` when there is no stamp of ours.
    pub(super) fn read(payload: &[u8]) -> Option<Self> {
        let bytes = payload.get(1..STAMPED_BYTES_MIN)?;
        if bytes[0..2] != MAGIC.to_be_bytes() {
            return None;
        }
        let loud = u16::from_be_bytes([bytes[14], bytes[15]]);
        Some(Self {
            source: u32::from_be_bytes(bytes[2..6].try_into().ok()?),
            sent_ns: u64::from_be_bytes(bytes[6..14].try_into().ok()?),
            loud_for_ms: (loud != NOT_LOUD).then_some(loud),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_round_trip_and_leave_the_first_byte() {
        for loud_for_ms in [None, Some(0), Some(1234)] {
            let stamp = Stamp { source: 7, sent_ns: u64::MAX - 3, loud_for_ms };
            let mut payload = [0x78; 40];
            assert!(stamp.write(&mut payload));
            assert_eq!((payload[0], payload[17]), (0x78, 0x78));
            assert_eq!(Stamp::read(&payload), Some(stamp));
        }
    }

    #[test]
    fn what_is_small_or_foreign_has_none() {
        let stamp = Stamp { source: 7, sent_ns: 1, loud_for_ms: None };
        assert!(!stamp.write(&mut [0; STAMPED_BYTES_MIN - 1]));
        assert_eq!(Stamp::read(&[0; 40]), None);
        assert_eq!(Stamp::read(&[0xCA; 3]), None);
    }
}
