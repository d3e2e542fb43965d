//! Scalars as texts. The values themselves are those of `torch_save`, so that a config, a pickled
//! one and hyper-parameters are one type to whoever reads all of them.

pub use torch_save::Value;

/// A scalar as OmegaConf writes it into a text that interpolates it; nothing for a list or a
/// mapping.
pub(crate) fn text(value: &Value) -> Option<String> {
    matches!(
        value,
        Value::None
            | Value::Bool(_)
            | Value::Int(_)
            | Value::BigInt(_)
            | Value::Str(_)
            | Value::Float(_)
    )
    .then(|| value.key_text())
}

/// The text, where it is one.
pub(crate) fn as_str(value: &Value) -> Option<&str> {
    match value {
        Value::Str(s) => Some(s),
        _ => None,
    }
}

/// Whether two values are one: floats by their bits, so that NaN is NaN and zeros have signs.
#[cfg(feature = "write")]
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => a.to_bits() == b.to_bits(),
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Dict(a), Value::Dict(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, v), (l, w))| same(k, l) && same(v, w))
        }
        (a, b) => a == b,
    }
}
