//! Values into the caller's own types, through serde.

mod access;
mod array;

use std::fmt;

use ::serde::de::value::StrDeserializer;
use ::serde::de::{self, Deserialize, Deserializer, IntoDeserializer, Visitor};
use ckptkit_core::{Error, Result};

use super::{Object, Value};
use access::{Complex, Fields, Items, Variant};
use array::ArrayPart;

/// Why a value does not fit a type; where it stands is part of the message.
#[derive(Clone, Debug)]
pub struct DeserializeError(pub(super) Error);

impl fmt::Display for DeserializeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for DeserializeError {}

impl de::Error for DeserializeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Error::invalid(message.to_string()))
    }
}

impl From<DeserializeError> for Error {
    fn from(e: DeserializeError) -> Self {
        e.0
    }
}

type Done<T> = std::result::Result<T, DeserializeError>;

impl Value {
    /// The value as a type of the caller's. Objects give their plain form: a namespace, a
    /// dataclass or an OmegaConf node is a map of its attributes, an enum the value that it was
    /// made from. Tuples, sets and NumPy arrays are sequences, a tensor is its name, and integers
    /// of any size go where they fit, else into text. Costs one pass over what the type asks for.
    ///
    /// ```
    /// # fn main() -> ckptkit_core::Result<()> {
    /// #[derive(serde::Deserialize)]
    /// struct Optimizer {
    ///     lr: f64,
    ///     betas: (f64, f64),
    ///     #[serde(default)]
    ///     fused: Option<bool>,
    /// }
    /// // pickle.dumps({"lr": 0.001, "betas": (0.9, 0.999)}, protocol=0)
    /// let pickle = b"(dVlr\nF0.001\nsVbetas\n(F0.9\nF0.999\nts.";
    /// let section = ckptkit_core::Section::from_bytes(*pickle, "hparams.pkl");
    /// let file = torch_save::TorchFile::from_section(&section)?;
    /// let optimizer: Optimizer = file.lookup("")?.deserialize()?;
    /// assert_eq!((optimizer.lr, optimizer.betas.1), (0.001, 0.999));
    /// assert_eq!(optimizer.fused, None);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) where the value does not fit
    /// the type, with the keys that lead there.
    pub fn deserialize<'de, T: Deserialize<'de>>(&'de self) -> Result<T> {
        T::deserialize(self).map_err(Error::from)
    }

    /// What the value is without the class around it.
    fn plain(&self) -> Done<&Self> {
        let mut at = self;
        while let Self::Object(object) = at {
            at = match &**object {
                Object { value: Some(value), .. } => value,
                // An enum: `Color('blue')`.
                Object { args: Some(args), extra, .. } if args.len() == 1 && extra.is_empty() => {
                    &args[0]
                }
                Object { class, .. } => {
                    return Err(de::Error::custom(format_args!(
                        "an object of {class} has no plain form"
                    )));
                }
            };
        }
        Ok(at)
    }
}

fn integer<'de, V: Visitor<'de>>(digits: &'de str, visitor: V) -> Done<V::Value> {
    if let Ok(n) = digits.parse() {
        return visitor.visit_u64(n);
    }
    if let Ok(n) = digits.parse() {
        return visitor.visit_i128(n);
    }
    match digits.parse() {
        Ok(n) => visitor.visit_u128(n),
        Err(_) => visitor.visit_borrowed_str(digits),
    }
}

impl<'de> Deserializer<'de> for &'de Value {
    type Error = DeserializeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        match self.plain()? {
            Value::None => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(i) => visitor.visit_i64(*i),
            Value::BigInt(digits) => integer(digits, visitor),
            Value::Float(f) => visitor.visit_f64(*f),
            Value::Str(s) | Value::Tensor(s) | Value::Global(s) => visitor.visit_borrowed_str(s),
            Value::Surrogates(b) | Value::Bytes(b) | Value::ByteArray(b) => {
                visitor.visit_borrowed_bytes(b)
            }
            Value::Complex(re, im) => visitor.visit_seq(Complex::new(*re, *im)),
            Value::List(items)
            | Value::Tuple(items)
            | Value::Set(items)
            | Value::FrozenSet(items) => visitor.visit_seq(Items::new(items)),
            Value::Dict(pairs) => visitor.visit_map(Fields::new(pairs)),
            Value::Array(array) => ArrayPart::whole(array)?.deserialize_any(visitor),
            Value::Ref(path) => Err(de::Error::custom(format_args!(
                "the value is in a cycle with {path:?}, which no type can hold"
            ))),
            Value::Object(_) => Err(de::Error::custom("an object has no plain form")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        match self {
            Value::None => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        match self.plain()? {
            Value::BigInt(digits) => visitor.visit_borrowed_str(digits),
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        match self.plain()? {
            Value::Array(array) => visitor.visit_borrowed_bytes(&array.data),
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        match self.plain()? {
            Value::Bytes(bytes) | Value::ByteArray(bytes) => {
                visitor.visit_seq(de::value::SeqDeserializer::new(bytes.iter().copied()))
            }
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Done<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Done<V::Value> {
        self.deserialize_seq(visitor)
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
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Done<V::Value> {
        match self.plain()? {
            Value::Dict(pairs) => match &pairs[..] {
                [(key, content)] => visitor.visit_enum(Variant::new(key, content)),
                pairs => Err(de::Error::custom(format_args!(
                    "a dict of {} keys is no variant, expected its name or a dict of one key",
                    pairs.len()
                ))),
            },
            value => {
                let name = value.key_text();
                let name: StrDeserializer<'_, DeserializeError> = name.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Done<V::Value> {
        visitor.visit_unit()
    }

    ::serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char unit unit_struct map struct
        identifier
    }
}

impl<'de> IntoDeserializer<'de, DeserializeError> for &'de Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
