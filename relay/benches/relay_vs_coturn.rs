//! The relay beside coturn and beside a bare forwarder: what a packet costs at 400 flows of 50 packets a second each way,
//! and at 64 flows that wait for each packet; what an allocation costs. In a round all three stand side by side and are
//! loaded in turns of a second, so that whatever else the machine does meets them alike. All have one serving thread, so
//! that a CPU second is the same thing for each. Prints one JSON object as its last line.

#![allow(clippy::print_stdout, reason = "a bench prints what it measured")]

mod driver;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use driver::load::{Echo, Load, Outcome};
use driver::servers::{Kind, Running};
use driver::{CLIENT, PEER, figure, median, turn};

const ROUNDS: usize = 3;
const KINDS: [Kind; 3] = [Kind::Floor, Kind::Relay, Kind::Coturn];
const PACED_FLOWS: usize = 400;
const PACED_PER_FLOW_S: u32 = 50;
const CLOSED_FLOWS: usize = 64;
/// One turn of one of them.
const TURN: Duration = Duration::from_secs(1);
const WHOLE: Extent = Extent { paced: 4, closed: 3, idle: 2_000 };
/// For a first look: just enough to say something.
const QUICK: Extent = Extent { paced: 2, closed: 1, idle: 500 };
/// At a pace that the machine does not keep, a figure says more of the machine than of the server.
const LOST_MAX: f64 = 0.01;
const THREADS: u16 = 1;

/// Turns of a round, and allocations that only stand there.
#[derive(Clone, Copy, Debug)]
struct Extent {
    paced: usize,
    closed: usize,
    idle: usize,
}

#[derive(Debug, Default)]
struct Row {
    paced: Vec<f64>,
    closed: Vec<f64>,
    p99_us: Vec<f64>,
    setup: Vec<f64>,
    allocation_kib: Vec<f64>,
}

fn main() {
    let arguments = std::env::args().collect::<Vec<_>>();
    if let [_, flag, port, peer] = &arguments[..]
        && flag == "--as-floor"
    {
        return driver::floor::run(port.parse().expect("a port"), peer.parse().expect("an address"));
    }
    if UdpSocket::bind((CLIENT, 0)).is_err() {
        println!("Not measured: run it with tests/bench, which makes a network for it.");
        return;
    }
    let extent = if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { WHOLE };
    let mut rows = [Row::default(), Row::default(), Row::default()];
    let mut port = 10_000_u16;
    for round in 0..ROUNDS {
        let mut sides = KINDS.map(|kind| {
            port += 1;
            Side::start(kind, port, extent)
        });
        for turn in 0..extent.paced {
            (0..KINDS.len()).for_each(|step| sides[(round + turn + step) % KINDS.len()].paced());
        }
        for turn in 0..extent.closed {
            (0..KINDS.len()).for_each(|step| sides[(round + turn + step) % KINDS.len()].closed());
        }
        sides.iter().zip(&mut rows).for_each(|(side, row)| side.report(row));
    }
    let [floor, relay, coturn] = &rows;
    let ratio = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a / b).collect::<Vec<_>>();
    let figures = [
        figure("ratio_paced", &ratio(&relay.paced, &coturn.paced)),
        figure("floor_ratio", &ratio(&relay.paced, &floor.paced)),
        figure("ratio_closed", &ratio(&relay.closed, &coturn.closed)),
        figure("p99_ratio", &ratio(&relay.p99_us, &coturn.p99_us)),
        figure("packet_allocs", &[packet_allocations()]),
        figure("allocation_kib", &relay.allocation_kib),
        figure("setup_per_cpu_s", &relay.setup),
    ];
    println!(r#"{{"rounds": {ROUNDS}, "figures": {{{}}}}}"#, figures.join(", "));
}

/// One server with its clients and the peer behind it.
struct Side {
    kind: Kind,
    server: Running,
    flows: Vec<turn::Client>,
    /// A port that is used again would be that of an allocation.
    _idle: Vec<turn::Client>,
    _echo: Echo,
    setup: f64,
    allocation_kib: f64,
    paced: Spent,
    closed: Spent,
}

/// What a load did and what it cost the server.
#[derive(Debug, Default)]
struct Spent {
    cpu: Duration,
    outcome: Outcome,
    /// Of each turn: one in which the machine was away for a moment must not be that of the whole round.
    p99_us: Vec<f64>,
}

impl Spent {
    fn packets_per_cpu_s(&self) -> f64 {
        self.outcome.relayed() / self.cpu.as_secs_f64()
    }

    fn add(&mut self, cpu: Duration, outcome: Outcome) {
        self.cpu += cpu;
        self.p99_us.push(outcome.p99_us());
        self.outcome.add(outcome);
    }
}

impl Side {
    fn start(kind: Kind, port: u16, extent: Extent) -> Self {
        let echo = Echo::start((PEER, 0).into());
        let server = Running::start(kind, port, echo.address, THREADS);
        // The floor takes whatever comes, so its clients need no allocation.
        let clients = |count: usize| match kind {
            Kind::Floor => (0..count).map(|_| turn::Client::new(CLIENT, server.address)).collect::<Vec<_>>(),
            Kind::Relay | Kind::Coturn => turn::allocate(CLIENT, server.address, count, Some(echo.address)),
        };
        let (mut idle, mut setup, mut allocation_kib) = (Vec::new(), 0.0, 0.0);
        if kind != Kind::Floor {
            idle.extend(clients(1));
            let (cpu, rss) = (server.cpu(), server.rss_kib());
            idle.extend(clients(extent.idle));
            setup = extent.idle as f64 / (server.cpu() - cpu).as_secs_f64();
            allocation_kib = server.rss_kib().saturating_sub(rss) as f64 / extent.idle as f64;
        }
        let flows = clients(PACED_FLOWS);
        // The first packets make what a flow needs.
        Load::new(flows.iter().map(|flow| &flow.socket)).paced(Duration::from_millis(500), PACED_PER_FLOW_S);
        let (paced, closed) = Default::default();
        Self { kind, server, flows, _idle: idle, _echo: echo, setup, allocation_kib, paced, closed }
    }

    fn paced(&mut self) {
        let cpu = self.server.cpu();
        let outcome = Load::new(self.flows.iter().map(|flow| &flow.socket)).paced(TURN, PACED_PER_FLOW_S);
        self.paced.add(self.server.cpu() - cpu, outcome);
    }

    fn closed(&mut self) {
        let cpu = self.server.cpu();
        let outcome = Load::new(self.flows.iter().take(CLOSED_FLOWS).map(|flow| &flow.socket)).closed(TURN);
        self.closed.add(self.server.cpu() - cpu, outcome);
    }

    fn report(&self, row: &mut Row) {
        let (paced, closed) = (&self.paced.outcome, &self.closed.outcome);
        row.paced.push(self.paced.packets_per_cpu_s());
        let p99_us = median(&self.paced.p99_us);
        row.p99_us.push(p99_us);
        row.closed.push(self.closed.packets_per_cpu_s());
        row.setup.push(self.setup);
        row.allocation_kib.push(self.allocation_kib);
        println!(
            "{:?}: paced {:.0} packets a CPU second (p99 {:.0} us, lost {:.3} %), closed {:.0} (lost {:.3} %), set up {:.0} \
             a CPU second, {:.1} KiB an allocation",
            self.kind,
            self.paced.packets_per_cpu_s(),
            p99_us,
            paced.lost() * 100.0,
            self.closed.packets_per_cpu_s(),
            closed.lost().max(0.0) * 100.0,
            self.setup,
            self.allocation_kib,
        );
        if self.kind == Kind::Floor && paced.lost() > LOST_MAX {
            println!("The machine is too busy for this pace: even the bare forwarder loses packets.");
        }
    }
}

/// Heap allocations for a packet, in the loop that serves them: counted on the thread that does it.
fn packet_allocations() -> f64 {
    const PACKETS: usize = 2_000;
    let loopback = relay_core::AddressRange::v4([127, 0, 0, 0], 8);
    let policy = relay_core::Policy { allowed: vec![loopback], allow_loopback: true, ..Default::default() };
    let mut credentials = relay_core::Credentials::new(driver::REALM);
    credentials.add_user(&format!("{}:{}", driver::USER, driver::PASSWORD)).expect("a user");
    let local = [127, 0, 0, 1].into();
    let address = relay_core::RelayAddress { local, advertised: local };
    let mut settings = relay_core::Settings::new(credentials, policy, vec![address]);
    settings.limits.allocation_bytes_per_s = 0;
    let now = Instant::now();
    let shared = Arc::new(relay_core::Shared::new(1, &(30_000..=40_000), [1; 32], now));
    let server = relay_core::Server::new(Arc::new(settings), shared, [2; 32], now, 0).expect("settings");
    let listener = udp::Socket::bind((local, 0).into(), udp::Options::default()).expect("bound");
    let address = listener.local_addr().expect("bound");
    let (_orders, waiting) = sync_channel(1);
    let mut worker = relay::Worker::new(server, vec![listener], waiting, Duration::ZERO).expect("a worker");
    let echo = Echo::start((local, 0).into());
    let peer: SocketAddr = echo.address;
    let client = std::thread::spawn(move || turn::allocate(local, address, 1, Some(peer)).remove(0));
    while !client.is_finished() {
        worker.turn().expect("served");
    }
    let client = client.join().expect("allocated");
    let mut relay = |packets: usize| {
        let mut allocated = 0;
        for _ in 0..packets {
            client.socket.send(&turn::channel_data()).expect("sent");
            // One turn takes it to the peer, a later one brings it back.
            client.socket.set_nonblocking(true).expect("set");
            while client.socket.recv(&mut [0; 256]).is_err() {
                allocated += allocation_counter::measure(|| drop(worker.turn())).count_total;
            }
        }
        allocated
    };
    relay(10);
    let found = relay(PACKETS) as f64 / (2 * PACKETS) as f64;
    println!("{found} allocations a packet");
    median(&[found])
}
