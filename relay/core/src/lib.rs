//! A TURN server (RFC 8656, UDP allocations over any transport; RFC 6062, TCP allocations, where they are on) as a state machine. It owns no socket, no clock and no
//! randomness: datagrams, time and a seed come in, actions go out, and the process around it does what they say.
//!
//! The contract with that process:
//! 1. [`Server::handle_client`] for each datagram (or framed message) of a client, [`Server::handle_peer`] for each
//!    datagram that reaches a relayed address. Each gives one [`Action`], to be carried out before the next call.
//! 2. [`Action::Bind`] is answered by [`Server::complete`] at once: the pending allocation holds ports and quota.
//! 3. After each turn [`Server::poll_closed`] names the sockets to close, until it is silent.
//! 4. [`Server::handle_timeout`] at [`Server::poll_timeout`]; [`Server::set_wall_clock`] about once a second, since
//!    credentials expire by wall clock.
//!
//! Several servers (one a thread) share one [`Shared`]: ports, quotas and limits by source. Its lock is taken when an
//! allocation begins or ends, never for a packet. Relaying channel data allocates nothing in either direction.
//!
//! What is deliberately absent: state of any kind for a request that did not authenticate (the nonce is an HMAC over
//! the client's address, the limits by source are a table of fixed size), mobility (RFC 8016), behaviour discovery (RFC 5780), third-party authorization (RFC 7635). Each has an exact refusal.

mod address;
mod admission;
mod allocation;
mod answer;
mod auth;
mod channel_data;
mod client;
mod counters;
mod credentials;
mod ledger;
mod limiter;
mod nonce;
mod pending;
mod policy;
mod ports;
mod requests;
mod reservations;
mod server;
mod settings;
mod stream;
mod tcp_relay;

pub use address::{AddressRange, BadRange};
pub use allocation::{AllocationId, Family};
pub use client::{Client, Link};
pub use counters::{Counters, DropReason, Outcome};
pub use credentials::{BadUser, Credentials, Hash, RestSecret};
pub use ledger::Shared;
pub use pending::Pending;
pub use policy::{Policy, Verdict};
pub use server::{ANSWER_BYTES_MAX, Action, HEADROOM_BYTES, Server, TAILROOM_BYTES};
pub use settings::{Limits, RelayAddress, Settings, SettingsError};
pub use stream::{Cut, NotFramed, STREAM_MESSAGE_BYTES_MAX, cut};
pub use tcp_relay::{CLAIM_TIME_MAX, ConnectionId, PendingConnect};
