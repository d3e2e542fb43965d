//! The index of a sharded directory, read and written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fmt::Write as _;

use ckptkit_core::{EntryPath, Error, Limits, Result, Section};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};

use crate::json::{self, Failure, Skip, Text, TextMap};
use crate::names::NameIndex;

/// `<stem>.safetensors.index.json`.
pub(crate) struct Index {
    /// Strings as they are, other scalars as JSON text.
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) has_metadata: bool,
    /// Tensor and position in `shards`, in the order of the file.
    pub(crate) weight_map: Vec<(String, u32)>,
    /// Plain file names, in order of first mention.
    pub(crate) shards: Vec<String>,
    pub(crate) names: NameIndex,
}

impl Index {
    pub(crate) fn read(section: &Section, limits: &Limits) -> Result<Self> {
        let bytes = section.read(limits.header_bytes)?;
        Self::parse(&bytes).map_err(|e| e.in_file(section.name()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            Error::malformed("the index is not UTF-8 text").at(e.valid_up_to() as u64)
        })?;
        let failure = Failure::default();
        let mut raw = Raw::default();
        json::parse(text, 0, &failure, IndexSeed { failure: &failure, raw: &mut raw })?;
        let (weight_map, shards) = raw.weight_map.ok_or_else(|| {
            Error::malformed("the index has no weight_map")
                .hint("expected the index of a sharded safetensors checkpoint")
        })?;
        for name in &shards {
            check_shard_name(name)?;
        }
        let at = |i: u32| weight_map[i as usize].0.as_str();
        let names = NameIndex::new(weight_map.iter().map(|(n, _)| n.as_str()), at)
            .map_err(|(a, _)| Error::malformed(format!("weight_map has {:?} twice", at(a))))?;
        Ok(Self {
            has_metadata: raw.metadata.is_some(),
            metadata: raw.metadata.unwrap_or_default(),
            weight_map,
            shards,
            names,
        })
    }

    /// `metadata.total_size` where it is the integer that it should be.
    pub(crate) fn total_size(&self) -> Option<u64> {
        self.metadata.get("total_size")?.parse().ok()
    }
}

/// A shard lies beside its index under a plain name; anything else could point anywhere.
fn check_shard_name(name: &str) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::denied(format!("the index names the shard {name:?}, {why}"))
            .hint("shards lie beside their index: do not open this file if you do not trust it"))
    };
    match EntryPath::new(name) {
        Err(e) => refuse(e.message()),
        Ok(_) if name.contains('/') => refuse("which is not a plain file name"),
        Ok(_) if !name.ends_with(".safetensors") => refuse("which is not a .safetensors file"),
        Ok(_) => Ok(()),
    }
}

type WeightMap = (Vec<(String, u32)>, Vec<String>);

#[derive(Default)]
struct Raw {
    metadata: Option<BTreeMap<String, String>>,
    weight_map: Option<WeightMap>,
}

struct IndexSeed<'a> {
    failure: &'a Failure,
    raw: &'a mut Raw,
}

impl<'de> DeserializeSeed<'de> for IndexSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for IndexSeed<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the index as an object with metadata and weight_map")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { failure, raw } = self;
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key_seed(Text)? {
            if seen.contains(&key) {
                return Err(json::repeated(failure, "the index", &key));
            }
            match key.as_str() {
                "metadata" => {
                    let seed = TextMap { failure, what: "metadata", loose: true };
                    raw.metadata = map.next_value_seed(seed)?;
                }
                "weight_map" => {
                    raw.weight_map = Some(map.next_value_seed(WeightMapSeed)?);
                }
                _ => {
                    map.next_value_seed(Skip { failure, depth: 8 })?;
                }
            }
            seen.insert(key);
        }
        Ok(())
    }
}

struct WeightMapSeed;

impl<'de> DeserializeSeed<'de> for WeightMapSeed {
    type Value = WeightMap;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<WeightMap, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WeightMapSeed {
    type Value = WeightMap;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("weight_map as an object from tensor to shard")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut pairs = Vec::new();
        let mut shards: BTreeMap<String, u32> = BTreeMap::new();
        while let Some(name) = map.next_key_seed(Text)? {
            let shard = map.next_value_seed(Text)?;
            let next = u32::try_from(shards.len()).unwrap_or(u32::MAX);
            pairs.push((name, *shards.entry(shard).or_insert(next)));
        }
        let mut names = vec![String::new(); shards.len()];
        for (name, position) in shards {
            names[position as usize] = name;
        }
        Ok((pairs, names))
    }
}

/// The text of an index as transformers writes it: indented by 2, keys sorted, ASCII, a newline at
/// the end. `weight_map` must come sorted.
pub(crate) fn render<'a>(
    total_size: u64,
    metadata: &BTreeMap<String, String>,
    weight_map: impl Iterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for (key, value) in metadata {
        let mut text = String::new();
        quote(&mut text, value, true);
        values.insert(key, text);
    }
    values.insert("total_size", total_size.to_string());
    let mut out = String::from("{\n  \"metadata\": {");
    for (i, (key, value)) in values.iter().enumerate() {
        out.push_str(if i == 0 { "\n    " } else { ",\n    " });
        quote(&mut out, key, true);
        let _ = write!(out, ": {value}");
    }
    out.push_str("\n  },\n  \"weight_map\": {");
    for (i, (name, shard)) in weight_map.enumerate() {
        out.push_str(if i == 0 { "\n    " } else { ",\n    " });
        quote(&mut out, name, true);
        out.push_str(": ");
        quote(&mut out, shard, true);
    }
    out.push_str("\n  }\n}\n");
    out
}

/// Appends `text` as a JSON string: escaped as serde_json does, or with `ascii` as Python's `json`
/// does by default.
pub(crate) fn quote(out: &mut String, text: &str, ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c if ascii && c > '~' => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_the_two_reference_writers_do() {
        let text = "a\"\\\u{8}\u{c}\n\r\t\u{1}\u{7f}é😀/";
        let mut compact = String::new();
        quote(&mut compact, text, false);
        assert_eq!(compact, serde_json::to_string(text).unwrap());
        let mut ascii = String::new();
        quote(&mut ascii, text, true);
        // From Python: json.dumps('a"\\\b\f\n\r\t\x01\x7fé😀/')
        let expected = r#""a\"\\\b\f\n\r\t\u0001\u007f\u00e9\ud83d\ude00/""#;
        assert_eq!(ascii, expected);
    }

    #[test]
    fn shard_names_are_plain() {
        for bad in ["", "../m.safetensors", "/m.safetensors", "a/m.safetensors", "c:m.safetensors"]
            .iter()
            .chain(&["a\\m.safetensors", "./m.safetensors", "m.bin", "m\0.safetensors", ".."])
        {
            let error = check_shard_name(bad).unwrap_err();
            assert_eq!(error.kind(), ckptkit_core::ErrorKind::Denied, "{bad}");
        }
        assert!(check_shard_name("model-00001-of-00002.safetensors").is_ok());
    }
}
