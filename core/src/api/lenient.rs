//! Decoding that fails only for invalid JSON: a value of another type becomes the default of the field's
//! type.
//!
//! The API server returns lists as a whole, so one object that fails to decode would stop the watch of all
//! others. [`Lenient`] decodes without a buffer and skips unknown fields.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

/// Decodes a field of a type without [`Lenient`]; `None` if the value has another type. Buffers the value.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// A type that decodes from any JSON value. Each function decodes one JSON type, by default to the default of
/// the Rust type.
pub(crate) trait Lenient: Default {
    /// Decodes a string.
    fn of_text(_: &str) -> Self {
        Self::default()
    }

    /// Decodes an integer.
    fn of_number(_: i64) -> Self {
        Self::default()
    }

    /// Decodes a boolean.
    fn of_bool(_: bool) -> Self {
        Self::default()
    }

    /// Decodes a list; consumes it to its end.
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }

    /// Decodes an object; consumes it to its end.
    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

/// Implements [`Deserialize`] for a [`Lenient`] type.
#[derive(Debug, Default)]
pub(crate) struct LenientDe<T>(pub(crate) T);

impl<'de, T: Lenient> Deserialize<'de> for LenientDe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LenientVisitor(PhantomData)).map(Self)
    }
}

struct LenientVisitor<T>(PhantomData<T>);

impl<'de, T: Lenient> Visitor<'de> for LenientVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, switch: bool) -> Result<T, E> {
        Ok(T::of_bool(switch))
    }

    fn visit_i64<E>(self, number: i64) -> Result<T, E> {
        Ok(T::of_number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<T, E> {
        Ok(i64::try_from(number).map(T::of_number).unwrap_or_default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok(T::of_text(text))
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::of_list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<T, A::Error> {
        T::of_object(object)
    }
}

/// Decodes a field name to the equal one of these names; `None` for other fields.
pub(crate) struct FieldName(pub(crate) &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().find(|known| *known == name))
    }
}

/// Implements [`Lenient`] for a struct: `fields!(Type { "jsonName" => field, "other" => field as Via })`.
///
/// Each field has a [`Lenient`] type, or decodes as the [`Lenient`] type `Via` that converts into it. Other
/// fields are skipped. Of a field that occurs twice the last value wins, as in the API server.
macro_rules! fields {
    ($type:ty $(where $generic:ident)? { $($name:literal => $field:ident $(as $via:ty)?),+ $(,)? }) => {
        impl $(<$generic: $crate::api::lenient::Lenient>)? $crate::api::lenient::Lenient for $type {
            fn of_object<'de, A: serde::de::MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
                let mut decoded = Self::default();
                while let Some(name) = object.next_key_seed($crate::api::lenient::FieldName(&[$($name),+]))? {
                    match name {
                        $(Some($name) => {
                            let $crate::api::lenient::LenientDe(value) = object.next_value()?;
                            decoded.$field = fields!(@ value $($via)?);
                        })+
                        _ => drop(object.next_value::<serde::de::IgnoredAny>()?),
                    }
                }
                Ok(decoded)
            }
        }
    };
    (@ $value:ident) => { $value };
    (@ $value:ident $via:ty) => { <$via>::into($value) };
}
pub(crate) use fields;

impl Lenient for IgnoredAny {}

impl Lenient for String {
    fn of_text(text: &str) -> Self {
        text.to_owned()
    }
}

impl Lenient for Option<String> {
    fn of_text(text: &str) -> Self {
        Some(text.to_owned())
    }
}

impl Lenient for Option<i32> {
    fn of_number(number: i64) -> Self {
        number.try_into().ok()
    }
}

impl Lenient for Option<i64> {
    fn of_number(number: i64) -> Self {
        Some(number)
    }
}

impl Lenient for Option<bool> {
    fn of_bool(switch: bool) -> Self {
        Some(switch)
    }
}

impl Lenient for Option<Time> {
    fn of_text(text: &str) -> Self {
        text.parse().ok().map(Time)
    }
}

impl<T: Lenient> Lenient for Vec<T> {
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut decoded = Self::new();
        while let Some(LenientDe(element)) = list.next_element()? {
            decoded.push(element);
        }
        Ok(decoded)
    }
}

/// Skips entries whose value is no string.
impl Lenient for BTreeMap<String, String> {
    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut decoded = Self::new();
        while let Some((key, LenientDe(text))) = object.next_entry::<_, LenientDe<Option<String>>>()? {
            text.map(|text| decoded.insert(key, text));
        }
        Ok(decoded)
    }
}

fields!(OwnerReference {
    "apiVersion" => api_version,
    "kind" => kind,
    "name" => name,
    "uid" => uid,
    "controller" => controller,
    "blockOwnerDeletion" => block_owner_deletion,
});

/// `true` if the field holds an object.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Exists(pub(crate) bool);

impl Lenient for Exists {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        IgnoredAny::of_object(object).map(|_| Self(true))
    }
}

/// Maximum depth of buffered objects, in levels. No field in use is deeper, and `serde_json` fails at 128
/// levels.
const DEPTH: u8 = 32;

/// Buffers a value down to this number of levels, and replaces deeper values by null.
#[derive(Clone, Copy)]
struct DepthLimited(u8);

impl<'de> DeserializeSeed<'de> for DepthLimited {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.0 == 0 {
            return IgnoredAny::deserialize(deserializer).map(|_| Value::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for DepthLimited {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, switch: bool) -> Result<Value, E> {
        Ok(switch.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut decoded = Vec::new();
        while let Some(element) = list.next_element_seed(Self(self.0.saturating_sub(1)))? {
            decoded.push(element);
        }
        Ok(decoded.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut decoded = serde_json::Map::new();
        while let Some(key) = object.next_key()? {
            decoded.insert(key, object.next_value_seed(Self(self.0.saturating_sub(1)))?);
        }
        Ok(decoded.into())
    }
}

/// An object that decodes as a whole or becomes `None`; buffered.
#[derive(Clone, Debug)]
pub(crate) struct BestEffort<T>(pub(crate) Option<T>);

impl<T> Default for BestEffort<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: DeserializeOwned> Lenient for BestEffort<T> {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        let value = DepthLimited(DEPTH).visit_map(object)?;
        Ok(Self(serde_json::from_value(value).ok()))
    }
}
