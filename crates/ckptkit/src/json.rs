//! Values as JSON, without losing what JSON cannot say.
//!
//! Plain JSON where JSON holds a value exactly; elsewhere an object whose key `$type` names the
//! Python type and whose `value` holds it:
//!
//! | Python | JSON |
//! | --- | --- |
//! | `None`, bool, str, list, int that fits 64 bits, finite float | as they are |
//! | dict with only text keys, none of them `$type` | an object, in order |
//! | any other dict | `{"$type": "dict", "value": [[key, value], …]}` |
//! | other ints | `{"$type": "int", "value": "DECIMAL"}` |
//! | NaN, infinities | `{"$type": "float", "value": "nan" \| "inf" \| "-inf"}` |
//! | tuple, set, frozenset | `{"$type": "tuple", "value": […]}` |
//! | bytes, bytearray | `{"$type": "bytes", "value": "BASE64"}` |
//! | complex | `{"$type": "complex", "value": [re, im]}` |
//! | text with lone surrogates | `{"$type": "str", "value": "BASE64 of its UTF-8 with surrogates"}` |
//! | a tensor | `{"$type": "tensor", "name": "NAME"}` |
//! | a NumPy array | `{"$type": "numpy.ndarray", "dtype": "<f4", "shape": […], "data": "BASE64"}` |
//! | a class or function | `{"$type": "global", "value": "module.name"}` |
//! | a value that encloses itself | `{"$type": "ref", "value": "PATH"}` |
//! | an object | `{"$type": "module.Class", "args": […], "value": …, …}` |

use ckptkit_core::{Error, Result};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use torch_save::value::Object;

use crate::Value;

/// A value to be written as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json<'a>(pub &'a Value);

const TYPE: &str = "$type";

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0 {
            Value::None => s.serialize_unit(),
            Value::Bool(b) => s.serialize_bool(*b),
            Value::Int(i) => s.serialize_i64(*i),
            Value::BigInt(digits) => typed(s, "int", digits),
            Value::Float(f) if f.is_finite() => s.serialize_f64(*f),
            Value::Float(f) => typed(
                s,
                "float",
                if f.is_nan() {
                    "nan"
                } else if *f > 0.0 {
                    "inf"
                } else {
                    "-inf"
                },
            ),
            Value::Str(text) => s.serialize_str(text),
            Value::Surrogates(bytes) => typed(s, "str", base64(bytes)),
            Value::Bytes(bytes) => typed(s, "bytes", base64(bytes)),
            Value::ByteArray(bytes) => typed(s, "bytearray", base64(bytes)),
            Value::Complex(re, im) => {
                typed(s, "complex", [Json(&Value::Float(*re)), Json(&Value::Float(*im))])
            }
            Value::List(items) => Items(items).serialize(s),
            Value::Tuple(items) => typed(s, "tuple", Items(items)),
            Value::Set(items) => typed(s, "set", Items(items)),
            Value::FrozenSet(items) => typed(s, "frozenset", Items(items)),
            Value::Dict(pairs) => dict(pairs, s),
            Value::Tensor(name) => {
                let mut map = s.serialize_map(Some(2))?;
                map.serialize_entry(TYPE, "tensor")?;
                map.serialize_entry("name", name)?;
                map.end()
            }
            Value::Array(array) => {
                let mut map = s.serialize_map(Some(4))?;
                map.serialize_entry(TYPE, "numpy.ndarray")?;
                map.serialize_entry("dtype", &array.dtype)?;
                map.serialize_entry("shape", &array.shape)?;
                map.serialize_entry("data", &base64(&array.data))?;
                map.end()
            }
            Value::Global(name) => typed(s, "global", name),
            Value::Ref(path) => typed(s, "ref", path),
            Value::Object(object) => write_object(object, s),
            other => typed(s, "unknown", format!("{other:?}")),
        }
    }
}

fn typed<S: Serializer>(
    s: S,
    name: &str,
    value: impl Serialize,
) -> std::result::Result<S::Ok, S::Error> {
    let mut map = s.serialize_map(Some(2))?;
    map.serialize_entry(TYPE, name)?;
    map.serialize_entry("value", &value)?;
    map.end()
}

struct Items<'a>(&'a [Value]);

impl Serialize for Items<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(self.0.len()))?;
        for item in self.0 {
            seq.serialize_element(&Json(item))?;
        }
        seq.end()
    }
}

struct Pairs<'a>(&'a [(Value, Value)]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        let mut seq = s.serialize_seq(Some(self.0.len()))?;
        for (key, value) in self.0 {
            seq.serialize_element(&[Json(key), Json(value)])?;
        }
        seq.end()
    }
}

fn dict<S: Serializer>(pairs: &[(Value, Value)], s: S) -> std::result::Result<S::Ok, S::Error> {
    let plain = pairs.iter().all(|(k, _)| k.as_str().is_some_and(|k| k != TYPE));
    if !plain {
        return typed(s, "dict", Pairs(pairs));
    }
    let mut map = s.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        map.serialize_entry(key.as_str().unwrap_or_default(), &Json(value))?;
    }
    map.end()
}

fn write_object<S: Serializer>(object: &Object, s: S) -> std::result::Result<S::Ok, S::Error> {
    let mut map = s.serialize_map(None)?;
    map.serialize_entry(TYPE, &object.class)?;
    if let Some(args) = &object.args {
        map.serialize_entry("args", &Items(args))?;
    }
    for (name, value) in &object.extra {
        map.serialize_entry(name, &Json(value))?;
    }
    if let Some(value) = &object.value {
        map.serialize_entry("value", &Json(value))?;
    }
    map.end()
}

/// RFC 4648, with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0_u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(n >> (18 - 6 * i) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// Plain JSON as a value, in its order.
///
/// # Errors
/// [`Malformed`](ckptkit_core::ErrorKind::Malformed) when it is no JSON.
pub(crate) fn parse(text: &[u8]) -> Result<Value> {
    let parsed: FromJson = serde_json::from_slice(text)
        .map_err(|e| Error::malformed(format!("this is not valid JSON: {e}")))?;
    Ok(parsed.0)
}

struct FromJson(Value);

impl<'de> Deserialize<'de> for FromJson {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = FromJson;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> std::result::Result<FromJson, E> {
                Ok(FromJson(Value::None))
            }
            fn visit_bool<E>(self, b: bool) -> std::result::Result<FromJson, E> {
                Ok(FromJson(Value::Bool(b)))
            }
            fn visit_i64<E>(self, i: i64) -> std::result::Result<FromJson, E> {
                Ok(FromJson(Value::Int(i)))
            }
            fn visit_u64<E>(self, u: u64) -> std::result::Result<FromJson, E> {
                Ok(FromJson(
                    i64::try_from(u).map_or_else(|_| Value::BigInt(u.to_string()), Value::Int),
                ))
            }
            fn visit_f64<E>(self, f: f64) -> std::result::Result<FromJson, E> {
                Ok(FromJson(Value::Float(f)))
            }
            fn visit_str<E: de::Error>(self, s: &str) -> std::result::Result<FromJson, E> {
                Ok(FromJson(Value::Str(s.to_owned())))
            }
            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> std::result::Result<FromJson, A::Error> {
                let mut out = Vec::new();
                while let Some(FromJson(item)) = seq.next_element()? {
                    out.push(item);
                }
                Ok(FromJson(Value::List(out)))
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<FromJson, A::Error> {
                let mut out = Vec::new();
                while let Some((key, FromJson(value))) = map.next_entry::<String, FromJson>()? {
                    out.push((Value::Str(key), value));
                }
                Ok(FromJson(Value::Dict(out)))
            }
        }
        d.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(v: &Value) -> String {
        serde_json::to_string(&Json(v)).unwrap()
    }

    #[test]
    fn what_json_holds_is_plain() {
        let v = parse(br#"{"b":[1,-2.0,null,true,"x"],"a":{"$t":1e300}}"#).unwrap();
        assert_eq!(text(&v), r#"{"b":[1,-2.0,null,true,"x"],"a":{"$t":1e+300}}"#);
        // A text that a quick parser reads as its neighbour.
        let v = parse(b"2.7715077941825975e-163").unwrap();
        assert_eq!(v, Value::Float(2.771_507_794_182_597_5e-163));
    }

    #[test]
    fn the_rest_says_its_type() {
        let one = || Value::Int(1);
        for (v, json) in [
            (Value::Float(f64::NAN), r#"{"$type":"float","value":"nan"}"#),
            (Value::Float(f64::NEG_INFINITY), r#"{"$type":"float","value":"-inf"}"#),
            (Value::Float(-0.0), "-0.0"),
            (Value::BigInt("123".into()), r#"{"$type":"int","value":"123"}"#),
            (Value::Tuple(vec![one()]), r#"{"$type":"tuple","value":[1]}"#),
            (Value::Bytes(b"\0\xff".to_vec()), r#"{"$type":"bytes","value":"AP8="}"#),
            (Value::Dict(vec![(one(), one())]), r#"{"$type":"dict","value":[[1,1]]}"#),
            (
                Value::Dict(vec![(Value::Str("$type".into()), one())]),
                r#"{"$type":"dict","value":[["$type",1]]}"#,
            ),
            (Value::Complex(1.0, -0.0), r#"{"$type":"complex","value":[1.0,-0.0]}"#),
        ] {
            assert_eq!(text(&v), json);
        }
    }

    #[test]
    fn base64_of_the_rfc() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
