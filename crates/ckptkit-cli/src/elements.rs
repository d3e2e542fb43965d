//! Numbers out of tensor bytes.

use ckptkit::{Dtype, Result, Tensor};
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

/// Whether elements of the type are single numbers of whole bytes.
pub(crate) fn is_numeric(dtype: Dtype) -> bool {
    number(dtype, &[0; 16]).is_some()
}

/// The first `n` elements, row-major.
pub(crate) fn first(tensor: &Tensor, n: u64) -> Result<Vec<f64>> {
    let size = element_bytes(tensor.dtype());
    let count = tensor.info().numel().min(n);
    let mut bytes = vec![0; usize::try_from(count).unwrap_or(0) * size];
    tensor.read_into(0, &mut bytes)?;
    Ok(bytes.chunks_exact(size).filter_map(|e| number(tensor.dtype(), e)).collect())
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

#[allow(clippy::cast_precision_loss, reason = "shown, not computed with")]
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
    let e = (bits >> fraction & ((1 << exponent) - 1)).cast_signed();
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
    }
}
