//! Elements of tensors for people.

use ckptkit::{Dtype, Value};

/// An element for people: a float in the fewest digits that tell it from its neighbours.
#[allow(clippy::cast_possible_truncation, reason = "the value was a narrow float")]
pub(crate) fn element(dtype: Dtype, element: &Value) -> String {
    let float = |f: f64| if dtype == Dtype::F64 { f.to_string() } else { (f as f32).to_string() };
    match element {
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::BigInt(digits) => digits.clone(),
        Value::Float(f) => float(*f),
        Value::Complex(re, im) if dtype == Dtype::C128 => format!("{re}{im:+}j"),
        Value::Complex(re, im) => format!("{}{:+}j", *re as f32, *im as f32),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_floats_are_short() {
        let tenth = f64::from(0.1_f32);
        assert_eq!(element(Dtype::F32, &Value::Float(tenth)), "0.1");
        assert_eq!(element(Dtype::F64, &Value::Float(tenth)), "0.10000000149011612");
        assert_eq!(element(Dtype::C64, &Value::Complex(1.5, -tenth)), "1.5-0.1j");
    }
}
