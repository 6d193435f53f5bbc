//! What a datagram does. It is told apart by its first byte (RFC 7983) and, for media, by the range of its payload type
//! (RFC 5761). Media and DTLS count only from addresses that passed an authenticated ICE check; a stranger costs one
//! table look-up and one counter and leaves nothing behind.

use std::time::{Duration, Instant};

use srtp::{OpenError, RtpHeader};
use stun::{Class, Message, Method};

use crate::{
    Counters, DropReason, GoneReason, Limits, Path,
    assign::Release,
    events::{Events, Queued},
    ice::{ANSWER_BYTES_MAX, Check, Ufrag, answer},
    node::Node,
    peer::Peer,
    red,
    room::Incoming,
    rtcp,
    slot::Holder,
    stamp::PAYLOAD_MAX,
    track,
    upkeep::announce_presence,
};

/// An address that another peer has validated is taken over only after its owner was silent on it for this long: clients
/// check at least each 6 s (RFC 7675 section 5.1), and a NAT that gives a port to somebody else has dropped the first
/// owner long before.
const ADDRESS_STALE_AFTER: Duration = Duration::from_secs(15);

impl Node {
    /// Most frequent first: media, then checks, then handshakes.
    pub(crate) fn receive(&mut self, now: Instant, path: Path, bytes: &mut [u8]) {
        self.counters.datagrams_received += 1;
        self.counters.bytes_received += bytes.len() as u64;
        let received = match bytes.first() {
            Some(128..=191) => self.receive_media(now, path, bytes),
            Some(0..=3) => self.receive_stun(now, path, bytes),
            Some(20..=63) => self.receive_dtls(path, bytes),
            _ => Err(DropReason::UnknownProtocol),
        };
        if let Err(reason) = received {
            self.counters.drop(reason);
        }
    }

    fn receive_media(&mut self, now: Instant, path: Path, bytes: &mut [u8]) -> Result<(), DropReason> {
        let key = *self.addresses.get(&path).ok_or(DropReason::UnknownAddress)?;
        match bytes.get(1) {
            // RFC 5761 section 4: payload types 64-95 with the marker bit are RTCP.
            Some(192..=223) => self.receive_rtcp(now, key, bytes),
            _ => self.receive_rtp(now, key, bytes),
        }
    }

    fn receive_rtp(&mut self, now: Instant, key: usize, bytes: &mut [u8]) -> Result<(), DropReason> {
        let header = RtpHeader::parse(bytes).map_err(|_| DropReason::RtpMalformed)?;
        let peer = &mut self.peers[key];
        let opener = peer.opener.as_mut().ok_or(DropReason::RtpTooEarly)?;
        let opened = opener.open_rtp(bytes, &header).map_err(rtp_drop)?;
        let packet = &bytes[..opened.len];
        self.counters.rtp_received += 1;
        hear(peer, key, now, (&mut self.events, &mut self.counters));
        let mid = peer.profile.mid.and_then(|id| header.extension_value(packet, id));
        let (found, restarted) = track::find(&mut peer.tracks, header.ssrc, mid).ok_or(DropReason::RtpNoTrack)?;
        let track = &mut peer.tracks[found];
        let room = &mut self.rooms[peer.room];
        if restarted.0
            && let Some(place) = room.place_of(track.kind, track.id)
        {
            room.slots[place].restart_source();
        }
        if !track.receive(opened.index, header.timestamp, self.clock.media(now)) {
            return Err(DropReason::RtpStale);
        }
        let payload = header.payload(packet).map_err(|_| DropReason::RtpMalformed)?;
        let (opus, red) = sort_payload(peer, &header, &packet[payload])?;
        let level = peer.profile.audio_level.and_then(|id| header.extension_value(packet, id)?.first().copied());
        let incoming =
            Incoming { index: opened.index, timestamp: header.timestamp, marker: header.marker, level, opus, red };
        self.publish(now, key, found, &incoming)
    }

    fn publish(&mut self, now: Instant, key: usize, found: usize, incoming: &Incoming<'_>) -> Result<(), DropReason> {
        let peer = &mut self.peers[key];
        let track = &mut peer.tracks[found];
        if track.muted {
            return Err(DropReason::RtpMuted);
        }
        if !track.allowance.take(now, self.limits.track_packets_per_second) {
            return Err(DropReason::RtpFlood);
        }
        let spoke = track.voice.is_speaking(now);
        track.voice.hear(now, incoming.level, incoming.opus);
        let begins_to_speak = !spoke && track.voice.is_speaking(now);
        let room = &mut self.rooms[peer.room];
        let holder = Holder { key: Some(key), shard: self.shard, peer: peer.id, track: track.id };
        let claim = room.claim(now, track.kind, holder, track.voice);
        track.waited_at = claim.waits.then_some(now);
        let Some(place) = claim.place else {
            let room_key = peer.room;
            if claim.waits {
                self.ask_home(now, room_key, claim.changed || begins_to_speak);
            }
            return Err(DropReason::RtpNoSlot);
        };
        room.forward(now, place, incoming, &mut self.outbox, &mut self.counters);
        let speakers_changed = room.is_home() && room.update_speakers(now);
        let room_key = peer.room;
        let (is_spread, voice) = (room.spread.is_some(), track.voice);
        if !std::mem::replace(&mut track.announced, true) {
            let mark = Queued::Live { key, peer: peer.id, track: found };
            self.events.mark(&mut track.live_queued, mark, &mut self.counters);
        }
        if claim.changed {
            self.announce_slots(room_key);
        }
        if speakers_changed {
            self.announce_speakers(room_key);
        }
        if is_spread {
            self.share(now, room_key, (place, voice), incoming);
        }
        Ok(())
    }

    fn receive_rtcp(&mut self, now: Instant, key: usize, bytes: &mut [u8]) -> Result<(), DropReason> {
        let peer = &mut self.peers[key];
        let opener = peer.opener.as_mut().ok_or(DropReason::RtpTooEarly)?;
        let len = opener.open_rtcp(bytes).map_err(|_| DropReason::RtcpUnauthenticated)?;
        self.counters.rtcp_received += 1;
        hear(peer, key, now, (&mut self.events, &mut self.counters));
        let Peer { room: room_key, tracks, hearing, protection, .. } = peer;
        let (room_key, listener, asked_again) = (*room_key, peer.listener, &mut peer.asked_again);
        let (clock, room) = (&self.clock, &mut self.rooms[room_key]);
        let mut freed = false;
        let read = rtcp::read(&bytes[..len], |item| match item {
            rtcp::Item::Sender(info) => {
                if let Some(track) = tracks.iter_mut().find(|track| track.ssrc() == Some(info.ssrc)) {
                    track.reception.hear_sender_report(now, &info);
                }
            }
            rtcp::Item::Block(block) => {
                if room.slots.iter().any(|slot| slot.ssrc == block.ssrc) {
                    hearing.hear(clock, now, &block);
                    protection.hear(&block);
                }
            }
            rtcp::Item::Nack { ssrc, sequence, following } => {
                for number in asked_for(sequence, following) {
                    let sent = asked_again.take(now, SENT_AGAIN_PER_SECOND)
                        && listener.is_some_and(|place| {
                            room.send_again(now, place, (ssrc, number), &mut self.outbox, &mut self.counters)
                        });
                    if !sent {
                        self.counters.drop(DropReason::NackUnanswered);
                    }
                }
            }
            rtcp::Item::Goodbye { ssrc } => {
                for track in tracks.iter_mut().filter(|track| track.ssrc() == Some(ssrc)) {
                    track.end();
                    freed |= room.release(track.kind, track.id, Release::Over);
                }
            }
        });
        if freed {
            self.announce_slots(room_key);
        }
        read.map_err(|_| DropReason::RtcpMalformed)
    }

    fn receive_stun(&mut self, now: Instant, path: Path, bytes: &[u8]) -> Result<(), DropReason> {
        let request = Message::parse(bytes).map_err(|_| DropReason::StunMalformed)?;
        if (request.class(), request.method()) != (Class::Request, Method::BINDING) {
            return Err(DropReason::StunIgnored);
        }
        let ufrag = request.username().and_then(Ufrag::of_username).ok_or(DropReason::StunUnknownUser)?;
        let key = *self.ufrags.get(&ufrag).ok_or(DropReason::StunUnknownUser)?;
        if self.belongs_to_another(now, path, key) {
            return Err(DropReason::StunRefused);
        }
        if !self.addresses.contains_key(&path) && !self.may_be_looked_at(now, key) {
            return Err(DropReason::StunFlood);
        }
        let (check, integrity) = match self.peers[key].ice.check(&request) {
            Ok(checked) => checked,
            Err(reason) => {
                self.failed_checks.take(now, self.limits.failed_checks_per_second);
                self.peers[key].failed_checks.take(now, self.limits.failed_checks_of_peer_per_second);
                return Err(reason);
            }
        };
        let place = self.outbox.reserve(ANSWER_BYTES_MAX).ok_or(DropReason::TransmitsFull)?;
        let written = answer(place, &request, check, path.remote, integrity);
        let len = written.map_err(|_| DropReason::StunRefused)?;
        self.outbox.commit(path, len);
        let Check::Valid { nominates, current } = check else { return Err(DropReason::StunRefused) };
        self.counters.stun_answered += 1;
        self.validate(now, key, path, (nominates, current));
        Ok(())
    }

    /// A check from a new address is worth its hash only while few of them fail, in all and for the peer that it names:
    /// whoever has overheard a username could otherwise keep a shard busy. What is proven already is not concerned.
    fn may_be_looked_at(&self, now: Instant, key: usize) -> bool {
        let Limits { failed_checks_per_second, failed_checks_of_peer_per_second, .. } = self.limits;
        self.failed_checks.has(now, failed_checks_per_second)
            && self.peers[key].failed_checks.has(now, failed_checks_of_peer_per_second)
    }

    fn belongs_to_another(&self, now: Instant, path: Path, key: usize) -> bool {
        let Some(&owner) = self.addresses.get(&path) else { return false };
        let checked_at = self.peers[owner].ice.last_check_from(path);
        owner != key && checked_at.is_some_and(|at| now.saturating_duration_since(at) < ADDRESS_STALE_AFTER)
    }

    fn validate(&mut self, now: Instant, key: usize, path: Path, flags: (bool, bool)) {
        let peer = &mut self.peers[key];
        hear(peer, key, now, (&mut self.events, &mut self.counters));
        let change = peer.ice.validate(now, path, flags, self.limits.paths_per_peer);
        if let Some(retired) = change.retired {
            self.ufrags.remove(&retired);
        }
        if let Some(removed) = change.removed {
            self.addresses.remove(&removed);
        }
        if change.selected
            && let Some(place) = peer.listener
        {
            self.rooms[peer.room].listeners[place].to = path;
        }
        if change.added
            && let Some(owner) = self.addresses.insert(path, key)
            && owner != key
        {
            self.lose_address(now, owner, path);
        }
        self.start_handshake(key);
    }

    /// The connection of a path has ended: nothing counts from there any more, and nothing goes there, until it passes a
    /// check again. A peer without another path has the consent time to come back with one.
    pub fn handle_disconnect(&mut self, path: Path) {
        let Some(key) = self.addresses.remove(&path) else { return };
        let peer = &mut self.peers[key];
        peer.ice.forget(path);
        if let Some(place) = peer.listener {
            self.rooms[peer.room].listeners[place].to = peer.ice.selected().unwrap_or(Path::NOWHERE);
        }
    }

    /// Whether a peer has proven this path to be its own.
    #[must_use]
    pub fn is_proven(&self, path: Path) -> bool {
        self.addresses.contains_key(&path)
    }

    /// The peer goes on with another of its addresses, or ends.
    pub(crate) fn lose_address(&mut self, now: Instant, key: usize, path: Path) {
        let peer = &mut self.peers[key];
        peer.ice.forget(path);
        match (peer.ice.selected(), peer.listener) {
            (None, _) => self.evict(now, key, GoneReason::ConsentExpired),
            (Some(selected), Some(place)) => self.rooms[peer.room].listeners[place].to = selected,
            (Some(_), None) => {}
        }
    }
}

/// Two voices of which nothing arrives; for two seconds twice as many (see [`Allowance`](crate::track::Allowance)). More is
/// a path that asking again only fills.
const SENT_AGAIN_PER_SECOND: u32 = 100;

/// RFC 4585 section 6.2.1: a sequence number and a mask of the sixteen behind it.
fn asked_for(sequence: u16, following: u16) -> impl Iterator<Item = u16> {
    let behind = (0..16).filter(move |bit| following >> bit & 1 != 0);
    std::iter::once(sequence).chain(behind.map(move |bit| sequence.wrapping_add(bit + 1)))
}

/// Something authenticated has come from the peer.
fn hear(peer: &mut Peer, key: usize, now: Instant, (events, counters): (&mut Events, &mut Counters)) {
    peer.heard_at = now;
    if peer.presence.idle {
        peer.presence.idle = false;
        announce_presence(peer, key, events, counters);
    }
}

/// The Opus payload, and the RED one around it. Nothing is decoded: a broken Opus packet is the listeners' to conceal.
fn sort_payload<'p>(
    peer: &Peer,
    header: &RtpHeader,
    payload: &'p [u8],
) -> Result<(&'p [u8], Option<&'p [u8]>), DropReason> {
    if payload.len() > PAYLOAD_MAX {
        return Err(DropReason::RtpTooLarge);
    }
    let (opus, red) = if header.payload_type == peer.profile.opus {
        (payload, None)
    } else if Some(header.payload_type) == peer.profile.red && !payload.is_empty() {
        let primary = red::primary(payload).ok_or(DropReason::RtpMalformed)?;
        if primary.payload_type != peer.profile.opus {
            return Err(DropReason::RtpPayloadType);
        }
        (primary.payload, Some(payload))
    } else {
        return Err(DropReason::RtpPayloadType);
    };
    if opus.is_empty() { Err(DropReason::RtpEmpty) } else { Ok((opus, red)) }
}

fn rtp_drop(error: OpenError) -> DropReason {
    match error {
        OpenError::TooShort => DropReason::RtpMalformed,
        OpenError::Replayed | OpenError::TooOld => DropReason::RtpReplayed,
        OpenError::TooManySsrcs => DropReason::RtpTooManySources,
        OpenError::Unauthentic | OpenError::Unencrypted => DropReason::RtpUnauthenticated,
    }
}
