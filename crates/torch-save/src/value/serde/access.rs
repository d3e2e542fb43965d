//! How serde walks sequences, maps and variants.

use std::borrow::Cow;

use ::serde::de::value::CowStrDeserializer;
use ::serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{DeserializeError, Done, Value};

/// Says under which key it was.
fn under<T>(done: Done<T>, key: impl FnOnce() -> String) -> Done<T> {
    done.map_err(|e| DeserializeError(e.0.within(key())))
}

pub(super) struct Items<'de> {
    items: std::slice::Iter<'de, Value>,
    at: usize,
}

impl<'de> Items<'de> {
    pub(super) fn new(items: &'de [Value]) -> Self {
        Self { items: items.iter(), at: 0 }
    }
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = DeserializeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Done<Option<T::Value>> {
        let Some(item) = self.items.next() else { return Ok(None) };
        self.at += 1;
        under(seed.deserialize(item), || (self.at - 1).to_string()).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// The two halves of a complex number.
pub(super) struct Complex {
    parts: [f64; 2],
    at: usize,
}

impl Complex {
    pub(super) fn new(re: f64, im: f64) -> Self {
        Self { parts: [re, im], at: 0 }
    }
}

impl<'de> SeqAccess<'de> for Complex {
    type Error = DeserializeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Done<Option<T::Value>> {
        let Some(part) = self.parts.get(self.at) else { return Ok(None) };
        self.at += 1;
        seed.deserialize((*part).into_deserializer()).map(Some)
    }
}

pub(super) struct Fields<'de> {
    pairs: std::slice::Iter<'de, (Value, Value)>,
    current: Option<&'de (Value, Value)>,
}

impl<'de> Fields<'de> {
    pub(super) fn new(pairs: &'de [(Value, Value)]) -> Self {
        Self { pairs: pairs.iter(), current: None }
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = DeserializeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Done<Option<K::Value>> {
        self.current = self.pairs.next();
        match self.current {
            Some((key, _)) => under(seed.deserialize(FieldKey(key)), || key.key_text()).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Done<V::Value> {
        match self.current {
            Some((key, value)) => under(seed.deserialize(value), || key.key_text()),
            None => Err(::serde::de::Error::custom("a value was asked for before its key")),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.pairs.len())
    }
}

/// A key: what it is, or its text where text is asked for.
struct FieldKey<'de>(&'de Value);

impl<'de> FieldKey<'de> {
    fn text<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        match self.0 {
            Value::Str(s) => visitor.visit_borrowed_str(s),
            key => visitor.visit_string(key.key_text()),
        }
    }
}

impl<'de> Deserializer<'de> for FieldKey<'de> {
    type Error = DeserializeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        self.text(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        self.0.deserialize_option(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Done<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Done<V::Value> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    ::serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct ignored_any
    }
}

/// `{name: content}`.
pub(super) struct Variant<'de> {
    name: &'de Value,
    content: &'de Value,
}

impl<'de> Variant<'de> {
    pub(super) fn new(name: &'de Value, content: &'de Value) -> Self {
        Self { name, content }
    }
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = DeserializeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Done<(V::Value, Self)> {
        let name: CowStrDeserializer<'_, DeserializeError> =
            Cow::Owned::<str>(self.name.key_text()).into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = DeserializeError;

    fn unit_variant(self) -> Done<()> {
        ::serde::Deserialize::deserialize(self.content)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Done<T::Value> {
        under(seed.deserialize(self.content), || self.name.key_text())
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Done<V::Value> {
        under(self.content.deserialize_tuple(len, visitor), || self.name.key_text())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Done<V::Value> {
        under(self.content.deserialize_map(visitor), || self.name.key_text())
    }
}
