//! A flood of 100,000 requests without credentials from 20,000 ports while 50 flows run: how much memory the server keeps
//! of it, and what the flows lose; ours beside coturn. Prints one JSON object as its last line.

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod driver;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use driver::load::{Echo, Load, Outcome};
use driver::servers::{Kind, Running};
use driver::{CLIENT, PEER, STRANGER, figure, turn};

const ROUNDS: usize = 3;
const FLOWS: usize = 50;
const PER_FLOW_S: u32 = 50;
const REQUESTS: u32 = 100_000;
const PORTS: u32 = 20_000;
const REQUESTS_PER_S: u32 = 20_000;
/// Sockets that are open at the same time.
const WINDOW: u32 = 500;
const FIRST_PORT: u32 = 20_000;
const THREADS: u16 = 1;

fn main() {
    if UdpSocket::bind((CLIENT, 0)).is_err() {
        println!("Not measured: run it with tests/bench, which makes a network for it.");
        return;
    }
    let (mut growth, mut losses) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut order = [Kind::Relay, Kind::Coturn];
        order.rotate_left(round % 2);
        for (step, kind) in order.into_iter().enumerate() {
            let port = 10_000 + (round * 2 + step) as u16;
            let (grown_mib, answered, outcome) = flood(kind, port);
            let lost = outcome.lost().max(0.0) * 100.0;
            println!(
                "{kind:?}: grew by {grown_mib:.2} MiB, answered {answered} of {REQUESTS}, flows lost {lost:.4} % of {}, p99 {:.0} us",
                outcome.sent,
                outcome.p99_us()
            );
            if kind == Kind::Relay {
                growth.push(grown_mib);
                losses.push(lost);
            }
        }
    }
    let figures = [figure("rss_growth_mib", &growth), figure("loss_percent", &losses)];
    println!(r#"{{"rounds": {ROUNDS}, "figures": {{{}}}}}"#, figures.join(", "));
}

fn flood(kind: Kind, port: u16) -> (f64, u64, Outcome) {
    let echo = Echo::start((PEER, 0).into());
    let server = Running::start(kind, port, echo.address, THREADS);
    let flows = turn::allocate(CLIENT, server.address, FLOWS, Some(echo.address));
    Load::new(flows.iter().map(|flow| &flow.socket)).paced(Duration::from_secs(1), PER_FLOW_S);
    let before = server.rss_kib();
    let address = server.address;
    let stranger = std::thread::spawn(move || send_requests(address));
    let time = Duration::from_secs((REQUESTS / REQUESTS_PER_S + 2).into());
    let outcome = Load::new(flows.iter().map(|flow| &flow.socket)).paced(time, PER_FLOW_S);
    let answered = stranger.join().expect("flooded");
    let grown = server.rss_kib().saturating_sub(before) as f64 / 1024.0;
    (grown, answered, outcome)
}

/// Each port sends its share at once; the ports take turns.
fn send_requests(server: SocketAddr) -> u64 {
    let (start, share) = (Instant::now(), REQUESTS / PORTS);
    let (mut sent, mut answered) = (0, 0);
    for first in (0..PORTS).step_by(WINDOW as usize) {
        let sockets = (first..first + WINDOW).map(|at| {
            let socket = UdpSocket::bind((STRANGER, (FIRST_PORT + at) as u16)).expect("a port");
            socket.connect(server).expect("connected");
            socket.set_nonblocking(true).expect("set");
            socket
        });
        let sockets = sockets.collect::<Vec<_>>();
        for (socket, at) in sockets.iter().zip(first..) {
            for n in 0..share {
                let _ = socket.send(&turn::unsigned_allocate(u64::from(at * share + n)));
                sent += 1;
            }
            let due = Duration::from_secs(1) * sent / REQUESTS_PER_S;
            if let Some(early) = due.checked_sub(start.elapsed()).filter(|early| *early > Duration::from_millis(1)) {
                std::thread::sleep(early);
            }
        }
        let mut buf = [0; 512];
        for socket in &sockets {
            while socket.recv(&mut buf).is_ok() {
                answered += 1;
            }
        }
    }
    answered
}
