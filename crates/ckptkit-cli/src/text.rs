//! Text for people.

use std::fmt::Write as _;

/// Text from a file without control characters, which could talk to the terminal.
pub(crate) fn plain(text: &str) -> String {
    if is_printable_ascii(text) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if talks(c) {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether [`plain`] gives this text as it is, one column wide for each byte. Nearly all names are
/// such, and are looked at eight bytes at once.
pub(crate) fn is_printable_ascii(text: &str) -> bool {
    const EACH: u64 = u64::MAX / 0xFF;
    // A byte's high bit ends up set where it is above ASCII, where it is DEL and one is added, and
    // where it is below a space and that is taken away; carries begin only at such bytes.
    let odd = |word: u64| word | word.wrapping_add(EACH) | word.wrapping_sub(EACH * 0x20);
    let words = text.as_bytes().chunks_exact(8);
    let mut last = [b' '; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    let mut all = odd(u64::from_le_bytes(last));
    for word in words {
        all |= word.try_into().map_or(u64::MAX, |word| odd(u64::from_le_bytes(word)));
    }
    all & (EACH * 0x80) == 0
}

/// Control characters, and those that turn the direction of what follows or cannot be seen.
fn talks(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
}

/// As [`plain`], for text of several lines.
pub(crate) fn plain_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive(['\n', '\t']) {
        let end = line.len() - usize::from(line.ends_with(['\n', '\t']));
        out.push_str(&plain(line[..end].strip_suffix('\r').unwrap_or(&line[..end])));
        out.push_str(&line[end..]);
    }
    out
}

/// `1 value`, `2 values`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(n as u64), if n == 1 { "" } else { "s" })
}

/// `1234567` as `1 234 567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// A number of bytes, in the unit that leaves three digits, and exactly.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KB", "MB", "GB", "TB", "PB"];
    if n < 1000 {
        return format!("{n} B");
    }
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A shape as `[2, 3]`; a scalar as `[]`.
pub(crate) fn shape(dims: &[u64]) -> String {
    let dims: Vec<String> = dims.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1 234 567");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1000), "1.00 KB");
        assert_eq!(bytes(1_234_567_890), "1.23 GB");
        assert_eq!(bytes(12_345_678), "12.3 MB");
        assert_eq!(bytes(999_999), "1.00 MB");
    }

    #[test]
    fn escapes_do_not_reach_the_terminal() {
        assert_eq!(plain("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(plain("a\u{202E}b"), "a\\u{202e}b");
        assert_eq!(plain_lines("a\tb\r\n\x1b c\n"), "a\tb\n\\u{1b} c\n");
    }

    #[test]
    fn printable_text_is_plain_as_it_is() {
        for byte in 0..=0x7F_u8 {
            for text in ["", "\0", "~~~~~~~~", "a\x7f long name before and", "é and behind"] {
                let text = format!("{text}{}{text}", char::from(byte));
                let printable = text.chars().all(|c| matches!(c, ' '..='~'));
                assert_eq!(is_printable_ascii(&text), printable, "{text:?}");
                assert!(!printable || plain(&text) == text);
            }
        }
        assert!(is_printable_ascii("") && is_printable_ascii("encoder.layers.0.weight"));
        assert!(!is_printable_ascii("\u{80}") && !is_printable_ascii("encoder.läyers.0"));
    }

    #[test]
    fn one_and_many() {
        assert_eq!(count(1, "value"), "1 value");
        assert_eq!(count(0, "value"), "0 values");
        assert_eq!(count(1234, "tensor"), "1 234 tensors");
    }
}
