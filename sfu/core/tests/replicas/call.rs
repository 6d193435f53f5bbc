//! Some nodes, the bus between them, and the control plane that tells them of each other.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sfu_core::{Command, DropReason, Event, Limits, PeerId, ShardId, ShardSet, SlotAssignment, TrackKind};

use crate::sim::{Client, Endpoint, ROOM, World, mid, origin, slots};

const STEP: Duration = Duration::from_millis(10);

type Item = (usize, usize, Vec<u8>);

pub(crate) struct Call {
    worlds: Vec<World>,
    /// With their shards.
    clients: BTreeMap<u64, (usize, Client)>,
    home: usize,
    limits: Limits,
    lose: Box<dyn FnMut(usize, bool) -> bool>,
    recorded: Vec<Item>,
}

pub(crate) fn shard(index: usize) -> ShardId {
    ShardId::new(index).unwrap()
}

impl Call {
    pub(crate) fn on_shards(count: usize) -> Self {
        Self::with_limits(count, Limits::default())
    }

    pub(crate) fn with_limits(count: usize, limits: Limits) -> Self {
        let now = origin();
        Self {
            worlds: (0..count).map(|index| World::on_shard(shard(index), limits.clone(), now)).collect(),
            clients: BTreeMap::new(),
            home: 0,
            limits,
            lose: Box::new(|_, _| false),
            recorded: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.worlds[0].now
    }

    pub(crate) fn home(&self) -> usize {
        self.home
    }

    pub(crate) fn client(&self, id: u64) -> &Client {
        &self.clients[&id].1
    }

    pub(crate) fn client_mut(&mut self, id: u64) -> &mut Client {
        &mut self.clients.get_mut(&id).unwrap().1
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.clients.keys().copied().collect()
    }

    pub(crate) fn shard_of(&self, id: u64) -> usize {
        self.clients[&id].0
    }

    /// As the control plane does it: the join, then who has the room, and only then can the peer send.
    pub(crate) fn join(&mut self, on: usize, id: u64) {
        let Limits { speech_slots: speech, program_slots: program, .. } = self.limits;
        let client = Client::join(&mut self.worlds[on], id, |join| join.slots = slots(speech.into(), program.into()));
        self.clients.insert(id, (on, client));
        self.spread();
        self.run_ms(60);
        assert!(self.client(id).is_connected());
    }

    pub(crate) fn leave(&mut self, id: u64) {
        let (on, _) = self.clients.remove(&id).unwrap();
        self.worlds[on].command(Command::Leave { peer: PeerId(id) });
        self.settle();
        self.spread();
    }

    pub(crate) fn mute(&mut self, id: u64, muted: bool) {
        let on = self.shard_of(id);
        self.worlds[on].command(Command::Mute { peer: PeerId(id), kind: TrackKind::Mic, muted });
        self.settle();
    }

    /// Who has peers has the room; the home is the first that has any when the old one has none.
    fn spread(&mut self) {
        let having: Vec<usize> = self.clients.values().map(|(on, _)| *on).collect();
        if !having.contains(&self.home) {
            self.home = having.iter().copied().min().unwrap_or(0);
        }
        let shards: ShardSet = having.iter().copied().map(shard).collect();
        for on in shards.iter().map(ShardId::index) {
            self.worlds[on].command(Command::Spread { room: ROOM, home: shard(self.home), shards });
        }
        self.settle();
    }

    /// One packet of its microphone, and 20 ms.
    pub(crate) fn speak(&mut self, id: u64, payload: &[u8]) {
        self.client_mut(id).speak(payload);
        self.run_ms(20);
    }

    pub(crate) fn run_ms(&mut self, ms: u64) {
        let end = self.now() + Duration::from_millis(ms);
        while self.now() < end {
            self.settle();
            for world in &mut self.worlds {
                world.now += STEP;
                if world.node.poll_timeout().is_some_and(|at| at <= world.now) {
                    world.node.handle_timeout(world.now);
                }
            }
            let now = self.now();
            self.clients.values_mut().for_each(|(_, client)| client.timeout(now));
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            for (index, world) in self.worlds.iter_mut().enumerate() {
                let here = self.clients.values_mut().filter(|(on, _)| *on == index);
                let mut here: Vec<&mut dyn Endpoint> = here.map(|(_, client)| client as &mut dyn Endpoint).collect();
                world.settle(&mut here);
            }
            if !self.exchange() {
                break;
            }
        }
    }

    fn exchange(&mut self) -> bool {
        let mut items: Vec<Item> = Vec::new();
        for (from, world) in self.worlds.iter_mut().enumerate() {
            for item in world.node.bus_transmits(world.now) {
                let to = item.to.iter().map(ShardId::index);
                let kept = to.filter(|to| !(self.lose)(*to, item.is_media));
                items.extend(kept.map(|to| (from, to, item.bytes.to_vec())));
            }
            world.node.clear_bus_transmits();
        }
        for (from, to, bytes) in &items {
            self.inject(*from, *to, bytes);
        }
        self.recorded.extend_from_slice(&items);
        !items.is_empty()
    }

    pub(crate) fn inject(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let world = &mut self.worlds[to];
        world.node.handle_bus(world.now, shard(from), bytes);
    }

    /// Of items to a shard, `true` for media.
    pub(crate) fn lose(&mut self, lose: impl FnMut(usize, bool) -> bool + 'static) {
        self.lose = Box::new(lose);
    }

    pub(crate) fn recorded(&self) -> &[Item] {
        &self.recorded
    }

    pub(crate) fn slots(&self, on: usize) -> Option<Vec<SlotAssignment>> {
        self.worlds[on].node.slots(ROOM)
    }

    /// The same on every shard that has peers.
    pub(crate) fn agreed_slots(&self) -> Vec<SlotAssignment> {
        let slots = self.slots(self.home).unwrap();
        for (on, _) in self.clients.values() {
            assert_eq!(self.slots(*on).unwrap(), slots, "shard {on}");
        }
        slots
    }

    pub(crate) fn events(&mut self, on: usize) -> Vec<Event> {
        self.worlds[on].take_events()
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.worlds.iter().map(|world| world.dropped(reason)).sum()
    }

    pub(crate) fn sizes_are_zero(&self) -> bool {
        self.worlds.iter().all(|world| (world.node.peer_count(), world.node.room_count()) == (0, 0))
    }

    /// Another sender behind the same m-line, named by its media identification, with a random beginning of its own.
    pub(crate) fn new_source(&mut self, id: u64, ssrc: u32) {
        let client = self.client_mut(id);
        client.mid = Some(mid("0"));
        let stream = &mut client.streams[0];
        (stream.ssrc, stream.index, stream.timestamp) = (ssrc, u64::from(ssrc % 30_000), ssrc);
    }
}
