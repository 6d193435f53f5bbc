//! Publishing to any WHIP server (RFC 9725) instead of a Carillon room: one offer by POST, the answer in its reply, DELETE at
//! the end, and all of it again whenever the server or the media connection is lost. One way only: a WHIP server has no
//! voices to play. It offers with all its candidates and changes no session, so it needs neither PATCH nor ETag
//! (ARCHITECTURE.md has the reasons).

mod http;
mod reply;

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use signaling_protocol::IceServer;
use signaling_protocol::client::Trust;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::backoff::Backoff;
use crate::config::TokenSource;
use crate::follow::{MediaError, follow};
use crate::metrics::Metrics;
use crate::offer;
use crate::session::{Outlet, stopped};
use crate::status::{MediaState, Status};
use crate::webrtc::{Peer, PeerError};
use http::HttpError;
use reply::{Created, Refusal, Verdict};

/// More is a circle.
const REDIRECTS_MAX: usize = 5;
/// Between attempts after a refusal that stays until somebody changes something, such as the token's file.
const LASTING: Duration = Duration::from_secs(15);
const GOODBYE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub struct WhipSettings {
    /// The endpoint, `http://` or `https://`.
    pub url: Url,
    /// There are endpoints whose URL is the secret.
    pub token: Option<TokenSource>,
    pub trust: Trust,
    /// The stream of desktop sound, the same for the life of the process.
    pub ssrc: u32,
    /// Servers of our own environment, beside those that the endpoint names.
    pub ice_servers: Vec<IceServer>,
}

#[derive(Debug, thiserror::Error)]
pub enum WhipError {
    #[error("WHIP")]
    Http(#[from] HttpError),
    #[error("WHIP")]
    Refused(#[from] Refusal),
    #[error(
        "WHIP: the endpoint sends its clients to another server, which is not shown the token; use that server's URL"
    )]
    Withheld(#[source] Refusal),
    #[error("WHIP server redirects in circles")]
    Circle,
    #[error("media")]
    Peer(#[from] PeerError),
    #[error("token")]
    Token(#[from] admin::SecretError),
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// Publishes for ever.
#[derive(Debug)]
pub struct Publication {
    settings: WhipSettings,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    outlet: watch::Sender<Option<Arc<Peer>>>,
    /// What the server has of us and must be told to forget.
    session: Option<Url>,
    /// As the endpoint named them last.
    ice_servers: Vec<IceServer>,
    backoff: Backoff,
    /// After the server's own end of a media connection.
    closed_backoff: Backoff,
}

impl Publication {
    #[must_use]
    pub fn new(settings: WhipSettings, status: Arc<Status>, metrics: Arc<Metrics>) -> (Self, Outlet) {
        let (outlet, receiver) = watch::channel(None);
        let (backoff, closed_backoff) = (Backoff::signaling(), Backoff::closed());
        let (session, ice_servers) = (None, Vec::new());
        (Self { settings, status, metrics, outlet, session, ice_servers, backoff, closed_backoff }, receiver)
    }

    /// Publishes until `shutdown` says so, then ends the session.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let failure = tokio::select! {
                failure = self.publish() => failure,
                () = stopped(&mut shutdown) => break,
            };
            self.metrics.signaling_reconnects.inc();
            if let WhipError::Media(error) = &failure {
                self.status.publication_failed(error);
            } else {
                self.status.signaling_failed(&failure);
            }
            let _ = timeout(GOODBYE, self.end()).await;
            let wait = self.after(&failure);
            tokio::select! {
                () = sleep(wait) => {}
                () = stopped(&mut shutdown) => break,
            }
        }
        // The server notices anyway; this only is faster.
        let _ = timeout(GOODBYE, self.end()).await;
    }

    /// One session, from the offer to its loss.
    async fn publish(&mut self) -> WhipError {
        match self.offer().await {
            Ok(peer) => {
                let ending = follow(peer, Arc::clone(&self.status), Arc::clone(&self.metrics)).await;
                if ending.was_good() {
                    self.backoff.reset();
                    self.closed_backoff.reset();
                }
                ending.error.into()
            }
            Err(error) => error,
        }
    }

    async fn offer(&mut self) -> Result<Arc<Peer>, WhipError> {
        let token = self.settings.token.as_ref().map(TokenSource::read).transpose()?;
        let token = token.as_ref().map(admin::Secret::expose);
        if self.ice_servers.is_empty() {
            self.ice_servers = self.named_servers(token).await?;
        }
        let ice_servers: Vec<IceServer> =
            self.settings.ice_servers.iter().chain(&self.ice_servers).cloned().collect();
        let (peer, offer) = Peer::offer(self.settings.ssrc, &ice_servers, None).await?;
        let peer = Arc::new(peer);
        let answered = async {
            let Created { answer, session, ice_servers } = self.post(token, &offer::for_ingest(&offer.sdp)).await?;
            self.session = session;
            self.ice_servers = ice_servers;
            peer.answer(answer).await?;
            Ok::<(), WhipError>(())
        };
        if let Err(error) = answered.await {
            peer.close().await;
            return Err(error);
        }
        self.status.published(self.settings.url.host_str().unwrap_or_default());
        self.outlet.send_replace(Some(Arc::clone(&peer)));
        Ok(peer)
    }

    /// Offers, where the endpoint sends us.
    async fn post(&self, token: Option<&str>, sdp: &str) -> Result<Created, WhipError> {
        let mut url = self.settings.url.clone();
        let first = self.settings.url.path_segments().into_iter().flatten().chain(self.settings.url.query());
        let secrets: Vec<&str> = first.chain(token).collect();
        for _ in 0..=REDIRECTS_MAX {
            let shown = self.shown_to(&url, token);
            let reply = http::exchange(Method::POST, &url, shown, Some(sdp.to_owned()), &self.settings.trust).await?;
            match reply::read(reply, &url, &secrets) {
                Ok(Verdict::Created(created)) => return Ok(created),
                Ok(Verdict::Elsewhere(next)) => url = next,
                Err(refusal @ Refusal::Status { status: 401 | 403, .. }) if shown.is_none() && token.is_some() => {
                    return Err(WhipError::Withheld(refusal));
                }
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err(WhipError::Circle)
    }

    /// The token, where it may be seen: by the server that it is for, and not by whom that server names. The same server may
    /// ask for encryption.
    fn shown_to<'a>(&self, url: &Url, token: Option<&'a str>) -> Option<&'a str> {
        let endpoint = &self.settings.url;
        let is_upgrade = (endpoint.scheme(), url.scheme()) == ("http", "https") && endpoint.host() == url.host();
        token.filter(|_| endpoint.origin() == url.origin() || is_upgrade)
    }

    /// The relays that some endpoints name in advance (RFC 9725 section 4.6): our candidates are gathered before the offer is
    /// posted. Most know no such question, which is no fault; who cannot be reached now need not be asked twice.
    async fn named_servers(&self, token: Option<&str>) -> Result<Vec<IceServer>, HttpError> {
        match http::exchange(Method::OPTIONS, &self.settings.url, token, None, &self.settings.trust).await {
            Ok(reply) if reply.status.is_success() => Ok(reply::ice_servers(&reply.headers)),
            Err(error) if error.is_before_answer() => Err(error),
            Ok(_) | Err(_) => Ok(Vec::new()),
        }
    }

    fn after(&mut self, failure: &WhipError) -> Duration {
        if matches!(failure, WhipError::Media(MediaError::Closed)) {
            return self.closed_backoff.next(rand::random());
        }
        let wait = self.backoff.next(rand::random());
        let (WhipError::Refused(refusal) | WhipError::Withheld(refusal)) = failure else { return wait };
        let lasting = if refusal.is_lasting() { LASTING } else { Duration::ZERO };
        wait.max(lasting).max(refusal.retry_after().unwrap_or_default())
    }

    /// Closes what stands and tells the server.
    async fn end(&mut self) {
        if let Some(peer) = self.outlet.send_replace(None) {
            peer.close().await;
            self.status.media(MediaState::Disconnected);
        }
        let Some(session) = self.session.take() else { return };
        let token = self.settings.token.as_ref().and_then(|token| token.read().ok());
        let token = self.shown_to(&session, token.as_ref().map(admin::Secret::expose));
        match http::exchange(Method::DELETE, &session, token, None, &self.settings.trust).await {
            Ok(reply) => tracing::debug!(status = reply.status.as_u16(), "Ended the WHIP session"),
            Err(error) => tracing::debug!(%error, "Could not end the WHIP session"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn publication(url: Url) -> Publication {
        let trust = Trust::System;
        let settings = WhipSettings { url, token: None, trust, ssrc: 1, ice_servers: Vec::new() };
        let status = Arc::new(Status::new(String::new(), String::new()));
        Publication::new(settings, status, Metrics::new().0).0
    }

    const SDP: &str = "v=0\r\n";

    /// Answers one offer of `SDP` and gives back what it was asked.
    async fn answers(listener: TcpListener, answer: String) -> String {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut asked = Vec::new();
        // The body may come after the head.
        while !asked.ends_with(SDP.as_bytes()) && stream.read_buf(&mut asked).await.expect("reads") > 0 {}
        stream.write_all(answer.as_bytes()).await.expect("answers");
        String::from_utf8_lossy(&asked).into_owned()
    }

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let origin = format!("http://{}", listener.local_addr().expect("bound"));
        (listener, origin)
    }

    /// Offers to an endpoint that names another server, which refuses: what the two were asked, and the outcome.
    async fn sent_on(status: u16) -> (String, String, WhipError) {
        let ((endpoint, here), (other, there)) = (listener().await, listener().await);
        let redirect = format!("HTTP/1.1 307 Go\r\nlocation: {there}/whip\r\ncontent-length: 0\r\n\r\n");
        let first = tokio::spawn(answers(endpoint, redirect));
        let refusal = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
        let second = tokio::spawn(answers(other, refusal));
        let publication = publication(Url::parse(&format!("{here}/whip")).expect("a URL"));
        let outcome = publication.post(Some("key"), SDP).await;
        (first.await.expect("ends"), second.await.expect("ends"), outcome.expect_err("refused"))
    }

    #[tokio::test]
    async fn another_server_that_the_endpoint_names_gets_the_offer_and_not_the_token() {
        let (first, asked, outcome) = sent_on(401).await;
        assert!(first.contains("authorization: Bearer key"));
        assert!(asked.starts_with("POST /whip") && asked.ends_with(SDP), "{asked}");
        assert!(!asked.contains("authorization") && !asked.contains("key"), "{asked}");
        let told = outcome.to_string();
        assert!(told.contains("not shown the token") && told.contains("URL"), "{told}");
    }

    #[tokio::test]
    async fn only_a_refusal_that_the_token_may_have_helped_is_put_down_to_it() {
        for status in [401, 403] {
            let (.., outcome) = sent_on(status).await;
            assert!(matches!(outcome, WhipError::Withheld(_)), "{status}: {outcome:?}");
        }
        for status in [400, 404, 415, 429, 503] {
            let (.., outcome) = sent_on(status).await;
            assert!(matches!(outcome, WhipError::Refused(_)), "{status}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_ends_each_connection_at_once_is_left_alone_for_longer_and_longer() {
        let mut publication = publication(Url::parse("http://sound.example/whip").expect("a URL"));
        let waits: Vec<Duration> = (0..10).map(|_| publication.after(&MediaError::Closed.into())).collect();
        assert!(waits[0] <= Duration::from_millis(250), "{waits:?}");
        assert!(waits[9] >= Duration::from_secs(15), "{waits:?}");
        assert!(publication.after(&MediaError::Lost.into()) <= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn the_token_stays_with_its_server() {
        let publication = publication(Url::parse("http://sound.example/whip").expect("a URL"));
        let is_shown = |url: &str| publication.shown_to(&Url::parse(url).expect("a URL"), Some("key")).is_some();
        assert!(is_shown("http://sound.example/elsewhere") && is_shown("https://sound.example/session/1"));
        for url in ["http://other.example/whip", "http://sound.example:8080/whip", "https://sound.example.other/"] {
            assert!(!is_shown(url), "{url}");
        }
    }
}
