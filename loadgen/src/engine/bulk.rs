//! The signalling side of a bulk client: what it offers, and what it was answered.

use crate::sdp::{self, SdpError};
use crate::targets::{BareEndpoint, Endpoint, Link, Local, Remote};

#[derive(Debug)]
pub(super) struct BulkEndpoint {
    local: Local,
    publishes: bool,
    slots: u32,
    remote: Option<Remote>,
}

impl BulkEndpoint {
    pub(super) fn new(local: Local, link: &Link) -> Self {
        Self { local, publishes: link.publishes, slots: link.slots, remote: None }
    }

    /// What the exchange led to; nothing when it was not completed.
    pub(super) fn into_parts(self) -> (Local, Option<Remote>) {
        (self.local, self.remote)
    }
}

impl Endpoint for BulkEndpoint {
    fn offer(&mut self) -> Result<String, SdpError> {
        Ok(sdp::write_offer(&self.local, self.publishes, self.slots))
    }

    fn take_answer(&mut self, sdp: &str) -> Result<(), SdpError> {
        self.remote = Some(sdp::read_answer(sdp)?);
        Ok(())
    }

    fn answer(&mut self, offer: &str) -> Result<String, SdpError> {
        let answer = sdp::write_answer(&self.local, offer, self.publishes)?;
        self.remote = Some(sdp::read_offer(offer)?);
        Ok(answer)
    }

    fn bare(&mut self) -> Option<&mut dyn BareEndpoint> {
        Some(self)
    }
}

impl BareEndpoint for BulkEndpoint {
    fn local(&self) -> &Local {
        &self.local
    }

    fn set_remote(&mut self, remote: Remote) {
        self.remote = Some(remote);
    }
}
