//! Scalars as texts. The values themselves are those of `torch_save`, so that a config, a pickled
//! one and hyper-parameters are one type to whoever reads all of them.

pub use torch_save::Value;

/// A scalar as OmegaConf writes it into a text that interpolates it; nothing for a list or a
/// mapping.
pub(crate) fn text(value: &Value) -> Option<String> {
    Some(match value {
        Value::None => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Int(i) => i.to_string(),
        Value::BigInt(s) | Value::Str(s) => s.clone(),
        Value::Float(f) => python_float(*f),
        _ => return None,
    })
}

/// The text, where it is one.
pub(crate) fn as_str(value: &Value) -> Option<&str> {
    match value {
        Value::Str(s) => Some(s),
        _ => None,
    }
}

/// As Python prints a float: the shortest digits that read back, an exponent below 1e-4 and from
/// 1e16 on.
fn python_float(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf" } else { "-inf" }.into();
    }
    if f != 0.0 && !(1e-4..1e16).contains(&f.abs()) {
        let text = format!("{f:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(e) => ('-', e),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{f:?}")
}
