//! TCP allocations (RFC 6062): Connect, ConnectionBind and ConnectionAttempt. Off unless the settings say so, since a
//! relay that opens TCP connections is what a port scan of the inside needs; the policy of peers holds all the same.
//!
//! Here is only who may be connected with whom. The process opens and accepts the connections, closes those whose
//! client does not come in [`CLAIM_TIME_MAX`], and copies the bytes; what flows on a connection is no message.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngCore;
use stun::{AttributeType, Class, Message, Method, TransactionId, Writer};

use crate::allocation::AllocationId;
use crate::answer::{Envelope, Refusal, Signer, write_success};
use crate::auth::{Caller, Denial};
use crate::client::Client;
use crate::counters::DropReason;
use crate::policy::Verdict;
use crate::server::{Action, Server};

/// RFC 6062 section 5.2 and 5.3: how long a connection waits for its client.
pub const CLAIM_TIME_MAX: Duration = Duration::from_secs(30);

/// A connection with a peer; the number goes on the wire as CONNECTION-ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// A connection that is being opened, made by [`Action::Connect`]; give it to [`Server::complete_connect`].
#[must_use = "the client waits for the answer, and the connection counts until then"]
#[derive(Debug)]
pub struct PendingConnect {
    pub allocation: AllocationId,
    pub connection: ConnectionId,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    client: Client,
    envelope: Envelope,
    signer: Signer,
}

/// Of one allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerConnection {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    is_claimed: bool,
}

impl PendingConnect {
    pub fn client(&self) -> Client {
        self.client
    }
}

impl Server {
    /// RFC 6062 section 5.2. `at` is the place of the caller's allocation.
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        (client, at): (Client, usize),
        message: &Message<'_>,
        caller: Caller,
        out: &mut [u8],
    ) -> Action {
        let envelope = Envelope::of(message, self.settings.fingerprint);
        match self.begin_connect(at, message) {
            Ok((allocation, connection, local, peer)) => Action::Connect(Box::new(PendingConnect {
                allocation,
                connection,
                local,
                peer,
                client,
                envelope,
                signer: caller.signer,
            })),
            Err(refusal) => self.refuse(now, &client, envelope, Some(&caller.signer), refusal, out),
        }
    }

    fn begin_connect(
        &mut self,
        at: usize,
        message: &Message<'_>,
    ) -> Result<(AllocationId, ConnectionId, SocketAddr, SocketAddr), Refusal> {
        let peer = message.xor_peer_address().ok_or(Refusal::new(400))?;
        if !self.allocations[at].is_tcp {
            return Err(Refusal::new(400));
        }
        if self.settings.policy.check_peer(peer) == Verdict::Denied {
            return Err(Refusal::new(403));
        }
        let leg = self.allocations[at].leg_for(peer.ip()).ok_or(Refusal::new(443))?;
        let local = SocketAddr::new(self.settings.relays[leg.relay].local, leg.port);
        if self.allocations[at].connections.iter().any(|connection| connection.peer == peer) {
            return Err(Refusal::new(446));
        }
        let id = self.add_connection(at, peer).ok_or(Refusal::new(508))?;
        let allocation = AllocationId { index: at as u32, generation: self.allocations[at].generation };
        Ok((allocation, id, local, peer))
    }

    /// Says whether the connection stands. The answer goes to [`PendingConnect::client`].
    pub fn complete_connect(
        &mut self,
        now: Instant,
        pending: &PendingConnect,
        is_connected: bool,
        out: &mut [u8],
    ) -> Action {
        let is_wanted = self.connection_of(pending.connection).is_some();
        if is_connected && is_wanted {
            self.counters.count_answer(200);
            let body = |writer: &mut Writer<'_>| {
                writer.attribute(AttributeType::CONNECTION_ID, &pending.connection.0.to_be_bytes())
            };
            let written = write_success(out, pending.envelope, Some(&pending.signer), body);
            return written.map_or(Action::Nothing, Action::Answer);
        }
        self.close_connection(pending.connection);
        // RFC 6062 section 6.3: 447, Connection Timeout or Failure.
        self.refuse(now, &pending.client, pending.envelope, Some(&pending.signer), Refusal::new(447), out)
    }

    /// A peer has connected to a relayed address (RFC 6062 section 5.3). With the permission it needs, it gets a number,
    /// and that many bytes of `out` go to the client.
    pub fn accept_peer(
        &mut self,
        now: Instant,
        id: AllocationId,
        peer: SocketAddr,
        out: &mut [u8],
    ) -> Option<(Client, ConnectionId, usize)> {
        let at = id.index as usize;
        let allocation = self.allocations.get(at).filter(|a| a.generation == id.generation && a.is_tcp)?;
        let client = allocation.client;
        let is_allowed = self.settings.policy.check_peer(peer) == Verdict::Allowed;
        if !is_allowed || !allocation.peers.is_permitted(peer.ip(), now) {
            self.counters.count_drop(DropReason::NoPermission);
            return None;
        }
        let connection = self.add_connection(at, peer)?;
        let mut transaction = [0; 12];
        self.random.fill_bytes(&mut transaction);
        let len = write_attempt(out, TransactionId(transaction), connection, peer)?;
        Some((client, connection, len))
    }

    pub fn has_connection(&self, id: ConnectionId) -> bool {
        self.connections.contains_key(&id)
    }

    /// The connection has ended, or its client never came.
    pub fn close_connection(&mut self, id: ConnectionId) {
        if let Some(at) = self.connections.remove(&id).filter(|at| self.allocations.contains(*at)) {
            self.allocations[at].connections.retain(|connection| connection.id != id);
        }
    }

    /// RFC 6062 section 5.4: on a connection of its own, with the credentials of the allocation.
    pub(crate) fn bind_connection(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        out: &mut [u8],
    ) -> Action {
        let envelope = Envelope::of(message, self.settings.fingerprint);
        let wanted = message.attribute(AttributeType::CONNECTION_ID).and_then(|value| value.try_into().ok());
        let wanted = wanted.map(|value| ConnectionId(u32::from_be_bytes(value)));
        let owner = wanted.and_then(|id| self.connection_of(id));
        let caller = match self.authenticate(now, &client, message, owner) {
            Ok(caller) => caller,
            Err(Denial::Silent(reason)) => return self.ignore(reason),
            Err(Denial::Refuse(refusal)) => return self.refuse(now, &client, envelope, None, refusal, out),
            Err(Denial::RefuseSigned(refusal, signer)) => {
                return self.refuse(now, &client, envelope, Some(&signer), refusal, out);
            }
        };
        let signer = Some(&caller.signer);
        if let Some(refusal) = Refusal::of_unknown_attributes(message) {
            return self.refuse(now, &client, envelope, signer, refusal, out);
        }
        let is_stream = client.is_stream() && self.place_of(&client).is_none();
        let (Some(id), Some(at), true) = (wanted, owner, is_stream) else {
            return self.refuse(now, &client, envelope, signer, Refusal::new(400), out);
        };
        let connection = self.allocations[at].connections.iter_mut().find(|connection| connection.id == id);
        let Some(connection) = connection.filter(|connection| !connection.is_claimed) else {
            return self.refuse(now, &client, envelope, signer, Refusal::new(400), out);
        };
        connection.is_claimed = true;
        self.counters.count_answer(200);
        match write_success(out, envelope, signer, |_| Ok(())) {
            Ok(answer) => Action::Join { connection: id, answer },
            Err(_) => Action::Nothing,
        }
    }

    fn connection_of(&self, id: ConnectionId) -> Option<usize> {
        self.connections.get(&id).copied()
    }

    /// `None` when the allocation has as many as it may.
    fn add_connection(&mut self, at: usize, peer: SocketAddr) -> Option<ConnectionId> {
        if self.allocations[at].connections.len() >= self.settings.limits.channels {
            return None;
        }
        let id = loop {
            let id = ConnectionId(self.random.next_u32());
            if !self.connections.contains_key(&id) {
                break id;
            }
        };
        self.connections.insert(id, at);
        self.allocations[at].connections.push(PeerConnection { id, peer, is_claimed: false });
        Some(id)
    }
}

fn write_attempt(out: &mut [u8], id: TransactionId, connection: ConnectionId, peer: SocketAddr) -> Option<usize> {
    let mut writer = Writer::new(out, Class::Indication, Method::CONNECTION_ATTEMPT, id).ok()?;
    writer.attribute(AttributeType::CONNECTION_ID, &connection.0.to_be_bytes()).ok()?;
    writer.xor_peer_address(peer).ok()?;
    writer.finish(None, false).ok()
}
