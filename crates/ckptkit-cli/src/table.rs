//! Rows of cells as lines with aligned columns.
//!
//! A listing may have a million rows. A cell is therefore what it shows, not its text: rows are gone
//! through twice, for the widths and for the lines, and only the lines that are about to be written
//! are ever in memory.

use std::io::{self, Write};

use crate::text::{bytes, grouped, is_printable_ascii, plain};

/// Longer cells do not widen their column: one odd name must not push all others off the screen.
const MAX_WIDTH: usize = 80;
/// Lines are written together from this many bytes on: as much as a pipe takes at once.
const WRITTEN: usize = 64 << 10;

/// What stands in a cell.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    /// Words of ours.
    Ours(&'a str),
    /// Text from a file, below so many others: two spaces each before it.
    Name(usize, &'a str),
    Number(u64),
    /// A number in groups of three digits.
    Grouped(u64),
    /// A number of bytes in the unit that suits it.
    Bytes(u64),
    Shape(&'a [u64]),
    /// A tensor's dtype and shape.
    Tensor(&'a str, &'a [u64]),
    Empty,
}

impl Cell<'_> {
    /// How many columns of a terminal it takes, counted as one a character.
    fn width(self) -> usize {
        let chars = |text: &str| text.chars().count();
        match self {
            Self::Ours(text) => chars(text),
            Self::Name(depth, name) if is_printable_ascii(name) => 2 * depth + name.len(),
            Self::Name(depth, name) => 2 * depth + chars(&plain(name)),
            Self::Number(n) => digits(n),
            Self::Grouped(n) => digits(n) + (digits(n) - 1) / 3,
            Self::Bytes(n) => bytes(n).len(),
            Self::Shape(dims) => {
                let commas = 2 * dims.len().saturating_sub(1);
                2 + commas + dims.iter().map(|n| digits(*n)).sum::<usize>()
            }
            Self::Tensor(dtype, dims) => dtype.len() + 1 + Self::Shape(dims).width(),
            Self::Empty => 0,
        }
    }

    /// Adds its text, and gives its width.
    fn push(self, line: &mut Vec<u8>) -> usize {
        let start = line.len();
        match self {
            Self::Ours(text) => {
                line.extend_from_slice(text.as_bytes());
                return text.chars().count();
            }
            Self::Name(depth, name) => {
                spaces(2 * depth, line);
                if !is_printable_ascii(name) {
                    let name = plain(name);
                    line.extend_from_slice(name.as_bytes());
                    return 2 * depth + name.chars().count();
                }
                line.extend_from_slice(name.as_bytes());
            }
            Self::Number(n) => number(n, line),
            Self::Grouped(n) => line.extend_from_slice(grouped(n).as_bytes()),
            Self::Bytes(n) => line.extend_from_slice(bytes(n).as_bytes()),
            Self::Shape(dims) => {
                line.push(b'[');
                for (i, dim) in dims.iter().enumerate() {
                    if i > 0 {
                        line.extend_from_slice(b", ");
                    }
                    number(*dim, line);
                }
                line.push(b']');
            }
            Self::Tensor(dtype, dims) => {
                line.extend_from_slice(dtype.as_bytes());
                line.push(b' ');
                Self::Shape(dims).push(line);
            }
            Self::Empty => {}
        }
        line.len() - start
    }
}

/// Writes rows with columns as wide as they must be; columns named in `right` are right-aligned.
pub(crate) fn write<'a, const N: usize>(
    out: &mut impl Write,
    header: [&'a str; N],
    right: &[usize],
    rows: impl Iterator<Item = [Cell<'a>; N]> + Clone,
) -> io::Result<()> {
    let mut widths = header.map(|name| name.chars().count());
    for row in rows.clone() {
        for (width, cell) in widths.iter_mut().zip(row) {
            let needed = cell.width();
            if needed <= MAX_WIDTH {
                *width = (*width).max(needed);
            }
        }
    }
    let mut lines = Vec::with_capacity(WRITTEN + 1024);
    for row in std::iter::once(header.map(Cell::Ours)).chain(rows) {
        // Spaces are written when something follows them.
        let mut gap = 0;
        for (i, (cell, width)) in row.iter().zip(widths).enumerate() {
            let is_right = right.contains(&i);
            if is_right {
                gap += width.saturating_sub(cell.width());
            }
            let mut taken = 0;
            if !matches!(cell, Cell::Empty | Cell::Ours("") | Cell::Name(0, "")) {
                spaces(gap, &mut lines);
                taken = cell.push(&mut lines);
                gap = 0;
            }
            gap += 2 + if is_right { 0 } else { width.saturating_sub(taken) };
        }
        lines.push(b'\n');
        if lines.len() >= WRITTEN {
            out.write_all(&lines)?;
            lines.clear();
        }
    }
    out.write_all(&lines)
}

fn spaces(count: usize, line: &mut Vec<u8>) {
    line.resize(line.len() + count, b' ');
}

/// Most sizes of tensors are short, and told apart without a logarithm.
fn digits(n: u64) -> usize {
    match n {
        0..=9 => 1,
        10..=99 => 2,
        100..=999 => 3,
        1000..=9999 => 4,
        _ => 1 + n.ilog10() as usize,
    }
}

/// Formatting through the standard library takes several times as long.
#[allow(clippy::cast_possible_truncation, reason = "a digit")]
fn number(mut n: u64, line: &mut Vec<u8>) {
    let mut text = [0; 20];
    let mut start = text.len();
    loop {
        start -= 1;
        text[start] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    line.extend_from_slice(&text[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::shape;

    fn text<'a, const N: usize>(
        header: [&'a str; N],
        right: &[usize],
        rows: &[[Cell<'a>; N]],
    ) -> String {
        let mut out = Vec::new();
        write(&mut out, header, right, rows.iter().copied()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up() {
        let rows =
            [[Cell::Name(0, "é"), Cell::Number(10)], [Cell::Name(0, "long"), Cell::Number(9)]];
        assert_eq!(text(["name", "n"], &[1], &rows), "name   n\né     10\nlong   9\n");
        let long = "x".repeat(99);
        let rows = [[Cell::Name(0, &long), Cell::Number(1)], [Cell::Name(0, "y"), Cell::Number(2)]];
        let text = text(["name", "n"], &[1], &rows);
        assert!(text.ends_with("y     2\n"), "{text}");
    }

    #[test]
    fn lines_do_not_end_in_spaces() {
        let rows = [
            [Cell::Ours("a"), Cell::Empty, Cell::Empty],
            [Cell::Empty, Cell::Ours("b"), Cell::Empty],
        ];
        assert_eq!(text(["long", "n", ""], &[1], &rows), "long  n\na\n      b\n");
    }

    #[test]
    fn names_cannot_talk_to_the_terminal() {
        let rows = [[Cell::Name(1, "a\x1b"), Cell::Ours("F32")]];
        assert_eq!(text(["", ""], &[], &rows), "\n  a\\u{1b}  F32\n");
    }

    /// What a cell says of its width is what it writes.
    #[test]
    fn widths_are_those_of_the_text() {
        let numbers = [0, 9, 10, 99, 100, 999, 1000, 12_345, 999_500, 1_000_000, u64::MAX];
        let mut cells = vec![
            Cell::Ours("é"),
            Cell::Name(2, "a.b"),
            Cell::Name(2, "ä\u{202E}"),
            Cell::Tensor("BF16", &[1, 20]),
            Cell::Shape(&[]),
            Cell::Shape(&[7]),
            Cell::Shape(&numbers),
            Cell::Empty,
        ];
        for n in numbers {
            cells.extend([Cell::Number(n), Cell::Grouped(n), Cell::Bytes(n)]);
            let mut digits = Vec::new();
            number(n, &mut digits);
            assert_eq!(digits, n.to_string().as_bytes());
        }
        for cell in cells {
            let mut line = Vec::new();
            assert_eq!(cell.push(&mut line), cell.width(), "{cell:?}");
            assert_eq!(String::from_utf8(line).unwrap().chars().count(), cell.width(), "{cell:?}");
        }
        let mut line = Vec::new();
        Cell::Shape(&numbers[..3]).push(&mut line);
        assert_eq!(line, shape(&numbers[..3]).as_bytes());
    }

    #[test]
    fn many_lines_are_written_together() {
        struct Writes(Vec<usize>);
        impl Write for Writes {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                assert!(bytes.ends_with(b"\n"));
                self.0.push(bytes.len());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut out = Writes(Vec::new());
        let rows = (0..20_000).map(|n| [Cell::Ours("name"), Cell::Number(n)]);
        write(&mut out, ["name", "n"], &[1], rows).unwrap();
        let (last, full) = out.0.split_last().unwrap();
        assert!(full.len() == 3 && full.iter().all(|len| *len >= WRITTEN), "{:?}", out.0);
        assert_eq!(full.iter().sum::<usize>() + last, 20_001 * 12);
    }
}
