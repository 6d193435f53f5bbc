//! What time does: set-up and consent run out, silence is noticed, reports go out, handshakes repeat themselves. One
//! coarse alarm for each peer and one exact alarm for its handshake; no packet ever looks at another peer.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use srtp::OVERHEAD_BYTES_MAX;

use crate::{
    Counters, DropReason, GoneReason,
    events::{Events, Queued},
    node::Node,
    peer::Peer,
    report::{COMPOUND_MAX, LISTENER_INTERVAL, PUBLISHER_INTERVAL},
    timers::{Alarm, Due},
};

/// How late consent, silence and reports may be noticed.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// A deadline of DTLS that is due already is looked at in the next turn, so that one turn always ends; far timers of an
/// idle endpoint are not worth an alarm.
pub(crate) const HANDSHAKE_ALARM: Range<Duration> = Duration::from_millis(1)..Duration::from_secs(3_600);

impl Node {
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some(Due { at, peer, alarm }) = self.timers.pop_due(now) {
            let Some(&key) = self.peer_keys.get(&peer) else { continue };
            match alarm {
                Alarm::Tick => self.tick(now, key),
                Alarm::Dtls => self.wake_dtls(at, key),
            }
        }
    }

    fn tick(&mut self, now: Instant, key: usize) {
        let peer = &mut self.peers[key];
        if !peer.is_established() && now.saturating_duration_since(peer.joined_at) >= self.limits.setup_timeout {
            return self.evict(now, key, GoneReason::SetupTimeout);
        }
        self.limit_turn(now, key);
        let peer = &mut self.peers[key];
        let id = peer.id;
        while let Some(path) = self.peers[key].ice.expired_path(now, self.limits.consent_timeout) {
            self.addresses.remove(&path);
            self.lose_address(now, key, path);
            if !self.peer_keys.contains_key(&id) {
                return;
            }
        }
        let peer = &mut self.peers[key];
        let silence = now.saturating_duration_since(peer.heard_at);
        if peer.is_established() && peer.ice.selected().is_none() && silence >= self.limits.consent_timeout {
            return self.evict(now, key, GoneReason::ConsentExpired);
        }
        if !peer.presence.idle && silence >= self.limits.idle_after {
            peer.presence.idle = true;
        }
        // Also when the queue had no place for it before.
        if peer.presence.idle != peer.presence.reported_idle {
            announce_presence(peer, key, &mut self.events, &mut self.counters);
        }
        self.timers.arm(now + TICK, id, Alarm::Tick);
        let room_key = peer.room;
        if peer.profile.red.is_some()
            && let (Some(blocks), Some(place)) = (peer.protection.decide(now), peer.listener)
        {
            self.rooms[room_key].protect(now, place, blocks);
        }
        if now >= peer.report_at {
            self.report(now, key);
        }
        self.keep_in_step(now, room_key);
        if self.rooms[room_key].is_home() && self.rooms[room_key].update_speakers(now) {
            self.announce_speakers(room_key);
        }
    }

    fn report(&mut self, now: Instant, key: usize) {
        let peer = &mut self.peers[key];
        peer.report_at = now + if peer.tracks.is_empty() { LISTENER_INTERVAL } else { PUBLISHER_INTERVAL };
        peer.hearing.end_interval();
        let Some(place) = peer.listener else { return };
        let room = &mut self.rooms[peer.room];
        let mut buf = [0; COMPOUND_MAX + OVERHEAD_BYTES_MAX];
        let time = (&self.clock, now);
        let slots = room.heard_slots(place, now);
        let len = self.reporter.compound(&mut buf[..COMPOUND_MAX], time, &mut peer.tracks, slots);
        if len == 0 {
            return;
        }
        let listener = &mut room.listeners[place];
        match listener.sealer.seal_rtcp(&mut buf, len) {
            Ok(sealed) if self.outbox.push(listener.to, &buf[..sealed]) => self.counters.rtcp_sent += 1,
            Ok(_) => self.counters.drop(DropReason::TransmitsFull),
            Err(_) => self.counters.drop(DropReason::SealExhausted),
        }
    }
}

pub(crate) fn announce_presence(peer: &mut Peer, key: usize, events: &mut Events, counters: &mut Counters) {
    events.mark(&mut peer.presence.queued, Queued::Presence { key, peer: peer.id }, counters);
}
