//! ICE servers of the desktop's own environment: `STUN_SERVER` and `TURN_SERVER`, which container images set for every
//! WebRTC program. They are used beside those that signalling names.

use signaling_protocol::IceServer;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum IceServerError {
    #[error("STUN_SERVER is HOST[:PORT] or stun:HOST[:PORT]")]
    Stun,
    #[error("TURN_SERVER is turn://USER:PASSWORD@HOST[:PORT][?transport=udp|tcp] or turns://..")]
    Turn,
}

/// `host`, `host:port`, `stun:host:port`, `stun://host:port`.
pub fn stun(text: &str) -> Result<IceServer, IceServerError> {
    let rest = text.strip_prefix("stun:").unwrap_or(text);
    let authority = rest.strip_prefix("//").unwrap_or(rest);
    if !is_authority(authority) {
        return Err(IceServerError::Stun);
    }
    Ok(IceServer { urls: vec![format!("stun:{authority}")], username: None, credential: None })
}

/// As GStreamer and many images write it; user and password may be percent-encoded.
pub fn turn(text: &str) -> Result<IceServer, IceServerError> {
    let (scheme, rest) = text.split_once("://").ok_or(IceServerError::Turn)?;
    if scheme != "turn" && scheme != "turns" {
        return Err(IceServerError::Turn);
    }
    let (user, place) = rest.rsplit_once('@').ok_or(IceServerError::Turn)?;
    let (name, password) = user.split_once(':').ok_or(IceServerError::Turn)?;
    let (authority, query) = place.split_once('?').unwrap_or((place, ""));
    let known = query.is_empty() || query == "transport=udp" || query == "transport=tcp";
    if !is_authority(authority) || !known {
        return Err(IceServerError::Turn);
    }
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    Ok(IceServer {
        urls: vec![format!("{scheme}:{authority}{query}")],
        username: Some(decoded(name).ok_or(IceServerError::Turn)?),
        credential: Some(decoded(password).ok_or(IceServerError::Turn)?),
    })
}

/// A host name or address with or without a port.
fn is_authority(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let port = text.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    !text.is_empty()
        && text.chars().all(fits)
        && port.is_none_or(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.first_chunk::<2>()?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_notations_are_understood() {
        for text in ["stun.example.org:3478", "stun:stun.example.org:3478", "stun://stun.example.org:3478"] {
            assert_eq!(stun(text).map(|server| server.urls), Ok(vec!["stun:stun.example.org:3478".to_owned()]));
        }
        let server = turn("turn://1700000000%3Aalice:p%40ss@[2001:db8::1]:3478?transport=tcp").expect("valid");
        assert_eq!(server.urls, ["turn:[2001:db8::1]:3478?transport=tcp"]);
        assert_eq!(server.username.as_deref(), Some("1700000000:alice"));
        assert_eq!(server.credential.as_deref(), Some("p@ss"));
    }

    #[test]
    fn mistakes_are_refused() {
        for text in ["", "stun:", "a b", "host:port", "http://x"] {
            assert_eq!(stun(text), Err(IceServerError::Stun), "{text}");
        }
        for text in ["turn:host:3478", "turn://host", "turn://user@host", "turn://u:p@host?x=1", "turn://u:%zz@host"]
        {
            assert_eq!(turn(text), Err(IceServerError::Turn), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_safe(text in ".{0,60}") {
            let _ = stun(&text);
            let _ = turn(&format!("turn://{text}"));
        }
    }
}
