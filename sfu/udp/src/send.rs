//! Sending any number of datagrams with few `sendmmsg` calls. One bad destination costs only its own datagram.

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
    /// The headers point into the other slices, from construction on.
    headers: Fixed<libc::mmsghdr>,
    parts: Fixed<libc::iovec>,
    addresses: Fixed<RawAddress>,
    controls: Fixed<SegmentControl>,
    /// How many datagrams each header stands for.
    counts: Fixed<usize>,
    /// Cleared when the kernel or the network device turns out not to segment.
    has_gso: bool,
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
            counts: Fixed::new(0, capacity),
            has_gso: true,
        };
        for at in 0..capacity {
            let header = &mut batch.headers.get_mut(at).msg_hdr;
            header.msg_name = batch.addresses.pointer(at).cast();
            header.msg_iov = batch.parts.pointer(at);
            header.msg_iovlen = 1;
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
        let mut at = 0;
        while at < self.capacity() {
            let Some(datagram) = datagrams.next() else { break };
            let count = segments(&datagram);
            let Some((address, address_len)) = RawAddress::encode(datagram.to, socket.is_ipv6()) else {
                report.drop_all(count, io::Error::from_raw_os_error(libc::EAFNOSUPPORT));
                continue;
            };
            *self.addresses.get_mut(at) = address;
            *self.counts.get_mut(at) = count;
            *self.parts.get_mut(at) = libc::iovec {
                iov_base: datagram.payload.as_ptr().cast_mut().cast(),
                iov_len: datagram.payload.len(),
            };
            let control = self.controls.pointer(at);
            let header = &mut self.headers.get_mut(at).msg_hdr;
            header.msg_namelen = address_len as libc::socklen_t;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            if count > 1 {
                // More than one segment implies a size.
                self.controls.get_mut(at).size = datagram.segment_size.unwrap_or_default();
                header.msg_control = control.cast();
                header.msg_controllen = size_of::<SegmentControl>() as _;
            }
            at += 1;
        }
        at
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
                report.sent += (at..at + sent).map(|sent| *self.counts.get(sent)).sum::<usize>();
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
                    report.drop_all((at..filled).map(|left| *self.counts.get(left)).sum(), error);
                    return;
                }
                Refusal::NoOffload | Refusal::Datagram if *self.counts.get(at) > 1 => {
                    self.has_gso &= error.raw_os_error() != Some(libc::EIO);
                    self.send_segments(socket, at, may_wait, report);
                    at += 1;
                }
                Refusal::NoOffload | Refusal::Datagram => {
                    report.drop_all(*self.counts.get(at), error);
                    at += 1;
                }
            }
        }
    }

    /// Whether this run cannot go out in one piece.
    fn must_split(&self, at: usize) -> bool {
        let count = *self.counts.get(at);
        count > 1 && (!self.has_gso || count > SEGMENTS_MAX || self.parts.get(at).iov_len > RUN_BYTES_MAX)
    }

    /// Sends the datagrams of one run by a call each.
    fn send_segments(&self, socket: &Socket, at: usize, may_wait: &mut bool, report: &mut SendReport) {
        let header = &self.headers.get(at).msg_hdr;
        let run = self.parts.get(at);
        let size = usize::from(self.controls.get(at).size);
        let mut offset = 0;
        while offset < run.iov_len {
            let len = size.min(run.iov_len - offset);
            report.syscalls += 1;
            // SAFETY: the part covers a payload that the caller of `send` keeps borrowed, and offset and length stay
            // inside it; the address is owned by `self`.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    run.iov_base.cast::<u8>().add(offset).cast(),
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
