//! Cuts chunks of any size into frames of one size. The daemon delivers 2.5 ms blocks when a low-latency program plays
//! and two fragments at once when it was late, so a chunk never is a frame.

/// Interleaved samples in, frames of `frame_len` values out; keeps the rest for the next chunk.
#[derive(Debug)]
pub struct Reframer {
    frame_len: usize,
    rest: Vec<i16>,
}

impl Reframer {
    /// `frame_len` counts values of all channels and must not be zero.
    #[must_use]
    pub fn new(frame_len: usize) -> Self {
        assert!(frame_len > 0, "a frame has at least one sample");
        Self { frame_len, rest: Vec::with_capacity(frame_len) }
    }

    /// Calls `frame` for every complete frame, in order.
    pub fn push(&mut self, mut chunk: &[i16], mut frame: impl FnMut(&[i16])) {
        if !self.rest.is_empty() {
            let missing = (self.frame_len - self.rest.len()).min(chunk.len());
            self.rest.extend_from_slice(&chunk[..missing]);
            chunk = &chunk[missing..];
            if self.rest.len() < self.frame_len {
                return;
            }
            frame(&self.rest);
            self.rest.clear();
        }
        let frames = chunk.chunks_exact(self.frame_len);
        let rest = frames.remainder();
        frames.for_each(frame);
        self.rest.extend_from_slice(rest);
    }

    /// Cuts frames of another size from now on; `frame` gets those that the rest is enough for.
    pub fn set_frame_len(&mut self, frame_len: usize, frame: impl FnMut(&[i16])) {
        assert!(frame_len > 0, "a frame has at least one sample");
        self.frame_len = frame_len;
        let rest = std::mem::take(&mut self.rest);
        self.push(&rest, frame);
    }

    /// Values waiting for the rest of their frame.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.rest.len()
    }

    /// Forgets the incomplete frame and says how many values that were.
    pub fn clear(&mut self) -> usize {
        let dropped = self.rest.len();
        self.rest.clear();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn four_blocks_make_one_frame() {
        let mut reframer = Reframer::new(960);
        let mut frames = 0;
        for _ in 0..3 {
            reframer.push(&[1; 240], |_| frames += 1);
        }
        assert_eq!((frames, reframer.pending()), (0, 720));
        reframer.push(&[1; 240], |frame| {
            assert_eq!(frame.len(), 960);
            frames += 1;
        });
        assert_eq!((frames, reframer.pending()), (1, 0));
    }

    #[test]
    fn another_size_takes_the_rest_along() {
        let mut reframer = Reframer::new(960);
        reframer.push(&[1; 900], |_| unreachable!("too little for a frame"));
        let mut frames = 0;
        reframer.set_frame_len(480, |frame| {
            assert_eq!(frame.len(), 480);
            frames += 1;
        });
        assert_eq!((frames, reframer.pending()), (1, 420));
    }

    proptest! {
        #[test]
        fn no_sample_is_lost_or_moved(chunks in prop::collection::vec(0_usize..2500, 0..20), frame_len in 1_usize..1000) {
            let total: usize = chunks.iter().sum();
            let input: Vec<i16> = (0..total).map(|n| n as i16).collect();
            let mut reframer = Reframer::new(frame_len);
            let (mut output, mut at) = (Vec::new(), 0);
            for chunk in chunks {
                reframer.push(&input[at..at + chunk], |frame| output.extend_from_slice(frame));
                at += chunk;
            }
            prop_assert_eq!(output.len(), total / frame_len * frame_len);
            prop_assert_eq!(&output[..], &input[..output.len()]);
            prop_assert_eq!(reframer.pending(), total - output.len());
        }
    }
}
