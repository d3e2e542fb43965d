//! Values in the encoding of the manifests: plain JSON where JSON holds them exactly, else an object
//! with one `$type` key.

use serde_json::{Map, Number, Value as Json, json};
use torch_save::Value;

pub fn encode(value: &Value) -> Json {
    let all = |items: &[Value]| Json::Array(items.iter().map(encode).collect());
    match value {
        Value::None => Json::Null,
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::BigInt(s) => json!({"$type": "int", "value": s}),
        Value::Float(f) => match Number::from_f64(*f) {
            Some(n) => Json::Number(n),
            None if f.is_nan() => json!({"$type": "float", "value": "nan"}),
            None if *f > 0.0 => json!({"$type": "float", "value": "inf"}),
            None => json!({"$type": "float", "value": "-inf"}),
        },
        Value::Str(s) => json!(s),
        Value::Surrogates(b) => json!({"$type": "str", "value": base64(b)}),
        Value::Bytes(b) => json!({"$type": "bytes", "value": base64(b)}),
        Value::ByteArray(b) => json!({"$type": "bytearray", "value": base64(b)}),
        Value::Complex(re, im) => {
            json!({"$type": "complex", "value": [encode(&Value::Float(*re)), encode(&Value::Float(*im))]})
        }
        Value::List(v) => all(v),
        Value::Tuple(v) => json!({"$type": "tuple", "value": all(v)}),
        Value::Set(v) => json!({"$type": "set", "value": all(v)}),
        Value::FrozenSet(v) => json!({"$type": "frozenset", "value": all(v)}),
        Value::Dict(pairs) => {
            if pairs.iter().all(|(k, _)| k.as_str().is_some_and(|k| k != "$type")) {
                let map: Map<String, Json> = pairs
                    .iter()
                    .map(|(k, v)| (k.as_str().unwrap().to_owned(), encode(v)))
                    .collect();
                Json::Object(map)
            } else {
                let pairs: Vec<Json> =
                    pairs.iter().map(|(k, v)| json!([encode(k), encode(v)])).collect();
                json!({"$type": "dict", "value": pairs})
            }
        }
        Value::Tensor(name) => json!({"$type": "tensor", "name": name}),
        Value::Array(a) => {
            json!({"$type": "numpy.ndarray", "dtype": a.dtype, "shape": a.shape, "data": base64(&a.data)})
        }
        Value::Global(g) => json!({"$type": "global", "value": g}),
        Value::Ref(_) => json!({"$type": "ref"}),
        Value::Object(o) => {
            let mut map = Map::new();
            map.insert("$type".into(), json!(o.class));
            if let Some(args) = &o.args {
                map.insert("args".into(), all(args));
            }
            if let Some(value) = &o.value {
                map.insert("value".into(), encode(value));
            }
            for (key, value) in &o.extra {
                map.insert((*key).into(), encode(value));
            }
            Json::Object(map)
        }
        other => panic!("no encoding for {other:?}"),
    }
}

/// Sets have no order: the encodings are compared sorted. Numbers are compared as numbers.
pub fn normalised(json: Json) -> Json {
    match json {
        Json::Array(items) => Json::Array(items.into_iter().map(normalised).collect()),
        Json::Object(map) => {
            let unordered =
                matches!(map.get("$type").and_then(Json::as_str), Some("set" | "frozenset"));
            let mut map: Map<String, Json> =
                map.into_iter().map(|(k, v)| (k, normalised(v))).collect();
            if let (true, Some(Json::Array(items))) = (unordered, map.get_mut("value")) {
                items.sort_by_key(Json::to_string);
            }
            Json::Object(map)
        }
        other => other,
    }
}

pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|c| {
            let n = u32::from(c[0]) << 16
                | u32::from(*c.get(1).unwrap_or(&0)) << 8
                | u32::from(*c.get(2).unwrap_or(&0));
            let digit = |i: usize| {
                if i <= c.len() {
                    char::from(ALPHABET[(n >> (18 - 6 * i) & 63) as usize])
                } else {
                    '='
                }
            };
            [digit(0), digit(1), digit(2), digit(3)]
        })
        .collect()
}
