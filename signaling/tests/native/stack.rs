//! One signalling server on ports of its own, and clients of it.

use std::net::SocketAddr;
use std::time::Duration;

use signaling::tokens::{Claims, Keys, mint};
use signaling::{Args, Config, Server};
use signaling_protocol::client::{Client, ClientError, Credential, Options};
use signaling_protocol::{Member, Role, ServerMessage, Welcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::media_node::MediaNode;

pub(crate) const CONTROL_TOKEN: &str = "control-token-of-the-tests";
pub(crate) const TOKEN_KEY: &str = "test:0123456789abcdef0123456789abcdef";
/// Longer than anything here takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Stack {
    pub(crate) server: Server,
}

pub(crate) fn args() -> Args {
    let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    Args {
        http: any,
        admin: any,
        control_token: Some(CONTROL_TOKEN.into()),
        token_keys: vec![TOKEN_KEY.into()],
        ..Args::default()
    }
}

impl Stack {
    pub(crate) async fn start() -> Self {
        Self::with(args()).await
    }

    pub(crate) async fn with(args: Args) -> Self {
        Self { server: Server::start(Config::load(args).unwrap()).await.unwrap() }
    }

    /// With one linked media node.
    pub(crate) async fn with_node() -> (Self, MediaNode) {
        let (stack, node) = (Self::start().await, MediaNode::start("node-a").await);
        stack.announce(&node).await;
        (stack, node)
    }

    /// Heartbeat, and wait for the link.
    pub(crate) async fn announce(&self, node: &MediaNode) {
        let body = serde_json::to_string(&node.heartbeat()).unwrap();
        assert!(self.admin("POST", "/v1/nodes", CONTROL_TOKEN, &body).await.starts_with("HTTP/1.1 204"));
        let name = node.heartbeat().node;
        eventually("the node is linked", async || {
            let nodes = self.admin("GET", "/v1/nodes", "", "").await;
            let nodes: serde_json::Value = serde_json::from_str(nodes.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            nodes[&name]["linked"] == true
        })
        .await;
    }

    pub(crate) async fn admin(&self, method: &str, path: &str, token: &str, body: &str) -> String {
        http(self.server.admin_addr(), method, path, &[("authorization", &format!("Bearer {token}"))], body).await
    }

    pub(crate) fn url(&self, room: &str) -> String {
        format!("ws://{}/v1/rooms/{room}", self.server.http_addr())
    }

    pub(crate) async fn connect(&self, room: &str) -> (Client, mpsc::Receiver<ServerMessage>) {
        Client::connect(&self.url(room), &Options::default()).await.unwrap()
    }

    pub(crate) async fn join(&self, room: &str, identity: &str, role: Role) -> Guest {
        let (client, messages) = self.connect(room).await;
        let welcome = client.hello(Credential::Token(token(room, identity, role)), None).await.unwrap();
        Guest { client, messages, welcome }
    }

    pub(crate) async fn resume(&self, room: &str, resume: &str) -> Result<Guest, ClientError> {
        let (client, messages) = self.connect(room).await;
        let welcome = client.hello(Credential::Resume(resume.into()), None).await?;
        Ok(Guest { client, messages, welcome })
    }
}

/// A client that has said hello.
pub(crate) struct Guest {
    pub(crate) client: Client,
    pub(crate) messages: mpsc::Receiver<ServerMessage>,
    pub(crate) welcome: Welcome,
}

impl Guest {
    pub(crate) fn peer(&self) -> &str {
        &self.welcome.peer
    }

    pub(crate) async fn offer(&self, sdp: &str) -> Result<String, ClientError> {
        self.client.offer(sdp.into(), vec![]).await
    }

    /// The next message, whatever it is.
    pub(crate) async fn next(&mut self) -> ServerMessage {
        tokio::time::timeout(PATIENCE, self.messages.recv()).await.expect("a message in time").expect("still open")
    }

    /// Reads on until a message fits.
    pub(crate) async fn until<T>(&mut self, pick: impl Fn(ServerMessage) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next().await) {
                return found;
            }
        }
    }

    /// The next roster line of this peer.
    pub(crate) async fn line_of(&mut self, peer: &str) -> Member {
        self.until(|message| match message {
            ServerMessage::Joined { member } if member.peer == peer => Some(member),
            _ => None,
        })
        .await
    }

    pub(crate) async fn line_where(&mut self, peer: &str, is_wanted: impl Fn(&Member) -> bool) -> Member {
        loop {
            let line = self.line_of(peer).await;
            if is_wanted(&line) {
                return line;
            }
        }
    }

    pub(crate) async fn left(&mut self, peer: &str) -> String {
        self.until(|message| match message {
            ServerMessage::Left { peer: gone, reason } if gone == peer => Some(reason),
            _ => None,
        })
        .await
    }

    pub(crate) async fn moved(&mut self) -> String {
        self.until(|message| if let ServerMessage::Moved { reason, .. } = message { Some(reason) } else { None })
            .await
    }

    /// The socket breaks without a close.
    pub(crate) fn vanish(self) -> Welcome {
        self.welcome
    }
}

pub(crate) fn keys() -> Keys {
    Keys::parse([TOKEN_KEY]).unwrap()
}

pub(crate) fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn claims(room: &str, identity: &str, role: Role) -> Claims {
    Claims { room: room.into(), sub: identity.into(), name: None, role, exp: now_s() + 3600, iat: None, kinds: None }
}

pub(crate) fn token(room: &str, identity: &str, role: Role) -> String {
    mint(&claims(room, identity, role), &keys()).unwrap()
}

/// An offer of the fixtures.
pub(crate) fn fixture(name: &str) -> String {
    let path = format!("{}/fixtures/sdp/{name}.sdp", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One plain HTTP request; the whole answer as text.
pub(crate) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
