//! Between the messages of the control link (`sfu_control`: strings, JSON) and the commands of the core (`sfu_core`:
//! checked values). What cannot be translated is refused here, with a code, so that the core never sees it.

use sfu_control::{Candidate, ControlError, ID_BYTES_MAX, META_BYTES_MAX, Protocol};
use sfu_core as core;

/// A refusal for the other side of the link.
pub(crate) fn refuse(code: &str, message: impl Into<String>, hint: &str) -> ControlError {
    ControlError { code: code.to_owned(), message: message.into(), hint: hint.to_owned(), retry_after_s: None }
}

pub(crate) fn join(
    join: &sfu_control::Join,
    room: core::RoomId,
    peer: core::PeerId,
) -> Result<core::Join, ControlError> {
    Ok(core::Join {
        room,
        peer,
        remote_ice: ice_to_core(&join.ice),
        fingerprint: fingerprint(&join.fingerprint)?,
        dtls_role: match join.dtls_role {
            sfu_control::DtlsRole::Client => core::DtlsRole::Client,
            sfu_control::DtlsRole::Server => core::DtlsRole::Server,
        },
        profile: profile(&join.profile)?,
        nack: join.profile.nack,
        tracks: join
            .tracks
            .iter()
            .map(|track| {
                let ssrc = track.ssrc.map(core::Ssrc);
                Ok(core::TrackSpec { kind: kind_to_core(track.kind), mid: mid(&track.mid)?, ssrc })
            })
            .collect::<Result<_, ControlError>>()?,
        slots: join
            .slots
            .iter()
            .map(|slot| Ok(core::SlotSpec { kind: kind_to_core(slot.kind), mid: mid(&slot.mid)? }))
            .collect::<Result<_, ControlError>>()?,
    })
}

pub(crate) fn check_id(what: &str, id: &str) -> Result<(), ControlError> {
    if !id.is_empty() && id.len() <= ID_BYTES_MAX && !id.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("{what} id is empty, longer than {ID_BYTES_MAX} bytes, or has control characters");
    Err(refuse("bad_id", message, "use a short printable id"))
}

/// Control characters would make a snapshot six times as long as what was given.
pub(crate) fn check_meta(meta: &str) -> Result<(), ControlError> {
    if meta.len() <= META_BYTES_MAX && !meta.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("meta is longer than {META_BYTES_MAX} bytes or has control characters");
    Err(refuse("bad_meta", message, "keep only what a takeover needs, on one line"))
}

pub(crate) fn ice_to_core(ice: &sfu_control::IceParameters) -> core::IceCredentials {
    core::IceCredentials { ufrag: ice.ufrag.clone(), pwd: ice.pwd.clone() }
}

pub(crate) fn ice_from_core(ice: core::IceCredentials) -> sfu_control::IceParameters {
    sfu_control::IceParameters { ufrag: ice.ufrag, pwd: ice.pwd }
}

pub(crate) fn kind_to_core(kind: sfu_control::TrackKind) -> core::TrackKind {
    match kind {
        sfu_control::TrackKind::Mic => core::TrackKind::Mic,
        sfu_control::TrackKind::Program => core::TrackKind::Program,
    }
}

pub(crate) fn kind_from_core(kind: core::TrackKind) -> sfu_control::TrackKind {
    match kind {
        core::TrackKind::Mic => sfu_control::TrackKind::Mic,
        core::TrackKind::Program => sfu_control::TrackKind::Program,
    }
}

pub(crate) fn track_from_core(track: &core::TrackInfo) -> sfu_control::TrackInfo {
    sfu_control::TrackInfo {
        mid: track.mid.as_str().to_owned(),
        kind: kind_from_core(track.kind),
        track: track.track.0,
    }
}

pub(crate) fn slot_from_core(slot: &core::SlotInfo) -> sfu_control::SlotInfo {
    sfu_control::SlotInfo {
        mid: slot.mid.as_str().to_owned(),
        kind: kind_from_core(slot.kind),
        index: slot.index,
        ssrc: slot.ssrc.0,
    }
}

/// TCP after UDP: it is for those who have nothing else.
pub(crate) fn candidates(addresses: &[std::net::IpAddr], port: u16, tcp: bool) -> Vec<Candidate> {
    let protocols = if tcp { &[Protocol::Udp, Protocol::Tcp][..] } else { &[Protocol::Udp] };
    let of = |protocol| addresses.iter().map(move |address| Candidate { address: *address, port, protocol });
    protocols.iter().flat_map(|protocol| of(*protocol)).collect()
}

pub(crate) fn gone_reason(reason: core::GoneReason) -> &'static str {
    match reason {
        core::GoneReason::Left => "left",
        core::GoneReason::SetupTimeout => "setup_timeout",
        core::GoneReason::ConsentExpired => "consent_expired",
        core::GoneReason::Closed => "closed",
        core::GoneReason::DtlsFailed => "dtls_failed",
        core::GoneReason::FingerprintMismatch => "fingerprint_mismatch",
        core::GoneReason::NoSrtpProfile => "no_srtp_profile",
    }
}

/// RFC 8122 section 5: upper-case hex pairs with colons.
pub(crate) fn fingerprint_text(fingerprint: &core::Fingerprint) -> sfu_control::Fingerprint {
    let (algorithm, digest): (_, &[u8]) = match fingerprint {
        core::Fingerprint::Sha256(digest) => ("sha-256", digest),
        core::Fingerprint::Sha384(digest) => ("sha-384", digest),
        core::Fingerprint::Sha512(digest) => ("sha-512", digest),
    };
    let pairs: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    sfu_control::Fingerprint { algorithm: algorithm.to_owned(), value: pairs.join(":") }
}

fn fingerprint(given: &sfu_control::Fingerprint) -> Result<core::Fingerprint, ControlError> {
    let bad = || {
        let hint = "give sha-256, sha-384 or sha-512 with hex pairs and colons, as in a=fingerprint";
        refuse("bad_fingerprint", "fingerprint cannot be read", hint)
    };
    let byte = |pair: &str| {
        let is_pair = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
        u8::from_str_radix(pair, 16).ok().filter(|_| is_pair)
    };
    let digest: Vec<u8> = given.value.split(':').map(byte).collect::<Option<_>>().ok_or_else(bad)?;
    match given.algorithm.to_ascii_lowercase().as_str() {
        "sha-256" => digest.try_into().map(core::Fingerprint::Sha256).map_err(|_| bad()),
        "sha-384" => digest.try_into().map(core::Fingerprint::Sha384).map_err(|_| bad()),
        "sha-512" => digest.try_into().map(core::Fingerprint::Sha512).map_err(|_| bad()),
        _ => Err(bad()),
    }
}

/// RFC 3550 section 5.1: 7 bits of payload type. RFC 8285 section 4.2: one-byte ids are 1 to 14.
fn profile(given: &sfu_control::HeaderProfile) -> Result<core::HeaderProfile, ControlError> {
    let payload_types = [Some(given.opus), given.red];
    let extensions = [given.audio_level, given.mid];
    let distinct = given.red != Some(given.opus) && (given.mid.is_none() || given.mid != given.audio_level);
    let in_range = payload_types.into_iter().flatten().all(|pt| pt <= 127)
        && extensions.into_iter().flatten().all(|id| (1..=14).contains(&id));
    if !in_range || !distinct {
        let hint = "payload types are 0 to 127, extension ids 1 to 14, each used once";
        return Err(refuse("bad_profile", "payload types or extension ids cannot be used", hint));
    }
    Ok(core::HeaderProfile { opus: given.opus, red: given.red, audio_level: given.audio_level, mid: given.mid })
}

fn mid(text: &str) -> Result<core::Mid, ControlError> {
    core::Mid::new(text).ok_or_else(|| {
        refuse("bad_mid", "mid is empty, longer than 16 bytes or not a token", "use short mids such as 0, 1, 2")
    })
}

/// A refusal of the core.
pub(crate) fn command_error(error: core::CommandError) -> ControlError {
    let (code, hint) = match error {
        core::CommandError::PeerExists => ("peer_exists", "choose a new peer id"),
        core::CommandError::NoSuchPeer => ("no_such_peer", "take a snapshot: the peer may be gone"),
        core::CommandError::NoSuchTrack => ("no_such_track", "name a kind that the peer joined with"),
        core::CommandError::NoSuchRoom => ("no_such_room", "take a snapshot: the room may be gone"),
        core::CommandError::RoomFull => ("room_full", "wait until somebody leaves"),
        core::CommandError::NodeFull => ("node_full", "place the room on another node"),
        core::CommandError::DuplicateTrack => ("duplicate_track", "give at most one track of a kind"),
        core::CommandError::TooManySlots => ("too_many_slots", "offer fewer m-lines to receive in"),
        core::CommandError::BadIceCredentials => ("bad_ice", "ufrag has 4 to 256 ice-chars, pwd 22 to 256"),
    };
    refuse(code, error.to_string(), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> sfu_control::Join {
        let request = include_str!("../control/fixtures/request/join.json");
        let request: sfu_control::Request = serde_json::from_str(request).unwrap();
        let sfu_control::Operation::Join(join) = request.op else { panic!("not a join") };
        join
    }

    fn code_of(change: impl FnOnce(&mut sfu_control::Join)) -> String {
        let mut changed = given();
        change(&mut changed);
        join(&changed, core::RoomId(1), core::PeerId(2)).unwrap_err().code
    }

    #[test]
    fn a_join_keeps_everything_that_it_says() {
        let made = join(&given(), core::RoomId(1), core::PeerId(2)).unwrap();
        assert_eq!((made.room, made.peer), (core::RoomId(1), core::PeerId(2)));
        assert_eq!(made.dtls_role, core::DtlsRole::Server);
        assert_eq!(made.tracks.len(), 2);
        assert_eq!(made.tracks[0].ssrc, Some(core::Ssrc(0xdead_beef)));
        assert_eq!((made.tracks[1].kind, made.tracks[1].ssrc), (core::TrackKind::Program, None));
        assert_eq!(made.slots[1].mid.as_str(), "3");
        assert_eq!(made.profile.red, Some(63));
    }

    #[test]
    fn fingerprints_read_back_as_they_print() {
        for fingerprint_in in [
            core::Fingerprint::Sha256([0xa5; 32]),
            core::Fingerprint::Sha384([7; 48]),
            core::Fingerprint::Sha512([0; 64]),
        ] {
            assert_eq!(fingerprint(&fingerprint_text(&fingerprint_in)).unwrap(), fingerprint_in);
        }
        let mut lower = fingerprint_text(&core::Fingerprint::Sha256([0xab; 32]));
        lower.value.make_ascii_lowercase();
        lower.algorithm.make_ascii_uppercase();
        assert!(fingerprint(&lower).is_ok());
    }

    #[test]
    fn what_cannot_be_translated_is_refused_by_code() {
        for value in ["", "AA", "AA:BB", "+1:00", &"ZZ:".repeat(32), &"AA".repeat(32)] {
            assert_eq!(code_of(|join| join.fingerprint.value = value.to_owned()), "bad_fingerprint", "{value}");
        }
        assert_eq!(code_of(|join| join.fingerprint.algorithm = "sha-1".to_owned()), "bad_fingerprint");
        assert_eq!(code_of(|join| join.profile.opus = 128), "bad_profile");
        assert_eq!(code_of(|join| join.profile.red = Some(111)), "bad_profile");
        assert_eq!(code_of(|join| join.profile.mid = Some(15)), "bad_profile");
        assert_eq!(code_of(|join| join.profile.mid = Some(1)), "bad_profile");
        assert_eq!(code_of(|join| join.tracks[0].mid = "a b".to_owned()), "bad_mid");
        assert_eq!(code_of(|join| join.slots[0].mid = "x".repeat(17)), "bad_mid");
    }

    #[test]
    fn ids_and_meta_are_bounded() {
        assert!(check_id("peer", &"x".repeat(ID_BYTES_MAX)).is_ok());
        assert_eq!(check_id("peer", "").unwrap_err().code, "bad_id");
        assert_eq!(check_id("peer", &"x".repeat(ID_BYTES_MAX + 1)).unwrap_err().code, "bad_id");
        assert_eq!(check_id("room", "a\nb").unwrap_err().code, "bad_id");
        assert!(check_meta(&"x".repeat(META_BYTES_MAX)).is_ok());
        assert_eq!(check_meta(&"x".repeat(META_BYTES_MAX + 1)).unwrap_err().code, "bad_meta");
        assert_eq!(check_meta("\u{1}").unwrap_err().code, "bad_meta");
    }

    #[test]
    fn candidates_keep_the_order_of_the_addresses() {
        let addresses = ["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        let made = candidates(&addresses, 40_001, false);
        assert_eq!(made.iter().map(|candidate| candidate.address).collect::<Vec<_>>(), addresses);
        assert!(made.iter().all(|candidate| candidate.port == 40_001 && candidate.protocol == Protocol::Udp));
    }

    #[test]
    fn tcp_comes_after_udp_on_the_same_port() {
        let made = candidates(&["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()], 40_001, true);
        let protocols: Vec<_> = made.iter().map(|candidate| candidate.protocol).collect();
        assert_eq!(protocols, [Protocol::Udp, Protocol::Udp, Protocol::Tcp, Protocol::Tcp]);
        assert!(made.iter().all(|candidate| candidate.port == 40_001));
    }
}
