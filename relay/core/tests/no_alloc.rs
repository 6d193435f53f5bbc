//! Relaying allocates nothing: counted by an allocator that stands in for the real one in this test binary only.

mod harness;

use harness::{PEER, World, channel_data, framed};
use relay_core::{ANSWER_BYTES_MAX, Action, HEADROOM_BYTES};

#[test]
fn channel_data_in_both_directions_allocates_nothing() {
    let mut world = World::new();
    let mut turn = world.allocated("ann", "pass");
    assert_eq!(turn.bind(&mut world, 0x4001, PEER).code(), 200);
    let (id, client, peer) = (turn.id.expect("allocated"), turn.client, PEER.parse().expect("an address"));
    let message = channel_data(0x4001, &[7; 120]);
    let mut buffer = framed(&[8; 120]);
    let mut out = [0; ANSWER_BYTES_MAX];
    let mut relayed = 0;
    let counted = allocation_counter::measure(|| {
        for _ in 0..500 {
            let action = world.server.handle_client(world.now, client, &message, &mut out);
            relayed += usize::from(matches!(action, Action::ToPeer { ref payload, .. } if *payload == (4..124)));
            let back = world.server.handle_peer(world.now, id, peer, &mut buffer, 120);
            relayed +=
                usize::from(back.is_some_and(|(_, range)| range == (HEADROOM_BYTES - 4..HEADROOM_BYTES + 120)));
        }
    });
    assert_eq!((relayed, counted.count_total), (1_000, 0));
}

#[test]
fn strangers_leave_nothing_behind() {
    let mut world = World::new();
    let mut turn = world.client("ann", "pass");
    let request = turn.unsigned(stun::Method::ALLOCATE, |w| w.requested_transport(17).expect("room"));
    let mut client = turn.client;
    let mut out = [0; ANSWER_BYTES_MAX];
    let counted = allocation_counter::measure(|| {
        for n in 0..100_000_u32 {
            let source = [198, 18, (n >> 8) as u8, n as u8];
            client.address = (source, (n % 50_000) as u16 + 1).into();
            let _ = world.server.handle_client(world.now, client, &request, &mut out);
        }
    });
    assert_eq!((counted.count_total, counted.bytes_current), (0, 0));
    assert!(world.server.counters().answered(relay_core::Outcome(401)) > 10_000);
}

#[test]
fn an_idle_allocation_with_a_channel_takes_less_than_4_kib() {
    const COUNT: u64 = 500;
    let mut world = World::with(|settings| {
        settings.limits.user_allocations = u32::MAX;
        settings.limits.source_allocations = u32::MAX;
        settings.limits.unauthorized_per_s = u32::MAX;
    });
    let counted = allocation_counter::measure(|| {
        for _ in 0..COUNT {
            let mut turn = world.allocated("ann", "pass");
            assert_eq!(turn.bind(&mut world, 0x4000, PEER).code(), 200);
        }
    });
    let each = u64::try_from(counted.bytes_current).expect("kept something") / COUNT;
    assert!((200..4_096).contains(&each), "{each} bytes");
}
