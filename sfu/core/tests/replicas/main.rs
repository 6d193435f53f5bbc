//! A room on several shards: nodes that know of each other only what crosses a bus in memory.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

#[path = "../sim/mod.rs"]
mod sim;

mod call;
mod churn;

use call::Call;
use sfu_core::{DropReason, Event, Limits, SlotAssignment, TrackKind};

const ADA: u64 = 1;
const BEN: u64 = 2;
const CLEO: u64 = 3;
const DAN: u64 = 4;
/// Of 20 ms, at 20 dB below overload after a quiet room.
const PACKETS_TO_SPEAK: usize = 4;

/// Ada at home, Ben and Cleo on the other shard.
fn three() -> Call {
    let mut call = Call::on_shards(2);
    call.join(0, ADA);
    call.join(1, BEN);
    call.join(1, CLEO);
    call
}

/// Of a voice in one place: sequence and time go on, from wherever it comes.
fn assert_unbroken(call: &Call, listener: u64, payloads: &[&[u8]]) {
    let client = call.client(listener);
    assert_eq!(client.unopened, 0);
    assert_eq!(client.heard(), payloads);
    let first = &client.received[0];
    for (packet, n) in client.received.iter().zip(0..) {
        assert_eq!((packet.ssrc, packet.index), (first.ssrc, first.index + n));
        assert_eq!(packet.timestamp.wrapping_sub(first.timestamp) % 480, 0);
    }
}

#[test]
fn a_speaker_is_heard_on_every_shard_and_never_by_itself() {
    let mut call = three();
    for n in 0..50 {
        call.speak(ADA, &[n]);
    }
    let said: Vec<[u8; 1]> = (0..50).map(|n| [n]).collect();
    let said: Vec<&[u8]> = said.iter().map(|payload| &payload[..]).collect();
    assert_unbroken(&call, BEN, &said);
    assert_unbroken(&call, CLEO, &said);
    assert!(call.client(ADA).heard().is_empty());
    let packet = &call.client(CLEO).received[0];
    assert_eq!(packet.csrcs, [call.client(ADA).track(TrackKind::Mic)]);
    assert_eq!(packet.ssrc, call.client(CLEO).slot(TrackKind::Mic, 0));
}

#[test]
fn speakers_away_from_home_get_slots_from_it() {
    let mut call = three();
    for _ in 0..5 {
        call.speak(BEN, b"ben");
        call.speak(CLEO, b"cleo");
        call.speak(ADA, b"ada");
    }
    let first_of = |call: &Call, listener: u64, payload: &[u8]| {
        call.client(listener).heard().iter().filter(|heard| **heard == payload).count()
    };
    assert_eq!(first_of(&call, ADA, b"ben"), 4, "the first packet asked for a slot");
    assert_eq!(first_of(&call, CLEO, b"ben"), 4);
    assert_eq!(first_of(&call, ADA, b"cleo"), 4);
    assert_eq!(first_of(&call, BEN, b"ada"), 5);
    assert_eq!(first_of(&call, BEN, b"ben"), 0);
    let slots = call.agreed_slots();
    assert_eq!(slots.iter().map(|slot| slot.peer.0).collect::<Vec<_>>(), [BEN, CLEO, ADA]);
}

#[test]
fn who_begins_to_speak_away_from_home_is_heard_at_once() {
    const QUIET: u8 = 75;
    const LOUD: u8 = 20;
    // A slot and a spare seat, which those at home have. Offers are repeated each 40 ms: at any moment between two.
    for ticks_before in [25, 26, 27, 28] {
        let mut call = Call::with_limits(2, Limits { speech_slots: 1, ..Limits::default() });
        call.join(0, ADA);
        call.join(0, DAN);
        call.join(1, BEN);
        call.join(1, CLEO);
        let mut tick = |ben: u8| {
            for (id, level) in [(ADA, QUIET), (DAN, QUIET), (BEN, ben), (CLEO, QUIET)] {
                call.client_mut(id).send(0, &[0x78, id as u8], Some(level), false);
            }
            call.run_ms(20);
            call.client(CLEO).heard().contains(&&[0x78, BEN as u8][..])
        };
        assert!((0..ticks_before).all(|_| !tick(QUIET)));
        // The packets after which he counts as a speaker, and one that goes into the slot.
        let heard_after = (1..20).find(|_| tick(LOUD));
        assert_eq!(heard_after, Some(PACKETS_TO_SPEAK + 1), "after {ticks_before}");
    }
}

#[test]
fn only_the_home_tells_the_shell_of_slots_and_speakers() {
    let mut call = three();
    for _ in 0..40 {
        call.speak(BEN, b"ben");
    }
    let rooms = |event: &Event| matches!(event, Event::Slots { .. } | Event::Speakers { .. });
    assert!(!call.events(1).iter().any(rooms));
    let home = call.events(0);
    let mut slots = home.iter().filter_map(|event| match event {
        Event::Slots { slots, .. } => Some(slots.as_slice()),
        _ => None,
    });
    let last: &[SlotAssignment] = slots.next_back().unwrap();
    assert_eq!((last.len(), last[0].peer.0), (1, BEN));
    assert!(home.iter().any(|event| matches!(event, Event::Speakers { peers, .. } if peers[0].0 == BEN)));
}

#[test]
fn a_muted_track_is_silent_everywhere_and_goes_on_without_a_gap() {
    let mut call = three();
    call.speak(BEN, b"asks");
    call.speak(BEN, b"1");
    call.mute(BEN, true);
    for _ in 0..5 {
        call.speak(BEN, b"secret");
    }
    call.mute(BEN, false);
    call.speak(BEN, b"2");
    call.speak(BEN, b"3");
    let heard = call.client(ADA).heard().concat();
    assert!(heard.ends_with(b"3") && !heard.windows(6).any(|part| part == b"secret"), "{heard:?}");
    let indices: Vec<u64> = call.client(ADA).received.iter().map(|packet| packet.index).collect();
    assert!(indices.windows(2).all(|pair| pair[1] == pair[0] + 1), "{indices:?}");
}

#[test]
fn a_publisher_that_restarts_is_one_unbroken_stream_on_the_other_shard() {
    let mut call = three();
    call.speak(ADA, b"1");
    call.speak(ADA, b"2");
    call.new_source(ADA, 77_777);
    call.speak(ADA, b"3");
    call.speak(ADA, b"4");
    assert_unbroken(&call, BEN, &[b"1", b"2", b"3", b"4"]);
}

#[test]
fn a_late_joiner_on_a_third_shard_hears_who_speaks_already() {
    let mut call = Call::on_shards(3);
    call.join(0, ADA);
    call.join(1, BEN);
    for _ in 0..100 {
        call.speak(ADA, b"ada");
        call.speak(BEN, b"ben");
    }
    call.join(2, CLEO);
    call.speak(ADA, b"ada again");
    call.speak(BEN, b"ben again");
    assert_eq!(call.client(CLEO).heard(), [&b"ada again"[..], b"ben again"]);
    assert!(call.client(CLEO).received.iter().all(|packet| packet.index < 1 << 15));
    assert_eq!(call.agreed_slots().len(), 2);
}

#[test]
fn the_slot_of_a_peer_that_leaves_is_free_for_others() {
    let mut call = three();
    call.speak(BEN, b"ben");
    call.speak(ADA, b"ada");
    assert_eq!(call.agreed_slots().len(), 2);
    call.leave(BEN);
    call.run_ms(20);
    assert_eq!(call.agreed_slots().iter().map(|slot| slot.peer.0).collect::<Vec<_>>(), [ADA]);
    call.speak(CLEO, b"asks");
    call.speak(CLEO, b"cleo");
    let slots = call.agreed_slots();
    assert_eq!(slots.iter().map(|slot| (slot.index, slot.peer.0)).collect::<Vec<_>>(), [(0, CLEO), (1, ADA)]);
    assert!(call.client(ADA).heard().contains(&&b"cleo"[..]));
}

#[test]
fn when_the_home_empties_another_shard_takes_over_with_the_slots_it_knows() {
    let mut call = three();
    call.join(0, DAN);
    for _ in 0..3 {
        call.speak(BEN, b"ben");
        call.speak(ADA, b"ada");
    }
    call.leave(ADA);
    call.leave(DAN);
    call.run_ms(20);
    assert_eq!(call.home(), 1);
    call.speak(BEN, b"still here");
    assert_eq!(*call.client(CLEO).heard().last().unwrap(), b"still here");
    assert_eq!(call.agreed_slots().iter().map(|slot| slot.peer.0).collect::<Vec<_>>(), [BEN]);
    let told = |event: &Event| matches!(event, Event::Slots { slots, .. } if slots.len() == 1);
    assert!(call.events(1).iter().any(told), "and tells the shell");
    call.join(0, ADA + 10);
    call.speak(BEN, b"welcome");
    assert_eq!(call.client(ADA + 10).heard(), [b"welcome"]);
}

#[test]
fn lost_news_is_made_up_for_within_a_second() {
    let mut call = three();
    call.lose(|_, is_media| !is_media);
    call.speak(BEN, b"nobody knows");
    call.speak(ADA, b"home knows");
    assert!(call.client(ADA).heard().is_empty() && call.client(BEN).heard().is_empty());
    call.lose(|_, _| false);
    for _ in 0..60 {
        call.run_ms(20);
    }
    call.speak(BEN, b"ben");
    call.speak(ADA, b"ada");
    assert_eq!(*call.client(ADA).heard().last().unwrap(), b"ben");
    assert_eq!(*call.client(BEN).heard().last().unwrap(), b"ada");
    assert_eq!(call.agreed_slots().len(), 2);
}

#[test]
fn a_full_queue_loses_sound_and_nothing_else() {
    let mut call = three();
    call.speak(ADA, b"1");
    call.lose(|to, is_media| is_media && to == 1);
    call.speak(ADA, b"2");
    call.speak(ADA, b"3");
    call.lose(|_, _| false);
    call.speak(ADA, b"4");
    assert_eq!(call.client(BEN).heard(), [b"1", b"4"]);
    let indices: Vec<u64> = call.client(BEN).received.iter().map(|packet| packet.index).collect();
    assert_eq!(indices[1], indices[0] + 3, "loss shows as loss");
}

#[test]
fn items_that_make_no_sense_change_nothing() {
    let mut call = three();
    call.speak(ADA, b"1");
    call.speak(BEN, b"asks");
    call.speak(BEN, b"2");
    let items = call.recorded().to_vec();
    assert!(items.len() > 5);
    let slots = call.agreed_slots();
    for (from, to, bytes) in &items {
        for cut in 0..bytes.len() {
            call.inject(*from, *to, &bytes[..cut]);
        }
        for at in 0..bytes.len().min(60) {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            // From nobody who has the room.
            call.inject(9, *to, &changed);
        }
    }
    assert_eq!(call.agreed_slots(), slots);
    assert!(call.dropped(DropReason::BusMalformed) > 100 && call.dropped(DropReason::BusStale) > 100);
    call.speak(ADA, b"3");
    assert_eq!(*call.client(BEN).heard().last().unwrap(), b"3");
}
