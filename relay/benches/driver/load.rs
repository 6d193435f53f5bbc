//! Packets through the flows of clients and back from the echoing peer: at a pace, or each as soon as the last one is back.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use udp::{Options, Poller, RecvBatch, SendBatch, Socket, Transmit};

use super::turn::channel_data;

const BATCH: usize = 64;
/// What is on its way when the sending ends.
const LAST_WAIT: Duration = Duration::from_millis(300);
/// A lost packet of a closed loop is sent again after this.
const LOST_AFTER: Duration = Duration::from_millis(250);

/// Each load has a number, which its packets carry.
static LOADS: AtomicU32 = AtomicU32::new(0);

/// Sends back whatever comes, to where it came from.
pub struct Echo {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub sent: u64,
    pub received: u64,
    /// There and back.
    pub delays_us: Vec<u32>,
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.delays_us.extend(other.delays_us);
    }

    pub fn p99_us(&self) -> f64 {
        let mut sorted = self.delays_us.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1));
        f64::from(sorted.get(at).copied().unwrap_or(u32::MAX))
    }

    pub fn lost(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }

    /// Packets that the server surely took, in both directions: a lost one may have cost it nothing.
    pub fn relayed(&self) -> f64 {
        (2 * self.received) as f64
    }
}

impl Echo {
    pub fn start(address: SocketAddr) -> Self {
        let options = Options { recv_buffer: Some(8 << 20), send_buffer: Some(8 << 20), ..Options::default() };
        let socket = Socket::bind(address, options).expect("bound");
        let address = socket.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut received, mut sending) = (RecvBatch::new(BATCH, 2_048), SendBatch::new(BATCH));
            let mut poller = Poller::new().expect("a poller");
            poller.add(&socket, 0).expect("added");
            while !told.load(Ordering::Relaxed) {
                poller.wait(Some(Duration::from_millis(50))).expect("waited");
                while received.recv(&socket).expect("received") > 0 {
                    let back = received.iter_mut().map(|datagram| Transmit {
                        to: datagram.remote,
                        payload: datagram.data,
                        segment_size: None,
                    });
                    sending.send(&socket, back);
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The flows' sockets, ready to be driven.
pub struct Load<'a> {
    flows: Vec<&'a UdpSocket>,
    poller: Poller,
    message: [u8; 124],
    base: Instant,
    buf: [u8; 2_048],
    outcome: Outcome,
}

impl<'a> Load<'a> {
    pub fn new(flows: impl IntoIterator<Item = &'a UdpSocket>) -> Self {
        let flows = flows.into_iter().collect::<Vec<_>>();
        let poller = Poller::new().expect("a poller");
        for (at, flow) in flows.iter().enumerate() {
            flow.set_nonblocking(true).expect("set");
            poller.add(*flow, at as u64).expect("added");
        }
        let (mut message, base) = (channel_data(), Instant::now());
        message[12..16].copy_from_slice(&LOADS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        Self { flows, poller, message, base, buf: [0; 2_048], outcome: Outcome::default() }
    }

    /// Each flow sends that often; the flows take turns, so that the sum is even to a millisecond.
    pub fn paced(mut self, time: Duration, per_flow_s: u32) -> Outcome {
        let start = Instant::now();
        let interval = Duration::from_secs(1) / (per_flow_s * self.flows.len() as u32);
        let mut at = 0_u32;
        loop {
            let passed = start.elapsed();
            if passed >= time + LAST_WAIT {
                return self.done();
            }
            while passed < time && interval * at <= passed {
                self.send(at as usize % self.flows.len());
                at += 1;
            }
            let next = if passed < time { interval * at } else { time + LAST_WAIT };
            self.receive(next.saturating_sub(start.elapsed()), |_, _| {});
        }
    }

    /// Each flow has one packet on its way, always.
    pub fn closed(mut self, time: Duration) -> Outcome {
        let start = Instant::now();
        let mut sent_at = vec![start; self.flows.len()];
        (0..self.flows.len()).for_each(|at| self.send(at));
        while start.elapsed() < time {
            self.receive(Duration::from_millis(20), |load, at| {
                load.send(at);
                sent_at[at] = Instant::now();
            });
            for (at, sent) in sent_at.iter_mut().enumerate().filter(|(_, sent)| sent.elapsed() > LOST_AFTER) {
                self.send(at);
                *sent = Instant::now();
            }
        }
        self.done()
    }

    fn send(&mut self, at: usize) {
        let now = self.base.elapsed().as_nanos() as u64;
        self.message[4..12].copy_from_slice(&now.to_be_bytes());
        // A full queue is the server's loss: it is counted as sent.
        let _ = self.flows[at].send(&self.message);
        self.outcome.sent += 1;
    }

    fn receive(&mut self, wait: Duration, mut on_packet: impl FnMut(&mut Self, usize)) {
        let ready = self.poller.wait(Some(wait)).expect("waited");
        for token in ready.tokens() {
            let at = *token as usize;
            // Late answers of the set-up are no packets.
            let Ok(len) = self.flows[at].recv(&mut self.buf) else { continue };
            let Some(sent) = self.buf[..len].get(4..12).filter(|_| self.buf[0] == 0x40 && len == 124) else {
                continue;
            };
            let sent = Duration::from_nanos(u64::from_be_bytes(sent.try_into().expect("eight bytes")));
            // Of an earlier load over the same flows.
            if self.buf[12..16] != self.message[12..16] {
                continue;
            }
            self.outcome.delays_us.push((self.base.elapsed() - sent).as_micros() as u32);
            self.outcome.received += 1;
            on_packet(self, at);
        }
    }

    fn done(self) -> Outcome {
        self.outcome
    }
}
