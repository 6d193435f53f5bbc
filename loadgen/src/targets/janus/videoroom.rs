//! The VideoRoom plugin as a load needs it: rooms for sound alone, publishers with one Opus track, and listeners that take
//! all feeds of a room in one PeerConnection (Janus's multistream).
//!
//! Descriptions go through it unread; nothing here touches a media socket.

use std::time::Duration;

use serde_json::json;

use super::JanusError;
use super::link::{Event, HandleId, Jsep, Link};

const PLUGIN: &str = "janus.plugin.videoroom";
/// VideoRoom's codes of errors that are no failure here.
const ROOM_EXISTS: u32 = 427;
const NO_SUCH_FEED: u32 = 428;
/// A feed can be subscribed to when its PeerConnection is up, which Janus notices a moment after the client does.
const FEED_RETRY_INTERVAL: Duration = Duration::from_millis(20);
const FEED_RETRIES_MAX: u32 = 250;

/// Makes a room that forwards sound and does nothing else: no recording, no events of levels, no extensions for video.
/// `false`: a room of this number is there already, and is taken as it is.
pub(super) async fn create_room(link: &Link, room: u64, publishers: u32) -> Result<bool, JanusError> {
    let body = json!({
        "request": "create",
        "room": room,
        "permanent": false,
        "is_private": true,
        "publishers": publishers,
        "audiocodec": "opus",
        "opus_fec": true,
        "fir_freq": 0,
        "transport_wide_cc_ext": false,
        "videoorient_ext": false,
        "playoutdelay_ext": false,
        "audiolevel_event": false,
        "record": false,
        "notify_joining": false,
    });
    match aside(link, body).await {
        Ok(_) => Ok(true),
        Err(JanusError::Refused { code: ROOM_EXISTS, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) async fn destroy_room(link: &Link, room: u64) -> Result<(), JanusError> {
    aside(link, json!({"request": "destroy", "room": room, "permanent": false})).await.map(drop)
}

/// A request about rooms, on a handle of its own.
async fn aside(link: &Link, body: serde_json::Value) -> Result<Event, JanusError> {
    let handle = link.attach(PLUGIN).await?;
    let answer = link.ask(handle, &body).await;
    link.detach(handle).await?;
    answer
}

/// What Janus made of an offer to publish.
pub(super) struct Published {
    pub(super) handle: HandleId,
    pub(super) feed: u64,
    pub(super) answer: String,
}

pub(super) async fn publish(link: &Link, room: u64, offer: String) -> Result<Published, JanusError> {
    let handle = link.attach(PLUGIN).await?;
    let body =
        json!({"request": "joinandconfigure", "ptype": "publisher", "room": room, "audio": true, "video": false});
    let event = link.request(handle, &body, Some(Jsep::offer(offer))).await?;
    let feed = event.data["id"].as_u64().ok_or(JanusError::UnexpectedAnswer("no id of the feed"))?;
    let answer = description(event)?;
    Ok(Published { handle, feed, answer })
}

/// Asks for these feeds and gives Janus's offer of them. Waits for feeds that are not up yet.
pub(super) async fn subscribe(link: &Link, room: u64, feeds: &[u64]) -> Result<(HandleId, String), JanusError> {
    let handle = link.attach(PLUGIN).await?;
    let streams = feeds.iter().map(|feed| json!({"feed": feed})).collect::<Vec<_>>();
    let body = json!({"request": "join", "ptype": "subscriber", "room": room, "streams": streams});
    for _ in 0..FEED_RETRIES_MAX {
        match link.request(handle, &body, None).await {
            Err(JanusError::Refused { code: NO_SUCH_FEED, .. }) => tokio::time::sleep(FEED_RETRY_INTERVAL).await,
            other => return Ok((handle, description(other?)?)),
        }
    }
    Err(JanusError::FeedsNotUp)
}

/// Media of a subscription flows after this.
pub(super) async fn start(link: &Link, handle: HandleId, answer: String) -> Result<(), JanusError> {
    link.request(handle, &json!({"request": "start"}), Some(Jsep::answer(answer))).await.map(drop)
}

fn description(event: Event) -> Result<String, JanusError> {
    event.jsep.map(|jsep| jsep.sdp).ok_or(JanusError::UnexpectedAnswer("no description"))
}
