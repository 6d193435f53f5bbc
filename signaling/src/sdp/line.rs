//! One m-line of an offer with the attributes that matter here (RFC 8866), found wherever in the section they stand.

use sdp_types::{Media, Session};

use super::{SdpError, URI_AUDIO_LEVEL, URI_MID};

/// A mid must fit a one-byte header extension (RFC 8285 section 4.2).
const MID_BYTES_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) send: bool,
    pub(super) receive: bool,
}

/// An m-line as it was offered.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) media: &'a Media,
    pub(super) mid: Option<&'a str>,
    pub(super) direction: Direction,
    pub(super) opus: Option<u8>,
    pub(super) opus_format: &'a str,
    pub(super) red: Option<u8>,
    /// Generic NACK (RFC 4585 section 4.2).
    pub(super) nack: bool,
    pub(super) audio_level: Option<u8>,
    pub(super) mid_extension: Option<u8>,
    pub(super) ssrc: Option<u32>,
}

impl<'a> Line<'a> {
    pub(super) fn read(media: &'a Media, session: &'a Session) -> Result<Self, SdpError> {
        let mid = attribute(media, "mid");
        if mid.is_some_and(|mid| mid.is_empty() || mid.len() > MID_BYTES_MAX || !mid.bytes().all(is_token_byte)) {
            return Err(SdpError::Malformed(format!("mid is not a token of at most {MID_BYTES_MAX} bytes")));
        }
        let opus = payload_types(media).find(|&pt| codec_is(media, pt, "opus/48000/2"));
        let red = opus.and_then(|opus| red_over(media, opus));
        Ok(Self {
            media,
            mid,
            direction: direction(media, session),
            opus,
            opus_format: opus.and_then(|opus| format_parameters(media, opus)).unwrap_or(""),
            red,
            nack: opus.is_some_and(|opus| may_ask_again(media, opus)),
            audio_level: extension(media, URI_AUDIO_LEVEL),
            mid_extension: extension(media, URI_MID),
            ssrc: attribute(media, "ssrc").and_then(|ssrc| ssrc.split(' ').next()?.parse().ok()),
        })
    }

    pub(super) fn is_offered_audio(&self) -> bool {
        // Port 0 disables an m-line, unless it only says that it lives in a bundle (RFC 9143 section 6).
        self.media.media == "audio"
            && self.media.proto.ends_with("TLS/RTP/SAVPF")
            && (self.media.port != 0 || attribute(self.media, "bundle-only").is_some())
    }

    pub(super) fn has_rtcp_mux(&self) -> bool {
        attribute(self.media, "rtcp-mux").is_some()
    }

    pub(super) fn is_servable(&self) -> bool {
        self.is_offered_audio() && self.opus.is_some() && self.has_rtcp_mux()
    }

    pub(super) fn has_parameter(&self, parameter: &str) -> bool {
        self.opus_format.split(';').any(|given| given.trim() == parameter)
    }
}

pub(super) fn attributes<'a>(media: &'a Media, name: &'a str) -> impl Iterator<Item = &'a str> {
    let found = media.attributes.iter().filter(move |attribute| attribute.attribute == name);
    found.map(|attribute| attribute.value.as_deref().unwrap_or(""))
}

fn attribute<'a>(media: &'a Media, name: &'a str) -> Option<&'a str> {
    attributes(media, name).next()
}

fn direction(media: &Media, session: &Session) -> Direction {
    let named = |name: &str| match name {
        "sendrecv" => Some(Direction { send: true, receive: true }),
        "sendonly" => Some(Direction { send: true, receive: false }),
        "recvonly" => Some(Direction { send: false, receive: true }),
        "inactive" => Some(Direction { send: false, receive: false }),
        _ => None,
    };
    let all = media.attributes.iter().chain(&session.attributes);
    let mut directions = all.filter_map(|attribute| named(&attribute.attribute));
    directions.next().unwrap_or(Direction { send: true, receive: true })
}

fn payload_types(media: &Media) -> impl Iterator<Item = u8> {
    media.fmt.split(' ').filter_map(|format| format.parse().ok()).filter(|&pt| pt <= 127)
}

fn codec_is(media: &Media, payload_type: u8, codec: &str) -> bool {
    attributes(media, "rtpmap").any(|map| {
        map.split_once(' ')
            .is_some_and(|(pt, name)| pt.parse() == Ok(payload_type) && name.trim_end().eq_ignore_ascii_case(codec))
    })
}

fn format_parameters(media: &Media, payload_type: u8) -> Option<&str> {
    attributes(media, "fmtp").find_map(|format| {
        let (pt, parameters) = format.split_once(' ')?;
        (pt.parse() == Ok(payload_type)).then_some(parameters)
    })
}

/// RED (RFC 2198) whose every block is this Opus: `a=fmtp:63 111/111`.
fn red_over(media: &Media, opus: u8) -> Option<u8> {
    let is_over_opus = |pt: &u8| {
        format_parameters(media, *pt).is_some_and(|blocks| blocks.trim().split('/').all(|pt| pt.parse() == Ok(opus)))
    };
    payload_types(media).filter(|&pt| codec_is(media, pt, "red/48000/2")).find(is_over_opus)
}

/// `a=rtcp-fb:111 nack` or `a=rtcp-fb:* nack`, with nothing behind it.
fn may_ask_again(media: &Media, opus: u8) -> bool {
    attributes(media, "rtcp-fb").any(|feedback| {
        let mut words = feedback.split_ascii_whitespace();
        let is_ours = words.next().is_some_and(|pt| pt == "*" || pt.parse() == Ok(opus));
        is_ours && words.next() == Some("nack") && words.next().is_none()
    })
}

/// One-byte header extension id (RFC 8285): 1 to 14.
fn extension(media: &Media, uri: &str) -> Option<u8> {
    attributes(media, "extmap").find_map(|map| {
        let mut words = map.split_ascii_whitespace();
        let (id, named) = (words.next()?, words.next()?);
        let id = id.split('/').next()?.parse().ok().filter(|id| (1..=14).contains(id))?;
        (named == uri).then_some(id)
    })
}

/// RFC 8866 section 9.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !br#""(),/:;<=>?@[\]"#.contains(&byte)
}
