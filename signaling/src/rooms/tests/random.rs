//! Random inputs in random order: rosters agree after every step, and in the end nothing is left behind.

use proptest::prelude::*;
use sfu_control::NodeEvent;

use super::world::*;
use crate::rooms::*;

/// One random thing that happens. The numbers choose among what is there.
#[derive(Clone, Debug)]
enum Step {
    Join { room: u8, role: u8 },
    Resume(usize),
    Offer { conn: usize, certificate: u8, ufrag: u8 },
    Mute { conn: usize, muted: bool, of: Option<usize> },
    Signal { conn: usize, to: Option<usize> },
    Evict { conn: usize, target: usize },
    Leave(usize),
    Close { conn: usize, left: bool },
    Advance(u16),
    Answer { index: usize, fate: u8 },
    Event { index: usize, kind: u8 },
    Slots { first: usize, second: usize },
    LoseNode { with_peers: bool },
    LinkUp,
}

fn step() -> impl Strategy<Value = Step> {
    let n = || any::<usize>();
    prop_oneof![
        4 => (0u8..3, 0u8..4).prop_map(|(room, role)| Step::Join { room, role }),
        2 => n().prop_map(Step::Resume),
        5 => (n(), 0u8..3, 0u8..3).prop_map(|(conn, certificate, ufrag)| Step::Offer { conn, certificate, ufrag }),
        2 => (n(), any::<bool>(), prop::option::of(n())).prop_map(|(conn, muted, of)| Step::Mute { conn, muted, of }),
        1 => (n(), prop::option::of(n())).prop_map(|(conn, to)| Step::Signal { conn, to }),
        1 => (n(), n()).prop_map(|(conn, target)| Step::Evict { conn, target }),
        1 => n().prop_map(Step::Leave),
        2 => (n(), any::<bool>()).prop_map(|(conn, left)| Step::Close { conn, left }),
        2 => (0u16..6000).prop_map(Step::Advance),
        8 => (n(), 0u8..8).prop_map(|(index, fate)| Step::Answer { index, fate }),
        3 => (n(), 0u8..5).prop_map(|(index, kind)| Step::Event { index, kind }),
        2 => (n(), n()).prop_map(|(first, second)| Step::Slots { first, second }),
        1 => any::<bool>().prop_map(|with_peers| Step::LoseNode { with_peers }),
        2 => Just(Step::LinkUp),
    ]
}

fn apply(world: &mut World, step: &Step) {
    match *step {
        Step::Join { room, role } => {
            let role = [Role::Listener, Role::Speaker, Role::Publisher, Role::Moderator][usize::from(role)];
            world.join(["a", "b", "c"][usize::from(room)], role);
        }
        Step::Resume(index) => drop(world.resume(index)),
        Step::Close { conn, left } => {
            let conns: Vec<_> = world.clients.keys().copied().collect();
            if let Some(conn) = conns.get(conn % conns.len().max(1)) {
                world.close(*conn, left);
            }
        }
        Step::Advance(ms) => world.advance(Duration::from_millis(ms.into())),
        Step::Answer { index, fate } => {
            let fate = [Fate::Refused, Fate::Lost, Fate::DoneAndLost].get(usize::from(fate)).copied();
            world.answer(index, fate.unwrap_or(Fate::Done));
        }
        Step::Event { index, kind } if world.node_up => event(world, index, kind),
        Step::Slots { first, second } if world.node_up => slots(world, first, second),
        Step::LoseNode { with_peers } if world.node_up => world.lose_node(with_peers),
        Step::LinkUp if !world.node_up => world.link_up(),
        Step::Event { .. } | Step::Slots { .. } | Step::LoseNode { .. } | Step::LinkUp => {}
        Step::Offer { conn, .. }
        | Step::Mute { conn, .. }
        | Step::Signal { conn, .. }
        | Step::Evict { conn, .. }
        | Step::Leave(conn) => {
            if let (Some(conn), Some(request)) = (world.conn(conn), request(world, step)) {
                world.request(conn, request);
            }
        }
    }
}

fn request(world: &World, step: &Step) -> Option<Request> {
    let peer_at = |index: usize| {
        let participations = &world.participations;
        participations.get(index % participations.len().max(1)).map(|participation| participation.peer.clone())
    };
    Some(match *step {
        Step::Offer { certificate, ufrag, .. } => spec(certificate, ufrag),
        Step::Mute { muted, of, .. } => Request::Mute { track: TrackKind::Mic, muted, of: of.and_then(peer_at) },
        Step::Signal { to, .. } => Request::Signal { to: to.and_then(peer_at), data: serde_json::Value::Null },
        Step::Evict { target, .. } => Request::Evict { peer: peer_at(target)? },
        Step::Leave(_)
        | Step::Join { .. }
        | Step::Resume(_)
        | Step::Close { .. }
        | Step::Advance(_)
        | Step::Answer { .. }
        | Step::Event { .. }
        | Step::Slots { .. }
        | Step::LoseNode { .. }
        | Step::LinkUp => Request::Leave,
    })
}

fn slots(world: &mut World, first: usize, second: usize) {
    let peers: Vec<_> = world.node_peers.keys().cloned().collect();
    if peers.is_empty() {
        return;
    }
    let (first, second) = (&peers[first % peers.len()], &peers[second % peers.len()]);
    let room = world.node_peers[first].room.clone();
    let slots = vec![assignment(0, first), assignment(1, second)];
    world.input(Input::NodeEvent { node: NODE.into(), event: NodeEvent::Slots { room, slots } });
}

fn event(world: &mut World, index: usize, kind: u8) {
    let connected = |peer| NodeEvent::Connected { peer, srtp_profile: "x".into(), dtls_version: "1.3".into() };
    match kind {
        0 => world.event(index, connected),
        1 => world.event(index, |peer| NodeEvent::Idle { peer }),
        2 => world.event(index, |peer| NodeEvent::Active { peer }),
        3 => world.event(index, |peer| NodeEvent::TrackLive {
            track: track_of(&peer),
            peer,
            kind: sfu_control::TrackKind::Mic,
        }),
        _ => {
            let peers: Vec<_> = world.node_peers.keys().cloned().collect();
            let Some(peer) = peers.get(index % peers.len().max(1)).cloned() else { return };
            world.node_peers.remove(&peer);
            world.input(Input::NodeEvent {
                node: NODE.into(),
                event: NodeEvent::Gone { peer, reason: "closed".into() },
            });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Rosters are right after every step (see `World::check` and `Client::receive`), and in the end nothing is left.
    #[test]
    fn rosters_agree_and_nothing_is_left_behind(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            apply(&mut world, &step);
        }
        let conns: Vec<_> = world.clients.keys().copied().collect();
        for conn in conns {
            world.close(conn, false);
        }
        world.answer_all();
        world.advance(Duration::from_secs(60));
        world.answer_all();
        world.link_up();
        world.answer_all();
        prop_assert_eq!(world.rooms.counts(), Counts::default());
        prop_assert!(world.rooms.conns.is_empty() && world.rooms.node_peers.is_empty());
        prop_assert!(world.rooms.calls.is_empty() && world.rooms.parked.is_empty());
        prop_assert!(world.node_peers.is_empty(), "{:?}", world.node_peers.keys());
    }

    #[test]
    fn same_inputs_have_the_same_effects(steps in prop::collection::vec(step(), 1..60)) {
        let mut worlds = [World::new(), World::new()];
        for step in steps {
            worlds.iter_mut().for_each(|world| apply(world, &step));
            let calls = worlds.each_ref().map(|world| format!("{:?}", world.calls));
            prop_assert_eq!(&calls[0], &calls[1]);
        }
    }
}
