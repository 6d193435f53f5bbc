//! What participants of a room hear of each other, seen from their side of a simulated network.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::time::Duration;

use sfu_core::{
    Command, DropReason, DtlsRole, Event, GoneReason, HeaderProfile, PeerId, SlotAssignment, TrackId, TrackKind,
};
use sim::{Client, World, slots, track};

const MS: Duration = Duration::from_millis(1);

fn three(world: &mut World) -> [Client; 3] {
    [1, 2, 3].map(|id| Client::connected(world, id, |_| {}))
}

#[test]
fn everybody_hears_the_others_and_nobody_itself() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = three(&mut world);
    for turn in 0..5 {
        a.speak(&[1, turn]);
        b.speak(&[2, turn]);
        world.run(20 * MS, &mut [&mut a, &mut b, &mut c]);
    }
    let from = |client: &Client| client.heard().iter().map(|payload| payload[0]).collect::<Vec<_>>();
    assert_eq!(from(&a), [2; 5]);
    assert_eq!(from(&b), [1; 5]);
    assert_eq!(from(&c), [1, 2, 1, 2, 1, 2, 1, 2, 1, 2]);
    let first = &c.received[0];
    assert_eq!(first.ssrc, c.slot(TrackKind::Mic, 0));
    assert_eq!(first.csrcs, [a.track(TrackKind::Mic)]);
    assert_eq!(c.received[1].ssrc, c.slot(TrackKind::Mic, 1));
    assert_eq!(c.received[1].csrcs, [b.track(TrackKind::Mic)]);
    assert_eq!((first.payload_type, first.level, first.marker), (111, Some(20), true));
    assert_eq!(world.counters().rtp_forwarded, 20);
}

#[test]
fn both_dtls_roles_and_their_srtp_keys_work() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |join| join.dtls_role = DtlsRole::Client);
    let mut b = Client::connected(&mut world, 2, |join| join.dtls_role = DtlsRole::Server);
    a.speak(b"to the client");
    b.speak(b"to the server");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.heard(), b.heard()), (vec![&b"to the server"[..]], vec![&b"to the client"[..]]));
    let connected = world.take_events().into_iter().filter(|event| matches!(event, Event::Connected { .. }));
    assert_eq!(connected.count(), 2);
}

#[test]
fn late_joiner_hears_a_long_stream_from_its_first_packet() {
    let mut world = World::new();
    let [mut a, mut b] = [1, 2].map(|id| Client::connected(&mut world, id, |_| {}));
    // More than one turn of the 16-bit sequence.
    for _ in 0..70_000 {
        a.speak(&[1]);
        world.now += 20 * MS;
        world.settle(&mut [&mut a, &mut b]);
    }
    assert_eq!(b.unopened, 0);
    assert_eq!(b.received.len(), 70_000);
    assert!(b.received.windows(2).all(|pair| pair[1].index == pair[0].index + 1));
    let mut late = Client::connected(&mut world, 3, |_| {});
    a.speak(&[2]);
    world.settle(&mut [&mut a, &mut b, &mut late]);
    assert_eq!(late.heard(), [&[2]]);
    assert!(late.received[0].index < 1 << 15, "roll-over counter 0 and a low sequence");
    assert_eq!(late.received[0].ssrc, b.received[0].ssrc);
    assert_eq!(late.received[0].timestamp, b.received.last().unwrap().timestamp);
}

#[test]
fn program_sound_has_slots_of_its_own() {
    let mut world = World::new();
    let mut desktop = Client::connected(&mut world, 1, |join| {
        join.tracks = vec![track(TrackKind::Program, "0", Some(9))];
        join.slots = Vec::new();
    });
    let mut voice = Client::connected(&mut world, 2, |_| {});
    let mut listener = Client::connected(&mut world, 3, |join| join.tracks.clear());
    desktop.send(0, b"a bar of music", None, false);
    voice.speak(b"hello");
    world.settle(&mut [&mut desktop, &mut voice, &mut listener]);
    // The longer packet of two streams leaves first.
    assert_eq!(listener.heard(), [&b"a bar of music"[..], b"hello"]);
    assert_eq!(listener.received[0].ssrc, listener.slot(TrackKind::Program, 0));
    assert_eq!(listener.received[1].ssrc, listener.slot(TrackKind::Mic, 0));
    assert_eq!(listener.received[0].level, None);
    assert_eq!(desktop.heard(), Vec::<&[u8]>::new(), "it receives no slot");
}

#[test]
fn listener_with_fewer_slots_gets_the_first_ones() {
    let mut world = World::new();
    let [mut a, mut b, _] = three(&mut world);
    let mut small = Client::connected(&mut world, 4, |join| join.slots = slots(1, 0));
    a.speak(b"first");
    b.speak(b"second");
    world.settle(&mut [&mut a, &mut b, &mut small]);
    assert_eq!(small.heard(), [b"first"]);
}

#[test]
fn muted_track_is_silent_keeps_its_slot_and_goes_on_without_a_gap() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = three(&mut world);
    a.speak(b"before");
    world.settle(&mut [&mut a, &mut b, &mut c]);
    world.command(Command::Mute { peer: PeerId(1), kind: TrackKind::Mic, muted: true });
    for _ in 0..50 {
        a.speak(b"secret");
        b.speak(b"other");
        world.run(20 * MS, &mut [&mut a, &mut b, &mut c]);
    }
    world.command(Command::Mute { peer: PeerId(1), kind: TrackKind::Mic, muted: false });
    a.speak(b"after");
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(world.dropped(DropReason::RtpMuted), 50);
    let of_a: Vec<_> = c.received.iter().filter(|packet| packet.ssrc == c.slot(TrackKind::Mic, 0)).collect();
    assert_eq!(of_a.iter().map(|packet| &packet.payload[..]).collect::<Vec<_>>(), [&b"before"[..], b"after"]);
    assert_eq!(of_a[1].index, of_a[0].index + 1);
    assert_eq!(of_a[1].timestamp.wrapping_sub(of_a[0].timestamp), 48_000);
    assert!(of_a[1].marker);
}

#[test]
fn leave_frees_the_slot_and_the_next_source_continues_its_stream() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = three(&mut world);
    a.speak(b"a");
    world.settle(&mut [&mut a, &mut b, &mut c]);
    world.take_events();
    world.command(Command::Leave { peer: PeerId(1) });
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert!(a.closed, "close_notify has come");
    let events = world.take_events();
    assert!(events.contains(&Event::Gone { peer: PeerId(1), reason: GoneReason::Left }));
    assert!(events.contains(&Event::Slots { room: sim::ROOM, slots: Vec::new() }));
    world.run(100 * MS, &mut [&mut b, &mut c]);
    b.speak(b"b");
    world.settle(&mut [&mut b, &mut c]);
    let [first, second] = &c.received[..] else { panic!("{:?}", c.received) };
    assert_eq!((first.ssrc, second.ssrc), (c.slot(TrackKind::Mic, 0), c.slot(TrackKind::Mic, 0)));
    assert_eq!(second.index, first.index + 1);
    assert_eq!(second.timestamp.wrapping_sub(first.timestamp), 4_800);
    assert_eq!((second.marker, &second.csrcs), (true, &vec![b.track(TrackKind::Mic)]));
    let track = TrackId(b.track(TrackKind::Mic));
    let place = SlotAssignment { kind: TrackKind::Mic, index: 0, peer: PeerId(2), track, spare: false };
    assert!(world.take_events().contains(&Event::Slots { room: sim::ROOM, slots: vec![place] }));
}

#[test]
fn ninth_speaker_is_heard_by_those_in_the_slots_until_a_slot_is_free() {
    let mut world = World::new();
    let mut clients: Vec<Client> = (1..=9).map(|id| Client::connected(&mut world, id, |_| {})).collect();
    let mut listener = Client::connected(&mut world, 20, |join| join.tracks.clear());
    let say = |world: &mut World, clients: &mut [Client], listener: &mut Client| {
        listener.received.clear();
        for client in clients.iter_mut() {
            client.speak(&[client.id.0 as u8]);
            world.settle(&mut [client, listener]);
        }
        listener.heard().iter().map(|payload| payload[0]).collect::<Vec<_>>()
    };
    assert_eq!(say(&mut world, &mut clients, &mut listener), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(world.dropped(DropReason::RtpNoSlot), 0);
    world.command(Command::Leave { peer: PeerId(3) });
    clients.remove(2);
    assert_eq!(say(&mut world, &mut clients, &mut listener), [1, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!(listener.received[7].ssrc, listener.slot(TrackKind::Mic, 2), "the place of the third");
}

#[test]
fn goodbye_of_a_source_frees_its_slot_while_the_peer_stays() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = three(&mut world);
    a.speak(b"a");
    world.settle(&mut [&mut a, &mut b, &mut c]);
    world.take_events();
    let ssrc = a.streams[0].ssrc;
    let [s0, s1, s2, s3] = ssrc.to_be_bytes();
    a.send_rtcp(&[0x80, 201, 0, 1, s0, s1, s2, s3, 0x81, 203, 0, 1, s0, s1, s2, s3]);
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(world.take_events(), [Event::Slots { room: sim::ROOM, slots: Vec::new() }]);
    b.speak(b"b");
    a.speak(b"again");
    world.settle(&mut [&mut a, &mut b, &mut c]);
    let places: Vec<_> = c.received.iter().map(|packet| packet.ssrc).collect();
    assert_eq!(places.len(), 3);
    assert_eq!(places[1..].iter().filter(|ssrc| **ssrc == c.slot(TrackKind::Mic, 0)).count(), 1);
    assert_eq!(world.node.peer_count(), 3);
}

#[test]
fn lost_and_reordered_packets_keep_their_distance_and_copies_are_dropped() {
    let mut world = World::new();
    let [mut a, mut b, _] = three(&mut world);
    let ssrc = a.streams[0].ssrc;
    let packets: Vec<_> =
        (0..6u64).map(|n| a.packet((111, false), (200 + n, 960 * n as u32, ssrc), None, &[n as u8])).collect();
    for n in [0, 1, 4, 3, 3, 5, 0] {
        a.send_raw(packets[n].clone());
    }
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.heard(), [[0], [1], [4], [3], [5]]);
    let base = b.received[0].index;
    assert_eq!(b.received.iter().map(|packet| packet.index - base).collect::<Vec<_>>(), [0, 1, 4, 3, 5]);
    assert_eq!(world.dropped(DropReason::RtpReplayed), 2);
}

#[test]
fn each_listener_gets_its_own_payload_types_and_extension_ids() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    let odd = HeaderProfile { opus: 96, red: None, audio_level: Some(14), mid: None };
    let mut b = Client::connected(&mut world, 2, |join| join.profile = odd);
    let bare = HeaderProfile { opus: 109, red: None, audio_level: None, mid: None };
    let mut c = Client::connected(&mut world, 3, |join| join.profile = bare);
    a.send(0, b"x", Some(0x80 | 33), true);
    b.send(0, b"y", Some(44), false);
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!((a.received[0].payload_type, a.received[0].level), (111, Some(44)));
    assert_eq!((b.received[0].payload_type, b.received[0].level), (96, Some(0x80 | 33)));
    assert_eq!((c.received[0].payload_type, c.received[0].level), (109, None));
    assert_eq!(c.heard(), [b"x", b"y"]);
}

#[test]
fn red_passes_to_those_who_know_it_and_is_unwrapped_for_the_others() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    let mut knows = Client::connected(&mut world, 2, |_| {});
    let plain = HeaderProfile { opus: 109, red: None, audio_level: Some(1), mid: None };
    let mut does_not = Client::connected(&mut world, 3, |join| join.profile = plain);
    a.speak(b"first");
    world.settle(&mut [&mut a, &mut knows, &mut does_not]);
    for client in [&mut knows, &mut does_not] {
        client.received.clear();
    }
    let red = [&[0x80 | 111, 0x0f, 0x00, 3, 111][..], b"old", b"new!"].concat();
    a.send_as(0, 63, &red, None, false);
    a.send_as(0, 63, &[0x80 | 111, 0, 0, 200, 111, 1], None, false);
    a.send_as(0, 13, b"comfort noise", None, false);
    world.settle(&mut [&mut a, &mut knows, &mut does_not]);
    assert_eq!((knows.received[0].payload_type, &knows.heard()[..]), (63, &[&red[..]][..]));
    assert_eq!((does_not.received[0].payload_type, &does_not.heard()[..]), (109, &[&b"new!"[..]][..]));
    assert_eq!((world.dropped(DropReason::RtpMalformed), world.dropped(DropReason::RtpPayloadType)), (1, 1));
}

#[test]
fn padding_and_the_publishers_own_sources_are_taken_off() {
    let mut world = World::new();
    let [mut a, mut b, _] = three(&mut world);
    let ssrc = a.streams[0].ssrc.to_be_bytes();
    let header = |first: u8, sequence: u8| [&[first, 111, 0, sequence, 0, 0, 0, 0][..], &ssrc].concat();
    let with_csrc = [&header(0xa1, 1)[..], &[9, 9, 9, 9], b"opus", &[0, 0, 3]].concat();
    let only_padding = [&header(0xa0, 2)[..], &[0, 0, 3]].concat();
    let too_much = [&header(0xa0, 3)[..], &[0, 0, 4]].concat();
    for (packet, header_len, index) in [(with_csrc, 16, 1), (only_padding, 12, 2), (too_much, 12, 3)] {
        let len = packet.len();
        let sealed = a.seal(packet, header_len, len, index);
        a.send_raw(sealed);
    }
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.heard(), [b"opus"]);
    assert_eq!(b.received[0].csrcs, [a.track(TrackKind::Mic)]);
    assert_eq!((world.dropped(DropReason::RtpEmpty), world.dropped(DropReason::RtpMalformed)), (1, 1));
}

#[test]
fn source_that_no_track_claims_is_dropped() {
    let mut world = World::new();
    let [mut a, mut b, _] = three(&mut world);
    let packet = a.packet((111, false), (1, 0, 0xbad), None, b"x");
    a.send_raw(packet);
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.received.len(), world.dropped(DropReason::RtpNoTrack)), (0, 1));
}

#[test]
fn tracks_without_announced_sources_are_told_apart_by_their_mid() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |join| {
        join.tracks = vec![track(TrackKind::Mic, "v", None), track(TrackKind::Program, "d", None)];
    });
    let mut b = Client::connected(&mut world, 2, |_| {});
    // The ids of the usual profile: mid is extension 4.
    for (sequence, ssrc, mid) in [(1, 50, b'd'), (1, 60, b'v'), (2, 50, 0)] {
        let extension = [0xbe, 0xde, 0, 1, 0x40, mid, 0, 0];
        let mut packet = [&[0x80, 111, 0, sequence, 0, 0, 0, 0, 0, 0, 0, ssrc][..]].concat();
        if mid != 0 {
            packet[0] |= 0x10;
            packet.extend(extension);
        }
        let header_len = packet.len();
        packet.push(ssrc);
        let sealed = a.seal(packet, header_len, header_len + 1, u64::from(sequence));
        a.send_raw(sealed);
    }
    world.settle(&mut [&mut a, &mut b]);
    let (program, voice) = (b.slot(TrackKind::Program, 0), b.slot(TrackKind::Mic, 0));
    assert_eq!(b.received.iter().map(|packet| packet.ssrc).collect::<Vec<_>>(), [program, voice, program]);
    assert_eq!(b.received[0].csrcs, [a.track(TrackKind::Program)]);
    assert_eq!(b.received[1].csrcs, [a.track(TrackKind::Mic)]);
}

#[test]
fn track_that_changes_its_source_goes_on_in_its_slot() {
    let mut world = World::new();
    let [mut a, mut b, _] = three(&mut world);
    a.speak(b"\x78old");
    world.run(20 * MS, &mut [&mut a, &mut b]);
    let extension = [0xbe, 0xde, 0, 1, 0x40, b'0', 0, 0];
    let packet = [&[0x90, 111, 0xf0, 0, 9, 9, 9, 9, 0, 0, 0, 77][..], &extension, b"\x78new"].concat();
    let sealed = a.seal(packet, 20, 24, 0xf000);
    a.send_raw(sealed);
    a.speak(b"straggler");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.heard(), [b"\x78old", b"\x78new"]);
    let [old, new] = &b.received[..] else { panic!("{:?}", b.received) };
    assert_eq!((new.ssrc, new.index, new.marker), (old.ssrc, old.index + 1, true));
    assert_eq!(new.timestamp.wrapping_sub(old.timestamp), 960);
    assert_eq!(world.dropped(DropReason::RtpNoTrack), 1);
}

#[test]
fn publisher_far_above_any_opus_rate_is_held_back() {
    let mut world = World::new();
    let [mut a, mut b, _] = three(&mut world);
    for _ in 0..200 {
        for _ in 0..100 {
            a.speak(b"x");
        }
        world.run(10 * MS, &mut [&mut a, &mut b]);
    }
    // Two seconds at 500 a second, and as much again that the allowance holds.
    assert!((1_900..=2_100).contains(&b.received.len()), "{}", b.received.len());
    assert_eq!(world.dropped(DropReason::RtpFlood) as usize, 20_000 - b.received.len());
    assert_eq!(b.unopened, 0);
}

#[test]
fn own_long_turn_in_a_slot_does_not_break_the_sequence_for_its_speaker() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = three(&mut world);
    b.speak(b"1");
    world.settle(&mut [&mut a, &mut b, &mut c]);
    world.command(Command::Leave { peer: PeerId(2) });
    for _ in 0..40_000 {
        a.speak(b"a");
        world.now += 20 * MS;
        world.settle(&mut [&mut a, &mut c]);
    }
    let ssrc = a.streams[0].ssrc.to_be_bytes();
    a.send_rtcp(&[&[0x81, 203, 0, 1][..], &ssrc].concat());
    world.settle(&mut [&mut a, &mut c]);
    c.speak(b"2");
    world.settle(&mut [&mut a, &mut c]);
    assert_eq!((a.heard(), a.unopened), (vec![&b"1"[..], b"2"], 0));
    assert_eq!(a.received[1].ssrc, a.received[0].ssrc);
    assert_eq!(a.received[1].index, a.received[0].index + 1);
}

#[test]
fn speakers_are_named_loudest_first_on_change_only() {
    let mut world = World::new();
    let [mut a, mut b, mut c] = three(&mut world);
    world.take_events();
    let speakers = |world: &mut World| {
        let events = world.take_events().into_iter();
        events
            .filter_map(|event| if let Event::Speakers { peers, .. } = event { Some(peers) } else { None })
            .collect()
    };
    for _ in 0..150 {
        a.send(0, b"a", Some(30), false);
        b.send(0, b"b", Some(10), false);
        c.send(0, b"c", Some(100), false);
        world.run(20 * MS, &mut [&mut a, &mut b, &mut c]);
    }
    let named: Vec<Vec<PeerId>> = speakers(&mut world);
    assert_eq!(named.last(), Some(&vec![PeerId(2), PeerId(1)]));
    assert!(named.len() <= 2, "{named:?}");
    world.run(2_000 * MS, &mut [&mut a, &mut b, &mut c]);
    let named: Vec<Vec<PeerId>> = speakers(&mut world);
    assert_eq!(named, [Vec::new()]);
}
