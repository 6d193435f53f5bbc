//! A node in this process, and participants played by str0m over real UDP sockets on loopback, each on a thread of its
//! own, joined through the control link as signalling would.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::wildcard_enum_match_arm, reason = "anything else fails the test, also what is added later")]

mod wire;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sfu::{Args, Config, Node};
use sfu_control::{
    ControlClient, DtlsRole, Fingerprint, HeaderProfile, IceParameters, Join, Joined, NodeEvent, Operation,
    ReplyBody, SlotSpec, TrackKind, TrackSpec,
};
use str0m::media::MediaKind;
use str0m::net::Receive;
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc};
use tokio::sync::mpsc;
pub(crate) use wire::Wire;

pub(crate) const TOKEN: &str = "a-token-of-the-tests";
/// Generous: the machine may be busy with other tests. Nothing waits this long when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn args() -> Args {
    let any = "127.0.0.1:0".parse().ok();
    Args {
        port: Some(0),
        shards: Some(1),
        listen: "127.0.0.1".parse().ok(),
        allow_loopback: true,
        control: any,
        admin: any,
        control_token: Some(TOKEN.into()),
        node_id: Some("test-node".to_owned()),
        ..Args::default()
    }
}

pub(crate) async fn node_with(args: &Args) -> Node {
    sfu::start(Config::from_args(args).unwrap()).await.unwrap()
}

pub(crate) fn control_url(node: &Node) -> String {
    format!("ws://{}/v1/control", node.control_addr())
}

pub(crate) async fn dial(node: &Node) -> (ControlClient, mpsc::Receiver<NodeEvent>) {
    let (client, events, _) = ControlClient::connect(&control_url(node), TOKEN).await.unwrap();
    (client, events)
}

/// The first event that `pick` takes; others are passed over.
pub(crate) async fn event<T>(
    events: &mut mpsc::Receiver<NodeEvent>,
    mut pick: impl FnMut(NodeEvent) -> Option<T>,
) -> T {
    let wanted = async {
        loop {
            if let Some(found) = pick(events.recv().await.expect("control link ended")) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wanted).await.expect("event did not come")
}

/// One packet as a participant heard it.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub ssrc: u32,
    pub source: u32,
    pub payload: Vec<u8>,
}

/// A participant with one microphone that says its own name all the time, and two places to listen in.
pub(crate) struct Peer {
    pub name: String,
    pub joined: Joined,
    pub heard: mpsc::Receiver<Heard>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

const HEARD_MAX: usize = 1024;
const MIC: &str = "0";
const SLOTS: [&str; 2] = ["1", "2"];
const SPEECH_INTERVAL: Duration = Duration::from_millis(20);
const READ_TIME: Duration = Duration::from_millis(5);

/// What a join says for `rtc`.
pub(crate) fn join_of(rtc: &mut Rtc, room: &str, name: &str, ssrc: u32) -> Join {
    let api = rtc.direct_api();
    let ice = api.local_ice_credentials();
    let print = api.local_dtls_fingerprint();
    let value: Vec<_> = print.bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    Join {
        room: room.to_owned(),
        peer: name.to_owned(),
        meta: format!("meta of {name}"),
        ice: IceParameters { ufrag: ice.ufrag, pwd: ice.pass },
        fingerprint: Fingerprint { algorithm: print.hash_func.clone(), value: value.join(":") },
        dtls_role: DtlsRole::Server,
        profile: HeaderProfile { opus: 111, red: None, audio_level: Some(1), mid: Some(4), nack: false },
        replaces: false,
        tracks: vec![TrackSpec { kind: TrackKind::Mic, mid: MIC.to_owned(), ssrc: Some(ssrc) }],
        slots: SLOTS.iter().map(|mid| SlotSpec { kind: TrackKind::Mic, mid: (*mid).to_owned() }).collect(),
    }
}

pub(crate) fn rtc() -> Rtc {
    str0m::crypto::from_feature_flags().install_process_default();
    Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, false).build(Instant::now())
}

impl Peer {
    pub(crate) async fn join(control: &ControlClient, room: &str, name: &str, ssrc: u32) -> Self {
        Self::join_from(control, room, (name, ssrc), "127.0.0.1:0").await
    }

    pub(crate) async fn join_from(
        control: &ControlClient,
        room: &str,
        (name, ssrc): (&str, u32),
        from: &str,
    ) -> Self {
        let bind = |_: &mut Joined| Wire::Udp(UdpSocket::bind(from).unwrap());
        Self::join_with(control, room, (name, ssrc), bind).await
    }

    /// The same over a connection to the node's first TCP candidate.
    pub(crate) async fn join_over_tcp(control: &ControlClient, room: &str, name: &str, ssrc: u32) -> Self {
        Self::join_with(control, room, (name, ssrc), |joined| Wire::connect(joined)).await
    }

    /// `open` may change what the peer believes of the node.
    pub(crate) async fn join_with(
        control: &ControlClient,
        room: &str,
        (name, ssrc): (&str, u32),
        open: impl FnOnce(&mut Joined) -> Wire,
    ) -> Self {
        let mut rtc = rtc();
        let join = join_of(&mut rtc, room, name, ssrc);
        let mut joined = match control.call(Operation::Join(join)).await.unwrap() {
            ReplyBody::Joined(joined) => joined,
            other => panic!("{other:?}"),
        };
        let socket = open(&mut joined);
        prepare(&mut rtc, &socket, &joined, ssrc);
        let (hear, heard) = mpsc::channel(HEARD_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Worker { rtc, socket, ssrc, name: name.to_owned(), hear, stop: Arc::clone(&stop) };
        let thread = Some(std::thread::spawn(move || worker.run()));
        Self { name: name.to_owned(), joined, heard, stop, thread }
    }

    /// Waits until somebody's name is heard who is wanted, and gives the packet.
    pub(crate) async fn hears(&mut self, name: &str) -> Heard {
        let wanted = async {
            loop {
                let heard = self.heard.recv().await.expect("participant ended");
                if heard.payload == name.as_bytes() {
                    return heard;
                }
            }
        };
        let Ok(heard) = tokio::time::timeout(PATIENCE, wanted).await else {
            panic!("{} does not hear {name}", self.name);
        };
        heard
    }

    /// Forgets what has been heard so far.
    pub(crate) fn clear(&mut self) {
        while self.heard.try_recv().is_ok() {}
    }

    /// Everything heard until now.
    pub(crate) fn so_far(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }

    pub(crate) fn vanish(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.halt();
    }
}

fn prepare(rtc: &mut Rtc, socket: &Wire, joined: &Joined, ssrc: u32) {
    let protocol = socket.protocol();
    let local = Candidate::host(socket.local_addr(), protocol).unwrap();
    rtc.add_local_candidate(local.clone()).unwrap();
    let family = local.addr().is_ipv4();
    let ours = joined.candidates.iter().filter(|candidate| socket.speaks(candidate.protocol));
    for candidate in ours.filter(|candidate| candidate.address.is_ipv4() == family) {
        let address = SocketAddr::new(candidate.address, candidate.port);
        rtc.add_remote_candidate(Candidate::host(address, protocol).unwrap());
    }
    let bytes = joined.fingerprint.value.split(':').map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let mut api = rtc.direct_api();
    api.set_ice_controlling(true);
    api.set_remote_ice_credentials(IceCreds { ufrag: joined.ice.ufrag.clone(), pass: joined.ice.pwd.clone() });
    api.set_remote_fingerprint(str0m::config::Fingerprint { hash_func: joined.fingerprint.algorithm.clone(), bytes });
    api.declare_media(MIC.into(), MediaKind::Audio);
    api.declare_stream_tx(ssrc.into(), None, MIC.into(), None);
    for slot in &joined.slots {
        let mid = slot.mid.as_str().into();
        api.declare_media(mid, MediaKind::Audio);
        api.expect_stream_rx(slot.ssrc.into(), None, mid, None);
    }
    api.start_dtls(true).unwrap();
}

struct Worker {
    rtc: Rtc,
    socket: Wire,
    ssrc: u32,
    name: String,
    hear: mpsc::Sender<Heard>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        self.socket.set_read_timeout(READ_TIME);
        let (local, protocol) = (self.socket.local_addr(), self.socket.protocol());
        let mut buffer = [0; 2000];
        let (mut said, mut next) = (0_u64, Instant::now());
        while !self.stop.load(Ordering::Relaxed) && self.rtc.is_alive() {
            self.drain();
            let now = Instant::now();
            if self.rtc.is_connected() && now >= next {
                next = now + SPEECH_INTERVAL;
                self.say(said, now);
                said += 1;
                continue;
            }
            match self.socket.receive(&mut buffer) {
                Ok((length, source)) => {
                    if let Ok(receive) = Receive::new(protocol, source, local, &buffer[..length]) {
                        self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
                }
                // The node is gone: an ICMP error of an earlier send.
                Err(_) => self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap(),
            }
        }
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(out) => {
                    self.socket.send(&out.contents, out.destination);
                }
                Output::Event(Event::RtpPacket(packet)) => {
                    // A test that does not listen loses the newest.
                    let _ = self.hear.try_send(Heard {
                        ssrc: *packet.header.ssrc,
                        source: packet.header.csrc[0],
                        payload: packet.payload.to_vec(),
                    });
                }
                Output::Event(_) => {}
            }
        }
    }

    fn say(&mut self, nth: u64, now: Instant) {
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx(&self.ssrc.into()).unwrap();
        let time = u32::try_from(nth * 960).unwrap();
        stream.write_rtp(RtpWrite::new(111.into(), (1000 + nth).into(), time, now, self.name.as_bytes().to_vec()));
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
    }
}
