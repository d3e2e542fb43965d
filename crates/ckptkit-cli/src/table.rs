//! Text for people.

use std::fmt::Write as _;

/// Text from a file without control characters, which could talk to the terminal.
pub(crate) fn plain(text: &str) -> String {
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

/// Longer cells do not widen their column: one odd name must not push all others off the screen.
const MAX_WIDTH: usize = 80;

/// Rows with columns as wide as they must be; columns named in `right` are right-aligned.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            let chars = cell.chars().count();
            if chars <= MAX_WIDTH {
                *width = (*width).max(chars);
            }
        }
    }
    let mut out = String::new();
    let header: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    for row in std::iter::once(&header).chain(rows) {
        let start = out.len();
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = width.saturating_sub(cell.chars().count());
            let (before, after) = if right.contains(&i) { (gap, 0) } else { (0, gap) };
            out.extend(std::iter::repeat_n(' ', before));
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', after + 2));
        }
        out.truncate(start + out[start..].trim_end().len());
        out.push('\n');
    }
    out
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
    fn one_and_many() {
        assert_eq!(count(1, "value"), "1 value");
        assert_eq!(count(0, "value"), "0 values");
        assert_eq!(count(1234, "tensor"), "1 234 tensors");
    }

    #[test]
    fn columns_line_up() {
        let rows =
            vec![vec!["é".to_owned(), "10".to_owned()], vec!["long".to_owned(), "9".to_owned()]];
        assert_eq!(columns(&["name", "n"], &rows, &[1]), "name   n\né     10\nlong   9\n");
        let rows = vec![vec!["x".repeat(99), "1".to_owned()], vec!["y".to_owned(), "2".to_owned()]];
        let text = columns(&["name", "n"], &rows, &[1]);
        assert!(text.ends_with("y     2\n"), "{text}");
    }
}
