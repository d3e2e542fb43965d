//! The header's JSON, straight into entries.

use std::collections::BTreeMap;
use std::fmt;

use ckptkit_core::shape::MAX_DIMS;
use ckptkit_core::{Dtype, Error, Result, TensorInfo};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::{Entry, What};
use crate::json::{self, Failure, Integers, Skip, Text, TextMap};

/// What the text says, before anything is compared across tensors.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) entries: Vec<Entry>,
    pub(super) metadata: BTreeMap<String, String>,
    /// The first of them: tensor and key.
    pub(super) unknown_keys: Option<(String, String)>,
    pub(super) null_metadata: bool,
}

/// Reads any header, or says what is wrong with it.
pub(super) fn read(text: &str) -> Result<Raw> {
    let failure = Failure::default();
    let mut raw = Raw::default();
    json::parse(text, 8, &failure, HeaderSeed { failure: &failure, raw: &mut raw })?;
    Ok(raw)
}

/// The header object.
struct HeaderSeed<'a> {
    failure: &'a Failure,
    raw: &'a mut Raw,
}

impl<'de> DeserializeSeed<'de> for HeaderSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeaderSeed<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the header as an object of tensors")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { failure, raw } = self;
        let mut has_metadata = false;
        let mut room = Room::default();
        while let Some(name) = map.next_key_seed(Text)? {
            if name == "__metadata__" {
                if std::mem::replace(&mut has_metadata, true) {
                    return Err(json::repeated(failure, "the header", &name));
                }
                let seed = TextMap { failure, what: "__metadata__", loose: false };
                match map.next_value_seed(seed)? {
                    Some(found) => raw.metadata = found,
                    None => raw.null_metadata = true,
                }
                continue;
            }
            let unknown_keys = &mut raw.unknown_keys;
            let seed = EntrySeed { failure, name: &name, unknown_keys, room: &mut room };
            match map.next_value_seed(seed) {
                Ok(fields) => {
                    let entry = fields.any_entry(name, &room.shape);
                    raw.entries.push(entry.map_err(|e| failure.raise(e))?);
                }
                Err(e) => {
                    failure.place(format!("tensor {name}"));
                    return Err(e);
                }
            }
        }
        Ok(())
    }
}

/// Where the numbers of one entry after the other are put.
#[derive(Default)]
struct Room {
    shape: Vec<u64>,
    offsets: Vec<u64>,
}

/// An entry without its name and shape.
pub(super) struct Fields<D = Dtype> {
    pub(super) dtype: D,
    pub(super) begin: u64,
    pub(super) end: u64,
}

impl Fields<Result<Dtype, String>> {
    fn any_entry(self, name: String, shape: &[u64]) -> Result<Entry> {
        let Self { dtype, begin, end } = self;
        match dtype {
            Ok(dtype) => Fields { dtype, begin, end }.entry(&name, shape),
            Err(dtype) => {
                let what = What::Unknown { name, dtype, shape: shape.to_vec() };
                Ok(Entry { what, begin, end })
            }
        }
    }
}

impl Fields {
    pub(super) fn entry(self, name: &str, shape: &[u64]) -> Result<Entry> {
        let Self { dtype, begin, end } = self;
        let info = TensorInfo::new(name, dtype, shape)?;
        let refuse =
            |why: String| Err(Error::malformed(why).within(format_args!("tensor {}", info.name())));
        let bits = u128::from(info.numel()) * u128::from(dtype.bits());
        if bits % 8 != 0 {
            return refuse(format!(
                "{dtype} of shape {:?} has {bits} bits, which is not a whole number of bytes",
                info.shape()
            ));
        }
        if end - begin != info.byte_len() {
            return refuse(format!(
                "data_offsets [{begin}, {end}] hold {} bytes, {dtype} of shape {:?} has {}",
                end - begin,
                info.shape(),
                info.byte_len()
            ));
        }
        Ok(Entry { what: What::Known(info), begin, end })
    }
}

struct EntrySeed<'a> {
    failure: &'a Failure,
    name: &'a str,
    unknown_keys: &'a mut Option<(String, String)>,
    room: &'a mut Room,
}

impl<'de> DeserializeSeed<'de> for EntrySeed<'_> {
    type Value = Fields<Result<Dtype, String>>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EntrySeed<'_> {
    type Value = Fields<Result<Dtype, String>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with dtype, shape and data_offsets")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let failure = self.failure;
        let Room { shape: dims, offsets: range } = self.room;
        let (mut dtype, mut has_shape, mut has_range) = (None, false, false);
        let mut others: Vec<String> = Vec::new();
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let repeated = match &key {
                Key::Dtype => dtype.replace(map.next_value_seed(DtypeSeed)?).is_some(),
                Key::Shape => {
                    let seed = Integers { failure, what: "shape", max: MAX_DIMS, out: dims };
                    map.next_value_seed(seed)?;
                    std::mem::replace(&mut has_shape, true)
                }
                Key::DataOffsets => {
                    let seed = Integers { failure, what: "data_offsets", max: 2, out: range };
                    map.next_value_seed(seed)?;
                    std::mem::replace(&mut has_range, true)
                }
                Key::Other(key) => {
                    // The tensor stands at depth 2, and nothing valid is deeper than 3.
                    map.next_value_seed(Skip { failure, depth: 1 })?;
                    let seen = others.contains(key);
                    if others.len() == 16 {
                        return Err(
                            failure.raise(Error::malformed("more than 16 keys are unknown"))
                        );
                    }
                    others.push(key.clone());
                    seen
                }
            };
            if repeated {
                return Err(json::repeated(failure, "the entry", key.name()));
            }
        }
        if let (None, Some(key)) = (&self.unknown_keys, others.into_iter().next()) {
            *self.unknown_keys = Some((self.name.to_owned(), key));
        }
        let missing = |key: &str| failure.raise(Error::malformed(format!("{key} is missing")));
        let dtype = dtype.ok_or_else(|| missing("dtype"))?;
        for (key, given) in [("shape", has_shape), ("data_offsets", has_range)] {
            if !given {
                return Err(missing(key));
            }
        }
        match range[..] {
            [begin, end] if begin <= end => Ok(Fields { dtype, begin, end }),
            [begin, end] => Err(failure.raise(Error::malformed(format!(
                "data_offsets [{begin}, {end}] end before they begin"
            )))),
            _ => Err(failure.raise(Error::malformed(format!(
                "data_offsets are {range:?}, expected two numbers"
            )))),
        }
    }
}

/// A key of a tensor's entry; the known ones cost no allocation.
enum Key {
    Dtype,
    Shape,
    DataOffsets,
    Other(String),
}

impl Key {
    fn name(&self) -> &str {
        match self {
            Self::Dtype => "dtype",
            Self::Shape => "shape",
            Self::DataOffsets => "data_offsets",
            Self::Other(name) => name,
        }
    }
}

struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Key, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Key, E> {
        Ok(match v {
            "dtype" => Key::Dtype,
            "shape" => Key::Shape,
            "data_offsets" => Key::DataOffsets,
            other => Key::Other(other.to_owned()),
        })
    }
}

/// A dtype; `Err` has the name of one that the format does not define.
struct DtypeSeed;

impl<'de> DeserializeSeed<'de> for DtypeSeed {
    type Value = Result<Dtype, String>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for DtypeSeed {
    type Value = Result<Dtype, String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: serde::de::Error>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Dtype::from_safetensors(v).ok_or_else(|| v.to_owned()))
    }
}
