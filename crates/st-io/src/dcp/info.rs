//! `DCP_SHARDING_INFO`: JSON text inside the metadata of a header.

use std::collections::HashMap;
use std::fmt;

use ckptkit_core::shape::MAX_DIMS;
use ckptkit_core::{Error, Result, ResultExt};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::SHARDING_INFO;
use crate::file::StFile;
use crate::json::{self, Failure, Integers, Skip, Text};

/// Where each piece of a file begins, by the tensor's name.
pub(super) type SavedOffsets = HashMap<String, Vec<u64>>;

/// Reads [`SHARDING_INFO`] of a file; `None` where it has none, and every piece begins at 0.
pub(super) fn sharding_info(file: &StFile) -> Result<Option<SavedOffsets>> {
    let Some(text) = file.metadata().get(SHARDING_INFO) else { return Ok(None) };
    let failure = Failure::default();
    let mut out = SavedOffsets::new();
    json::parse(text, 0, &failure, InfoSeed { failure: &failure, out: &mut out })
        .within(|| SHARDING_INFO)?;
    if let Some(name) = out.keys().find(|n| file.header().entry(n).is_none()) {
        return Err(Error::malformed(format!(
            "{SHARDING_INFO} lists tensor {name:?}, which is not in the file"
        )));
    }
    Ok(Some(out))
}

struct InfoSeed<'a> {
    failure: &'a Failure,
    out: &'a mut SavedOffsets,
}

impl<'de> DeserializeSeed<'de> for InfoSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InfoSeed<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from tensor to saved_offsets")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Text)? {
            let offsets = map
                .next_value_seed(OffsetsSeed(self.failure))
                .inspect_err(|_| self.failure.place(format!("tensor {name}")))?;
            if self.out.contains_key(&name) {
                return Err(json::repeated(self.failure, SHARDING_INFO, &name));
            }
            self.out.insert(name, offsets);
        }
        Ok(())
    }
}

struct OffsetsSeed<'a>(&'a Failure);

impl<'de> DeserializeSeed<'de> for OffsetsSeed<'_> {
    type Value = Vec<u64>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Vec<u64>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OffsetsSeed<'_> {
    type Value = Vec<u64>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with saved_offsets")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<u64>, A::Error> {
        let failure = self.0;
        let mut offsets = Vec::new();
        let mut given = false;
        while let Some(key) = map.next_key_seed(Text)? {
            if key == "saved_offsets" {
                let what = "saved_offsets";
                map.next_value_seed(Integers { failure, what, max: MAX_DIMS, out: &mut offsets })?;
                if std::mem::replace(&mut given, true) {
                    return Err(json::repeated(failure, "the entry", &key));
                }
            } else {
                map.next_value_seed(Skip { failure, depth: 4 })?;
            }
        }
        if given {
            Ok(offsets)
        } else {
            Err(failure.raise(Error::malformed("saved_offsets are missing")))
        }
    }
}
