//! The choice over people who talk, type and play music, from the level traces of `tests/levels`.

use crate::PeerId;

use super::*;

const PACKET: [u8; 40] = [0x78; 40];
const MS: Duration = Duration::from_millis(1);

const SPEECH: &str = include_str!("../../tests/levels/speech-26.txt");
const QUIET: &str = include_str!("../../tests/levels/speech-38.txt");
const FAST: &str = include_str!("../../tests/levels/speech-20-fast.txt");
const WORD: &str = include_str!("../../tests/levels/word-24.txt");
const NOISE: &str = include_str!("../../tests/levels/noise-58.txt");
const KEYBOARD: &str = include_str!("../../tests/levels/keyboard.txt");
const MUSIC: &str = include_str!("../../tests/levels/music-24.txt");

/// One who sends a packet each 20 ms, at the levels of a trace that begins anew at its end.
struct Person {
    track: u32,
    levels: Vec<u8>,
    next: usize,
    voice: Voice,
}

struct Room {
    selection: Selection,
    now: Instant,
    people: Vec<Person>,
    changes: usize,
}

impl Room {
    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
    fn new(slots: u8, traces: &[&str]) -> Self {
        let mut room = Self { selection: Selection::new(slots), now: Instant::now(), people: Vec::new(), changes: 0 };
        for trace in traces {
            room.enter(trace);
        }
        room
    }

    /// The track of the new one.
    fn enter(&mut self, trace: &str) -> u32 {
        let levels: Vec<u8> = trace.split_whitespace().map(|level| level.parse().unwrap()).collect();
        let track = self.people.len() as u32 + 1;
        self.people.push(Person { track, levels, next: 0, voice: Voice::default() });
        track
    }

    fn say(&mut self, track: u32, trace: &str) {
        let person = &mut self.people[track as usize - 1];
        person.levels = trace.split_whitespace().map(|level| level.parse().unwrap()).collect();
        person.next = 0;
    }

    fn packet(&mut self, track: u32, level: u8) -> Heard {
        let person = &mut self.people[track as usize - 1];
        person.voice.hear(self.now, Some(level), &PACKET);
        let heard = self.selection.hear(self.now, Candidate { holder: holder(track), voice: person.voice });
        self.changes += usize::from(heard.changed);
        heard
    }

    /// Everybody sends; `each` sees the time and the seats every 20 ms.
    fn run(&mut self, duration: Duration, mut each: impl FnMut(Duration, &Selection)) {
        let end = self.now + duration;
        let start = self.now;
        while self.now < end {
            self.now += 20 * MS;
            for n in 0..self.people.len() {
                let person = &mut self.people[n];
                let (track, level) = (person.track, person.levels[person.next % person.levels.len()]);
                person.next += 1;
                self.packet(track, level);
            }
            each(self.now - start, &self.selection);
        }
    }

    fn seats(&self) -> Vec<Option<u32>> {
        seats(&self.selection)
    }
}

fn holder(track: u32) -> Holder {
    Holder {
        key: Some(track as usize),
        shard: crate::ShardId::FIRST,
        peer: PeerId(u64::from(track)),
        track: TrackId(track),
    }
}

fn seats(selection: &Selection) -> Vec<Option<u32>> {
    selection.seats().map(|seat| seat.map(|candidate| candidate.holder.track.0)).collect()
}

fn is_in(selection: &Selection, track: u32) -> bool {
    selection.seat_of(TrackId(track)).is_some()
}

/// Heard by everybody who does not talk himself.
fn in_slot(selection: &Selection, track: u32) -> bool {
    selection.seat_of(TrackId(track)).is_some_and(|seat| seat < selection.spare())
}

fn music_louder_by(db: u8) -> String {
    let levels = MUSIC.split_whitespace().map(|level| level.parse::<u8>().unwrap().saturating_sub(db));
    levels.map(|level| level.to_string()).collect::<Vec<_>>().join(" ")
}

#[test]
fn up_to_one_more_than_slots_nothing_ever_changes() {
    let mut room = Room::new(4, &[SPEECH, KEYBOARD, NOISE, MUSIC, QUIET]);
    room.run(20 * MS, |_, _| {});
    assert_eq!(room.seats(), [Some(1), Some(2), Some(3), Some(4), Some(5)]);
    let slots = room.seats()[..4].to_vec();
    room.run(1_000 * MS, |_, _| {});
    assert_eq!(room.seats()[..4], slots[..], "nobody speaks louder yet");
}

#[test]
fn a_new_speaker_is_heard_soon_while_the_others_keep_their_seats() {
    // Two hundred microphones: eight of them chosen at first, three people talk, the rest is noise.
    let mut room = Room::new(8, &[NOISE; 200]);
    for (track, trace) in [(1, SPEECH), (5, FAST), (9, QUIET)] {
        room.say(track, trace);
    }
    room.run(3_000 * MS, |_, _| {});
    let mut latencies = Vec::new();
    for track in (20..200).step_by(3) {
        let before = room.seats();
        room.say(track, &SPEECH.split_whitespace().skip(50).take(100).collect::<Vec<_>>().join(" "));
        let mut heard_after = None;
        room.run(1_500 * MS, |after, selection| {
            if heard_after.is_none() && in_slot(selection, track) {
                heard_after = Some(after);
            }
        });
        latencies.push(heard_after.expect("heard at all"));
        room.say(track, NOISE);
        let stayed = before.iter().zip(room.seats()).filter(|(before, after)| **before == *after).count();
        assert!(stayed >= 6, "{before:?} {:?}", room.seats());
        room.run(1_500 * MS, |_, _| {});
    }
    latencies.sort_unstable();
    let p95 = latencies[latencies.len() * 95 / 100];
    assert!(p95 <= 200 * MS, "{p95:?}");
}

#[test]
fn typing_noise_and_a_muted_room_never_push_anybody_out() {
    let mut room = Room::new(2, &[SPEECH, QUIET, NOISE]);
    room.run(2_000 * MS, |_, _| {});
    let before = room.seats();
    for trace in [KEYBOARD, NOISE, KEYBOARD, "127 127 127 127"] {
        room.enter(trace);
    }
    room.changes = 0;
    room.run(10_000 * MS, |_, _| {});
    assert_eq!((room.seats(), room.changes), (before, 0));
}

#[test]
fn two_who_talk_at_once_are_both_heard_all_the_time() {
    let mut room = Room::new(3, &[NOISE; 12]);
    room.run(1_000 * MS, |_, _| {});
    for (track, trace) in [(7, SPEECH), (11, QUIET)] {
        let talk = trace.split_whitespace().skip(50).collect::<Vec<_>>().join(" ");
        room.say(track, &talk);
    }
    room.run(400 * MS, |_, _| {});
    room.run(9_000 * MS, |after, selection| {
        assert!(in_slot(selection, 7) && in_slot(selection, 11), "{after:?}: {:?}", seats(selection));
    });
}

#[test]
fn when_all_seats_speak_only_a_clearly_louder_voice_gets_in_and_the_dominant_one_stays() {
    let mut room = Room::new(2, &[MUSIC; 3]);
    room.run(3_000 * MS, |_, _| {});
    let dominant = room.selection.dominant.expect("somebody").0;
    let before = room.seats();
    let same = room.enter(&music_louder_by(2));
    room.run(5_000 * MS, |_, _| {});
    assert!(!is_in(&room.selection, same));
    assert_eq!(room.seats(), before);
    let louder = room.enter(&music_louder_by(14));
    room.run(1_000 * MS, |_, selection| assert!(is_in(selection, dominant)));
    assert!(in_slot(&room.selection, louder), "{:?}", room.seats());
    assert!(is_in(&room.selection, dominant));
}

#[test]
fn the_dominant_speaker_keeps_its_seat_through_a_pause() {
    let mut room = Room::new(1, &[MUSIC, NOISE, NOISE]);
    room.run(3_000 * MS, |_, _| {});
    assert_eq!(room.selection.dominant, Some(TrackId(1)));
    room.say(1, NOISE);
    room.say(2, MUSIC);
    room.say(3, MUSIC);
    room.run(1_000 * MS, |after, selection| assert_eq!(seats(selection)[0], Some(1), "{after:?}"));
    room.run(3_000 * MS, |_, _| {});
    assert_ne!(room.seats()[0], Some(1), "but not for ever");
}

#[test]
fn dominance_changes_only_after_a_while() {
    let mut room = Room::new(2, &[MUSIC, NOISE]);
    room.run(3_000 * MS, |_, _| {});
    room.say(2, WORD);
    room.say(1, NOISE);
    room.run(1_000 * MS, |_, selection| assert_eq!(selection.dominant, Some(TrackId(1))));
    room.say(2, MUSIC);
    room.run(3_000 * MS, |_, _| {});
    assert_eq!(room.selection.dominant, Some(TrackId(2)));
}

#[test]
fn the_place_goes_to_a_newcomer_from_who_has_been_silent_longest() {
    let mut room = Room::new(3, &[NOISE; 6]);
    room.run(200 * MS, |_, _| {});
    for track in [2, 3, 1, 4] {
        room.say(track, MUSIC);
        room.run(1_000 * MS, |_, _| {});
        room.say(track, NOISE);
        room.run(1_000 * MS, |_, _| {});
    }
    assert_eq!(room.seats(), [Some(1), Some(4), Some(3), Some(2)], "2 spoke first and is the spare voice now");
}

#[test]
fn who_is_muted_is_out_at_once_and_comes_back_where_nobody_has_sat_down() {
    let mut room = Room::new(3, &[NOISE; 5]);
    room.run(200 * MS, |_, _| {});
    assert_eq!(room.seats(), [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(room.selection.pause(TrackId(2)), Some(1));
    assert_eq!(room.seats(), [Some(1), None, Some(3), Some(4)]);
    let heard = room.packet(5, 127);
    assert_eq!(heard, Heard { seat: Some(1), changed: true }, "a free seat needs no voice");
    assert_eq!(room.packet(2, 127).seat, None);

    room.selection.pause(TrackId(1));
    room.selection.leave(TrackId(3));
    assert_eq!(room.packet(4, 127).seat, Some(2), "the spare voice moves into a slot, not into one that is kept");
    assert_eq!(room.packet(1, 127).seat, Some(0));
}

#[test]
fn the_home_shard_chooses_the_same_from_the_best_of_each_shard() {
    let mut all = Room::new(2, &[NOISE; 30]);
    for (track, trace) in [(4, SPEECH), (17, FAST), (29, MUSIC)] {
        all.say(track, trace);
    }
    let mut shards: Vec<Room> = (0..3).map(|_| Room::new(2, &[NOISE; 30])).collect();
    let mut home = Selection::new(2);
    for _ in 0..250 {
        all.run(20 * MS, |_, _| {});
        for (n, shard) in shards.iter_mut().enumerate() {
            shard.now = all.now;
            for person in all.people.iter().skip(n * 10).take(10) {
                let candidate = Candidate { holder: holder(person.track), voice: person.voice };
                shard.selection.hear(all.now, candidate);
            }
            for best in shard.selection.seats().flatten() {
                let voice = Voice::from_wire(all.now, best.voice.to_wire(all.now));
                home.hear(all.now, Candidate { voice, ..*best });
            }
        }
    }
    let talking = |selection: &Selection| {
        let mut speakers = Vec::new();
        selection.speakers(all.now, &mut speakers);
        speakers.iter().map(|(_, holder)| holder.track.0).collect::<Vec<_>>()
    };
    assert!(talking(&home).len() >= 2);
    assert_eq!(talking(&home), talking(&all.selection));
}

#[test]
fn speakers_are_listed_loudest_first() {
    let steady = |level: u8| [level; 50].map(|level| level.to_string()).join(" ");
    let [a, b, c] = [30, 20, 25].map(steady);
    let mut room = Room::new(8, &[&a, &b, NOISE, &c]);
    room.run(2_000 * MS, |_, _| {});
    let mut speakers = Vec::new();
    room.selection.speakers(room.now, &mut speakers);
    assert_eq!(speakers.iter().map(|(_, holder)| holder.track.0).collect::<Vec<_>>(), [2, 4, 1]);
}
