//! One TCP connection of a peer: datagrams with a length before each (RFC 4571) in both directions, without blocking and
//! within fixed bounds. What a slow receiver has not taken is thrown away oldest first where it is media, since late audio
//! is of no use and the next packet is on its way; checks and handshakes are never thrown away for media. It does not
//! know what the datagrams mean.
//!
//! ```text
//! 0        2                2 + length
//! | length | datagram       | length ...      big endian
//! ```

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};

/// Nothing that a peer sends is longer: audio, checks, and handshake records cut to fit UDP.
const FRAME_BYTES_MAX: usize = 2_048;
/// Two of the longest, so that one read takes what an audio peer sends in a turn.
const INBOX_BYTES: usize = 2 * (LENGTH_BYTES + FRAME_BYTES_MAX);
const LENGTH_BYTES: usize = 2;
/// Media that may wait: 160 ms of eight voices, more than a jitter buffer would still want.
const MEDIA_WAITING_MAX: usize = 64;
/// Checks, handshake flights and the like that may wait. Nobody who reads lets so many come together.
const CONTROL_WAITING_MAX: usize = 32;
/// Frames in one system call.
const SLICES_MAX: usize = 64;

/// Why a connection is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By the peer, or by the network.
    Closed,
    /// A frame longer than any that we take: the framing is lost or was never meant.
    FrameTooLong,
    /// The peer reads nothing and goes on asking.
    NotReading,
}

#[derive(Debug)]
pub(super) struct Stream<S> {
    socket: S,
    inbox: Box<[u8]>,
    filled: usize,
    queue: VecDeque<Frame>,
    /// Buffers of frames that have gone out.
    spare: Vec<Vec<u8>>,
    /// Bytes of the first frame that are out already.
    written: usize,
    media_waiting: usize,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    is_media: bool,
}

impl<S: Read + Write> Stream<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket,
            inbox: vec![0; INBOX_BYTES].into(),
            filled: 0,
            queue: VecDeque::new(),
            spare: Vec::new(),
            written: 0,
            media_waiting: 0,
        }
    }

    pub(super) fn socket(&self) -> &S {
        &self.socket
    }

    /// Reads once and gives each whole datagram to `take`. Answers the bytes read.
    pub(super) fn receive(&mut self, mut take: impl FnMut(&mut [u8])) -> Result<usize, End> {
        let read = match self.socket.read(&mut self.inbox[self.filled..]) {
            Ok(0) => return Err(End::Closed),
            Ok(read) => read,
            Err(error) if is_passing(&error) => return Ok(0),
            Err(_) => return Err(End::Closed),
        };
        self.filled += read;
        let mut start = 0;
        while let Some((length, rest)) = self.inbox[start..self.filled].split_first_chunk_mut::<LENGTH_BYTES>() {
            let length = usize::from(u16::from_be_bytes(*length));
            if length > FRAME_BYTES_MAX {
                return Err(End::FrameTooLong);
            }
            let Some(datagram) = rest.get_mut(..length) else { break };
            if !datagram.is_empty() {
                take(datagram);
            }
            start += LENGTH_BYTES + length;
        }
        self.inbox.copy_within(start..self.filled, 0);
        self.filled -= start;
        Ok(read)
    }

    /// Lets a datagram wait for [`Stream::flush`]. Answers how many older ones were thrown away for it.
    pub(super) fn queue(&mut self, datagram: &[u8]) -> Result<usize, End> {
        let Ok(length) = u16::try_from(datagram.len()) else { return Ok(1) };
        let is_media = matches!(datagram.first(), Some(128..=191));
        let dropped = if is_media { self.make_room() } else { 0 };
        if !is_media && self.queue.len() - self.media_waiting >= CONTROL_WAITING_MAX {
            return Err(End::NotReading);
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(datagram);
        self.queue.push_back(Frame { bytes, is_media });
        self.media_waiting += usize::from(is_media);
        Ok(dropped)
    }

    /// Hands over what the kernel takes now. Answers whether that was all.
    pub(super) fn flush(&mut self) -> Result<bool, End> {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&self.queue) {
                let skip = if count == 0 { self.written } else { 0 };
                *slice = IoSlice::new(&frame.bytes[skip..]);
                count += 1;
            }
            match self.socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(End::Closed),
                Ok(written) => self.take_off(written),
                Err(error) if is_passing(&error) => return Ok(false),
                Err(_) => return Err(End::Closed),
            }
        }
        Ok(true)
    }

    /// A frame that has begun to go out must go on.
    fn make_room(&mut self) -> usize {
        if self.media_waiting < MEDIA_WAITING_MAX {
            return 0;
        }
        let begun = usize::from(self.written > 0);
        let oldest = self.queue.iter().skip(begun).position(|frame| frame.is_media);
        let Some(frame) = oldest.and_then(|oldest| self.queue.remove(begun + oldest)) else { return 0 };
        self.recycle(frame);
        1
    }

    fn take_off(&mut self, mut written: usize) {
        written += self.written;
        while let Some(frame) = self.queue.pop_front_if(|frame| frame.bytes.len() <= written) {
            written -= frame.bytes.len();
            self.recycle(frame);
        }
        self.written = written;
    }

    fn recycle(&mut self, mut frame: Frame) {
        self.media_waiting -= usize::from(frame.is_media);
        frame.bytes.clear();
        self.spare.push(frame.bytes);
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Plays back what a peer sends in the pieces given, and takes what it is told to.
    #[derive(Default)]
    struct Wire {
        incoming: VecDeque<Vec<u8>>,
        is_closed: bool,
        outgoing: Vec<u8>,
        takes: usize,
    }

    impl Read for Wire {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let Some(mut piece) = self.incoming.pop_front() else {
                return if self.is_closed { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
            };
            let count = piece.len().min(buf.len());
            buf[..count].copy_from_slice(&piece[..count]);
            if count < piece.len() {
                self.incoming.push_front(piece.split_off(count));
            }
            Ok(count)
        }
    }

    impl Write for Wire {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.takes == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = buf.len().min(self.takes);
            self.takes -= count;
            self.outgoing.extend_from_slice(&buf[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn framed(datagrams: &[Vec<u8>]) -> Vec<u8> {
        let frames = datagrams.iter().map(|datagram| [&(datagram.len() as u16).to_be_bytes()[..], datagram].concat());
        frames.collect::<Vec<_>>().concat()
    }

    fn media(n: u8) -> Vec<u8> {
        vec![0x80, n, 7, 7]
    }

    fn check(n: u8) -> Vec<u8> {
        vec![0, n]
    }

    /// Everything that arrives, until there is no more.
    fn drain(stream: &mut Stream<Wire>) -> (Vec<Vec<u8>>, Result<usize, End>) {
        let mut taken = Vec::new();
        loop {
            match stream.receive(|datagram| taken.push(datagram.to_vec())) {
                Ok(0) => return (taken, Ok(0)),
                Ok(_) => {}
                Err(end) => return (taken, Err(end)),
            }
        }
    }

    proptest! {
        #[test]
        fn datagrams_arrive_whole_however_they_are_cut(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..FRAME_BYTES_MAX), 0..20),
            piece in 1..9_000_usize,
        ) {
            let incoming = framed(&datagrams).chunks(piece).map(<[u8]>::to_vec).collect();
            let mut stream = Stream::new(Wire { incoming, ..Wire::default() });
            prop_assert_eq!(drain(&mut stream), (datagrams, Ok(0)));
        }

        #[test]
        fn noise_ends_or_is_taken_but_harms_nothing(noise in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let mut stream = Stream::new(Wire { incoming: [noise].into(), ..Wire::default() });
            prop_assert!(matches!(drain(&mut stream).1, Ok(0) | Err(End::FrameTooLong)));
        }

        #[test]
        fn frames_go_out_whole_however_the_kernel_takes_them(
            datagrams in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..30),
            takes in 1..100_usize,
        ) {
            let mut stream = Stream::new(Wire::default());
            for datagram in &datagrams {
                prop_assert_eq!(stream.queue(datagram), Ok(0));
            }
            loop {
                stream.socket.takes = takes;
                if stream.flush() == Ok(true) {
                    break;
                }
            }
            prop_assert_eq!(&stream.socket.outgoing, &framed(&datagrams));
        }
    }

    #[test]
    fn empty_frames_are_skipped_and_the_end_is_told() {
        let wire = Wire { incoming: [vec![0, 0, 0, 1, 9, 0, 0]].into(), is_closed: true, ..Wire::default() };
        assert_eq!(drain(&mut Stream::new(wire)), (vec![vec![9]], Err(End::Closed)));
    }

    #[test]
    fn a_frame_that_is_too_long_ends_the_connection_before_it_has_come() {
        let length = (FRAME_BYTES_MAX as u16 + 1).to_be_bytes();
        let mut stream = Stream::new(Wire { incoming: [length.to_vec()].into(), ..Wire::default() });
        assert_eq!(drain(&mut stream), (vec![], Err(End::FrameTooLong)));
    }

    #[test]
    fn the_oldest_media_gives_way_and_checks_stay() {
        let mut stream = Stream::new(Wire { takes: 3, ..Wire::default() });
        stream.queue(&media(0)).unwrap();
        stream.queue(&check(0)).unwrap();
        assert_eq!(stream.flush(), Ok(false), "the first frame is half out");
        for n in 1..=200 {
            let dropped = stream.queue(&media(n)).unwrap();
            assert_eq!(dropped, usize::from(usize::from(n) >= MEDIA_WAITING_MAX), "{n}");
        }
        stream.socket.takes = usize::MAX;
        assert_eq!(stream.flush(), Ok(true));
        let newest = 200 - MEDIA_WAITING_MAX as u8 + 2..=200;
        let expected: Vec<_> = [media(0), check(0)].into_iter().chain(newest.map(media)).collect();
        assert_eq!(stream.socket.outgoing, framed(&expected));
    }

    #[test]
    fn who_asks_without_reading_is_given_up() {
        let mut stream = Stream::new(Wire::default());
        for n in 0..CONTROL_WAITING_MAX {
            assert_eq!(stream.queue(&check(n as u8)), Ok(0));
        }
        assert_eq!(stream.queue(&media(0)), Ok(0));
        assert_eq!(stream.queue(&check(0)), Err(End::NotReading));
    }
}
