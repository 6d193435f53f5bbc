//! The peers that hear each other: slots, listeners, and the fan-out of one packet to all of them. The listeners lie one
//! behind the other, with the sealing half of their SRTP inside, so that forwarding walks memory in order. Where packets
//! come from is not known here.

use std::time::Instant;

use rand::Rng;
use rand_chacha::ChaCha20Rng;
use srtp::{OVERHEAD_BYTES_MAX, Sealer};

use crate::{
    Counters, DropReason, HeaderProfile, Limits, Path, PeerId, RoomId, SlotAssignment, TrackKind,
    level::Attenuation,
    loudest::Selection,
    opus,
    outbox::{Mark, Outbox},
    red,
    replica::Spread,
    slot::{FIRST_SEQUENCE_END, FIRST_SEQUENCE_MIN, Holder, Slot, Stream},
    stamp::{Outgoing, Rendering},
};

pub(crate) struct Room {
    pub(crate) id: RoomId,
    /// Keys in the node's table of peers.
    pub(crate) members: Vec<usize>,
    /// Speech slots, then program slots, then the spare one, which nobody receives as such.
    pub(crate) slots: Vec<Slot>,
    /// Who of the voices gets a speech slot, or the spare one.
    pub(crate) voices: Selection,
    pub(crate) listeners: Vec<Listener>,
    renderings: Vec<Rendering>,
    /// Numbers the packets, so that a rendering knows whether it is up to date.
    packet: u64,
    pub(crate) speakers: Vec<PeerId>,
    speakers_before: Vec<PeerId>,
    speakers_at: Option<Instant>,
    loudnesses: Vec<(Attenuation, Holder)>,
    /// On other shards too.
    pub(crate) spread: Option<Spread>,
    pub(crate) slots_queued: bool,
    pub(crate) speakers_queued: bool,
}

pub(crate) struct Listener {
    pub(crate) to: Path,
    /// Key in the node's table of peers.
    pub(crate) key: usize,
    /// Slots that it receives, by kind.
    places: [u8; 2],
    rendering: usize,
    first_sequence: u16,
    /// Where its last packet of this turn waits.
    mark: Mark,
    /// Earlier packets that are repeated for it, and since when as many.
    blocks: u8,
    blocks_since: Option<Instant>,
    may_ask_again: bool,
    /// The place in which its own voice or program is, by kind.
    own: [Option<u8>; 2],
    pub(crate) sealer: Sealer,
}

/// One packet of a source, on its way into a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) index: u64,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) level: Option<u8>,
    pub(crate) opus: &'a [u8],
    pub(crate) red: Option<&'a [u8]>,
}

/// Two changes of the speakers a second are more than an eye follows.
const SPEAKERS_INTERVAL: std::time::Duration = std::time::Duration::from_millis(500);

impl Room {
    pub(crate) fn new(id: RoomId, limits: &Limits, rng: &mut ChaCha20Rng, taken: u32) -> Self {
        let speech = (0..limits.speech_slots).map(|index| (TrackKind::Mic, index));
        let program = (0..limits.program_slots).map(|index| (TrackKind::Program, index));
        let mut slots: Vec<Slot> = Vec::new();
        let spare = (TrackKind::Mic, limits.speech_slots);
        for (kind, index) in speech.chain(program).chain([spare]) {
            let ssrc = loop {
                let ssrc = rng.random::<u32>();
                if ssrc != 0 && ssrc != taken && slots.iter().all(|slot| slot.ssrc != ssrc) {
                    break ssrc;
                }
            };
            slots.push(Slot::new(kind, index, ssrc, rng.random()));
        }
        Self {
            id,
            members: Vec::new(),
            slots,
            voices: Selection::new(limits.speech_slots),
            listeners: Vec::new(),
            renderings: Vec::new(),
            packet: 0,
            speakers: Vec::new(),
            speakers_before: Vec::new(),
            speakers_at: None,
            loudnesses: Vec::with_capacity(usize::from(limits.speech_slots) + 1),
            spread: None,
            slots_queued: false,
            speakers_queued: false,
        }
    }

    pub(crate) fn slot_ssrc(&self, kind: TrackKind, index: u8) -> Option<u32> {
        let received = &self.slots[..self.spare_place()];
        received.iter().find(|slot| slot.kind == kind && slot.index == index).map(|slot| slot.ssrc)
    }

    pub(crate) fn spare_place(&self) -> usize {
        self.slots.len() - 1
    }

    /// The slots of which a listener has got something, and in which it does not hear itself, with its timestamp of now.
    pub(crate) fn heard_slots(&self, place: usize, now: Instant) -> impl Iterator<Item = (&Slot, u32)> {
        self.slots.iter().filter_map(move |slot| {
            let stream = slot.streams.get(place).filter(|stream| stream.has_sent())?;
            let lane = self.slots.get(usize::from(stream.lane))?;
            Some((slot, lane.timestamp_at(now).wrapping_add(stream.shift)))
        })
    }

    /// Answers its place.
    pub(crate) fn add_listener(
        &mut self,
        (key, to): (usize, Path),
        profile: HeaderProfile,
        places: [u8; 2],
        sealer: Sealer,
        rng: &mut ChaCha20Rng,
    ) -> usize {
        let rendering = self.use_rendering(profile, 0);
        self.listeners.push(Listener {
            to,
            key,
            places,
            rendering,
            first_sequence: rng.random_range(FIRST_SEQUENCE_MIN..FIRST_SEQUENCE_END),
            mark: Mark::default(),
            blocks: 0,
            blocks_since: None,
            may_ask_again: false,
            own: [None; 2],
            sealer,
        });
        for (place, slot) in (0..).zip(&mut self.slots) {
            slot.streams.push(Stream::new(place));
        }
        self.update_own_places();
        self.listeners.len() - 1
    }

    /// Answers the key of the peer whose listener has moved to the free place.
    pub(crate) fn remove_listener(&mut self, place: usize) -> Option<usize> {
        let removed = self.listeners.swap_remove(place);
        for slot in &mut self.slots {
            slot.streams.swap_remove(place);
        }
        self.renderings[removed.rendering].users -= 1;
        self.listeners.get(place).map(|moved| moved.key)
    }

    fn use_rendering(&mut self, profile: HeaderProfile, blocks: u8) -> usize {
        let wanted = (profile, blocks);
        let fits = |rendering: &Rendering| rendering.users > 0 && (rendering.profile, rendering.blocks) == wanted;
        let place = self.renderings.iter().position(fits).unwrap_or_else(|| {
            let fresh = Rendering::new(profile, blocks);
            match self.renderings.iter().position(|rendering| rendering.users == 0) {
                Some(free) => {
                    self.renderings[free] = fresh;
                    free
                }
                None => {
                    self.renderings.push(fresh);
                    self.renderings.len() - 1
                }
            }
        });
        self.renderings[place].users += 1;
        place
    }

    /// After each change of holders: rare, so that a packet needs no search.
    pub(crate) fn update_own_places(&mut self) {
        for listener in &mut self.listeners {
            listener.own = [None; 2];
        }
        for (place, slot) in (0u8..).zip(&mut self.slots) {
            let Some(Holder { key: Some(key), .. }) = slot.holder else { continue };
            if let Some(at) = self.listeners.iter().position(|listener| listener.key == key) {
                self.listeners[at].own[slot.kind as usize] = Some(place);
                slot.streams[at].leave_lane(place);
            }
        }
    }

    /// Sends a packet of the slot's holder to everybody else who receives the slot.
    pub(crate) fn forward(
        &mut self,
        now: Instant,
        place: usize,
        incoming: &Incoming<'_>,
        outbox: &mut Outbox,
        counters: &mut Counters,
    ) {
        let slot = &mut self.slots[place];
        let Some(Holder { track, .. }) = slot.holder else { return };
        let duration = opus::duration(incoming.opus);
        let Some(stamp) = slot.stamp(now, incoming.index, incoming.timestamp, duration) else {
            return counters.drop(DropReason::RtpStale);
        };
        slot.packets = slot.packets.wrapping_add(1);
        slot.octets = slot.octets.wrapping_add(incoming.opus.len() as u32);
        let outgoing = Outgoing {
            marker: incoming.marker || stamp.starts,
            timestamp: stamp.timestamp,
            ssrc: slot.ssrc,
            csrc: track.0,
            level: incoming.level,
            opus: incoming.opus,
            // What was said before the source came here was said to others, or while it was muted.
            red: incoming.red.filter(|payload| red::reach(payload) <= stamp.since_start),
        };
        self.packet += 1;
        if place == self.spare_place() {
            self.forward_spare(now, (stamp.sequence, duration), &outgoing, outbox, counters);
        } else {
            self.forward_slot(place, (stamp.sequence, duration), &outgoing, outbox, counters);
        }
        let slot = &mut self.slots[place];
        if stamp.is_newest {
            slot.recent.push(stamp.timestamp, incoming.opus);
        }
        slot.history.push(now, stamp.sequence, &outgoing);
    }

    fn forward_slot(
        &mut self,
        place: usize,
        (sequence, duration): (u64, u32),
        outgoing: &Outgoing<'_>,
        outbox: &mut Outbox,
        counters: &mut Counters,
    ) {
        let slot = &mut self.slots[place];
        let (kind, lane) = (slot.kind as usize, place as u8);
        for (listener, stream) in self.listeners.iter_mut().zip(&mut slot.streams) {
            if slot.index >= listener.places[kind] || listener.own[kind] == Some(lane) {
                continue;
            }
            if stream.lane != lane {
                stream.change_lane(lane, sequence, outgoing.timestamp, outgoing.timestamp);
            }
            stream.come_home(sequence, outgoing.timestamp);
            let Some(index) = stream.index(sequence, listener.first_sequence) else {
                counters.drop(DropReason::RtpStale);
                continue;
            };
            let rendering = &mut self.renderings[listener.rendering];
            if rendering.packet != self.packet {
                rendering.render(self.packet, outgoing, &slot.recent);
            }
            stream.sent(sequence, outgoing.timestamp, duration);
            listener.send(rendering, (index, stream.shift, slot.ssrc), outbox, counters);
        }
    }

    /// Sends a packet of the spare voice to those who sit in a slot: each hears it in the slot where its own voice is.
    fn forward_spare(
        &mut self,
        now: Instant,
        (sequence, duration): (u64, u32),
        outgoing: &Outgoing<'_>,
        outbox: &mut Outbox,
        counters: &mut Counters,
    ) {
        let lane = self.spare_place();
        let Some((spare, slots)) = self.slots.split_last_mut() else { return };
        for (at, listener) in self.listeners.iter_mut().enumerate() {
            let Some(own) = listener.own[TrackKind::Mic as usize].map(usize::from).filter(|own| *own != lane) else {
                continue;
            };
            let slot = &mut slots[own];
            if slot.index >= listener.places[TrackKind::Mic as usize] {
                continue;
            }
            let home = slot.timestamp_at(now);
            let stream = &mut slot.streams[at];
            if usize::from(stream.lane) != lane {
                stream.change_lane(lane as u8, sequence, outgoing.timestamp, home);
            }
            let Some(index) = stream.index(sequence, listener.first_sequence) else {
                counters.drop(DropReason::RtpStale);
                continue;
            };
            let rendering = &mut self.renderings[listener.rendering];
            if rendering.packet != self.packet {
                rendering.render(self.packet, outgoing, &spare.recent);
            }
            stream.sent(sequence, outgoing.timestamp, duration);
            listener.send(rendering, (index, stream.shift, slot.ssrc), outbox, counters);
        }
    }

    /// From now on so many earlier packets are repeated for a listener, which must know RED.
    pub(crate) fn protect(&mut self, now: Instant, place: usize, blocks: u8) {
        let before = self.listeners[place].rendering;
        let profile = self.renderings[before].profile;
        self.renderings[before].users -= 1;
        let rendering = self.use_rendering(profile, blocks);
        let listener = &mut self.listeners[place];
        (listener.rendering, listener.blocks, listener.blocks_since) = (rendering, blocks, Some(now));
        let is_wanted = self.listeners.iter().any(|listener| listener.blocks > 0);
        for slot in &mut self.slots {
            if is_wanted { slot.recent.enable() } else { slot.recent.disable() }
        }
    }

    /// From now on the listener may ask for packets again.
    pub(crate) fn allow_asking_again(&mut self, place: usize) {
        self.listeners[place].may_ask_again = true;
        for slot in &mut self.slots {
            slot.keep_history();
        }
    }

    /// Sends a packet once more, byte for byte as the listener should have got it. `false`: it cannot.
    pub(crate) fn send_again(
        &mut self,
        now: Instant,
        place: usize,
        (ssrc, number): (u32, u16),
        outbox: &mut Outbox,
        counters: &mut Counters,
    ) -> bool {
        let Some(listener) = self.listeners.get_mut(place).filter(|listener| listener.may_ask_again) else {
            return false;
        };
        let Some(slot) = self.slots.iter().find(|slot| slot.ssrc == ssrc) else { return false };
        let Some(stream) = slot.streams.get(place) else { return false };
        let Some(lane) = self.slots.get(usize::from(stream.lane)) else { return false };
        let Some((sequence, index)) = stream.sent_as(number) else { return false };
        let found = lane.history.find(now, listener.blocks_since, sequence, lane.ssrc);
        // What was made with redundancy depended on what had come by then; it is its own repair.
        let Some(outgoing) = found.filter(|outgoing| outgoing.red.is_some() || listener.blocks == 0) else {
            return false;
        };
        self.packet += 1;
        let rendering = &mut self.renderings[listener.rendering];
        rendering.render(self.packet, &outgoing, &lane.recent);
        listener.send(rendering, (index, stream.shift, ssrc), outbox, counters);
        counters.rtp_sent_again += 1;
        true
    }

    pub(crate) fn assignments(&self) -> Vec<SlotAssignment> {
        let taken = self.slots.iter().enumerate().filter_map(|(place, slot)| {
            let Holder { peer, track, .. } = slot.holder?;
            let spare = place == self.spare_place();
            Some(SlotAssignment { kind: slot.kind, index: slot.index, peer, track, spare })
        });
        taken.collect()
    }

    /// Answers whether the speakers have changed.
    pub(crate) fn update_speakers(&mut self, now: Instant) -> bool {
        if self.speakers_at.is_some_and(|at| now < at) {
            return false;
        }
        self.speakers_at = Some(now + SPEAKERS_INTERVAL);
        std::mem::swap(&mut self.speakers, &mut self.speakers_before);
        self.speakers.clear();
        self.voices.speakers(now, &mut self.loudnesses);
        self.speakers.extend(self.loudnesses.iter().map(|(_, holder)| holder.peer));
        self.speakers != self.speakers_before
    }
}

impl Listener {
    #[inline]
    fn send(
        &mut self,
        rendering: &Rendering,
        (index, shift, ssrc): (u64, u32, u32),
        outbox: &mut Outbox,
        counters: &mut Counters,
    ) {
        let len = rendering.len;
        let Some(packet) = outbox.reserve(len + OVERHEAD_BYTES_MAX) else {
            return counters.drop(DropReason::TransmitsFull);
        };
        packet[..len].copy_from_slice(&rendering.bytes[..len]);
        packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&rendering.timestamp.wrapping_add(shift).to_be_bytes());
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        match self.sealer.seal_rtp(packet, rendering.header_len, len, index) {
            Ok(sealed) => {
                outbox.commit_behind(&mut self.mark, self.to, sealed);
                counters.rtp_forwarded += 1;
            }
            Err(_) => counters.drop(DropReason::SealExhausted),
        }
    }
}
