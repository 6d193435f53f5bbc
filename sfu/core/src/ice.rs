//! ICE-lite responder of one peer (RFC 8445 sections 2.5 and 7.3): answers authenticated binding requests, keeps the
//! addresses that passed one, and says which of them is selected. It never sends a check of its own, gathers nothing,
//! and answers nobody who does not hold the password: an unauthenticated request gets silence.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use rand::Rng;
use rand_chacha::ChaCha20Rng;
use stun::{AttributeType, Class, IntegrityKey, Message, Method, Writer};

use crate::{DropReason, IceCredentials, Path};

/// Local user fragment: 48 random bits, of fixed length so that it looks up without parsing. RFC 8445 section 5.3 asks
/// for 24 bits or more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ufrag([u8; Self::LEN]);

impl Ufrag {
    const LEN: usize = 8;

    /// The first half of `USERNAME` (RFC 8445 section 7.2.2): ours, since the peer is the one who asks.
    pub(crate) fn of_username(username: &[u8]) -> Option<Self> {
        let (local, rest) = username.split_first_chunk::<{ Self::LEN }>()?;
        rest.starts_with(b":").then_some(Self(*local))
    }
}

impl fmt::Debug for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ufrag(..)")
    }
}

/// 24 characters of 6 bits: 144 random bits, RFC 8445 section 5.3 asks for 128 or more.
const PASSWORD_LEN: usize = 24;

const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn ice_chars<const N: usize>(rng: &mut ChaCha20Rng) -> [u8; N] {
    std::array::from_fn(|_| ICE_CHARS[usize::from(rng.random::<u8>() & 63)])
}

pub(crate) fn credentials_in_range(credentials: &IceCredentials) -> bool {
    let all_ice = |text: &str| text.bytes().all(|byte| ICE_CHARS.contains(&byte));
    (4..=256).contains(&credentials.ufrag.len())
        && (22..=256).contains(&credentials.pwd.len())
        && all_ice(&credentials.ufrag)
        && all_ice(&credentials.pwd)
}

/// A client that is there checks its path at least each 6 s (RFC 7675 section 5.1). One whose selected path has missed
/// more than that and who checks from another has moved without nominating again.
const SELECTED_STALE_AFTER: Duration = Duration::from_secs(10);

/// Credentials of both sides between two restarts.
struct Generation {
    local: Ufrag,
    key: IntegrityKey,
    remote_ufrag: Box<[u8]>,
}

impl Generation {
    fn is_named_by(&self, username: &[u8]) -> bool {
        username.strip_prefix(&self.local.0).and_then(|rest| rest.strip_prefix(b":")) == Some(&self.remote_ufrag)
    }
}

struct ValidPath {
    path: Path,
    last_check: Instant,
}

pub(crate) struct Agent {
    current: Generation,
    /// Until the new generation nominates, checks with the old one keep the old path alive (RFC 8445 section 9).
    previous: Option<Generation>,
    paths: Vec<ValidPath>,
    selected: Option<Path>,
}

/// What an authenticated request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Check {
    /// `nominates`: USE-CANDIDATE.
    Valid {
        nominates: bool,
        current: bool,
    },
    /// The peer claims to be controlled, which a lite agent always is itself (RFC 8445 section 6.1.1).
    RoleConflict,
    UnknownAttributes,
}

/// What a valid check changed in the tables of the node.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub(crate) added: bool,
    pub(crate) removed: Option<Path>,
    pub(crate) selected: bool,
    /// The user fragment of the generation that ended.
    pub(crate) retired: Option<Ufrag>,
}

impl Agent {
    pub(crate) fn new(remote: &IceCredentials, rng: &mut ChaCha20Rng) -> (Self, IceCredentials) {
        let (current, local) = generate(remote, rng);
        (Self { current, previous: None, paths: Vec::new(), selected: None }, local)
    }

    /// Answers the new local credentials, and the fragment of a generation that was still waiting for its nomination
    /// and is skipped.
    pub(crate) fn restart(
        &mut self,
        remote: &IceCredentials,
        rng: &mut ChaCha20Rng,
    ) -> (IceCredentials, Option<Ufrag>) {
        let (generation, local) = generate(remote, rng);
        let replaced = std::mem::replace(&mut self.current, generation);
        let skipped = if self.previous.is_some() {
            Some(replaced.local)
        } else {
            self.previous = Some(replaced);
            None
        };
        (local, skipped)
    }

    pub(crate) fn ufrags(&self) -> impl Iterator<Item = Ufrag> {
        std::iter::once(self.current.local).chain(self.previous.as_ref().map(|previous| previous.local))
    }

    pub(crate) fn current_ufrag(&self) -> Ufrag {
        self.current.local
    }

    /// Where media goes: the nominated address, before that the first one that passed a check.
    pub(crate) fn selected(&self) -> Option<Path> {
        self.selected
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = Path> {
        self.paths.iter().map(|known| known.path)
    }

    pub(crate) fn last_check_from(&self, path: Path) -> Option<Instant> {
        self.paths.iter().find(|known| known.path == path).map(|known| known.last_check)
    }

    /// Consent is given for a path, not for a peer (RFC 7675 section 5.1): names one whose consent has run out.
    pub(crate) fn expired_path(&self, now: Instant, consent: Duration) -> Option<Path> {
        let expired = |known: &&ValidPath| now.saturating_duration_since(known.last_check) >= consent;
        self.paths.iter().find(expired).map(|known| known.path)
    }

    /// Nothing goes there any more: consent has run out, or another peer has shown that the address is its own now.
    /// Where it was selected, the path that was checked last takes its place.
    pub(crate) fn forget(&mut self, path: Path) {
        self.paths.retain(|known| known.path != path);
        if self.selected == Some(path) {
            self.selected = self.paths.iter().max_by_key(|known| known.last_check).map(|known| known.path);
        }
    }

    /// Order of the checks: integrity first, so that nothing unauthenticated decides anything, then both halves of the
    /// username, then what a lite agent must refuse aloud.
    pub(crate) fn check(&self, request: &Message<'_>) -> Result<(Check, &IntegrityKey), DropReason> {
        let username = request.username().ok_or(DropReason::StunUnauthenticated)?;
        let ufrag = Ufrag::of_username(username).ok_or(DropReason::StunUnauthenticated)?;
        let generation = std::iter::once(&self.current)
            .chain(&self.previous)
            .find(|generation| generation.local == ufrag)
            .ok_or(DropReason::StunUnauthenticated)?;
        request.verify_integrity(&generation.key).map_err(|_| DropReason::StunUnauthenticated)?;
        if !generation.is_named_by(username) {
            return Err(DropReason::StunUnauthenticated);
        }
        if !request.has_fingerprint() {
            return Err(DropReason::StunMalformed);
        }
        let check = if request.unknown_comprehension_required(&KNOWN).next().is_some() {
            Check::UnknownAttributes
        } else if request.ice_controlled().is_some() {
            Check::RoleConflict
        } else {
            let current = generation.local == self.current.local;
            Check::Valid { nominates: request.use_candidate(), current }
        };
        Ok((check, &generation.key))
    }

    /// Records a valid check. At most `paths_max` addresses are kept, the selected one always.
    pub(crate) fn validate(
        &mut self,
        now: Instant,
        path: Path,
        (nominates, current): (bool, bool),
        paths_max: usize,
    ) -> Change {
        let mut change = Change::default();
        if let Some(known) = self.paths.iter_mut().find(|known| known.path == path) {
            known.last_check = now;
        } else {
            change.added = true;
            change.removed = self.make_room(paths_max);
            self.paths.push(ValidPath { path, last_check: now });
        }
        let selected_at = self.selected.and_then(|selected| self.last_check_from(selected));
        let is_stale = selected_at.is_none_or(|at| now.saturating_duration_since(at) >= SELECTED_STALE_AFTER);
        // The old generation may still nominate; the first nomination of the new one ends it.
        if is_stale || (nominates && self.selected != Some(path)) {
            self.selected = Some(path);
            change.selected = true;
        }
        if nominates && current {
            change.retired = self.previous.take().map(|previous| previous.local);
        }
        change
    }

    fn make_room(&mut self, paths_max: usize) -> Option<Path> {
        if self.paths.len() < paths_max {
            return None;
        }
        let others = self.paths.iter().enumerate().filter(|(_, known)| Some(known.path) != self.selected);
        let (oldest, _) = others.min_by_key(|(_, known)| known.last_check)?;
        Some(self.paths.swap_remove(oldest).path)
    }
}

fn generate(remote: &IceCredentials, rng: &mut ChaCha20Rng) -> (Generation, IceCredentials) {
    let ufrag = ice_chars::<{ Ufrag::LEN }>(rng);
    let password = ice_chars::<PASSWORD_LEN>(rng);
    let text = |chars: &[u8]| chars.iter().map(|byte| char::from(*byte)).collect::<String>();
    let local = IceCredentials { ufrag: text(&ufrag), pwd: text(&password) };
    let generation = Generation {
        local: Ufrag(ufrag),
        key: IntegrityKey::short_term(&password),
        remote_ufrag: remote.ufrag.as_bytes().into(),
    };
    (generation, local)
}

/// What a check may carry that we understand (RFC 8445 section 7.1).
const KNOWN: [AttributeType; 3] = [AttributeType::USERNAME, AttributeType::PRIORITY, AttributeType::USE_CANDIDATE];

/// The longest answer: an error that names 16 attributes, or an IPv6 address, each with integrity and fingerprint.
pub(crate) const ANSWER_BYTES_MAX: usize = 160;

/// Writes the answer to an authenticated request and returns its length.
pub(crate) fn answer(
    buf: &mut [u8],
    request: &Message<'_>,
    check: Check,
    remote: SocketAddr,
    key: &IntegrityKey,
) -> Result<usize, stun::WriteError> {
    let id = request.transaction_id();
    let class = if matches!(check, Check::Valid { .. }) { Class::Success } else { Class::Error };
    let mut writer = Writer::new(buf, class, Method::BINDING, id)?;
    match check {
        Check::Valid { .. } => writer.xor_mapped_address(canonical(remote))?,
        Check::RoleConflict => writer.error_code(487, "Role Conflict")?,
        Check::UnknownAttributes => {
            writer.error_code(420, "Unknown Attribute")?;
            let unknown = request.unknown_comprehension_required(&KNOWN);
            writer.unknown_attributes(unknown.take(stun::UNKNOWN_ATTRIBUTES_MAX))?;
        }
    }
    writer.finish(Some(key), true)
}

/// A socket for both families names IPv4 peers as IPv6; the peer knows itself by the plain one.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn remote() -> IceCredentials {
        IceCredentials { ufrag: "peer".into(), pwd: "p".repeat(22) }
    }

    fn address(port: u16) -> Path {
        Path::udp(([192, 0, 2, 1], port).into())
    }

    /// The agent's own clock starts at an arbitrary instant.
    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn credentials_are_long_random_and_of_ice_chars() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..10_000 {
            let (_, local) = Agent::new(&remote(), &mut rng);
            assert!(credentials_in_range(&local));
            assert!(seen.insert(local.ufrag) && seen.insert(local.pwd));
        }
    }

    #[test]
    fn credentials_out_of_range_are_noticed() {
        for (ufrag, pwd) in [("abc", 22), ("ab-d", 22), ("abcd", 21), ("abcd", 257), ("", 22)] {
            let credentials = IceCredentials { ufrag: ufrag.into(), pwd: "p".repeat(pwd) };
            assert!(!credentials_in_range(&credentials), "{ufrag} {pwd}");
        }
        assert!(credentials_in_range(&remote()));
    }

    #[test]
    fn addresses_are_bounded_and_the_selected_one_stays() {
        let (mut agent, _) = Agent::new(&remote(), &mut ChaCha20Rng::from_seed([1; 32]));
        let mut now = start();
        for port in 1..=8 {
            now += Duration::from_secs(1);
            let change = agent.validate(now, address(port), (false, true), 8);
            assert_eq!((change.added, change.removed), (true, None));
        }
        assert_eq!(agent.selected(), Some(address(1)), "the first one, until something is nominated");
        let change = agent.validate(now, address(9), (true, true), 8);
        assert_eq!(change.removed, Some(address(2)), "the oldest that is not selected");
        assert_eq!(agent.selected(), Some(address(9)));
        assert_eq!(agent.paths().count(), 8);
    }
}
