//! Decoding that never fails for what an object holds.
//!
//! In: whatever the API server sends in the place of a value. Out: the value, or its default where something else stands there. A list is
//! decoded as a whole, so that one object that could not be decoded would stop the watch of all others.
//!
//! [`Lenient`] reads in one pass and keeps nothing of what it passes over. Only text that is no JSON fails.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

/// Decodes a field of somebody else's type, or leaves it empty if it does not have that type; the field is buffered for it.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// What can be read whatever stands in its place; each of the functions reads one kind of JSON value, by default as nothing.
pub(crate) trait Lenient: Default {
    /// Reads text.
    fn of_text(_: &str) -> Self {
        Self::default()
    }

    /// Reads a whole number.
    fn of_number(_: i64) -> Self {
        Self::default()
    }

    /// Reads true or false.
    fn of_bool(_: bool) -> Self {
        Self::default()
    }

    /// Reads a list to its end.
    fn of_list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }

    /// Reads an object to its end.
    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

/// Decodes what is [`Lenient`].
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

/// The one of these names that a field has, if any.
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

/// Reads a struct by the names of its fields in JSON, each into a value that is [`Lenient`], or by way of one. Other fields are passed
/// over; of those that are there twice the last counts, as it does for the API server.
macro_rules! fields {
    ($type:ty $(where $generic:ident)? { $($name:literal => $field:ident $(as $way:ty)?),+ $(,)? }) => {
        impl $(<$generic: $crate::api::lenient::Lenient>)? $crate::api::lenient::Lenient for $type {
            fn of_object<'de, A: serde::de::MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
                let mut read = Self::default();
                while let Some(name) = object.next_key_seed($crate::api::lenient::FieldName(&[$($name),+]))? {
                    match name {
                        $(Some($name) => {
                            let $crate::api::lenient::LenientDe(value) = object.next_value()?;
                            read.$field = fields!(@ value $($way)?);
                        })+
                        _ => drop(object.next_value::<serde::de::IgnoredAny>()?),
                    }
                }
                Ok(read)
            }
        }
    };
    (@ $value:ident) => { $value };
    (@ $value:ident $way:ty) => { <$way>::into($value) };
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
        let mut read = Self::new();
        while let Some(LenientDe(element)) = list.next_element()? {
            read.push(element);
        }
        Ok(read)
    }
}

/// What is no text is left out.
impl Lenient for BTreeMap<String, String> {
    fn of_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut read = Self::new();
        while let Some((key, LenientDe(text))) = object.next_entry::<_, LenientDe<Option<String>>>()? {
            text.map(|text| read.insert(key, text));
        }
        Ok(read)
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

/// Whether there is an object.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Exists(pub(crate) bool);

impl Lenient for Exists {
    fn of_object<'de, A: MapAccess<'de>>(object: A) -> Result<Self, A::Error> {
        IgnoredAny::of_object(object).map(|_| Self(true))
    }
}

/// How deep objects are buffered, in levels; nothing of use is deeper, and the parser gives up somewhere below.
const DEPTH: u8 = 32;

/// Buffers a value down to so many levels; what is deeper is passed over.
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
        let mut read = Vec::new();
        while let Some(element) = list.next_element_seed(Self(self.0.saturating_sub(1)))? {
            read.push(element);
        }
        Ok(read.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut read = serde_json::Map::new();
        while let Some(key) = object.next_key()? {
            read.insert(key, object.next_value_seed(Self(self.0.saturating_sub(1)))?);
        }
        Ok(read.into())
    }
}

/// An object that is of use as a whole or not at all; buffered.
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
