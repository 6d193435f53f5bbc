//! Sending any number of datagrams with few `sendmmsg` calls. One bad destination costs only its own datagram. Neighbours
//! that go to one destination leave in one piece where their sizes allow it (`UDP_SEGMENT`): for the kernel that is the
//! price of one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use crate::address::RawAddress;
use crate::fixed::Fixed;
use crate::socket::Socket;

/// A datagram to send, or a run of datagrams to one destination.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    pub to: SocketAddr,
    pub payload: &'a [u8],
    /// When set, `payload` is a run of datagrams of this size, of which only the last may be shorter. At most
    /// [`SEGMENTS_MAX`] of them go out in one piece; longer runs are sent one by one.
    pub segment_size: Option<u16>,
}

/// What happened to the datagrams of one [`SendBatch::send`]. Each datagram of a run counts.
#[derive(Debug, Default)]
pub struct SendReport {
    pub sent: usize,
    pub dropped: usize,
    pub syscalls: usize,
    /// Why the last dropped one was dropped.
    pub last_error: Option<io::Error>,
}

/// Message headers for a number of datagrams, used again for each call.
pub struct SendBatch {
    /// The headers point into the other slices.
    headers: Fixed<libc::mmsghdr>,
    /// Those of one header lie one behind the other.
    parts: Fixed<libc::iovec>,
    addresses: Fixed<RawAddress>,
    controls: Fixed<SegmentControl>,
    runs: Fixed<Run>,
    /// Cleared when the kernel or the network device turns out not to segment.
    has_gso: bool,
}

/// What one header stands for.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    to: Option<SocketAddr>,
    /// Datagrams.
    count: usize,
    bytes: usize,
    /// Of every datagram but the last.
    size: usize,
    /// Another datagram of at most `size` bytes may follow.
    is_open: bool,
}

/// What the kernel takes in one piece (`UDP_MAX_SEGMENTS` of the kernels before 6.9).
pub const SEGMENTS_MAX: usize = 64;

/// What an IPv4 datagram can carry, and so the most that one run may have.
const RUN_BYTES_MAX: usize = 65_507;

/// How long one call may wait for a full send queue, once. A shard that waits longer delays everybody's audio.
const QUEUE_WAIT_MS_MAX: libc::c_int = 1;

impl SendBatch {
    /// # Panics
    /// When `capacity` is zero.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a batch holds at least one datagram");
        // SAFETY: all are plain C structs for which all-zero is a valid value: null pointers and zero lengths.
        let (header, part, cmsg) = unsafe { std::mem::zeroed::<(libc::mmsghdr, libc::iovec, libc::cmsghdr)>() };
        let mut batch = Self {
            headers: Fixed::new(header, capacity),
            parts: Fixed::new(part, capacity),
            addresses: Fixed::new(RawAddress::EMPTY, capacity),
            controls: Fixed::new(SegmentControl::new(cmsg), capacity),
            runs: Fixed::new(Run::default(), capacity),
            has_gso: true,
        };
        for at in 0..capacity {
            let header = &mut batch.headers.get_mut(at).msg_hdr;
            header.msg_name = batch.addresses.pointer(at).cast();
        }
        batch
    }

    /// Hands all datagrams to the kernel, in order, without blocking longer than 1 ms in all.
    ///
    /// When the send queue is full it waits once for room, then drops what is left. A destination that the kernel
    /// refuses (unreachable, wrong family, too long) drops its own datagram only.
    pub fn send<'a>(&mut self, socket: &Socket, datagrams: impl IntoIterator<Item = Transmit<'a>>) -> SendReport {
        let mut report = SendReport::default();
        let mut may_wait = true;
        let mut datagrams = datagrams.into_iter();
        loop {
            let filled = self.fill(socket, &mut datagrams, &mut report);
            if filled == 0 {
                return report;
            }
            self.flush(socket, filled, &mut may_wait, &mut report);
        }
    }

    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Points the headers at the next datagrams; returns how many headers are in use. The pointers are used by the
    /// `flush` that follows only, while the payloads are still borrowed.
    fn fill<'a>(
        &mut self,
        socket: &Socket,
        datagrams: &mut impl Iterator<Item = Transmit<'a>>,
        report: &mut SendReport,
    ) -> usize {
        let mut headers = 0;
        // There is a part for each datagram, so there are headers enough.
        for part in 0..self.capacity() {
            let Some(datagram) = self.next_of_known_family(socket, datagrams, report) else { break };
            *self.parts.get_mut(part) = libc::iovec {
                iov_base: datagram.payload.as_ptr().cast_mut().cast(),
                iov_len: datagram.payload.len(),
            };
            if headers == 0 || !self.has_gso || !self.runs.get_mut(headers - 1).takes(&datagram) {
                self.open_run(socket, headers, part, &datagram);
                headers += 1;
            }
            let at = headers - 1;
            let run = *self.runs.get(at);
            let control = self.controls.pointer(at);
            let header = &mut self.headers.get_mut(at).msg_hdr;
            header.msg_iovlen += 1;
            if run.count > 1 {
                // A run is shorter than 2^16 bytes.
                self.controls.get_mut(at).size = run.size as u16;
                header.msg_control = control.cast();
                header.msg_controllen = size_of::<SegmentControl>() as _;
            }
        }
        headers
    }

    /// Drops what this socket can never send.
    fn next_of_known_family<'a>(
        &self,
        socket: &Socket,
        datagrams: &mut impl Iterator<Item = Transmit<'a>>,
        report: &mut SendReport,
    ) -> Option<Transmit<'a>> {
        datagrams.find(|datagram| {
            let fits = socket.is_ipv6() || datagram.to.is_ipv4();
            if !fits {
                report.drop_all(segments(datagram), io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
            }
            fits
        })
    }

    /// A header for a datagram that does not follow its neighbour. Its part is counted by the caller.
    fn open_run(&mut self, socket: &Socket, at: usize, part: usize, datagram: &Transmit<'_>) {
        let (address, address_len) =
            RawAddress::encode(datagram.to, socket.is_ipv6()).unwrap_or((RawAddress::EMPTY, 0));
        *self.addresses.get_mut(at) = address;
        *self.runs.get_mut(at) = Run::of(datagram);
        let parts = self.parts.pointer(part);
        let header = &mut self.headers.get_mut(at).msg_hdr;
        header.msg_namelen = address_len as libc::socklen_t;
        header.msg_iov = parts;
        header.msg_iovlen = 0;
        header.msg_control = std::ptr::null_mut();
        header.msg_controllen = 0;
    }

    fn flush(&mut self, socket: &Socket, filled: usize, may_wait: &mut bool, report: &mut SendReport) {
        let mut at = 0;
        while at < filled {
            if self.must_split(at) {
                self.send_segments(socket, at, may_wait, report);
                at += 1;
                continue;
            }
            let run = (at..filled).take_while(|&next| !self.must_split(next)).count();
            report.syscalls += 1;
            // SAFETY: the headers from `at` on, `run` of them, are owned by `self` and point to addresses, parts and
            // control messages that `self` owns and to payloads that the caller of `send` keeps borrowed.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.pointer(at),
                    run as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if let Ok(sent @ 1..) = usize::try_from(sent) {
                report.sent += (at..at + sent).map(|sent| self.runs.get(sent).count).sum::<usize>();
                at += sent;
                continue;
            }
            // It is the first one that was refused: those before it were reported as sent.
            let error = io::Error::last_os_error();
            match Refusal::of(&error) {
                Refusal::Interrupted => {}
                Refusal::QueueFull if *may_wait => {
                    *may_wait = false;
                    wait_for_room(socket);
                    report.syscalls += 1;
                }
                Refusal::QueueFull => {
                    report.drop_all((at..filled).map(|left| self.runs.get(left).count).sum(), error);
                    return;
                }
                Refusal::NoOffload | Refusal::Datagram if self.runs.get(at).count > 1 => {
                    self.has_gso &= error.raw_os_error() != Some(libc::EIO);
                    self.send_segments(socket, at, may_wait, report);
                    at += 1;
                }
                Refusal::NoOffload | Refusal::Datagram => {
                    report.drop_all(self.runs.get(at).count, error);
                    at += 1;
                }
            }
        }
    }

    /// Whether this run cannot go out in one piece.
    fn must_split(&self, at: usize) -> bool {
        let run = self.runs.get(at);
        run.count > 1 && (!self.has_gso || run.count > SEGMENTS_MAX || run.bytes > RUN_BYTES_MAX)
    }

    /// Sends the datagrams of one run by a call each.
    fn send_segments(&self, socket: &Socket, at: usize, may_wait: &mut bool, report: &mut SendReport) {
        let header = &self.headers.get(at).msg_hdr;
        let size = self.runs.get(at).size.max(1);
        for part in 0..header.msg_iovlen {
            // SAFETY: the header has so many parts, all of them inside `self.parts`.
            let part = unsafe { *header.msg_iov.add(part) };
            let mut offset = 0;
            while offset < part.iov_len {
                let len = size.min(part.iov_len - offset);
                report.syscalls += 1;
                // SAFETY: the part covers a payload that the caller of `send` keeps borrowed, and offset and length stay
                // inside it; the address is owned by `self`.
                let sent = unsafe {
                    libc::sendto(
                        socket.as_raw_fd(),
                        part.iov_base.cast::<u8>().add(offset).cast(),
                        len,
                        libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                        header.msg_name.cast(),
                        header.msg_namelen,
                    )
                };
                if sent >= 0 {
                    report.sent += 1;
                    offset += len;
                    continue;
                }
                let error = io::Error::last_os_error();
                match Refusal::of(&error) {
                    Refusal::Interrupted => {}
                    Refusal::QueueFull if *may_wait => {
                        *may_wait = false;
                        wait_for_room(socket);
                        report.syscalls += 1;
                    }
                    Refusal::QueueFull | Refusal::NoOffload | Refusal::Datagram => {
                        report.drop_all(1, error);
                        offset += len;
                    }
                }
            }
        }
    }
}

impl Run {
    fn of(datagram: &Transmit<'_>) -> Self {
        let (count, bytes) = (segments(datagram), datagram.payload.len());
        let size = if count > 1 { usize::from(datagram.segment_size.unwrap_or_default()) } else { bytes };
        // A run that was given as one is left as it is; an empty datagram has no size to repeat.
        Self { to: Some(datagram.to), count, bytes, size, is_open: count == 1 && bytes > 0 }
    }

    /// Takes the datagram in where it fits behind the others.
    #[inline]
    fn takes(&mut self, datagram: &Transmit<'_>) -> bool {
        let len = datagram.payload.len();
        let fits = self.is_open
            && datagram.segment_size.is_none()
            && (1..=self.size).contains(&len)
            && self.count < SEGMENTS_MAX
            && self.bytes + len <= RUN_BYTES_MAX
            && self.to == Some(datagram.to);
        if fits {
            self.count += 1;
            self.bytes += len;
            self.is_open = len == self.size;
        }
        fits
    }
}

// SAFETY: the headers hold pointers into slices that the batch owns and that move with it; the pointers to payloads
// are only followed inside `send`.
unsafe impl Send for SendBatch {}

impl SendReport {
    fn drop_all(&mut self, count: usize, error: io::Error) {
        self.dropped += count;
        self.last_error = Some(error);
    }
}

impl fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendBatch")
            .field("capacity", &self.capacity())
            .field("has_gso", &self.has_gso)
            .finish_non_exhaustive()
    }
}

/// The ancillary message `UDP_SEGMENT` (udp(7)).
#[derive(Clone, Copy)]
#[repr(C)]
struct SegmentControl {
    header: libc::cmsghdr,
    size: u16,
    _padding: [u8; 6],
}

impl SegmentControl {
    fn new(mut header: libc::cmsghdr) -> Self {
        header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _;
        header.cmsg_level = libc::SOL_UDP;
        header.cmsg_type = libc::UDP_SEGMENT;
        Self { header, size: 0, _padding: [0; 6] }
    }
}

/// What the kernel means by an error of a send call.
enum Refusal {
    Interrupted,
    QueueFull,
    /// The device cannot compute the checksums that segmentation needs.
    NoOffload,
    /// This datagram or its destination.
    Datagram,
}

impl Refusal {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EINTR) => Self::Interrupted,
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Self::QueueFull,
            Some(libc::EIO) => Self::NoOffload,
            _ => Self::Datagram,
        }
    }
}

/// How many datagrams this is on the wire.
fn segments(datagram: &Transmit<'_>) -> usize {
    match datagram.segment_size {
        Some(size @ 1..) => datagram.payload.len().div_ceil(usize::from(size)).max(1),
        Some(0) | None => 1,
    }
}

fn wait_for_room(socket: &Socket) {
    let mut descriptor = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one descriptor that lives through the call. The outcome does not matter: the caller tries again.
    unsafe { libc::poll(&mut descriptor, 1, QUEUE_WAIT_MS_MAX) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_control_is_laid_out_as_the_macros_say() {
        // SAFETY: the macros only compute sizes.
        let (len, space) = unsafe { (libc::CMSG_LEN(2), libc::CMSG_SPACE(2)) };
        // SAFETY: all-zero is a valid value of this plain C struct.
        let control = SegmentControl::new(unsafe { std::mem::zeroed() });
        assert_eq!(control.header.cmsg_len as usize, len as usize);
        assert_eq!(size_of::<SegmentControl>(), space as usize);
        assert_eq!(std::mem::offset_of!(SegmentControl, size), size_of::<libc::cmsghdr>());
    }

    #[test]
    fn runs_are_counted_by_segments() {
        let run = |len: usize, size| {
            segments(&Transmit { to: ([127, 0, 0, 1], 1).into(), payload: &vec![0; len], segment_size: size })
        };
        assert_eq!(run(0, None), 1);
        assert_eq!(run(0, Some(10)), 1);
        assert_eq!(run(10, Some(0)), 1);
        assert_eq!(run(10, Some(10)), 1);
        assert_eq!(run(11, Some(10)), 2);
    }

    #[test]
    fn neighbours_of_one_destination_make_a_run_that_only_the_last_may_shorten() {
        let bytes = [0; 40_000];
        let to =
            |port, len| Transmit { to: ([127, 0, 0, 1], port).into(), payload: &bytes[..len], segment_size: None };
        let counts = |datagrams: &[Transmit<'_>]| {
            let mut runs: Vec<Run> = Vec::new();
            for datagram in datagrams {
                if !runs.last_mut().is_some_and(|run| run.takes(datagram)) {
                    runs.push(Run::of(datagram));
                }
            }
            runs.iter().map(|run| run.count).collect::<Vec<_>>()
        };
        assert_eq!(counts(&[to(1, 9), to(1, 9), to(1, 5), to(1, 5)]), [3, 1]);
        assert_eq!(counts(&[to(1, 5), to(1, 9)]), [1, 1]);
        assert_eq!(counts(&[to(1, 9), to(2, 9), to(1, 9)]), [1, 1, 1]);
        assert_eq!(counts(&[to(1, 0), to(1, 0)]), [1, 1]);
        assert_eq!(counts(&[to(1, 40_000), to(1, 40_000)]), [1, 1]);
        assert_eq!(counts(&[to(1, 9); 65]), [64, 1]);
        let given = Transmit { segment_size: Some(4), ..to(1, 9) };
        assert_eq!(counts(&[to(1, 9), given, to(1, 3)]), [1, 3, 1]);
    }

    #[test]
    fn only_a_full_queue_makes_the_rest_wait() {
        let of = |errno| Refusal::of(&io::Error::from_raw_os_error(errno));
        assert!(matches!(of(libc::EAGAIN), Refusal::QueueFull));
        assert!(matches!(of(libc::ENOBUFS), Refusal::QueueFull));
        assert!(matches!(of(libc::EINTR), Refusal::Interrupted));
        for errno in [libc::EHOSTUNREACH, libc::ENETUNREACH, libc::ECONNREFUSED, libc::EMSGSIZE, libc::EPERM] {
            assert!(matches!(of(errno), Refusal::Datagram));
        }
    }
}
