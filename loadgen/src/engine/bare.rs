//! The floor under a media node: a sender that does nothing but `sendmmsg`, in a process of its own, so that its CPU time can
//! be told apart. It sends what the node would send: for each packet of each publisher one datagram of the same size to each
//! hearer, as they fall due.
//!
//! The process is this program again (`loadgen bare-send`); it reads its [`Order`] from standard input and writes what it
//! [`Sent`] to standard output.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use udp::{Options, SendBatch, Socket, Transmit};

use super::process::Used;

/// What our node sends in one call at most.
const BATCH: usize = 256;
/// As the node's sockets have it.
const SEND_BUFFER_BYTES: usize = 4 << 20;
/// A packet of the node around an Opus payload: header with one CSRC, a level, the tag.
pub(super) const AROUND_PAYLOAD_BYTES: usize = 12 + 4 + 8 + 16;
/// In no plan.
const FIRST_SSRC: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub hearers: Vec<SocketAddr>,
    pub publishers: u32,
    pub frame_us: u64,
    /// Of the datagrams, in turn.
    pub sizes: Vec<usize>,
    pub seconds: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub datagrams: u64,
    pub dropped: u64,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
}

/// Sends until the time of the order is over.
pub fn send(order: &Order) -> io::Result<Sent> {
    let is_v4 = order.hearers.iter().all(SocketAddr::is_ipv4);
    let any: IpAddr = if is_v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let options = Options { send_buffer: Some(SEND_BUFFER_BYTES), ..Options::default() };
    let socket = Socket::bind(SocketAddr::new(any, 0), options)?;
    let mut batch = SendBatch::new(BATCH);
    let mut sent = Sent::default();
    let missing = || io::Error::other("CPU time of this process cannot be read");
    let before = Used::own().ok_or_else(missing)?;
    let (start, publishers) = (Instant::now(), u64::from(order.publishers.max(1)));
    let length = Duration::from_secs_f64(order.seconds);
    let step = Duration::from_micros((order.frame_us / publishers).max(1));
    let mut packet = [0; 1500];
    for n in 0_u64.. {
        // Publishers in turn, evenly over a frame, each on its own time.
        let due = step * u32::try_from(n).unwrap_or(u32::MAX);
        if due >= length {
            break;
        }
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let size = order.sizes.get(n as usize % order.sizes.len().max(1)).copied().unwrap_or(120);
        let len = size.clamp(12, packet.len());
        write_header(&mut packet, (n / publishers) as u16, FIRST_SSRC + (n % publishers) as u32);
        let datagrams =
            order.hearers.iter().map(|to| Transmit { to: *to, payload: &packet[..len], segment_size: None });
        let report = batch.send(&socket, datagrams);
        sent.datagrams += report.sent as u64;
        sent.dropped += report.dropped as u64;
    }
    let after = Used::own().ok_or_else(missing)?;
    (sent.cpu_user_s, sent.cpu_system_s) = (after.user_s - before.user_s, after.system_s - before.system_s);
    Ok(sent)
}

fn write_header(packet: &mut [u8], sequence: u16, ssrc: u32) {
    packet[0] = 0x80;
    packet[1] = 111;
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
}

/// Has a process of its own send, and waits for it.
pub(super) async fn send_apart(order: &Order) -> io::Result<Sent> {
    let program = std::env::current_exe()?;
    let mut child = tokio::process::Command::new(program)
        .arg("bare-send")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let text = serde_json::to_vec(order)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&text).await?;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        return Err(io::Error::other("the bare sender failed"));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hearer_gets_every_packet_at_its_time() {
        let hearer = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        let hearers = vec![hearer.local_addr().expect("bound"); 3];
        let order = Order { hearers, publishers: 2, frame_us: 20_000, sizes: vec![100, 140], seconds: 0.1 };
        let sent = send(&order).expect("sends");
        // Ten moments in a tenth of a second, three hearers.
        assert_eq!((sent.datagrams, sent.dropped), (30, 0));
        hearer.set_nonblocking(true).expect("sets");
        let mut buf = [0; 2000];
        let lens: Vec<usize> = std::iter::from_fn(|| hearer.recv(&mut buf).ok()).collect();
        assert_eq!(lens.len(), 30);
        assert_eq!((lens[0], lens[3]), (100, 140));
    }
}
