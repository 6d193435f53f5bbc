//! A connectivity check is read, verified and answered without the heap.

use allocation_counter::measure;
use stun::{Class, IntegrityKey, Message, Method, TransactionId, Writer};

#[test]
fn answering_a_check_allocates_nothing() {
    let key = IntegrityKey::short_term(b"password-of-22-letters");
    let mut request = [0; 200];
    let mut writer =
        Writer::new(&mut request, Class::Request, Method::BINDING, TransactionId([5; 12])).expect("fits");
    writer.username(b"local:remote").expect("fits");
    writer.priority(1).expect("fits");
    let len = writer.finish(Some(&key), true).expect("fits");
    let from = ([192, 0, 2, 1], 5_000).into();
    let mut answer = [0; 200];
    let mut answer_len = 0;
    let info = measure(|| {
        let message = Message::parse(&request[..len]).expect("valid");
        message.verify_integrity(&key.clone()).expect("authentic");
        assert_eq!(message.unknown_comprehension_required(&[]).count(), 2);
        let mut writer =
            Writer::new(&mut answer, Class::Success, message.method(), message.transaction_id()).expect("fits");
        writer.xor_mapped_address(from).expect("fits");
        writer.error_code(400, "Bad Request").expect("fits");
        answer_len = writer.finish(Some(&key), true).expect("fits");
    });
    assert_eq!(info.count_total, 0);
    assert_eq!(Message::parse(&answer[..answer_len]).expect("valid").xor_mapped_address(), Some(from));
}
