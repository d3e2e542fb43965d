//! What the header, the index and the sharding information share: strict JSON, read in one pass
//! into the types that are wanted, with errors that say where.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;

use ckptkit_core::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, Error as DeError, MapAccess, SeqAccess, Visitor};

/// Carries our own error through serde's, which hold only text.
#[derive(Default)]
pub(crate) struct Failure {
    error: RefCell<Option<Error>>,
    places: RefCell<Vec<String>>,
}

impl Failure {
    /// Keeps `error` for [`parse`] and gives serde one of its own.
    pub(crate) fn raise<E: DeError>(&self, error: Error) -> E {
        self.error.borrow_mut().get_or_insert(error);
        E::custom("")
    }

    /// Notes the place that a failed value belongs to, from the inside out.
    pub(crate) fn place(&self, place: String) {
        self.places.borrow_mut().push(place);
    }
}

/// Reads one JSON value and nothing after it. `base` is the position of `text` in its file.
pub(crate) fn parse<'a, S: DeserializeSeed<'a>>(
    text: &'a str,
    base: u64,
    failure: &Failure,
    seed: S,
) -> Result<S::Value> {
    let mut json = serde_json::Deserializer::from_str(text);
    seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value)).map_err(|e| {
        let error = failure.error.borrow_mut().take().unwrap_or_else(|| syntax(text, &e));
        let error = error.at(base + position(text, e.line(), e.column()));
        failure.places.borrow().iter().fold(error, |error, place| error.within(place))
    })
}

fn syntax(text: &str, e: &serde_json::Error) -> Error {
    let message = e.to_string();
    let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    let error = Error::malformed(format!("not the expected JSON: {what}"));
    if text.starts_with('\u{feff}') {
        error.hint("the text starts with a byte order mark: write it without one")
    } else if text.contains('\0') {
        error.hint("padding must be spaces, not NUL bytes")
    } else {
        error
    }
}

/// The byte that serde_json's line and column (both from 1) speak of.
fn position(text: &str, line: usize, column: usize) -> u64 {
    let lines = text.split_inclusive('\n').take(line.saturating_sub(1));
    let start: usize = lines.map(str::len).sum();
    (start + column.saturating_sub(1)).min(text.len()) as u64
}

/// A plain JSON integer that fits `u64`: not `4.0`, `1e0`, `-0` or `-1`.
pub(crate) struct Integer<'f>(pub(crate) &'f Failure);

impl<'de> DeserializeSeed<'de> for Integer<'_> {
    type Value = u64;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<u64, D::Error> {
        json.deserialize_u64(self)
    }
}

impl Visitor<'_> for Integer<'_> {
    type Value = u64;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a non-negative integer")
    }
    fn visit_u64<E: DeError>(self, v: u64) -> Result<u64, E> {
        Ok(v)
    }
    fn visit_i64<E: DeError>(self, v: i64) -> Result<u64, E> {
        Err(self.0.raise(Error::malformed(format!("found {v}, expected a non-negative integer"))))
    }
    fn visit_f64<E: DeError>(self, v: f64) -> Result<u64, E> {
        Err(self.0.raise(Error::malformed(format!(
            "found {v:?}, expected a plain integer from 0 to 2^64-1 (no fraction, exponent or sign)"
        ))))
    }
}

/// A list of at most `max` [`Integer`]s, which takes the place of what is in `out`.
pub(crate) struct Integers<'f> {
    pub(crate) failure: &'f Failure,
    pub(crate) what: &'static str,
    pub(crate) max: usize,
    pub(crate) out: &'f mut Vec<u64>,
}

impl<'de> DeserializeSeed<'de> for Integers<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Integers<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as a list of integers", self.what)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.out.clear();
        while let Some(n) = seq.next_element_seed(Integer(self.failure))? {
            if self.out.len() == self.max {
                return Err(self.failure.raise(Error::malformed(format!(
                    "{} has more than {} numbers",
                    self.what, self.max
                ))));
            }
            self.out.push(n);
        }
        Ok(())
    }
}

/// A string.
pub(crate) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<String, D::Error> {
        json.deserialize_string(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_str<E: DeError>(self, v: &str) -> Result<String, E> {
        Ok(v.to_owned())
    }
    fn visit_string<E: DeError>(self, v: String) -> Result<String, E> {
        Ok(v)
    }
}

/// An object of strings; with `loose`, other values too, numbers and such as their JSON text.
/// `null` reads as `None`.
pub(crate) struct TextMap<'f> {
    pub(crate) failure: &'f Failure,
    pub(crate) what: &'static str,
    pub(crate) loose: bool,
}

impl<'de> DeserializeSeed<'de> for TextMap<'_> {
    type Value = Option<BTreeMap<String, String>>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TextMap<'_> {
    type Value = Option<BTreeMap<String, String>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as an object", self.what)
    }
    fn visit_unit<E: DeError>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut out = BTreeMap::new();
        while let Some(key) = map.next_key_seed(Text)? {
            let value = if self.loose {
                map.next_value_seed(Skip { failure: self.failure, depth: 8 })?
            } else {
                map.next_value_seed(Text).map(Some).inspect_err(|_| {
                    self.failure.place(format!("{} key {key:?}", self.what));
                })?
            };
            match out.entry(key) {
                btree_map::Entry::Occupied(slot) => {
                    return Err(repeated(self.failure, self.what, slot.key()));
                }
                btree_map::Entry::Vacant(slot) => slot.insert(value),
            };
        }
        Ok(Some(out.into_iter().filter_map(|(k, v)| Some((k, v?))).collect()))
    }
}

/// The error of a key that occurs twice in one object.
pub(crate) fn repeated<E: DeError>(failure: &Failure, what: &str, key: &str) -> E {
    failure.raise(
        Error::malformed(format!("{what} has the key {key:?} twice"))
            .hint("readers differ in which of the two they take: write it once"),
    )
}

/// Any value: checked for repeated keys and for depth, and dropped; a scalar is given as text.
pub(crate) struct Skip<'f> {
    pub(crate) failure: &'f Failure,
    /// How many containers may nest from here.
    pub(crate) depth: u8,
}

impl Skip<'_> {
    fn inner<E: DeError>(&self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { failure: self.failure, depth }),
            None => Err(self.failure.raise(Error::malformed(
                "values are nested deeper than anything that the format defines",
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Skip<'_> {
    type Value = Option<String>;
    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip<'_> {
    type Value = Option<String>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: DeError>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_bool<E: DeError>(self, v: bool) -> Result<Self::Value, E> {
        Ok(Some(v.to_string()))
    }
    fn visit_u64<E: DeError>(self, v: u64) -> Result<Self::Value, E> {
        Ok(Some(v.to_string()))
    }
    fn visit_i64<E: DeError>(self, v: i64) -> Result<Self::Value, E> {
        Ok(Some(v.to_string()))
    }
    fn visit_f64<E: DeError>(self, v: f64) -> Result<Self::Value, E> {
        Ok(Some(format!("{v:?}")))
    }
    fn visit_str<E: DeError>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Some(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        self.inner::<A::Error>()?;
        while seq.next_element_seed(self.inner::<A::Error>()?)?.is_some() {}
        Ok(None)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut seen = std::collections::BTreeSet::new();
        while let Some(key) = map.next_key_seed(Text)? {
            map.next_value_seed(self.inner::<A::Error>()?)?;
            if seen.contains(&key) {
                return Err(repeated(self.failure, "the object", &key));
            }
            seen.insert(key);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_bytes() {
        let text = "{\n \"é\": x}";
        let failure = Failure::default();
        let error = parse(text, 8, &failure, Skip { failure: &failure, depth: 2 }).unwrap_err();
        assert_eq!(error.offset(), Some(8 + text.find('x').unwrap() as u64));
    }

    #[test]
    fn depth_is_bounded_and_keys_are_compared_unescaped() {
        let skip = |text: &str, depth| {
            let failure = Failure::default();
            parse(text, 0, &failure, Skip { failure: &failure, depth })
        };
        assert!(skip("[[1]]", 2).is_ok());
        assert!(skip("[[1]]", 1).is_err());
        assert!(skip("[]", 0).is_err());
        assert!(skip(r#"{"a":1,"\u0061":2}"#, 2).unwrap_err().message().contains("twice"));
    }
}
