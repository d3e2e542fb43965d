//! Numbers out of tensor bytes.

use ckptkit::{Dtype, Result, Tensor, Value};
use serde::Serialize;

/// Bytes read at a time: a multiple of every element's size.
const BLOCK: usize = 1 << 20;

/// What the finite elements of a tensor are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Statistics {
    pub(crate) finite: u64,
    pub(crate) nan: u64,
    pub(crate) infinite: u64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) mean: f64,
    pub(crate) std: f64,
}

/// Whether elements of the type are shown: whole bytes, and a number or a pair of numbers each.
pub(crate) fn is_shown(dtype: Dtype) -> bool {
    value(dtype, &[0; 16]).is_some()
}

/// Whether there are statistics: elements are single numbers.
pub(crate) fn is_numeric(dtype: Dtype) -> bool {
    number(dtype, &[0; 16]).is_some()
}

/// The first `n` elements, row-major.
pub(crate) fn first(tensor: &Tensor, n: u64) -> Result<Vec<Value>> {
    let size = element_bytes(tensor.dtype());
    let count = tensor.info().numel().min(n);
    let mut bytes = vec![0; usize::try_from(count).unwrap_or(0) * size];
    tensor.read_into(0, &mut bytes)?;
    Ok(bytes.chunks_exact(size).filter_map(|e| value(tensor.dtype(), e)).collect())
}

/// An element for people: a float in the fewest digits that tell it from its neighbours.
#[allow(clippy::cast_possible_truncation, reason = "the value was a narrow float")]
pub(crate) fn text(dtype: Dtype, element: &Value) -> String {
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

/// Reads the whole tensor, a block at a time.
#[allow(clippy::cast_precision_loss, reason = "statistics are approximate")]
pub(crate) fn statistics(tensor: &Tensor) -> Result<Statistics> {
    let size = element_bytes(tensor.dtype());
    let mut s = Statistics { min: f64::INFINITY, max: f64::NEG_INFINITY, ..Statistics::default() };
    let mut squares = 0.0;
    let mut buffer = vec![0; BLOCK];
    let mut at = 0;
    while at < tensor.byte_len() {
        let n = usize::try_from(tensor.byte_len() - at).unwrap_or(BLOCK).min(BLOCK);
        tensor.read_into(at, &mut buffer[..n])?;
        at += n as u64;
        for value in buffer[..n].chunks_exact(size).filter_map(|e| number(tensor.dtype(), e)) {
            if value.is_nan() {
                s.nan += 1;
            } else if value.is_infinite() {
                s.infinite += 1;
            } else {
                // Welford's update: no sum that grows past the precision of the elements.
                s.finite += 1;
                let delta = value - s.mean;
                s.mean += delta / s.finite as f64;
                squares += delta * (value - s.mean);
                s.min = s.min.min(value);
                s.max = s.max.max(value);
            }
        }
    }
    if s.finite == 0 {
        (s.min, s.max) = (0.0, 0.0);
    } else {
        s.std = (squares / s.finite as f64).sqrt();
    }
    Ok(s)
}

fn element_bytes(dtype: Dtype) -> usize {
    dtype.element_bytes().and_then(|n| usize::try_from(n).ok()).unwrap_or(1)
}

/// An element as it is, integers exactly.
fn value(dtype: Dtype, e: &[u8]) -> Option<Value> {
    let half = e.len() / 2;
    let pair = |part: Dtype| {
        let (re, im) = e.split_at_checked(half)?;
        Some(Value::Complex(number(part, re)?, number(part, im)?))
    };
    Some(match dtype {
        Dtype::Bool => Value::Bool(e[0] != 0),
        Dtype::I64 => Value::Int(i64::from_le_bytes(e[..8].try_into().ok()?)),
        Dtype::U64 => {
            let n = u64::from_le_bytes(e[..8].try_into().ok()?);
            i64::try_from(n).map_or_else(|_| Value::BigInt(n.to_string()), Value::Int)
        }
        Dtype::C32 => return pair(Dtype::F16),
        Dtype::C64 => return pair(Dtype::F32),
        Dtype::C128 => return pair(Dtype::F64),
        _ => {
            let n = number(dtype, e)?;
            if is_integer(dtype) { Value::Int(integral(n)) } else { Value::Float(n) }
        }
    })
}

fn is_integer(dtype: Dtype) -> bool {
    matches!(
        dtype,
        Dtype::I8
            | Dtype::U8
            | Dtype::I16
            | Dtype::U16
            | Dtype::I32
            | Dtype::U32
            | Dtype::Qint8
            | Dtype::Quint8
            | Dtype::Qint32
    )
}

#[allow(clippy::cast_possible_truncation, reason = "it was an integer of at most 32 bits")]
fn integral(n: f64) -> i64 {
    n as i64
}

#[allow(clippy::cast_precision_loss, reason = "for statistics, which are approximate")]
fn number(dtype: Dtype, e: &[u8]) -> Option<f64> {
    Some(match dtype {
        Dtype::F64 => f64::from_le_bytes(e[..8].try_into().ok()?),
        Dtype::F32 => f64::from(f32::from_le_bytes(e[..4].try_into().ok()?)),
        Dtype::Bf16 => f64::from(f32::from_bits(u32::from(u16::from_le_bytes([e[0], e[1]])) << 16)),
        Dtype::F16 => small_float(u32::from(u16::from_le_bytes([e[0], e[1]])), 5, 10),
        Dtype::F8E5M2 => small_float(u32::from(e[0]), 5, 2),
        Dtype::F8E4M3 => match e[0] & 0x7F {
            0x7F => f64::NAN,
            _ => finite_float(u32::from(e[0]), 4, 3),
        },
        // What would be minus zero is the one NaN, and exponents are one lower.
        Dtype::F8E4M3Fnuz | Dtype::F8E5M2Fnuz if e[0] == 0x80 => f64::NAN,
        Dtype::F8E4M3Fnuz => finite_float(u32::from(e[0]), 4, 3) / 2.0,
        Dtype::F8E5M2Fnuz => finite_float(u32::from(e[0]), 5, 2) / 2.0,
        Dtype::F8E8M0 if e[0] == 0xFF => f64::NAN,
        Dtype::F8E8M0 => 2_f64.powi(i32::from(e[0]) - 127),
        Dtype::I64 => i64::from_le_bytes(e[..8].try_into().ok()?) as f64,
        Dtype::U64 => u64::from_le_bytes(e[..8].try_into().ok()?) as f64,
        Dtype::I32 | Dtype::Qint32 => f64::from(i32::from_le_bytes(e[..4].try_into().ok()?)),
        Dtype::U32 => f64::from(u32::from_le_bytes(e[..4].try_into().ok()?)),
        Dtype::I16 => f64::from(i16::from_le_bytes([e[0], e[1]])),
        Dtype::U16 => f64::from(u16::from_le_bytes([e[0], e[1]])),
        Dtype::I8 | Dtype::Qint8 => f64::from(i8::from_le_bytes([e[0]])),
        Dtype::U8 | Dtype::Quint8 => f64::from(e[0]),
        Dtype::Bool => f64::from(u8::from(e[0] != 0)),
        _ => return None,
    })
}

/// An IEEE float of one sign bit, `exponent` and `fraction` bits.
fn small_float(bits: u32, exponent: u32, fraction: u32) -> f64 {
    let e = bits >> fraction & ((1 << exponent) - 1);
    if e != (1 << exponent) - 1 {
        return finite_float(bits, exponent, fraction);
    }
    let sign = if bits >> (exponent + fraction) & 1 == 1 { -1.0 } else { 1.0 };
    if bits & ((1 << fraction) - 1) == 0 { sign * f64::INFINITY } else { f64::NAN }
}

fn finite_float(bits: u32, exponent: u32, fraction: u32) -> f64 {
    let sign = if bits >> (exponent + fraction) & 1 == 1 { -1.0 } else { 1.0 };
    let e = i32::try_from(bits >> fraction & ((1 << exponent) - 1)).unwrap_or_default();
    let f = f64::from(bits & ((1 << fraction) - 1)) / f64::from(1_u32 << fraction);
    let bias = (1 << (exponent - 1)) - 1;
    let (significand, power) = if e == 0 { (f, 1 - bias) } else { (1.0 + f, e - bias) };
    sign * significand * 2_f64.powi(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_every_width() {
        // Values from torch 2.15: torch.tensor([…]).view(torch.uint8 / int16).
        assert_eq!(number(Dtype::F16, &[0x00, 0x3E]), Some(1.5));
        assert_eq!(number(Dtype::F16, &[0x01, 0x00]), Some(5.960_464_477_539_063e-8));
        assert_eq!(number(Dtype::F16, &[0x00, 0xFC]), Some(f64::NEG_INFINITY));
        assert_eq!(number(Dtype::Bf16, &[0xC0, 0xBF]), Some(-1.5));
        assert_eq!(number(Dtype::F8E5M2, &[0x3E]), Some(1.5));
        assert_eq!(number(Dtype::F8E4M3, &[0x3C]), Some(1.5));
        assert_eq!(number(Dtype::F8E4M3, &[0x7E]), Some(448.0));
        assert!(number(Dtype::F8E4M3, &[0xFF]).is_some_and(f64::is_nan));
        assert_eq!(number(Dtype::F8E4M3Fnuz, &[0x44]), Some(1.5));
        assert_eq!(number(Dtype::F8E5M2Fnuz, &[0x42]), Some(1.5));
        assert!(number(Dtype::F8E5M2Fnuz, &[0x80]).is_some_and(f64::is_nan));
        assert_eq!(number(Dtype::F8E8M0, &[0x80]), Some(2.0));
    }

    #[test]
    fn integers_are_exact_and_floats_short() {
        let big = u64::MAX.to_le_bytes();
        assert_eq!(value(Dtype::U64, &big), Some(Value::BigInt("18446744073709551615".into())));
        assert_eq!(value(Dtype::I64, &big), Some(Value::Int(-1)));
        assert_eq!(value(Dtype::I8, &[0x80]), Some(Value::Int(-128)));
        let tenth = value(Dtype::F32, &0.1_f32.to_le_bytes()).unwrap();
        assert_eq!(text(Dtype::F32, &tenth), "0.1");
        let pair = [1.5_f32.to_le_bytes(), (-0.1_f32).to_le_bytes()].concat();
        assert_eq!(text(Dtype::C64, &value(Dtype::C64, &pair).unwrap()), "1.5-0.1j");
        assert!(is_shown(Dtype::C64) && !is_numeric(Dtype::C64) && !is_shown(Dtype::F4));
    }
}
