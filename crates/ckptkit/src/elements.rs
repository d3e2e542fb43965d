//! Numbers out of tensor bytes: a tensor's first elements, and what all of them are like.

use ckptkit_core::{Dtype, Result, Tensor};
use serde::Serialize;

use crate::Value;

/// Bytes read at a time: a multiple of every element's size.
const BLOCK: usize = 1 << 20;

/// What the finite elements of a tensor are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Elements that are neither NaN nor infinite; the others below are of these.
    pub finite: u64,
    /// NaNs.
    pub nan: u64,
    /// Infinities of either sign.
    pub infinite: u64,
    /// The smallest; 0 where there is none.
    pub min: f64,
    /// The largest; 0 where there is none.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// The standard deviation, of the population.
    pub std: f64,
}

/// Whether elements of the type are shown: whole bytes, and a number or a pair of numbers each.
#[must_use]
pub fn is_shown(dtype: Dtype) -> bool {
    value(dtype, &[0; 16][..element_bytes(dtype)]).is_some()
}

/// Whether there are statistics: elements are single numbers.
#[must_use]
pub fn is_numeric(dtype: Dtype) -> bool {
    number(dtype, &[0; 16][..element_bytes(dtype)]).is_some()
}

/// The first `n` elements, row-major: integers exactly, floats widened. Reads no more than those.
///
/// # Errors
/// Those of [`Tensor::read_into`].
pub fn first(tensor: &Tensor, n: u64) -> Result<Vec<Value>> {
    let size = element_bytes(tensor.dtype());
    let count = tensor.info().numel().min(n);
    let mut bytes = vec![0; usize::try_from(count).unwrap_or(0) * size];
    tensor.read_into(0, &mut bytes)?;
    Ok(bytes.chunks_exact(size).filter_map(|e| value(tensor.dtype(), e)).collect())
}

/// Reads the whole tensor, a MiB at a time.
///
/// # Errors
/// Those of [`Tensor::read_into`].
#[allow(clippy::cast_precision_loss, reason = "statistics are approximate")]
pub fn statistics(tensor: &Tensor) -> Result<Statistics> {
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
        Dtype::Bc32 => return pair(Dtype::Bf16),
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
        Dtype::I64 => i64::from_le_bytes(e[..8].try_into().ok()?) as f64,
        Dtype::U64 => u64::from_le_bytes(e[..8].try_into().ok()?) as f64,
        Dtype::I32 | Dtype::Qint32 => f64::from(i32::from_le_bytes(e[..4].try_into().ok()?)),
        Dtype::U32 => f64::from(u32::from_le_bytes(e[..4].try_into().ok()?)),
        Dtype::I16 => f64::from(i16::from_le_bytes([e[0], e[1]])),
        Dtype::U16 => f64::from(u16::from_le_bytes([e[0], e[1]])),
        Dtype::I8 | Dtype::Qint8 => f64::from(i8::from_le_bytes([e[0]])),
        Dtype::U8 | Dtype::Quint8 => f64::from(e[0]),
        Dtype::Bool => f64::from(u8::from(e[0] != 0)),
        dtype => return dtype.to_f64(e),
    })
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
    fn integers_are_exact_and_complex_numbers_pairs() {
        let big = u64::MAX.to_le_bytes();
        assert_eq!(value(Dtype::U64, &big), Some(Value::BigInt("18446744073709551615".into())));
        assert_eq!(value(Dtype::I64, &big), Some(Value::Int(-1)));
        assert_eq!(value(Dtype::I8, &[0x80]), Some(Value::Int(-128)));
        let pair = [1.5_f32.to_le_bytes(), (-0.1_f32).to_le_bytes()].concat();
        let found = value(Dtype::C64, &pair);
        assert_eq!(found, Some(Value::Complex(1.5, f64::from(-0.1_f32))));
        assert!(is_shown(Dtype::C64) && !is_numeric(Dtype::C64) && !is_shown(Dtype::F4));
    }
}
