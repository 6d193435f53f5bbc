//! Carillon's own signalling: the native protocol over WebSocket, with the SDP that a client makes.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use signaling_protocol::ServerMessage;
use signaling_protocol::client::{Client, ClientError, Credential, Options};
use tokio::sync::mpsc;

use super::{Access, Endpoint, JoinError, Link, Secret, TargetError};
use crate::scenario::Scenario;

/// Longer than a run may be; signalling looks at it when one joins.
const TOKEN_LIFE: Duration = Duration::from_secs(2 * 86_400);

#[derive(Debug)]
pub struct Carillon {
    /// Without a slash at its end.
    url: String,
    room_prefix: String,
    person_prefix: String,
    key: TokenKey,
}

/// The socket stays open as long as the person is there.
#[derive(Debug)]
pub struct Session {
    client: Client,
}

/// A key for room tokens, as signalling takes it: `kid:secret`.
#[derive(Clone)]
pub struct TokenKey {
    id: String,
    secret: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyError {
    #[error("token key is not in the form kid:secret")]
    Form,
    #[error("secret of the token key is shorter than 32 bytes")]
    TooShort,
}

impl TokenKey {
    /// Of several with commas or on lines the first, which is the one that mints at signalling, too.
    pub fn parse(text: &str) -> Result<Self, TokenKeyError> {
        let text = text.split([',', '\n']).map(str::trim).find(|key| !key.is_empty()).unwrap_or_default();
        let (id, secret) = text.split_once(':').filter(|(id, _)| !id.is_empty()).ok_or(TokenKeyError::Form)?;
        if secret.len() < 32 {
            return Err(TokenKeyError::TooShort);
        }
        Ok(Self { id: id.to_owned(), secret: Secret(secret.to_owned()) })
    }

    fn mint(&self, room: &str, person: &str, role: &'static str) -> Result<String, JoinError> {
        #[derive(Serialize)]
        struct Claims<'a> {
            room: &'a str,
            sub: &'a str,
            role: &'static str,
            exp: u64,
        }
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let claims = Claims { room, sub: person, role, exp: (since_1970 + TOKEN_LIFE).as_secs() };
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(self.id.clone());
        let key = EncodingKey::from_secret(self.secret.0.as_bytes());
        jsonwebtoken::encode(&header, &claims, &key).map_err(|error| JoinError::new("token", error))
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey({})", self.id)
    }
}

impl Carillon {
    pub(super) fn open(scenario: &Scenario, access: &Access) -> Result<Self, TargetError> {
        let key = access.token_key.clone();
        let key = key.ok_or(TargetError::Missing {
            kind: "carillon",
            what: "a token key (CARILLON_TOKEN_KEY or --token-key, as kid:secret)",
        })?;
        let url = scenario.target.url.trim_end_matches('/').to_owned();
        let target = &scenario.target;
        Ok(Self { url, room_prefix: target.room_prefix.clone(), person_prefix: target.person_prefix.clone(), key })
    }

    pub(super) async fn join(&self, link: &Link, endpoint: &mut dyn Endpoint) -> Result<Session, JoinError> {
        let room = format!("{}-{}", self.room_prefix, link.room);
        let person = format!("{}-{}", self.person_prefix, link.person);
        let role = match (link.publishes, link.slots) {
            (true, 0) => "publisher",
            (true, _) => "speaker",
            (false, _) => "listener",
        };
        let token = self.key.mint(&room, &person, role)?;
        let url = format!("{}/v1/rooms/{room}", self.url);
        let (client, messages) = Client::connect(&url, &Options::default()).await.map_err(|e| refusal(&e))?;
        tokio::spawn(discard(messages));
        client.hello(Credential::Token(token), None).await.map_err(|e| refusal(&e))?;
        let offer = endpoint.offer()?;
        let answer = client.offer(offer, Vec::new()).await.map_err(|e| refusal(&e))?;
        endpoint.take_answer(&answer)?;
        Ok(Session { client })
    }

    pub(super) async fn leave(&self, session: Session) {
        let _ = session.client.leave().await;
    }
}

/// A client that does not read its messages is cut off.
async fn discard(mut messages: mpsc::Receiver<ServerMessage>) {
    while messages.recv().await.is_some() {}
}

fn refusal(error: &ClientError) -> JoinError {
    let reason = match error {
        ClientError::Timeout => "signalling_timeout",
        ClientError::Closed(_) => "signalling_lost",
        ClientError::Connect(_) | ClientError::Certificate(_) => "signalling_unreachable",
        ClientError::Refused(_) | ClientError::Http { .. } => error.code().unwrap_or("refused"),
        ClientError::BadUrl | ClientError::Trust(_) | ClientError::UnexpectedAnswer => "signalling",
    };
    JoinError::new(reason, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_an_id_and_a_long_secret_and_does_not_print() {
        let key = TokenKey::parse("k1:0123456789abcdef0123456789abcdef").expect("a key");
        assert!(!format!("{key:?}").contains("0123"));
        assert_eq!(TokenKey::parse("0123456789abcdef0123456789abcdef").err(), Some(TokenKeyError::Form));
        assert_eq!(TokenKey::parse("k1:short").err(), Some(TokenKeyError::TooShort));
        let several = TokenKey::parse("k1:0123456789abcdef0123456789abcdef, k2:fedcba9876543210fedcba9876543210")
            .expect("keys");
        assert_eq!((several.id.as_str(), several.secret.0.len()), ("k1", 32));
    }
}
