//! Waiting for sockets, a deadline or another thread: `epoll` and an `eventfd`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Waits for registered descriptors to become readable and for its [`Waker`]s.
pub struct Poller {
    epoll: OwnedFd,
    signal: Arc<Signal>,
    events: [libc::epoll_event; EVENTS_MAX],
}

/// Ends a [`Poller::wait`] from any thread. Wakes that nobody waited for are kept, as one.
#[derive(Clone)]
pub struct Waker {
    signal: Arc<Signal>,
}

/// What [`Poller::wait`] found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready {
    tokens: [u64; EVENTS_MAX],
    len: usize,
    woken: bool,
}

struct Signal {
    event: File,
    /// Set between a wake and the wait that takes it, so that a burst of wakes costs one system call.
    pending: AtomicBool,
}

/// A shard waits for its UDP socket and its waker, a relay for the sockets of all its allocations; what does not fit is
/// served in turns.
const EVENTS_MAX: usize = 32;

/// The token of the waker; [`Poller::add`] refuses it.
const WAKER_TOKEN: u64 = u64::MAX;

impl Poller {
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: takes no pointers.
        let event = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        let signal = Arc::new(Signal { event: File::from(event), pending: AtomicBool::new(false) });
        let poller = Self { epoll, signal, events: [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX] };
        poller.register(&poller.signal.event, WAKER_TOKEN)?;
        Ok(poller)
    }

    /// Reports `token` whenever there is something to read. A closed descriptor unregisters itself.
    pub fn add(&self, descriptor: &impl AsFd, token: u64) -> io::Result<()> {
        if token == WAKER_TOKEN {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        self.register(descriptor, token)
    }

    /// Reports nothing more of a descriptor that stays open: it goes to another poller.
    pub fn remove(&self, descriptor: &impl AsFd) -> io::Result<()> {
        // SAFETY: the kernel does not look at the event of a removal, and takes a null pointer.
        let done = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_DEL,
                descriptor.as_fd().as_raw_fd(),
                std::ptr::null_mut(),
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reports the token of a registered descriptor also when it takes more to write, or no longer.
    pub fn watch_writes(&self, descriptor: &impl AsFd, token: u64, on: bool) -> io::Result<()> {
        let writes = if on { libc::EPOLLOUT } else { 0 };
        self.control(libc::EPOLL_CTL_MOD, descriptor, libc::EPOLLIN | writes, token)
    }

    pub fn waker(&self) -> Waker {
        Waker { signal: Arc::clone(&self.signal) }
    }

    /// Blocks until something is ready, a waker was used, or the time is over (`None`: no limit). Zero only looks.
    /// Times are rounded up to milliseconds, so that a deadline has passed when the wait for it ends. A signal ends
    /// the wait with nothing ready.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Ready> {
        let timeout_ms = timeout.map_or(-1, |timeout| {
            let ms = timeout.as_nanos().div_ceil(1_000_000);
            libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX)
        });
        // SAFETY: the events are owned by `self`, borrowed exclusively, and their number is given.
        let found = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), EVENTS_MAX as libc::c_int, timeout_ms)
        };
        let mut ready = Ready::default();
        let Ok(found) = usize::try_from(found) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(ready) } else { Err(error) };
        };
        for event in &self.events[..found] {
            if event.u64 == WAKER_TOKEN {
                self.signal.take();
                ready.woken = true;
            } else {
                ready.tokens[ready.len] = event.u64;
                ready.len += 1;
            }
        }
        Ok(ready)
    }

    fn register(&self, descriptor: &impl AsFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, libc::EPOLLIN, token)
    }

    fn control(
        &self,
        operation: libc::c_int,
        descriptor: &impl AsFd,
        events: libc::c_int,
        token: u64,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: the event lives through the call.
        let done =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, descriptor.as_fd().as_raw_fd(), &mut event) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Waker {
    pub fn wake(&self) {
        if !self.signal.pending.swap(true, Ordering::SeqCst) {
            // Fails only when the counter is full, and then the wait ends anyway.
            let _ = (&self.signal.event).write(&1_u64.to_ne_bytes());
        }
    }
}

impl Signal {
    /// Empties the counter first and clears the flag then: a wake in between is taken as part of this one, and what
    /// its caller queued is found when the queues are read after the wait. The other order would lose later wakes.
    fn take(&self) {
        let mut counter = [0; 8];
        let _ = (&self.event).read(&mut counter);
        self.pending.store(false, Ordering::SeqCst);
    }
}

impl Ready {
    /// Whether a waker was used since the wait before.
    pub fn is_woken(&self) -> bool {
        self.woken
    }

    pub fn contains(&self, token: u64) -> bool {
        self.tokens().contains(&token)
    }

    /// Whether more may be ready than one wait tells.
    pub fn is_full(&self) -> bool {
        self.len + usize::from(self.woken) == EVENTS_MAX
    }

    pub fn tokens(&self) -> &[u64] {
        &self.tokens[..self.len]
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}

/// The result of a call that opens a descriptor.
fn owned(opened: libc::c_int) -> io::Result<OwnedFd> {
    if opened < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller just opened it and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}
