//! Who gets a slot: the policy, apart from everything else. Places are static: a track takes the first free slot of its
//! kind and keeps it until it ends. A live track that finds none waits, and asks again with each packet.

use crate::{TrackKind, slot::Slot};

/// The slot for a track that has become live; `None` while all of its kind are taken.
pub(crate) fn place(slots: &[Slot], kind: TrackKind) -> Option<usize> {
    slots.iter().position(|slot| slot.kind == kind && slot.holder.is_none())
}
