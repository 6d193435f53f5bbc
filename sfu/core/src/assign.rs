//! Who gets a slot: how the choice of the loudest voices and the order of the desktops become holders of a room's
//! slots. Voices are chosen by [`Selection`](crate::loudest::Selection). Programs are never weighed against each other:
//! who comes first has the slot until it ends, and who finds none waits and asks again with each packet.

use std::time::Instant;

use crate::{TrackId, TrackKind, level::Voice, loudest::Candidate, room::Room, slot::Holder};

/// What a packet has done for its track.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claim {
    /// Where the packet goes, as index into the room's slots; `None`: nowhere.
    pub(crate) place: Option<usize>,
    /// Somebody's place is another one than before. Away from home: who is offered to it.
    pub(crate) changed: bool,
    /// Only the home can give it a place.
    pub(crate) waits: bool,
}

/// Why a track gives up its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Release {
    /// It comes back to the same place, if nobody has needed that.
    Muted,
    Over,
}

impl Room {
    /// For each packet of a track that may be heard.
    pub(crate) fn claim(&mut self, now: Instant, kind: TrackKind, holder: Holder, voice: Voice) -> Claim {
        if !self.is_home() {
            return self.claim_from_home(now, kind, Candidate { holder, voice });
        }
        match kind {
            TrackKind::Mic => {
                let heard = self.voices.hear(now, Candidate { holder, voice });
                if heard.changed {
                    self.seat_voices();
                }
                let place = heard.seat.map(|seat| self.place_of_seat(seat));
                Claim { place, changed: heard.changed, waits: false }
            }
            TrackKind::Program => self.claim_for_program(holder),
        }
    }

    /// The selection here is of this shard's voices only and says whom the home should hear of; the places are the home's.
    fn claim_from_home(&mut self, now: Instant, kind: TrackKind, candidate: Candidate) -> Claim {
        let place = self.place_of(kind, candidate.holder.track);
        let (changed, is_offered) = match kind {
            TrackKind::Mic => {
                let heard = self.voices.hear(now, candidate);
                (heard.changed, heard.seat.is_some())
            }
            TrackKind::Program => (false, true),
        };
        Claim { place, changed, waits: place.is_none() && is_offered }
    }

    fn claim_for_program(&mut self, holder: Holder) -> Claim {
        let place = self.place_of(TrackKind::Program, holder.track);
        if place.is_some() {
            return Claim { place, changed: false, waits: false };
        }
        let free = self.slots.iter().position(|slot| slot.kind == TrackKind::Program && slot.holder.is_none());
        if let Some(free) = free {
            self.slots[free].change_holder(Some(holder));
            self.update_own_places();
        }
        Claim { place: free, changed: free.is_some(), waits: false }
    }

    /// Answers whether a place has become free. Away from home: whether the home should know of it.
    pub(crate) fn release(&mut self, kind: TrackKind, track: TrackId, why: Release) -> bool {
        let place = self.place_of(kind, track);
        if !self.is_home() {
            let was_offered = match why {
                Release::Muted => self.voices.pause(track),
                Release::Over => self.voices.leave(track),
            };
            if let Some(place) = place {
                self.slots[place].change_holder(None);
                self.update_own_places();
            }
            return place.is_some() || was_offered.is_some() || kind == TrackKind::Program;
        }
        match (kind, why) {
            (TrackKind::Program, _) => {
                if let Some(place) = place {
                    self.slots[place].change_holder(None);
                    self.update_own_places();
                }
            }
            (TrackKind::Mic, why) => {
                match why {
                    Release::Muted => self.voices.pause(track),
                    Release::Over => self.voices.leave(track),
                };
                self.seat_voices();
            }
        }
        place.is_some()
    }

    /// The place that the track holds.
    pub(crate) fn place_of(&self, kind: TrackKind, track: TrackId) -> Option<usize> {
        self.slots
            .iter()
            .position(|slot| slot.kind == kind && slot.holder.is_some_and(|holder| holder.track == track))
    }

    /// This replica decides from now on, and begins with what is so: the others know it too.
    pub(crate) fn take_over(&mut self, now: Instant, voice_of: impl Fn(&Holder) -> Voice) {
        let places = self.slots.iter().filter(|slot| slot.kind == TrackKind::Mic);
        let seats = places.map(|slot| slot.holder.map(|holder| Candidate { holder, voice: voice_of(&holder) }));
        self.voices.reseat(now, seats);
    }

    /// Another replica decides from now on: the selection is of the voices of this shard.
    pub(crate) fn hand_over(&mut self, now: Instant) {
        let seats: Vec<_> = self.voices.seats().map(|seat| seat.copied()).collect();
        self.voices.reseat(now, seats.into_iter().map(|seat| seat.filter(|seat| seat.holder.key.is_some())));
    }

    /// Speech slots come first and the spare one last.
    fn place_of_seat(&self, seat: usize) -> usize {
        if self.slots[seat].kind == TrackKind::Mic { seat } else { self.slots.len() - 1 }
    }

    /// Makes the slots agree with the selection.
    fn seat_voices(&mut self) {
        // Speech slots and the spare one, in the order of the seats.
        let places = self.slots.iter_mut().filter(|slot| slot.kind == TrackKind::Mic);
        for (slot, seat) in places.zip(self.voices.seats()) {
            let track = |holder: &Holder| holder.track;
            let chosen = seat.map(|candidate| candidate.holder);
            if slot.holder.as_ref().map(track) != chosen.as_ref().map(track) {
                slot.change_holder(chosen);
            }
        }
        self.update_own_places();
    }
}
