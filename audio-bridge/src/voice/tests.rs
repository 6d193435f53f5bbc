//! A talker, a network and a desktop in virtual time.

use std::collections::VecDeque;

use super::*;
use crate::synthetic::{Tone, level};

/// A talker, a network that is ours, and a desktop that pulls 10 ms at a time.
struct Call {
    start: Instant,
    now: Duration,
    voice: Voice,
    encoder: opus::Encoder,
    tone: Tone,
    encoded: u32,
    payload: Vec<u8>,
    sequence: u16,
    timestamp: u32,
    heard: Vec<i16>,
    /// Earlier packets that each packet repeats.
    redundancy: usize,
    last: VecDeque<Packet>,
    delays_ms: Vec<usize>,
}

impl Call {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            now: Duration::ZERO,
            voice: Voice::new().expect("decoder"),
            encoder: opus::Encoder::new(48_000, opus::Channels::Mono, opus::Application::Voip).expect("encoder"),
            tone: Tone::new(700.0, 6000.0),
            encoded: 0,
            payload: Vec::new(),
            sequence: 65_500,
            timestamp: u32::MAX - 48_000,
            heard: Vec::new(),
            redundancy: 0,
            last: VecDeque::new(),
            delays_ms: Vec::new(),
        }
    }

    /// The next packet and the earlier ones that it repeats, the newest first.
    fn packets(&mut self) -> (Packet, Vec<Packet>) {
        let packet = self.packet();
        let earlier = self.last.iter().take(self.redundancy).cloned().collect();
        self.last.push_front(packet.clone());
        self.last.truncate(4);
        (packet, earlier)
    }

    fn packet(&mut self) -> Packet {
        // A packet holds 14 whole periods, so that after a while they are all alike.
        if self.encoded < 50 {
            let mut pcm = [0; 960];
            self.tone.fill(&mut pcm);
            self.payload = self.encoder.encode_vec(&pcm, 400).expect("encodes");
            self.encoded += 1;
        }
        let payload = self.payload.clone();
        let packet = Packet { sequence: self.sequence, timestamp: self.timestamp, payload };
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(960);
        packet
    }

    fn pull(&mut self) {
        let mut out = [0; 480];
        self.voice.pull(self.start + self.now, &mut out);
        self.heard.extend_from_slice(&out);
        self.delays_ms.push(self.voice.buffered_samples() / 48);
    }

    /// The longest silence within what was heard from `from` on, in samples.
    fn longest_gap(&self, from: usize) -> usize {
        self.heard[from..].split(|sample| sample.abs() > 1).map(<[i16]>::len).max().unwrap_or(0)
    }

    /// `packets` of 20 ms, each arriving after `delay_us(n)`; `None` is lost. The sender's clock is `ppm` slow.
    fn talk(&mut self, packets: u64, ppm: i64, delay_us: impl Fn(u64) -> Option<u64>) {
        let begin = self.now.as_micros() as u64;
        let interval = (20_000 * (1_000_000 + ppm) / 1_000_000) as u64;
        let mut arrivals: Vec<(u64, (Packet, Vec<Packet>))> = (0..packets)
            .filter_map(|n| {
                let packet = self.packets();
                delay_us(n).map(|delay| (begin + n * interval + delay, packet))
            })
            .collect();
        arrivals.sort_by_key(|(at, _)| *at);
        let mut arrivals = arrivals.into_iter().peekable();
        let end = begin + packets * interval;
        let mut pulled = begin;
        while pulled < end {
            while let Some((at, (packet, earlier))) = arrivals.next_if(|(at, _)| *at <= pulled) {
                let at = self.start + Duration::from_micros(at);
                self.voice.receive(at, packet);
                earlier.into_iter().for_each(|packet| self.voice.restore(at, packet));
            }
            self.now = Duration::from_micros(pulled);
            self.pull();
            pulled += 10_000;
        }
        self.now = Duration::from_micros(end);
    }

    fn buffered_ms(&self) -> usize {
        self.voice.buffered_samples() / 48
    }
}

#[test]
fn a_clean_voice_is_played_at_its_level_without_concealment() {
    let mut call = Call::new();
    call.talk(200, 0, |_| Some(5_000));
    let counters = call.voice.counters();
    assert_eq!((counters.lost, counters.underruns, counters.undecodable), (0, 0, 0));
    let rms = level(&call.heard[48_000..]);
    assert!((rms - 6000.0 / f64::sqrt(2.0)).abs() < 200.0, "level {rms:.0}");
    assert!(call.buffered_ms() <= 60, "{} ms held back", call.buffered_ms());
}

#[test]
fn loss_is_concealed_and_the_voice_stays() {
    let mut call = Call::new();
    call.talk(500, 0, |n| (n % 10 != 3).then_some(5_000));
    let counters = call.voice.counters();
    assert_eq!(counters.lost, 50);
    let rms = level(&call.heard[48_000..]);
    assert!((rms - 6000.0 / f64::sqrt(2.0)).abs() < 400.0, "level {rms:.0}");
}

#[test]
fn jitter_raises_the_delay_and_little_is_concealed() {
    let mut call = Call::new();
    // 0 to 80 ms in a fixed pseudo-random order; also reorders.
    call.talk(1500, 0, |n| Some(n.wrapping_mul(2_654_435_761) % 80_000));
    let before = call.voice.counters().concealed_samples;
    call.talk(1500, 0, |n| Some(n.wrapping_mul(2_654_435_761) % 80_000));
    let concealed = call.voice.counters().concealed_samples - before;
    assert!(concealed * 100 <= 1500 * 960 * 2, "{concealed} samples concealed in 30 s");
    assert!(call.buffered_ms() <= 200, "{} ms held back", call.buffered_ms());
}

#[test]
fn a_burst_after_a_stall_does_not_stay_as_delay() {
    let mut call = Call::new();
    call.talk(200, 0, |_| Some(5_000));
    // The network stops for 600 ms, then everything comes at once.
    call.talk(30, 0, |n| Some(600_000 - n * 20_000));
    call.talk(50, 0, |_| Some(5_000));
    let after = call.buffered_ms();
    call.talk(500, 0, |_| Some(5_000));
    assert!(call.buffered_ms() <= 80, "{after} ms, ten seconds later {} ms", call.buffered_ms());
}

#[test]
fn drifting_clocks_make_neither_gaps_nor_delay_in_ten_minutes() {
    for ppm in [-300, 300] {
        let mut call = Call::new();
        call.talk(30_000, ppm, |n| Some(5_000 + n % 7 * 300));
        let counters = call.voice.counters();
        assert_eq!((counters.underruns, counters.lost, counters.dropped), (0, 0, 0), "{ppm} ppm: {counters:?}");
        // 180 ms of drift: a period now and then would be a click each, resampling is none.
        assert!(counters.shortened_samples + counters.lengthened_samples < 48 * 40, "{ppm} ppm: {counters:?}");
        assert!(call.longest_gap(48_000) <= 48 * 5, "{ppm} ppm: a gap of {} samples", call.longest_gap(48_000));
        let settled = &call.delays_ms[500..];
        let (least, most) = (settled.iter().min().expect("some"), settled.iter().max().expect("some"));
        assert!(*least >= 1 && *most <= 80, "{ppm} ppm: {least} to {most} ms held back");
        let rms = level(&call.heard[48_000..]);
        assert!((rms - 6000.0 / f64::sqrt(2.0)).abs() < 200.0, "{ppm} ppm: level {rms:.0}");
    }
}

/// Jitter of 0 to 80 ms, which reorders, and 5 % loss, the same in each run.
fn rough(n: u64) -> Option<u64> {
    let random = n.wrapping_add(17).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let lost = (random >> 32) % 100 < 5;
    (!lost).then_some((random >> 8) % 80_000)
}

#[test]
fn redundancy_makes_jitter_reordering_and_loss_inaudible() {
    let concealed_in_30_s = |redundancy| {
        let mut call = Call::new();
        call.redundancy = redundancy;
        call.talk(1500, 0, rough);
        let before = call.voice.counters();
        call.talk(1500, 0, rough);
        let after = call.voice.counters();
        let target_ms = call.voice.target_samples(call.start + call.now) / 48;
        assert!(target_ms <= 80 + 20, "{target_ms} ms are held back for 80 ms of jitter");
        assert!(call.buffered_ms() <= 160, "{} ms held back", call.buffered_ms());
        (after.concealed_samples - before.concealed_samples, after.restored)
    };
    let whole = 1500 * 960;
    let (with, restored) = concealed_in_30_s(2);
    assert!(with * 100 <= whole * 2, "{:.2} % concealed", with as f64 * 100.0 / whole as f64);
    assert!(restored > 50, "{restored} packets restored");
    let (without, _) = concealed_in_30_s(0);
    assert!(without * 100 >= whole * 4, "the loss of this test is {:.2} %", without as f64 * 100.0 / whole as f64);
}

#[test]
fn a_lost_packet_that_the_next_one_repeats_is_not_lost() {
    let mut call = Call::new();
    call.redundancy = 1;
    call.talk(500, 0, |n| (n % 10 != 3).then_some(5_000));
    let counters = call.voice.counters();
    assert_eq!((counters.restored, counters.lost), (50, 0), "{counters:?}");
    // The first one teaches to wait for the next.
    assert!(counters.concealed_samples <= 960, "{counters:?}");
}

/// A fifth of the packets is lost, each by itself, and the others jitter a little.
fn lossy(n: u64) -> Option<u64> {
    // SplitMix64: a multiplication alone spreads losses so evenly that two never meet.
    let mut random = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    random = (random ^ random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    random = (random ^ random >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    random ^= random >> 31;
    ((random >> 32) % 100 >= 20).then_some(5_000 + (random >> 8) % 3_000)
}

#[test]
fn of_every_fifth_packet_lost_repetitions_leave_what_only_longer_runs_take() {
    let in_a_minute = |redundancy| {
        let mut call = Call::new();
        call.redundancy = redundancy;
        call.talk(1000, 0, lossy);
        let before = call.voice.counters();
        call.talk(3000, 0, |n| lossy(n + 1000));
        let after = call.voice.counters();
        assert!(call.buffered_ms() <= 120, "{} ms held back", call.buffered_ms());
        // What the wait costs is given back on a clean path.
        call.talk(1500, 0, |_| Some(5_000));
        assert!(call.buffered_ms() <= 60, "{} ms held back", call.buffered_ms());
        ((after.concealed_samples - before.concealed_samples) / 960, after.lost - before.lost)
    };
    // Of 3,000, two in a row: 120, three: 24, four: 5.
    for (redundancy, lost_most) in [(1, 180), (2, 36), (3, 10)] {
        let (concealed, lost) = in_a_minute(redundancy);
        assert!(lost <= lost_most, "{lost} packets lost for good with {redundancy}");
        // One repetition of the second of two comes in time, after the time of the first.
        let too_late = concealed.saturating_sub(lost);
        let late_most = if redundancy == 1 { 10 } else { 2 };
        assert!(too_late <= late_most, "{too_late} packets came too late with {redundancy}");
    }
}

#[test]
fn of_two_lost_packets_the_second_comes_out_of_the_next() {
    const LOW: f32 = 300.0;
    const HIGH: f32 = 900.0;
    let mut call = Call::new();
    call.encoder.set_inband_fec(true).expect("is set");
    call.encoder.set_packet_loss_perc(20).expect("is set");
    let (mut low, mut high) = (Tone::new(LOW.into(), 8000.0), Tone::new(HIGH.into(), 8000.0));
    for n in 0..300_u64 {
        // What sounds high is lost, and the packet before it.
        let mut pcm = [0; 960];
        if n % 10 == 4 { &mut high } else { &mut low }.fill(&mut pcm);
        call.payload = call.encoder.encode_vec(&pcm, 400).expect("encodes");
        call.encoded = 50;
        call.talk(1, 0, |_| (!matches!(n % 10, 3 | 4)).then_some(0));
    }
    let counters = call.voice.counters();
    assert_eq!(counters.lost, 60, "{counters:?}");
    let (low, high) = (strength(&call.heard[48_000..], LOW), strength(&call.heard[48_000..], HIGH));
    assert!(high > low / 100.0, "the low tone has {low:.0}, the high one {high:.0}");
}

/// Energy at this frequency, in pieces of 10 ms, so that phases do not matter.
fn strength(samples: &[i16], hz: f32) -> f32 {
    let piece = |piece: &[i16]| {
        let (re, im) = piece.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, &sample)| {
            let angle = std::f32::consts::TAU * hz * n as f32 / 48_000.0;
            (re + f32::from(sample) * angle.cos(), im + f32::from(sample) * angle.sin())
        });
        (re * re + im * im) / 1e6
    };
    samples.chunks_exact(480).map(piece).sum()
}

#[test]
fn a_voice_that_stops_fades_and_comes_back() {
    let mut call = Call::new();
    call.talk(100, 0, |_| Some(5_000));
    let stopped = call.heard.len();
    for _ in 0..100 {
        call.now += Duration::from_millis(10);
        call.pull();
    }
    assert!(!call.voice.is_playing());
    assert!(call.heard[stopped + 48 * 300..].iter().all(|&sample| sample == 0));
    call.timestamp = call.timestamp.wrapping_add(48_000);
    let resumed = call.heard.len();
    call.talk(100, 0, |_| Some(5_000));
    let rms = level(&call.heard[resumed + 48 * 200..]);
    assert!(rms > 3500.0, "level {rms:.0} after the pause");
}

#[test]
fn pauses_of_the_sender_are_not_loss() {
    let mut call = Call::new();
    for _ in 0..20 {
        call.talk(1, 0, |_| Some(5_000));
        // Opus DTX: 380 ms without packets, time goes on.
        call.timestamp = call.timestamp.wrapping_add(48 * 380);
        for _ in 0..38 {
            call.now += Duration::from_millis(10);
            call.pull();
        }
    }
    assert_eq!(call.voice.counters().lost, 0);
    assert!(call.buffered_ms() <= 40, "{} ms held back", call.buffered_ms());
}

#[test]
fn garbage_is_counted_and_harmless() {
    let mut call = Call::new();
    call.talk(20, 0, |_| Some(5_000));
    let now = call.start + call.now;
    for n in 0..2000_u32 {
        let payload = (0..n % 40).map(|i| (n.wrapping_mul(31) ^ i) as u8).collect();
        let packet =
            Packet { sequence: n.wrapping_mul(7919) as u16, timestamp: n.wrapping_mul(0x9e37_79b9), payload };
        call.voice.receive(now, packet);
        call.pull();
    }
    assert!(call.voice.counters().undecodable > 0);
}
