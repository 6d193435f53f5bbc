//! What the bridge says about its own offer: the use of each m-line, and speech slots without the stereo parameters that
//! the library repeats on every m-line. Reads and edits our own SDP only; answers are read by the media library.

use signaling_protocol::{MediaRole, MediaUse};

/// Asks the other end for stereo and says that ours is (RFC 7587 section 6.1); program sound only.
const STEREO: &str = ";stereo=1;sprop-stereo=1";

/// The use of each audio m-line: what we send is program sound, what we receive are voices.
#[must_use]
pub fn media_uses(sdp: &str) -> Vec<MediaUse> {
    sections(sdp)
        .filter_map(|section| {
            let mid = section.lines().find_map(|line| line.trim_end().strip_prefix("a=mid:"))?;
            let use_ = if sends(section) { MediaRole::Program } else { MediaRole::SpeechSlot };
            Some(MediaUse { mid: mid.to_owned(), use_ })
        })
        .collect()
}

/// The offer for the wire: voices are asked for in mono.
#[must_use]
pub fn with_mono_speech(sdp: &str) -> String {
    let head = sdp.find("m=").map_or(sdp, |at| &sdp[..at]);
    let mut text = head.to_owned();
    for section in sections(sdp) {
        if sends(section) {
            text.push_str(section);
        } else {
            text.push_str(&section.replace(STEREO, ""));
        }
    }
    text
}

/// The offer as RFC 9725 section 4.4.1 wants it: each m-section says that it has no life outside of the bundle, and no port of
/// its own for RTCP.
#[must_use]
pub fn for_ingest(sdp: &str) -> String {
    sdp.replace("a=rtcp-mux\r\n", "a=rtcp-mux\r\na=rtcp-mux-only\r\na=bundle-only\r\n")
}

/// Whether an answer takes redundancy under this payload type.
#[must_use]
pub fn has_red(answer: &str, payload_type: u8) -> bool {
    let line = format!("a=rtpmap:{payload_type} red/48000/2");
    answer.lines().any(|found| found.trim_end() == line)
}

fn sends(section: &str) -> bool {
    section.lines().any(|line| matches!(line.trim_end(), "a=sendonly" | "a=sendrecv"))
}

/// The m-sections, each with its line ends.
fn sections(sdp: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = sdp.match_indices("m=").map(|(at, _)| at).filter(|&at| starts_line(sdp, at)).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([sdp.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| &sdp[start..end])
}

fn starts_line(sdp: &str, at: usize) -> bool {
    at == 0 || sdp.as_bytes()[at - 1] == b'\n'
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\ns=-\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=fmtp:111 minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1\r\na=sendonly\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=fmtp:111 minptime=10;useinbandfec=1;stereo=1;sprop-stereo=1\r\na=recvonly\r\n";

    #[test]
    fn what_we_send_is_program_and_the_rest_are_voices() {
        let uses: Vec<(String, MediaRole)> =
            media_uses(OFFER).into_iter().map(|media| (media.mid, media.use_)).collect();
        assert_eq!(uses, [("0".to_owned(), MediaRole::Program), ("1".to_owned(), MediaRole::SpeechSlot)]);
    }

    #[test]
    fn an_ingest_is_bundled_and_muxed_only() {
        let text = for_ingest("m=audio 9 X 1\r\na=mid:0\r\na=rtcp-mux\r\na=rtcp-mux-x\r\na=sendonly\r\n");
        let added = "a=rtcp-mux\r\na=rtcp-mux-only\r\na=bundle-only\r\na=rtcp-mux-x\r\n";
        assert_eq!(text, format!("m=audio 9 X 1\r\na=mid:0\r\n{added}a=sendonly\r\n"));
    }

    #[test]
    fn redundancy_needs_its_line_in_the_answer() {
        assert!(has_red("v=0\r\na=rtpmap:111 opus/48000/2\r\na=rtpmap:63 red/48000/2\r\n", 63));
        assert!(!has_red("v=0\r\na=rtpmap:63 red/48000/2\r\n", 64));
        assert!(!has_red("v=0\r\na=rtpmap:111 opus/48000/2\r\n", 63));
    }

    #[test]
    fn only_program_sound_is_stereo() {
        let text = with_mono_speech(OFFER);
        assert_eq!(text.matches("stereo=1").count(), 2, "{text}");
        assert!(text.find("stereo=1") < text.find("a=mid:1"));
        assert!(text.starts_with("v=0\r\ns=-\r\nm=audio"));
        assert!(text.ends_with("a=fmtp:111 minptime=10;useinbandfec=1\r\na=recvonly\r\n"));
    }
}
