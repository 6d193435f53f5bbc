//! The node's RTCP, read and written by another project's code: what a publisher is told about its packets, what a
//! listener is told about the slots, and what the node learns from both.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::time::Duration;

use bytes::BytesMut;
use rtcp::{
    packet::{Packet, marshal, unmarshal},
    receiver_report::ReceiverReport,
    reception_report::ReceptionReport,
    sender_report::SenderReport,
    source_description::{SdesType, SourceDescription},
};
use sfu_core::{DropReason, PeerId, TrackKind};
use sim::{Client, World};

const MS: Duration = Duration::from_millis(1);
/// From 1900 to 1970.
const NTP_EPOCH: u64 = 2_208_988_800;

fn parse(compound: &[u8]) -> Vec<Box<dyn Packet>> {
    unmarshal(&mut BytesMut::from(compound)).expect("valid compound")
}

/// All packets of one type in what a client got.
fn all<T: Clone + 'static>(client: &Client) -> Vec<T> {
    let packets = client.rtcp.iter().flat_map(|compound| parse(compound));
    packets.filter_map(|packet| packet.as_any().downcast_ref::<T>().cloned()).collect()
}

#[test]
fn publisher_is_told_what_came_and_what_was_lost() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    let ssrc = a.streams[0].ssrc;
    let started = world.now;
    for n in 0..200u32 {
        if n == 40 {
            let report = SenderReport { ssrc, ntp_time: 0x1111_2222_3333_4444, ..SenderReport::default() };
            a.send_rtcp(&marshal(&[Box::new(report)]).unwrap());
        }
        a.speak(b"x");
        // Each fourth one is lost on the way.
        if n % 4 == 3 {
            a.streams[0].index += 1;
            a.streams[0].timestamp += 960;
        }
        world.run(20 * MS, &mut [&mut a]);
    }
    let reports: Vec<ReceptionReport> =
        all::<ReceiverReport>(&a).into_iter().flat_map(|report| report.reports).collect();
    let seconds = (world.now - started).as_secs() as usize;
    assert!((seconds - 1..=seconds + 1).contains(&reports.len()), "{} in {seconds} s", reports.len());
    assert!(reports.iter().all(|report| report.ssrc == ssrc));
    let last = reports.last().unwrap();
    assert!((45..=56).contains(&last.fraction_lost), "a fifth: {}", last.fraction_lost);
    let expected = last.last_sequence_number - 100 + 1;
    assert!(last.total_lost.abs_diff(expected / 5) <= 1, "{} of {expected}", last.total_lost);
    assert_eq!(last.last_sender_report, 0x2222_3333);
    let delay = Duration::from_micros(u64::from(last.delay) * 1_000_000 / 65_536);
    assert!((2_000..4_000).contains(&(delay.as_millis() as u64)), "{delay:?}");
    // Sent each 20 ms, but each fifth interval carries 40 ms of timestamp: that is the jitter.
    assert!(last.jitter > 0 && last.jitter < 960, "{}", last.jitter);
}

#[test]
fn listener_is_told_the_time_of_each_live_slot() {
    let mut world = World::new();
    let started = world.now;
    let mut a = Client::connected(&mut world, 1, |_| {});
    let mut listener = Client::connected(&mut world, 2, |join| join.tracks.clear());
    for _ in 0..150 {
        a.speak(b"0123456789");
        world.run(20 * MS, &mut [&mut a, &mut listener]);
    }
    assert!(all::<SenderReport>(&a).is_empty(), "its own slot is the only live one");
    let reports = all::<SenderReport>(&listener);
    assert!((1..=3).contains(&reports.len()), "{}", reports.len());
    let last = reports.last().unwrap();
    assert_eq!(last.ssrc, listener.slot(TrackKind::Mic, 0));
    assert_eq!(last.octet_count, last.packet_count * 10);
    // The mapping is right when it names the time at which a packet was heard.
    let named = last.ntp_time - (NTP_EPOCH << 32);
    let at = started + Duration::from_micros((named >> 32) * 1_000_000 + (((named & 0xffff_ffff) * 1_000_000) >> 32));
    let packet = listener.received.iter().rfind(|packet| packet.at <= at).unwrap();
    let units = (at - packet.at).as_micros() as i64 * 48 / 1_000;
    let distance = i64::from(last.rtp_time.wrapping_sub(packet.timestamp) as i32) - units;
    assert!(distance.abs() <= 48, "{distance} units");
    let names: Vec<SourceDescription> = all(&listener);
    let chunks = &names.last().unwrap().chunks;
    assert!(chunks.iter().any(|chunk| chunk.source == last.ssrc));
    let cnames: Vec<_> = chunks.iter().map(|chunk| (chunk.items[0].sdes_type, chunk.items[0].text.clone())).collect();
    assert!(
        cnames.iter().all(|(kind, text)| *kind == SdesType::SdesCname && *text == cnames[0].1 && text.len() == 16)
    );
}

#[test]
fn node_learns_loss_and_round_trip_from_a_listener() {
    let mut world = World::new();
    let started = world.now;
    let mut a = Client::connected(&mut world, 1, |_| {});
    let mut listener = Client::connected(&mut world, 2, |join| join.tracks.clear());
    for _ in 0..150 {
        a.speak(b"x");
        world.run(20 * MS, &mut [&mut a, &mut listener]);
    }
    let sender: SenderReport = all(&listener).pop().unwrap();
    let named = sender.ntp_time - (NTP_EPOCH << 32);
    // The listener holds the report until now, less 80 ms that it spends on the way.
    let sent_at = Duration::from_micros((named >> 32) * 1_000_000 + (((named & 0xffff_ffff) * 1_000_000) >> 32));
    let age = (world.now - started) - sent_at;
    let block = |ssrc, fraction_lost| ReceptionReport {
        ssrc,
        fraction_lost,
        last_sender_report: (sender.ntp_time >> 16) as u32,
        delay: ((age - 80 * MS).as_micros() * 65_536 / 1_000_000) as u32,
        ..ReceptionReport::default()
    };
    let reports =
        vec![block(listener.slot(TrackKind::Mic, 0), 64), block(listener.slot(TrackKind::Mic, 1), 3), block(77, 255)];
    listener
        .send_rtcp(&marshal(&[Box::new(ReceiverReport { ssrc: 1, reports, ..ReceiverReport::default() })]).unwrap());
    world.settle(&mut [&mut a, &mut listener]);
    let stats = world.node.peer_stats(PeerId(2)).unwrap();
    assert_eq!(stats.fraction_lost, 0.25);
    let round_trip = stats.round_trip.unwrap();
    assert!((79..=81).contains(&round_trip.as_millis()), "{round_trip:?}");
    assert_eq!((stats.srtp_profile, stats.paths), (Some("AEAD_AES_256_GCM"), 1));
}

#[test]
fn malformed_compound_of_an_authentic_peer_is_counted() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    a.send_rtcp(&[0x81, 200, 0, 1, 0, 0, 0, 1]);
    world.settle(&mut [&mut a]);
    assert_eq!((world.dropped(DropReason::RtcpMalformed), world.counters().rtcp_received), (1, 1));
}
