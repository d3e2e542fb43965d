//! Where things stand in the text: the parser counts characters, editors and messages want bytes.

use std::ops::Range;

use saphyr_parser::ScalarStyle;

/// Turns positions in characters into positions in bytes.
pub(super) struct Bytes<'a> {
    text: &'a str,
    base: usize,
    ascii: bool,
    /// The last answer: questions mostly come in order.
    char: usize,
    byte: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(text: &'a str, base: usize) -> Self {
        Self { text, base, ascii: text.is_ascii(), char: 0, byte: 0 }
    }

    /// The bytes of the scalar itself, indicators included and comments not: the parser's span of
    /// a quoted one reaches over the comment behind it, that of a plain one over spaces, and that
    /// of a block begins below its `|`. `before` is where the previous node ends.
    pub(super) fn spelled(
        &self,
        span: &Range<usize>,
        before: usize,
        style: ScalarStyle,
    ) -> Range<usize> {
        let text = &self.text[span.start - self.base..span.end - self.base];
        // A tag or an anchor stays where it is when the value is replaced.
        let properties = text.len() - without_properties(text).len();
        let span = span.start + properties..span.end;
        let text = &text[properties..];
        let len = match style {
            ScalarStyle::SingleQuoted => single_quoted(text),
            ScalarStyle::DoubleQuoted => double_quoted(text),
            ScalarStyle::Plain => {
                let comment = [" #", "\t#"].iter().filter_map(|c| text.find(c)).min();
                text[..comment.unwrap_or(text.len())].trim_end().len()
            }
            ScalarStyle::Literal | ScalarStyle::Folded => {
                if text.starts_with(['|', '>']) {
                    return span.start..span.start + text.trim_end().len();
                }
                let from = before.max(self.base).min(span.start);
                let gap = &self.text[from - self.base..span.start - self.base];
                let start = block_indicator(gap).map_or(span.start, |at| from + at);
                let block = &self.text[start - self.base..span.end - self.base];
                return start..start + block.trim_end().len();
            }
        };
        span.start..span.start + len
    }

    pub(super) fn line_of(&self, byte: usize) -> usize {
        let end = (byte - self.base).min(self.text.len());
        1 + self.text.as_bytes()[..end].iter().filter(|&&b| b == b'\n').count()
    }

    pub(super) fn at(&mut self, index: usize) -> usize {
        if self.ascii {
            return self.base + index.min(self.text.len());
        }
        // A little way back happens where a key is known only once its colon is seen.
        while self.char > index {
            let Some(c) = self.text[..self.byte].chars().next_back() else { break };
            self.char -= 1;
            self.byte -= c.len_utf8();
        }
        while self.char < index {
            let Some(c) = self.text[self.byte..].chars().next() else { break };
            self.char += 1;
            self.byte += c.len_utf8();
        }
        self.base + self.byte
    }
}

fn without_properties(mut text: &str) -> &str {
    while text.starts_with(['!', '&']) {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        text = text[end..].trim_start();
    }
    text
}

/// The length of a text that starts with a quote, up to the quote that ends it.
fn single_quoted(text: &str) -> usize {
    let mut rest = text.get(1..).unwrap_or_default();
    while let Some(at) = rest.find('\'') {
        rest = &rest[at + 1..];
        match rest.strip_prefix('\'') {
            Some(more) => rest = more,
            None => return text.len() - rest.len(),
        }
    }
    text.len()
}

fn double_quoted(text: &str) -> usize {
    let mut bytes = text.bytes().enumerate().skip(1);
    while let Some((i, b)) = bytes.next() {
        match b {
            b'"' => return i + 1,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
    text.len()
}

/// Where the `|` or `>` stands between a key and the block it introduces.
fn block_indicator(gap: &str) -> Option<usize> {
    let mut start = 0;
    for line in gap.split_inclusive('\n') {
        let comment = [" #", "\t#"].iter().filter_map(|c| line.find(c)).min();
        let code = line[..comment.unwrap_or(line.len())].trim_end();
        let head = code.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+'));
        if !line.starts_with('#') && head.ends_with(['|', '>']) {
            return Some(start + head.len() - 1);
        }
        start += line.len();
    }
    None
}
