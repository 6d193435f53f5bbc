use std::net::SocketAddr;
use std::sync::Arc;

use admin::Readiness;
use prometheus_client::registry::Registry;

use super::*;

fn stun(address: SocketAddr) -> Check {
    Check::Stun { address: address.to_string() }
}

/// Answers one datagram with what `answer` makes of it.
async fn answering(answer: impl FnOnce(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        let (len, client) = socket.recv_from(&mut bytes).await.unwrap();
        for datagram in answer(&bytes[..len]) {
            socket.send_to(&datagram, client).await.unwrap();
        }
    });
    address
}

fn binding_answer(request: &[u8], change: u8) -> Vec<u8> {
    let mut id = *Message::parse(request).unwrap().transaction_id().as_bytes();
    id[0] ^= change;
    let mut bytes = vec![0; 128];
    let mut answer = Writer::new(&mut bytes, Class::Success, Method::BINDING, TransactionId(id)).unwrap();
    answer.xor_mapped_address("192.0.2.1:5".parse().unwrap()).unwrap();
    let len = answer.finish(None, true).unwrap();
    bytes.truncate(len);
    bytes
}

#[tokio::test]
async fn a_relay_that_answers_binding_is_good() {
    let address =
        answering(|request| vec![b"noise".to_vec(), binding_answer(request, 1), binding_answer(request, 0)]);
    assert!(probe(&stun(address.await)).await.is_ok(), "noise and answers to others are passed over");
}

#[tokio::test]
async fn answers_of_others_do_not_count() {
    let address = answering(|request| vec![vec![0; 20], binding_answer(request, 1)]).await;
    let check = stun(address);
    let outcome = tokio::time::timeout(Duration::from_millis(200), probe(&check)).await;
    // The socket is closed after its answers: silence, or a refusal of the kernel.
    assert!(!matches!(outcome, Ok(Ok(()))));
}

#[tokio::test]
async fn a_closed_port_is_bad() {
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(!matches!(tokio::time::timeout(ANSWER_TIME_MAX, probe(&stun(closed))).await, Ok(Ok(()))));
    let check = Check::Ready { authority: closed.to_string(), path: "/readyz".into() };
    assert!(matches!(probe(&check).await, Err(Bad::Io(_))));
}

#[tokio::test]
async fn a_relay_that_drains_is_left_out_at_once() {
    let readiness = Readiness::new(&["allocations"]);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = admin::server::serve(any, Arc::new(Registry::default()), readiness.clone(), None).await.unwrap();
    let entry = format!("turn:relay.example ready=http://{}/readyz", server.local_addr());
    let entry = RelayEntry::parse(&entry).unwrap();
    readiness.ready("allocations");
    assert!(probe(&entry.check).await.is_ok());
    readiness.not_ready("allocations", "draining");
    assert!(matches!(probe(&entry.check).await, Err(Bad::NotReady(StatusCode::SERVICE_UNAVAILABLE))));
    let relay = Relay::start(entry);
    assert!(relay.is_good(), "nobody has asked yet");
    let left_out = async {
        while relay.is_good() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), left_out).await.expect("one answer is enough");
    server.stop().await;
}

#[tokio::test]
async fn a_relay_without_a_check_is_good() {
    assert!(Relay::start(RelayEntry::parse("turns:relay.example").unwrap()).is_good());
}
