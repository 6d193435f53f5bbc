//! What the node does for listeners that lose packets: redundancy for those that report losses, packets once more for
//! those that ask. Above all: under one index and key there is never a second text.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::{collections::HashMap, time::Duration};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sfu_core::{Command, DropReason, HeaderProfile, Limits, PeerId, TrackKind};
use sim::{Client, Endpoint, World, chromium, slots};

const MS: Duration = Duration::from_millis(1);
/// An Opus packet of 20 ms.
const OPUS: u8 = 0x78;

fn nack(ssrc: u32, number: u16, following: u16) -> Vec<u8> {
    let (number, following) = (number.to_be_bytes(), following.to_be_bytes());
    [&[0x81, 205, 0, 3, 0, 0, 0, 1][..], &ssrc.to_be_bytes(), &number, &following].concat()
}

fn receiver_report(ssrc: u32, highest: u32, lost: u32) -> Vec<u8> {
    let lost = lost & 0x00ff_ffff;
    let words = [1, ssrc, lost, highest, 0, 0, 0].map(u32::to_be_bytes);
    [&[0x81, 201, 0, 7][..], &words.concat()].concat()
}

/// One who talks and one who may ask again.
fn pair(change: impl FnOnce(&mut sfu_core::Join)) -> (World, Client, Client) {
    let mut world = World::new();
    let a = Client::connected(&mut world, 1, |_| {});
    let mut b = Client::connected(&mut world, 2, |join| {
        join.nack = true;
        change(join);
    });
    b.behaviour.keeps_datagrams = true;
    (world, a, b)
}

fn talk(world: &mut World, a: &mut Client, b: &mut Client, numbers: std::ops::Range<u8>) {
    for n in numbers {
        a.speak(&[OPUS, n, 3, 4, 5]);
        world.run(20 * MS, &mut [&mut *a, &mut *b]);
    }
}

#[test]
fn a_packet_that_is_asked_for_comes_again_byte_for_byte() {
    let (mut world, mut a, mut b) = pair(|_| {});
    talk(&mut world, &mut a, &mut b, 0..4);
    b.behaviour.hears_nothing = true;
    talk(&mut world, &mut a, &mut b, 4..7);
    b.behaviour.hears_nothing = false;
    talk(&mut world, &mut a, &mut b, 7..10);
    let (slot, lost) = (b.slot(TrackKind::Mic, 0), b.received[3].index + 1);
    b.send_rtcp(&nack(slot, lost as u16, 0b10));
    world.settle(&mut [&mut a, &mut b]);
    let again = &b.received[7..];
    assert_eq!(again.iter().map(|packet| packet.index).collect::<Vec<_>>(), [lost, lost + 2]);
    assert_eq!(again.iter().map(|packet| packet.payload[1]).collect::<Vec<_>>(), [4, 6]);
    assert_eq!(b.datagrams[10..], [b.datagrams[4].clone(), b.datagrams[6].clone()]);
    assert_eq!(world.counters().rtp_sent_again, 2);
}

#[test]
fn nothing_comes_again_that_is_too_old_was_never_sent_or_is_asked_for_too_often() {
    let (mut world, mut a, mut b) = pair(|_| {});
    talk(&mut world, &mut a, &mut b, 0..100);
    let (slot, last) = (b.slot(TrackKind::Mic, 0), b.received.last().unwrap().index as u16);
    let unanswered = |world: &World| world.dropped(DropReason::NackUnanswered);
    for (ssrc, number) in
        [(slot, last.wrapping_sub(60)), (slot, last.wrapping_add(1)), (slot ^ 1, last), (slot, last ^ 0x8000)]
    {
        let before = unanswered(&world);
        b.send_rtcp(&nack(ssrc, number, 0));
        world.settle(&mut [&mut a, &mut b]);
        assert_eq!(unanswered(&world), before + 1);
    }
    assert_eq!(world.counters().rtp_sent_again, 0);
    for _ in 0..100 {
        b.send_rtcp(&nack(slot, last.wrapping_sub(16), 0xffff));
    }
    world.settle(&mut [&mut a, &mut b]);
    assert!((150..=200).contains(&world.counters().rtp_sent_again), "{}", world.counters().rtp_sent_again);
}

#[test]
fn who_has_not_negotiated_it_gets_nothing_again() {
    let (mut world, mut a, mut b) = pair(|join| join.nack = false);
    talk(&mut world, &mut a, &mut b, 0..3);
    let (slot, last) = (b.slot(TrackKind::Mic, 0), b.received.last().unwrap().index as u16);
    b.send_rtcp(&nack(slot, last, 0));
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((world.counters().rtp_sent_again, world.dropped(DropReason::NackUnanswered)), (0, 1));
}

#[test]
fn redundancy_of_the_publisher_comes_again_as_it_was() {
    let (mut world, mut a, mut b) = pair(|_| {});
    talk(&mut world, &mut a, &mut b, 0..2);
    let red = [&[0x80 | 111, 0x0f, 0x00, 3, 111][..], b"old", b"new!"].concat();
    a.send_as(0, 63, &red, Some(20), false);
    world.settle(&mut [&mut a, &mut b]);
    let (slot, last) = (b.slot(TrackKind::Mic, 0), b.received.last().unwrap().index as u16);
    b.send_rtcp(&nack(slot, last, 0));
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.datagrams.len(), &b.datagrams[2]), (4, &b.datagrams[3]));
    assert_eq!(b.unopened, 1, "it has it already");
}

/// Reports a loss in percent of the next hundred packets.
fn report(client: &mut Client, ssrc: u32, (highest, lost): &mut (u32, u32), percent: u32) {
    (*highest, *lost) = (*highest + 100, *lost + percent);
    client.send_rtcp(&receiver_report(ssrc, *highest, *lost));
}

#[test]
fn listener_with_losses_gets_each_packet_again_until_it_is_calm() {
    let mut world = World::new();
    let mut a = Client::connected(&mut world, 1, |_| {});
    let mut lossy = Client::connected(&mut world, 2, |_| {});
    let mut fine = Client::connected(&mut world, 3, |_| {});
    let plain = HeaderProfile { opus: 109, red: None, ..chromium() };
    let mut bare = Client::connected(&mut world, 4, |join| join.profile = plain);
    let slot = lossy.slot(TrackKind::Mic, 0);
    let (mut of_lossy, mut of_bare) = ((1_000, 0), (1_000, 0));
    let mut seconds = |world: &mut World, seconds: u32, percent| {
        for _ in 0..seconds {
            report(&mut lossy, slot, &mut of_lossy, percent);
            report(&mut bare, slot, &mut of_bare, 30);
            for n in 0..50u8 {
                a.speak(&[OPUS, n, 3]);
                world.run(20 * MS, &mut [&mut a, &mut lossy, &mut fine, &mut bare]);
            }
        }
        let last = |client: &Client| client.received.last().unwrap().clone();
        [last(&lossy), last(&fine), last(&bare)]
    };
    let types = |packets: &[sim::Received; 3]| packets.each_ref().map(|packet| packet.payload_type);
    assert_eq!(types(&seconds(&mut world, 3, 0)), [111, 111, 109]);
    let with_one = seconds(&mut world, 2, 5);
    assert_eq!(types(&with_one), [63, 111, 109], "who does not know RED gets none");
    assert_eq!(with_one[0].payload, [0x80 | 111, 0x0f, 0x00, 3, 111, OPUS, 48, 3, OPUS, 49, 3]);
    assert_eq!(with_one[1].payload, [OPUS, 49, 3]);
    assert_eq!(with_one[0].csrcs, with_one[1].csrcs);
    let sound = [OPUS, 46, 3, OPUS, 47, 3, OPUS, 48, 3, OPUS, 49, 3];
    for (percent, packets) in [(12, 3), (20, 4)] {
        let payload = seconds(&mut world, 2, percent)[0].payload.clone();
        // Four bytes of header for each that is repeated, one for the new one.
        assert_eq!(payload.len(), 4 * (packets - 1) + 1 + 3 * packets);
        assert_eq!(payload[payload.len() - 3 * packets..], sound[3 * (4 - packets)..]);
    }
    assert_eq!(types(&seconds(&mut world, 45, 0)), [111, 111, 109]);
}

#[test]
fn what_was_said_while_muted_or_to_others_is_not_repeated() {
    let (mut world, mut a, mut b) = pair(|_| {});
    let slot = b.slot(TrackKind::Mic, 0);
    let mut counts = (1_000, 0);
    for _ in 0..3 {
        report(&mut b, slot, &mut counts, 30);
        world.run(500 * MS, &mut [&mut a, &mut b]);
    }
    talk(&mut world, &mut a, &mut b, 0..3);
    assert_eq!(b.received.last().unwrap().payload_type, 63, "redundancy is on");
    let mute = |world: &mut World, muted| {
        world.command(Command::Mute { peer: PeerId(1), kind: TrackKind::Mic, muted });
    };
    mute(&mut world, true);
    a.speak(b"\x78secret");
    world.settle(&mut [&mut a, &mut b]);
    mute(&mut world, false);
    b.received.clear();
    let red = |old: &[u8], new: &[u8]| [&[0x80 | 111, 0x0f, 0x00, old.len() as u8, 111][..], old, new].concat();
    a.send_as(0, 63, &red(b"\x78secret", b"\x78open"), Some(20), false);
    world.run(20 * MS, &mut [&mut a, &mut b]);
    a.send_as(0, 63, &red(b"\x78open", b"\x78next"), Some(20), false);
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.heard(), [&b"\x78open"[..], &red(b"\x78open", b"\x78next")]);
}

/// What a listener has got, by index: its own guess of the roll-over counter, and every datagram.
#[derive(Default)]
struct Ear {
    highest: HashMap<u32, u64>,
    seen: HashMap<(u32, u64), Vec<u8>>,
    repeated: usize,
}

impl Ear {
    /// The datagram must be the same, if one with its index has come before.
    fn hear(&mut self, datagram: &[u8]) {
        let number = u64::from(u16::from_be_bytes([datagram[2], datagram[3]]));
        let ssrc = u32::from_be_bytes(datagram[8..12].try_into().unwrap());
        let highest = self.highest.entry(ssrc).or_insert(number);
        let ahead = i64::from((number as u16).wrapping_sub(*highest as u16) as i16);
        let index = highest.checked_add_signed(ahead).unwrap();
        *highest = index.max(*highest);
        if let Some(before) = self.seen.insert((ssrc, index), datagram.to_vec()) {
            assert_eq!(before, datagram, "a second text under one index");
            self.repeated += 1;
        }
    }
}

struct Chaos {
    world: World,
    rng: ChaCha20Rng,
    clients: Vec<Client>,
    ears: Vec<Ear>,
    /// Level of each; `None` is DTX.
    talks: Vec<Option<u8>>,
    restarts: u32,
    /// Packets that the network has kept back.
    late: Vec<(usize, Vec<u8>)>,
}

const PEOPLE: usize = 6;

impl Chaos {
    fn new(seed: u8) -> Self {
        let mut world = World::with_limits(Limits { speech_slots: 3, ..Limits::default() });
        let connect = |n: usize| {
            let mut client = Client::connected(&mut world, n as u64 + 1, |join| {
                join.slots = slots(3, 0);
                join.nack = n % 3 != 2;
                if n % 2 == 1 {
                    join.profile.red = None;
                }
            });
            client.behaviour.keeps_datagrams = true;
            client
        };
        Self {
            clients: (0..PEOPLE).map(connect).collect(),
            world,
            rng: ChaCha20Rng::from_seed([seed; 32]),
            ears: (0..PEOPLE).map(|_| Ear::default()).collect(),
            talks: vec![Some(20); PEOPLE],
            restarts: 0,
            late: Vec::new(),
        }
    }

    /// 20 ms.
    fn step(&mut self) {
        let n = self.rng.random_range(0..PEOPLE);
        match self.rng.random_range(0..100) {
            0..6 => self.talks[n] = [None, Some(20), Some(30), Some(70)][self.rng.random_range(0..4)],
            6..8 => {
                let (peer, muted) = (self.clients[n].id, self.rng.random());
                self.world.command(Command::Mute { peer, kind: TrackKind::Mic, muted });
            }
            8 if self.restarts < 60 => self.restart(n),
            // The publisher's path is down for a while.
            9 => self.clients[n].streams[0].index += self.rng.random_range(1..9_000),
            10..14 => self.report(n),
            14..30 => self.ask_again(n),
            30..36 => self.clients[n].behaviour.hears_nothing ^= true,
            _ => {}
        }
        for n in 0..PEOPLE {
            self.send(n);
        }
        let mut endpoints: Vec<&mut dyn Endpoint> = self.clients.iter_mut().map(|c| c as &mut dyn Endpoint).collect();
        self.world.run(20 * MS, &mut endpoints);
        for (client, ear) in self.clients.iter_mut().zip(&mut self.ears) {
            for datagram in client.datagrams.drain(..) {
                ear.hear(&datagram);
            }
        }
    }

    fn send(&mut self, n: usize) {
        let client = &mut self.clients[n];
        let Some(level) = self.talks[n] else {
            client.streams[0].timestamp = client.streams[0].timestamp.wrapping_add(960);
            return;
        };
        let sim::Stream { ssrc, index, timestamp, .. } = client.streams[0];
        client.streams[0].index += 1;
        client.streams[0].timestamp = timestamp.wrapping_add(960);
        let opus = [OPUS, n as u8, index as u8, level, 9];
        let sends_red = n == 4 && client.profile.red.is_some();
        let red = [&[0x80 | 111, 0x0f, 0x00, 2, 111, OPUS, n as u8][..], &opus].concat();
        let (payload_type, payload) = if sends_red { (63, &red[..]) } else { (111, &opus[..]) };
        let packet = client.packet((payload_type, false), (index, timestamp, ssrc), Some(level), payload);
        match self.rng.random_range(0..100) {
            0..4 => {}
            4..8 => self.late.push((n, packet)),
            _ => client.send_raw(packet),
        }
        if self.rng.random_ratio(1, 3) {
            for (n, packet) in self.late.drain(..) {
                self.clients[n].send_raw(packet);
            }
        }
    }

    /// A new SSRC with numbers that have nothing to do with those before.
    fn restart(&mut self, n: usize) {
        self.restarts += 1;
        let ssrc = 77_000 + self.restarts;
        let (index, timestamp) = (self.rng.random_range(0..40_000u64), self.rng.random::<u32>());
        let client = &mut self.clients[n];
        client.streams[0] =
            sim::Stream { ssrc, index: index + 1, timestamp: timestamp.wrapping_add(960), ..client.streams[0] };
        // The usual profile: mid is extension 4, level extension 1.
        let header = [
            &[0x90, 111][..],
            &(index as u16).to_be_bytes(),
            &timestamp.to_be_bytes(),
            &ssrc.to_be_bytes(),
            &[0xbe, 0xde, 0, 1, 0x40, b'0', 0x10, 20],
        ];
        let packet = [&header.concat()[..], &[OPUS, n as u8, 0, 0]].concat();
        let sealed = client.seal(packet, 20, 24, index);
        client.send_raw(sealed);
    }

    fn slot(&mut self, n: usize) -> u32 {
        let index = self.rng.random_range(0..3);
        self.clients[n].slot(TrackKind::Mic, index)
    }

    fn ask_again(&mut self, n: usize) {
        let ssrc = self.slot(n);
        let Some(highest) = self.ears[n].highest.get(&ssrc) else { return };
        let number = (*highest as u16).wrapping_sub(self.rng.random_range(0..40));
        let following = self.rng.random();
        self.clients[n].send_rtcp(&nack(ssrc, number, following));
    }

    fn report(&mut self, n: usize) {
        let ssrc = self.slot(n);
        let highest = self.ears[n].highest.get(&ssrc).copied().unwrap_or(0) as u32;
        let lost = self.rng.random_range(0..4) * 1_000;
        self.clients[n].send_rtcp(&receiver_report(ssrc, highest, lost));
    }

    fn check(&self) {
        for (n, (client, ear)) in self.clients.iter().zip(&self.ears).enumerate() {
            assert!(client.unopened <= ear.repeated, "what is new opens");
            let mut streams: HashMap<u32, Vec<_>> = HashMap::new();
            for packet in &client.received {
                let payload = if packet.payload_type == 63 {
                    &packet.payload[packet.payload.len() - 5..]
                } else {
                    &packet.payload
                };
                assert_ne!(usize::from(payload[1]), n, "own voice");
                streams.entry(packet.ssrc).or_default().push(packet);
            }
            for packets in streams.values_mut() {
                packets.sort_by_key(|packet| packet.index);
                for pair in packets.windows(2) {
                    assert!(pair[0].index < pair[1].index, "an index twice");
                    let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp) as i32;
                    assert!(step > 0, "time goes back by {step}");
                }
            }
        }
    }
}

#[test]
fn whatever_happens_no_index_gets_a_second_text_and_time_never_goes_back() {
    let (mut again, mut redundant, mut heard) = (0, 0, 0);
    for seed in 0..6 {
        let mut chaos = Chaos::new(seed);
        for _ in 0..1_500 {
            chaos.step();
        }
        chaos.check();
        again += chaos.world.counters().rtp_sent_again;
        heard += chaos.clients.iter().map(|client| client.received.len()).sum::<usize>();
        let made = |packet: &&sim::Received| packet.payload_type == 63 && packet.payload.get(3) == Some(&5);
        redundant += chaos.clients.iter().flat_map(|client| client.received.iter().filter(made)).count();
    }
    assert!(again > 500 && redundant > 500 && heard > 20_000, "{again} {redundant} {heard}");
}
