//! Asks a type for its field names, by handing it a deserializer that holds nothing and only listens. Works for plain
//! structs; a type with `#[serde(flatten)]` hides its fields and is refused.

use std::fmt;

use serde::Deserializer;
use serde::de::{self, DeserializeOwned, Visitor};

use super::SettingsError;

pub(super) fn keys_of<T: DeserializeOwned>() -> Result<Vec<&'static str>, SettingsError> {
    match T::deserialize(Listener) {
        Err(Heard::Fields(fields)) => Ok(fields.to_vec()),
        Err(Heard::Nothing) | Ok(_) => Err(SettingsError::Shape("settings must be one plain struct".to_owned())),
    }
}

struct Listener;

#[derive(Debug)]
enum Heard {
    Fields(&'static [&'static str]),
    Nothing,
}

impl<'de> Deserializer<'de> for Listener {
    type Error = Heard;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Heard> {
        Err(Heard::Nothing)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Heard> {
        Err(Heard::Fields(fields))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a listener holds no value")
    }
}

impl std::error::Error for Heard {}

impl de::Error for Heard {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self::Nothing
    }
}
