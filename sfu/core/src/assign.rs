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
    /// Somebody's place is another one than before.
    pub(crate) changed: bool,
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
        match kind {
            TrackKind::Mic => {
                let heard = self.voices.hear(now, Candidate { holder, voice });
                if heard.changed {
                    self.seat_voices();
                }
                Claim { place: heard.seat.map(|seat| self.place_of_seat(seat)), changed: heard.changed }
            }
            TrackKind::Program => self.claim_for_program(holder),
        }
    }

    fn claim_for_program(&mut self, holder: Holder) -> Claim {
        let place = self.place_of(TrackKind::Program, holder.track);
        if place.is_some() {
            return Claim { place, changed: false };
        }
        let free = self.slots.iter().position(|slot| slot.kind == TrackKind::Program && slot.holder.is_none());
        if let Some(free) = free {
            self.slots[free].change_holder(Some(holder));
            self.update_own_places();
        }
        Claim { place: free, changed: free.is_some() }
    }

    /// Answers whether a place has become free.
    pub(crate) fn release(&mut self, kind: TrackKind, track: TrackId, why: Release) -> bool {
        let place = self.place_of(kind, track);
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
        match kind {
            TrackKind::Mic => self.voices.seat_of(track).map(|seat| self.place_of_seat(seat)),
            TrackKind::Program => self
                .slots
                .iter()
                .position(|slot| slot.kind == kind && slot.holder.is_some_and(|holder| holder.track == track)),
        }
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
