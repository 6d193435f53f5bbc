//! What a WHIP server's answer means (RFC 9725): a session, another place to ask, or a refusal in words that help. Pure; it
//! asks nobody anything.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, DATE, LINK, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use signaling_protocol::IceServer;
use url::Url;

use super::http::Reply;

/// More is no list of servers.
const ICE_SERVERS_MAX: usize = 8;
/// Of what the server says about a refusal.
const DETAIL_CHARS_MAX: usize = 160;
/// Shorter parts of a URL are words such as `whip` and no secrets.
const HIDDEN_BYTES_MIN: usize = 8;
/// What a server may ask us to wait; after more than that it may be another server.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// An answer to an offer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    Created(Created),
    /// Ask there, with the same method (307, 308).
    Elsewhere(Url),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Created {
    /// The answer's SDP.
    pub answer: String,
    /// Where the session is ended; a server that names none ends it by itself.
    pub session: Option<Url>,
    pub ice_servers: Vec<IceServer>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("server refused ({status}{}): {hint}", detail.as_ref().map_or_else(String::new, |text| format!(", {text:?}")))]
    Status { status: u16, hint: &'static str, detail: Option<String>, retry_after: Option<Duration> },
    #[error("server's answer is not SDP: this is no WHIP endpoint, check the URL")]
    NotSdp,
    #[error("server sends us to a place that is no web address")]
    BadLocation,
    #[error("server sends us from https to http, where the token could be read on the way")]
    Downgrade,
}

impl Refusal {
    /// Whether asking again soon is of no use: something must be changed first.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Status { status, .. } => (300..500).contains(status) && !matches!(status, 408 | 409 | 425 | 429),
            Self::NotSdp | Self::BadLocation | Self::Downgrade => true,
        }
    }

    /// Without the server's own words.
    fn unquoted(mut self) -> Self {
        if let Self::Status { detail, .. } = &mut self {
            *detail = None;
        }
        self
    }

    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::NotSdp | Self::BadLocation | Self::Downgrade => None,
        }
    }
}

/// Reads the answer to an offer that went to `asked`. Its words are not quoted where one of `secrets` or what was asked is
/// among them: quotes are written into logs, and there are servers that repeat what they were asked.
pub(super) fn read(reply: Reply, asked: &Url, secrets: &[&str]) -> Result<Verdict, Refusal> {
    let words = reply.body.replace("\\/", "/");
    let asked_for = asked.path_segments().into_iter().flatten().chain(asked.query());
    let is_told =
        asked_for.chain(secrets.iter().copied()).any(|it| it.len() >= HIDDEN_BYTES_MIN && words.contains(it));
    verdict(reply, asked).map_err(|refusal| if is_told { refusal.unquoted() } else { refusal })
}

fn verdict(reply: Reply, asked: &Url) -> Result<Verdict, Refusal> {
    match reply.status {
        // The standard says 201; there are servers that say 200 and mean the same.
        StatusCode::CREATED | StatusCode::OK => {
            if !is_sdp(&reply) {
                return Err(Refusal::NotSdp);
            }
            // Where that is no good address the session cannot be ended, and is there all the same.
            let session = place(&reply.headers, asked).and_then(Result::ok);
            Ok(Verdict::Created(Created { ice_servers: ice_servers(&reply.headers), answer: reply.body, session }))
        }
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {
            place(&reply.headers, asked).unwrap_or(Err(Refusal::BadLocation)).map(Verdict::Elsewhere)
        }
        status => Err(Refusal::Status {
            status: status.as_u16(),
            hint: hint(status),
            detail: detail(&reply.body),
            retry_after: retry_after(&reply.headers),
        }),
    }
}

fn is_sdp(reply: &Reply) -> bool {
    let kind = reply.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/sdp"))
        && reply.body.starts_with("v=0")
}

fn place(headers: &HeaderMap, asked: &Url) -> Option<Result<Url, Refusal>> {
    let text = headers.get(LOCATION)?.to_str().ok();
    let url = text.and_then(|text| asked.join(text).ok()).filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    Some(match url {
        None => Err(Refusal::BadLocation),
        Some(url) if asked.scheme() == "https" && url.scheme() != "https" => Err(Refusal::Downgrade),
        Some(url) => Ok(url),
    })
}

fn hint(status: StatusCode) -> &'static str {
    match status.as_u16() {
        301..=303 => "a redirect that turns an offer into a question is not followed; use the URL that it names",
        300..=399 => "no redirect that this method allows; use the server's own URL",
        400 => "the server does not understand the offer",
        401 => "the token is missing, wrong or expired; give it as BRIDGE_TOKEN, --token-file or --token",
        402 | 403 => "the token is known and may not publish here",
        404 | 410 => "nothing is there; check the URL",
        405 => "nobody publishes at this URL; a WHIP endpoint takes POST, check the URL",
        406 => "the server takes nothing of the offer: one Opus stream",
        409 => "somebody publishes there already",
        415 => "the server takes no application/sdp; this is no WHIP endpoint, check the URL",
        422 => "the server cannot use the media of the offer: one Opus stream",
        429 | 503 => "the server is busy",
        500..=599 => "the server failed",
        _ => "this is no answer to an offer; check the URL",
    }
}

/// The first words of the body, fit for one line of a log.
fn detail(body: &str) -> Option<String> {
    let line = body.trim_start().lines().next().unwrap_or_default();
    let is_page = line.starts_with('<');
    let text: String = line.chars().filter(|c| !c.is_control()).take(DETAIL_CHARS_MAX).collect();
    (!is_page && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// Seconds, or a date, which is read by the server's own clock (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(RETRY_AFTER)?;
    let wait = match asked.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = |text| httpdate::parse_http_date(text).ok();
            date(asked)?.duration_since(date(text(DATE)?)?).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The servers of `Link` headers: `<turn:host>; rel="ice-server"; username="u"; credential="p"; credential-type="password"`.
pub(super) fn ice_servers(headers: &HeaderMap) -> Vec<IceServer> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(links).filter_map(ice_server).take(ICE_SERVERS_MAX).collect()
}

/// The links of one header line: split at commas outside of angle brackets and quotes.
fn links(line: &str) -> Vec<&str> {
    split(line, ',')
}

fn ice_server(link: &str) -> Option<IceServer> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let parameters: Vec<(String, String)> = split(parameters, ';').into_iter().filter_map(parameter).collect();
    let value = |name: &str| parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    let is_server = value("rel")?.split_ascii_whitespace().any(|rel| rel.eq_ignore_ascii_case("ice-server"));
    let is_known = ["stun:", "stuns:", "turn:", "turns:"].iter().any(|scheme| target.starts_with(scheme));
    (is_server && is_known).then(|| IceServer {
        urls: vec![target.to_owned()],
        username: value("username"),
        credential: value("credential"),
    })
}

fn parameter(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let value = value.trim();
    let value = match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => unescaped(quoted),
        None => value.to_owned(),
    };
    Some((name.trim().to_ascii_lowercase(), value))
}

/// Of a quoted string (RFC 9110 section 5.6.4).
fn unescaped(quoted: &str) -> String {
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut start, mut in_quotes, mut in_brackets, mut escaped) = (Vec::new(), 0, false, false, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' if !in_brackets => in_quotes = !in_quotes,
            '<' if !in_quotes => in_brackets = true,
            '>' if !in_quotes => in_brackets = false,
            c if c == at && !in_quotes && !in_brackets => {
                parts.push(&text[start..i]);
                start = i + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn asked() -> Url {
        Url::parse("https://live.example.org/whip/stream").expect("a URL")
    }

    fn reply(status: u16, headers: &[(&'static str, &str)], body: &str) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        Reply { status: StatusCode::from_u16(status).expect("a status"), headers: map, body: body.to_owned() }
    }

    fn refused(status: u16, headers: &[(&'static str, &str)], body: &str) -> Refusal {
        read(reply(status, headers, body), &asked(), &[]).expect_err("refused")
    }

    #[test]
    fn a_session_is_where_the_server_says_relative_or_whole() {
        for (location, session) in [
            ("/session/1", "https://live.example.org/session/1"),
            ("stream/1", "https://live.example.org/whip/stream/1"),
            ("https://edge.example.org:444/s?k=1", "https://edge.example.org:444/s?k=1"),
        ] {
            let headers = [("content-type", "application/sdp"), ("location", location), ("etag", "\"x\"")];
            let Ok(Verdict::Created(created)) = read(reply(201, &headers, "v=0\r\n"), &asked(), &[]) else {
                panic!()
            };
            assert_eq!(created.session.map(String::from).as_deref(), Some(session));
        }
        let created =
            read(reply(200, &[("content-type", "Application/SDP; charset=utf-8")], "v=0\r\n"), &asked(), &[]);
        assert!(matches!(created, Ok(Verdict::Created(Created { session: None, .. }))), "{created:?}");
    }

    #[test]
    fn ice_servers_come_in_links() {
        let headers = [
            ("content-type", "application/sdp"),
            ("link", "<stun:stun.example.org>; rel=ice-server, <https://x/,y>; rel=\"ice-server\""),
            (
                "link",
                "<turn:turn.example.org?transport=udp>; rel=\"ice-server\"; username=\"a,b;c\"; \
                 credential=\"p\\\"q\"; credential-type=\"password\"",
            ),
            ("link", "<turn:not.this>; rel=\"extension\""),
        ];
        let Ok(Verdict::Created(created)) = read(reply(201, &headers, "v=0\r\n"), &asked(), &[]) else { panic!() };
        let urls: Vec<_> = created.ice_servers.iter().map(|server| server.urls[0].as_str()).collect();
        assert_eq!(urls, ["stun:stun.example.org", "turn:turn.example.org?transport=udp"]);
        assert_eq!(created.ice_servers[1].username.as_deref(), Some("a,b;c"));
        assert_eq!(created.ice_servers[1].credential.as_deref(), Some("p\"q"));
    }

    #[test]
    fn redirects_keep_the_method_and_never_leave_encryption() {
        for status in [307, 308] {
            let verdict = read(reply(status, &[("location", "https://two.example.org/w")], ""), &asked(), &[]);
            assert_eq!(verdict, Ok(Verdict::Elsewhere(Url::parse("https://two.example.org/w").expect("a URL"))));
        }
        assert_eq!(refused(307, &[("location", "http://two.example.org/w")], ""), Refusal::Downgrade);
        assert_eq!(refused(307, &[], ""), Refusal::BadLocation);
        for location in ["file:///etc/passwd", "https://", "https://me:secret@host/", "https://[::"] {
            assert_eq!(refused(308, &[("location", location)], ""), Refusal::BadLocation, "{location}");
        }
        let see_other = refused(303, &[("location", "/other")], "");
        assert!(see_other.to_string().contains("redirect") && see_other.is_lasting());
    }

    #[test]
    fn each_refusal_has_a_hint_and_its_time() {
        for (status, word, lasting) in [
            (401, "token", true),
            (403, "may not", true),
            (404, "URL", true),
            (405, "POST", true),
            (406, "Opus", true),
            (409, "already", false),
            (415, "application/sdp", true),
            (503, "busy", false),
            (500, "failed", false),
        ] {
            let refusal = refused(status, &[("retry-after", "7")], "no\r\nmore");
            let text = refusal.to_string();
            assert!(text.contains(word) && text.contains(&status.to_string()) && text.contains("\"no\""), "{text}");
            assert_eq!((refusal.is_lasting(), refusal.retry_after()), (lasting, Some(Duration::from_secs(7))));
        }
        assert_eq!(refused(503, &[("retry-after", "99999999999")], "").retry_after(), Some(RETRY_AFTER_MAX));
        let date = "Fri, 31 Dec 1999 23:59:59 GMT";
        for (now, wait) in [("Fri, 31 Dec 1999 23:59:50 GMT", 9), ("Sat, 01 Jan 2000 00:00:00 GMT", 0)] {
            let told = refused(503, &[("retry-after", date), ("date", now)], "").retry_after();
            assert_eq!(told, Some(Duration::from_secs(wait)));
        }
        for odd in ["-1", date, ""] {
            assert_eq!(refused(503, &[("retry-after", odd)], "").retry_after(), None);
        }
    }

    #[test]
    fn what_is_hidden_is_not_repeated_in_the_servers_words() {
        let asked = Url::parse("https://live.example.org/whip/k3y-of-ada?part=kitchen").expect("a URL");
        let words = |body: &str| {
            read(reply(404, &[], body), &asked, &["", "bearer-of-ada"]).expect_err("refused").to_string()
        };
        assert!(words("no stream behind /whip").contains("no stream"));
        for told in ["POST:/whip/k3y-of-ada", "\\/k3y-of-ada", "?part=kitchen", "bearer-of-ada"] {
            assert!(!words(&format!("Route {told} not found")).contains("Route"), "{told}");
            assert!(!words(&format!("Route{:200}{told}", "")).contains("Route"), "{told}");
        }
    }

    #[test]
    fn a_web_page_is_no_answer_and_not_quoted() {
        assert_eq!(refused(200, &[("content-type", "text/html")], "<html>"), Refusal::NotSdp);
        assert_eq!(refused(201, &[("content-type", "application/sdp")], "<html>"), Refusal::NotSdp);
        assert!(!refused(404, &[], "<!doctype html><h1>Nothing</h1>").to_string().contains("doctype"));
        let long = refused(500, &[], &"\u{1b}[31mx".repeat(1000)).to_string();
        assert!(long.len() < 400 && !long.contains('\u{1b}'), "{long}");
    }

    proptest! {
        #[test]
        fn any_answer_is_safe(
            status in 200_u16..600, location in "[ -~]{0,40}", link in "[ -~]{0,60}", retry in "[ -~]{0,12}", body in ".{0,80}",
        ) {
            let headers =
                [("location", location.as_str()), ("link", &link), ("retry-after", &retry), ("content-type", "application/sdp")];
            match read(reply(status, &headers, &body), &asked(), &[]) {
                Ok(Verdict::Elsewhere(url)) => prop_assert_eq!(url.scheme(), "https"),
                Ok(Verdict::Created(created)) => prop_assert!(created.session.is_none_or(|url| url.scheme() == "https")),
                Err(refusal) => prop_assert!(refusal.to_string().len() < 2000),
            }
        }

        #[test]
        fn any_link_is_safe(link in "[<>;,=\"\\\\ a-z:-]{0,60}") {
            let headers = reply(200, &[("link", &link)], "").headers;
            prop_assert!(ice_servers(&headers).len() <= ICE_SERVERS_MAX);
        }
    }
}
