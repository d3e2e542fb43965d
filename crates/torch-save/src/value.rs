//! Plain values: what an object graph says, without the graph.
//!
//! A [`Value`] is a tree. What Python shares is repeated in it, what Python nests in a cycle is cut
//! with a [`Value::Ref`], and objects that have a known plain form (OmegaConf nodes, namespaces,
//! dates, NumPy scalars …) take it, with their class beside it. Nothing is lost silently: an object
//! that nothing can make plain shows its class, arguments and state.

mod known;
mod lookup;
mod plain;
#[cfg(feature = "serde")]
mod serde;
pub(crate) mod written;

pub(crate) use plain::Context;
#[cfg(feature = "serde")]
pub use serde::DeserializeError;

/// A value without sharing; see the [module](self).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer that fits.
    Int(i64),
    /// Any other integer, in decimal.
    BigInt(String),
    /// A float.
    Float(f64),
    /// Text.
    Str(String),
    /// Text with lone surrogates, in the bytes that UTF-8 would give them.
    Surrogates(Vec<u8>),
    /// `bytes`.
    Bytes(Vec<u8>),
    /// `bytearray`.
    ByteArray(Vec<u8>),
    /// `complex`.
    Complex(f64, f64),
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A set.
    Set(Vec<Value>),
    /// A frozenset.
    FrozenSet(Vec<Value>),
    /// A dict, in its order.
    Dict(Vec<(Value, Value)>),
    /// A tensor, by its name in the file.
    Tensor(String),
    /// A NumPy array.
    Array(Box<Array>),
    /// A class or function, `module.name`.
    Global(String),
    /// The path of an enclosing value that is this one: a cycle.
    Ref(String),
    /// An object of a class: its plain form, or what it is made of.
    Object(Box<Object>),
}

/// A NumPy array: row-major, little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Array {
    /// numpy's name of the element type: `<f4`, `|b1`, `<U2`.
    pub dtype: String,
    /// Elements in every dimension.
    pub shape: Vec<u64>,
    /// The elements.
    pub data: Vec<u8>,
}

/// An object of a class.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Object {
    /// `module.name` of the class, or of the function that makes it.
    pub class: String,
    /// The arguments of the call that makes it, where there are any that `value` does not say.
    pub args: Option<Vec<Value>>,
    /// Its plain form; for an object without one the attributes that its state sets.
    pub value: Option<Value>,
    /// Further facts under fixed names: `state`, `items`, `pairs`, `default_factory`, `maxlen`.
    pub extra: Vec<(&'static str, Value)>,
}

impl Value {
    /// The text, where it is text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The integer, where it is one that fits.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The number, where it is one.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        reason = "a caller that asks an integer for a float wants the nearest one"
    )]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(f) => Some(*f),
            Self::Int(i) => Some(*i as f64),
            _ => None,
        }
    }

    /// The pairs of a dict, or of an object whose plain form is one.
    #[must_use]
    pub fn into_pairs(self) -> Option<Vec<(Self, Self)>> {
        match self {
            Self::Dict(pairs) => Some(pairs),
            Self::Object(object) => object.value?.into_pairs(),
            _ => None,
        }
    }

    /// The value with every object replaced by its plain form, where it has one: an OmegaConf node
    /// or a namespace becomes a dict, a path becomes text. Tuples and sets stay what they are.
    #[must_use]
    pub fn into_plain(self) -> Self {
        let all = |items: Vec<Self>| items.into_iter().map(Self::into_plain).collect();
        match self {
            Self::List(v) => Self::List(all(v)),
            Self::Tuple(v) => Self::Tuple(all(v)),
            Self::Set(v) => Self::Set(all(v)),
            Self::FrozenSet(v) => Self::FrozenSet(all(v)),
            Self::Dict(v) => {
                Self::Dict(v.into_iter().map(|(k, v)| (k.into_plain(), v.into_plain())).collect())
            }
            Self::Object(o) => match o.value {
                Some(value) => value.into_plain(),
                None => Self::Object(o),
            },
            other => other,
        }
    }
}
