//! Resume tokens: signed and self-contained, so that any signalling process that has the token keys can honour them,
//! also one that started after the process that gave them out was killed.
//!
//! ```text
//! base64url( {"k": kid, "r": room, "p": peer, "n": nonce} ) "." base64url( HMAC-SHA256( derived key, first part ) )
//! ```
//! The nonce is kept with the peer (and in the node's copy of it): a token dies with the participation that it names.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::tokens::Keys;

/// Separates this use of a token key from the signing of tokens.
const PURPOSE: &[u8] = b"carillon resume v1";
const TOKEN_BYTES_MAX: usize = 1024;

/// The participation that a resume token names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participation {
    #[serde(rename = "r")]
    pub room: String,
    #[serde(rename = "p")]
    pub peer: String,
    #[serde(rename = "n")]
    pub nonce: String,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(rename = "k")]
    kid: String,
    #[serde(flatten)]
    participation: Participation,
}

#[must_use]
pub fn mint(participation: &Participation, keys: &Keys) -> String {
    let (kid, secret) = keys.first();
    let payload = Payload { kid: kid.to_owned(), participation: participation.clone() };
    // Strings only: cannot fail.
    let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&payload).unwrap_or_default());
    let signature = URL_SAFE_NO_PAD.encode(mac(secret, payload.as_bytes()).finalize().into_bytes());
    format!("{payload}.{signature}")
}

/// `None` for anything that was not minted with one of the keys.
#[must_use]
pub fn verify(token: &str, keys: &Keys) -> Option<Participation> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (payload, signature) = token.split_once('.')?;
    let decoded: Payload = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    let secret = keys.secret(&decoded.kid)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    mac(secret, payload.as_bytes()).verify_slice(&signature).ok()?;
    Some(decoded.participation)
}

fn mac(secret: &[u8], payload: &[u8]) -> Hmac<Sha256> {
    let derived = keyed(secret, PURPOSE).finalize().into_bytes();
    keyed(&derived, payload)
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(key: &[u8], data: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(entries: &[&str]) -> Keys {
        Keys::parse(entries.iter().copied()).unwrap()
    }

    fn participation() -> Participation {
        Participation { room: "demo".into(), peer: "p1".into(), nonce: "n1".into() }
    }

    const OLD: &str = "old:0123456789abcdef0123456789abcdef";
    const NEW: &str = "new:fedcba9876543210fedcba9876543210";

    #[test]
    fn token_outlives_the_rotation_of_keys() {
        let token = mint(&participation(), &keys(&[OLD]));
        assert_eq!(verify(&token, &keys(&[NEW, OLD])), Some(participation()));
        assert_eq!(verify(&token, &keys(&[NEW])), None);
    }

    #[test]
    fn changed_token_is_refused() {
        let keys = keys(&[OLD]);
        let token = mint(&participation(), &keys);
        let (_, signature) = token.split_once('.').unwrap();
        let other = URL_SAFE_NO_PAD.encode(r#"{"k":"old","r":"demo","p":"p2","n":"n1"}"#);
        assert_eq!(verify(&format!("{other}.{signature}"), &keys), None);
        for broken in ["", ".", "a.b", &token[1..], &"x".repeat(5000)] {
            assert_eq!(verify(broken, &keys), None);
        }
    }

    #[test]
    fn access_token_is_not_a_resume_token() {
        let keys = keys(&[OLD]);
        let claims = crate::tokens::Claims {
            room: "demo".into(),
            sub: "ada".into(),
            name: None,
            role: signaling_protocol::Role::Speaker,
            exp: 1,
            iat: None,
            kinds: None,
        };
        assert_eq!(verify(&crate::tokens::mint(&claims, &keys).unwrap(), &keys), None);
    }
}
