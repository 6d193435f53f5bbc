//! Batched UDP for Linux: `recvmmsg`, `sendmmsg`, segmentation offload both ways (`UDP_SEGMENT`, `UDP_GRO`), and a
//! poller with a waker. It is the only package of the project with unsafe code; its public API is safe.
//!
//! It knows nothing about what the datagrams carry, and it never blocks: only [`Poller::wait`] waits. Everything is
//! allocated when a batch or poller is made, nothing per datagram.

#![expect(unsafe_code, reason = "the system calls below have no safe wrapper in the standard library")]

mod address;
mod fixed;
mod poller;
mod priority;
mod recv;
mod send;
mod socket;

pub use poller::{Poller, Ready, Waker};
pub use priority::set_thread_priority;
pub use recv::{Received, RecvBatch};
pub use send::{SEGMENTS_MAX, SendBatch, SendReport, Transmit};
pub use socket::{Options, Socket};
