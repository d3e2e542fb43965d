//! Integers of any size: two's complement, little-endian, as pickles hold them.

/// Integers longer than this are not converted between bases: that costs the square of the length.
const MAX_BYTES: usize = 8 << 10;

/// The decimal digits of an integer in two's complement, little-endian; empty bytes are zero. Past
/// 8 KiB the digits are hexadecimal, `0x…`.
#[must_use]
pub fn decimal(bytes: &[u8]) -> String {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for b in &mut magnitude {
            let (v, c) = (!*b).overflowing_add(u8::from(carry));
            *b = v;
            carry = c;
        }
    }
    let mut digits =
        if magnitude.len() > MAX_BYTES { hexadecimal(&magnitude) } else { base_ten(&magnitude) };
    if negative {
        digits.insert(0, '-');
    }
    digits
}

fn hexadecimal(magnitude: &[u8]) -> String {
    let mut out = String::from("0x");
    for b in magnitude.iter().rev() {
        out.push_str(&format!("{b:02x}"));
    }
    out
}

fn base_ten(magnitude: &[u8]) -> String {
    const STEP: u64 = 1_000_000_000;
    let mut limbs: Vec<u32> = magnitude
        .chunks(4)
        .map(|c| c.iter().rev().fold(0, |v, &b| v << 8 | u32::from(b)))
        .collect();
    let mut groups = Vec::new();
    while limbs.last().is_some_and(|&l| l == 0) {
        limbs.pop();
    }
    while !limbs.is_empty() {
        let mut rest = 0_u64;
        for limb in limbs.iter_mut().rev() {
            let v = rest << 32 | u64::from(*limb);
            *limb = u32::try_from(v / STEP).unwrap_or(u32::MAX);
            rest = v % STEP;
        }
        groups.push(rest);
        while limbs.last().is_some_and(|&l| l == 0) {
            limbs.pop();
        }
    }
    let Some(last) = groups.pop() else { return "0".into() };
    let mut out = last.to_string();
    for g in groups.iter().rev() {
        out.push_str(&format!("{g:09}"));
    }
    out
}

/// Reads decimal digits with an optional sign; `None` when they are something else or too many.
pub(crate) fn from_decimal(text: &str) -> Option<Vec<u8>> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty()
        || digits.len() > 2 * MAX_BYTES
        || !digits.bytes().all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let mut magnitude: Vec<u8> = Vec::new();
    for d in digits.bytes() {
        let mut carry = u16::from(d - b'0');
        for b in &mut magnitude {
            carry += u16::from(*b) * 10;
            *b = (carry & 0xFF) as u8;
            carry >>= 8;
        }
        if carry > 0 {
            magnitude.push((carry & 0xFF) as u8);
        }
    }
    magnitude.push(0);
    if negative {
        let mut carry = true;
        for b in &mut magnitude {
            let (v, c) = (!*b).overflowing_add(u8::from(carry));
            *b = v;
            carry = c;
        }
    }
    magnitude.truncate(significant(&magnitude));
    Some(magnitude)
}

/// How many of the bytes are needed: those behind them repeat the sign.
pub(super) fn significant(bytes: &[u8]) -> usize {
    let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 };
    let kept = bytes.iter().rposition(|&b| b != fill).map_or(0, |i| i + 1);
    let needs_sign = match kept.checked_sub(1).map(|i| bytes[i] & 0x80 != 0) {
        Some(negative) => negative != (fill == 0xFF),
        None => fill == 0xFF,
    };
    (kept + usize::from(needs_sign)).min(bytes.len())
}

/// The same integer as an `i64`, where it fits.
pub(super) fn to_i64(bytes: &[u8]) -> Option<i64> {
    let fill = if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xFF } else { 0 };
    let mut out = [fill; 8];
    let n = bytes.len().min(8);
    out[..n].copy_from_slice(&bytes[..n]);
    let fits = bytes.iter().skip(8).all(|&b| b == fill)
        && (bytes.len() <= 8 || (out[7] & 0x80 != 0) == (fill == 0xFF));
    fits.then(|| i64::from_le_bytes(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(decimal(&[]), "0");
        assert_eq!(decimal(&[0xFF]), "-1");
        assert_eq!(decimal(&[0, 0, 0, 0, 0, 0, 0, 0, 1]), "18446744073709551616");
        assert_eq!(to_i64(&[0, 0, 0, 0, 0, 0, 0, 0x80]), Some(i64::MIN));
        assert_eq!(to_i64(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0]), None);
        assert_eq!(to_i64(&[0xFF; 12]), Some(-1));
        assert_eq!(from_decimal("12a"), None);
    }

    proptest! {
        #[test]
        fn agrees_with_i128(n in any::<i128>()) {
            prop_assert_eq!(decimal(&n.to_le_bytes()), n.to_string());
            let back = from_decimal(&n.to_string()).unwrap();
            prop_assert_eq!(decimal(&back), n.to_string());
            prop_assert_eq!(to_i64(&n.to_le_bytes()), i64::try_from(n).ok());
        }
    }
}
