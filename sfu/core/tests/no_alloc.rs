//! Forwarding allocates nothing: counted by an allocator that stands in for the real one in this test binary only.

mod sim;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use sfu_core::Path;
use sim::{Client, World};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator can only be replaced by implementing this trait")]
// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn forwarding_to_fifty_listeners_allocates_nothing() {
    let mut world = World::new();
    let mut publisher = Client::connected(&mut world, 1, |_| {});
    for id in 2..52 {
        Client::connected(&mut world, id, |_| {});
    }
    let ssrc = publisher.streams[0].ssrc;
    let mut packets: Vec<Vec<u8>> = (0..1_100u64)
        .map(|n| publisher.packet((111, false), (100 + n, 960 * n as u32, ssrc), Some(30), &[7; 80]))
        .collect();
    let path = Path { remote: publisher.address };
    let mut forward = |packets: &mut [Vec<u8>]| {
        let mut sent = 0;
        for packet in packets {
            world.now += Duration::from_millis(20);
            world.node.handle_datagram(world.now, path, packet);
            sent += world.node.transmits().count();
            world.node.clear_transmits();
        }
        sent
    };
    // The first packets take a slot and name a speaker.
    let (first, rest) = packets.split_at_mut(100);
    assert_eq!(forward(first), 100 * 50);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let sent = forward(rest);
    let allocated = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!((sent, allocated), (1_000 * 50, 0));
}
