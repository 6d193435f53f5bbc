//! Receiving up to a batch of datagrams with one `recvmmsg`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::slice::ChunksMut;
use std::time::Duration;

use crate::address::RawAddress;
use crate::fixed::Fixed;
use crate::socket::Socket;

/// Buffers for a number of datagrams, filled by [`RecvBatch::recv`] and read by [`RecvBatch::iter_mut`].
pub struct RecvBatch {
    /// The headers point into the other slices, from construction on.
    headers: Fixed<libc::mmsghdr>,
    parts: Fixed<libc::iovec>,
    addresses: Fixed<RawAddress>,
    controls: Fixed<Control>,
    data: Fixed<u8>,
    datagram_bytes_max: usize,
    filled: usize,
    truncated: u64,
}

/// One received datagram, or a run of them from one peer when the kernel coalesced.
#[derive(Debug)]
pub struct Received<'b> {
    pub remote: SocketAddr,
    pub data: &'b mut [u8],
    /// When set, `data` is a run of datagrams of this size, of which only the last may be shorter.
    pub segment_size: Option<usize>,
    /// When the kernel took it in, on its wall clock; see [`Socket::ask_for_arrival_times`].
    pub arrived: Option<Duration>,
}

impl<'b> Received<'b> {
    /// The datagrams one by one. An empty datagram yields nothing.
    pub fn into_segments(self) -> ChunksMut<'b, u8> {
        let size = self.segment_size.unwrap_or(self.data.len()).max(1);
        self.data.chunks_mut(size)
    }
}

impl RecvBatch {
    /// # Panics
    /// When `capacity` or `datagram_bytes_max` is zero.
    pub fn new(capacity: usize, datagram_bytes_max: usize) -> Self {
        assert!(capacity > 0 && datagram_bytes_max > 0, "a batch holds at least one datagram of one byte");
        // SAFETY: both are plain C structs for which all-zero is a valid value: null pointers and zero lengths.
        let (header, part) = unsafe { std::mem::zeroed::<(libc::mmsghdr, libc::iovec)>() };
        let mut batch = Self {
            headers: Fixed::new(header, capacity),
            parts: Fixed::new(part, capacity),
            addresses: Fixed::new(RawAddress::EMPTY, capacity),
            controls: Fixed::new(Control([0; CONTROL_BYTES]), capacity),
            data: Fixed::new(0, capacity * datagram_bytes_max),
            datagram_bytes_max,
            filled: 0,
            truncated: 0,
        };
        for at in 0..capacity {
            *batch.parts.get_mut(at) = libc::iovec {
                iov_base: batch.data.pointer(at * datagram_bytes_max).cast(),
                iov_len: datagram_bytes_max,
            };
            let header = &mut batch.headers.get_mut(at).msg_hdr;
            header.msg_name = batch.addresses.pointer(at).cast();
            header.msg_iov = batch.parts.pointer(at);
            header.msg_iovlen = 1;
            header.msg_control = batch.controls.pointer(at).cast();
            batch.reset(at);
        }
        batch
    }

    /// Takes what waits in the socket, up to the capacity, and returns how many datagrams that were: zero when
    /// nothing waits, fewer than the capacity when the queue is empty now. What the batch held before is gone.
    pub fn recv(&mut self, socket: &Socket) -> io::Result<usize> {
        for at in 0..self.filled {
            self.reset(at);
        }
        self.filled = 0;
        // SAFETY: the headers and all they point to are owned by `self`, sized as they say, and borrowed exclusively
        // for the whole call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.pointer(0),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        match usize::try_from(received) {
            Ok(received) => {
                self.filled = received;
                Ok(received)
            }
            Err(_) => match io::Error::last_os_error() {
                error if is_passing(&error) => Ok(0),
                error => Err(error),
            },
        }
    }

    /// The datagrams of the last [`RecvBatch::recv`]. Those that did not fit their buffer are left out and counted.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = Received<'_>> {
        let Self { headers, addresses, data, datagram_bytes_max, filled, truncated, .. } = self;
        let (headers, addresses, stride) = (&*headers, &*addresses, *datagram_bytes_max);
        let data = data.as_mut_slice();
        (0..*filled).zip(data.chunks_exact_mut(stride)).filter_map(move |(at, data)| {
            let header = headers.get(at);
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                *truncated += 1;
                return None;
            }
            let remote = addresses.get(at).decode(header.msg_hdr.msg_namelen as usize)?;
            let data = data.get_mut(..header.msg_len as usize)?;
            let Ancillary { segment_size, arrived } = ancillary(&header.msg_hdr);
            let segment_size = segment_size.filter(|&size| size < data.len());
            Some(Received { remote, data, segment_size, arrived })
        })
    }

    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Datagrams dropped so far because they were longer than `datagram_bytes_max`.
    pub fn truncated(&self) -> u64 {
        self.truncated
    }

    /// The kernel shortened these to what it wrote.
    fn reset(&mut self, at: usize) {
        let header = self.headers.get_mut(at);
        header.msg_hdr.msg_namelen = RawAddress::BYTES as libc::socklen_t;
        header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
        header.msg_hdr.msg_flags = 0;
        header.msg_len = 0;
    }
}

// SAFETY: the headers hold pointers only into slices that the batch owns and that move with it.
unsafe impl Send for RecvBatch {}

impl fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBatch")
            .field("capacity", &self.capacity())
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

/// Room for two ancillary messages: the segment size of a coalesced run, a C int, and the time of arrival.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// `CMSG_SPACE(sizeof(int))` is 24 and that of a timespec 32 on 64-bit systems; the rest keeps an unasked message from
/// hiding them.
const CONTROL_BYTES: usize = 96;

#[derive(Default)]
struct Ancillary {
    segment_size: Option<usize>,
    arrived: Option<Duration>,
}

/// Nothing waits, a signal came, or an earlier send met an unreachable peer: none of them says anything about the
/// socket itself.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::EINTR
                | libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::ENOBUFS
        )
    )
}

fn ancillary(header: &libc::msghdr) -> Ancillary {
    let mut known = Ancillary::default();
    if header.msg_controllen == 0 {
        return known;
    }
    // SAFETY: the kernel filled the control buffer that `header` points to and set its length.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return pointers to whole headers inside the buffer, or null.
        let found = unsafe { &*message };
        if found.cmsg_level == libc::SOL_UDP && found.cmsg_type == libc::UDP_GRO {
            // SAFETY: this message carries one C int (udp(7)); its place in the buffer may be unaligned.
            let size = unsafe { libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned() };
            known.segment_size = usize::try_from(size).ok().filter(|&size| size > 0);
        } else if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_TIMESTAMPNS {
            // SAFETY: this message carries one timespec (socket(7), SO_TIMESTAMPNS); its place may be unaligned.
            let time = unsafe { libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned() };
            let parts = u64::try_from(time.tv_sec).ok().zip(u32::try_from(time.tv_nsec).ok());
            known.arrived = parts.map(|(seconds, nanos)| Duration::new(seconds, nanos));
        }
        // SAFETY: both belong to the same control buffer.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    known
}
