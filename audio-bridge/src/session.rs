//! The participation in the room: join, offer, and do it again for ever whenever something is lost. A lost socket keeps
//! the media connection and resumes; a lost media connection or node gets a new offer on the same socket; a refused
//! resume joins anew with the token. It knows neither SDP nor sound.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use signaling_protocol::client::{Client, ClientError, Closed, Credential, Options, Trust};
use signaling_protocol::{IceServer, ServerMessage, Welcome};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::backoff::Backoff;
use crate::config::TokenSource;
use crate::follow::{Ending, MediaError, follow};
use crate::metrics::Metrics;
use crate::playout::Playout;
use crate::speakers::Speakers;
use crate::status::{MediaState, Status};
use crate::webrtc::{Peer, PeerError};

/// Somebody sent us away, or took our place: come back, but do not fight.
const SENT_AWAY: Duration = Duration::from_secs(30);
/// What a server may ask us to wait.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// The code of "no media node is there".
const NO_NODE: &str = "no_node";
const GOODBYE: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct SessionSettings {
    pub url: String,
    pub token: TokenSource,
    pub trust: Trust,
    /// The stream of desktop sound, the same for the life of the process.
    pub ssrc: u32,
    /// Servers of our own environment, beside those that signalling names.
    pub ice_servers: Vec<IceServer>,
}

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("signalling")]
    Client(#[from] ClientError),
    #[error("signalling refused to resume")]
    ResumeRefused(#[source] ClientError),
    #[error("connection to signalling is closed: {0}")]
    Closed(Closed),
    #[error("media")]
    Peer(#[from] PeerError),
    #[error("token")]
    Token(#[from] admin::SecretError),
    #[error("sent away: {0}")]
    SentAway(String),
}

/// The media connection that program sound goes to now.
pub type Outlet = watch::Receiver<Option<Arc<Peer>>>;

#[derive(Debug)]
pub struct Session {
    settings: SessionSettings,
    playout: Arc<Mutex<Playout>>,
    speakers: Arc<Speakers>,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    outlet: watch::Sender<Option<Arc<Peer>>>,
    /// Ends when the media connection does.
    follower: Option<JoinHandle<Ending>>,
    resume: Option<Resume>,
    backoff: Backoff,
    media_backoff: Backoff,
    /// After the node's own end of a media connection.
    closed_backoff: Backoff,
    ice_servers: Vec<IceServer>,
}

#[derive(Clone, Debug)]
struct Resume {
    credential: Credential,
    grace: Duration,
    /// When the socket was lost; nothing while it stands.
    lost: Option<Instant>,
}

impl Session {
    #[must_use]
    pub fn new(
        settings: SessionSettings,
        playout: Arc<Mutex<Playout>>,
        speakers: Arc<Speakers>,
        status: Arc<Status>,
        metrics: Arc<Metrics>,
    ) -> (Self, Outlet) {
        let (outlet, receiver) = watch::channel(None);
        let session = Self {
            settings,
            playout,
            speakers,
            status,
            metrics,
            outlet,
            follower: None,
            resume: None,
            backoff: Backoff::signaling(),
            media_backoff: Backoff::media(),
            closed_backoff: Backoff::closed(),
            ice_servers: Vec::new(),
        };
        (session, receiver)
    }

    /// Participates until `shutdown` says so, then leaves.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        loop {
            let mut overdue = shutdown.clone();
            let error = tokio::select! {
                outcome = self.participate(&mut shutdown) => match outcome {
                    Ok(()) => break,
                    Err(error) => error,
                },
                // It was connecting or waiting and had no ear for us.
                () = async { stopped(&mut overdue).await; sleep(GOODBYE * 2).await } => break,
            };
            self.metrics.signaling_reconnects.inc();
            self.status.signaling_failed(&error);
            let wait = self.after(&error);
            tokio::select! {
                () = sleep(wait) => {}
                () = stopped(&mut shutdown) => break,
            }
        }
        self.drop_peer().await;
    }

    /// One connection to signalling, from its start to its end. `Ok`: the process ends.
    async fn participate(&mut self, shutdown: &mut watch::Receiver<bool>) -> Result<(), SessionError> {
        let options = Options { trust: self.settings.trust.clone(), ..Options::default() };
        let (client, mut messages) = Client::connect(&self.settings.url, &options).await?;
        let credential = self.credential()?;
        let resuming = matches!(credential, Credential::Resume(_));
        let welcome = client.hello(credential, None).await.map_err(|error| {
            if resuming && error.code().is_some() { SessionError::ResumeRefused(error) } else { error.into() }
        })?;
        self.welcomed(&welcome).await;
        if self.outlet.borrow().is_none() {
            self.connect_media(&mut messages, &client).await?;
        }
        // Not before: a machine that cannot make a media connection must not join as fast as it can.
        self.backoff.reset();
        loop {
            tokio::select! {
                biased;
                () = stopped(shutdown) => {
                    // The server notices anyway; this only is faster.
                    let _ = timeout(GOODBYE, client.leave()).await;
                    return Ok(());
                }
                message = messages.recv() => match message {
                    Some(message) => {
                        if let Some(wait) = self.handle(message).await? {
                            self.wait_for_media_retry(wait, &mut messages, &client).await?;
                            self.connect_media(&mut messages, &client).await?;
                        }
                    }
                    None => return Err(SessionError::Closed(client.closed().await)),
                },
                ending = ended(&mut self.follower) => {
                    self.drop_peer().await;
                    let wait = self.after_media(&ending, rand::random());
                    self.wait_for_media_retry(wait, &mut messages, &client).await?;
                    self.connect_media(&mut messages, &client).await?;
                }
            }
        }
    }

    fn credential(&self) -> Result<Credential, SessionError> {
        if let Some(resume) = &self.resume
            && resume.lost.is_none_or(|lost| lost.elapsed() < resume.grace)
        {
            return Ok(resume.credential.clone());
        }
        Ok(Credential::Token(self.settings.token.read()?.expose().to_owned()))
    }

    async fn welcomed(&mut self, welcome: &Welcome) {
        self.status.joined(&welcome.room, &welcome.peer);
        self.ice_servers.clone_from(&welcome.ice_servers);
        self.speakers.welcomed(welcome.roster.clone());
        self.resume = Some(Resume {
            credential: Credential::Resume(welcome.resume.clone()),
            grace: Duration::from_millis(u64::from(welcome.limits.resume_grace_ms)),
            lost: None,
        });
        let stands =
            welcome.resumed && self.outlet.borrow().as_ref().is_some_and(|peer| !peer.state().borrow().is_over());
        if !stands {
            self.drop_peer().await;
        }
    }

    /// Offers media connections until one is taken. A node that is away is waited for on this socket: everyone else sees
    /// one participant the whole time.
    async fn connect_media(
        &mut self,
        messages: &mut mpsc::Receiver<ServerMessage>,
        client: &Client,
    ) -> Result<(), SessionError> {
        loop {
            let error = match self.offer(client).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.status.media(MediaState::Disconnected);
            let SessionError::Client(ClientError::Refused(refusal)) = &error else { return Err(error) };
            if refusal.code != NO_NODE && refusal.retry_after_ms.is_none() {
                return Err(error);
            }
            self.status.signaling_refused(&error);
            let wait = self.media_backoff.next(rand::random()).max(asked(refusal.retry_after_ms));
            self.wait_for_media_retry(wait, messages, client).await?;
        }
    }

    /// Offers one media connection and makes it the outlet.
    async fn offer(&mut self, client: &Client) -> Result<(), SessionError> {
        let ice_servers: Vec<IceServer> =
            // The node's own addresses need no STUN server; one of our environment is somebody's wish.
            self.settings.ice_servers.iter().chain(self.ice_servers.iter().filter(|s| s.credential.is_some())).cloned().collect();
        let (peer, offer) = Peer::offer(self.settings.ssrc, &ice_servers, Some(Arc::clone(&self.playout))).await?;
        let peer = Arc::new(peer);
        let answered = async {
            let answer = client.offer(offer.sdp, offer.media).await?;
            peer.answer(answer).await?;
            Ok::<(), SessionError>(())
        };
        if let Err(error) = answered.await {
            peer.close().await;
            return Err(error);
        }
        let follower = follow(Arc::clone(&peer), Arc::clone(&self.status), Arc::clone(&self.metrics));
        self.follower = Some(tokio::spawn(follower));
        self.outlet.send_replace(Some(peer));
        Ok(())
    }

    /// Says how long to wait before a new offer, when one is needed.
    async fn handle(&mut self, message: ServerMessage) -> Result<Option<Duration>, SessionError> {
        match message {
            ServerMessage::Moved { reason, retry_after_ms } => {
                tracing::info!(reason, "Signalling moved us");
                self.drop_peer().await;
                self.sent_away(&reason)?;
                Ok(Some(asked(retry_after_ms)))
            }
            ServerMessage::IceServers { ice_servers } => {
                self.ice_servers = ice_servers;
                Ok(None)
            }
            ServerMessage::Slots { slots } => {
                tracing::debug!(occupied = slots.len(), "Slots changed");
                Ok(None)
            }
            ServerMessage::Error { error, .. } => {
                tracing::warn!(code = error.code, hint = error.hint, "Signalling reported an error");
                Ok(None)
            }
            ServerMessage::Joined { member } => {
                self.speakers.joined(member);
                Ok(None)
            }
            ServerMessage::Left { peer, .. } => {
                self.speakers.left(&peer);
                Ok(None)
            }
            // Who is muted sends nothing, and slots name their speaker in each packet.
            ServerMessage::Mute { .. } | ServerMessage::Speakers { .. } | ServerMessage::Signal { .. } => Ok(None),
            // Answers to requests are taken by the client.
            ServerMessage::Welcome(_) | ServerMessage::Answer { .. } | ServerMessage::Ok { .. } => Ok(None),
        }
    }

    /// An error when the participation is over. For all other reasons, also those that are not known yet, it goes on with a
    /// new media connection.
    fn sent_away(&mut self, reason: &str) -> Result<(), SessionError> {
        if reason != "replaced" && reason != "evicted" {
            return Ok(());
        }
        self.resume = None;
        Err(SessionError::SentAway(reason.to_owned()))
    }

    /// Waits before the next offer and goes on listening. Whoever moves us knows better when to come: signalling hears first
    /// that the node is back, and a node that ends our connection as it goes is moved away from just the same.
    async fn wait_for_media_retry(
        &mut self,
        wait: Duration,
        messages: &mut mpsc::Receiver<ServerMessage>,
        client: &Client,
    ) -> Result<(), SessionError> {
        let mut until = Instant::now() + wait;
        while let Ok(message) = timeout_at(until, messages.recv()).await {
            let Some(message) = message else { return Err(SessionError::Closed(client.closed().await)) };
            if let Some(wait) = self.handle(message).await? {
                until = Instant::now() + wait;
            }
        }
        Ok(())
    }

    /// How long to wait after a media connection ended so; `random` is within 0..1.
    fn after_media(&mut self, ending: &Ending, random: f64) -> Duration {
        if ending.was_good() {
            self.media_backoff.reset();
            self.closed_backoff.reset();
        }
        match ending.error {
            MediaError::Closed => self.closed_backoff.next(random),
            MediaError::NeverUp | MediaError::Lost => self.media_backoff.next(random),
        }
    }

    /// How long to wait after a participation ended so.
    fn after(&mut self, error: &SessionError) -> Duration {
        if matches!(error, SessionError::SentAway(_)) {
            return SENT_AWAY;
        }
        if matches!(error, SessionError::ResumeRefused(_)) {
            // The token is still good; nothing is gained by waiting.
            self.resume = None;
            return Duration::ZERO;
        }
        self.note_loss();
        self.backoff.next(rand::random())
    }

    fn note_loss(&mut self) {
        if let Some(resume) = &mut self.resume {
            resume.lost.get_or_insert_with(Instant::now);
        }
    }

    async fn drop_peer(&mut self) {
        if let Some(follower) = self.follower.take() {
            follower.abort();
        }
        let Some(peer) = self.outlet.send_replace(None) else { return };
        peer.close().await;
        self.playout.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.status.media(MediaState::Disconnected);
    }
}

pub(crate) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// What a server asks us to wait.
fn asked(retry_after_ms: Option<u64>) -> Duration {
    Duration::from_millis(retry_after_ms.unwrap_or(0)).min(RETRY_AFTER_MAX)
}

/// Waits for the end of a follower; for ever when there is none.
async fn ended(follower: &mut Option<JoinHandle<Ending>>) -> Ending {
    match follower {
        Some(follower) => follower.await.unwrap_or(Ending::LOST),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speakers::{Gains, MaySpeak};
    use crate::webrtc::PeerState;

    fn session() -> Session {
        let settings = SessionSettings {
            url: String::new(),
            token: TokenSource::Value("the token".into()),
            trust: Trust::System,
            ssrc: 7,
            ice_servers: Vec::new(),
        };
        let status = Arc::new(Status::new(String::new(), String::new()));
        let playout = Arc::new(Mutex::new(Playout::default()));
        let speakers = Arc::new(Speakers::new(MaySpeak::All, Gains::default(), Arc::clone(&playout)));
        Session::new(settings, playout, speakers, status, Metrics::new().0).0
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_ends_every_connection_is_asked_ever_more_rarely() {
        let mut session = session();
        let up = Some(Instant::now());
        let mut after = |state| session.after_media(&Ending::new(state, up), 1.0);
        let waits: Vec<u128> = (0..9).map(|_| after(PeerState::Closed).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(after(PeerState::Lost), Duration::from_millis(50));
        assert_eq!(after(PeerState::Closed), Duration::from_millis(250), "one that stood and was lost was wanted");
    }

    #[tokio::test]
    async fn only_who_is_replaced_or_evicted_gives_up_the_participation() {
        for (reason, goes_on) in [
            ("node_lost", true),
            ("node_drain", true),
            ("media_lost", true),
            ("not known yet", true),
            ("replaced", false),
            ("evicted", false),
        ] {
            let mut session = session();
            let credential = Credential::Resume("r1".to_owned());
            session.resume = Some(Resume { credential, grace: Duration::from_secs(10), lost: None });
            let moved = ServerMessage::Moved { reason: reason.into(), retry_after_ms: Some(1_000) };
            let wait = session.handle(moved).await.ok().flatten();
            assert_eq!(wait, goes_on.then_some(Duration::from_secs(1)), "{reason}");
            assert_eq!(session.resume.is_some(), goes_on, "{reason}");
        }
    }
}
