//! 16-bit floats without a branch for each, so that several go at once.
//!
//! A number of the format is `fraction × 2^(exponent - 15 - 10)`; 32-bit floats have room for all of
//! them, below the normal range of the smaller format too.

/// Where infinities and NaNs begin, without the sign.
const INFINITY: u32 = 0x7C00;
const WIDE_INFINITY: u32 = 0x7F80_0000;
/// Fraction bits that the wider format has more.
const MORE: u32 = 23 - 10;
/// The smallest normal number, 2⁻¹⁴, as a 32-bit float.
const LEAST_NORMAL: u32 = (127 - 14) << 23;

/// Exactly. A NaN keeps its bits.
pub(super) fn widen(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7FFF);
    // With its bits in place of a wider float's it is too small by the difference of the biases.
    let bits = magnitude << MORE;
    let scale = f32::from_bits((127 + 127 - 15) << 23);
    let value = (f32::from_bits(bits) * scale).to_bits();
    let value = if magnitude >= INFINITY { bits | WIDE_INFINITY } else { value };
    f32::from_bits(sign | value)
}

/// Rounded to nearest, ties to even; what is too large becomes infinite.
pub(super) fn narrow(wide: f32) -> u16 {
    let bits = wide.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    let odd = magnitude >> MORE & 1;
    // A carry out of the fraction raises the exponent, as it should.
    let rounded = magnitude.wrapping_add((1 << (MORE - 1)) - 1 + odd) >> MORE;
    let normal = rounded.wrapping_sub((127 - 15) << 10).min(INFINITY);
    // Next to a half the last bit of a wider float counts what the smaller one's last bit does below
    // its normal range, so that adding a half rounds as it should.
    let below = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5_f32.to_bits());
    let number = if magnitude < LEAST_NORMAL { below } else { normal };
    let number = if magnitude > WIDE_INFINITY { 0x7FFF } else { number };
    let [low, high, ..] = (bits >> 16 & 0x8000 | number).to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use super::super::reference::encode;
    use super::super::{Layout, Special, decode};
    use super::*;

    const F16: Layout = Layout { fraction_bits: 10, bias: 15, special: Special::Ieee };

    #[test]
    fn every_half_is_widened_as_step_by_step() {
        for bits in 0..=u16::MAX {
            let (fast, slow) = (widen(bits), decode(u32::from(bits), 15, F16));
            assert!(
                fast.to_bits() == slow.to_bits() || fast.is_nan() && slow.is_nan(),
                "{bits:#x}"
            );
        }
    }

    #[test]
    fn floats_are_narrowed_as_step_by_step() {
        let lows = [0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x2FFF, 0x3000, 0x8000, 0xFFFF];
        for high in 0..=u32::from(u16::MAX) {
            for low in lows {
                let f = f32::from_bits(high << 16 | low);
                assert_eq!(u32::from(narrow(f)), encode(f, 15, F16), "{:#x}", f.to_bits());
            }
        }
    }
}
