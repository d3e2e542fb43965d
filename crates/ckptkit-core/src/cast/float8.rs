//! Narrowing to floats of one byte without a branch for each, so that several go at once.

use super::{Layout, Special, signed, unsigned};

const WIDE_INFINITY: u32 = 0x7F80_0000;
const SIGN: u32 = 0x80;
const ALL_ONES: u32 = 0x7F;

/// Rounded to nearest, ties to even. What is too large becomes infinite, the largest value where
/// there is no infinity (infinities as well, in torch 2.15), and NaN where zero has no sign.
#[inline]
pub(super) fn narrow(wide: f32, layout: Layout) -> u8 {
    let Layout { fraction_bits, bias, special } = layout;
    let bits = wide.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    let sign = bits >> 24 & SIGN;
    let more = 23 - fraction_bits;
    let odd = magnitude >> more & 1;
    // A carry out of the fraction raises the exponent, as it should.
    let rounded = magnitude.wrapping_add((1 << (more - 1)) - 1 + odd) >> more;
    let normal = rounded.wrapping_sub(unsigned(127 - bias) << fraction_bits);
    // Next to this number the last bit of a wider float counts what the smaller one's last bit does
    // below its normal range, so that adding it rounds as it should.
    let next = unsigned(127 + 1 - bias + signed(more)) << 23;
    let below = (f32::from_bits(magnitude) + f32::from_bits(next)).to_bits().wrapping_sub(next);
    let least_normal = unsigned(127 + 1 - bias) << 23;
    let number = if magnitude < least_normal { below } else { normal };
    let infinity = ALL_ONES >> fraction_bits << fraction_bits;
    let (largest, too_large, nan) = match special {
        Special::Ieee => (infinity - 1, sign | infinity, sign | ALL_ONES),
        Special::Finite => (ALL_ONES - 1, sign | (ALL_ONES - 1), sign | ALL_ONES),
        Special::UnsignedZero => (ALL_ONES, SIGN, SIGN),
    };
    let zero = if special == Special::UnsignedZero { 0 } else { sign };
    let signed = if number == 0 { zero } else { sign | number };
    let signed = if number > largest { too_large } else { signed };
    let signed = if magnitude > WIDE_INFINITY { nan } else { signed };
    let [low, ..] = signed.to_le_bytes();
    low
}

#[cfg(test)]
mod tests {
    use super::super::reference::encode;
    use super::super::{E4M3, E4M3_FNUZ, E5M2, E5M2_FNUZ};
    use super::*;

    #[test]
    fn floats_are_narrowed_as_step_by_step() {
        let lows = [0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF, 0x2000, 0x2FFF, 0x3000, 0x8000, 0xFFFF];
        for (name, layout) in
            [("E5M2", E5M2), ("E4M3", E4M3), ("E4M3FNUZ", E4M3_FNUZ), ("E5M2FNUZ", E5M2_FNUZ)]
        {
            for high in 0..=u32::from(u16::MAX) {
                for low in lows {
                    let f = f32::from_bits(high << 16 | low);
                    let slow = encode(f, 7, layout);
                    assert_eq!(u32::from(narrow(f, layout)), slow, "{name} {:#x}", f.to_bits());
                }
            }
        }
    }
}
