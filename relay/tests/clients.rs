//! Two TURN clients that nobody here wrote, `turn` (over UDP and TCP) and `rtc-turn`, hold an allocation with the relay and
//! talk to a peer through it.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test stops at what it does not expect")]

mod harness;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use harness::{Process, REALM, WAIT_MAX, folder};
use rtc::sansio::Protocol;
use rtc::shared::{TransportContext, TransportMessage, TransportProtocol};
use rtc::turn::client::{Client as RtcClient, ClientConfig as RtcConfig, Event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;
use turn::client::{Client, ClientConfig};
use webrtc_util::Conn;

fn echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let address = socket.local_addr().expect("bound");
    std::thread::spawn(move || {
        let mut buf = [0; 2_048];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            socket.send_to(&buf[..len], from).expect("sent");
        }
    });
    address
}

/// The crate's client takes messages from what it believes to be a datagram socket.
struct Framed {
    local: SocketAddr,
    remote: SocketAddr,
    reader: Mutex<OwnedReadHalf>,
    writer: Mutex<OwnedWriteHalf>,
}

#[async_trait]
impl Conn for Framed {
    async fn connect(&self, _: SocketAddr) -> Result<(), webrtc_util::Error> {
        Ok(())
    }

    async fn recv(&self, buf: &mut [u8]) -> Result<usize, webrtc_util::Error> {
        let mut reader = self.reader.lock().await;
        reader.read_exact(&mut buf[..4]).await?;
        let length = usize::from(u16::from_be_bytes([buf[2], buf[3]]));
        let whole = if buf[0] < 0x40 { 20 + length } else { 4 + length };
        reader.read_exact(&mut buf[4..whole.next_multiple_of(4)]).await?;
        Ok(whole)
    }

    async fn recv_from(&self, buf: &mut [u8]) -> Result<(usize, SocketAddr), webrtc_util::Error> {
        Ok((self.recv(buf).await?, self.remote))
    }

    async fn send(&self, buf: &[u8]) -> Result<usize, webrtc_util::Error> {
        let mut padded = buf.to_vec();
        padded.resize(buf.len().next_multiple_of(4), 0);
        self.writer.lock().await.write_all(&padded).await?;
        Ok(buf.len())
    }

    async fn send_to(&self, buf: &[u8], _: SocketAddr) -> Result<usize, webrtc_util::Error> {
        self.send(buf).await
    }

    fn local_addr(&self) -> Result<SocketAddr, webrtc_util::Error> {
        Ok(self.local)
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.remote)
    }

    async fn close(&self) -> Result<(), webrtc_util::Error> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

async fn talks(server: SocketAddr, conn: Arc<dyn Conn + Send + Sync>) {
    let client = Client::new(ClientConfig {
        stun_serv_addr: server.to_string(),
        turn_serv_addr: server.to_string(),
        username: "ann".to_owned(),
        password: "the-password".to_owned(),
        realm: REALM.to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn,
        vnet: None,
    })
    .await
    .expect("a client");
    client.listen().await.expect("listening");
    let relayed = client.allocate().await.expect("an allocation");
    let peer = echo();
    let mut buf = [0; 2_048];
    // The first ones are Send indications; then the client has bound a channel.
    for n in 0..40_u8 {
        relayed.send_to(&[n; 33], peer).await.expect("sent");
        let back = tokio::time::timeout(WAIT_MAX, relayed.recv_from(&mut buf)).await.expect("in time");
        assert_eq!(back.expect("received"), (33, peer));
        assert_eq!(buf[..33], [n; 33]);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    relayed.close().await.expect("closed");
    client.close().await.expect("closed");
}

#[tokio::test]
async fn the_turn_crate_talks_over_udp() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    talks(process.udp, Arc::new(socket)).await;
}

#[tokio::test]
async fn the_turn_crate_talks_over_tcp() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    let stream = TcpStream::connect(process.tcp).await.expect("connected");
    let (local, remote) = (stream.local_addr().expect("connected"), process.tcp);
    let (reader, writer) = stream.into_split();
    let framed = Framed { local, remote, reader: Mutex::new(reader), writer: Mutex::new(writer) };
    talks(process.tcp, Arc::new(framed)).await;
}

#[test]
fn rtc_turn_talks_over_udp() {
    let folder = folder();
    let process = Process::start(folder.path(), &[]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
    let local = socket.local_addr().expect("bound");
    let config = RtcConfig {
        stun_serv_addr: process.udp.to_string(),
        turn_serv_addr: process.udp.to_string(),
        local_addr: local,
        transport_protocol: TransportProtocol::UDP,
        username: "ann".to_owned(),
        password: "the-password".to_owned(),
        realm: REALM.to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        allocation_refresh_interval_cap: None,
    };
    let provider = rtc::crypto::default_provider().expect("a provider");
    let mut client = RtcClient::new(config, provider).expect("a client");
    client.allocate(Instant::now()).expect("asked");
    let (peer, mut relayed, mut back) = (echo(), None, 0);
    let end = Instant::now() + WAIT_MAX;
    let mut buf = [0; 2_048];
    while back < 20 {
        assert!(Instant::now() < end, "{back} came back");
        while let Some(transmit) = client.poll_write() {
            socket.send_to(&transmit.message, transmit.transport.peer_addr).expect("sent");
        }
        while let Some(event) = client.poll_event() {
            match event {
                Event::AllocateResponse(_, address) => {
                    relayed = Some(address);
                    client.relay(address).expect("relayed").create_permission(Instant::now(), peer).expect("asked");
                }
                Event::CreatePermissionResponse(..) => {
                    let relay = relayed.expect("an allocation");
                    client.relay(relay).expect("relayed").send_to(Instant::now(), &[0; 44], peer).expect("sent");
                }
                Event::DataIndicationOrChannelData(_, from, data) => {
                    assert_eq!((from, &data[..]), (peer, &[back; 44][..]));
                    back += 1;
                    let relay = relayed.expect("an allocation");
                    client.relay(relay).expect("relayed").send_to(Instant::now(), &[back; 44], peer).expect("sent");
                }
                other => panic!("{other:?}"),
            }
        }
        if let Ok((len, from)) = socket.recv_from(&mut buf) {
            let transport = TransportContext {
                local_addr: local,
                peer_addr: from,
                transport_protocol: TransportProtocol::UDP,
                ecn: None,
            };
            let message = bytes::BytesMut::from(&buf[..len]);
            client.handle_read(TransportMessage { now: Instant::now(), transport, message }).expect("understood");
        }
        client.handle_timeout(Instant::now()).expect("in time");
    }
}
