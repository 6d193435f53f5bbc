//! The seam to what is measured: a target turns "person i of room r, sends or not, hears so many" into a transport. It
//! signals over tokio; media is the engine's business. Either side may offer: the engine hands over an [`Endpoint`],
//! which can make an offer, take an answer, or answer an offer, and knows nothing of rooms.
//!
//! To add a target: a variant of [`Target`] and of [`Session`], and a module with its `join` and `leave`.

mod carillon;
mod janus;
mod node;

use std::net::SocketAddr;

use crate::scenario::{Scenario, TargetKind};
use crate::sdp::SdpError;

pub use carillon::{TokenKey, TokenKeyError};

/// One connection to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub room: u32,
    /// Within the room; publishers come first.
    pub person: u32,
    pub publishes: bool,
    /// Voices that it can hear at a time; 0: it only sends.
    pub slots: u32,
}

/// One side of an exchange of SDP.
pub trait Endpoint: Send {
    fn offer(&mut self) -> Result<String, SdpError>;
    fn take_answer(&mut self, sdp: &str) -> Result<(), SdpError>;
    fn answer(&mut self, offer: &str) -> Result<String, SdpError>;
    /// For targets without SDP; `None` when this endpoint cannot do without.
    fn bare(&mut self) -> Option<&mut dyn BareEndpoint>;
}

/// An endpoint of the bulk clients, whose parameters are at hand.
pub trait BareEndpoint: Send {
    fn local(&self) -> &Local;
    fn set_remote(&mut self, remote: Remote);
}

/// What our side of a connection says of itself.
#[derive(Clone, Debug)]
pub struct Local {
    pub ice: IceCredentials,
    /// SHA-256 of our certificate.
    pub fingerprint: [u8; 32],
    /// Of what it publishes.
    pub ssrc: u32,
}

/// What the other side says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    pub address: SocketAddr,
    pub ice: IceCredentials,
    /// SHA-256 of its certificate.
    pub fingerprint: [u8; 32],
    /// Whether we begin the DTLS handshake.
    pub we_are_dtls_client: bool,
    /// How to write what we send; `None`: it does not take anything.
    pub send: Option<SendFormat>,
    /// What it announced to send; what is not listed is accepted as well.
    pub receive_ssrcs: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendFormat {
    pub payload_type: u8,
    /// Id of the one-byte header extension of RFC 6464.
    pub audio_level: Option<u8>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    pub ufrag: String,
    pub pwd: String,
}

impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IceCredentials(..)")
    }
}

/// A join that failed in signalling. `reason` is short, stable and without names, since failures are counted by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct JoinError {
    pub reason: String,
    pub detail: String,
}

impl JoinError {
    pub fn new(reason: &str, detail: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_owned(), detail: detail.to_string() }
    }
}

impl From<SdpError> for JoinError {
    fn from(error: SdpError) -> Self {
        Self::new("sdp", error)
    }
}

/// Secrets and permissions that a scenario does not hold.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Signs room tokens (`carillon`).
    pub token_key: Option<TokenKey>,
    /// Opens the control link (`node`).
    pub control_token: Option<Secret>,
    /// The user has said that a target elsewhere than on loopback is theirs.
    pub owns_target: bool,
}

/// A secret that does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The target cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0} is not on loopback: load goes to machines of one's own only; say --i-own-the-target if it is yours")]
    NotLoopback(String),
    #[error("address {0} names no host")]
    NoHost(String),
    #[error("host {host} has no address: {source}")]
    Unresolved { host: String, source: std::io::Error },
    #[error("{kind} needs {what}")]
    Missing { kind: &'static str, what: &'static str },
    #[error("target cannot be reached: {0}")]
    Unreachable(String),
}

#[derive(Debug)]
pub enum Target {
    Carillon(carillon::Carillon),
    Node(node::NodeTarget),
    Janus(janus::Janus),
}

/// A person's place at the target; leaving takes it back.
#[derive(Debug)]
pub enum Session {
    Carillon(carillon::Session),
    Node(node::Session),
    Janus(janus::Session),
}

impl Target {
    /// Refuses addresses that are not on loopback, unless the user owns them; then makes what all joins share.
    pub async fn open(scenario: &Scenario, access: &Access) -> Result<Self, TargetError> {
        refuse_foreign(&scenario.target.url, access.owns_target).await?;
        match scenario.target.kind {
            TargetKind::Carillon => carillon::Carillon::open(scenario, access).map(Self::Carillon),
            TargetKind::Node => node::NodeTarget::open(scenario, access).await.map(Self::Node),
            TargetKind::Janus => janus::Janus::open(scenario, access).await.map(Self::Janus),
        }
    }

    /// One person's connection. Returns when both sides have all they need for ICE and DTLS.
    pub async fn join(&self, link: &Link, endpoint: &mut dyn Endpoint) -> Result<Session, JoinError> {
        match self {
            Self::Carillon(target) => target.join(link, endpoint).await.map(Session::Carillon),
            Self::Node(target) => target.join(link, endpoint).await.map(Session::Node),
            Self::Janus(target) => target.join(link, endpoint).await.map(Session::Janus),
        }
    }

    /// Best effort: the run is over, or the person is gone already.
    pub async fn leave(&self, session: Session) {
        match (self, session) {
            (Self::Carillon(target), Session::Carillon(session)) => target.leave(session).await,
            (Self::Node(target), Session::Node(session)) => target.leave(session).await,
            (Self::Janus(target), Session::Janus(session)) => target.leave(session).await,
            (Self::Carillon(_) | Self::Node(_) | Self::Janus(_), _) => {}
        }
    }

    /// After all have left.
    pub async fn close(&self) {
        match self {
            Self::Janus(target) => target.close().await,
            Self::Carillon(_) | Self::Node(_) => {}
        }
    }

    /// Whether a person who sends and hears needs two connections, one for each direction.
    #[must_use]
    pub fn splits_directions(&self) -> bool {
        matches!(self, Self::Janus(_))
    }

    /// Whether hearers can only join when the publishers of their room send already.
    #[must_use]
    pub fn publishers_first(&self) -> bool {
        matches!(self, Self::Janus(_))
    }

    /// Whether a join is an exchange of SDP, as complete WebRTC peers need it.
    #[must_use]
    pub fn speaks_sdp(&self) -> bool {
        !matches!(self, Self::Node(_))
    }
}

/// All addresses of the host must be on loopback: a name may have several.
async fn refuse_foreign(url: &str, owned: bool) -> Result<(), TargetError> {
    let host = host_and_port(url).ok_or_else(|| TargetError::NoHost(url.to_owned()))?;
    if owned {
        return Ok(());
    }
    let found = tokio::net::lookup_host(&host).await;
    let found = found.map_err(|source| TargetError::Unresolved { host: host.clone(), source })?;
    let addresses: Vec<_> = found.collect();
    if !addresses.is_empty() && addresses.iter().all(|address| address.ip().to_canonical().is_loopback()) {
        return Ok(());
    }
    Err(TargetError::NotLoopback(host))
}

pub(crate) fn host_and_port(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next().filter(|host| !host.is_empty())?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.contains(']'));
    let port = if scheme == "wss" { 443 } else { 80 };
    Some(if has_port { authority.to_owned() } else { format!("{authority}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_addresses() {
        for (url, host) in [
            ("ws://127.0.0.1:8080/v1", "127.0.0.1:8080"),
            ("wss://example.org", "example.org:443"),
            ("ws://[::1]/x", "[::1]:80"),
            ("ws://[::1]:9?x", "[::1]:9"),
            ("ws://127.0.0.1:1@198.51.100.1/", "198.51.100.1:80"),
        ] {
            assert_eq!(host_and_port(url).as_deref(), Some(host), "{url}");
        }
        assert_eq!(host_and_port("ws:///path"), None);
        assert_eq!(host_and_port("nonsense"), None);
    }

    #[tokio::test]
    async fn only_loopback_is_taken_without_being_asked() {
        for url in ["ws://127.0.0.1:1", "ws://[::1]:1", "ws://127.8.0.1", "ws://[::ffff:127.0.0.1]:1"] {
            refuse_foreign(url, false).await.expect(url);
        }
        for url in ["ws://192.0.2.1:1", "ws://[2001:db8::1]:1", "ws://0.0.0.0:1", "ws://127.0.0.1@192.0.2.1:1"] {
            let refused = refuse_foreign(url, false).await;
            assert!(matches!(refused, Err(TargetError::NotLoopback(_))), "{url}");
            refuse_foreign(url, true).await.expect("owned");
        }
    }
}
