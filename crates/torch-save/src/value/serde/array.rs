//! NumPy arrays as nested sequences of numbers.

use ::serde::de::{self, DeserializeSeed, Deserializer, SeqAccess, Visitor};

use super::{DeserializeError, Done};
use crate::numpy::{self, Scalar};
use crate::value::Array;

/// What the first indices of an array select.
#[derive(Clone, Copy)]
pub(super) struct ArrayPart<'de> {
    dtype: &'de str,
    shape: &'de [u64],
    data: &'de [u8],
}

impl<'de> ArrayPart<'de> {
    pub(super) fn whole(array: &'de Array) -> Done<Self> {
        // Arrays of nothing could have any number of empty rows.
        if array.data.is_empty() && array.shape != [0] {
            return Err(de::Error::custom(format_args!(
                "an array of shape {:?} has no elements to give",
                array.shape
            )));
        }
        Ok(Self { dtype: &array.dtype, shape: &array.shape, data: &array.data })
    }
}

impl<'de> Deserializer<'de> for ArrayPart<'de> {
    type Error = DeserializeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        if let Some((&rows, shape)) = self.shape.split_first() {
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            let row = self.data.len().checked_div(rows).unwrap_or(0);
            let rows = self.data.chunks_exact(row.max(1));
            return visitor.visit_seq(Rows { rows, part: Self { shape, ..self } });
        }
        match numpy::element(self.dtype, self.data) {
            Some(Scalar::Bool(b)) => visitor.visit_bool(b),
            Some(Scalar::Int(i)) => visitor.visit_i64(i),
            Some(Scalar::UInt(u)) => visitor.visit_u64(u),
            Some(Scalar::Float(f)) => visitor.visit_f64(f),
            Some(Scalar::Complex(re, im)) => visitor.visit_seq(super::Complex::new(re, im)),
            Some(Scalar::Str(s)) => visitor.visit_string(s),
            Some(Scalar::Bytes(b)) => visitor.visit_byte_buf(b),
            None => Err(de::Error::custom(format_args!(
                "an array of {} has no plain elements",
                self.dtype
            ))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Done<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    ::serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Rows<'de> {
    rows: std::slice::ChunksExact<'de, u8>,
    part: ArrayPart<'de>,
}

impl<'de> SeqAccess<'de> for Rows<'de> {
    type Error = DeserializeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Done<Option<T::Value>> {
        let Some(data) = self.rows.next() else { return Ok(None) };
        seed.deserialize(ArrayPart { data, ..self.part }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rows.len())
    }
}
