//! The queue alone, then every interleaving of two threads on it (`loom`), with a bound on forced switches that keeps
//! the models within seconds.

use std::collections::VecDeque;

use loom::sync::Notify;
use proptest::prelude::*;

use super::*;

impl Word for loom::sync::atomic::AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }

    fn fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}

type Model = loom::sync::atomic::AtomicU64;

#[test]
fn messages_come_out_in_order_whole_and_no_sooner_than_they_went_in() {
    let (mut producer, mut consumer) = ring::<AtomicU64>(64);
    let mut into = [0; 32];
    assert_eq!(consumer.pop(&mut into), None);
    producer.push(b"one", 0).unwrap();
    producer.push(b"", 0).unwrap();
    producer.push(b"exactly two words", 0).unwrap();
    assert_eq!(consumer.pop(&mut into), Some(&b"one"[..]));
    assert_eq!(consumer.pop(&mut into), Some(&b""[..]));
    assert_eq!(consumer.pop(&mut into), Some(&b"exactly two words"[..]));
    assert_eq!(consumer.pop(&mut into), None);
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has() {
    let (mut producer, mut consumer) = ring::<AtomicU64>(32);
    let mut into = [0; 32];
    assert_eq!(producer.push(&[1; 25], 0), Err(Full));
    producer.push(&[1; 8], 0).unwrap();
    assert_eq!(producer.push(&[2; 8], 1), Err(Full), "the spare bytes are not for everybody");
    producer.push(&[2; 8], 0).unwrap();
    assert_eq!(producer.push(&[], 0), Err(Full));
    assert_eq!(consumer.pop(&mut into), Some(&[1; 8][..]));
    producer.push(&[3; 8], 0).unwrap();
    assert_eq!(consumer.pop(&mut into), Some(&[2; 8][..]));
    assert_eq!(consumer.pop(&mut into), Some(&[3; 8][..]));
}

#[test]
fn a_message_that_fits_nowhere_is_passed_over() {
    let (mut producer, mut consumer) = ring::<AtomicU64>(128);
    producer.push(&[1; 20], 0).unwrap();
    producer.push(&[2; 10], 0).unwrap();
    assert_eq!(consumer.pop(&mut [0; 10]), Some(&[2; 10][..]));
}

proptest! {
    #[test]
    fn behaves_as_a_queue_with_a_bound(
        steps in proptest::collection::vec(prop_oneof![(0usize..40).prop_map(Some), Just(None)], 1..300),
    ) {
        let (mut producer, mut consumer) = ring::<AtomicU64>(200);
        let (mut expected, mut into) = (VecDeque::new(), [0; 64]);
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Some(len) => {
                    let message = vec![n as u8; len];
                    let used: usize = expected.iter().map(|m: &Vec<u8>| 1 + m.len().div_ceil(8)).sum();
                    let fits = used + 1 + len.div_ceil(8) <= 25;
                    prop_assert_eq!(producer.push(&message, 0).is_ok(), fits);
                    if fits {
                        expected.push_back(message);
                    }
                }
                None => prop_assert_eq!(consumer.pop(&mut into).map(<[u8]>::to_vec), expected.pop_front()),
            }
        }
    }
}

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// The queue is smaller than what goes through it, so words are used again while the other thread works.
#[test]
fn no_interleaving_tears_or_reorders_messages() {
    check(|| {
        let (mut producer, mut consumer) = ring::<Model>(4 * WORD_BYTES);
        let sender = loom::thread::spawn(move || {
            let mut next = 1;
            while next <= 3_u8 {
                match producer.push(&[next; 9], 0) {
                    Ok(()) => next += 1,
                    Err(Full) => loom::thread::yield_now(),
                }
            }
        });
        let (mut expected, mut into) = (1, [0; 16]);
        while expected <= 3 {
            match consumer.pop(&mut into) {
                Some(message) => {
                    assert_eq!(message, [expected; 9]);
                    expected += 1;
                }
                None => loom::thread::yield_now(),
            }
        }
        sender.join().unwrap();
    });
}

/// `Notify` is the `eventfd` of a shard: a wake that nobody waits for is kept. One that is lost shows as a deadlock,
/// which the model reports.
fn sleeper_gets_all(senders: u8) {
    check(move || {
        let shared = Arc::new((Bell::<Model>::new(), Notify::new()));
        let (mut queues, mut threads) = (Vec::new(), Vec::new());
        for _ in 0..senders {
            let (mut producer, consumer) = ring::<Model>(8 * WORD_BYTES);
            queues.push(consumer);
            let shared = Arc::clone(&shared);
            threads.push(loom::thread::spawn(move || {
                producer.push(&[7], 0).unwrap();
                if shared.0.is_to_ring() {
                    shared.1.notify();
                }
            }));
        }
        let (bell, signal) = &*shared;
        let (mut taken, mut into) = (0, [0; 8]);
        while taken < senders {
            for queue in &mut queues {
                while queue.pop(&mut into).is_some() {
                    taken += 1;
                }
            }
            if taken == senders {
                break;
            }
            bell.announce();
            if queues.iter_mut().all(Consumer::is_empty) {
                signal.wait();
            }
            bell.awake();
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn no_interleaving_loses_a_wake_up() {
    sleeper_gets_all(1);
}

#[test]
fn no_interleaving_of_two_senders_loses_a_wake_up() {
    sleeper_gets_all(2);
}
