//! The SDP of the bulk clients: an offer with a microphone and slots, an answer to somebody's offer, and what the other side
//! says, read into a [`Remote`]. Audio with Opus, bundled, one candidate pair; nothing more general.
//!
//! The realistic peers bring SDP of their own.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use crate::targets::{IceCredentials, Local, Remote, SendFormat};

/// Payload type of Opus in our offers: what Chromium uses.
pub const OPUS: u8 = 111;
/// Id of the audio level (RFC 6464) in our offers.
pub const AUDIO_LEVEL: u8 = 1;

const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// Longer than any description of ours; a longer one is nonsense.
const SDP_BYTES_MAX: usize = 1024 * 1024;
/// What an answer may have: a microphone and all slots of a scenario.
const MEDIA_MAX: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    #[error("description is too long")]
    TooLong,
    #[error("description has no {0}")]
    Missing(&'static str),
    #[error("fingerprint is not sha-256")]
    Fingerprint,
    #[error("no candidate for udp")]
    NoCandidate,
    #[error("nothing was offered before")]
    NoOffer,
    #[error("the peer refuses: {0}")]
    Refused(String),
}

/// One sendonly m-line when it publishes, and a recvonly one for each slot; mids count from 0.
#[must_use]
pub fn write_offer(local: &Local, publishes: bool, slots: u32) -> String {
    let lines = u32::from(publishes) + slots;
    let mids: Vec<String> = (0..lines).map(|mid| mid.to_string()).collect();
    let mut sdp = write_head(&mids);
    for mid in &mids {
        let sends = publishes && mid == "0";
        let _ = write!(sdp, "m=audio 9 UDP/TLS/RTP/SAVPF {OPUS}\r\n");
        write_transport(&mut sdp, local, "actpass");
        let direction = if sends { "sendonly" } else { "recvonly" };
        let _ = write!(
            sdp,
            "a=mid:{mid}\r\na={direction}\r\na=rtcp-mux\r\na=rtpmap:{OPUS} opus/48000/2\r\n\
             a=fmtp:{OPUS} minptime=10;useinbandfec=1\r\na=extmap:{AUDIO_LEVEL} {AUDIO_LEVEL_URI}\r\n"
        );
        if sends {
            let _ = write!(sdp, "a=msid:load mic\r\na=ssrc:{} cname:load\r\n", local.ssrc);
        }
    }
    sdp
}

/// Takes everything that is offered in Opus: receives what the offer sends, and sends on the first m-line that takes
/// something, when `publishes`. All else is rejected.
pub fn write_answer(local: &Local, offer: &str, publishes: bool) -> Result<String, SdpError> {
    let offer = Description::parse(offer)?;
    let accepted = |media: &Media| media.is_audio && media.opus.is_some();
    let mids: Vec<String> = offer.media.iter().filter(|media| accepted(media)).map(|m| m.mid.clone()).collect();
    let mut sdp = write_head(&mids);
    let mut free = publishes;
    for media in &offer.media {
        let Some(opus) = media.opus.filter(|_| media.is_audio) else {
            let _ = write!(sdp, "m={} 0 {} {}\r\nc=IN IP4 0.0.0.0\r\n", media.kind, media.protocol, media.formats);
            continue;
        };
        let sends = free && media.takes;
        free &= !sends;
        let direction = match (sends, media.sends) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        };
        let _ = write!(sdp, "m=audio 9 UDP/TLS/RTP/SAVPF {opus}\r\n");
        write_transport(&mut sdp, local, if offer.is_active { "passive" } else { "active" });
        let _ = write!(sdp, "a=mid:{}\r\na={direction}\r\na=rtcp-mux\r\na=rtpmap:{opus} opus/48000/2\r\n", media.mid);
        if let Some(id) = media.audio_level {
            let _ = write!(sdp, "a=extmap:{id} {AUDIO_LEVEL_URI}\r\n");
        }
        if sends {
            let _ = write!(sdp, "a=msid:load mic\r\na=ssrc:{} cname:load\r\n", local.ssrc);
        }
    }
    Ok(sdp)
}

/// What an answer to an offer of ours says.
pub fn read_answer(sdp: &str) -> Result<Remote, SdpError> {
    let answer = Description::parse(sdp)?;
    // The role that the answerer takes; a missing one is active (RFC 5763 section 5).
    let we_are_client = answer.is_passive;
    answer.remote(we_are_client)
}

/// What an offer says, for one who answers with [`write_answer`].
pub fn read_offer(sdp: &str) -> Result<Remote, SdpError> {
    let offer = Description::parse(sdp)?;
    let we_are_client = !offer.is_active;
    offer.remote(we_are_client)
}

fn write_head(mids: &[String]) -> String {
    format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n", mids.join(" "))
}

fn write_transport(sdp: &mut String, local: &Local, setup: &str) {
    let hex: Vec<String> = local.fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    let IceCredentials { ufrag, pwd } = &local.ice;
    let _ = write!(
        sdp,
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\na=fingerprint:sha-256 {}\r\na=setup:{setup}\r\n",
        hex.join(":")
    );
}

#[derive(Debug, Default)]
struct Description {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprint: Option<[u8; 32]>,
    has_other_fingerprint: bool,
    is_active: bool,
    is_passive: bool,
    /// (priority, address)
    candidates: Vec<(u32, SocketAddr)>,
    media: Vec<Media>,
}

#[derive(Debug, Default)]
struct Media {
    kind: String,
    protocol: String,
    formats: String,
    is_audio: bool,
    is_rejected: bool,
    mid: String,
    sends: bool,
    takes: bool,
    opus: Option<u8>,
    audio_level: Option<u8>,
    ssrcs: Vec<u32>,
}

impl Description {
    fn parse(sdp: &str) -> Result<Self, SdpError> {
        if sdp.len() > SDP_BYTES_MAX {
            return Err(SdpError::TooLong);
        }
        let mut found = Self::default();
        for line in sdp.lines() {
            if let Some(media) = line.strip_prefix("m=") {
                if found.media.len() == MEDIA_MAX {
                    return Err(SdpError::TooLong);
                }
                found.media.push(Media::begin(media));
            } else if let Some(attribute) = line.strip_prefix("a=") {
                let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
                found.transport_attribute(name, value.trim());
                if let Some(media) = found.media.last_mut() {
                    media.attribute(name, value.trim());
                }
            }
        }
        Ok(found)
    }

    /// The first one counts: with BUNDLE all m-lines say the same.
    fn transport_attribute(&mut self, name: &str, value: &str) {
        match name {
            "ice-ufrag" if self.ufrag.is_none() => self.ufrag = Some(value.to_owned()),
            "ice-pwd" if self.pwd.is_none() => self.pwd = Some(value.to_owned()),
            "fingerprint" if self.fingerprint.is_none() => {
                self.fingerprint = parse_fingerprint(value);
                self.has_other_fingerprint |= self.fingerprint.is_none();
            }
            "setup" => {
                self.is_active |= value == "active";
                self.is_passive |= value == "passive";
            }
            "candidate" => self.candidates.extend(parse_candidate(value)),
            _ => {}
        }
    }

    fn remote(self, we_are_dtls_client: bool) -> Result<Remote, SdpError> {
        let ufrag = self.ufrag.ok_or(SdpError::Missing("ice-ufrag"))?;
        let pwd = self.pwd.ok_or(SdpError::Missing("ice-pwd"))?;
        let fingerprint = match self.fingerprint {
            Some(fingerprint) => fingerprint,
            None if self.has_other_fingerprint => return Err(SdpError::Fingerprint),
            None => return Err(SdpError::Missing("fingerprint")),
        };
        // On loopback other addresses of the same host would work as well, but load stays where it was sent.
        let best = self.candidates.iter().max_by_key(|(priority, at)| (at.ip().is_loopback(), *priority));
        let (_, address) = best.ok_or(SdpError::NoCandidate)?;
        let live = |media: &&Media| media.is_audio && !media.is_rejected;
        let taking = self.media.iter().filter(live).find(|media| media.takes);
        let send =
            taking.and_then(|media| Some(SendFormat { payload_type: media.opus?, audio_level: media.audio_level }));
        let receive_ssrcs =
            self.media.iter().filter(live).filter(|media| media.sends).flat_map(|m| m.ssrcs.iter().copied());
        Ok(Remote {
            address: *address,
            ice: IceCredentials { ufrag, pwd },
            fingerprint,
            we_are_dtls_client,
            send,
            receive_ssrcs: receive_ssrcs.collect(),
        })
    }
}

impl Media {
    fn begin(line: &str) -> Self {
        let mut parts = line.splitn(4, ' ');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (kind, port, protocol, formats) = (next(), next(), next(), next());
        let is_audio = kind == "audio";
        // RFC 3264: without a direction it is sendrecv.
        let directions = (true, true);
        Self {
            kind,
            protocol,
            formats,
            is_audio,
            is_rejected: port == "0",
            sends: directions.0,
            takes: directions.1,
            ..Self::default()
        }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        match name {
            "mid" => value.clone_into(&mut self.mid),
            "sendrecv" => (self.sends, self.takes) = (true, true),
            "sendonly" => (self.sends, self.takes) = (true, false),
            "recvonly" => (self.sends, self.takes) = (false, true),
            "inactive" => (self.sends, self.takes) = (false, false),
            "rtpmap" if self.opus.is_none() => {
                let opus = value.split_once(' ').filter(|(_, codec)| codec.to_ascii_lowercase().starts_with("opus/"));
                self.opus = opus.and_then(|(number, _)| number.parse().ok());
            }
            "extmap" => {
                if let Some((id, uri)) = value.split_once(' ')
                    && uri.split(' ').next() == Some(AUDIO_LEVEL_URI)
                {
                    self.audio_level = id.split('/').next().and_then(|id| id.parse().ok());
                }
            }
            "ssrc" => {
                if let Some(ssrc) = value.split(' ').next().and_then(|ssrc| ssrc.parse().ok())
                    && !self.ssrcs.contains(&ssrc)
                {
                    self.ssrcs.push(ssrc);
                }
            }
            _ => {}
        }
    }
}

fn parse_fingerprint(value: &str) -> Option<[u8; 32]> {
    let (algorithm, hex) = value.split_once(' ')?;
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    fingerprint_bytes(hex)
}

/// Of hex pairs with colons (RFC 8122).
pub(crate) fn fingerprint_bytes(hex: &str) -> Option<[u8; 32]> {
    let bytes: Vec<u8> = hex.split(':').map(|pair| u8::from_str_radix(pair, 16).ok()).collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// `foundation component udp priority address port typ ...` (RFC 8839 section 5.1).
fn parse_candidate(value: &str) -> Option<(u32, SocketAddr)> {
    let mut parts = value.split_ascii_whitespace().skip(1);
    let (component, protocol) = (parts.next()?, parts.next()?);
    let priority = parts.next()?.parse().ok()?;
    let address: IpAddr = parts.next()?.parse().ok()?;
    let port = parts.next()?.parse().ok()?;
    (component == "1" && protocol.eq_ignore_ascii_case("udp")).then_some((priority, SocketAddr::new(address, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Local {
        let ice = IceCredentials { ufrag: "ours".into(), pwd: "p".repeat(24) };
        Local { ice, fingerprint: [0xAB; 32], ssrc: 77 }
    }

    const NODE: &str = include_str!("../../signaling/fixtures/sdp/answers/str0m-speaker.sdp");

    #[test]
    fn an_answer_of_our_signalling_is_read() {
        let remote = read_answer(NODE).expect("reads");
        assert_eq!(remote.address, "192.0.2.10:40000".parse().expect("an address"));
        assert_eq!(remote.ice.ufrag, "nodeufrag");
        assert_eq!(remote.fingerprint, [0xAB; 32]);
        assert!(remote.we_are_dtls_client);
        assert_eq!(remote.send, Some(SendFormat { payload_type: 111, audio_level: Some(1) }));
        assert!(!remote.receive_ssrcs.is_empty() && remote.receive_ssrcs[0] == 1000);
    }

    #[test]
    fn our_own_offer_and_answer_understand_each_other() {
        let offer = write_offer(&local(), true, 2) + "a=candidate:1 1 udp 5 127.0.0.1 9 typ host\r\n";
        let offered = read_offer(&offer).expect("reads");
        assert_eq!((offered.receive_ssrcs.as_slice(), offered.we_are_dtls_client), (&[77][..], true));
        let answer = write_answer(&local(), &offer, true).expect("answers");
        assert!(answer.contains("a=mid:0\r\na=recvonly") && answer.contains("a=mid:1\r\na=sendonly"), "{answer}");
        assert!(answer.contains("a=mid:2\r\na=inactive") && answer.contains("a=setup:active"), "{answer}");
        let answer = answer + "a=candidate:1 1 udp 5 127.0.0.1 9 typ host\r\n";
        let remote = read_answer(&answer).expect("reads");
        assert!(!remote.we_are_dtls_client && remote.send.is_some());
    }

    #[test]
    fn what_is_not_opus_is_rejected() {
        let offer = write_offer(&local(), true, 0) + "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:v\r\n";
        let answer = write_answer(&local(), &offer, false).expect("answers");
        assert!(answer.contains("m=video 0 UDP/TLS/RTP/SAVPF 96\r\n") && answer.contains("BUNDLE 0\r\n"), "{answer}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = |line: &str| {
            let text: Vec<&str> = NODE.lines().filter(|l| !l.starts_with(line)).collect();
            read_answer(&text.join("\n")).expect_err("refused")
        };
        assert_eq!(without("a=ice-pwd"), SdpError::Missing("ice-pwd"));
        assert_eq!(without("a=fingerprint"), SdpError::Missing("fingerprint"));
        assert_eq!(without("a=candidate"), SdpError::NoCandidate);
    }

    #[test]
    fn no_text_makes_it_panic() {
        let line =
            "(a=|m=|c=|)(ssrc:|candidate:|fingerprint:sha-256 |extmap:|rtpmap:|setup:|audio |mid:)?[ -~]{0,40}";
        proptest::proptest!(|(lines in proptest::collection::vec(line, 0..12))| {
            let text = lines.join("\r\n");
            let _ = read_answer(&text);
            let _ = read_offer(&text);
            let _ = write_answer(&local(), &text, true);
        });
    }
}
