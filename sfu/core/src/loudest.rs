//! Which voices of a room are heard, when there are more than slots: one choice for everybody. It knows nothing of
//! packets, listeners or shards: candidates go in one by one, [`Selection::seats`] is the outcome.
//!
//! There is a seat for each speech slot and a last one, the *spare*: nobody has a slot for it, but who sits in a slot
//! has no use for that slot, since nobody hears himself, and hears the spare voice there instead. So that everybody hears
//! as many others as there are slots, whether he speaks or not.
//!
//! The rules, in order: who has a seat keeps it as long as nobody needs it. An empty seat goes to the first who sends
//! anything, so that up to one more track than slots nothing ever changes. Then only a voice that speaks gets in, for
//! the seat that has been silent longest, or, when all of them speak, for the quietest one if it is clearly louder and
//! that one has had its time. The dominant speaker keeps its seat through its pauses.
//!
//! Several shards: each one runs a selection over its own tracks; the seats of that are its best candidates, one more
//! than slots, which is all that the room's home shard must hear of (a voice beyond them is beaten by that many of its
//! own shard already). The home shard feeds them to its own selection with the same [`Selection::hear`].

use std::time::{Duration, Instant};

use crate::{
    TrackId,
    level::{Attenuation, Voice},
    slot::Holder,
};

/// Twice the amplitude: two people who talk at the same distance differ by less, and their syllables too once smoothed.
const LOUDER_BY_DB: u16 = 6;
/// A voice that speaks keeps its seat against louder ones this long, a few words: a shorter scrap of speech is noise to
/// the listeners, and seats cannot flicker faster.
const SEAT_MIN: Duration = Duration::from_secs(1);
/// Becomes dominant after being louder this long: longer than a cough, a laugh or "yes".
const DOMINANT_AFTER: Duration = Duration::from_secs(1);
/// Clearly audible as louder. Less than what takes a seat, as dominance takes nobody's.
const DOMINANT_LOUDER_BY_DB: u16 = 3;
/// A pause at the end of a sentence is shorter. After it, dominance goes to whoever speaks.
const DOMINANT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// A track that wants to be heard, as of its last packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) holder: Holder,
    pub(crate) voice: Voice,
}

#[derive(Clone, Copy, Default, Debug)]
struct Seat {
    taken: Option<(Candidate, Instant)>,
    /// Who sat here and may come back: a muted track. Others take such a seat last.
    kept_for: Option<TrackId>,
}

#[derive(Debug)]
pub(crate) struct Selection {
    /// The last one is the spare.
    seats: Box<[Seat]>,
    dominant: Option<TrackId>,
    /// Who is about to become dominant, and since when.
    challenger: Option<(TrackId, Instant)>,
}

/// What a candidate's packet has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heard {
    /// The seat of the candidate; `None`: it is not among the loudest.
    pub(crate) seat: Option<usize>,
    /// Whether anybody's seat is another one than before.
    pub(crate) changed: bool,
}

impl Selection {
    pub(crate) fn new(slots: u8) -> Self {
        Self { seats: vec![Seat::default(); usize::from(slots) + 1].into(), dominant: None, challenger: None }
    }

    /// A packet of a track of ours, or news of another shard's. Costs a look at each seat, whatever the number of
    /// tracks.
    pub(crate) fn hear(&mut self, now: Instant, candidate: Candidate) -> Heard {
        let seated = self.seat_of(candidate.holder.track);
        if let Some(seat) = seated {
            self.seats[seat].taken = self.seats[seat].taken.map(|(_, since)| (candidate, since));
            self.update_dominant(now, &candidate);
        }
        let spare = self.spare();
        let seat = match seated {
            Some(seat) if seat != spare => return Heard { seat: seated, changed: false },
            _ => self.better_seat(now, &candidate, seated.is_some()),
        };
        let Some(seat) = seat else { return Heard { seat: seated, changed: false } };
        let out = self.seats[seat].taken.take();
        if seated.is_some() {
            self.seats[spare].taken = None;
        }
        // Who is pushed out of a slot may still be the best one for the spare seat.
        if let Some((out, since)) = out
            && seat != spare
            && self.seats[spare].taken.is_none_or(|(there, _)| rank(now, &out) > rank(now, &there))
        {
            self.seats[spare].taken = Some((out, since));
        }
        self.seats[seat] = Seat { taken: Some((candidate, now)), kept_for: None };
        Heard { seat: Some(seat), changed: true }
    }

    /// Seats everybody anew, as another selection has done it.
    pub(crate) fn reseat(&mut self, now: Instant, seats: impl Iterator<Item = Option<Candidate>>) {
        for (seat, taken) in self.seats.iter_mut().zip(seats) {
            *seat = Seat { taken: taken.map(|candidate| (candidate, now)), kept_for: None };
        }
        (self.dominant, self.challenger) = (None, None);
    }

    /// The track is over. Answers its seat, which is empty now.
    pub(crate) fn leave(&mut self, track: TrackId) -> Option<usize> {
        for seat in self.seats.iter_mut().filter(|seat| seat.kept_for == Some(track)) {
            seat.kept_for = None;
        }
        self.dominant = self.dominant.filter(|dominant| *dominant != track);
        let seat = self.seat_of(track)?;
        self.seats[seat].taken = None;
        Some(seat)
    }

    /// The track is muted: out at once, and back in the same seat if nobody has needed it.
    pub(crate) fn pause(&mut self, track: TrackId) -> Option<usize> {
        let seat = self.leave(track)?;
        self.seats[seat].kept_for = Some(track);
        Some(seat)
    }

    /// The muted tracks that have a seat kept for them.
    pub(crate) fn kept(&self) -> impl Iterator<Item = TrackId> {
        self.seats.iter().filter_map(|seat| seat.kept_for)
    }

    /// They have been muted elsewhere and will not come back.
    pub(crate) fn forget_kept(&mut self, is_over: impl Fn(TrackId) -> bool) {
        for seat in &mut self.seats {
            seat.kept_for = seat.kept_for.filter(|track| !is_over(*track));
        }
    }

    pub(crate) fn seat_of(&self, track: TrackId) -> Option<usize> {
        self.seats.iter().position(|seat| seat.taken.is_some_and(|(there, _)| there.holder.track == track))
    }

    /// Who sits where: the slots in their order, then the spare seat.
    pub(crate) fn seats(&self) -> impl Iterator<Item = Option<&Candidate>> {
        self.seats.iter().map(|seat| seat.taken.as_ref().map(|(candidate, _)| candidate))
    }

    /// Those who speak, loudest first.
    pub(crate) fn speakers(&self, now: Instant, into: &mut Vec<(Attenuation, Holder)>) {
        into.clear();
        let speaking = self.seats().flatten().filter(|candidate| candidate.voice.is_speaking(now));
        into.extend(speaking.map(|candidate| (candidate.voice.loudness(), candidate.holder)));
        into.sort_unstable_by_key(|(loudness, holder)| (*loudness, holder.peer));
    }

    fn spare(&self) -> usize {
        self.seats.len() - 1
    }

    /// The seat for a candidate that has none, or only the spare one.
    fn better_seat(&self, now: Instant, candidate: &Candidate, has_spare: bool) -> Option<usize> {
        let (spare, slots) = self.seats.split_last()?;
        if let Some(empty) = empty_seat(slots, candidate.holder.track) {
            return Some(empty);
        }
        if !has_spare && spare.taken.is_none() {
            return Some(self.spare());
        }
        if !candidate.voice.is_speaking(now) {
            return None;
        }
        let weakest = slots
            .iter()
            .enumerate()
            .filter_map(|(place, seat)| seat.taken.map(|(there, since)| (place, there, since)))
            .filter(|(_, there, _)| Some(there.holder.track) != self.dominant)
            .min_by_key(|(_, there, _)| rank(now, there));
        if let Some((place, there, since)) = weakest
            && gives_way(now, &there, since, candidate)
        {
            return Some(place);
        }
        let (there, since) = spare.taken.filter(|_| !has_spare)?;
        gives_way(now, &there, since, candidate).then(|| self.spare())
    }

    fn update_dominant(&mut self, now: Instant, candidate: &Candidate) {
        let track = candidate.holder.track;
        if self.dominant == Some(track) {
            return;
        }
        let dominant = self.seats().flatten().find(|there| Some(there.holder.track) == self.dominant);
        let challenges = candidate.voice.is_speaking(now)
            && dominant.is_none_or(|dominant| {
                !dominant.voice.is_speaking(now)
                    || candidate.voice.loudness().beats(dominant.voice.loudness(), DOMINANT_LOUDER_BY_DB)
            });
        let is_over = dominant.is_none_or(|dominant| {
            let spoke_at = dominant.voice.spoke_at();
            spoke_at.is_none_or(|at| now.saturating_duration_since(at) > DOMINANT_PAUSE_MAX)
        });
        match self.challenger {
            _ if challenges && is_over => (self.dominant, self.challenger) = (Some(track), None),
            Some((challenger, since)) if challenger == track => {
                if !challenges {
                    self.challenger = None;
                } else if now.saturating_duration_since(since) >= DOMINANT_AFTER {
                    (self.dominant, self.challenger) = (Some(track), None);
                }
            }
            // A challenger that stopped sending does not keep the others waiting.
            Some((_, since)) if now.saturating_duration_since(since) < 2 * DOMINANT_AFTER => {}
            _ if challenges => self.challenger = Some((track, now)),
            _ => {}
        }
    }
}

/// Its own, then one that is nobody's, then one that is kept for somebody else.
fn empty_seat(slots: &[Seat], track: TrackId) -> Option<usize> {
    let find = |fits: &dyn Fn(Option<TrackId>) -> bool| {
        slots.iter().position(|seat| seat.taken.is_none() && fits(seat.kept_for))
    };
    find(&|kept_for| kept_for == Some(track))
        .or_else(|| find(&|kept_for| kept_for.is_none()))
        .or_else(|| find(&|_| true))
}

/// Who deserves a seat more: first those who speak, by loudness, then the silent by their last word.
fn rank(now: Instant, candidate: &Candidate) -> (bool, std::cmp::Reverse<Attenuation>, Option<Instant>) {
    let voice = &candidate.voice;
    let speaks = voice.is_speaking(now);
    let loudness = if speaks { voice.loudness() } else { Attenuation(u16::MAX) };
    (speaks, std::cmp::Reverse(loudness), voice.spoke_at())
}

/// Whether the one in a seat makes room for a voice that speaks.
fn gives_way(now: Instant, there: &Candidate, since: Instant, candidate: &Candidate) -> bool {
    if !there.voice.is_speaking(now) {
        return true;
    }
    now.saturating_duration_since(since) >= SEAT_MIN
        && candidate.voice.loudness().beats(there.voice.loudness(), LOUDER_BY_DB)
}

#[cfg(test)]
mod tests;
