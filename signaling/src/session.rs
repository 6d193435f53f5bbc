//! One WebSocket of a client: reads requests, checks what can be checked without the room (form, token, SDP, rate),
//! hands the rest to the [`Hub`], and writes what comes back. It holds no room state; what it remembers is its offers,
//! because an answer is written line by line against its offer.

mod request;
mod socket;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use signaling_protocol::{ClientMessage, IceServer, PROTOCOL_VERSION, ProtocolError, ServerMessage, Welcome};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use crate::codes::Code;
use crate::hub::{Hub, Outbound, Registration};
use crate::ice::{Feed, IceServers};
use crate::metrics::Metrics;
use crate::names;
use crate::resume::{self, Participation};
use crate::rooms::{ConnId, Grant, Greeting, Input, MediaSpec, NodeAnswer, Request};
use crate::sdp::{Offer, Origin, PROGRAM_SLOTS, SPEECH_SLOTS, write_answer};
use crate::tokens::{self, Keys, NAME_CHARS_MAX};
use request::Bucket;
pub use socket::Socket;
use socket::{Frame, Gone};

/// Largest message of a client. An offer of 64 m-lines is about 70 KiB as JSON.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
const HELLO_TIME_MAX: Duration = Duration::from_secs(5);
/// A resume may have to wait for the node that has the peer; then another hello may follow.
const RESUME_TIME_MAX: Duration = Duration::from_secs(15);
/// Wrong tokens that one socket may try.
const HELLO_TRIES_MAX: u32 = 3;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PINGS_MISSED_MAX: u32 = 2;
/// Largest `data` of a signal, as JSON.
const SIGNAL_BYTES_MAX: usize = 16 * 1024;
/// Offers whose answer is outstanding: one can be in work, another is refused as `busy`.
const OFFERS_KEPT: usize = 4;

/// What all sessions share.
#[derive(Debug)]
pub struct Context {
    pub hub: Arc<Hub>,
    pub keys: Keys,
    pub ice: Arc<IceServers>,
    pub metrics: Arc<Metrics>,
    pub resume_grace: Duration,
}

/// How a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client closed in order.
    Left,
    Lost,
    /// We close, with this code and reason.
    Close(u16, &'static str),
}

impl From<Gone> for End {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::Closed => Self::Left,
            Gone::Lost => Self::Lost,
            Gone::Cut(code, reason) => Self::Close(code, reason),
            Gone::TooLarge => Self::Close(1009, "message too large"),
        }
    }
}

/// Serves one socket to its end. `room`: its name from the path, checked here so that browsers can see the error.
pub async fn run(socket: Socket, room: String, context: Arc<Context>) {
    let Registration { conn, mut outbound, cut } = context.hub.open();
    let mut seat = Seat::new(conn, Arc::clone(&context));
    let mut session = Session {
        socket: socket.with_cut(cut),
        conn,
        room,
        grant: None,
        ice: None,
        offers: VecDeque::new(),
        answers: 0,
        hello_tries: 0,
        hello_due: Instant::now() + HELLO_TIME_MAX,
        bucket: Bucket::new(Instant::now()),
        context,
    };
    let end = session.serve(&mut outbound).await;
    tracing::debug!(?end, "Socket ended");
    seat.left = end == End::Left;
    drop((outbound, seat));
    if let End::Close(code, reason) = end {
        session.socket.close(code, reason).await;
    }
}

/// The socket's registration at the hub; given back whatever happens, a panic included.
struct Seat {
    conn: ConnId,
    left: bool,
    context: Arc<Context>,
}

impl Seat {
    fn new(conn: ConnId, context: Arc<Context>) -> Self {
        context.metrics.sockets.inc();
        Self { conn, left: false, context }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.context.hub.close(self.conn, self.left);
        self.context.metrics.sockets.dec();
    }
}

struct Session {
    socket: Socket,
    conn: ConnId,
    room: String,
    /// After `welcome`.
    grant: Option<Grant>,
    ice: Option<Feed>,
    offers: VecDeque<(u64, Offer)>,
    answers: u64,
    hello_tries: u32,
    hello_due: Instant,
    bucket: Bucket,
    context: Arc<Context>,
}

impl Session {
    async fn serve(&mut self, outbound: &mut tokio::sync::mpsc::Receiver<Outbound>) -> End {
        if !is_room_name(&self.room) {
            let error = Code::RoomName.error("this is not a name of a room");
            return match self.refuse(None, error).await {
                Ok(()) => End::Close(1008, "room name"),
                Err(end) => end,
            };
        }
        let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pings_missed = 0;
        loop {
            let step = tokio::select! {
                next = outbound.recv() => match next {
                    Some(next) => self.write(next, outbound).await,
                    None => Err(End::Lost),
                },
                frame = self.socket.read() => {
                    pings_missed = 0;
                    match frame {
                        Ok(frame) => self.handle_frame(frame).await,
                        Err(Gone::TooLarge) => self.too_large().await,
                        Err(gone) => Err(gone.into()),
                    }
                }
                ice_servers = next_servers(&mut self.ice) => self.send_servers(ice_servers).await,
                _ = ping.tick() => {
                    pings_missed += 1;
                    if pings_missed > PINGS_MISSED_MAX {
                        Err(End::Lost)
                    } else {
                        self.socket.ping().await.map_err(End::from)
                    }
                }
                () = sleep_until(self.hello_due), if self.grant.is_none() => {
                    let error = Code::HelloExpected.error("no hello came in time");
                    self.refuse(None, error).await.and(Err(End::Close(1008, "no hello")))
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Everything that waits goes out with one flush.
    async fn write(
        &mut self,
        first: Outbound,
        outbound: &mut tokio::sync::mpsc::Receiver<Outbound>,
    ) -> Result<(), End> {
        let mut next = Some(first);
        while let Some(outgoing) = next {
            match outgoing {
                Outbound::Text(text) => self.socket.feed(text).await?,
                Outbound::Welcome(greeting) => {
                    let message = ServerMessage::Welcome(Box::new(self.welcome(*greeting).await));
                    self.feed(&message).await?;
                }
                Outbound::Answer { re, answer } => self.answer(re, &answer).await?,
                Outbound::Close { code, reason } => {
                    self.socket.flush().await?;
                    return Err(End::Close(code, reason));
                }
            }
            next = outbound.try_recv().ok();
        }
        self.socket.flush().await?;
        Ok(())
    }

    async fn feed(&mut self, message: &ServerMessage) -> Result<(), End> {
        let Ok(text) = serde_json::to_string(message) else { return Ok(()) };
        self.socket.feed(text.into()).await?;
        Ok(())
    }

    async fn send_servers(&mut self, ice_servers: Vec<IceServer>) -> Result<(), End> {
        self.feed(&ServerMessage::IceServers { ice_servers }).await?;
        self.socket.flush().await?;
        Ok(())
    }

    async fn refuse(&mut self, re: Option<u64>, error: ProtocolError) -> Result<(), End> {
        self.context.metrics.error(&error.code);
        self.feed(&ServerMessage::Error { re, error }).await?;
        self.socket.flush().await?;
        Ok(())
    }

    async fn too_large(&mut self) -> Result<(), End> {
        let message = format!("a message may have at most {MESSAGE_BYTES_MAX} bytes");
        self.refuse(None, Code::MessageTooLarge.error(message)).await?;
        Err(Gone::TooLarge.into())
    }

    async fn handle_frame(&mut self, frame: Frame) -> Result<(), End> {
        let text = match frame {
            Frame::Text(text) => Some(text),
            Frame::Binary => None,
            Frame::Control => return Ok(()),
        };
        match self.bucket.take(Instant::now()) {
            request::Verdict::Pass => {}
            request::Verdict::Refuse { retry_after_ms } => {
                let error = Code::RateLimited.error_retry("too many requests", retry_after_ms);
                return self.refuse(text.and_then(|text| request::id_of(&text)), error).await;
            }
            request::Verdict::Cut => return Err(End::Close(1008, "too many requests")),
        }
        let Some(text) = text else {
            return self.refuse(None, Code::TextOnly.error("binary frames are not read")).await;
        };
        match request::parse(&text) {
            Ok(message) => self.handle_message(message).await,
            Err((re, error)) => self.refuse(re, error).await,
        }
    }

    async fn handle_message(&mut self, message: ClientMessage) -> Result<(), End> {
        let id = message.id();
        self.context.metrics.request(request::kind_of(&message));
        if let ClientMessage::Hello { token, resume, name, protocol, .. } = message {
            return self.hello(id, token, resume, name, protocol).await;
        }
        match self.request(id, message) {
            Ok(request) => {
                self.context.hub.input(Input::Request { conn: self.conn, re: id, request });
                Ok(())
            }
            Err(error) => self.refuse(Some(id), error).await,
        }
    }

    fn request(&mut self, id: u64, message: ClientMessage) -> Result<Request, ProtocolError> {
        let Some(grant) = &self.grant else {
            return Err(Code::HelloExpected.error("hello must come first"));
        };
        Ok(match message {
            ClientMessage::Offer { sdp, media, .. } => {
                let offer = Offer::parse(&sdp, &media, grant.role, grant.kinds.as_deref())?;
                let spec = Box::new(MediaSpec::from(&offer));
                self.offers.push_back((id, offer));
                if self.offers.len() > OFFERS_KEPT {
                    self.offers.pop_front();
                }
                Request::Offer(spec)
            }
            ClientMessage::Mute { track, muted, peer, .. } => Request::Mute { track, muted, of: peer },
            ClientMessage::Signal { to, data, .. } => {
                if serde_json::to_string(&data).map_or(0, |text| text.len()) > SIGNAL_BYTES_MAX {
                    return Err(Code::SignalTooLarge.error("data of the signal is too large"));
                }
                Request::Signal { to, data }
            }
            ClientMessage::Evict { peer, .. } => Request::Evict { peer },
            ClientMessage::Leave { .. } | ClientMessage::Hello { .. } => Request::Leave,
        })
    }

    async fn hello(
        &mut self,
        id: u64,
        token: Option<String>,
        resume: Option<String>,
        name: Option<String>,
        protocol: Option<u32>,
    ) -> Result<(), End> {
        if self.grant.is_some() {
            return self.refuse(Some(id), Code::AlreadyJoined.error("hello was said before")).await;
        }
        self.hello_tries += 1;
        self.hello_due = Instant::now() + RESUME_TIME_MAX;
        let input = if protocol.is_some_and(|protocol| protocol != PROTOCOL_VERSION) {
            Err(Code::ProtocolVersion.error("this server speaks protocol 1"))
        } else {
            match (token, resume) {
                (Some(token), None) => self.hello_with_token(id, &token, name.as_deref()),
                (None, Some(resume)) => self.hello_with_resume(id, &resume),
                (None, None) => Err(tokens::TokenError::Missing.into()),
                (Some(_), Some(_)) => Err(Code::HelloCredential.error("hello has both token and resume")),
            }
        };
        match input {
            Ok(input) => {
                self.context.hub.input(input);
                Ok(())
            }
            Err(error) => {
                self.refuse(Some(id), error).await?;
                if self.hello_tries < HELLO_TRIES_MAX { Ok(()) } else { Err(End::Close(1008, "no valid hello")) }
            }
        }
    }

    fn hello_with_token(&self, re: u64, token: &str, name: Option<&str>) -> Result<Input, ProtocolError> {
        let name = name.and_then(names::shown);
        if name.as_ref().is_some_and(|name| name.chars().count() > NAME_CHARS_MAX) {
            return Err(Code::NameTooLong.error("the name is too long"));
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = tokens::verify(token, &self.room, &self.context.keys, now_s)?;
        let in_token = claims.name.as_deref().and_then(names::shown);
        let name = in_token.or(name).or_else(|| names::shown(&claims.sub)).unwrap_or_default();
        let grant = Grant {
            name: name.chars().take(NAME_CHARS_MAX).collect(),
            identity: claims.sub,
            role: claims.role,
            kinds: claims.kinds,
        };
        let (Some(peer), Some(nonce)) = (request::random_id(), request::random_id()) else {
            return Err(Code::ServerFull.error_retry("no randomness for an id", 1000));
        };
        Ok(Input::Hello { conn: self.conn, re, room: self.room.clone(), peer, nonce, grant })
    }

    fn hello_with_resume(&self, re: u64, resume: &str) -> Result<Input, ProtocolError> {
        let participation = resume::verify(resume, &self.context.keys)
            .ok_or_else(|| Code::ResumeInvalid.error("resume token cannot be read or is not ours"))?;
        if participation.room != self.room {
            return Err(Code::ResumeInvalid.error("resume token is for another room"));
        }
        Ok(Input::Resume { conn: self.conn, re, participation })
    }

    async fn welcome(&mut self, greeting: Greeting) -> Welcome {
        let Greeting { re, room, peer, nonce, grant, resumed, roster } = greeting;
        let participation = Participation { room: room.clone(), peer: peer.clone(), nonce };
        let role = grant.role;
        let mut feed = self.context.ice.feed(&grant.identity);
        let ice_servers = feed.first().await;
        self.ice = Some(feed);
        self.grant = Some(grant);
        Welcome {
            re,
            protocol: PROTOCOL_VERSION,
            room,
            peer,
            role,
            resumed,
            ice_servers,
            roster,
            resume: resume::mint(&participation, &self.context.keys),
            limits: signaling_protocol::Limits {
                speech_slots: SPEECH_SLOTS,
                program_slots: PROGRAM_SLOTS,
                message_bytes_max: u32::try_from(MESSAGE_BYTES_MAX).unwrap_or(u32::MAX),
                resume_grace_ms: millis(self.context.resume_grace),
                ping_interval_ms: millis(PING_INTERVAL),
            },
        }
    }

    async fn answer(&mut self, re: u64, answer: &NodeAnswer) -> Result<(), End> {
        let Some(index) = self.offers.iter().position(|(id, _)| *id == re) else { return Ok(()) };
        let Some((_, offer)) = self.offers.remove(index) else { return Ok(()) };
        self.answers += 1;
        let origin = Origin { session_id: self.conn.0, version: self.answers };
        let sdp = write_answer(&offer, &answer.transport, &answer.slots, origin);
        self.feed(&ServerMessage::Answer { re, sdp }).await
    }
}

/// Never, before the welcome.
async fn next_servers(feed: &mut Option<Feed>) -> Vec<IceServer> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// 1 to 64 of `A-Z a-z 0-9 _ -`.
#[must_use]
pub fn is_room_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
