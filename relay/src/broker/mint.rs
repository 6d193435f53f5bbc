//! Credentials of the TURN REST form (draft-uberti-behave-turn-rest-00). Pure: the clock is an argument, and nothing is
//! kept. Any relay that knows the secret can check what is minted here, ours and coturn alike.
//!
//! ```text
//! username  expiry                      Bare         (seconds since 1970)
//!           expiry ":" person           ExpiryFirst
//!           person ":" expiry           PersonFirst
//! person    base64url( HMAC-SHA256( identity key, caller, user ) )[..16]
//! password  base64( HMAC( secret, username ) )
//! ```
//!
//! User names travel in clear, so a person is a pseudonym there: the same for each credential, which quotas need, and
//! meaningless to whoever lacks the key.

use admin::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use relay_core::Hash;
use serde::Deserialize;
use sha1::Sha1;
use sha2::Sha256;

/// What a user name is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameForm {
    Bare,
    #[default]
    ExpiryFirst,
    PersonFirst,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Naming {
    pub form: NameForm,
    pub separator: char,
}

/// How long credentials live, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub default_s: u32,
    pub max_s: u32,
}

/// A secret shared with relays.
#[derive(Clone, Debug)]
pub struct RestSecret {
    pub secret: Secret,
    pub hash: Hash,
}

/// Whom a credential is for, as the caller knows them.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// Callers cannot mint for the people of one another.
    pub caller: &'a str,
    pub user: &'a str,
}

/// A user name and its password, which does not print.
#[derive(Clone)]
pub struct Credential {
    pub username: String,
    pub password: Secret,
    pub ttl_s: u32,
}

#[derive(Clone)]
pub struct Minter {
    password: PasswordMac,
    secret_ids: Vec<String>,
    person: Hmac<Sha256>,
    naming: Naming,
    lifetime: Lifetime,
}

#[derive(Clone)]
enum PasswordMac {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

/// 96 bits: two people never meet.
const PERSON_BYTES: usize = 12;
/// 32 bits tell the few secrets of an installation apart, and tell nothing of a secret that deserves the name.
const SECRET_ID_BYTES: usize = 4;

impl Minter {
    /// From the live secrets, the newest first: it signs. `None` when there is none. Without an identity key of its own
    /// the newest secret serves; pseudonyms then change with it.
    #[must_use]
    pub fn new(
        secrets: &[RestSecret],
        identity_key: Option<&Secret>,
        naming: Naming,
        lifetime: Lifetime,
    ) -> Option<Self> {
        let newest = secrets.first()?;
        let identity_key = identity_key.unwrap_or(&newest.secret);
        let derived = derive(identity_key, b"carillon person");
        Some(Self {
            password: PasswordMac::new(newest),
            secret_ids: secrets.iter().map(|secret| secret_id(&secret.secret)).collect(),
            person: keyed(&derived),
            naming,
            lifetime,
        })
    }

    /// Tells secrets apart in logs, the signing one first; the same secret has the same id everywhere.
    #[must_use]
    pub fn secret_ids(&self) -> &[String] {
        &self.secret_ids
    }

    /// A credential that is good from now on for the wanted time, capped, or for the default one.
    #[must_use]
    pub fn mint(&self, person: Person<'_>, ttl_s: Option<u32>, unix_s: u64) -> Credential {
        let ttl_s = ttl_s.unwrap_or(self.lifetime.default_s).min(self.lifetime.max_s);
        let expiry = unix_s.saturating_add(ttl_s.into());
        let separator = self.naming.separator;
        let username = match self.naming.form {
            NameForm::Bare => expiry.to_string(),
            NameForm::ExpiryFirst => format!("{expiry}{separator}{}", self.pseudonym(person)),
            NameForm::PersonFirst => format!("{}{separator}{expiry}", self.pseudonym(person)),
        };
        let password = Secret::new(self.password.of(&username));
        Credential { username, password, ttl_s }
    }

    /// What stands for a person in user names.
    #[must_use]
    pub fn pseudonym(&self, person: Person<'_>) -> String {
        let mut mac = self.person.clone();
        // With its length before it, no caller and user read like another pair.
        mac.update(&(person.caller.len() as u64).to_be_bytes());
        mac.update(person.caller.as_bytes());
        mac.update(person.user.as_bytes());
        URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..PERSON_BYTES])
    }
}

impl PasswordMac {
    fn new(secret: &RestSecret) -> Self {
        let key = secret.secret.expose().as_bytes();
        match secret.hash {
            Hash::Sha1 => Self::Sha1(Hmac::new_from_slice(key).expect("HMAC takes keys of any length")),
            Hash::Sha256 => Self::Sha256(keyed(key)),
        }
    }

    fn of(&self, username: &str) -> String {
        match self {
            Self::Sha1(mac) => STANDARD.encode(mac.clone().chain_update(username).finalize().into_bytes()),
            Self::Sha256(mac) => STANDARD.encode(mac.clone().chain_update(username).finalize().into_bytes()),
        }
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn derive(key: &Secret, purpose: &[u8]) -> [u8; 32] {
    keyed(key.expose().as_bytes()).chain_update(purpose).finalize().into_bytes().into()
}

fn secret_id(secret: &Secret) -> String {
    let derived = derive(secret, b"carillon secret id");
    derived[..SECRET_ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Debug for Minter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Minter").field("secret_ids", &self.secret_ids).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stun::{Class, IntegrityKey, Message, Method, TransactionId, Writer};

    use super::*;

    const NOW: u64 = 1_703_083_272;
    const LIFETIME: Lifetime = Lifetime { default_s: 3_600, max_s: 86_400 };
    const ADA: Person<'_> = Person { caller: "desk", user: "ada" };

    fn minter(secret: &str, hash: Hash, form: NameForm) -> Minter {
        let secrets =
            [RestSecret { secret: secret.into(), hash }, RestSecret { secret: "old".into(), hash: Hash::Sha1 }];
        Minter::new(&secrets, None, Naming { form, separator: ':' }, LIFETIME).unwrap()
    }

    #[test]
    fn passwords_are_those_of_other_tools() {
        // printf 1703086872 | openssl dgst -sha1 -hmac north -binary | base64, and the same with -sha256
        let sha1 = minter("north", Hash::Sha1, NameForm::Bare).mint(ADA, None, NOW);
        assert_eq!((sha1.username.as_str(), sha1.password.expose()), ("1703086872", "focJ/YgYH3dmbwlEcaIzQfN6Na8="));
        let sha256 = minter("north", Hash::Sha256, NameForm::Bare).mint(ADA, None, NOW);
        assert_eq!(sha256.password.expose(), "OO6UIM1yN1wXHEnfvLo+ZtiPV/BiaExCwUw0zJeY3i4=");
    }

    #[test]
    fn names_have_the_configured_form() {
        let person = minter("north", Hash::Sha1, NameForm::Bare).pseudonym(ADA);
        assert_eq!(person.len(), 16);
        let name = |form| minter("north", Hash::Sha1, form).mint(ADA, None, NOW).username;
        assert_eq!(name(NameForm::ExpiryFirst), format!("1703086872:{person}"));
        assert_eq!(name(NameForm::PersonFirst), format!("{person}:1703086872"));
    }

    #[test]
    fn a_wanted_lifetime_is_honoured_and_capped() {
        let minter = minter("north", Hash::Sha1, NameForm::Bare);
        for (wanted, given) in [(None, 3_600), (Some(60), 60), (Some(86_400), 86_400), (Some(u32::MAX), 86_400)] {
            let credential = minter.mint(ADA, wanted, NOW);
            assert_eq!(credential.ttl_s, given);
            assert_eq!(credential.username, (NOW + u64::from(given)).to_string());
        }
        assert_eq!(minter.mint(ADA, None, u64::MAX).username, u64::MAX.to_string());
    }

    #[test]
    fn the_newest_secret_signs_and_none_prints() {
        let secret = |text: &str| RestSecret { secret: text.into(), hash: Hash::Sha1 };
        let naming = Naming { form: NameForm::Bare, separator: ':' };
        let of = |secrets: &[RestSecret]| Minter::new(secrets, None, naming, LIFETIME).unwrap();
        let before = of(&[secret("first")]);
        let after = of(&[secret("second"), secret("first")]);
        let password = |minter: &Minter| minter.mint(ADA, None, NOW).password.expose().to_owned();
        assert_eq!(password(&after), password(&of(&[secret("second")])));
        assert_ne!(password(&after), password(&before));
        assert_eq!(after.secret_ids()[1], before.secret_ids()[0]);
        assert!(Minter::new(&[], None, naming, LIFETIME).is_none());
        let printed = format!("{after:?} {:?}", after.mint(ADA, None, NOW));
        assert!(!printed.contains("second") && !printed.contains(&password(&after)), "{printed}");
    }

    #[test]
    fn pseudonyms_outlive_a_rotation_when_they_have_a_key() {
        let naming = Naming { form: NameForm::ExpiryFirst, separator: ':' };
        let of = |secret: &str| {
            let secrets = [RestSecret { secret: secret.into(), hash: Hash::Sha1 }];
            Minter::new(&secrets, Some(&"identity".into()), naming, LIFETIME).unwrap().pseudonym(ADA)
        };
        assert_eq!(of("first"), of("second"));
    }

    fn pair() -> impl Strategy<Value = (String, String)> {
        ("[a-z]{0,4}", "[a-z]{0,4}")
    }

    proptest! {
        /// What a client signs with a minted password is what a server accepts that knows the secret alone.
        #[test]
        fn minted_credentials_verify_as_turn_rest(
            secret in "\\PC{1,40}", user in "\\PC{0,40}", sha256: bool, form in 0usize..3, ttl in 1u32..100_000,
        ) {
            let hash = if sha256 { Hash::Sha256 } else { Hash::Sha1 };
            let form = [NameForm::Bare, NameForm::ExpiryFirst, NameForm::PersonFirst][form];
            let credential = minter(&secret, hash, form).mint(Person { caller: "c", user: &user }, Some(ttl), NOW);
            let name = credential.username.as_bytes();
            let client = IntegrityKey::long_term(name, b"realm", credential.password.expose().as_bytes());
            let mut bytes = [0; 512];
            let id = TransactionId([7; 12]);
            let mut request = Writer::new(&mut bytes, Class::Request, Method::ALLOCATE, id).unwrap();
            request.username(name).unwrap();
            let len = request.finish(Some(&client), true).unwrap();
            let expected = if sha256 {
                STANDARD.encode(Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(name).finalize().into_bytes())
            } else {
                STANDARD.encode(Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap().chain_update(name).finalize().into_bytes())
            };
            let received = Message::parse(&bytes[..len]).unwrap();
            let server = IntegrityKey::long_term(received.username().unwrap(), b"realm", expected.as_bytes());
            prop_assert!(received.verify_integrity(&server).is_ok());
            let stranger = IntegrityKey::long_term(name, b"realm", format!("{expected}x").as_bytes());
            prop_assert!(received.verify_integrity(&stranger).is_err());
            let expiry = credential.username.split(':').find_map(|part| part.parse::<u64>().ok());
            prop_assert_eq!(expiry, Some(NOW + u64::from(ttl.min(86_400))));
            prop_assert!(credential.username.bytes().all(|byte| byte.is_ascii_graphic()));
        }

        #[test]
        fn different_people_have_different_pseudonyms(one in pair(), other in pair()) {
            let minter = minter("north", Hash::Sha1, NameForm::ExpiryFirst);
            let of = |pair: &(String, String)| minter.pseudonym(Person { caller: &pair.0, user: &pair.1 });
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }
    }
}
