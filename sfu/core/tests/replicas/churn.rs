//! Random joins, ends, mutes, restarts, losses and speech on three shards. Whatever happened: nobody hears a track that
//! holds no slot, and when news arrives again, all shards agree.

use std::collections::HashSet;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sfu_core::Limits;

use crate::call::Call;

const OPERATIONS: u32 = 1_000;
const PEERS_MAX: usize = 9;
/// Fewer than peers, so that some have to wait.
const SLOTS: u8 = 4;

struct Churn {
    call: Call,
    rng: ChaCha20Rng,
    next: u64,
    muted: HashSet<u64>,
}

impl Churn {
    fn any_peer(&mut self) -> Option<u64> {
        let ids = self.call.ids();
        (!ids.is_empty()).then(|| ids[self.rng.random_range(0..ids.len())])
    }

    fn step(&mut self) {
        let peer = self.any_peer();
        match (self.rng.random_range(0..100), peer) {
            (0..12, _) if self.call.ids().len() < PEERS_MAX => {
                self.next += 1;
                let on = self.rng.random_range(0..3);
                self.call.join(on, self.next);
            }
            (0..18, Some(peer)) => {
                self.muted.remove(&peer);
                self.call.leave(peer);
            }
            (18..26, Some(peer)) => {
                let mutes = !self.muted.remove(&peer);
                if mutes {
                    self.muted.insert(peer);
                }
                self.call.mute(peer, mutes);
            }
            (26..32, Some(peer)) => {
                let ssrc = self.rng.random();
                self.call.new_source(peer, ssrc);
            }
            (32..36, _) => {
                let mut rng = ChaCha20Rng::seed_from_u64(self.rng.random());
                let part = self.rng.random_range(0.0..0.9);
                self.call.lose(move |_, _| rng.random_bool(part));
            }
            (36..44, _) => self.call.lose(|_, _| false),
            (_, Some(peer)) => self.call.speak(peer, &[peer as u8]),
            (_, None) => {}
        }
    }

    /// Whom the slots named on any shard, before or after.
    fn holders(&self) -> HashSet<u32> {
        (0..3).filter_map(|on| self.call.slots(on)).flatten().map(|slot| slot.track.0).collect()
    }

    fn heard(&mut self) -> Vec<(u64, u32, u32)> {
        let ids = self.call.ids();
        let all = ids.into_iter().flat_map(|id| {
            let received = std::mem::take(&mut self.call.client_mut(id).received);
            received.into_iter().map(move |packet| (id, packet.ssrc, packet.csrcs[0]))
        });
        all.collect()
    }
}

#[test]
fn slots_agree_after_any_history_and_nothing_without_a_slot_is_forwarded() {
    let limits = Limits { speech_slots: SLOTS, program_slots: 0, ..Limits::default() };
    let rng = ChaCha20Rng::seed_from_u64(20);
    let mut churn = Churn { call: Call::with_limits(3, limits), rng, next: 0, muted: HashSet::new() };
    let mut heard_packets = 0;
    for operation in 0..OPERATIONS {
        let before = churn.holders();
        churn.step();
        let after = churn.holders();
        for (listener, _, track) in churn.heard() {
            heard_packets += 1;
            assert!(before.contains(&track) || after.contains(&track), "{listener} hears {track} in {operation}");
        }
        if operation % 100 == 99 {
            assert_agreement(&mut churn);
        }
    }
    assert!(heard_packets > 200, "{heard_packets}");
    for id in churn.call.ids() {
        churn.call.leave(id);
    }
    assert!(churn.call.sizes_are_zero());
}

fn assert_agreement(churn: &mut Churn) {
    churn.call.lose(|_, _| false);
    for _ in 0..5 {
        for id in churn.call.ids() {
            churn.call.speak(id, &[id as u8]);
        }
        churn.call.run_ms(400);
    }
    churn.heard();
    let ids = churn.call.ids();
    if ids.is_empty() {
        return;
    }
    let slots = churn.call.agreed_slots();
    // With the spare one.
    assert!(slots.len() <= usize::from(SLOTS) + 1);
    assert!(slots.iter().all(|slot| ids.contains(&slot.peer.0)), "who is gone holds nothing");
    let talking: Vec<u64> = ids.into_iter().filter(|id| !churn.muted.contains(id)).collect();
    assert!(slots.len() >= talking.len().min(usize::from(SLOTS)), "{slots:?} {talking:?}");
    for id in talking {
        churn.call.speak(id, &[id as u8]);
        let ours: HashSet<u64> = churn.heard().into_iter().map(|(listener, _, _)| listener).collect();
        let others = churn.call.ids().len() - 1;
        let listeners = match slots.iter().find(|slot| slot.peer.0 == id) {
            None => 0,
            Some(slot) if !slot.spare => others,
            // Who has a slot hears it there.
            Some(_) => slots.len() - 1,
        };
        assert_eq!(ours.len(), listeners, "of {id} in {slots:?}");
    }
}
