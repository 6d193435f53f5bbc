//! Hours of a busy room in seconds: people come, talk, move, mute, restart, crash and go, by a seed. Whatever happens,
//! nobody hears itself, everything that arrives opens, and when all are gone nothing is left.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod sim;

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sfu_core::{Command, DtlsRole, Event, HeaderProfile, NodeSizes, RoomId, TrackKind};
use sim::{Client, Endpoint, World, slots, track};

const PEOPLE_MAX: usize = 14;

struct Churn {
    world: World,
    rng: ChaCha20Rng,
    clients: Vec<Client>,
    next_id: u64,
    heard: usize,
}

impl Churn {
    fn new(seed: u8) -> Self {
        let rng = ChaCha20Rng::from_seed([seed; 32]);
        Self { world: World::new(), rng, clients: Vec::new(), next_id: 1, heard: 0 }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..10 if self.clients.len() < PEOPLE_MAX => self.come(),
            _ if self.clients.is_empty() => {}
            10..14 => {
                let client = self.anybody();
                let id = self.clients.remove(client).id;
                self.world.command(Command::Leave { peer: id });
            }
            14..16 => {
                let client = self.anybody();
                let now = self.world.now;
                self.clients[client].close(now);
            }
            // Gone without a word: consent ends it, later.
            16..18 => {
                let client = self.anybody();
                self.clients.remove(client);
            }
            18..24 => {
                let (client, muted) = (self.anybody(), self.rng.random());
                let command = Command::Mute { peer: self.clients[client].id, kind: TrackKind::Mic, muted };
                self.world.command(command);
            }
            24..28 => {
                let client = self.anybody();
                self.clients[client].restart_ice(&mut self.world);
            }
            28..32 => {
                let (client, port) = (self.anybody(), self.rng.random_range(20_000..60_000));
                self.clients[client].address.set_port(port);
                let check = self.clients[client].check();
                self.clients[client].send_raw(check);
            }
            32..36 => {
                let client = self.anybody();
                let ssrc = self.clients[client].streams[0].ssrc.to_be_bytes();
                if self.clients[client].is_connected() {
                    self.clients[client].send_rtcp(&[&[0x81, 203, 0, 1][..], &ssrc].concat());
                }
            }
            _ => self.talk(),
        }
        let time = Duration::from_millis(self.rng.random_range(0..200));
        self.pass(time);
    }

    fn come(&mut self) {
        let id = self.next_id;
        self.next_id += 1;
        let rng = &mut self.rng;
        let role = if rng.random() { DtlsRole::Client } else { DtlsRole::Server };
        let profile = HeaderProfile {
            opus: [111, 109, 96][rng.random_range(0..3)],
            red: None,
            audio_level: rng.random::<bool>().then_some(1),
            mid: None,
        };
        let (speech, room) = (rng.random_range(0..=8), RoomId(rng.random_range(1..3)));
        let client = Client::join(&mut self.world, id, |join| {
            join.room = room;
            join.dtls_role = role;
            join.profile = profile;
            join.tracks = vec![track(TrackKind::Mic, "0", Some(1_000 + id as u32))];
            join.slots = slots(speech, 1);
        });
        self.clients.push(client);
    }

    fn talk(&mut self) {
        let client = self.anybody();
        if !self.clients[client].is_connected() {
            return;
        }
        for _ in 0..self.rng.random_range(1..20) {
            let payload = self.clients[client].id.0.to_be_bytes();
            self.clients[client].speak(&payload);
            if self.rng.random_range(0..10) == 0 {
                self.clients[client].streams[0].index += 1;
            }
            self.pass(Duration::from_millis(20));
        }
    }

    fn pass(&mut self, time: Duration) {
        let mut endpoints: Vec<&mut dyn Endpoint> = Vec::new();
        endpoints.extend(self.clients.iter_mut().map(|client| client as &mut dyn Endpoint));
        self.world.run(time, &mut endpoints);
        self.world.stray.clear();
        self.check();
    }

    fn check(&mut self) {
        for event in self.world.take_events() {
            if let Event::Gone { peer, .. } = event {
                self.clients.retain(|client| client.id != peer);
            }
        }
        for client in &mut self.clients {
            assert_eq!(client.unopened, 0);
            let own = client.id.0.to_be_bytes();
            assert!(client.received.iter().all(|packet| packet.payload != own), "{:?} hears itself", client.id);
            self.heard += client.received.len();
            client.received.clear();
            client.rtcp.clear();
        }
    }

    fn anybody(&mut self) -> usize {
        self.rng.random_range(0..self.clients.len())
    }
}

#[test]
fn busy_rooms_stay_sound_and_leave_nothing() {
    for seed in 0..4 {
        let mut churn = Churn::new(seed);
        for _ in 0..1_500 {
            churn.step();
        }
        assert!(churn.heard > 5_000, "{}", churn.heard);
        churn.clients.clear();
        churn.world.idle(Duration::from_secs(40));
        assert_eq!(churn.world.node.sizes(), NodeSizes::default(), "seed {seed}");
        let counters = churn.world.counters();
        assert_eq!(counters.peers_admitted, counters.peers_evicted);
    }
}
