//! Narrowing step by step: what the fast ways are held against.

use super::{Layout, Special, signed, unsigned};

/// A 32-bit float in `sign_bit` bits and a sign above them, rounded to nearest, ties to even.
pub(super) fn encode(f: f32, sign_bit: u32, layout: Layout) -> u32 {
    let Layout { fraction_bits, bias, special } = layout;
    let bits = f.to_bits();
    let sign = bits >> 31 << sign_bit;
    let infinity = ((1 << (sign_bit - fraction_bits)) - 1) << fraction_bits;
    let all_ones = (1 << sign_bit) - 1;
    let (largest, nan) = match special {
        Special::Ieee => (infinity, sign | all_ones),
        Special::Finite => (all_ones, sign | all_ones),
        Special::UnsignedZero => (all_ones + 1, 1 << sign_bit),
    };
    if f.is_nan() {
        return nan;
    }
    let exponent = signed(bits >> 23 & 0xFF) - 127;
    // Below the normal range the value is smaller than anything that a target type holds.
    let significand = bits & 0x007F_FFFF | 0x0080_0000;
    let below = unsigned((1 - bias - exponent).max(0));
    let shift = 23 - fraction_bits + below;
    let magnitude = if exponent == -127 || shift > 24 {
        0
    } else {
        let odd = significand >> shift & 1;
        let rounded = (significand + (1 << (shift - 1)) - 1 + odd) >> shift;
        let biased = unsigned((exponent + bias).max(1));
        // A carry out of the fraction raises the exponent, as it should.
        if below == 0 {
            (biased << fraction_bits) + rounded - (1 << fraction_bits)
        } else {
            rounded
        }
    };
    if magnitude >= largest {
        return match special {
            Special::Ieee => sign | infinity,
            // torch 2.15 gives the largest value, for infinities as well.
            Special::Finite => sign | (all_ones - 1),
            Special::UnsignedZero => nan,
        };
    }
    if magnitude == 0 && special == Special::UnsignedZero { 0 } else { sign | magnitude }
}
