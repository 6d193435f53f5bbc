//! Joining, hearing of each other, and the requests of a call.

use sfu_control::{DtlsRole, NodeEvent, Operation, SlotAssignment};
use signaling::tokens::{Claims, mint};
use signaling_protocol::client::Credential;
use signaling_protocol::{Role, ServerMessage, TrackKind};

use crate::stack::{Stack, claims, fixture, keys};

fn code<T: std::fmt::Debug>(result: Result<T, signaling_protocol::client::ClientError>) -> String {
    result.unwrap_err().code().unwrap_or("no code").to_owned()
}

#[tokio::test]
async fn offer_is_answered_with_the_parameters_of_the_node() {
    let (stack, node) = Stack::with_node().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    let answer = ada.offer(&fixture("chromium-speaker")).await.unwrap();
    for line in
        ["a=ice-ufrag:node", "a=setup:passive", "a=ice-lite", "a=ssrc:1000 cname:carillon", "a=end-of-candidates"]
    {
        assert!(answer.lines().any(|given| given == line), "{line} in\n{answer}");
    }
    let node_peer = node.peers().remove(0);
    assert_eq!(node_peer, format!("{}.1", ada.peer()));
    let join = node.join_of(&node_peer);
    assert_eq!((join.room.as_str(), join.dtls_role), ("demo", DtlsRole::Server));
    assert_eq!((join.tracks.len(), join.slots.len()), (2, 10));
    node.connect(&node_peer);
    let peer = ada.peer().to_owned();
    let line = ada.line_where(&peer, |line| line.connected).await;
    assert_eq!(line.tracks.iter().map(|track| track.kind).collect::<Vec<_>>(), [TrackKind::Mic, TrackKind::Program]);
}

#[tokio::test]
async fn name_is_the_tokens_then_the_one_of_hello_then_sub() {
    let stack = Stack::start().await;
    for (in_token, in_hello, shown) in [
        (Some("Ada L."), Some("Bob"), "Ada L."),
        (Some("  "), Some(" Bob\n"), "Bob"),
        (None, Some("\u{7}Bob "), "Bob"),
        (None, Some(""), "ada"),
        (None, Some(" \t "), "ada"),
        (Some(""), None, "ada"),
        (None, None, "ada"),
    ] {
        let (client, _messages) = stack.connect("demo").await;
        let claims = Claims { name: in_token.map(Into::into), ..claims("demo", " ada\r\n", Role::Speaker) };
        let credential = Credential::Token(mint(&claims, &keys()).unwrap());
        let welcome = client.hello(credential, in_hello.map(Into::into)).await.unwrap();
        let own = welcome.roster.iter().find(|line| line.peer == welcome.peer).unwrap();
        assert_eq!(own.name, shown, "{in_token:?} {in_hello:?}");
        client.leave().await.unwrap();
    }
}

#[tokio::test]
async fn everybody_is_told_of_a_newcomer_and_of_one_that_leaves() {
    let (stack, _node) = Stack::with_node().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    let bob = stack.join("demo", "bob", Role::Listener).await;
    assert_eq!(bob.welcome.roster.len(), 2);
    assert_eq!(ada.line_of(bob.peer()).await.identity, "bob");
    let _elsewhere = stack.join("other", "eve", Role::Speaker).await;
    let peer = bob.peer().to_owned();
    bob.client.leave().await.unwrap();
    assert_eq!(ada.left(&peer).await, "left");
    assert!(ada.messages.is_empty());
}

#[tokio::test]
async fn slots_name_the_receivers_own_mids_and_never_its_own_voice() {
    let (stack, node) = Stack::with_node().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    let mut bob = stack.join("demo", "bob", Role::Speaker).await;
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
    bob.offer(&fixture("chromium-speaker")).await.unwrap();
    let place = |index, peer: &str, track| SlotAssignment {
        kind: sfu_control::TrackKind::Mic,
        index,
        peer: format!("{peer}.1"),
        track,
        spare: false,
    };
    let slots = vec![place(0, ada.peer(), 1), place(1, bob.peer(), 3)];
    node.emit(NodeEvent::Slots { room: "demo".into(), slots });
    let pick = |message| if let ServerMessage::Slots { slots } = message { Some(slots) } else { None };
    let (of_ada, of_bob) = (ada.until(pick).await, bob.until(pick).await);
    assert_eq!(of_ada.len(), 1);
    assert_eq!((of_ada[0].mid.as_str(), of_ada[0].peer.as_str(), of_ada[0].csrc), ("3", bob.peer(), 3));
    assert_eq!(of_bob.len(), 1);
    assert_eq!((of_bob[0].mid.as_str(), of_bob[0].peer.as_str()), ("2", ada.peer()));
}

#[tokio::test]
async fn mute_reaches_the_node_before_it_is_confirmed_and_outlives_the_connection() {
    let (stack, node) = Stack::with_node().await;
    let ada = stack.join("demo", "ada", Role::Speaker).await;
    let mut bob = stack.join("demo", "bob", Role::Listener).await;
    assert_eq!(code(ada.client.mute(TrackKind::Mic, true, None).await), "no_such_track");
    ada.offer(&fixture("chromium-speaker")).await.unwrap();
    ada.client.mute(TrackKind::Mic, true, None).await.unwrap();
    let is_mute = |op: &Operation| matches!(op, Operation::Mute { muted: true, .. });
    assert_eq!(node.operations().iter().filter(|op| is_mute(op)).count(), 1);
    let by = bob
        .until(|message| if let ServerMessage::Mute { by, muted: true, .. } = message { Some(by) } else { None })
        .await;
    assert_eq!(by, ada.peer());
    // A new connection of the same participation: muted before its answer goes out.
    let renewed = rotate_fingerprint(&fixture("chromium-speaker"));
    ada.offer(&renewed).await.unwrap();
    assert_eq!(node.operations().iter().filter(|op| is_mute(op)).count(), 2);
    assert_eq!(node.peers(), [format!("{}.2", ada.peer())]);
}

/// The same offer with another certificate.
pub(crate) fn rotate_fingerprint(sdp: &str) -> String {
    let line = sdp.lines().find(|line| line.starts_with("a=fingerprint:sha-256 ")).unwrap();
    let rotated = format!("{}00", &line[..line.len() - 2]);
    sdp.replace(line, &rotated)
}

#[tokio::test]
async fn second_offers_restart_ice_repeat_the_answer_or_replace_the_connection() {
    let (stack, node) = Stack::with_node().await;
    let ada = stack.join("demo", "ada", Role::Speaker).await;
    let offer = fixture("firefox-speaker");
    let first = ada.offer(&offer).await.unwrap();
    let again = ada.offer(&offer).await.unwrap();
    let without_origin =
        |sdp: &str| sdp.lines().filter(|line| !line.starts_with("o=")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_origin(&first), without_origin(&again));
    assert_eq!(node.operations().len(), 2, "snapshot and join");

    let line = offer.lines().find(|line| line.starts_with("a=ice-ufrag:")).unwrap();
    let restarted = ada.offer(&offer.replace(line, "a=ice-ufrag:renewed1")).await.unwrap();
    assert!(restarted.contains("a=ice-ufrag:noderestarted"));
    assert!(matches!(node.operations().last(), Some(Operation::RestartIce { ice, .. }) if ice.ufrag == "renewed1"));

    ada.offer(&rotate_fingerprint(&offer)).await.unwrap();
    assert_eq!(node.peers(), [format!("{}.2", ada.peer())]);
}

#[tokio::test]
async fn roles_are_kept() {
    let (stack, _node) = Stack::with_node().await;
    let listener = stack.join("demo", "lea", Role::Listener).await;
    assert_eq!(code(listener.offer(&fixture("chromium-speaker")).await), "role_forbids");
    let publisher = stack.join("demo", "pub", Role::Publisher).await;
    assert_eq!(code(publisher.offer(&fixture("chromium-sendrecv")).await), "role_forbids");
    let speaker = stack.join("demo", "sam", Role::Speaker).await;
    speaker.offer(&fixture("chromium-speaker")).await.unwrap();
    assert_eq!(code(speaker.client.evict(listener.peer().into()).await), "role_forbids");
    let of = Some(speaker.peer().to_owned());
    assert_eq!(code(listener.client.mute(TrackKind::Mic, true, of.clone()).await), "role_forbids");

    let moderator = stack.join("demo", "mo", Role::Moderator).await;
    moderator.client.mute(TrackKind::Mic, true, of.clone()).await.unwrap();
    assert_eq!(code(moderator.client.mute(TrackKind::Mic, false, of).await), "role_forbids");
    assert_eq!(code(moderator.client.evict("nobody".into()).await), "no_such_peer");
}

#[tokio::test]
async fn evicted_peer_is_told_why_and_is_gone_for_all() {
    let (stack, node) = Stack::with_node().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    ada.offer(&fixture("aiortc-speaker")).await.unwrap();
    let mut moderator = stack.join("demo", "mo", Role::Moderator).await;
    let peer = ada.peer().to_owned();
    moderator.client.evict(peer.clone()).await.unwrap();
    assert_eq!(ada.moved().await, "evicted");
    assert!(ada.client.closed().await.to_string().contains("4001"));
    assert_eq!(moderator.left(&peer).await, "evicted");
    crate::stack::eventually("the node lost the peer", async || node.peers().is_empty()).await;
    assert!(stack.resume("demo", &ada.welcome.resume).await.is_err());
}

#[tokio::test]
async fn signals_go_to_one_or_to_all_others() {
    let stack = Stack::start().await;
    let mut ada = stack.join("demo", "ada", Role::Speaker).await;
    let mut bob = stack.join("demo", "bob", Role::Listener).await;
    let data = serde_json::json!({"hand": true});
    bob.client.signal(Some(ada.peer().into()), data.clone()).await.unwrap();
    bob.client.signal(None, data.clone()).await.unwrap();
    for _ in 0..2 {
        let (from, given) = ada
            .until(
                |message| if let ServerMessage::Signal { from, data } = message { Some((from, data)) } else { None },
            )
            .await;
        assert_eq!((from.as_str(), given), (bob.peer(), data.clone()));
    }
    assert!(bob.messages.try_recv().is_err());
    assert_eq!(code(bob.client.signal(Some("nobody".into()), data).await), "no_such_peer");
    let large = serde_json::json!("x".repeat(17 * 1024));
    assert_eq!(code(bob.client.signal(None, large).await), "signal_too_large");
}

#[tokio::test]
async fn refusal_of_the_node_reaches_the_client_with_its_hint() {
    let (stack, node) = Stack::with_node().await;
    node.refuse_joins(sfu_control::ControlError {
        code: "node_full".into(),
        message: "node is full".into(),
        hint: "add a node".into(),
        retry_after_s: Some(3),
    });
    let ada = stack.join("demo", "ada", Role::Speaker).await;
    let signaling_protocol::client::ClientError::Refused(error) =
        ada.offer(&fixture("chromium-speaker")).await.unwrap_err()
    else {
        panic!("not an error of the server");
    };
    assert_eq!(
        (error.code.as_str(), error.hint.as_str(), error.retry_after_ms),
        ("media_refused", "add a node", Some(3000))
    );
    assert!(error.message.contains("node_full"));
}

#[tokio::test]
async fn offer_without_any_node_is_told_to_try_again() {
    let stack = Stack::start().await;
    let ada = stack.join("demo", "ada", Role::Speaker).await;
    assert_eq!(code(ada.offer(&fixture("chromium-speaker")).await), "no_node");
}
