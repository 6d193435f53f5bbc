//! Which pages may open a WebSocket. Browsers always send `Origin` and a page cannot change it; whoever sends none is
//! not a browser and is held back by its token alone.

use axum::http::{HeaderMap, header};

/// The list of further origins, as `https://host[:port]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<String>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin: write it as https://host or https://host:port")]
pub struct BadOrigin(String);

impl AllowedOrigins {
    pub fn parse(origins: &[String]) -> Result<Self, BadOrigin> {
        origins
            .iter()
            .map(|origin| canonical(origin).ok_or_else(|| BadOrigin(origin.clone())))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub fn allow(&self, headers: &HeaderMap) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        let Some(origin) = origin.to_str().ok().and_then(canonical) else { return false };
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let same_host = host.is_some_and(|host| {
            ["http", "https"]
                .into_iter()
                .any(|scheme| canonical(&format!("{scheme}://{host}")).as_ref() == Some(&origin))
        });
        same_host || self.0.contains(&origin)
    }
}

/// Scheme, host and port as the browsers write them; `None` for `null` and whatever is not http.
fn canonical(origin: &str) -> Option<String> {
    let url = url::Url::parse(origin).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    (url.path() == "/" && url.query().is_none() && url.username().is_empty())
        .then(|| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(host: &str, origin: Option<&str>) -> bool {
        let list = AllowedOrigins::parse(&["https://Desk.example".into(), "http://127.0.0.1:5173".into()]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        list.allow(&headers)
    }

    #[test]
    fn own_page_listed_pages_and_programs_may_connect() {
        assert!(allowed("call.example:8443", None));
        assert!(allowed("call.example:8443", Some("https://call.example:8443")));
        assert!(allowed("call.example", Some("https://call.example")));
        assert!(allowed("call.example:443", Some("https://call.example")));
        assert!(allowed("call.example", Some("https://desk.example")));
        assert!(allowed("[::1]:8080", Some("http://[::1]:8080")));
        assert!(allowed("x", Some("http://127.0.0.1:5173")));
    }

    #[test]
    fn other_pages_may_not() {
        for origin in [
            "https://evil.example",
            "https://call.example.evil.example",
            "https://call.example:8444",
            "https://desk.example:8443",
            "null",
            "file://",
            "https://call.example/path",
            "https://call.example@evil.example",
        ] {
            assert!(!allowed("call.example", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn list_is_checked() {
        for bad in ["desk.example", "*", "ftp://desk.example", "https://desk.example/page"] {
            assert_eq!(AllowedOrigins::parse(&[bad.into()]), Err(BadOrigin(bad.into())));
        }
    }
}
