//! Any sequence of what clients can do, against a model that only counts: ports, quotas and allocations agree at each
//! step, and everything is free again when the clients are gone.

mod harness;

use std::collections::BTreeMap;

use harness::{PEER, PEER_V6, Turn, World};
use proptest::prelude::*;
use stun::{AttributeType, Message};

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate { client: usize, kind: Kind, binds_to_fail: u32 },
    Redeem { client: usize, from: usize },
    Refresh { client: usize, seconds: u32 },
    Bind { client: usize, channel: u16, v6: bool },
    Pass { seconds: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Even,
    EvenAndNext,
    Both,
}

const CLIENTS: usize = 6;
const USER_QUOTA: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    let kind = prop::sample::select(vec![Kind::Plain, Kind::Even, Kind::EvenAndNext, Kind::Both]);
    prop_oneof![
        4 => (client.clone(), kind, prop::sample::select(vec![0, 0, 0, 1, 2, 9]))
            .prop_map(|(client, kind, binds_to_fail)| Step::Allocate { client, kind, binds_to_fail }),
        2 => (client.clone(), 0..CLIENTS).prop_map(|(client, from)| Step::Redeem { client, from }),
        3 => (client.clone(), prop::sample::select(vec![0, 0, 600, 900]))
            .prop_map(|(client, seconds)| Step::Refresh { client, seconds }),
        2 => (client, 0x4000_u16..0x4004, any::<bool>())
            .prop_map(|(client, channel, v6)| Step::Bind { client, channel, v6 }),
        2 => prop::sample::select(vec![1, 29, 31, 300, 601]).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// What a client has, by the answers it got.
#[derive(Debug, Default, Clone)]
struct Has {
    legs: usize,
    expires_s: u64,
    token: Option<Vec<u8>>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn ports_and_quotas_agree_with_a_model(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::with_ports(50_001..=50_012, |settings| {
            settings.limits.user_allocations = USER_QUOTA as u32;
        });
        let mut clients = (0..CLIENTS).map(|_| world.client("ann", "pass")).collect::<Vec<_>>();
        let mut model: BTreeMap<usize, Has> = BTreeMap::new();
        let mut now_s = 0;
        for step in steps {
            world.binds_to_fail = 0;
            match step {
                Step::Pass { seconds } => {
                    now_s += seconds;
                    world.pass(seconds);
                    model.retain(|_, has| has.expires_s > now_s);
                }
                Step::Allocate { client, kind, binds_to_fail } => {
                    world.binds_to_fail = binds_to_fail;
                    allocate(&mut world, &mut clients[client], &mut model, (client, now_s), kind);
                }
                Step::Redeem { client, from } => {
                    let token = model.get(&from).and_then(|has| has.token.clone()).unwrap_or(vec![1; 8]);
                    let got = fresh(&mut clients[client], &mut world).allocate(&mut world, |w| {
                        w.attribute(AttributeType::RESERVATION_TOKEN, &token).expect("room");
                    });
                    if got.created.is_some() {
                        let has = Has { legs: 1, expires_s: now_s + 600, token: None };
                        prop_assert!(model.insert(client, has).is_none(), "one allocation a client");
                    }
                }
                Step::Refresh { client, seconds } => {
                    let got = fresh(&mut clients[client], &mut world).refresh(&mut world, seconds);
                    prop_assert_eq!(got.code() == 200, model.contains_key(&client));
                    match model.get_mut(&client) {
                        Some(_) if seconds == 0 => drop(model.remove(&client)),
                        Some(has) => has.expires_s = now_s + u64::from(seconds),
                        None => prop_assert_eq!(got.code(), 437),
                    }
                }
                Step::Bind { client, channel, v6 } => {
                    let peer = if v6 { PEER_V6 } else { PEER };
                    let got = fresh(&mut clients[client], &mut world).bind(&mut world, channel, peer);
                    prop_assert!(model.contains_key(&client) || got.code() == 437);
                }
            }
            let legs = model.values().map(|has| has.legs).sum::<usize>();
            let reserved = world.shared.ports_used().checked_sub(legs);
            prop_assert!(reserved.is_some_and(|reserved| reserved <= model.len()), "{reserved:?} reserved");
            prop_assert_eq!(world.server.allocations(), model.len());
            prop_assert_eq!(world.shared.allocations(), model.len());
            prop_assert!(model.len() <= USER_QUOTA);
        }
        for client in &mut clients {
            fresh(client, &mut world).refresh(&mut world, 0);
        }
        prop_assert_eq!((world.shared.ports_used(), world.shared.allocations()), (0, 0));
        prop_assert_eq!(world.server.poll_timeout(), None);
    }
}

/// With a nonce that is not too old.
fn fresh<'t>(turn: &'t mut Turn, world: &mut World) -> &'t mut Turn {
    // Time enough that the limit of challenges by source plays no part.
    world.now += std::time::Duration::from_millis(200);
    turn.nonce.clear();
    turn.learn_nonce(world);
    turn
}

fn allocate(
    world: &mut World,
    turn: &mut Turn,
    model: &mut BTreeMap<usize, Has>,
    (client, now_s): (usize, u64),
    kind: Kind,
) {
    let binds_to_fail = std::mem::take(&mut world.binds_to_fail);
    let turn = fresh(turn, world);
    world.binds_to_fail = binds_to_fail;
    let got = turn.allocate(world, |w| match kind {
        Kind::Plain => {}
        Kind::Even => w.attribute(AttributeType::EVEN_PORT, &[0]).expect("room"),
        Kind::EvenAndNext => w.attribute(AttributeType::EVEN_PORT, &[0x80]).expect("room"),
        Kind::Both => w.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[2, 0, 0, 0]).expect("room"),
    });
    match got.code() {
        200 => {
            let token =
                Message::parse(&got.answer).expect("an answer").reservation_token().map(|token| token.to_vec());
            let has = Has { legs: got.relayed().len(), expires_s: now_s + 600, token };
            assert!(model.insert(client, has).is_none(), "one allocation a client");
        }
        437 => assert!(model.contains_key(&client)),
        486 => assert_eq!(model.len(), USER_QUOTA),
        508 => {}
        other => panic!("{other}"),
    }
}
