//! Casting between floating-point types, as torch casts.
//!
//! torch goes through 32-bit floats on every way (`c10/util/Half.h`, `BFloat16.h`, `Float8_*.h`),
//! so two roundings can follow each other; the same is done here, and the results are equal bit
//! for bit. A NaN stays a NaN.

mod float8;
mod half;
#[cfg(test)]
mod reference;

use std::sync::LazyLock;

use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::tensor::{Tensor, TensorBytes, TensorInfo};

/// Elements that are widened at a time: they stay in the L1 cache.
const BLOCK: usize = 1024;

/// How a float of one or two bytes is laid out.
#[derive(Clone, Copy)]
struct Layout {
    fraction_bits: u32,
    bias: i32,
    special: Special,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Special {
    /// Infinities and NaNs in the highest exponent.
    Ieee,
    /// No infinity; all ones is NaN.
    Finite,
    /// No infinity and no negative zero, whose pattern is NaN.
    UnsignedZero,
}

const E5M2: Layout = Layout { fraction_bits: 2, bias: 15, special: Special::Ieee };
const E4M3: Layout = Layout { fraction_bits: 3, bias: 7, special: Special::Finite };
const E4M3_FNUZ: Layout = Layout { fraction_bits: 3, bias: 8, special: Special::UnsignedZero };
const E5M2_FNUZ: Layout = Layout { fraction_bits: 2, bias: 16, special: Special::UnsignedZero };

static OF_E5M2: LazyLock<[f32; 256]> = LazyLock::new(|| table(E5M2));
static OF_E4M3: LazyLock<[f32; 256]> = LazyLock::new(|| table(E4M3));
static OF_E4M3_FNUZ: LazyLock<[f32; 256]> = LazyLock::new(|| table(E4M3_FNUZ));
static OF_E5M2_FNUZ: LazyLock<[f32; 256]> = LazyLock::new(|| table(E5M2_FNUZ));

/// The values of all floats of one byte.
fn table(layout: Layout) -> [f32; 256] {
    let mut bits = 0..;
    [(); 256].map(|()| decode(bits.next().unwrap_or(0), 7, layout))
}

impl Tensor {
    /// The same values in another floating-point type, rounded as torch rounds; computed whenever
    /// they are read. A tensor of that type already is given back as it is.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where one of the types is no float of whole
    /// bytes.
    pub fn cast(&self, dtype: Dtype) -> Result<Self> {
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        if !self.dtype().is_castable() || !dtype.is_castable() {
            return Err(Error::unsupported(format!("{} cannot be cast to {dtype}", self.dtype()))
                .within(format_args!("tensor {}", self.name())));
        }
        let mut info = TensorInfo::new(self.name(), dtype, self.shape())?;
        if let Some(id) = self.info().storage() {
            info = info.in_storage(id);
        }
        let bytes = match self.bytes() {
            TensorBytes::None(_) | TensorBytes::Broken(_) => self.bytes().clone(),
            _ => TensorBytes::Cast(Box::new(self.clone())),
        };
        Self::new(info, bytes)
    }
}

impl Dtype {
    /// The value of one little-endian element; `None` for types that are no floats of whole bytes
    /// and for another number of bytes.
    #[must_use]
    pub fn to_f64(self, element: &[u8]) -> Option<f64> {
        if self == Self::F64 {
            return Some(f64::from_le_bytes(element.try_into().ok()?));
        }
        if !self.is_castable() || self.element_bytes() != Some(element.len() as u64) {
            return None;
        }
        let mut wide = [0_f32];
        widen(element, self, &mut wide);
        Some(f64::from(wide[0]))
    }
}

/// Casts whole elements; `out` has as many as `from`.
pub(crate) fn cast(from: &[u8], source: Dtype, out: &mut [u8], target: Dtype) {
    let size = |dtype: Dtype| dtype.bits() as usize / 8;
    let mut wide = [0_f32; BLOCK];
    let pieces = from.chunks(BLOCK * size(source)).zip(out.chunks_mut(BLOCK * size(target)));
    for (from, out) in pieces {
        let wide = &mut wide[..from.len() / size(source)];
        widen(from, source, wide);
        narrow(wide, target, out);
    }
}

fn widen(from: &[u8], source: Dtype, out: &mut [f32]) {
    fn each<const N: usize>(from: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
        for (value, bytes) in out.iter_mut().zip(from.chunks_exact(N)) {
            *value = decode(bytes.try_into().unwrap_or([0; N]));
        }
    }
    let small = |table: &'static LazyLock<[f32; 256]>| {
        let table: &[f32; 256] = table;
        move |b: [u8; 1]| table[usize::from(b[0])]
    };
    match source {
        #[allow(clippy::cast_possible_truncation, reason = "rounding is what a cast does")]
        Dtype::F64 => each(from, out, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => each(from, out, f32::from_le_bytes),
        Dtype::Bf16 => {
            each(from, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16));
        }
        Dtype::F16 => each(from, out, |b| half::widen(u16::from_le_bytes(b))),
        Dtype::F8E5M2 => each(from, out, small(&OF_E5M2)),
        Dtype::F8E4M3 => each(from, out, small(&OF_E4M3)),
        Dtype::F8E4M3Fnuz => each(from, out, small(&OF_E4M3_FNUZ)),
        Dtype::F8E5M2Fnuz => each(from, out, small(&OF_E5M2_FNUZ)),
        _ => each(from, out, |b: [u8; 1]| match b[0] {
            0xFF => f32::NAN,
            // Two to the power of -127 is below the normal range.
            0 => f32::from_bits(1 << 22),
            exponent => f32::from_bits(u32::from(exponent) << 23),
        }),
    }
}

fn narrow(from: &[f32], target: Dtype, out: &mut [u8]) {
    fn each<const N: usize>(from: &[f32], out: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
        for (bytes, &value) in out.chunks_exact_mut(N).zip(from) {
            bytes.copy_from_slice(&encode(value));
        }
    }
    let small = |layout: Layout| move |f| [float8::narrow(f, layout)];
    match target {
        Dtype::F64 => each(from, out, |f| f64::from(f).to_le_bytes()),
        Dtype::F32 => each(from, out, f32::to_le_bytes),
        Dtype::Bf16 => each(from, out, |f| bf16(f).to_le_bytes()),
        Dtype::F16 => each(from, out, |f| half::narrow(f).to_le_bytes()),
        Dtype::F8E5M2 => each(from, out, small(E5M2)),
        Dtype::F8E4M3 => each(from, out, small(E4M3)),
        Dtype::F8E4M3Fnuz => each(from, out, small(E4M3_FNUZ)),
        Dtype::F8E5M2Fnuz => each(from, out, small(E5M2_FNUZ)),
        _ => each(from, out, |f| [exponent_only(f)]),
    }
}

/// The upper half of a 32-bit float, rounded to nearest, ties to even.
fn bf16(f: f32) -> u16 {
    let bits = f.to_bits();
    let [_, _, low, high] = if f.is_nan() {
        (bits | 0x0040_0000).to_le_bytes()
    } else {
        (bits + 0x7FFF + (bits >> 16 & 1)).to_le_bytes()
    };
    u16::from_le_bytes([low, high])
}

/// `float8_e8m0fnu`: the exponent alone, rounded up from the half on; the sign is dropped.
fn exponent_only(f: f32) -> u8 {
    let bits = f.to_bits();
    let [exponent, ..] = (bits >> 23).to_le_bytes();
    let half = bits & 0x0040_0000 != 0;
    let above_half = bits & 0x003F_FFFF != 0;
    // Of the two values below the normal range the half itself goes to the lower one.
    if exponent != 0xFF && half && (above_half || exponent > 0) { exponent + 1 } else { exponent }
}

/// A float of `sign_bit` bits and a sign above them, widened exactly.
fn decode(bits: u32, sign_bit: u32, layout: Layout) -> f32 {
    let Layout { fraction_bits, bias, special } = layout;
    let sign = bits >> sign_bit << 31;
    let magnitude = bits & ((1 << sign_bit) - 1);
    let exponent = magnitude >> fraction_bits;
    let fraction = magnitude & ((1 << fraction_bits) - 1);
    let highest = (1 << (sign_bit - fraction_bits)) - 1;
    let nan = match special {
        Special::Ieee if exponent == highest && fraction == 0 => {
            return f32::from_bits(sign | 0x7F80_0000);
        }
        Special::Ieee => exponent == highest,
        Special::Finite => magnitude == (1 << sign_bit) - 1,
        Special::UnsignedZero => magnitude == 0 && sign != 0,
    };
    if nan {
        return f32::NAN;
    }
    // Both factors are exact, and so is their product: every value is a normal 32-bit float.
    let (significand, power) = match exponent {
        0 => (fraction, 1),
        e => (fraction | 1 << fraction_bits, e),
    };
    let power = signed(power) - bias - signed(fraction_bits);
    let scale = f32::from_bits(unsigned(power + 127) << 23);
    #[allow(clippy::cast_precision_loss, reason = "at most eleven bits")]
    let value = significand as f32 * scale;
    f32::from_bits(value.to_bits() | sign)
}

/// As `u32::cast_signed`, which the oldest compiler that is promised lacks.
fn signed(n: u32) -> i32 {
    i32::from_ne_bytes(n.to_ne_bytes())
}

fn unsigned(n: i32) -> u32 {
    u32::from_ne_bytes(n.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::Section;

    #[test]
    fn a_cast_tensor_reads_as_the_cast_of_its_elements() {
        let values: Vec<f32> = (0..5000_u16).map(|i| f32::from(i) * 0.37 - 900.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let info = TensorInfo::new("t", Dtype::F32, vec![5000]).unwrap();
        let t =
            Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes.clone(), "s"))).unwrap();
        let cast = t.cast(Dtype::Bf16).unwrap();
        let mut expected = vec![0; 10_000];
        super::cast(&bytes, Dtype::F32, &mut expected, Dtype::Bf16);
        assert_eq!(cast.read().unwrap(), expected);
        // Cut anywhere, inside elements, too.
        for (start, len) in [(0, 1), (3, 4096), (1999, 2), (9_999, 1), (4097, 5000)] {
            let mut out = vec![0; len];
            cast.read_into(start as u64, &mut out).unwrap();
            assert_eq!(out, expected[start..start + len]);
        }
        assert!(t.cast(Dtype::I32).is_err());
        assert_eq!(cast.cast(Dtype::F64).unwrap().read().unwrap().len(), 40_000);
    }
}
