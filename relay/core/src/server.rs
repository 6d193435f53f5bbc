//! The server of one thread: its allocations, and what becomes of a datagram.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha12Rng;
use slab::Slab;
use stun::{AttributeType, Class, Message, Method, TransactionId, Writer};

use crate::allocation::{Allocation, AllocationId, Family};
use crate::answer::{Challenge, Envelope, Refusal, Signer, write_error, write_success};
use crate::auth::Denial;
use crate::channel_data;
use crate::client::{Client, ClientKey, KeyedHash};
use crate::counters::{Counters, DropReason};
use crate::ledger::Shared;
use crate::pending::Pending;
use crate::policy::Verdict;
use crate::requests::Granted;
use crate::reservations::Ends;
use crate::settings::{Settings, SettingsError};
use crate::tcp_relay::{ConnectionId, PendingConnect};

/// The longest answer: two relayed addresses, realm and software of 127 bytes each, both kinds of seal.
pub const ANSWER_BYTES_MAX: usize = 512;

/// What a peer's datagram needs before it, so that it becomes a message to the client where it lies: the header of STUN,
/// an IPv6 peer address and the header of DATA.
pub const HEADROOM_BYTES: usize = 48;

/// And behind it: padding to four bytes.
pub const TAILROOM_BYTES: usize = 3;

/// What to do with what was handled.
#[derive(Debug)]
pub enum Action {
    Nothing,
    /// Send this part of what was handled from the relayed address of that family.
    ToPeer {
        allocation: AllocationId,
        family: Family,
        peer: SocketAddr,
        payload: Range<usize>,
    },
    /// Send that many bytes of the answer buffer to the client.
    Answer(usize),
    /// Bind sockets and call [`Server::complete`].
    Bind(Box<Pending>),
    /// Keep the sockets under this name, and send that many bytes of the answer buffer.
    Created {
        allocation: AllocationId,
        answer: usize,
    },
    /// Open a connection with a peer and call [`Server::complete_connect`].
    Connect(Box<PendingConnect>),
    /// Send that many bytes of the answer buffer; what follows on this client's connection goes to that peer's, and back.
    Join {
        connection: ConnectionId,
        answer: usize,
    },
}

/// One thread's server; see the crate's documentation for the contract.
pub struct Server {
    pub(crate) settings: Arc<Settings>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) random: ChaCha12Rng,
    pub(crate) places: HashMap<ClientKey, usize, KeyedHash>,
    pub(crate) allocations: Slab<Box<Allocation>>,
    pub(crate) generation: u32,
    /// When allocations end, exactly one entry each.
    pub(crate) deadlines: BTreeSet<(Instant, AllocationId)>,
    pub(crate) reservation_ends: Ends,
    /// The place of the allocation that each connection with a peer belongs to.
    pub(crate) connections: HashMap<ConnectionId, usize>,
    pub(crate) counters: Counters,
    /// Sockets that the process has to close: at most two for each allocation that was.
    closed: VecDeque<(AllocationId, Family)>,
    wall_clock: (Instant, u64),
    draining: bool,
}

impl Server {
    /// `unix_s` is the wall clock at `now`.
    pub fn new(
        settings: Arc<Settings>,
        shared: Arc<Shared>,
        seed: [u8; 32],
        now: Instant,
        unix_s: u64,
    ) -> Result<Self, SettingsError> {
        settings.check()?;
        let mut random = ChaCha12Rng::from_seed(seed);
        let hash = KeyedHash::new(random.next_u64(), random.next_u64());
        Ok(Self {
            settings,
            shared,
            random,
            places: HashMap::with_hasher(hash),
            allocations: Slab::new(),
            generation: 0,
            deadlines: BTreeSet::new(),
            reservation_ends: Ends::default(),
            connections: HashMap::new(),
            counters: Counters::default(),
            closed: VecDeque::new(),
            wall_clock: (now, unix_s),
            draining: false,
        })
    }

    /// A datagram, or one message from a stream. Channel data comes first, since nearly everything is.
    pub fn handle_client(&mut self, now: Instant, client: Client, bytes: &[u8], out: &mut [u8]) -> Action {
        match bytes.first() {
            Some(0x40..=0x7F) => self.handle_channel_data(now, &client, bytes),
            Some(0x00..=0x3F) => self.handle_message(now, client, bytes, out),
            _ => self.ignore(DropReason::Malformed),
        }
    }

    /// A datagram that reached a relayed address. It lies in `buffer` after [`HEADROOM_BYTES`], with
    /// [`TAILROOM_BYTES`] behind it; what is returned is the message for the client, made in place.
    pub fn handle_peer(
        &mut self,
        now: Instant,
        id: AllocationId,
        peer: SocketAddr,
        buffer: &mut [u8],
        data_bytes: usize,
    ) -> Option<(Client, Range<usize>)> {
        match self.frame_for_client(now, id, peer, buffer, data_bytes) {
            Ok(found) => {
                self.counters.to_client_packets += 1;
                self.counters.to_client_bytes += data_bytes as u64;
                Some(found)
            }
            Err(reason) => {
                self.counters.count_drop(reason);
                None
            }
        }
    }

    /// The client's connection is gone, and its allocation with it.
    pub fn disconnect(&mut self, client: &Client) {
        if let Some(at) = self.place_of(client) {
            self.remove(at);
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.counters.allocations_expired += 1;
            self.remove(id.index as usize);
        }
        while let Some(token) = self.reservation_ends.take_due(now) {
            self.shared.ledger().cancel(token);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let allocation = self.deadlines.first().map(|(at, _)| *at);
        [allocation, self.reservation_ends.next()].into_iter().flatten().min()
    }

    /// The next socket to close.
    pub fn poll_closed(&mut self) -> Option<(AllocationId, Family)> {
        self.closed.pop_front()
    }

    pub fn set_wall_clock(&mut self, now: Instant, unix_s: u64) {
        self.wall_clock = (now, unix_s);
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes other settings. Allocations stay; peers that are denied now lose permission and channel.
    pub fn update(&mut self, settings: Arc<Settings>) -> Result<(), SettingsError> {
        settings.check()?;
        let locals = |settings: &Settings| settings.relays.iter().map(|relay| relay.local).collect::<Vec<_>>();
        if locals(&settings) != locals(&self.settings) {
            return Err(SettingsError::RelaysChanged);
        }
        let policy = &settings.policy;
        for (_, allocation) in &mut self.allocations {
            allocation.peers.keep_allowed(
                |ip| policy.check_ip(ip) == Verdict::Allowed,
                |peer| policy.check_peer(peer) == Verdict::Allowed,
            );
        }
        self.settings = settings;
        Ok(())
    }

    /// From now on there are no new allocations.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether the client owns an allocation.
    pub fn has_allocation(&self, client: &Client) -> bool {
        self.place_of(client).is_some()
    }

    pub fn allocations(&self) -> usize {
        self.allocations.len()
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn handle_channel_data(&mut self, now: Instant, client: &Client, bytes: &[u8]) -> Action {
        let Some((number, payload)) = channel_data::parse(bytes) else { return self.ignore(DropReason::Malformed) };
        let Some(at) = self.place_of(client) else { return self.ignore(DropReason::NoAllocation) };
        let allocation = &mut self.allocations[at];
        let Some(channel) = allocation.peers.peer_of(number, now) else {
            return self.ignore(DropReason::UnboundChannel);
        };
        if !channel.is_permitted(now) {
            return self.ignore(DropReason::NoPermission);
        }
        let peer = channel.peer;
        self.forward_to_peer(now, at, peer, payload)
    }

    fn forward_to_peer(&mut self, now: Instant, at: usize, peer: SocketAddr, payload: Range<usize>) -> Action {
        let allocation = &mut self.allocations[at];
        if !allocation.to_peer.take(now, payload.len(), self.settings.limits.allocation_bytes_per_s) {
            return self.ignore(DropReason::OverRate);
        }
        self.counters.to_peer_packets += 1;
        self.counters.to_peer_bytes += payload.len() as u64;
        let allocation = AllocationId { index: at as u32, generation: allocation.generation };
        Action::ToPeer { allocation, family: Family::of(peer.ip()), peer, payload }
    }

    fn frame_for_client(
        &mut self,
        now: Instant,
        id: AllocationId,
        peer: SocketAddr,
        buffer: &mut [u8],
        data_bytes: usize,
    ) -> Result<(Client, Range<usize>), DropReason> {
        let allocation = self.allocations.get_mut(id.index as usize).filter(|a| a.generation == id.generation);
        let allocation = allocation.ok_or(DropReason::NoAllocation)?;
        let channel = allocation.peers.channel_of(peer, now);
        // Of a channel's peer the permission is at hand; of another one it is searched by address, whatever its port.
        let is_permitted =
            channel.map_or_else(|| allocation.peers.is_permitted(peer.ip(), now), |c| c.is_permitted(now));
        if !is_permitted {
            return Err(DropReason::NoPermission);
        }
        let number = channel.map(|channel| channel.number);
        if !allocation.to_client.take(now, data_bytes, self.settings.limits.allocation_bytes_per_s) {
            return Err(DropReason::OverRate);
        }
        let client = allocation.client;
        let message = match number {
            Some(number) => write_channel_data(number, buffer, data_bytes, client.is_stream()),
            None => {
                let mut id = [0; 12];
                self.random.fill_bytes(&mut id);
                write_data_indication(TransactionId(id), peer, buffer, data_bytes)
            }
        };
        Ok((client, message.ok_or(DropReason::TooLong)?))
    }

    fn handle_message(&mut self, now: Instant, client: Client, bytes: &[u8], out: &mut [u8]) -> Action {
        let Ok(message) = Message::parse(bytes) else { return self.ignore(DropReason::Malformed) };
        match (message.class(), message.method()) {
            (Class::Request, Method::BINDING) if self.settings.stun => self.bind_answer(&client, &message, out),
            (Class::Request, method) if self.settings.turn && method != Method::BINDING => {
                self.handle_request(now, client, &message, out)
            }
            (Class::Indication, Method::SEND) if self.settings.turn => {
                self.handle_send(now, &client, &message, bytes)
            }
            // A keep-alive (RFC 8489 section 11).
            (Class::Indication, Method::BINDING) => Action::Nothing,
            _ => self.ignore(DropReason::Unexpected),
        }
    }

    /// STUN needs no credentials, and takes none.
    fn bind_answer(&mut self, client: &Client, message: &Message<'_>, out: &mut [u8]) -> Action {
        self.counters.bindings += 1;
        let envelope = Envelope::of(message, self.settings.fingerprint);
        if let Some(refusal) = Refusal::of_unknown_attributes(message) {
            let challenge = Challenge { realm: "", nonce: [0; 16] };
            return answer(write_error(out, envelope, None, refusal, challenge).ok());
        }
        answer(write_success(out, envelope, None, |writer| writer.xor_mapped_address(client.address)).ok())
    }

    fn handle_request(&mut self, now: Instant, client: Client, message: &Message<'_>, out: &mut [u8]) -> Action {
        let owned = self.place_of(&client);
        let envelope = Envelope::of(message, self.settings.fingerprint);
        let is_allocate = message.method() == Method::ALLOCATE;
        if message.method() == Method::CONNECTION_BIND && self.settings.tcp_relay {
            return self.bind_connection(now, client, message, out);
        }
        if owned.is_none() && !is_allocate {
            // Nothing to authenticate for; and a challenge would be much longer than such a request.
            let is_known = matches!(
                message.method(),
                Method::REFRESH | Method::CREATE_PERMISSION | Method::CHANNEL_BIND | Method::CONNECT
            );
            let refusal = Refusal::new(if is_known { 437 } else { 400 });
            return self.refuse(now, &client, envelope, None, refusal, out);
        }
        let caller = match self.authenticate(now, &client, message, owned) {
            Ok(caller) => caller,
            Err(Denial::Silent(reason)) => return self.ignore(reason),
            Err(Denial::Refuse(refusal)) => return self.refuse(now, &client, envelope, None, refusal, out),
            Err(Denial::RefuseSigned(refusal, signer)) => {
                return self.refuse(now, &client, envelope, Some(&signer), refusal, out);
            }
        };
        if let Some(refusal) = Refusal::of_unknown_attributes(message) {
            return self.refuse(now, &client, envelope, Some(&caller.signer), refusal, out);
        }
        if is_allocate {
            return self.allocate(now, client, message, caller, out);
        }
        let Some(at) = owned else { return self.ignore(DropReason::NoAllocation) };
        if message.method() == Method::CONNECT && self.settings.tcp_relay {
            return self.connect(now, (client, at), message, caller, out);
        }
        match self.serve(now, at, message, &caller) {
            Ok(granted) => self.grant(envelope, &caller.signer, granted, out),
            Err(refusal) => self.refuse(now, &client, envelope, Some(&caller.signer), refusal, out),
        }
    }

    /// RFC 8656 section 11.2. An indication is never answered.
    fn handle_send(&mut self, now: Instant, client: &Client, message: &Message<'_>, bytes: &[u8]) -> Action {
        let Some(at) = self.place_of(client) else { return self.ignore(DropReason::NoAllocation) };
        let (Some(peer), Some(data)) = (message.xor_peer_address(), message.data()) else {
            return self.ignore(DropReason::Malformed);
        };
        let is_relayed = self.allocations[at].has_leg(peer.ip()) && !self.allocations[at].is_tcp;
        if Refusal::of_unknown_attributes(message).is_some() || !is_relayed {
            return self.ignore(DropReason::Malformed);
        }
        if self.settings.policy.check_peer(peer) == Verdict::Denied {
            return self.ignore(DropReason::DeniedPeer);
        }
        if !self.allocations[at].peers.is_permitted(peer.ip(), now) {
            return self.ignore(DropReason::NoPermission);
        }
        let start = data.as_ptr().addr() - bytes.as_ptr().addr();
        self.forward_to_peer(now, at, peer, start..start + data.len())
    }

    fn grant(&mut self, envelope: Envelope, signer: &Signer, granted: Granted, out: &mut [u8]) -> Action {
        self.counters.count_answer(200);
        let software = self.settings.software.as_deref();
        let written = write_success(out, envelope, Some(signer), |writer| {
            if let Granted::Lifetime(seconds) = granted {
                writer.lifetime(seconds)?;
            }
            software.map_or(Ok(()), |software| writer.software(software))
        });
        answer(written.ok())
    }

    pub(crate) fn refuse(
        &mut self,
        now: Instant,
        client: &Client,
        envelope: Envelope,
        signer: Option<&Signer>,
        refusal: Refusal,
        out: &mut [u8],
    ) -> Action {
        self.counters.count_answer(refusal.code);
        let nonce = self.shared.nonces.make(now, client);
        let challenge = Challenge { realm: self.settings.credentials.realm(), nonce };
        answer(write_error(out, envelope, signer, refusal, challenge).ok())
    }

    pub(crate) fn ignore(&mut self, reason: DropReason) -> Action {
        self.counters.count_drop(reason);
        Action::Nothing
    }

    pub(crate) fn place_of(&self, client: &Client) -> Option<usize> {
        self.places.get(&client.key()).copied()
    }

    pub(crate) fn set_expiry(&mut self, at: usize, expires: Instant) {
        let allocation = &mut self.allocations[at];
        let id = AllocationId { index: at as u32, generation: allocation.generation };
        self.deadlines.remove(&(allocation.expires, id));
        self.deadlines.insert((expires, id));
        allocation.expires = expires;
    }

    pub(crate) fn remove_leg(&mut self, at: usize, family: Family) {
        let allocation = &mut self.allocations[at];
        if let Some(leg) = allocation.legs[family as usize].take() {
            self.closed.push_back((AllocationId { index: at as u32, generation: allocation.generation }, family));
            self.shared.ledger().give_port(leg.relay, leg.port);
        }
    }

    pub(crate) fn remove(&mut self, at: usize) {
        for family in Family::ALL {
            self.remove_leg(at, family);
        }
        let allocation = self.allocations.remove(at);
        let id = AllocationId { index: at as u32, generation: allocation.generation };
        for connection in &allocation.connections {
            self.connections.remove(&connection.id);
        }
        self.places.remove(&allocation.client.key());
        self.deadlines.remove(&(allocation.expires, id));
        let mut ledger = self.shared.ledger();
        ledger.release(&allocation.owner.user, allocation.client.source());
        if let Some(token) = allocation.first.token {
            self.reservation_ends.remove(token);
            ledger.cancel(token);
        }
    }

    pub(crate) fn unix_s(&self, now: Instant) -> u64 {
        let (at, unix_s) = self.wall_clock;
        unix_s + now.saturating_duration_since(at).as_secs()
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("allocations", &self.allocations.len()).finish_non_exhaustive()
    }
}

fn answer(written: Option<usize>) -> Action {
    debug_assert!(written.is_some(), "an answer fits its buffer");
    written.map_or(Action::Nothing, Action::Answer)
}

/// The header goes right before the data; on a stream padding goes behind it.
fn write_channel_data(number: u16, buffer: &mut [u8], data_bytes: usize, padded: bool) -> Option<Range<usize>> {
    let header = channel_data::header(number, data_bytes)?;
    let start = HEADROOM_BYTES - channel_data::HEADER_BYTES;
    buffer.get_mut(start..HEADROOM_BYTES)?.copy_from_slice(&header);
    let end = HEADROOM_BYTES + data_bytes;
    let padded_end = if padded { HEADROOM_BYTES + data_bytes.next_multiple_of(4) } else { end };
    buffer.get_mut(end..padded_end)?.fill(0);
    Some(start..padded_end)
}

/// A Data indication (RFC 8656 section 11.3) around data that stays where it is.
fn write_data_indication(
    id: TransactionId,
    peer: SocketAddr,
    buffer: &mut [u8],
    data_bytes: usize,
) -> Option<Range<usize>> {
    let head_bytes = if peer.is_ipv4() { HEADROOM_BYTES - 12 } else { HEADROOM_BYTES };
    let start = HEADROOM_BYTES - head_bytes;
    let mut writer = Writer::new(buffer.get_mut(start..HEADROOM_BYTES)?, Class::Indication, Method::DATA, id).ok()?;
    writer.xor_peer_address(peer).ok()?;
    let written = writer.finish(None, false).ok()?;
    debug_assert_eq!(written + 4, head_bytes);
    let padded_bytes = data_bytes.next_multiple_of(4);
    let body = u16::try_from(head_bytes - stun::HEADER_BYTES + padded_bytes).ok()?;
    buffer[start + 2..start + 4].copy_from_slice(&body.to_be_bytes());
    buffer[HEADROOM_BYTES - 4..HEADROOM_BYTES - 2].copy_from_slice(&AttributeType::DATA.0.to_be_bytes());
    buffer[HEADROOM_BYTES - 2..HEADROOM_BYTES].copy_from_slice(&u16::try_from(data_bytes).ok()?.to_be_bytes());
    let end = HEADROOM_BYTES + padded_bytes;
    buffer.get_mut(HEADROOM_BYTES + data_bytes..end)?.fill(0);
    Some(start..end)
}
