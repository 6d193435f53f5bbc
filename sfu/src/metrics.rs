//! The node's series, in one table, and the way from a shard to a scrape: each shard stores its numbers in atomics of
//! its own some times a second, a scrape reads them. No lock, and nothing is counted per packet here.
//!
//! | series | labels | meaning |
//! | --- | --- | --- |
//! | those of `SERIES` | `shard` | see the help text beside each |
//! | those of `HISTOGRAMS` | `shard` | see the help text beside each |
//! | `sfu_dropped_total` | `shard`, `reason` | datagrams and packets not used or not sent; reasons are `DropReason` of sfu-core |
//! | `sfu_peers_gone_total` | `shard`, `reason` | peers evicted; reasons as in the event `gone` of the control link |
//! | `sfu_socket_receive_overflows_total` | `shard` | datagrams that the kernel dropped: its queue was full |
//! | `sfu_control_links` | | open control links |
//! | `sfu_control_requests_total` | `result` | requests of signalling, `ok` or the code of the refusal |
//! | `sfu_announcements_total` | `result` | heartbeats to signalling, `ok` or `failed` |
//! | `sfu_tcp_refused_total` | | connections to media ports beyond those allowed, of one source or in all |
//! | `sfu_draining` | | 1 while joins are refused |

mod kernel;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use sfu_core::{Counters, DropReason, GoneReason, Times};

use crate::shard::StreamCounters;
use crate::translate::gone_reason;

/// What a shard publishes.
#[derive(Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) core: &'a Counters,
    pub(crate) shell: &'a ShellCounters,
    pub(crate) peers: usize,
    pub(crate) rooms: usize,
    pub(crate) handshakes: usize,
    /// Open connections, and what became of all.
    pub(crate) streams: (usize, &'a StreamCounters),
}

/// What the thread around the core counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShellCounters {
    pub(crate) turns: u64,
    pub(crate) receive_calls: u64,
    pub(crate) receive_errors: u64,
    pub(crate) receive_truncated: u64,
    /// Audio that had waited too long in the kernel's queue.
    pub(crate) receive_late: u64,
    pub(crate) send_calls: u64,
    pub(crate) send_dropped: u64,
    /// From the arrival of what waited longest to the end of the call that sent it and all with it.
    pub(crate) forward_times: Times,
    pub(crate) restarts: u64,
    /// Items for other shards that found no room in a queue.
    pub(crate) bus_dropped: u64,
    pub(crate) bus_wakes: u64,
    /// Time of the thread beside, in handshakes.
    pub(crate) handshake_work_us: u64,
    /// Part of the time that was work, in millionths.
    pub(crate) busy_ppm: u64,
    /// Has the priority that was asked for.
    pub(crate) is_favoured: bool,
    /// Goes by the clock.
    pub(crate) gathers: bool,
    pub(crate) gone: [u64; GONE.len()],
}

impl ShellCounters {
    pub(crate) fn count_gone(&mut self, reason: GoneReason) {
        if let Some(index) = GONE.iter().position(|known| *known == reason) {
            self.gone[index] += 1;
        }
    }
}

const GONE: [GoneReason; 7] = [
    GoneReason::Left,
    GoneReason::SetupTimeout,
    GoneReason::ConsentExpired,
    GoneReason::Closed,
    GoneReason::DtlsFailed,
    GoneReason::FingerprintMismatch,
    GoneReason::NoSrtpProfile,
];

enum Kind {
    Counter,
    Gauge,
    /// Published in millionths.
    Ratio,
}

struct Series {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    read: fn(&Reading<'_>) -> u64,
}

const fn counter(name: &'static str, help: &'static str, read: fn(&Reading<'_>) -> u64) -> Series {
    Series { name, kind: Kind::Counter, help, read }
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Reading<'_>) -> u64) -> Series {
    Series { name, kind: Kind::Gauge, help, read }
}

/// Named, because the type of [`Published`] cannot ask the table for its length: with optimisation on, the compiler
/// then goes round in a circle through the functions inside.
const SERIES_COUNT: usize = 42;

const SERIES: [Series; SERIES_COUNT] = [
    gauge("peers", "Peers placed", |r| r.peers as u64),
    gauge("rooms", "Replicas of rooms: those with at least one peer on this shard", |r| r.rooms as u64),
    Series {
        name: "shard_busy_ratio",
        kind: Kind::Ratio,
        help: "Part of the last second that the shard was not waiting",
        read: |r| r.shell.busy_ppm,
    },
    counter("shard_turns", "Turns of the loop", |r| r.shell.turns),
    gauge("shard_gathering", "1 while so much comes that the shard takes it by the clock", |r| {
        r.shell.gathers.into()
    }),
    gauge(
        "shard_favoured",
        "1 where the thread has the nice value of --media-nice, 0 where the system refused it",
        |r| r.shell.is_favoured.into(),
    ),
    counter("shard_restarts", "Times that the shard failed, lost its peers and began anew", |r| r.shell.restarts),
    counter("datagrams_received", "Datagrams received", |r| r.core.datagrams_received),
    counter("received_bytes", "Payload bytes of datagrams received", |r| r.core.bytes_received),
    counter("datagrams_sent", "Datagrams handed to the kernel or dropped by it", |r| r.core.transmits),
    counter("sent_bytes", "Payload bytes of those", |r| r.core.transmit_bytes),
    counter("rtp_received", "Authenticated RTP packets", |r| r.core.rtp_received),
    counter("rtp_forwarded", "RTP packets sealed for a listener", |r| r.core.rtp_forwarded),
    counter("rtp_sent_again", "Of those, sent once more because the listener asked", |r| r.core.rtp_sent_again),
    counter("rtcp_received", "Authenticated RTCP compounds", |r| r.core.rtcp_received),
    counter("rtcp_sent", "RTCP compounds sent", |r| r.core.rtcp_sent),
    counter("stun_answered", "Authenticated binding requests answered", |r| r.core.stun_answered),
    counter("dtls_received", "DTLS datagrams from validated addresses", |r| r.core.dtls_received),
    gauge("handshakes_open", "DTLS handshakes under way or waiting for their turn", |r| r.handshakes as u64),
    counter("handshake_jobs", "Pieces of handshake work done beside the shard", |r| r.core.handshake_jobs),
    counter("handshake_work_microseconds", "Time spent on them", |r| r.shell.handshake_work_us),
    counter("handshakes_done", "DTLS handshakes that ended with keys", |r| r.core.handshakes_done),
    counter("handshakes_failed", "Peers gone because ICE or DTLS did not come to an end", |r| {
        let failed = |reason: &GoneReason| {
            matches!(
                reason,
                GoneReason::SetupTimeout
                    | GoneReason::DtlsFailed
                    | GoneReason::FingerprintMismatch
                    | GoneReason::NoSrtpProfile
            )
        };
        GONE.iter().zip(r.shell.gone).filter(|(reason, _)| failed(reason)).map(|(_, count)| count).sum()
    }),
    counter("bus_sent", "Items for other shards: packets, candidates and assignments", |r| r.core.bus_sent),
    counter("bus_received", "Items from other shards", |r| r.core.bus_received),
    counter("bus_dropped", "Items that found no room in the queue of another shard", |r| r.shell.bus_dropped),
    counter("bus_wakes", "Times that another shard slept and was woken", |r| r.shell.bus_wakes),
    counter("peers_admitted", "Joins accepted", |r| r.core.peers_admitted),
    counter("output_overflows", "Datagrams not sent because the output of one turn was full", |r| {
        r.core.dropped(DropReason::TransmitsFull)
    }),
    gauge("tcp_connections", "Open TCP connections of peers and of strangers", |r| r.streams.0 as u64),
    counter("tcp_accepted", "TCP connections taken over by the shard", |r| r.streams.1.accepted),
    counter("tcp_strangers", "TCP connections closed because no check authenticated in time", |r| {
        r.streams.1.strangers
    }),
    counter(
        "tcp_broken",
        "TCP connections ended by the peer, the network, or what the peer sent or did not read",
        |r| r.streams.1.broken,
    ),
    counter("tcp_frames_received", "Datagrams received over TCP", |r| r.streams.1.frames_received),
    counter("tcp_frames_sent", "Datagrams queued for TCP connections", |r| r.streams.1.frames_sent),
    counter(
        "tcp_frames_dropped",
        "Of those, media not taken in time, and what was for a connection that is gone",
        |r| r.streams.1.frames_dropped,
    ),
    counter("socket_receive_calls", "recvmmsg calls", |r| r.shell.receive_calls),
    counter("socket_receive_errors", "recvmmsg calls that failed", |r| r.shell.receive_errors),
    counter("socket_receive_truncated", "Datagrams longer than any that we take", |r| r.shell.receive_truncated),
    counter(
        "receive_late",
        "RTP packets dropped because they had waited over 50 ms: the shard has too much to do",
        |r| r.shell.receive_late,
    ),
    counter("socket_send_calls", "sendmmsg calls", |r| r.shell.send_calls),
    counter("socket_send_dropped", "Datagrams that the kernel did not take", |r| r.shell.send_dropped),
];

const BUSY_INDEX: usize = 2;

struct Histogram {
    name: &'static str,
    help: &'static str,
    read: for<'a> fn(&Reading<'a>) -> &'a Times,
}

const HISTOGRAMS: [Histogram; 2] = [
    Histogram {
        name: "forward_seconds",
        help: "For each datagram sent: from the kernel's receipt of what waited longest for this call to the end of \
               the call, an upper bound; over a hop between shards, from there",
        read: |r| &r.shell.forward_times,
    },
    Histogram {
        name: "handshake_seconds",
        help: "From the turn of a DTLS handshake to its keys",
        read: |r| &r.core.handshake_times,
    },
];

/// The numbers of one shard. Each value is right by itself; two of them may be of different moments.
#[derive(Debug)]
pub(crate) struct Published {
    series: [AtomicU64; SERIES_COUNT],
    histograms: [Steps; HISTOGRAMS.len()],
    dropped: [AtomicU64; DropReason::ALL.len()],
    gone: [AtomicU64; GONE.len()],
}

#[derive(Debug, Default)]
struct Steps {
    counts: [AtomicU64; Times::STEPS],
    sum_us: AtomicU64,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            histograms: std::array::from_fn(|_| Steps::default()),
            series: std::array::from_fn(|_| AtomicU64::new(0)),
            dropped: std::array::from_fn(|_| AtomicU64::new(0)),
            gone: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Published {
    pub(crate) fn publish(&self, reading: &Reading<'_>) {
        for (series, value) in SERIES.iter().zip(&self.series) {
            value.store((series.read)(reading), Ordering::Relaxed);
        }
        for (histogram, steps) in HISTOGRAMS.iter().zip(&self.histograms) {
            let times = (histogram.read)(reading);
            for (count, value) in times.counts().iter().zip(&steps.counts) {
                value.store(*count, Ordering::Relaxed);
            }
            steps.sum_us.store(times.sum_us(), Ordering::Relaxed);
        }
        for ((_, count), value) in reading.core.drops().zip(&self.dropped) {
            value.store(count, Ordering::Relaxed);
        }
        for (count, value) in reading.shell.gone.iter().zip(&self.gone) {
            value.store(*count, Ordering::Relaxed);
        }
    }

    /// 0.0 to 1.0.
    pub(crate) fn busy(&self) -> f32 {
        self.series[BUSY_INDEX].load(Ordering::Relaxed) as f32 / PPM as f32
    }
}

const PPM: f64 = 1_000_000.0;

/// Series that the control plane counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct ControlMeters {
    pub(crate) links: Gauge,
    pub(crate) requests: Family<[(&'static str, String); 1], Counter>,
    pub(crate) announcements: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) draining: Gauge,
    pub(crate) tcp_refused: Counter,
}

impl ControlMeters {
    pub(crate) fn count_request(&self, result: &str) {
        self.requests.get_or_create(&[("result", result.to_owned())]).inc();
    }

    pub(crate) fn count_announcement(&self, result: &'static str) {
        self.announcements.get_or_create(&[("result", result)]).inc();
    }
}

/// `shards`: where each one receives, and what it publishes.
pub(crate) fn registry(shards: Vec<(SocketAddr, Arc<Published>)>, control: &ControlMeters) -> Registry {
    let mut registry = Registry::with_prefix("sfu");
    registry.register("control_links", "Open control links", control.links.clone());
    registry.register("control_requests", "Requests of signalling by result", control.requests.clone());
    registry.register("announcements", "Heartbeats to signalling by result", control.announcements.clone());
    let refused = "TCP connections to media ports refused: too many, of one source or in all";
    registry.register("tcp_refused", refused, control.tcp_refused.clone());
    registry.register("draining", "1 while joins are refused", control.draining.clone());
    registry.register_collector(Box::new(Shards(shards)));
    registry
}

#[derive(Debug)]
struct Shards(Vec<(SocketAddr, Arc<Published>)>);

impl Collector for Shards {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (index, series) in SERIES.iter().enumerate() {
            let kind = match series.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge | Kind::Ratio => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(series.name, series.help, None, kind)?;
            for (shard, (_, published)) in self.0.iter().enumerate() {
                let value = published.series[index].load(Ordering::Relaxed);
                let labels = [("shard", shard)];
                let place = metric.encode_family(&labels)?;
                match series.kind {
                    Kind::Counter => ConstCounter::new(value).encode(place)?,
                    Kind::Gauge => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(place)?,
                    Kind::Ratio => ConstGauge::new(value as f64 / PPM).encode(place)?,
                }
            }
        }
        self.histograms(&mut encoder)?;
        self.overflows(&mut encoder)?;
        let mut dropped = encoder.encode_descriptor("dropped", "Not used or not sent", None, MetricType::Counter)?;
        self.by_reason(&mut dropped, |shard| &shard.dropped, |index| DropReason::ALL[index].name())?;
        let mut gone = encoder.encode_descriptor("peers_gone", "Peers evicted", None, MetricType::Counter)?;
        self.by_reason(&mut gone, |shard| &shard.gone, |index| gone_reason(GONE[index]))
    }
}

impl Shards {
    fn histograms(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (index, histogram) in HISTOGRAMS.iter().enumerate() {
            let mut metric =
                encoder.encode_descriptor(histogram.name, histogram.help, None, MetricType::Histogram)?;
            for (shard, (_, published)) in self.0.iter().enumerate() {
                let steps = &published.histograms[index];
                let counts = steps.counts.iter().map(|count| count.load(Ordering::Relaxed));
                let buckets: Vec<(f64, u64)> = Times::bounds_s().into_iter().zip(counts).collect();
                let count = buckets.iter().map(|(_, count)| count).sum();
                let sum = steps.sum_us.load(Ordering::Relaxed) as f64 / PPM;
                let labels = [("shard", shard)];
                metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn overflows(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Datagrams that the kernel dropped because the socket's queue was full";
        let mut metric = encoder.encode_descriptor("socket_receive_overflows", help, None, MetricType::Counter)?;
        for (shard, (socket, _)) in self.0.iter().enumerate() {
            if let Some(count) = kernel::receive_overflows(*socket) {
                ConstCounter::new(count).encode(metric.encode_family(&[("shard", shard)])?)?;
            }
        }
        Ok(())
    }

    fn by_reason(
        &self,
        metric: &mut MetricEncoder<'_>,
        values: impl for<'a> Fn(&'a Published) -> &'a [AtomicU64],
        reason: impl Fn(usize) -> &'static str,
    ) -> Result<(), std::fmt::Error> {
        for (shard, (_, published)) in self.0.iter().enumerate() {
            for (index, value) in values(published).iter().enumerate() {
                let labels = [("shard", shard.to_string()), ("reason", reason(index).to_owned())];
                ConstCounter::new(value.load(Ordering::Relaxed)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(shards: Vec<(SocketAddr, Arc<Published>)>) -> String {
        let mut text = String::new();
        let control = ControlMeters::default();
        control.count_request("ok");
        prometheus_client::encoding::text::encode(&mut text, &registry(shards, &control)).unwrap();
        text
    }

    #[test]
    fn a_scrape_shows_what_each_shard_has_published() {
        let nowhere = SocketAddr::from(([192, 0, 2, 1], 1));
        let shards = [Arc::new(Published::default()), Arc::new(Published::default())];
        let mut shell = ShellCounters { turns: 5, busy_ppm: 250_000, ..ShellCounters::default() };
        shell.forward_times.record(std::time::Duration::from_micros(300), 4);
        shell.count_gone(GoneReason::DtlsFailed);
        shell.count_gone(GoneReason::Left);
        let core = Counters::default();
        shards[1].publish(&Reading {
            core: &core,
            shell: &shell,
            peers: 3,
            rooms: 2,
            handshakes: 0,
            streams: (0, &StreamCounters::default()),
        });
        assert!((shards[1].busy() - 0.25).abs() < 1e-6);
        let text = scrape(shards.map(|shard| (nowhere, shard)).to_vec());
        for line in [
            "sfu_peers{shard=\"0\"} 0",
            "sfu_peers{shard=\"1\"} 3",
            "sfu_rooms{shard=\"1\"} 2",
            "sfu_shard_busy_ratio{shard=\"1\"} 0.25",
            "sfu_shard_turns_total{shard=\"1\"} 5",
            "sfu_forward_seconds_count{shard=\"1\"} 4",
            "sfu_forward_seconds_sum{shard=\"1\"} 0.0012",
            "sfu_forward_seconds_bucket{le=\"0.00025\",shard=\"1\"} 0",
            "sfu_forward_seconds_bucket{le=\"0.0005\",shard=\"1\"} 4",
            "sfu_handshake_seconds_bucket{le=\"+Inf\",shard=\"1\"} 0",
            "sfu_handshakes_failed_total{shard=\"1\"} 1",
            "sfu_peers_gone_total{shard=\"1\",reason=\"left\"} 1",
            "sfu_dropped_total{shard=\"0\",reason=\"rtp_replayed\"} 0",
            "sfu_control_requests_total{result=\"ok\"} 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_series_has_a_name_of_its_own_and_a_help_text() {
        let mut names: Vec<_> = SERIES.iter().map(|series| series.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SERIES.len());
        assert!(SERIES.iter().all(|series| !series.help.is_empty()));
        assert_eq!(SERIES[BUSY_INDEX].name, "shard_busy_ratio");
    }
}
