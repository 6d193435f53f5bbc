//! Offers of real clients (`fixtures/sdp`) and their answers, defects, and input that means harm.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use sfu_control::{Candidate, DtlsRole, Fingerprint, IceParameters, Protocol, SlotInfo, TrackKind};
use signaling_protocol::{MediaRole, MediaUse, Role};

use super::*;

const FIXTURES: [&str; 10] = [
    "aiortc-sendrecv",
    "aiortc-speaker",
    "chromium-sendrecv",
    "chromium-speaker",
    "chromium-video",
    "firefox-listener",
    "firefox-sendrecv",
    "firefox-speaker",
    "str0m-speaker",
    "webrtc-bridge",
];

fn path(name: &str) -> String {
    format!("{}/fixtures/sdp/{name}.sdp", env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap()
}

fn parse(sdp: &str) -> Result<Offer, SdpError> {
    Offer::parse(sdp, &[], Role::Speaker, None)
}

fn refused(sdp: &str) -> &'static str {
    parse(sdp).unwrap_err().code().as_str()
}

/// What a node would give.
fn answer(offer: &Offer) -> String {
    let address = |text: &str, port, protocol| Candidate { address: text.parse().unwrap(), port, protocol };
    let transport = Transport {
        ice: IceParameters { ufrag: "nodeufrag".into(), pwd: "nodepasswordnodepassword".into() },
        fingerprint: Fingerprint { algorithm: "sha-256".into(), value: ["AB"; 32].join(":") },
        dtls_role: offer.dtls_role,
        candidates: vec![
            address("192.0.2.10", 40000, Protocol::Udp),
            address("2001:db8::10", 40000, Protocol::Udp),
            address("192.0.2.10", 40000, Protocol::Tcp),
        ],
    };
    let mut counts = [0u8; 2];
    let slot = |spec: &sfu_control::SlotSpec| {
        let count = &mut counts[usize::from(spec.kind == TrackKind::Program)];
        let index = *count;
        *count += 1;
        let base = if spec.kind == TrackKind::Program { 2000 } else { 1000 };
        SlotInfo { mid: spec.mid.clone(), kind: spec.kind, index, ssrc: base + u32::from(index) }
    };
    let slots: Vec<_> = offer.slots().iter().map(slot).collect();
    write_answer(offer, &transport, &slots, Origin { session_id: 7, version: 1 })
}

/// The m-lines with the attributes below them.
fn sections(sdp: &str) -> Vec<Vec<&str>> {
    let mut sections: Vec<Vec<&str>> = vec![vec![]];
    for line in sdp.lines() {
        if line.starts_with("m=") {
            sections.push(vec![]);
        }
        sections.last_mut().unwrap().push(line);
    }
    sections.split_off(1)
}

fn value<'a>(section: &[&'a str], prefix: &str) -> Option<&'a str> {
    section.iter().find_map(|line| line.strip_prefix(prefix))
}

fn direction<'a>(section: &[&'a str]) -> &'a str {
    ["sendrecv", "sendonly", "recvonly", "inactive"]
        .into_iter()
        .find(|direction| section.contains(&format!("a={direction}").as_str()))
        .unwrap_or("none")
}

/// With `UPDATE_FIXTURES` set the answers are written anew: look at the difference.
#[test]
fn answers_to_real_clients_are_as_recorded() {
    for name in FIXTURES {
        let answer = answer(&parse(&fixture(name)).unwrap());
        let recorded = path(&format!("answers/{name}"));
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(&recorded, &answer).unwrap();
        }
        assert_eq!(answer, std::fs::read_to_string(recorded).unwrap(), "{name}");
    }
}

#[test]
fn answers_fit_their_offers_line_by_line() {
    for name in FIXTURES {
        let offer = fixture(name);
        let answer = answer(&parse(&offer).unwrap());
        let (offered, answered) = (sections(&offer), sections(&answer));
        assert_eq!(offered.len(), answered.len(), "{name}");
        let mut bundle = Vec::new();
        for (offered, answered) in offered.iter().zip(&answered) {
            let mid = value(offered, "a=mid:");
            assert_eq!(mid, value(answered, "a=mid:"), "{name}");
            let (line, kind) = (answered[0], offered[0].split(' ').next().unwrap());
            assert!(line.starts_with(kind), "{name}: {line}");
            if line.split(' ').nth(1) == Some("0") {
                continue;
            }
            bundle.extend(mid);
            let allowed = match direction(offered) {
                "sendrecv" => ["sendrecv", "sendonly", "recvonly", "inactive"].as_slice(),
                "sendonly" => &["recvonly", "inactive"],
                "recvonly" => &["sendonly", "inactive"],
                _ => &["inactive"],
            };
            assert!(allowed.contains(&direction(answered)), "{name}: {line}");
            let formats: Vec<_> = offered[0].split(' ').skip(3).collect();
            assert!(line.split(' ').skip(3).all(|format| formats.contains(&format)), "{name}: {line}");
            for extension in answered.iter().filter(|line| line.starts_with("a=extmap:")) {
                assert!(offered.iter().any(|line| line.starts_with(extension)), "{name}: {extension}");
            }
        }
        assert_eq!(value(&answer.lines().collect::<Vec<_>>(), "a=group:BUNDLE "), Some(bundle.join(" ").as_str()));
        let with_candidates = answered.iter().filter(|section| section.contains(&"a=end-of-candidates"));
        assert_eq!(with_candidates.count(), bundle.len(), "{name}: every accepted m-line");
        // Somebody else's reader takes it as well.
        sdp_types::Session::parse(answer.as_bytes()).unwrap();
    }
}

#[test]
fn what_the_node_is_asked_for() {
    // name, opus, red, audio level, mid, tracks, speech slots, program slots
    let expected = [
        ("aiortc-sendrecv", 96, None, Some(2), Some(1), 1, 1, 0),
        ("aiortc-speaker", 96, None, Some(2), Some(1), 1, 4, 0),
        ("chromium-sendrecv", 111, Some(63), Some(1), Some(4), 1, 1, 0),
        ("chromium-speaker", 111, Some(63), Some(1), Some(4), 2, 8, 2),
        ("chromium-video", 111, Some(63), Some(14), Some(9), 0, 8, 1),
        ("firefox-listener", 109, None, Some(1), Some(3), 0, 8, 2),
        ("firefox-sendrecv", 109, None, Some(1), Some(3), 1, 1, 0),
        ("firefox-speaker", 109, None, Some(1), Some(3), 2, 8, 2),
        ("str0m-speaker", 111, None, Some(1), Some(4), 1, 3, 0),
        ("webrtc-bridge", 111, None, None, None, 1, 8, 0),
    ];
    for (name, opus, red, audio_level, mid, tracks, speech, program) in expected {
        let offer = parse(&fixture(name)).unwrap();
        let profile = sfu_control::HeaderProfile { opus, red, audio_level, mid, nack: false };
        assert_eq!(offer.profile, profile, "{name}");
        assert_eq!(offer.tracks().len(), tracks, "{name}");
        assert!(offer.tracks().iter().all(|track| track.ssrc.is_some()), "{name}");
        let count = |kind| offer.slots().iter().filter(|slot| slot.kind == kind).count();
        assert_eq!((count(TrackKind::Mic), count(TrackKind::Program)), (speech, program), "{name}");
        assert_eq!((offer.dtls_role, offer.fingerprint.algorithm.as_str()), (DtlsRole::Server, "sha-256"), "{name}");
    }
}

#[test]
fn asking_again_is_agreed_only_where_every_slot_has_it() {
    let with = |feedback: &str| {
        let given = fixture("chromium-speaker");
        given.replace("a=rtpmap:111 opus/48000/2", &format!("a=rtcp-fb:{feedback}\r\na=rtpmap:111 opus/48000/2"))
    };
    let nack = |sdp: &str| parse(sdp).unwrap().profile.nack;
    assert!(!nack(&fixture("chromium-speaker")));
    assert!(nack(&with("111 nack")) && nack(&with("* nack")));
    for other in ["111 nack pli", "63 nack", "111 transport-cc"] {
        assert!(!nack(&with(other)), "{other}");
    }
    let all = with("111 nack");
    let (head, last) = all.rsplit_once("a=rtcp-fb:111 nack\r\n").unwrap();
    assert!(!nack(&format!("{head}{last}")), "one slot is without it");
}

#[test]
fn kinds_follow_the_list_of_the_client() {
    let media_use = |mid: &str, use_| MediaUse { mid: mid.into(), use_ };
    let uses =
        [media_use("0", MediaRole::Program), media_use("1", MediaRole::Mic), media_use("2", MediaRole::ProgramSlot)];
    let offer = Offer::parse(&fixture("chromium-speaker"), &uses, Role::Speaker, None).unwrap();
    let kinds: Vec<_> = offer.tracks().iter().map(|track| (track.mid.clone(), track.kind)).collect();
    assert_eq!(kinds, [("0".into(), TrackKind::Program), ("1".into(), TrackKind::Mic)]);
    assert_eq!(offer.slots()[0].kind, TrackKind::Program);

    let with = |uses: &[MediaUse]| {
        Offer::parse(&fixture("chromium-speaker"), uses, Role::Speaker, None).map_err(|error| error.code().as_str())
    };
    for wrong in [
        vec![media_use("99", MediaRole::Mic)],
        vec![media_use("2", MediaRole::Mic)],
        vec![media_use("0", MediaRole::SpeechSlot)],
        vec![media_use("0", MediaRole::Mic), media_use("1", MediaRole::Mic)],
        vec![media_use("0", MediaRole::Mic), media_use("0", MediaRole::Mic)],
    ] {
        assert_eq!(with(&wrong).unwrap_err(), "media_use", "{wrong:?}");
    }
}

#[test]
fn bridge_names_its_program_track() {
    let uses = [MediaUse { mid: "0".into(), use_: MediaRole::Program }];
    let offer = Offer::parse(&fixture("webrtc-bridge"), &uses, Role::Publisher, None);
    assert_eq!(offer.unwrap_err().code().as_str(), "role_forbids", "it receives too");
    let offer = Offer::parse(&fixture("webrtc-bridge"), &uses, Role::Speaker, None).unwrap();
    assert_eq!(offer.tracks()[0].kind, TrackKind::Program);
    let answer = answer(&offer);
    assert!(answer.contains("a=fmtp:111 minptime=10;stereo=1;sprop-stereo=1;maxaveragebitrate=128000"));
}

#[test]
fn roles_and_kinds_bound_what_may_be_offered() {
    let code = |name: &str, role, kinds| {
        Offer::parse(&fixture(name), &[], role, kinds).map_or_else(|error| error.code().as_str(), |_| "fine")
    };
    use signaling_protocol::TrackKind::{Mic, Program};
    assert_eq!(code("chromium-speaker", Role::Listener, None), "role_forbids");
    assert_eq!(code("chromium-speaker", Role::Publisher, None), "role_forbids");
    assert_eq!(code("chromium-speaker", Role::Moderator, None), "fine");
    assert_eq!(code("chromium-speaker", Role::Speaker, Some(&[Mic])), "role_forbids");
    assert_eq!(code("chromium-speaker", Role::Speaker, Some(&[Mic, Program])), "fine");
    assert_eq!(code("firefox-listener", Role::Listener, Some(&[])), "fine");
}

#[test]
fn setup_decides_the_role_of_the_node() {
    let role = |setup: &str| {
        parse(&fixture("aiortc-sendrecv").replace("a=setup:actpass", setup)).map(|offer| offer.dtls_role)
    };
    assert_eq!(role("a=setup:actpass"), Ok(DtlsRole::Server));
    assert_eq!(role("a=setup:active"), Ok(DtlsRole::Server));
    assert_eq!(role("a=setup:passive"), Ok(DtlsRole::Client));
    assert_eq!(role("a=none"), Ok(DtlsRole::Server));
    assert_eq!(role("a=setup:holdconn"), Err(SdpError::Setup("holdconn".into())));
    let passive = parse(&fixture("aiortc-sendrecv").replace("a=setup:actpass", "a=setup:passive")).unwrap();
    assert!(answer(&passive).contains("a=setup:active\r\n"));
}

#[test]
fn rejected_first_line_does_not_carry_the_bundle() {
    let offer = fixture("chromium-video");
    assert!(sections(&offer)[0][0].starts_with("m=video"));
    let answer = answer(&parse(&offer).unwrap());
    let answered = sections(&answer);
    assert!(answered[0][0].starts_with("m=video 0 "));
    assert!(answered.iter().any(|section| section[0] == "m=application 0 UDP/DTLS/SCTP webrtc-datachannel"));
    let group = answer.lines().find_map(|line| line.strip_prefix("a=group:BUNDLE ")).unwrap();
    let tagged = answered.iter().find(|section| value(section, "a=mid:") == group.split(' ').next()).unwrap();
    assert!(value(tagged, "a=candidate:").is_some());
}

#[test]
fn more_slots_than_a_room_has_stay_inactive() {
    let line = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\na=mid:";
    let mids: Vec<_> = (0..12).map(|mid| mid.to_string()).collect();
    let head = format!(
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=ice-ufrag:abcd\r\n\
         a=ice-pwd:0123456789abcdefghijkl\r\na=fingerprint:sha-256 {}\r\n",
        mids.join(" "),
        ["0f"; 32].join(":")
    );
    let offer = mids.iter().fold(head, |offer, mid| format!("{offer}{line}{mid}\r\n"));
    let parsed = parse(&offer).unwrap();
    assert_eq!(parsed.slots().len(), 8);
    let answer = answer(&parsed);
    assert_eq!(answer.matches("a=sendonly\r\n").count(), 8);
    assert_eq!(answer.matches("a=inactive\r\n").count(), 4);
}

#[test]
fn only_the_bundle_of_the_first_audio_line_is_served() {
    let offer =
        fixture("aiortc-speaker").replace("a=group:BUNDLE 0 1 2 3 4", "a=group:BUNDLE 0 1 2\r\na=group:BUNDLE 3 4");
    let answer = answer(&parse(&offer).unwrap());
    let ports: Vec<_> = sections(&answer).iter().map(|section| section[0].split(' ').nth(1) == Some("0")).collect();
    assert_eq!(ports, [false, false, false, true, true]);
    let single = fixture("aiortc-speaker").replace("a=group:BUNDLE 0 1 2 3 4\r\n", "");
    assert_eq!(parse(&single).unwrap().slots().len(), 0);
}

/// An offer as FFmpeg's WHIP muxer writes it: one m-line, no candidates, passive.
#[test]
fn bare_passive_offer_is_answered() {
    let fingerprint = ["0f"; 32].join(":");
    let offer = format!(
        "v=0\r\no=FFmpeg 1 2 IN IP4 127.0.0.1\r\ns=FFmpegPublishSession\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
         a=extmap-allow-mixed\r\na=msid-semantic: WMS\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n\
         a=ice-ufrag:abcdefgh\r\na=ice-pwd:0123456789abcdef0123456789abcdef\r\na=fingerprint:sha-256 {fingerprint}\r\n\
         a=setup:passive\r\na=mid:0\r\na=sendonly\r\na=msid:FFmpeg audio\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
         a=ssrc:4242 cname:FFmpeg\r\na=ssrc:4242 msid:FFmpeg audio\r\n"
    );
    let parsed = Offer::parse(&offer, &[], Role::Publisher, None).unwrap();
    assert_eq!(parsed.fingerprint.value, fingerprint.to_ascii_uppercase());
    assert_eq!(parsed.tracks()[0].ssrc, Some(4242));
    assert!(answer(&parsed).contains("a=setup:active"));
}

#[test]
fn each_defect_has_its_code() {
    let good = fixture("chromium-sendrecv");
    let without =
        |prefix: &str| good.split_inclusive("\r\n").filter(|line| !line.starts_with(prefix)).collect::<String>();
    let cases = [
        (String::new(), "sdp_malformed"),
        ("hello".into(), "sdp_malformed"),
        ("v=0\r\n".into(), "sdp_no_audio"),
        (good.replace("m=audio", "m=video"), "sdp_no_audio"),
        (good.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "sdp_no_audio"),
        (good.replace("a=sendrecv", "a=inactive"), "sdp_no_audio"),
        (good.replace("opus/48000/2", "opus/48000/1"), "sdp_no_opus"),
        (without("a=rtcp-mux"), "sdp_no_rtcp_mux"),
        (without("a=ice-ufrag"), "sdp_no_ice"),
        (without("a=ice-pwd"), "sdp_no_ice"),
        (good.replace("a=ice-pwd:", "a=ice-pwd:!"), "sdp_no_ice"),
        (format!("{good}a=ice-lite\r\n"), "sdp_no_ice"),
        (without("a=fingerprint"), "sdp_no_fingerprint"),
        (good.replace("a=fingerprint:sha-256", "a=fingerprint:md5"), "sdp_no_fingerprint"),
        (good.replace("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 zz:"), "sdp_no_fingerprint"),
        (good.replace("a=mid:0", "a=mid:0123456789abcdefg"), "sdp_malformed"),
        (good.replace("a=mid:0", "a=mid:a b"), "sdp_malformed"),
        (format!("{good}m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"), "sdp_malformed"),
        (
            fixture("aiortc-speaker").replacen("96 opus", "97 opus", 1).replacen("SAVPF 96", "SAVPF 97", 1),
            "sdp_profile_mismatch",
        ),
        (format!("{good}{}", "a=x:y\r\n".repeat(30_000)), "sdp_too_large"),
    ];
    for (sdp, code) in cases {
        let shown: String = sdp.chars().take(2000).collect();
        assert_eq!(refused(&sdp), code, "{shown}");
    }
}

#[test]
fn malformed_line_is_named() {
    let sdp = fixture("chromium-sendrecv").replace("t=0 0", "t=now later");
    let error = parse(&sdp).unwrap_err().to_string();
    assert!(error.contains("line 4"), "{error}");
}

/// The least time of some runs: a busy machine stalls now and then, not each time.
fn cost(run: impl Fn()) -> Duration {
    let timed = || {
        let since = Instant::now();
        run();
        since.elapsed()
    };
    std::iter::repeat_with(timed).take(5).min().unwrap()
}

#[test]
fn ten_thousand_lines_are_refused_before_they_are_read() {
    let bomb = format!("v=0\r\n{}", "m=audio 9 X 0\r\n".repeat(8_000));
    let cost = cost(|| assert_eq!(refused(&bomb), "sdp_too_many_media"));
    assert!(cost < Duration::from_millis(100), "{cost:?}");
}

#[test]
fn many_attributes_cost_little() {
    let base = fixture("chromium-speaker");
    for attribute in [
        "a=ssrc:1 cname:x\r\n",
        "a=candidate:1 1 udp 1 192.0.2.1 1 typ host\r\n",
        "a=rtpmap:1 x/1\r\n",
        "a=group:BUNDLE 0\r\n",
    ] {
        let bomb = format!("{base}{}", attribute.repeat((SDP_BYTES_MAX - base.len()) / attribute.len()));
        let cost = cost(|| drop(parse(&bomb)));
        assert!(cost < Duration::from_millis(500), "{attribute}: {cost:?}");
    }
}

fn mutated() -> impl Strategy<Value = String> {
    let change = (0usize..20_000, 0usize..40, "\\PC{0,12}");
    (0..FIXTURES.len(), prop::collection::vec(change, 1..6)).prop_map(|(index, changes)| {
        let mut bytes = fixture(FIXTURES[index]).into_bytes();
        for (at, length, with) in changes {
            let at = at % bytes.len();
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, with.into_bytes());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #[test]
    fn random_text_never_panics(sdp in "\\PC{0,400}") {
        let _ = parse(&sdp);
    }

    #[test]
    fn random_lines_never_panic(lines in prop::collection::vec("[vosctma]=\\PC{0,40}", 0..60)) {
        let _ = parse(&format!("v=0\r\n{}", lines.join("\r\n")));
    }

    /// Whatever is accepted has an answer with as many m-lines that can be read again.
    #[test]
    fn mutated_offers_are_refused_or_answered(sdp in mutated()) {
        if let Ok(offer) = parse(&sdp) {
            prop_assert!(offer.slots().len() <= 10 && offer.tracks().len() <= 2);
            let answer = answer(&offer);
            prop_assert_eq!(sections(&answer).len(), offer.sections.len());
            prop_assert!(sdp_types::Session::parse(answer.as_bytes()).is_ok(), "{}", answer);
        }
    }
}
