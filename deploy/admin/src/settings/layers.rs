//! The merged layers as one serde map in which every value remembers where it came from, so that an error names the
//! file and key, the variable, or the flag that is to blame.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::value::{SeqDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::SettingsError;

pub(super) enum Origin {
    File { path: PathBuf, key: String },
    Environment { prefix: String, key: String },
    Flag { key: String },
}

impl Origin {
    /// By the names that secrets have in our settings.
    fn is_secret(&self) -> bool {
        let (Self::File { key, .. } | Self::Environment { key, .. } | Self::Flag { key }) = self;
        ["token", "secret", "key", "password", "user", "whip", "ice_relay"].iter().any(|word| key.contains(word))
    }

    /// How `key` is written in the same layer.
    pub(super) fn spelt(&self, key: &str) -> String {
        match self {
            Self::File { .. } => key.to_owned(),
            Self::Environment { prefix, .. } => variable(prefix, key),
            Self::Flag { .. } => format!("--{}", flag(key)),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, key } => write!(f, "settings file {}, key {key}", path.display()),
            Self::Environment { key, .. } | Self::Flag { key } => f.write_str(&self.spelt(key)),
        }
    }
}

fn variable(prefix: &str, key: &str) -> String {
    format!("{prefix}{}", key.to_ascii_uppercase())
}

fn flag(key: &str) -> String {
    key.replace('_', "-")
}

pub(super) enum Value {
    Toml(toml::Value),
    /// From the environment: read as whatever the field wants.
    Text(String),
}

#[derive(Default)]
pub(super) struct Layered {
    entries: BTreeMap<String, (Origin, Value)>,
}

impl Layered {
    pub(super) fn set(&mut self, key: String, origin: Origin, value: Value) {
        self.entries.insert(key, (origin, value));
    }
}

impl<'de> Deserializer<'de> for Layered {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries { rest: self.entries.into_iter(), current: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Entries {
    rest: std::collections::btree_map::IntoIter<String, (Origin, Value)>,
    current: Option<(Origin, Value)>,
}

impl<'de> de::MapAccess<'de> for Entries {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        self.current = Some(value);
        seed.deserialize(IntoDeserializer::<Error>::into_deserializer(key)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some((origin, value)) = self.current.take() else {
            return Err(de::Error::custom("value asked for before its key"));
        };
        let result = match value {
            Value::Toml(value) => {
                let got = value.to_string();
                seed.deserialize(value).map_err(|e| with_value(&origin, in_words(e.message()), &got))
            }
            Value::Text(text) => {
                let got = format!("{:?}", text.trim());
                seed.deserialize(Text(text)).map_err(|e: Error| with_value(&origin, e.to_string(), &got))
            }
        };
        result.map_err(|message| Error::Value { origin: origin.to_string(), message })
    }
}

/// serde names the types of Rust; a person reads what they hold.
fn in_words(message: &str) -> String {
    for (ty, holds) in HOLDS {
        if let Some(before) = message.strip_suffix(&format!("expected {ty}")) {
            return format!("{before}expected {holds}");
        }
    }
    message.to_owned()
}

/// Some errors of parsers leave out what they could not read, some of serde's repeat it: the first is no help, the second
/// must not happen to a secret.
fn with_value(origin: &Origin, message: String, got: &str) -> String {
    let bare = got.trim_matches(['"', '\'']);
    let told = [format!("\"{bare}\""), format!("`{bare}`")].iter().any(|shown| message.contains(shown));
    match (origin.is_secret(), told) {
        (true, true) => "expected a list or a text of another form (its value is not shown)".to_owned(),
        (true, false) | (false, true) => message,
        (false, false) => format!("{message}, got {got}"),
    }
}

const HOLDS: [(&str, &str); 9] = [
    ("i8", "a whole number from -128 to 127"),
    ("i16", "a whole number from -32768 to 32767"),
    ("i32", "a whole number"),
    ("i64", "a whole number"),
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0"),
    ("u64", "a whole number from 0"),
    ("usize", "a whole number from 0"),
];

/// The text of an environment variable, read as the type that the field asks for.
struct Text(String);

impl Text {
    fn parse<T: std::str::FromStr>(&self, expected: &str) -> Result<T, Error> {
        let text = self.0.trim();
        text.parse().map_err(|_| de::Error::custom(format_args!("expected {expected}, got {text:?}")))
    }
}

/// A method for each scalar: parse, then hand to the visitor in the widest form.
macro_rules! scalars {
    ($($method:ident $visit:ident $ty:ty, $expected:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.parse::<$ty>($expected)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Text {
    type Error = Error;

    scalars! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_i8 visit_i8 i8, "a whole number from -128 to 127";
        deserialize_i16 visit_i16 i16, "a whole number from -32768 to 32767";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number from 0";
        deserialize_u64 visit_u64 u64, "a whole number from 0";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let items =
            self.0.split(',').map(str::trim).filter(|item| !item.is_empty()).map(|item| Self(item.to_owned()));
        visitor.visit_seq(SeqDeserializer::new(items.collect::<Vec<_>>().into_iter()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        StringDeserializer::new(self.0).deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for Text {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[derive(Debug)]
pub(super) enum Error {
    Value { origin: String, message: String },
    Missing(String),
    Other(String),
}

impl Error {
    pub(super) fn into_settings_error(self, env_prefix: &str) -> SettingsError {
        match self {
            Self::Value { origin, message } => SettingsError::BadValue { origin, message },
            Self::Missing(key) => {
                let (variable, flag) = (variable(env_prefix, &key), flag(&key));
                SettingsError::Missing { key, variable, flag }
            }
            Self::Other(message) => SettingsError::Shape(message),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value { message, .. } | Self::Other(message) => f.write_str(message),
            Self::Missing(key) => write!(f, "missing {key}"),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<M: fmt::Display>(message: M) -> Self {
        Self::Other(message.to_string())
    }

    fn missing_field(key: &'static str) -> Self {
        Self::Missing(key.to_owned())
    }
}
