//! A non-blocking UDP socket with the options that batches need. Reading and writing is done by the batches.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::address::RawAddress;

/// How a socket is made. The default leaves all to the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Bytes of receive queue to ask for; see [`Socket::recv_buffer`] for what was given.
    pub recv_buffer: Option<usize>,
    /// Bytes of send queue to ask for; see [`Socket::send_buffer`].
    pub send_buffer: Option<usize>,
    /// Lets several sockets share the port; the kernel spreads flows over them.
    pub reuse_port: bool,
    /// Asks the kernel to hand runs of datagrams of one peer over as one; see [`Socket::has_gro`].
    pub gro: bool,
}

/// A bound UDP socket. One bound to `[::]` serves IPv4 as well.
pub struct Socket {
    inner: UdpSocket,
    is_ipv6: bool,
    has_gro: bool,
}

impl Socket {
    pub fn bind(address: SocketAddr, options: Options) -> io::Result<Self> {
        let is_ipv6 = address.is_ipv6();
        let domain = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::socket(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and nobody else owns it.
        let inner = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut socket = Self { inner, is_ipv6, has_gro: false };
        if is_ipv6 {
            let only_v6 = !address.ip().is_unspecified();
            socket.set_option(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only_v6.into())?;
        }
        if options.reuse_port {
            socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        if let Some(bytes) = options.recv_buffer {
            socket.set_buffer(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes)?;
        }
        if let Some(bytes) = options.send_buffer {
            socket.set_buffer(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes)?;
        }
        // Kernels before 5.0 do not know it; without it datagrams simply arrive one by one.
        socket.has_gro = options.gro && socket.set_option(libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        socket.bind_to(address)?;
        Ok(socket)
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// Whether the kernel agreed to coalesce; batches then need room for 65,535 bytes a datagram.
    pub fn has_gro(&self) -> bool {
        self.has_gro
    }

    /// Has the kernel note when each datagram came; [`Received::arrived`](crate::Received::arrived) tells. Costs some tens
    /// of nanoseconds a datagram.
    pub fn ask_for_arrival_times(&self) -> io::Result<()> {
        self.set_option(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
    }

    /// Bytes of receive queue. The kernel answers twice what was asked for, to count its own overhead, or less when
    /// `net.core.rmem_max` cut it and the process may not override that: compare and warn.
    pub fn recv_buffer(&self) -> io::Result<usize> {
        self.option(libc::SOL_SOCKET, libc::SO_RCVBUF)
    }

    /// Bytes of send queue, as [`Socket::recv_buffer`] with `net.core.wmem_max`.
    pub fn send_buffer(&self) -> io::Result<usize> {
        self.option(libc::SOL_SOCKET, libc::SO_SNDBUF)
    }

    pub(crate) fn is_ipv6(&self) -> bool {
        self.is_ipv6
    }

    fn bind_to(&self, address: SocketAddr) -> io::Result<()> {
        let (raw, len) = RawAddress::encode(address, self.is_ipv6).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: the address lives through the call and `len` is within it.
        let done = unsafe {
            libc::bind(self.as_raw_fd(), std::ptr::from_ref(&raw).cast::<libc::sockaddr>(), len as libc::socklen_t)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The forced form ignores the system-wide limit and needs CAP_NET_ADMIN.
    fn set_buffer(&self, forced: libc::c_int, plain: libc::c_int, bytes: usize) -> io::Result<()> {
        let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        self.set_option(libc::SOL_SOCKET, forced, value).or_else(|_| self.set_option(libc::SOL_SOCKET, plain, value))
    }

    fn set_option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        // SAFETY: the value lives through the call and its size is given.
        let done = unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                level,
                name,
                std::ptr::from_ref(&value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn option(&self, level: libc::c_int, name: libc::c_int) -> io::Result<usize> {
        let mut value: libc::c_int = 0;
        let mut len = size_of_val(&value) as libc::socklen_t;
        // SAFETY: value and length live through the call and `len` is the size of `value`.
        let done = unsafe {
            libc::getsockopt(self.as_raw_fd(), level, name, std::ptr::from_mut(&mut value).cast(), &mut len)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(value).unwrap_or(0)) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("fd", &self.as_raw_fd())
            .field("has_gro", &self.has_gro)
            .finish_non_exhaustive()
    }
}
