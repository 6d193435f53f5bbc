//! RTCP, plain text side: a strict reader of compounds (RFC 3550 section 6, reduced-size of RFC 5506 accepted) and a
//! writer of the few packets that a forwarding node sends. What the numbers mean is the business of `report`.

/// RFC 3550 section 12.1.
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// RFC 4585 section 6.1, and the one message of it that is about single packets.
const TRANSPORT_FEEDBACK: u8 = 205;
const GENERIC_NACK: usize = 1;
const CNAME: u8 = 1;

const BLOCK_BYTES: usize = 24;
const SENDER_INFO_BYTES: usize = 20;
/// SSRC of the sender, SSRC of the stream.
const FEEDBACK_BYTES: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SenderInfo {
    pub(crate) ssrc: u32,
    pub(crate) ntp: u64,
    pub(crate) rtp_timestamp: u32,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
}

/// RFC 3550 section 6.4.1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReportBlock {
    pub(crate) ssrc: u32,
    /// In 1/256.
    pub(crate) fraction_lost: u8,
    /// 24 bits, signed.
    pub(crate) cumulative_lost: i32,
    pub(crate) highest_sequence: u32,
    pub(crate) jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report.
    pub(crate) last_sr: u32,
    /// In 1/65536 s.
    pub(crate) delay_since_last_sr: u32,
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Item {
    Sender(SenderInfo),
    Block(ReportBlock),
    Goodbye {
        ssrc: u32,
    },
    /// Generic NACK (RFC 4585 section 6.2.1): this sequence number of our stream, and those behind it whose bit is set.
    Nack {
        ssrc: u32,
        sequence: u16,
        following: u16,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

/// Calls `each` for what it knows, after the whole compound has been checked: a malformed one has no effect at all.
pub(crate) fn read(compound: &[u8], mut each: impl FnMut(Item)) -> Result<(), Malformed> {
    let mut rest = compound;
    while !rest.is_empty() {
        rest = Packet::split(rest)?.1;
    }
    let mut rest = compound;
    while let Ok((packet, tail)) = Packet::split(rest) {
        packet.items(&mut each);
        rest = tail;
    }
    if compound.is_empty() { Err(Malformed) } else { Ok(()) }
}

/// One packet whose inner lengths have been checked.
struct Packet<'a> {
    kind: u8,
    count: usize,
    body: &'a [u8],
}

impl<'a> Packet<'a> {
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let header = bytes.first_chunk::<4>().ok_or(Malformed)?;
        let len = 4 + 4 * usize::from(u16::from_be_bytes([header[2], header[3]]));
        let (packet, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
        let (version, padded, kind) = (header[0] >> 6, header[0] & 0x20 != 0, header[1]);
        // RFC 5761 section 4: the range that tells RTCP from RTP.
        if version != 2 || !(192..=223).contains(&kind) || (padded && !rest.is_empty()) {
            return Err(Malformed);
        }
        let mut body = &packet[4..];
        if padded {
            let padding = usize::from(*body.last().ok_or(Malformed)?);
            if padding == 0 || !padding.is_multiple_of(4) {
                return Err(Malformed);
            }
            body = body.get(..body.len().checked_sub(padding).ok_or(Malformed)?).ok_or(Malformed)?;
        }
        let packet = Self { kind, count: usize::from(header[0] & 0x1f), body };
        if body.len() < packet.least() { Err(Malformed) } else { Ok((packet, rest)) }
    }

    /// Bytes that the count field promises.
    fn least(&self) -> usize {
        match self.kind {
            SENDER_REPORT => 4 + SENDER_INFO_BYTES + BLOCK_BYTES * self.count,
            RECEIVER_REPORT => 4 + BLOCK_BYTES * self.count,
            GOODBYE => 4 * self.count,
            TRANSPORT_FEEDBACK => FEEDBACK_BYTES,
            _ => 0,
        }
    }

    fn items(&self, each: &mut impl FnMut(Item)) {
        match self.kind {
            SENDER_REPORT => {
                each(Item::Sender(SenderInfo {
                    ssrc: word(self.body, 0),
                    ntp: u64::from(word(self.body, 4)) << 32 | u64::from(word(self.body, 8)),
                    rtp_timestamp: word(self.body, 12),
                    packets: word(self.body, 16),
                    octets: word(self.body, 20),
                }));
                self.blocks(4 + SENDER_INFO_BYTES, each);
            }
            RECEIVER_REPORT => self.blocks(4, each),
            GOODBYE => {
                for index in 0..self.count {
                    each(Item::Goodbye { ssrc: word(self.body, 4 * index) });
                }
            }
            TRANSPORT_FEEDBACK if self.count == GENERIC_NACK => {
                for lost in self.body.get(FEEDBACK_BYTES..).unwrap_or(&[]).chunks_exact(4) {
                    let lost = word(lost, 0);
                    each(Item::Nack {
                        ssrc: word(self.body, 4),
                        sequence: (lost >> 16) as u16,
                        following: lost as u16,
                    });
                }
            }
            _ => {}
        }
    }

    fn blocks(&self, start: usize, each: &mut impl FnMut(Item)) {
        for at in (start..).step_by(BLOCK_BYTES).take(self.count) {
            let lost = word(self.body, at + 4);
            each(Item::Block(ReportBlock {
                ssrc: word(self.body, at),
                fraction_lost: (lost >> 24) as u8,
                cumulative_lost: ((lost << 8) as i32) >> 8,
                highest_sequence: word(self.body, at + 8),
                jitter: word(self.body, at + 12),
                last_sr: word(self.body, at + 16),
                delay_since_last_sr: word(self.body, at + 20),
            }));
        }
    }
}

/// Total: bytes beyond the end read as zero, which `least` has excluded.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|chunk| chunk.first_chunk()).map_or(0, |chunk| u32::from_be_bytes(*chunk))
}

/// Appends packets to one compound. What does not fit is left out whole, and the writer says so.
pub(crate) struct Writer<'b> {
    buf: &'b mut [u8],
    len: usize,
}

impl<'b> Writer<'b> {
    pub(crate) fn new(buf: &'b mut [u8]) -> Self {
        Self { buf, len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn receiver_report(&mut self, ssrc: u32, blocks: &[ReportBlock]) -> bool {
        let blocks = &blocks[..blocks.len().min(31)];
        let Some(mut body) = self.packet(RECEIVER_REPORT, blocks.len(), 4 + BLOCK_BYTES * blocks.len()) else {
            return false;
        };
        body.put(ssrc);
        for block in blocks {
            body.block(block);
        }
        true
    }

    pub(crate) fn sender_report(&mut self, info: &SenderInfo) -> bool {
        let Some(mut body) = self.packet(SENDER_REPORT, 0, 4 + SENDER_INFO_BYTES) else { return false };
        body.put(info.ssrc);
        body.put((info.ntp >> 32) as u32);
        body.put(info.ntp as u32);
        body.put(info.rtp_timestamp);
        body.put(info.packets);
        body.put(info.octets);
        true
    }

    /// One chunk with a CNAME for each SSRC (RFC 3550 section 6.5).
    pub(crate) fn cname(&mut self, ssrcs: &[u32], cname: &[u8]) -> bool {
        let ssrcs = &ssrcs[..ssrcs.len().min(31)];
        // SSRC, type, length, text, at least one null, to a multiple of four.
        let chunk_len = (4 + 2 + cname.len() + 1).next_multiple_of(4);
        let Ok(text_len) = u8::try_from(cname.len()) else { return false };
        let Some(body) = self.packet(SOURCE_DESCRIPTION, ssrcs.len(), chunk_len * ssrcs.len()) else { return false };
        for (chunk, ssrc) in body.0.chunks_exact_mut(chunk_len).zip(ssrcs) {
            chunk.fill(0);
            chunk[..4].copy_from_slice(&ssrc.to_be_bytes());
            chunk[4..6].copy_from_slice(&[CNAME, text_len]);
            chunk[6..6 + cname.len()].copy_from_slice(cname);
        }
        true
    }

    fn packet(&mut self, kind: u8, count: usize, body_len: usize) -> Option<Body<'_>> {
        let packet = self.buf.get_mut(self.len..)?.get_mut(..4 + body_len)?;
        let (header, body) = packet.split_first_chunk_mut::<4>()?;
        let words = u16::try_from(body_len / 4).ok()?.to_be_bytes();
        *header = [0x80 | (count as u8 & 0x1f), kind, words[0], words[1]];
        self.len += 4 + body_len;
        Some(Body(body))
    }
}

struct Body<'b>(&'b mut [u8]);

impl Body<'_> {
    fn put(&mut self, value: u32) {
        if let Some((place, rest)) = std::mem::take(&mut self.0).split_first_chunk_mut::<4>() {
            *place = value.to_be_bytes();
            self.0 = rest;
        }
    }

    fn block(&mut self, block: &ReportBlock) {
        self.put(block.ssrc);
        self.put(u32::from(block.fraction_lost) << 24 | (block.cumulative_lost as u32 & 0x00ff_ffff));
        self.put(block.highest_sequence);
        self.put(block.jitter);
        self.put(block.last_sr);
        self.put(block.delay_since_last_sr);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(compound: &[u8]) -> Result<Vec<Item>, Malformed> {
        let mut items = Vec::new();
        read(compound, |item| items.push(item)).map(|()| items)
    }

    const BLOCK: ReportBlock = ReportBlock {
        ssrc: 7,
        fraction_lost: 12,
        cumulative_lost: -3,
        highest_sequence: 0x1_fffe,
        jitter: 40,
        last_sr: 9,
        delay_since_last_sr: 10,
    };
    const INFO: SenderInfo =
        SenderInfo { ssrc: 5, ntp: 0x0102_0304_0506_0708, rtp_timestamp: 6, packets: 7, octets: 8 };

    #[test]
    fn what_is_written_is_read_back() {
        let mut buf = [0; 400];
        let mut writer = Writer::new(&mut buf);
        assert!(writer.receiver_report(1, &[BLOCK]));
        assert!(writer.sender_report(&INFO));
        assert!(writer.cname(&[1, 5], b"node"));
        let len = writer.len();
        assert_eq!(items(&buf[..len]).unwrap(), [Item::Block(BLOCK), Item::Sender(INFO)]);
        assert_eq!(len, 32 + 28 + 4 + 2 * 12);
    }

    #[test]
    fn a_packet_that_does_not_fit_is_left_out_whole() {
        let mut buf = [0; 40];
        let mut writer = Writer::new(&mut buf);
        assert!(writer.receiver_report(1, &[BLOCK]));
        assert!(!writer.sender_report(&INFO));
        assert_eq!(writer.len(), 32);
    }

    #[test]
    fn one_bad_packet_spoils_the_compound() {
        let mut buf = [0; 100];
        let mut writer = Writer::new(&mut buf);
        writer.sender_report(&INFO);
        let good = writer.len();
        assert!(items(&buf[..good]).is_ok());
        assert_eq!(items(&buf[..good + 3]), Err(Malformed), "cut header behind");
        assert_eq!(items(&buf[..good - 1]), Err(Malformed), "cut body");
        let mut more_blocks = buf[..good].to_vec();
        more_blocks[0] |= 1;
        assert_eq!(items(&more_blocks), Err(Malformed), "count promises a block that is not there");
        let mut old_version = buf[..good].to_vec();
        old_version[0] &= 0x3f;
        assert_eq!(items(&old_version), Err(Malformed));
        assert_eq!(items(&[]), Err(Malformed));
    }

    #[test]
    fn padding_is_taken_off_the_last_packet_only() {
        let bye = [0x81, GOODBYE, 0, 1, 0, 0, 0, 9];
        let padded = [0xa1, GOODBYE, 0, 2, 0, 0, 0, 9, 0, 0, 0, 4];
        assert_eq!(items(&[bye, bye].concat()).unwrap().len(), 2);
        assert_eq!(items(&[&bye[..], &padded[..]].concat()).unwrap().len(), 2);
        assert_eq!(items(&[&padded[..], &bye[..]].concat()), Err(Malformed));
        assert_eq!(items(&[0xa1, GOODBYE, 0, 1, 0, 0, 0, 4]), Err(Malformed), "padding eats the source");
        assert_eq!(items(&[0xa1, GOODBYE, 0, 1, 0, 0, 0, 0]), Err(Malformed), "no padding in padding");
    }

    #[test]
    fn unknown_kinds_are_passed_over() {
        let congestion = [0x8f, 205, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 1];
        let picture_loss = [0x81, 206, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(items(&[&congestion[..], &picture_loss[..]].concat()).unwrap(), []);
    }

    #[test]
    fn each_entry_of_a_nack_is_read() {
        let nack = [0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 5, 0xff, 0xfe, 0x80, 0x01, 0, 7, 0, 0];
        let first = Item::Nack { ssrc: 5, sequence: 0xfffe, following: 0x8001 };
        assert_eq!(items(&nack).unwrap(), [first, Item::Nack { ssrc: 5, sequence: 7, following: 0 }]);
        let empty = [0x81, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 5];
        assert_eq!(items(&empty).unwrap(), []);
        let cut = [0x81, 205, 0, 1, 0, 0, 0, 1];
        assert_eq!(items(&cut), Err(Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = items(&bytes);
        }

        #[test]
        fn any_bytes_behind_a_likely_header_are_safe(
            count in 0u8..32, kind in 199u8..208, words in 0u8..40,
            body in proptest::collection::vec(any::<u8>(), 0..160),
        ) {
            let mut bytes = vec![0x80 | count, kind, 0, words];
            bytes.extend(body);
            let _ = items(&bytes);
        }
    }
}
