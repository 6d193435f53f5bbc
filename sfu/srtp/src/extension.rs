//! Elements of the RTP header extension (RFC 8285): an iterator over both forms and a writer for the one-byte form.

/// Iterator over (id, value). It ends quietly where the block stops making sense: the packet is authentic, so a
/// broken element is the sender's mistake and costs only what follows it.
#[derive(Clone, Debug)]
pub struct Extensions<'p> {
    rest: &'p [u8],
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    OneByte,
    TwoByte,
}

impl<'p> Extensions<'p> {
    pub(crate) fn new(profile: u16, block: &'p [u8]) -> Self {
        match profile {
            ONE_BYTE_PROFILE => Self { rest: block, form: Form::OneByte },
            // The low four bits are application bits that mean nothing here (RFC 8285 section 4.3).
            0x1000..=0x100F => Self { rest: block, form: Form::TwoByte },
            _ => Self { rest: &[], form: Form::OneByte },
        }
    }
}

impl<'p> Iterator for Extensions<'p> {
    type Item = (u8, &'p [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            if first == PADDING {
                self.rest = rest;
                continue;
            }
            let (id, len, rest) = match self.form {
                Form::OneByte => (first >> 4, usize::from(first & 0x0F) + 1, rest),
                Form::TwoByte => {
                    let (&len, rest) = rest.split_first()?;
                    (first, usize::from(len), rest)
                }
            };
            // Id 15 ends a one-byte block (RFC 8285 section 4.2); id 0 with a length is not allowed there.
            let ends = matches!(self.form, Form::OneByte) && (id == ONE_BYTE_END || id == 0);
            if ends || rest.len() < len {
                self.rest = &[];
                return None;
            }
            let (value, rest) = rest.split_at(len);
            self.rest = rest;
            return Some((id, value));
        }
    }
}

/// An element does not fit the buffer or the one-byte form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("extension element does not fit")]
pub struct ExtensionsFull;

/// Writes an extension block in the one-byte form, its four-byte head included, at the start of a buffer.
#[derive(Debug)]
pub struct OneByteWriter<'b> {
    buf: &'b mut [u8],
    len: usize,
}

impl<'b> OneByteWriter<'b> {
    pub fn new(buf: &'b mut [u8]) -> Result<Self, ExtensionsFull> {
        let head = buf.first_chunk_mut::<4>().ok_or(ExtensionsFull)?;
        head[..2].copy_from_slice(&ONE_BYTE_PROFILE.to_be_bytes());
        Ok(Self { buf, len: 4 })
    }

    /// `id` is 1 to 14, `value` has 1 to 16 bytes (RFC 8285 section 4.2).
    pub fn push(&mut self, id: u8, value: &[u8]) -> Result<(), ExtensionsFull> {
        if !(1..ONE_BYTE_END).contains(&id) || !(1..=16).contains(&value.len()) {
            return Err(ExtensionsFull);
        }
        let end = self.len + 1 + value.len();
        let slot = self.buf.get_mut(self.len..end).ok_or(ExtensionsFull)?;
        slot[0] = id << 4 | (value.len() - 1) as u8;
        slot[1..].copy_from_slice(value);
        self.len = end;
        Ok(())
    }

    /// Pads to a whole word and returns the length of the block, head included. The X bit is the caller's to set.
    pub fn finish(self) -> Result<usize, ExtensionsFull> {
        let end = self.len.next_multiple_of(4);
        self.buf.get_mut(self.len..end).ok_or(ExtensionsFull)?.fill(PADDING);
        let words = u16::try_from((end - 4) / 4).map_err(|_| ExtensionsFull)?;
        self.buf[2..4].copy_from_slice(&words.to_be_bytes());
        Ok(end)
    }
}

const ONE_BYTE_PROFILE: u16 = 0xBEDE;
const ONE_BYTE_END: u8 = 15;
const PADDING: u8 = 0;
