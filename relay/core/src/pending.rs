//! An allocation between the request and its sockets: it holds quota and ports, and waits for the process to say whether
//! they could be bound.

use std::net::SocketAddr;

use crate::allocation::{Family, Leg};
use crate::answer::{Envelope, Signer};
use crate::client::Client;
use crate::credentials::Identity;
use crate::ports::PortWish;
use crate::server::Server;

/// Made by [`Action::Bind`](crate::Action::Bind); give it to [`Server::complete`] at once.
#[must_use = "it holds ports and quota until it is completed"]
#[derive(Debug)]
pub struct Pending {
    pub(crate) client: Client,
    pub(crate) envelope: Envelope,
    pub(crate) signer: Signer,
    pub(crate) username: Box<[u8]>,
    pub(crate) identity: Identity,
    pub(crate) wish: Wish,
    pub(crate) legs: [Option<Leg>; 2],
    /// The port after an even one: of which relay address, and which.
    pub(crate) reserved: Option<(usize, u16)>,
    pub(crate) missing: Option<(Family, u16)>,
    pub(crate) attempts: u8,
    pub(crate) locals: [Option<SocketAddr>; 2],
}

/// What an Allocate request asks for, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) families: [bool; 2],
    /// Whether the second family is a bonus: without it the allocation is made all the same.
    pub(crate) additional: bool,
    pub(crate) port: PortWish,
    pub(crate) token: Option<[u8; 8]>,
    pub(crate) lifetime_s: u32,
    pub(crate) is_tcp: bool,
}

impl Pending {
    /// What to bind, by family: all of it, or nothing and `complete(.., false, ..)`.
    pub fn addresses(&self) -> impl Iterator<Item = (Family, SocketAddr)> {
        Family::ALL.into_iter().filter_map(|family| Some((family, self.locals[family as usize]?)))
    }

    /// Whether connections are to be listened for at these addresses, instead of datagrams.
    pub fn is_tcp(&self) -> bool {
        self.wish.is_tcp
    }

    /// Gives everything back that it holds.
    pub(crate) fn abandon(&mut self, server: &Server) {
        self.give_ports(server);
        server.shared.ledger().release(&self.identity.user, self.client.source());
    }

    pub(crate) fn give_ports(&mut self, server: &Server) {
        let mut ledger = server.shared.ledger();
        for leg in self.legs.iter_mut().filter_map(Option::take) {
            ledger.give_port(leg.relay, leg.port);
        }
        if let Some((relay, port)) = self.reserved.take() {
            ledger.give_port(relay, port);
        }
        self.locals = [None; 2];
    }
}
