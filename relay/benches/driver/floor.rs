//! The floor: a forwarder with the sockets of a TURN server (one for all clients, one for each client's flow) that does a
//! `recvfrom`, a look-up by address and a `sendto` for each packet, and nothing else.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};

use udp::Poller;

use super::SERVER;

const LISTENER: u64 = u64::MAX - 1;

/// Never returns; the bench ends the process.
pub fn run(port: u16, peer: SocketAddr) {
    let listener = UdpSocket::bind((SERVER, port)).expect("bound");
    listener.set_nonblocking(true).expect("set");
    let mut poller = Poller::new().expect("a poller");
    poller.add(&listener, LISTENER).expect("added");
    let mut flows: Vec<(SocketAddr, UdpSocket)> = Vec::new();
    let mut places = HashMap::new();
    let mut buf = [0; 2_048];
    loop {
        let ready = poller.wait(None).expect("waited");
        for token in ready.tokens() {
            if *token != LISTENER {
                let (client, socket) = &flows[*token as usize];
                while let Ok((len, _)) = socket.recv_from(&mut buf) {
                    let _ = listener.send_to(&buf[..len], client);
                }
                continue;
            }
            while let Ok((len, client)) = listener.recv_from(&mut buf) {
                let place = *places.entry(client).or_insert_with(|| {
                    let socket = UdpSocket::bind((SERVER, 0)).expect("a port");
                    socket.set_nonblocking(true).expect("set");
                    poller.add(&socket, flows.len() as u64).expect("added");
                    flows.push((client, socket));
                    flows.len() - 1
                });
                let _ = flows[place].1.send_to(&buf[..len], peer);
            }
        }
    }
}
