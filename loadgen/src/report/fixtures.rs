//! A finished run for the tests of the reports.

use crate::results::{Distribution, Joins, Media, Phase, ProcessUse, Results, Sample};
use crate::scenario::{Scenario, Thresholds};

pub(super) fn results() -> Results {
    let scenario = Scenario {
        name: "10 x 100".to_owned(),
        thresholds: Thresholds { loss_max: Some(0.005), delay_p99_ms_max: Some(2.0), ..Thresholds::default() },
        ..Scenario::default()
    };
    Results {
        version: crate::results::RESULTS_VERSION,
        scenario,
        machine: crate::results::Machine::default(),
        started_unix_s: 1_790_000_000,
        interrupted: false,
        measured_s: 10.0,
        joins: Joins { started: 110, connected: 110, total_ms: distribution(20.0), ..Joins::default() },
        media: Media {
            sent: 5_000,
            expected: 250_000,
            received: 250_000,
            received_per_s: 25_000.0,
            delivered_share: 1.0,
            per_server_cpu_s: Some(90_123.4),
            delay_ms: distribution(1.0),
            ..Media::default()
        },
        realistic: None,
        server: Some(process(2.77)),
        client: process(1.5),
        onset_ms: None,
        steps: Vec::new(),
        floor: None,
        series: (0..15).map(sample).collect(),
        verdict: Vec::new(),
        notes: vec!["loopback is not a network card".to_owned()],
    }
}

fn distribution(p50: f64) -> Distribution {
    let curve = vec![(p50 * 0.5, 0.1), (p50, 0.5), (p50 * 2.0, 0.9), (p50 * 3.5, 0.99), (p50 * 9.0, 1.0)];
    Distribution {
        count: 1000,
        mean: p50,
        min: p50 * 0.5,
        p50,
        p90: p50 * 2.0,
        p95: p50 * 2.5,
        p99: p50 * 3.5,
        p999: p50 * 6.0,
        max: p50 * 9.0,
        curve,
    }
}

fn process(cpu_user_s: f64) -> ProcessUse {
    ProcessUse { cpu_user_s, cores_used: cpu_user_s / 10.0, rss_max_mib: 50.0, threads: 4, ..ProcessUse::default() }
}

fn sample(second: u8) -> Sample {
    let at_s = f64::from(second);
    Sample {
        at_s,
        phase: if second < 4 { Phase::Ramp } else { Phase::Measure },
        connected: u64::from(second) * 7,
        sent_per_s: 500.0,
        received_per_s: 25_000.0 + at_s,
        delay_p50_ms: 1.0,
        delay_p99_ms: 3.0 + at_s / 10.0,
        server_cores: Some(0.28),
        client_cores: 0.15,
        ..Sample::default()
    }
}
