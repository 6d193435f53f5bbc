//! A room on several shards. Each shard that has peers of the room has a replica: slots with SSRCs and numbers of its own,
//! so that its listeners are served without a word to anybody. One replica is the home: it alone decides who holds a
//! slot, for all, and tells the others. They offer it the best of their own tracks, and send what holders say to everybody
//! else.
//!
//! Both kinds of news are whole states, not changes: what got lost, came twice or came too late is put right by the next
//! one. Offers name the assignment that their sender has, so the home sees when one is missing.

use std::time::{Duration, Instant};

use crate::{
    BusTransmit, CommandError, DropReason, PeerId, RoomId, ShardId, ShardSet, TrackId, TrackKind,
    assign::Release,
    bus::{self, Assigned, ENTRIES_MAX, Entries, Item, Offer, Packet},
    level::Voice,
    node::Node,
    room::{Incoming, Room},
    slot::Holder,
    track::shard_of,
};

/// Offers of voices that go on waiting for a slot, to the home: two packets of 20 ms. Who is new among the best, or begins
/// to speak, is offered at once; that is seldom, by the smoothing of levels.
const OFFERS_INTERVAL: Duration = Duration::from_millis(40);
/// The whole state, although nothing has changed: how long a loss may show.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// That a room is on other shards too.
#[derive(Debug)]
pub(crate) struct Spread {
    /// `None`: this replica is the home.
    home: Option<ShardId>,
    others: ShardSet,
    /// Of the assignment that the home gave out or a replica has applied. From 1 on.
    version: u64,
    /// What the others should know has changed.
    changed: bool,
    /// Is in [`Node::unshared`].
    queued: bool,
    sync_at: Instant,
    offers_at: Instant,
}

impl Room {
    /// Decides on slots: the home, or the only replica.
    pub(crate) fn is_home(&self) -> bool {
        self.spread.as_ref().is_none_or(|spread| spread.home.is_none())
    }
}

impl Node {
    /// Never fails: what cannot be used is dropped and counted.
    pub fn handle_bus(&mut self, now: Instant, from: ShardId, bytes: &[u8]) {
        if let Err(reason) = self.receive_item(now, from, bytes) {
            self.counters.drop(reason);
        }
    }

    /// For other shards, in order. A shell takes and clears them after each batch that it has put in.
    pub fn bus_transmits(&mut self, now: Instant) -> impl Iterator<Item = BusTransmit<'_>> {
        self.write_news(now);
        self.bus.transmits()
    }

    #[must_use]
    pub fn has_bus_transmits(&self) -> bool {
        self.bus.len() > 0 || !self.unshared.is_empty()
    }

    #[must_use]
    pub fn bus_transmit_count(&self) -> usize {
        self.bus.len()
    }

    pub fn clear_bus_transmits(&mut self) {
        self.bus.clear();
    }

    /// Where a room is. With no shard but this one it is an ordinary room again.
    pub(crate) fn spread(
        &mut self,
        now: Instant,
        room: RoomId,
        home: ShardId,
        shards: ShardSet,
    ) -> Result<(), CommandError> {
        let key = *self.room_keys.get(&room).ok_or(CommandError::NoSuchRoom)?;
        let others = shards.without(self.shard);
        let home = (home != self.shard && others.contains(home)).then_some(home);
        let Self { shard: here, rooms, peers, .. } = self;
        let room = &mut rooms[key];
        let is_known = match &room.spread {
            Some(before) => (before.home, before.others) == (home, others),
            None => others.is_empty(),
        };
        if is_known {
            return Ok(());
        }
        let was_home = room.is_home();
        let before = room.spread.take();
        let version = before.as_ref().filter(|before| before.home == home).map_or(0, |before| before.version);
        if !others.is_empty() {
            self.bus.prepare();
            let (changed, queued) = (false, before.is_some_and(|before| before.queued));
            room.spread = Some(Spread { home, others, version, changed, queued, sync_at: now, offers_at: now });
        }
        match (was_home, room.is_home()) {
            (false, true) => room.take_over(now, |holder| {
                let peer = holder.key.and_then(|key| peers.get(key));
                let track = peer.and_then(|peer| peer.tracks.iter().find(|track| track.id == holder.track));
                track.map_or_else(Voice::default, |track| track.voice)
            }),
            (true, false) => room.hand_over(now),
            (true, true) | (false, false) => {}
        }
        let is_here = |shard| shard == *here || others.contains(shard);
        room.release_remote(|shard, _| if is_here(shard) { None } else { Some(Release::Over) });
        self.announce_slots(key);
        Ok(())
    }

    /// From another shard. What does not fit the state here is dropped and counted.
    fn receive_item(&mut self, now: Instant, from: ShardId, bytes: &[u8]) -> Result<(), DropReason> {
        self.counters.bus_received += 1;
        let (room, item) = bus::parse(bytes).ok_or(DropReason::BusMalformed)?;
        let key = *self.room_keys.get(&room).ok_or(DropReason::BusStale)?;
        let spread = self.rooms[key].spread.as_ref().filter(|spread| spread.others.contains(from));
        let home = spread.ok_or(DropReason::BusStale)?.home;
        match item {
            Item::Packet(packet) => self.receive_packet(now, key, from, &packet),
            Item::Offers { applied, entries } if home.is_none() => {
                self.receive_offers(now, key, from, (applied, entries));
                Ok(())
            }
            Item::Assignment { version, entries } if home == Some(from) => {
                self.receive_assignment(key, version, entries);
                Ok(())
            }
            Item::Offers { .. } | Item::Assignment { .. } => Err(DropReason::BusStale),
        }
    }

    fn receive_packet(
        &mut self,
        now: Instant,
        key: usize,
        from: ShardId,
        packet: &Packet<'_>,
    ) -> Result<(), DropReason> {
        let room = &mut self.rooms[key];
        let slot = room.slots.get(packet.place).ok_or(DropReason::BusStale)?;
        let holds = |holder: &Holder| holder.key.is_none() && (holder.shard, holder.track) == (from, packet.track);
        let holder = slot.holder.filter(holds).ok_or(DropReason::BusStale)?;
        let (mut place, mut changed) = (packet.place, false);
        if room.is_home() {
            let claim = room.claim(now, slot.kind, holder, Voice::from_wire(now, packet.voice));
            place = claim.place.ok_or(DropReason::BusStale)?;
            changed = claim.changed;
        }
        room.slots[place].follow(packet.generation);
        let Packet { index, timestamp, marker, level, opus, red, .. } = *packet;
        let incoming = Incoming { index, timestamp, marker, level, opus, red };
        room.forward(now, place, &incoming, &mut self.outbox, &mut self.counters);
        let speakers_changed = room.is_home() && room.update_speakers(now);
        if changed {
            self.announce_slots(key);
        }
        if speakers_changed {
            self.announce_speakers(key);
        }
        Ok(())
    }

    /// What a shard offers. A holder that it no longer names is muted, beaten at home, or gone.
    fn receive_offers(&mut self, now: Instant, key: usize, from: ShardId, (applied, entries): (u64, Entries<'_>)) {
        let room = &mut self.rooms[key];
        let mut changed =
            room.release_remote(|shard, track| match entries.offers().find(|offer| offer.track == track) {
                _ if shard != from => None,
                None => Some(Release::Over),
                Some(offer) => offer.muted.then_some(Release::Muted),
            });
        for Offer { kind, peer, track, voice, .. } in entries.offers().filter(|offer| !offer.muted) {
            let holder = Holder { key: None, shard: from, peer, track };
            changed |= room.claim(now, kind, holder, Voice::from_wire(now, voice)).changed;
        }
        if changed {
            self.announce_slots(key);
        } else if self.rooms[key].spread.as_ref().is_some_and(|spread| spread.version != applied) {
            self.queue_news(key);
        }
    }

    /// Makes the slots what the home says; what is so already is left alone.
    fn receive_assignment(&mut self, key: usize, version: u64, entries: Entries<'_>) {
        let wanted = |place: usize| entries.assigned().find(|assigned| assigned.place == place);
        for (place, slot) in self.rooms[key].slots.iter_mut().enumerate() {
            let stays = |holder: Holder| {
                wanted(place).is_some_and(|wanted| (wanted.shard, wanted.track) == (holder.shard, holder.track))
            };
            if slot.holder.is_some_and(|holder| !stays(holder)) {
                slot.change_holder(None);
            }
        }
        for place in 0..self.rooms[key].slots.len() {
            let Some(assigned) = wanted(place).filter(|_| self.rooms[key].slots[place].holder.is_none()) else {
                continue;
            };
            match self.holder_of(key, place, &assigned) {
                Some(holder) => self.rooms[key].slots[place].change_holder(Some(holder)),
                // It has just ended: the next offers say so.
                None => self.queue_news(key),
            }
        }
        let room = &mut self.rooms[key];
        room.update_own_places();
        if let Some(spread) = &mut room.spread {
            spread.version = version;
        }
    }

    /// `None` for a track that cannot hold the slot: one of this shard that is not there, or one that holds another.
    fn holder_of(&self, key: usize, place: usize, assigned: &Assigned) -> Option<Holder> {
        let Assigned { shard, peer, track, .. } = *assigned;
        let room = &self.rooms[key];
        let kind = room.slots[place].kind;
        if room.place_of(kind, track).is_some() {
            return None;
        }
        if shard != self.shard {
            return Some(Holder { key: None, shard, peer, track });
        }
        let peer_key = *self.peer_keys.get(&peer)?;
        let owner = self.peers.get(peer_key).filter(|owner| owner.room == key)?;
        let fits = |known: &&crate::track::Track| known.id == track && known.kind == kind && !known.muted;
        owner.tracks.iter().find(fits)?;
        Some(Holder { key: Some(peer_key), shard, peer, track })
    }

    /// Who holds a slot has changed, or what this shard offers.
    pub(crate) fn slots_changed(&mut self, key: usize) {
        if let Some(spread) = &mut self.rooms[key].spread {
            if spread.home.is_none() {
                spread.version += 1;
            }
            self.queue_news(key);
        }
    }

    fn queue_news(&mut self, key: usize) {
        let Some(spread) = &mut self.rooms[key].spread else { return };
        spread.changed = true;
        if !std::mem::replace(&mut spread.queued, true) {
            self.unshared.push(key);
        }
    }

    /// A track is live and has no slot: the home should know, and some of it at once.
    pub(crate) fn ask_home(&mut self, now: Instant, key: usize, is_urgent: bool) {
        let Some(spread) = &mut self.rooms[key].spread else { return };
        if is_urgent || now >= spread.offers_at {
            spread.offers_at = now + OFFERS_INTERVAL;
            self.queue_news(key);
        }
    }

    /// A packet of a slot's holder, to everybody who has listeners of it.
    pub(crate) fn share(
        &mut self,
        now: Instant,
        key: usize,
        (place, voice): (usize, Voice),
        incoming: &Incoming<'_>,
    ) {
        let Some(spread) = &self.rooms[key].spread else { return };
        let (to, is_untold) = (spread.others, spread.changed && spread.home.is_none());
        // The others take a packet only of a track of which they know that it holds the slot.
        if is_untold && !self.tell(now, key) {
            return self.counters.drop(DropReason::BusFull);
        }
        let room = &self.rooms[key];
        let slot = &room.slots[place];
        let Some(Holder { track, .. }) = slot.holder else { return };
        let Incoming { index, timestamp, marker, level, opus, red } = *incoming;
        let (generation, voice) = (slot.generation(), voice.to_wire(now));
        let packet = Packet { place, track, generation, index, timestamp, marker, level, voice, opus, red };
        if self.bus.packet(to, room.id, &packet) {
            self.counters.bus_sent += 1;
        } else {
            self.counters.drop(DropReason::BusFull);
        }
    }

    /// Writes what the others should know; what finds no room in the arena waits for the next turn.
    fn write_news(&mut self, now: Instant) {
        let mut left = 0;
        for at in 0..self.unshared.len() {
            let key = self.unshared[at];
            if !self.tell(now, key) {
                self.unshared[left] = key;
                left += 1;
            } else if let Some(spread) = self.rooms.get_mut(key).and_then(|room| room.spread.as_mut()) {
                spread.queued = false;
            }
        }
        self.unshared.truncate(left);
    }

    /// `false` when there was no room for it.
    fn tell(&mut self, now: Instant, key: usize) -> bool {
        let Some(room) = self.rooms.get(key) else { return true };
        let Some(spread) = room.spread.as_ref().filter(|spread| spread.changed) else { return true };
        let written = match spread.home {
            None => self.bus.assignment(spread.others, room.id, spread.version, room.assigned()),
            Some(home) => {
                let (offers, count) = self.offers(now, room);
                self.bus.offers(home, room.id, spread.version, &offers[..count])
            }
        };
        if written {
            self.counters.bus_sent += 1;
            if let Some(spread) = &mut self.rooms[key].spread {
                spread.changed = false;
            }
        }
        written
    }

    /// The best of this shard: as many voices as anybody can hear, and every program.
    fn offers(&self, now: Instant, room: &Room) -> ([Offer; ENTRIES_MAX], usize) {
        const NOBODY: Offer =
            Offer { kind: TrackKind::Mic, peer: PeerId(0), track: TrackId(0), muted: false, voice: 0 };
        let (mut offers, mut count) = ([NOBODY; ENTRIES_MAX], 0);
        let voices = room.voices.seats().flatten().map(|seat| {
            let Holder { peer, track, .. } = seat.holder;
            Offer { peer, track, voice: seat.voice.to_wire(now), ..NOBODY }
        });
        let muted = room.voices.kept().map(|track| Offer { track, muted: true, ..NOBODY });
        let members = room.members.iter().filter_map(|key| self.peers.get(*key));
        let programs = members.flat_map(|peer| {
            let live = peer.tracks.iter().filter(|track| {
                let wants = track.waited_at.is_some() || room.place_of(track.kind, track.id).is_some();
                track.kind == TrackKind::Program && !track.muted && wants
            });
            live.map(|track| Offer { kind: track.kind, peer: peer.id, track: track.id, ..NOBODY })
        });
        for (offer, place) in voices.chain(muted).chain(programs).zip(&mut offers) {
            *place = offer;
            count += 1;
        }
        (offers, count)
    }

    /// Repeats the state now and then. Called by each member's coarse alarm.
    pub(crate) fn keep_in_step(&mut self, now: Instant, key: usize) {
        let Some(spread) = self.rooms.get_mut(key).and_then(|room| room.spread.as_mut()) else { return };
        if now >= spread.sync_at {
            spread.sync_at = now + SYNC_INTERVAL;
            self.queue_news(key);
        }
    }

    /// The last member here has left: the home need not wait to be told that this replica is gone.
    pub(crate) fn leave_home(&mut self, key: usize) {
        let room = &self.rooms[key];
        if let Some(Spread { home: Some(home), version, .. }) = room.spread {
            // Not more than a courtesy: the shell tells the home as well.
            _ = self.bus.offers(home, room.id, version, &[]);
        }
    }
}

impl Room {
    fn assigned(&self) -> impl Iterator<Item = Assigned> + Clone {
        self.slots.iter().enumerate().filter_map(|(place, slot)| {
            let Holder { shard, peer, track, .. } = slot.holder?;
            Some(Assigned { place, shard, peer, track })
        })
    }

    /// Frees the slots of tracks of other shards. Answers whether there were any.
    fn release_remote(&mut self, fate: impl Fn(ShardId, TrackId) -> Option<Release>) -> bool {
        let mut freed = false;
        for place in 0..self.slots.len() {
            let Some(holder) = self.slots[place].holder.filter(|holder| holder.key.is_none()) else { continue };
            if let Some(why) = fate(holder.shard, holder.track) {
                self.release(self.slots[place].kind, holder.track, why);
                freed = true;
            }
        }
        if self.is_home() {
            let is_over = |track| shard_of(track).and_then(|shard| fate(shard, track)) == Some(Release::Over);
            self.voices.forget_kept(is_over);
        }
        freed
    }
}
