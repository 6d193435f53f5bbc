//! One line a second for the series, and what the processes used during the measured window.

use std::time::{Duration, Instant};

use super::process::Used;
use super::switchboard::Switchboard;
use crate::results::{Phase, ProcessUse, Sample};

/// Enough for three hours; a longer run has a series of its first three.
const SAMPLES_MAX: usize = 10_800;
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Sampler {
    origin: Instant,
    sampled_at: Instant,
    pids: Vec<u32>,
    server: Option<Used>,
    own: Option<Used>,
    server_rss_max_mib: f64,
    own_rss_max_mib: f64,
    last: Sample,
    series: Vec<Sample>,
}

/// Where the measured window begins.
#[derive(Debug)]
pub(super) struct Window {
    began_at: Instant,
    server: Option<Used>,
    own: Option<Used>,
}

impl Sampler {
    pub(super) fn new(origin: Instant, pids: &[u32]) -> Self {
        Self {
            origin,
            sampled_at: origin,
            pids: pids.to_vec(),
            server: Used::read(pids),
            own: Used::own(),
            server_rss_max_mib: 0.0,
            own_rss_max_mib: 0.0,
            last: Sample::default(),
            series: Vec::new(),
        }
    }

    pub(super) fn at_s(&self) -> f64 {
        self.origin.elapsed().as_secs_f64()
    }

    /// May be called more often than once a second.
    pub(super) fn sample(&mut self, board: &Switchboard, phase: Phase, connected: u64) {
        let now = Instant::now();
        let since = now - self.sampled_at;
        if since < INTERVAL {
            return;
        }
        self.sampled_at = now;
        let seconds = since.as_secs_f64();
        let recent = board.take_recent();
        let (server, own) = (Used::read(&self.pids), Used::own());
        let cores = |before: &Option<Used>, after: &Option<Used>| {
            Some((after.as_ref()?.cpu_s() - before.as_ref()?.cpu_s()) / seconds)
        };
        self.server_rss_max_mib = self.server_rss_max_mib.max(server.as_ref().map_or(0.0, |used| used.rss_mib));
        self.own_rss_max_mib = self.own_rss_max_mib.max(own.as_ref().map_or(0.0, |used| used.rss_mib));
        self.last = Sample {
            at_s: self.at_s(),
            phase,
            connected,
            sent_per_s: recent.counts.sent as f64 / seconds,
            received_per_s: recent.counts.received as f64 / seconds,
            loss_share: recent.loss_share(),
            delay_p50_ms: recent.delay.quantile_ms(0.5),
            delay_p99_ms: recent.delay.quantile_ms(0.99),
            server_cores: cores(&self.server, &server),
            server_rss_mib: server.as_ref().map(|used| used.rss_mib),
            client_cores: cores(&self.own, &own).unwrap_or_default(),
        };
        (self.server, self.own) = (server, own);
        if self.series.len() < SAMPLES_MAX {
            self.series.push(self.last.clone());
        }
    }

    pub(super) fn last(&self) -> Sample {
        self.last.clone()
    }

    pub(super) fn take_series(&mut self) -> Vec<Sample> {
        std::mem::take(&mut self.series)
    }

    pub(super) fn begin_window(&mut self) -> Window {
        (self.server_rss_max_mib, self.own_rss_max_mib) = (0.0, 0.0);
        Window { began_at: Instant::now(), server: Used::read(&self.pids), own: Used::own() }
    }

    /// Its length, and what the server and this process used.
    pub(super) fn end_window(&self, window: &Window) -> (f64, Option<ProcessUse>, ProcessUse) {
        let measured = window.began_at.elapsed().as_secs_f64();
        let between = |before: &Option<Used>, after: Option<Used>, rss_max: f64, pids: &[u32]| {
            Some(before.as_ref()?.until(&after?, rss_max, pids))
        };
        let server = between(&window.server, Used::read(&self.pids), self.server_rss_max_mib, &self.pids);
        let own = [std::process::id()];
        let client = between(&window.own, Used::own(), self.own_rss_max_mib, &own).unwrap_or_default();
        (measured, server, client)
    }
}
