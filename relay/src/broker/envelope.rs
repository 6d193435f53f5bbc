//! One credential in the forms that clients know: the RTCConfiguration of a page, the list of RTCIceServer alone, the
//! answer of the TURN REST draft, that of AppRTC's iceconfig, and the Link headers of WHIP (RFC 9725 section 4.6). All are
//! written from one [`Offer`]; none changes the operator's document.

use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::literal::Literal;
use super::mint::Credential;

/// How `urls` of minted entries is written: some clients (GStreamer's among them) read one URL only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UrlsForm {
    #[default]
    List,
    /// An entry for each URL.
    String,
}

/// The operator's own RTCConfiguration: its `iceServers` come first, its other keys are handed through.
#[derive(Clone, Debug)]
pub struct Document(Literal);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDocument {
    #[error("it is not a dictionary")]
    Shape,
    #[error("its iceServers is not a list of dictionaries")]
    Servers,
    #[error("an entry of iceServers has no urls, as text or a list of texts without blanks and quotes")]
    Urls,
}

const ICE_SERVERS: &str = "iceServers";

impl Document {
    pub fn new(document: Literal) -> Result<Self, BadDocument> {
        let Literal::Dictionary(_) = &document else { return Err(BadDocument::Shape) };
        if let Some(servers) = document.get(ICE_SERVERS) {
            for server in servers.as_list().ok_or(BadDocument::Servers)? {
                let Literal::Dictionary(_) = server else { return Err(BadDocument::Servers) };
                let urls = urls_of(server).filter(|urls| !urls.is_empty()).ok_or(BadDocument::Urls)?;
                if !urls.iter().all(|url| is_plain(url)) {
                    return Err(BadDocument::Urls);
                }
            }
        }
        Ok(Self(document))
    }

    /// One that has STUN servers only.
    pub fn of_stun(urls: &[String]) -> Result<Self, BadDocument> {
        let server = |url: &String| Literal::Dictionary(vec![("urls".to_owned(), Literal::Text(url.clone()))]);
        Self::new(Literal::Dictionary(vec![(
            ICE_SERVERS.to_owned(),
            Literal::List(urls.iter().map(server).collect()),
        )]))
    }

    fn servers(&self) -> &[Literal] {
        self.0.get(ICE_SERVERS).and_then(Literal::as_list).unwrap_or_default()
    }
}

fn urls_of(server: &Literal) -> Option<Vec<&str>> {
    match server.get("urls").or_else(|| server.get("url"))? {
        Literal::Text(url) => Some(vec![url]),
        Literal::List(urls) => urls.iter().map(Literal::as_text).collect(),
        Literal::Null | Literal::Bool(_) | Literal::Number(_) | Literal::Dictionary(_) => None,
    }
}

/// Fits between `<` and `>` of a header.
fn is_plain(url: &str) -> bool {
    url.contains(':') && url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"'))
}

/// Everything that an answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    pub document: &'a Document,
    /// In the order in which clients shall try them. None: no relay is to be had.
    pub turn: &'a [&'a str],
    pub credential: &'a Credential,
    pub form: UrlsForm,
}

impl<'a> Offer<'a> {
    /// The operator's document with the minted entries behind its own.
    #[must_use]
    pub fn rtc_configuration(self) -> impl Serialize + 'a {
        RtcConfiguration(self)
    }

    /// The entries alone.
    #[must_use]
    pub fn ice_servers(self) -> impl Serialize + 'a {
        IceServers(self)
    }

    /// draft-uberti-behave-turn-rest-00 section 2.2.
    #[must_use]
    pub fn classic(self) -> impl Serialize + 'a {
        Classic {
            username: &self.credential.username,
            password: self.credential.password.expose(),
            ttl: self.credential.ttl_s,
            uris: self.turn,
        }
    }

    /// As AppRTC's rooms read it: relays first, `urls` always a list.
    #[must_use]
    pub fn iceconfig(self) -> impl Serialize + 'a {
        let minted = self.minted(UrlsForm::List).into_iter().map(Entry::Minted);
        let fixed = self.document.servers().iter().map(|server| Entry::Listed(Listed(server)));
        IceConfig {
            lifetime_duration: format!("{}.000s", self.credential.ttl_s),
            ice_servers: minted.chain(fixed).collect(),
        }
    }

    /// The values of `Link` headers, one a URL.
    #[must_use]
    pub fn links(self) -> Vec<String> {
        let mut links = Vec::new();
        for server in self.document.servers() {
            let text = |key| server.get(key).and_then(Literal::as_text);
            let credential = text("username").zip(text("credential"));
            links.extend(urls_of(server).unwrap_or_default().into_iter().map(|url| link(url, credential)));
        }
        let credential = (self.credential.username.as_str(), self.credential.password.expose());
        links.extend(self.turn.iter().map(|url| link(url, Some(credential))));
        links
    }

    fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        let fixed = self.document.servers().iter().map(Entry::Fixed);
        fixed.chain(self.minted(self.form).into_iter().map(Entry::Minted))
    }

    fn minted(self, form: UrlsForm) -> Vec<Minted<'a>> {
        let (username, credential) = (self.credential.username.as_str(), self.credential.password.expose());
        match form {
            UrlsForm::List if self.turn.is_empty() => Vec::new(),
            UrlsForm::List => vec![Minted { urls: Urls::List(self.turn), username, credential }],
            UrlsForm::String => {
                self.turn.iter().map(|url| Minted { urls: Urls::String(url), username, credential }).collect()
            }
        }
    }
}

/// RFC 9725 section 4.6.
fn link(url: &str, credential: Option<(&str, &str)>) -> String {
    match credential {
        None => format!("<{url}>; rel=\"ice-server\""),
        Some((username, credential)) => format!(
            "<{url}>; rel=\"ice-server\"; username={}; credential={}; credential-type=\"password\"",
            quoted(username),
            quoted(credential)
        ),
    }
}

/// A quoted-string (RFC 9110 section 5.6.4); what cannot stand in one is left out.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars().filter(|c| matches!(c, ' '..='~')) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

struct RtcConfiguration<'a>(Offer<'a>);

impl Serialize for RtcConfiguration<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Literal::Dictionary(entries) = &self.0.document.0 else { return serializer.serialize_none() };
        let mut map = serializer.serialize_map(None)?;
        let mut written = false;
        for (key, value) in entries {
            if key == ICE_SERVERS {
                map.serialize_entry(key, &IceServers(self.0))?;
                written = true;
            } else {
                map.serialize_entry(key, value)?;
            }
        }
        if !written {
            map.serialize_entry(ICE_SERVERS, &IceServers(self.0))?;
        }
        map.end()
    }
}

struct IceServers<'a>(Offer<'a>);

impl Serialize for IceServers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.entries())
    }
}

#[derive(serde::Serialize)]
struct Classic<'a> {
    username: &'a str,
    password: &'a str,
    ttl: u32,
    uris: &'a [&'a str],
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct IceConfig<'a> {
    lifetime_duration: String,
    ice_servers: Vec<Entry<'a>>,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Fixed(&'a Literal),
    Listed(Listed<'a>),
    Minted(Minted<'a>),
}

#[derive(serde::Serialize)]
struct Minted<'a> {
    urls: Urls<'a>,
    username: &'a str,
    credential: &'a str,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Urls<'a> {
    String(&'a str),
    List(&'a [&'a str]),
}

/// An entry of the document with its `urls` as a list.
struct Listed<'a>(&'a Literal);

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Literal::Dictionary(entries) = self.0 else { return serializer.serialize_none() };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("urls", &urls_of(self.0).unwrap_or_default())?;
        for (key, value) in entries.iter().filter(|(key, _)| !matches!(key.as_str(), "url" | "urls")) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATIC: &str = r#"{"note":1,"iceServers":[{"urls":"stun:stun.example.org:19302"},
        {"urls":["turn:static.example.org"],"username":"a\"b","credential":"c\\d"}],"iceTransportPolicy":"all"}"#;

    fn credential() -> Credential {
        Credential { username: "1703086872".into(), password: "secret+/=".into(), ttl_s: 3_600 }
    }

    fn json(value: impl Serialize) -> String {
        serde_json::to_string(&value).unwrap()
    }

    #[test]
    fn the_document_is_merged_in_its_own_order_and_stays_as_it_was() {
        let document = Document::new(Literal::parse(STATIC).unwrap()).unwrap();
        let (credential, before) = (credential(), document.0.clone());
        let offer = Offer { document: &document, turn: &["turn:a"], credential: &credential, form: UrlsForm::String };
        let merged = r#"{"note":1,"iceServers":[{"urls":"stun:stun.example.org:19302"},{"urls":["turn:static.example.org"],"username":"a\"b","credential":"c\\d"},{"urls":"turn:a","username":"1703086872","credential":"secret+/="}],"iceTransportPolicy":"all"}"#;
        assert_eq!(json(offer.rtc_configuration()), merged);
        assert_eq!(json(offer.rtc_configuration()), merged, "twice the same");
        assert!(document.0 == before);
    }

    #[test]
    fn links_are_quoted() {
        let document = Document::new(Literal::parse(STATIC).unwrap()).unwrap();
        let credential = credential();
        let offer = Offer { document: &document, turn: &["turn:a"], credential: &credential, form: UrlsForm::List };
        assert_eq!(
            offer.links(),
            [
                r#"<stun:stun.example.org:19302>; rel="ice-server""#,
                r#"<turn:static.example.org>; rel="ice-server"; username="a\"b"; credential="c\\d"; credential-type="password""#,
                r#"<turn:a>; rel="ice-server"; username="1703086872"; credential="secret+/="; credential-type="password""#,
            ]
        );
        assert_eq!(quoted("a\r\nb: é\u{7f}"), "\"ab: \"", "nothing breaks out of a header");
    }

    #[test]
    fn without_a_relay_there_is_no_minted_entry() {
        let document = Document::of_stun(&[]).unwrap();
        let credential = credential();
        for form in [UrlsForm::List, UrlsForm::String] {
            let offer = Offer { document: &document, turn: &[], credential: &credential, form };
            assert_eq!(json(offer.rtc_configuration()), r#"{"iceServers":[]}"#);
            assert_eq!(json(offer.iceconfig()), r#"{"lifetimeDuration":"3600.000s","iceServers":[]}"#);
        }
    }

    #[test]
    fn documents_that_clients_would_refuse_are_refused() {
        for (text, error) in [
            ("[]", BadDocument::Shape),
            ("{'iceServers': {}}", BadDocument::Servers),
            ("{'iceServers': ['stun:a']}", BadDocument::Servers),
            ("{'iceServers': [{}]}", BadDocument::Urls),
            ("{'iceServers': [{'urls': []}]}", BadDocument::Urls),
            ("{'iceServers': [{'urls': 'stun:a>, <b'}]}", BadDocument::Urls),
            ("{'iceServers': [{'urls': ['stun:a', 7]}]}", BadDocument::Urls),
        ] {
            assert_eq!(Document::new(Literal::parse(text).unwrap()).unwrap_err(), error, "{text}");
        }
    }
}
