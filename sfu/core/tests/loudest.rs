//! More voices than slots, seen from the listeners: who hears whom, where, and that the streams stay whole.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::{collections::BTreeMap, time::Duration};

use sfu_core::{Command, DropReason, Event, HeaderProfile, Limits, PeerId, SlotAssignment, TrackKind};
use sim::{Client, Endpoint, World, chromium, slots, track};

const MS: Duration = Duration::from_millis(1);
/// An Opus packet of 20 ms.
const OPUS: u8 = 0x78;
const SILENT: u8 = 70;

struct Meeting {
    world: World,
    clients: Vec<Client>,
    places: Vec<SlotAssignment>,
}

impl Meeting {
    /// Peers 1 to `talkers`, then one that only listens.
    fn new(speech_slots: u8, talkers: u64) -> Self {
        let mut world = World::with_limits(Limits { speech_slots, ..Limits::default() });
        let usual = slots(usize::from(speech_slots), 1);
        let mut clients: Vec<Client> =
            (1..=talkers).map(|id| Client::connected(&mut world, id, |join| join.slots.clone_from(&usual))).collect();
        clients.push(Client::connected(&mut world, 100, |join| {
            join.tracks.clear();
            join.slots.clone_from(&usual);
        }));
        Self { world, clients, places: Vec::new() }
    }

    /// 20 ms: everybody sends a packet with the level that `level` gives, none for `None`.
    fn tick(&mut self, level: impl Fn(u64) -> Option<u8>) {
        for client in &mut self.clients {
            let id = client.id.0;
            if let Some(level) = level(id).filter(|_| !client.streams.is_empty()) {
                client.send(0, &[OPUS, id as u8, 0, 0, 0], Some(level), false);
            } else if let Some(stream) = client.streams.first_mut() {
                stream.timestamp = stream.timestamp.wrapping_add(960);
            }
        }
        let mut endpoints: Vec<&mut dyn Endpoint> = self.clients.iter_mut().map(|c| c as &mut dyn Endpoint).collect();
        self.world.run(20 * MS, &mut endpoints);
        for event in self.world.take_events() {
            if let Event::Slots { slots, .. } = event {
                self.places = slots;
            }
        }
    }

    fn run(&mut self, ticks: usize, level: impl Fn(u64) -> Option<u8>) {
        for _ in 0..ticks {
            self.tick(&level);
        }
    }

    fn forget(&mut self) {
        for client in &mut self.clients {
            client.received.clear();
        }
    }

    /// Who has been heard by a client since [`Meeting::forget`], and in which of its slots.
    fn heard_by(&self, id: u64) -> BTreeMap<u8, Vec<u64>> {
        let client = self.client(id);
        let mut heard = BTreeMap::<u8, Vec<u64>>::new();
        for packet in &client.received {
            let slot = client.joined.slots.iter().find(|slot| slot.ssrc.0 == packet.ssrc).unwrap();
            let voices = heard.entry(slot.index).or_default();
            let source = u64::from(packet.payload[1]);
            assert_eq!(packet.csrcs, [self.client(source).track(TrackKind::Mic)], "CSRC names the source");
            if !voices.contains(&source) {
                voices.push(source);
            }
        }
        heard
    }

    fn client(&self, id: u64) -> &Client {
        self.clients.iter().find(|client| client.id.0 == id).unwrap()
    }

    /// Who a client should find in its slots by the event: the spare voice in the place of its own.
    fn places_of(&self, id: u64) -> BTreeMap<u8, Vec<u64>> {
        let spare = self.places.iter().find(|place| place.spare).map(|place| place.peer);
        let taken = self.places.iter().filter(|place| !place.spare && place.kind == TrackKind::Mic);
        let seen = taken.filter_map(|place| {
            let peer = if place.peer == PeerId(id) { spare? } else { place.peer };
            (peer != PeerId(id)).then_some((place.index, vec![peer.0]))
        });
        seen.collect()
    }
}

#[test]
fn everybody_hears_as_many_others_as_there_are_slots_and_nobody_itself() {
    let mut meeting = Meeting::new(3, 4);
    meeting.run(5, |_| Some(20));
    meeting.forget();
    meeting.run(20, |_| Some(20));
    for talker in 1..=4 {
        let heard: Vec<u64> = meeting.heard_by(talker).into_values().flatten().collect();
        let mut others = heard.clone();
        others.sort_unstable();
        assert_eq!(others, (1..=4).filter(|other| *other != talker).collect::<Vec<_>>(), "talker {talker}");
        assert_eq!(meeting.client(talker).received.len(), 3 * 20);
    }
    assert_eq!(meeting.heard_by(100), BTreeMap::from([(0, vec![1]), (1, vec![2]), (2, vec![3])]));
    assert_eq!(meeting.heard_by(2)[&1], [4], "the spare voice is where its own would be");
    assert_eq!(meeting.world.dropped(DropReason::RtpNoSlot), 0);
}

#[test]
fn csrc_and_slots_agree_whoever_talks() {
    let mut meeting = Meeting::new(3, 12);
    meeting.run(20, |_| Some(SILENT));
    for round in 0..30u64 {
        let talks = move |id: u64| {
            let loud = (id * 7 + round * 5) % 12 < 3;
            Some(if loud { 20 + id as u8 } else { SILENT })
        };
        // Who was dominant keeps its seat for a second.
        meeting.run(70, talks);
        meeting.forget();
        meeting.run(5, talks);
        for id in (1..=12).chain([100]) {
            assert_eq!(meeting.heard_by(id), meeting.places_of(id), "round {round}, peer {id}");
        }
        let heard: Vec<u64> = meeting.heard_by(100).into_values().flatten().collect();
        for loud in (1..=12).filter(|id| talks(*id).unwrap() < SILENT) {
            assert!(heard.contains(&loud), "round {round}: {loud} talks, {heard:?} are heard");
        }
    }
}

#[test]
fn every_stream_stays_continuous_over_changes_of_speakers_and_of_the_own_place() {
    let mut meeting = Meeting::new(2, 9);
    for round in 0..60u64 {
        meeting.run(25, move |id| Some(if (id + round * 4) % 9 < 2 { 20 } else { SILENT }));
        // What runs ahead is made up in pauses.
        meeting.run(2, |_| None);
    }
    for client in &meeting.clients {
        let mut streams = BTreeMap::<u32, Vec<_>>::new();
        for packet in &client.received {
            streams.entry(packet.ssrc).or_default().push(packet);
        }
        assert_eq!(client.unopened, 0);
        assert_eq!(streams.len(), 2, "peer {:?}", client.id);
        for packets in streams.values() {
            let mut changes = 0;
            for pair in packets.windows(2) {
                assert_eq!(pair[1].index, pair[0].index + 1, "peer {:?}", client.id);
                let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
                let elapsed = (pair[1].at - pair[0].at).as_millis() as u32 * 48;
                assert!((960..=elapsed + 960).contains(&step), "{step} in {elapsed}, peer {:?}", client.id);
                if pair[1].csrcs != pair[0].csrcs {
                    changes += 1;
                }
            }
            let (first, last) = (packets[0], packets[packets.len() - 1]);
            let drift = i64::from(last.timestamp.wrapping_sub(first.timestamp))
                - (last.at - first.at).as_millis() as i64 * 48;
            assert!(drift.abs() <= 7 * 960, "changes add up to {drift}");
            assert!(changes >= 5, "{changes}");
        }
    }
    let listener = meeting.client(100);
    let changed = |pair: &[sim::Received]| pair[0].ssrc == pair[1].ssrc && pair[0].csrcs != pair[1].csrcs;
    let mut by_slot = listener.received.clone();
    by_slot.sort_by_key(|packet| (packet.ssrc, packet.index));
    assert!(by_slot.windows(2).filter(|pair| changed(pair)).all(|pair| pair[1].marker));
}

#[test]
fn a_new_speaker_is_heard_within_300_ms_and_typing_is_not() {
    let mut meeting = Meeting::new(2, 30);
    meeting.run(50, |_| Some(SILENT));
    for talker in [11, 17, 23, 30] {
        meeting.run(50, |_| Some(SILENT));
        meeting.forget();
        let began = meeting.world.now;
        meeting.run(15, |id| Some(if id == talker { 30 } else { SILENT }));
        let first = meeting.client(100).received.iter().find(|packet| u64::from(packet.payload[1]) == talker);
        let after = first.expect("heard").at - began;
        assert!(after <= 200 * MS, "{after:?}");
    }
    let before = meeting.places.clone();
    for _ in 0..20 {
        meeting.run(1, |id| Some(if id == 5 { 20 } else { SILENT }));
        meeting.run(5, |_| Some(SILENT));
    }
    assert_eq!(meeting.places, before);
}

#[test]
fn muted_voice_leaves_at_once_and_another_takes_its_place() {
    let mut meeting = Meeting::new(2, 4);
    meeting.run(5, |_| Some(SILENT));
    assert_eq!(meeting.heard_by(100), BTreeMap::from([(0, vec![1]), (1, vec![2])]));
    meeting.world.command(Command::Mute { peer: PeerId(1), kind: TrackKind::Mic, muted: true });
    meeting.tick(|_| None);
    assert!(meeting.places.iter().all(|place| place.peer != PeerId(1)), "{:?}", meeting.places);
    meeting.forget();
    meeting.run(2, |_| Some(SILENT));
    assert_eq!(meeting.heard_by(100), BTreeMap::from([(0, vec![3]), (1, vec![2])]));
    assert_eq!(meeting.heard_by(1), BTreeMap::from([(0, vec![3]), (1, vec![2])]), "its own slot has been taken");
}

#[test]
fn publisher_without_levels_is_heard_while_it_sends_sound() {
    let mut meeting = Meeting::new(1, 3);
    let bare = HeaderProfile { audio_level: None, ..chromium() };
    let mut plain = Client::connected(&mut meeting.world, 50, |join| {
        join.profile = bare;
        join.slots.clear();
    });
    meeting.run(5, |_| Some(SILENT));
    for turn in 0..20u8 {
        plain.send(0, &[OPUS, 3, turn, 0, 0], None, false);
        meeting.world.settle(&mut [&mut plain]);
        meeting.tick(|_| Some(SILENT));
    }
    assert!(meeting.places.iter().any(|place| place.peer == PeerId(50) && !place.spare), "{:?}", meeting.places);
    for _ in 0..10 {
        plain.send(0, &[OPUS], None, false);
        meeting.world.settle(&mut [&mut plain]);
        meeting.run(20, |id| Some(if id == 3 { 30 } else { SILENT }));
    }
    assert!(meeting.places.iter().any(|place| place.peer == PeerId(3) && !place.spare), "DTX makes room");
}

#[test]
fn speakers_are_named_loudest_first() {
    let mut meeting = Meeting::new(8, 4);
    let mut speakers = Vec::new();
    for _ in 0..60 {
        meeting.clients[0].send(0, &[OPUS, 1, 0, 0], Some(35), false);
        meeting.clients[1].send(0, &[OPUS, 2, 0, 0], Some(20), false);
        meeting.clients[2].send(0, &[OPUS, 3, 0, 0], Some(SILENT), false);
        meeting.clients[3].send(0, &[OPUS, 4, 0, 0], Some(28), false);
        let mut endpoints: Vec<&mut dyn Endpoint> =
            meeting.clients.iter_mut().map(|c| c as &mut dyn Endpoint).collect();
        meeting.world.run(20 * MS, &mut endpoints);
        for event in meeting.world.take_events() {
            if let Event::Speakers { peers, .. } = event {
                speakers = peers;
            }
        }
    }
    assert_eq!(speakers, [PeerId(2), PeerId(4), PeerId(1)]);
}

#[test]
fn programs_are_never_weighed_and_come_first_come_first_served() {
    let mut world = World::with_limits(Limits { speech_slots: 1, program_slots: 1, ..Limits::default() });
    let desktop = |world: &mut World, id| {
        Client::connected(world, id, |join| {
            join.tracks = vec![track(TrackKind::Program, "0", Some(id as u32))];
            join.slots.clear();
        })
    };
    let (mut first, mut second) = (desktop(&mut world, 1), desktop(&mut world, 2));
    let mut listener = Client::connected(&mut world, 3, |join| {
        join.tracks.clear();
        join.slots = slots(1, 1);
    });
    for _ in 0..50 {
        first.send(0, &[OPUS, 1, 0, 0], Some(127), false);
        second.send(0, &[OPUS, 2, 0, 0], Some(0), false);
        world.run(20 * MS, &mut [&mut first, &mut second, &mut listener]);
    }
    assert!(listener.heard().iter().all(|payload| payload[1] == 1));
    assert_eq!(listener.received.len(), 50, "however quiet");
    world.command(Command::Mute { peer: PeerId(1), kind: TrackKind::Program, muted: true });
    second.send(0, &[OPUS, 2, 0, 0], Some(0), false);
    world.run(20 * MS, &mut [&mut first, &mut second, &mut listener]);
    assert_eq!(listener.heard().last().unwrap()[1], 2, "a muted one leaves");
}
