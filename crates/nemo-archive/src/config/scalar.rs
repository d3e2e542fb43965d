//! What a plain scalar is: the rules of OmegaConf's loader, which are PyYAML's (YAML 1.1) with
//! more floats and without timestamps.
//!
//! The order is PyYAML's: boolean, PyYAML's float, integer, null, OmegaConf's float; what none of
//! them takes is a text. `tests/data/scalars.tsv` holds what OmegaConf itself says.

use ckptkit_core::{Error, Result};

use super::value::Value;

/// Python refuses decimal integers with more digits.
const MAX_DIGITS: usize = 4300;

/// The value of a plain scalar.
pub(crate) fn plain(text: &str) -> Result<Value> {
    let Some(first) = text.bytes().next() else { return Ok(Value::None) };
    match first {
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~' => {
            Ok(word(text).unwrap_or_else(|| Value::Str(text.into())))
        }
        b'-' | b'+' | b'.' | b'0'..=b'9' => {
            if is_float(text, Dialect::PyYaml) {
                float(text)
            } else if let Some(radix) = integer_form(text) {
                integer(text, radix)
            } else if is_float(text, Dialect::OmegaConf) {
                float(text)
            } else {
                Ok(Value::Str(text.into()))
            }
        }
        _ => Ok(Value::Str(text.into())),
    }
}

/// A scalar that a tag declares to be `kind` (`int`, `float`, `bool`, `null`).
pub(crate) fn tagged(text: &str, kind: &str) -> Result<Value> {
    let value = plain(text)?;
    match (kind, value) {
        ("int", v @ (Value::Int(_) | Value::BigInt(_)))
        | ("bool", v @ Value::Bool(_))
        | ("float", v @ Value::Float(_)) => Ok(v),
        ("null", _) => Ok(Value::None),
        #[allow(clippy::cast_precision_loss, reason = "the tag asks for it")]
        ("float", Value::Int(i)) => Ok(Value::Float(i as f64)),
        _ => Err(Error::malformed(format!("{text:?} is tagged as {kind}, and is none"))),
    }
}

fn word(text: &str) -> Option<Value> {
    Some(match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        "~" | "null" | "Null" | "NULL" => Value::None,
        _ => return None,
    })
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    PyYaml,
    OmegaConf,
}

/// `[0-9_]*`
fn digits_or_underscores(s: &str) -> bool {
    s.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}

/// The digits before a point: `[0-9][0-9_]*`, and OmegaConf's stricter `[0-9]+(?:_[0-9]+)*`.
fn whole(s: &str, dialect: Dialect) -> bool {
    match dialect {
        Dialect::PyYaml => s.starts_with(|c: char| c.is_ascii_digit()) && digits_or_underscores(s),
        Dialect::OmegaConf => {
            s.split('_').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        }
    }
}

/// Cuts `e±N` off; `None` when there is an `e` that no exponent follows.
fn without_exponent(s: &str, sign_needed: bool) -> Option<(&str, bool)> {
    let Some(at) = s.find(['e', 'E']) else { return Some((s, false)) };
    let tail = &s[at + 1..];
    let digits = unsigned(tail);
    let ok = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    (ok && (!sign_needed || digits.len() < tail.len())).then_some((&s[..at], true))
}

/// `(?::[0-5]?[0-9])+`, given without its first colon.
fn minutes(s: &str) -> bool {
    s.split(':').all(|p| match p.as_bytes() {
        [b] => b.is_ascii_digit(),
        [a, b] => (b'0'..=b'5').contains(a) && b.is_ascii_digit(),
        _ => false,
    })
}

fn is_float(text: &str, dialect: Dialect) -> bool {
    let body = unsigned(text);
    let signed = body.len() < text.len();
    match body {
        ".inf" | ".Inf" | ".INF" => return true,
        ".nan" | ".NaN" | ".NAN" => return !signed,
        _ => {}
    }
    // `.5`: never signed, and its exponent always is.
    if let Some(fraction) = body.strip_prefix('.') {
        let Some((fraction, _)) = without_exponent(fraction, true) else { return false };
        return !signed && whole(fraction, dialect);
    }
    // `12:30.5`
    if let Some((clock, fraction)) = body.split_once('.') {
        if let Some((hours, rest)) = clock.split_once(':') {
            return whole(hours, dialect) && minutes(rest) && digits_or_underscores(fraction);
        }
    }
    let omega = dialect == Dialect::OmegaConf;
    let Some((mantissa, exponent)) = without_exponent(body, !omega) else { return false };
    match mantissa.split_once('.') {
        Some((w, fraction)) => whole(w, dialect) && digits_or_underscores(fraction),
        None => omega && exponent && whole(mantissa, dialect),
    }
}

fn float(text: &str) -> Result<Value> {
    let text: String = text.chars().filter(|&c| c != '_').collect::<String>().to_lowercase();
    let sign = if text.starts_with('-') { -1.0 } else { 1.0 };
    let body = unsigned(&text);
    let bad = || Error::malformed(format!("{text:?} is no number that Python reads"));
    let value = match body {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        body => {
            let mut value = 0.0;
            let mut base = 1.0;
            for part in body.rsplit(':') {
                value += part.parse::<f64>().map_err(|_| bad())? * base;
                base *= 60.0;
            }
            value
        }
    };
    Ok(Value::Float(sign * value))
}

/// The radix that PyYAML's pattern of integers finds: 60 for `12:30:45`.
fn integer_form(text: &str) -> Option<u32> {
    let body = unsigned(text);
    let all = |s: &str, f: fn(u8) -> bool| !s.is_empty() && s.bytes().all(|b| b == b'_' || f(b));
    if body == "0" {
        return Some(10);
    }
    if let Some(rest) = body.strip_prefix('0') {
        let octal = all(rest, |b| (b'0'..=b'7').contains(&b));
        return match rest.as_bytes()[0] {
            b'b' if all(&rest[1..], |b| matches!(b, b'0' | b'1')) => Some(2),
            b'x' if all(&rest[1..], |b| b.is_ascii_hexdigit()) => Some(16),
            _ => octal.then_some(8),
        };
    }
    let (head, rest) = body.split_once(':').map_or((body, None), |(h, r)| (h, Some(r)));
    let whole = whole(head, Dialect::PyYaml);
    match rest {
        None => whole.then_some(10),
        Some(rest) => (whole && minutes(rest)).then_some(60),
    }
}

fn integer(text: &str, radix: u32) -> Result<Value> {
    let plain: String = text.chars().filter(|&c| c != '_').collect();
    let negative = plain.starts_with('-');
    let body = unsigned(&plain);
    let body = match radix {
        2 | 16 => &body[2..],
        _ => body,
    };
    if body.len() > MAX_DIGITS {
        return Err(Error::limit(format!("an integer of {} digits", body.len())));
    }
    let mut number = Decimal::default();
    if radix == 60 {
        for part in body.split(':') {
            let mut of_part = Decimal::default();
            of_part.push_all(part, 10);
            number.times_60_plus(&of_part);
        }
    } else if body.is_empty() {
        return Err(Error::malformed(format!("{text:?} is no number that Python reads")));
    } else {
        number.push_all(body, radix);
    }
    Ok(number.into_value(negative))
}

/// A number of any size, nine decimal digits a limb, lowest first.
#[derive(Default)]
struct Decimal(Vec<u32>);

const LIMB: u64 = 1_000_000_000;

impl Decimal {
    /// Appends digits, as many at once as fit a limb.
    fn push_all(&mut self, digits: &str, radix: u32) {
        let (mut value, mut scale) = (0, 1);
        for digit in digits.chars().filter_map(|c| c.to_digit(radix)) {
            value = value * radix + digit;
            scale *= radix;
            if scale >= 10_000_000 {
                self.push(scale, value);
                (value, scale) = (0, 1);
            }
        }
        self.push(scale, value);
    }

    fn push(&mut self, radix: u32, digit: u32) {
        let mut carry = u64::from(digit);
        for limb in &mut self.0 {
            let n = u64::from(*limb) * u64::from(radix) + carry;
            *limb = low(n);
            carry = n / LIMB;
        }
        if carry > 0 {
            self.0.push(low(carry));
        }
    }

    fn times_60_plus(&mut self, other: &Self) {
        self.push(60, 0);
        let mut carry = 0;
        for i in 0..self.0.len().max(other.0.len()) {
            if i == self.0.len() {
                self.0.push(0);
            }
            let n = u64::from(self.0[i]) + u64::from(other.0.get(i).copied().unwrap_or(0)) + carry;
            self.0[i] = low(n);
            carry = n / LIMB;
        }
        if carry > 0 {
            self.0.push(low(carry));
        }
    }

    fn into_value(self, negative: bool) -> Value {
        let Some((top, rest)) = self.0.split_last() else { return Value::Int(0) };
        let mut text = if negative { format!("-{top}") } else { top.to_string() };
        for limb in rest.iter().rev() {
            text.push_str(&format!("{limb:09}"));
        }
        text.parse().map_or(Value::BigInt(text), Value::Int)
    }
}

fn low(n: u64) -> u32 {
    // Below 10^9, so it fits.
    u32::try_from(n % LIMB).unwrap_or(0)
}
