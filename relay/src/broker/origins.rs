//! Which pages may read an answer (CORS). A page that is not listed gets no header and its browser keeps the answer from
//! it; programs send no `Origin` and are held back by their key alone.

use axum::http::HeaderValue;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origins(Vec<String>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin: write it as https://host or https://host:port")]
pub struct BadOrigin(String);

impl Origins {
    pub(crate) fn parse(origins: &[String]) -> Result<Self, BadOrigin> {
        let checked = origins.iter().map(|origin| canonical(origin).ok_or_else(|| BadOrigin(origin.clone())));
        checked.collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn allow(&self, origin: &HeaderValue) -> bool {
        origin.to_str().ok().and_then(canonical).is_some_and(|origin| self.0.contains(&origin))
    }
}

/// Scheme, host and port as the browsers write them; `None` for `null` and whatever is not http.
fn canonical(origin: &str) -> Option<String> {
    let url = url::Url::parse(origin).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    bare.then(|| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_pages_are_allowed() {
        let origins = Origins::parse(&["https://Desk.example".into(), "http://127.0.0.1:5173".into()]).unwrap();
        for (origin, allowed) in [
            ("https://desk.example", true),
            ("https://desk.example:443", true),
            ("http://127.0.0.1:5173", true),
            ("http://desk.example", false),
            ("https://desk.example:8443", false),
            ("https://desk.example.evil.example", false),
            ("https://desk.example@evil.example", false),
            ("null", false),
        ] {
            assert_eq!(origins.allow(&HeaderValue::from_static(origin)), allowed, "{origin}");
        }
        assert!(!Origins::default().allow(&HeaderValue::from_static("https://desk.example")));
        for bad in ["*", "desk.example", "ftp://desk.example", "https://desk.example/page"] {
            assert_eq!(Origins::parse(&[bad.into()]), Err(BadOrigin(bad.into())));
        }
    }
}
