//! The one thing that a forwarding node reads of an Opus packet: how long it plays, from its first two bytes (RFC 6716
//! section 3.1). It decodes no sound.

/// 120 ms (RFC 6716 section 3.4, R5), in units of 48 kHz.
const DURATION_MAX: u32 = 5_760;

/// What DTX sends for a stretch of silence is a table of contents and at most two bytes behind it (RFC 6716 section
/// 3.1, RFC 7587 section 3.1.3).
const DTX_BYTES_MAX: usize = 3;

/// How long a packet plays, in units of 48 kHz. Never 0 and never beyond what Opus allows, whatever the bytes.
#[inline]
pub(crate) fn duration(packet: &[u8]) -> u32 {
    let Some(&toc) = packet.first() else { return DURATION_MAX };
    let config = usize::from(toc >> 3);
    let frame: u32 = match config {
        0..=11 => [480, 960, 1_920, 2_880][config & 3],
        12..=15 => [480, 960][config & 1],
        _ => [120, 240, 480, 960][config & 3],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(1, |count| u32::from(count & 0x3f)),
    };
    (frame * frames).clamp(120, DURATION_MAX)
}

/// Whether the packet only says that nothing is to be heard.
#[inline]
pub(crate) fn is_silence(packet: &[u8]) -> bool {
    packet.len() <= DTX_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_comes_from_the_table_of_contents() {
        let ms = |packet: &[u8]| f64::from(duration(packet)) / 48.0;
        assert_eq!(ms(&[0x78]), 20.0, "hybrid, full band, one frame, as browsers send");
        assert_eq!(ms(&[0xe0]), 2.5, "the shortest");
        assert_eq!(ms(&[0xf9]), 40.0, "two frames of 20 ms");
        assert_eq!(ms(&[0x1b, 2]), 120.0, "two frames of 60 ms by count");
        assert_eq!(ms(&[0x1b, 63]), 120.0, "not longer than Opus allows");
        assert_eq!(ms(&[0xff, 0]), 2.5, "no frames at all");
        assert_eq!(ms(&[]), 120.0);
    }

    #[test]
    fn only_tiny_packets_are_silence() {
        assert!(is_silence(&[0x78]) && is_silence(&[0x78, 1, 2]));
        assert!(!is_silence(&[0x78, 1, 2, 3]));
    }
}
