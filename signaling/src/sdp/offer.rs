//! Reads an offer: which m-lines can be served, as what, and the parameters that the media node needs.

use std::collections::{HashMap, HashSet};

use sdp_types::Session;
use sfu_control::{DtlsRole, Fingerprint, HeaderProfile, IceParameters, SlotSpec, TrackKind, TrackSpec};
use signaling_protocol::{MediaRole, MediaUse, Role};

use super::line::{Direction, Line, attributes};
use super::{MEDIA_MAX, PROGRAM_SLOTS, SDP_BYTES_MAX, SPEECH_SLOTS, SdpError};

/// A checked offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub ice: IceParameters,
    pub fingerprint: Fingerprint,
    /// The role that the NODE takes.
    pub dtls_role: DtlsRole,
    pub profile: HeaderProfile,
    /// One for each m-line, in order: an answer has the same.
    pub sections: Vec<Section>,
}

/// One m-line.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    pub media: String,
    pub proto: String,
    /// First format, repeated when the m-line is rejected.
    pub format: String,
    pub mid: Option<String>,
    pub service: Service,
}

/// What an m-line gets.
#[derive(Clone, Debug, PartialEq)]
pub enum Service {
    /// Port 0.
    Rejected,
    /// Kept in the bundle; no sound either way.
    Inactive,
    Active {
        /// The client sends this.
        track: Option<Track>,
        /// The client receives this.
        slot: Option<TrackKind>,
        /// `usedtx=1` was offered.
        dtx: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Track {
    pub kind: TrackKind,
    pub ssrc: Option<u32>,
}

impl Section {
    /// The name of the m-line towards the node. Only one without a bundle can lack its own.
    pub(super) fn name(&self) -> &str {
        self.mid.as_deref().unwrap_or("0")
    }
}

impl Offer {
    /// Reads an offer of a participant with this role. `kinds` are the tracks that the token allows.
    pub fn parse(
        sdp: &str,
        uses: &[MediaUse],
        role: Role,
        kinds: Option<&[signaling_protocol::TrackKind]>,
    ) -> Result<Self, SdpError> {
        let session = parse_session(sdp)?;
        let lines = session.medias.iter().map(|media| Line::read(media, &session)).collect::<Result<Vec<_>, _>>()?;
        check_mids(&lines, uses)?;
        let bundled = bundle(&lines, &session)?;
        let sections = assign(&lines, &bundled, uses)?;
        check_role(&sections, role, kinds)?;
        let transport = TransportLines { session: &session, lines: &lines, bundled: &bundled };
        Ok(Self {
            ice: transport.ice()?,
            fingerprint: transport.fingerprint()?,
            dtls_role: transport.dtls_role()?,
            profile: profile(&lines, &sections)?,
            sections,
        })
    }

    /// What the client sends.
    #[must_use]
    pub fn tracks(&self) -> Vec<TrackSpec> {
        let track = |section: &Section| match section.service {
            Service::Active { track: Some(track), .. } => {
                Some(TrackSpec { kind: track.kind, mid: section.name().to_owned(), ssrc: track.ssrc })
            }
            Service::Active { .. } | Service::Inactive | Service::Rejected => None,
        };
        self.sections.iter().filter_map(track).collect()
    }

    /// Where the client receives.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotSpec> {
        let slot = |section: &Section| match section.service {
            Service::Active { slot: Some(kind), .. } => Some(SlotSpec { kind, mid: section.name().to_owned() }),
            Service::Active { .. } | Service::Inactive | Service::Rejected => None,
        };
        self.sections.iter().filter_map(slot).collect()
    }
}

fn parse_session(sdp: &str) -> Result<Session, SdpError> {
    if sdp.len() > SDP_BYTES_MAX {
        return Err(SdpError::TooLarge(sdp.len()));
    }
    // Counted before anything is built from them.
    let media = sdp.lines().filter(|line| line.starts_with("m=")).count();
    if media > MEDIA_MAX {
        return Err(SdpError::TooManyMedia(media));
    }
    Session::parse(sdp.as_bytes()).map_err(|error| SdpError::Malformed(error.to_string()))
}

fn check_mids(lines: &[Line<'_>], uses: &[MediaUse]) -> Result<(), SdpError> {
    let mut seen = HashSet::new();
    for mid in lines.iter().filter_map(|line| line.mid) {
        if !seen.insert(mid) {
            return Err(SdpError::Malformed(format!("mid {mid:?} is used twice")));
        }
    }
    let mut used = HashSet::new();
    for media_use in uses {
        if !seen.contains(media_use.mid.as_str()) {
            return Err(SdpError::MediaUse(format!("the offer has no mid {:?}", media_use.mid)));
        }
        if !used.insert(media_use.mid.as_str()) {
            return Err(SdpError::MediaUse(format!("mid {:?} is named twice", media_use.mid)));
        }
    }
    Ok(())
}

/// Which m-lines share the one transport: the first servable one, and those in its BUNDLE group (RFC 9143).
#[derive(Debug)]
struct Bundle {
    member: Vec<bool>,
    first: usize,
    /// The m-line that carries the transport attributes for the whole group.
    tagged: usize,
}

fn bundle(lines: &[Line<'_>], session: &Session) -> Result<Bundle, SdpError> {
    let servable = |line: &&Line<'_>| line.is_servable() && (line.direction.send || line.direction.receive);
    let Some(first) = lines.iter().position(|line| servable(&line)) else {
        let offered: Vec<_> = lines.iter().filter(|line| line.is_offered_audio()).collect();
        let without_opus = !offered.is_empty() && offered.iter().all(|line| line.opus.is_none());
        let without_mux = !offered.is_empty() && offered.iter().all(|line| !line.has_rtcp_mux());
        return Err(match (without_opus, without_mux) {
            (true, _) => SdpError::NoOpus,
            (false, true) => SdpError::NoRtcpMux,
            (false, false) => SdpError::NoAudio,
        });
    };
    let groups = session.attributes.iter().filter(|attribute| attribute.attribute == "group");
    let mids = groups.filter_map(|group| group.value.as_deref()?.strip_prefix("BUNDLE ")).find(|mids| {
        mids.split_ascii_whitespace().any(|mid| lines.get(first).is_some_and(|line| line.mid == Some(mid)))
    });
    let group: HashSet<&str> = mids.map(|mids| mids.split_ascii_whitespace().collect()).unwrap_or_default();
    let member = lines.iter().enumerate().map(|(index, line)| {
        index == first || (line.is_servable() && line.mid.is_some_and(|mid| group.contains(mid)))
    });
    let tag = mids.and_then(|mids| mids.split_ascii_whitespace().next());
    let tagged = tag.and_then(|tag| lines.iter().position(|line| line.mid == Some(tag))).unwrap_or(first);
    Ok(Bundle { member: member.collect(), first, tagged })
}

/// Decides what each m-line is for: as the client's list says, else by direction and order.
fn assign(lines: &[Line<'_>], bundle: &Bundle, uses: &[MediaUse]) -> Result<Vec<Section>, SdpError> {
    let uses: HashMap<&str, MediaRole> = uses.iter().map(|given| (given.mid.as_str(), given.use_)).collect();
    let mut places = Places { program_slots: program_slots(lines, bundle), ..Places::default() };
    lines
        .iter()
        .zip(&bundle.member)
        .enumerate()
        .map(|(index, (line, &bundled))| {
            let service = if bundled {
                places.serve(index, line, line.mid.and_then(|mid| uses.get(mid)).copied())?
            } else {
                Service::Rejected
            };
            Ok(Section {
                media: line.media.media.clone(),
                proto: line.media.proto.clone(),
                format: line.media.fmt.split(' ').next().unwrap_or("0").to_owned(),
                mid: line.mid.map(str::to_owned),
                service,
            })
        })
        .collect()
}

/// Without a list, receive-only m-lines with stereo are for program sound. Some browsers say stereo on every m-line:
/// then the last ones are.
fn program_slots(lines: &[Line<'_>], bundle: &Bundle) -> HashSet<usize> {
    let stereo = |&(index, line): &(usize, &Line<'_>)| {
        let Direction { send, receive } = line.direction;
        bundle.member.get(index) == Some(&true) && receive && !send && line.has_parameter("stereo=1")
    };
    let stereo = lines.iter().enumerate().filter(stereo).map(|(index, _)| index);
    stereo.rev().take(PROGRAM_SLOTS.into()).collect()
}

/// What has been given out so far.
#[derive(Default)]
struct Places {
    /// By their index: where program sound is received when the client's list does not say it.
    program_slots: HashSet<usize>,
    tracks: Vec<TrackKind>,
    slots: HashMap<TrackKind, u8>,
}

impl Places {
    fn serve(&mut self, index: usize, line: &Line<'_>, given: Option<MediaRole>) -> Result<Service, SdpError> {
        let (track, slot) = match given {
            Some(given) => self.as_given(line, given)?,
            None => self.by_direction(index, line),
        };
        self.tracks.extend(track);
        let slot = slot.filter(|&kind| self.take_slot(kind));
        if track.is_none() && slot.is_none() {
            return Ok(Service::Inactive);
        }
        let track = track.map(|kind| Track { kind, ssrc: line.ssrc });
        Ok(Service::Active { track, slot, dtx: line.has_parameter("usedtx=1") })
    }

    fn as_given(
        &self,
        line: &Line<'_>,
        given: MediaRole,
    ) -> Result<(Option<TrackKind>, Option<TrackKind>), SdpError> {
        let Direction { send, receive } = line.direction;
        let mid = line.mid.unwrap_or_default();
        let (track, slot) = match given {
            MediaRole::Mic => (Some(TrackKind::Mic), receive.then_some(TrackKind::Mic)),
            MediaRole::Program => (Some(TrackKind::Program), receive.then_some(TrackKind::Program)),
            MediaRole::SpeechSlot => (None, Some(TrackKind::Mic)),
            MediaRole::ProgramSlot => (None, Some(TrackKind::Program)),
        };
        if !send && !receive {
            return Ok((None, None));
        }
        if (track.is_some() && !send) || (slot.is_some() && !receive) {
            return Err(SdpError::MediaUse(format!("the direction of mid {mid:?} does not allow its use")));
        }
        if track.is_some_and(|kind| self.tracks.contains(&kind)) {
            return Err(SdpError::MediaUse(format!("mid {mid:?} is a second track of its kind")));
        }
        Ok((track, slot))
    }

    fn by_direction(&self, index: usize, line: &Line<'_>) -> (Option<TrackKind>, Option<TrackKind>) {
        let Direction { send, receive } = line.direction;
        let free = [TrackKind::Mic, TrackKind::Program].into_iter().find(|kind| !self.tracks.contains(kind));
        let track = if send { free } else { None };
        let slot = match (receive, send) {
            (false, _) => None,
            (true, false) if self.program_slots.contains(&index) => Some(TrackKind::Program),
            (true, _) => Some(TrackKind::Mic),
        };
        (track, slot)
    }

    fn take_slot(&mut self, kind: TrackKind) -> bool {
        let max = match kind {
            TrackKind::Mic => SPEECH_SLOTS,
            TrackKind::Program => PROGRAM_SLOTS,
        };
        let taken = self.slots.entry(kind).or_default();
        let free = *taken < max;
        *taken += u8::from(free);
        free
    }
}

fn check_role(
    sections: &[Section],
    role: Role,
    kinds: Option<&[signaling_protocol::TrackKind]>,
) -> Result<(), SdpError> {
    for section in sections {
        let Service::Active { track, slot, .. } = &section.service else { continue };
        match (role, track, slot) {
            (Role::Listener, Some(_), _) => {
                return Err(SdpError::RoleForbids("a listener may not publish: offer recvonly m-lines"));
            }
            (Role::Publisher, _, Some(_)) => {
                return Err(SdpError::RoleForbids("a publisher may not receive: offer sendonly m-lines"));
            }
            (_, Some(track), _) if kinds.is_some_and(|kinds| !kinds.contains(&protocol_kind(track.kind))) => {
                return Err(SdpError::RoleForbids("the token does not allow to publish a track of this kind"));
            }
            (Role::Listener | Role::Speaker | Role::Publisher | Role::Moderator, _, _) => {}
        }
    }
    Ok(())
}

/// The same kind in the words of the client protocol.
#[must_use]
pub(crate) fn protocol_kind(kind: TrackKind) -> signaling_protocol::TrackKind {
    match kind {
        TrackKind::Mic => signaling_protocol::TrackKind::Mic,
        TrackKind::Program => signaling_protocol::TrackKind::Program,
    }
}

/// Payload types and extension ids, the same on every active m-line: the node renders a packet once for each profile.
fn profile(lines: &[Line<'_>], sections: &[Section]) -> Result<HeaderProfile, SdpError> {
    let active: Vec<_> = lines
        .iter()
        .zip(sections)
        .filter(|(_, section)| matches!(section.service, Service::Active { .. }))
        .map(|(line, _)| line)
        .collect();
    let (Some(first), Some(opus)) = (active.first(), active.first().and_then(|line| line.opus)) else {
        return Err(SdpError::NoAudio);
    };
    if let Some(other) = active.iter().find(|line| line.opus != Some(opus)) {
        let name = |line: &Line<'_>| line.mid.unwrap_or_default().to_owned();
        return Err(SdpError::ProfileMismatch(name(first), name(other)));
    }
    // What not every m-line has in the same way is not used at all.
    let agreed = |value: fn(&Line<'_>) -> Option<u8>| {
        value(first).filter(|_| active.iter().all(|line| value(line) == value(first)))
    };
    Ok(HeaderProfile {
        opus,
        red: agreed(|line| line.red),
        audio_level: agreed(|line| line.audio_level),
        mid: agreed(|line| line.mid_extension),
        nack: active.iter().any(|line| line.direction.receive)
            && active.iter().all(|line| line.nack || !line.direction.receive),
    })
}

/// Where the attributes of the transport may stand: at the m-line itself, at the tagged one of its bundle (the only
/// place for bundle-only m-lines), or at session level.
struct TransportLines<'a> {
    session: &'a Session,
    lines: &'a [Line<'a>],
    bundled: &'a Bundle,
}

impl<'a> TransportLines<'a> {
    fn values(&self, name: &'a str) -> Vec<&'a str> {
        let session = || {
            let found = self.session.attributes.iter().filter(|attribute| attribute.attribute == name);
            found.map(|attribute| attribute.value.as_deref().unwrap_or("")).collect()
        };
        let places = [self.bundled.first, self.bundled.tagged];
        let lines = places.into_iter().filter_map(|index| self.lines.get(index));
        let mut found = lines.map(|line| attributes(line.media, name).collect::<Vec<_>>());
        found.find(|values| !values.is_empty()).unwrap_or_else(session)
    }

    /// RFC 8839 section 5.4.
    fn ice(&self) -> Result<IceParameters, SdpError> {
        let is_ice_text = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/');
        let (ufrag, pwd) = (self.values("ice-ufrag"), self.values("ice-pwd"));
        let (Some(&ufrag), Some(&pwd)) = (ufrag.first(), pwd.first()) else {
            return Err(SdpError::NoIce("ice-ufrag or ice-pwd is missing"));
        };
        if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&pwd.len()) {
            return Err(SdpError::NoIce("ice-ufrag or ice-pwd is too short or too long"));
        }
        if !is_ice_text(ufrag) || !is_ice_text(pwd) {
            return Err(SdpError::NoIce("ice-ufrag or ice-pwd has a forbidden character"));
        }
        if !self.values("ice-lite").is_empty() {
            return Err(SdpError::NoIce("both sides would be ICE-lite, so nobody would check"));
        }
        Ok(IceParameters { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
    }

    /// RFC 8122 section 5: one that we can check is enough; the one that everybody has is preferred.
    fn fingerprint(&self) -> Result<Fingerprint, SdpError> {
        let values = self.values("fingerprint");
        if values.is_empty() {
            return Err(SdpError::NoFingerprint("there is none"));
        }
        let readable = |(algorithm, bytes): (&str, usize)| {
            values.iter().find_map(|value| {
                let (name, hex) = value.split_once(' ')?;
                let well_formed = hex.len() == bytes * 3 - 1
                    && hex.split(':').all(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()));
                (name.eq_ignore_ascii_case(algorithm) && well_formed)
                    .then(|| Fingerprint { algorithm: algorithm.to_owned(), value: hex.to_ascii_uppercase() })
            })
        };
        [("sha-256", 32), ("sha-384", 48), ("sha-512", 64)]
            .into_iter()
            .find_map(readable)
            .ok_or(SdpError::NoFingerprint("none is a well-formed sha-256, sha-384 or sha-512"))
    }

    /// RFC 5763 section 5: an offerer that leaves the choice becomes the client.
    fn dtls_role(&self) -> Result<DtlsRole, SdpError> {
        match self.values("setup").first().copied() {
            Some("actpass" | "active") | None => Ok(DtlsRole::Server),
            Some("passive") => Ok(DtlsRole::Client),
            Some(other) => Err(SdpError::Setup(other.chars().take(16).collect())),
        }
    }
}
