//! A media node without signalling: joins over its control link. For measuring the node alone, and for thousands of
//! listeners whose joins cost next to nothing.

use sfu_control::{
    CallError, Candidate, ControlClient, DtlsRole, Fingerprint, HeaderProfile, IceParameters, Join, Joined,
    Operation, Protocol, ReplyBody, SlotSpec, TrackKind, TrackSpec,
};
use std::net::SocketAddr;

use super::{Access, Endpoint, IceCredentials, JoinError, Link, Local, Remote, SendFormat, TargetError};
use crate::scenario::Scenario;
use crate::sdp::{AUDIO_LEVEL, OPUS, fingerprint_bytes};

#[derive(Debug)]
pub struct NodeTarget {
    control: ControlClient,
    room_prefix: String,
    person_prefix: String,
}

#[derive(Debug)]
pub struct Session {
    peer: String,
}

impl NodeTarget {
    pub(super) async fn open(scenario: &Scenario, access: &Access) -> Result<Self, TargetError> {
        let token = access.control_token.as_ref();
        let token =
            token.ok_or(TargetError::Missing { kind: "node", what: "the control token (--control-token)" })?;
        let url = control_url(&scenario.target.url);
        let connected = ControlClient::connect(&url, &token.0).await;
        let (control, mut events, _) = connected.map_err(|error| TargetError::Unreachable(error.to_string()))?;
        // Nobody reads them here, but a full queue would end the link.
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        let target = &scenario.target;
        Ok(Self { control, room_prefix: target.room_prefix.clone(), person_prefix: target.person_prefix.clone() })
    }

    pub(super) async fn join(&self, link: &Link, endpoint: &mut dyn Endpoint) -> Result<Session, JoinError> {
        let bare = endpoint.bare().ok_or_else(|| JoinError::new("no_sdp", "the control link has no SDP"))?;
        let room = format!("{}-{}", self.room_prefix, link.room);
        // A name of the whole node, not of a room.
        let peer = format!("{room}-{}-{}", self.person_prefix, link.person);
        let join = request(room, peer.clone(), link, bare.local());
        let joined = match self.control.call(Operation::Join(join)).await {
            Ok(ReplyBody::Joined(joined)) => joined,
            Ok(_) => return Err(JoinError::new("unexpected_answer", "another reply than joined")),
            Err(CallError::Refused(error)) => return Err(JoinError::new(&error.code, error.message)),
            Err(CallError::Timeout) => return Err(JoinError::new("signalling_timeout", "no answer in time")),
            Err(error) => return Err(JoinError::new("signalling_lost", error)),
        };
        bare.set_remote(remote(&joined, link)?);
        Ok(Session { peer })
    }

    pub(super) async fn leave(&self, session: Session) {
        let _ = self.control.call(Operation::Leave { peer: session.peer }).await;
    }
}

/// The path may be left out.
fn control_url(url: &str) -> String {
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'));
    if has_path { url.to_owned() } else { format!("{}/v1/control", url.trim_end_matches('/')) }
}

fn request(room: String, peer: String, link: &Link, local: &Local) -> Join {
    let hex: Vec<String> = local.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    let mic = TrackSpec { kind: TrackKind::Mic, mid: "0".to_owned(), ssrc: Some(local.ssrc) };
    let first_slot = u32::from(link.publishes);
    let slots =
        (first_slot..first_slot + link.slots).map(|mid| SlotSpec { kind: TrackKind::Mic, mid: mid.to_string() });
    Join {
        room,
        peer,
        meta: String::new(),
        ice: IceParameters { ufrag: local.ice.ufrag.clone(), pwd: local.ice.pwd.clone() },
        fingerprint: Fingerprint { algorithm: "sha-256".to_owned(), value: hex.join(":") },
        dtls_role: DtlsRole::Server,
        profile: HeaderProfile { opus: OPUS, red: None, audio_level: Some(AUDIO_LEVEL), mid: None, nack: false },
        replaces: false,
        tracks: if link.publishes { vec![mic] } else { Vec::new() },
        slots: slots.collect(),
    }
}

fn remote(joined: &Joined, link: &Link) -> Result<Remote, JoinError> {
    let udp = |candidate: &&Candidate| candidate.protocol == Protocol::Udp;
    let candidates = || joined.candidates.iter().filter(udp);
    let candidate = candidates().find(|candidate| candidate.address.is_loopback()).or_else(|| candidates().next());
    let candidate = candidate.ok_or_else(|| JoinError::new("no_candidate", "the node gave no UDP candidate"))?;
    let fingerprint = fingerprint_bytes(&joined.fingerprint.value);
    Ok(Remote {
        address: SocketAddr::new(candidate.address, candidate.port),
        ice: IceCredentials { ufrag: joined.ice.ufrag.clone(), pwd: joined.ice.pwd.clone() },
        fingerprint: fingerprint.ok_or_else(|| JoinError::new("fingerprint", "not a SHA-256 fingerprint"))?,
        we_are_dtls_client: joined.dtls_role == DtlsRole::Server,
        send: link.publishes.then_some(SendFormat { payload_type: OPUS, audio_level: Some(AUDIO_LEVEL) }),
        receive_ssrcs: joined.slots.iter().map(|slot| slot.ssrc).collect(),
    })
}
