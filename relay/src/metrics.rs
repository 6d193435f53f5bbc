//! The relay's series, in one table, and the way from a thread to a scrape: each thread stores its numbers in atomics of
//! its own some times a second, a scrape reads them. Labels have few values, all known beforehand.
//!
//! | series | labels | meaning |
//! | --- | --- | --- |
//! | those of `SERIES` | `thread` | see the help text beside each |
//! | `relay_dropped_total` | `thread`, `reason` | what had no effect; reasons are `DropReason` of relay-core |
//! | `relay_answers_total` | `thread`, `code` | answers to TURN requests, 200 or an error code |
//! | `relay_ports_used` | | relay ports in use or reserved |
//! | `relay_draining` | | 1 while allocations are refused |
//! | `relay_reloads_total` | `result` | reloads of the settings, `ok` or `failed` |
//! | `relay_registry_answers_total` | `result` | questions to the registry of media nodes, `ok` or `failed` |
//! | `relay_registry_addresses` | | addresses of media nodes from there that are peers |

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use relay_core::{DropReason, Outcome, Server, Shared};

/// What a thread counts around its server.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShellCounters {
    pub(crate) receive_calls: u64,
    pub(crate) receive_errors: u64,
    pub(crate) receive_truncated: u64,
    pub(crate) relay_reads: u64,
    pub(crate) send_calls: u64,
    pub(crate) send_dropped: u64,
    pub(crate) peer_send_failures: u64,
    pub(crate) gathers: bool,
    pub(crate) stream_connections: u64,
    pub(crate) stream_accepted: u64,
    pub(crate) stream_refused: u64,
    pub(crate) stream_failed: u64,
    pub(crate) stream_dropped: u64,
}

impl ShellCounters {
    pub(crate) fn count_send(&mut self, sent: &io::Result<usize>) {
        self.peer_send_failures += u64::from(sent.is_err());
    }
}

struct Reading<'a> {
    server: &'a Server,
    shell: &'a ShellCounters,
}

struct Series {
    name: &'static str,
    help: &'static str,
    is_gauge: bool,
    read: fn(&Reading<'_>) -> u64,
}

const fn counter(name: &'static str, help: &'static str, read: fn(&Reading<'_>) -> u64) -> Series {
    Series { name, help, is_gauge: false, read }
}

const SERIES: [Series; 22] = [
    Series {
        name: "allocations",
        help: "Allocations that are there",
        is_gauge: true,
        read: |r| r.server.allocations() as u64,
    },
    counter("allocations_made", "Allocations made", |r| r.server.counters().allocations_made),
    counter("allocations_expired", "Allocations that nobody refreshed", |r| r.server.counters().allocations_expired),
    counter("bindings", "STUN Binding requests answered", |r| r.server.counters().bindings),
    counter("credential_failures", "Wrong or expired credentials", |r| r.server.counters().credential_failures),
    counter("to_peer_packets", "Packets for peers", |r| r.server.counters().to_peer_packets),
    counter("to_peer_bytes", "Payload bytes of those", |r| r.server.counters().to_peer_bytes),
    counter("to_client_packets", "Packets for clients", |r| r.server.counters().to_client_packets),
    counter("to_client_bytes", "Payload bytes of those", |r| r.server.counters().to_client_bytes),
    counter("listener_receive_calls", "recvmmsg calls on listeners", |r| r.shell.receive_calls),
    counter("listener_receive_errors", "recvmmsg calls that failed", |r| r.shell.receive_errors),
    counter("listener_receive_truncated", "Datagrams longer than any that we take", |r| r.shell.receive_truncated),
    counter("relay_socket_reads", "Datagrams read from relay sockets", |r| r.shell.relay_reads),
    counter("listener_send_calls", "sendmmsg calls on listeners", |r| r.shell.send_calls),
    counter("listener_send_dropped", "Messages to clients that the kernel did not take", |r| r.shell.send_dropped),
    counter("peer_send_failures", "Packets for peers that the kernel did not take", |r| r.shell.peer_send_failures),
    Series {
        name: "gathers",
        help: "1 while so much comes that the thread goes by the clock, see gather_us",
        is_gauge: true,
        read: |r| r.shell.gathers.into(),
    },
    Series {
        name: "stream_connections",
        help: "Connections over TCP and TLS that are there",
        is_gauge: true,
        read: |r| r.shell.stream_connections,
    },
    counter("stream_accepted", "Connections over TCP and TLS accepted", |r| r.shell.stream_accepted),
    counter("stream_refused", "Connections over a limit, or at a balancer's port and not from one", |r| {
        r.shell.stream_refused
    }),
    counter("stream_failed", "Connections closed for what they said or how slowly", |r| r.shell.stream_failed),
    counter("stream_dropped", "Packets for clients whose connection is too slow", |r| r.shell.stream_dropped),
];

const ALLOCATIONS: usize = 0;
const CREDENTIAL_FAILURES: usize = 4;

/// The numbers of one thread. Each value is right by itself; two of them may be of different moments.
#[derive(Debug)]
pub(crate) struct Published {
    series: [AtomicU64; SERIES.len()],
    dropped: [AtomicU64; DropReason::ALL.len()],
    answered: [AtomicU64; Outcome::ALL.len()],
}

impl Default for Published {
    fn default() -> Self {
        Self {
            series: std::array::from_fn(|_| AtomicU64::new(0)),
            dropped: std::array::from_fn(|_| AtomicU64::new(0)),
            answered: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Published {
    pub(crate) fn publish(&self, server: &Server, shell: &ShellCounters) {
        let reading = Reading { server, shell };
        for (series, value) in SERIES.iter().zip(&self.series) {
            value.store((series.read)(&reading), Ordering::Relaxed);
        }
        for (reason, value) in DropReason::ALL.into_iter().zip(&self.dropped) {
            value.store(server.counters().dropped(reason), Ordering::Relaxed);
        }
        for (outcome, value) in Outcome::ALL.into_iter().zip(&self.answered) {
            value.store(server.counters().answered(outcome), Ordering::Relaxed);
        }
    }

    pub(crate) fn allocations(&self) -> u64 {
        self.series[ALLOCATIONS].load(Ordering::Relaxed)
    }

    pub(crate) fn credential_failures(&self) -> u64 {
        self.series[CREDENTIAL_FAILURES].load(Ordering::Relaxed)
    }
}

/// What the control plane counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessMeters {
    pub(crate) draining: Gauge,
    pub(crate) reloads: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) registry: RegistryMeters,
}

/// What is counted of the registry of media nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistryMeters {
    answers: Family<[(&'static str, &'static str); 1], Counter>,
    addresses: Gauge,
}

impl RegistryMeters {
    pub(crate) fn answered(&self, result: &'static str) {
        self.answers.get_or_create(&[("result", result)]).inc();
    }

    pub(crate) fn known(&self, addresses: usize) {
        self.addresses.set(i64::try_from(addresses).unwrap_or(i64::MAX));
    }
}

pub(crate) fn registry(threads: Vec<Arc<Published>>, shared: Arc<Shared>, process: &ProcessMeters) -> Registry {
    let mut registry = Registry::with_prefix("relay");
    registry.register("draining", "1 while allocations are refused", process.draining.clone());
    registry.register("reloads", "Reloads of the settings by result", process.reloads.clone());
    let RegistryMeters { answers, addresses } = process.registry.clone();
    registry.register("registry_answers", "Questions to the registry of media nodes by result", answers);
    registry.register("registry_addresses", "Addresses of media nodes from the registry that are peers", addresses);
    registry.register_collector(Box::new(Threads { threads, shared }));
    registry
}

#[derive(Debug)]
struct Threads {
    threads: Vec<Arc<Published>>,
    shared: Arc<Shared>,
}

impl Collector for Threads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (index, series) in SERIES.iter().enumerate() {
            let kind = if series.is_gauge { MetricType::Gauge } else { MetricType::Counter };
            let mut metric = encoder.encode_descriptor(series.name, series.help, None, kind)?;
            for (thread, published) in self.threads.iter().enumerate() {
                let value = published.series[index].load(Ordering::Relaxed);
                let labels = [("thread", thread)];
                let place = metric.encode_family(&labels)?;
                match series.is_gauge {
                    true => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(place)?,
                    false => ConstCounter::new(value).encode(place)?,
                }
            }
        }
        let mut dropped = encoder.encode_descriptor("dropped", "Without effect", None, MetricType::Counter)?;
        for (thread, published) in self.threads.iter().enumerate() {
            for (reason, value) in DropReason::ALL.into_iter().zip(&published.dropped) {
                let labels = [("thread", thread.to_string()), ("reason", reason.name().to_owned())];
                ConstCounter::new(value.load(Ordering::Relaxed)).encode(dropped.encode_family(&labels)?)?;
            }
        }
        let mut answers = encoder.encode_descriptor("answers", "Answers by code", None, MetricType::Counter)?;
        for (thread, published) in self.threads.iter().enumerate() {
            for (outcome, value) in Outcome::ALL.into_iter().zip(&published.answered) {
                let labels = [("thread", thread.to_string()), ("code", outcome.0.to_string())];
                ConstCounter::new(value.load(Ordering::Relaxed)).encode(answers.encode_family(&labels)?)?;
            }
        }
        let ports = encoder.encode_descriptor("ports_used", "In use or reserved", None, MetricType::Gauge)?;
        ConstGauge::new(i64::try_from(self.shared.ports_used()).unwrap_or(i64::MAX)).encode(ports)
    }
}
