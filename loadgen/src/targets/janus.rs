//! VideoRoom of Janus over its WebSocket: each room of the scenario is a room made for the run, each publisher and each
//! hearer a handle. Janus separates the directions, so that a person who sends and hears has two handles; a hearer takes all
//! feeds of the room but its own as m-lines of one PeerConnection.
//!
//! All handles are on one session. Levels and slots do not exist here: Janus forwards everything that is subscribed to.

mod link;
mod videoroom;

use std::collections::HashMap;
use std::fmt;

use tokio::sync::{Mutex, OnceCell};
use tokio_tungstenite::tungstenite;

use super::{Access, Endpoint, JoinError, Link as Person, TargetError};
use crate::scenario::Scenario;

use link::{HandleId, Link};

/// The VideoRoom API takes at least this for `publishers`, and a person of it may come back.
const PUBLISHERS_SPARE: u32 = 2;

pub struct Janus {
    link: Link,
    rooms: Vec<Room>,
    first_room: u64,
    publishers: u32,
}

/// A person's place: one handle of Janus.
#[derive(Debug)]
pub struct Session(HandleId);

#[derive(Default)]
struct Room {
    /// Made by the first who comes; whether it was made by us.
    made: OnceCell<bool>,
    /// By the publisher's number in the room.
    feeds: Mutex<HashMap<u32, u64>>,
}

#[derive(Debug, thiserror::Error)]
enum JanusError {
    #[error("address is not a ws:// or wss:// URL")]
    BadUrl,
    #[error("connection failed: {0}")]
    Connect(#[source] Box<tungstenite::Error>),
    #[error("connection is closed")]
    Closed,
    #[error("no answer in time")]
    Timeout,
    #[error("refused with {code}: {reason}")]
    Refused { code: u32, reason: String },
    #[error("answer has {0}")]
    UnexpectedAnswer(&'static str),
    #[error("publishers of the room did not come up in time")]
    FeedsNotUp,
}

impl From<JanusError> for JoinError {
    fn from(error: JanusError) -> Self {
        let reason = match &error {
            JanusError::BadUrl | JanusError::Connect(_) => "janus_connect",
            JanusError::Closed => "janus_closed",
            JanusError::Timeout => "janus_timeout",
            JanusError::Refused { code, .. } => return Self::new(&format!("janus_{code}"), &error),
            JanusError::UnexpectedAnswer(_) => "janus_answer",
            JanusError::FeedsNotUp => "janus_feeds",
        };
        Self::new(reason, error)
    }
}

impl Janus {
    pub(super) async fn open(scenario: &Scenario, _: &Access) -> Result<Self, TargetError> {
        let link = Link::connect(&scenario.target.url).await;
        let link = link.map_err(|error| TargetError::Unreachable(error.to_string()))?;
        let rooms = (0..scenario.rooms.count).map(|_| Room::default()).collect();
        let first_room = first_room(&scenario.target.room_prefix);
        Ok(Self { link, rooms, first_room, publishers: scenario.rooms.publishers })
    }

    pub(super) async fn join(&self, person: &Person, endpoint: &mut dyn Endpoint) -> Result<Session, JoinError> {
        let number = self.first_room + u64::from(person.room);
        let room = usize::try_from(person.room).ok().and_then(|index| self.rooms.get(index));
        let room = room.ok_or_else(|| JoinError::new("janus_room", "the scenario has no such room"))?;
        let publishers = self.publishers.saturating_add(PUBLISHERS_SPARE);
        room.made.get_or_try_init(|| videoroom::create_room(&self.link, number, publishers)).await?;
        if person.publishes {
            return self.publish(person, number, room, endpoint).await;
        }
        let feeds = self.feeds_for(person, room).await;
        if feeds.is_empty() {
            return Err(JoinError::new("janus_feeds", "nobody publishes in the room"));
        }
        let (handle, offer) = videoroom::subscribe(&self.link, number, &feeds).await?;
        // Janus leaves the choice to us. As the client it begins when it is ready; as the server it drops what comes
        // before that, and the join would wait for a retransmission.
        let offer = offer.replace("a=setup:actpass", "a=setup:active");
        videoroom::start(&self.link, handle, endpoint.answer(&offer)?).await?;
        Ok(Session(handle))
    }

    async fn publish(
        &self,
        person: &Person,
        number: u64,
        room: &Room,
        endpoint: &mut dyn Endpoint,
    ) -> Result<Session, JoinError> {
        let published = videoroom::publish(&self.link, number, endpoint.offer()?).await?;
        endpoint.take_answer(&published.answer)?;
        room.feeds.lock().await.insert(person.person, published.feed);
        Ok(Session(published.handle))
    }

    async fn feeds_for(&self, person: &Person, room: &Room) -> Vec<u64> {
        let feeds = room.feeds.lock().await;
        let mut others = feeds.iter().filter(|(who, _)| **who != person.person).collect::<Vec<_>>();
        others.sort_unstable();
        others.into_iter().map(|(_, feed)| *feed).collect()
    }

    pub(super) async fn leave(&self, session: Session) {
        _ = self.link.detach(session.0).await;
    }

    /// Rooms that were there before stay.
    pub(super) async fn close(&self) {
        for (number, room) in (self.first_room..).zip(&self.rooms) {
            if room.made.get() == Some(&true) {
                _ = videoroom::destroy_room(&self.link, number).await;
            }
        }
        _ = self.link.destroy().await;
    }
}

impl fmt::Debug for Janus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Janus").field("rooms", &self.rooms.len()).finish_non_exhaustive()
    }
}

/// Rooms of Janus are numbers below 2^53: FNV-1a of the prefix above, the room's own number below.
fn first_room(prefix: &str) -> u64 {
    let hash = prefix.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    u64::from(hash) << 16
}

#[cfg(test)]
mod tests;
