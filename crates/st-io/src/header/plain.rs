//! The header's JSON as every writer puts it, in one pass over its bytes.
//!
//! What is read here is what the strict parser reads: this one gives up at anything unusual, and
//! then that one starts again from the beginning, with its errors, its places and its leniency.

use std::borrow::Cow;

use ckptkit_core::Dtype;
use ckptkit_core::shape::MAX_DIMS;

use super::Entry;
use super::parse::{Fields, Raw};

/// Bytes of an entry in the text: short ones, so that room is asked for once. What is not used is
/// given back.
const ENTRY_BYTES: usize = 96;

/// Reads a header of entries with just the three keys of the format, of known dtypes, and at most
/// one `__metadata__`. `None` says nothing about the header.
pub(super) fn read(text: &str) -> Option<Raw> {
    let mut cursor = Cursor { text, at: 0 };
    let mut raw = Raw::default();
    let mut has_metadata = false;
    let mut room = Room::default();
    cursor.take(b'{')?;
    let mut ended = cursor.take(b'}').is_some();
    if !ended {
        raw.entries.reserve_exact(text.len() / ENTRY_BYTES + 1);
    }
    while !ended {
        let name = cursor.key()?;
        if name == "__metadata__" {
            if std::mem::replace(&mut has_metadata, true) {
                return None;
            }
            cursor.metadata(&mut raw)?;
        } else {
            raw.entries.push(cursor.entry(&name, &mut room)?);
        }
        ended = cursor.ends(b'}')?;
    }
    cursor.space();
    raw.entries.shrink_to_fit();
    (cursor.at == text.len()).then_some(raw)
}

/// What one entry leaves to the next.
#[derive(Default)]
struct Room {
    dims: Vec<u64>,
    /// Most tensors are of one dtype.
    dtype: Option<Dtype>,
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes one byte, after spaces.
    fn take(&mut self, byte: u8) -> Option<()> {
        if self.peek()? != byte {
            self.space();
        }
        let found = self.peek()? == byte;
        self.at += usize::from(found);
        found.then_some(())
    }

    /// Takes bytes that are known.
    fn word(&mut self, word: &[u8]) -> Option<()> {
        let found = self.text.as_bytes().get(self.at..)?.starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found.then_some(())
    }

    /// Takes what follows an item of a list or an object; whether it was the end of it.
    fn ends(&mut self, end: u8) -> Option<bool> {
        if self.take(b',').is_some() { Some(false) } else { self.take(end).map(|()| true) }
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.take(b'"')?;
        let start = self.at;
        self.at += plain_bytes(self.text.as_bytes().get(start..)?);
        if self.peek()? != b'"' {
            return self.escaped(start).map(Cow::Owned);
        }
        let string = self.text.get(start..self.at)?;
        self.at += 1;
        Some(Cow::Borrowed(string))
    }

    /// The string that starts at `start`, from an escape in it on.
    #[cold]
    fn escaped(&mut self, start: usize) -> Option<String> {
        while self.peek()? != b'"' {
            self.word(b"\\")?;
            self.at += 1;
            self.at += plain_bytes(self.text.as_bytes().get(self.at..)?);
        }
        self.at += 1;
        serde_json::from_str(self.text.get(start.checked_sub(1)?..self.at)?).ok()
    }

    fn key(&mut self) -> Option<Cow<'a, str>> {
        let key = self.string()?;
        self.take(b':')?;
        Some(key)
    }

    /// Digits that JSON and `u64` allow; what follows them must be what may follow a value.
    fn integer(&mut self) -> Option<u64> {
        self.space();
        let text = self.text.as_bytes().get(self.at..)?;
        let (mut n, mut len) = (0_u64, 0);
        for digit in text.iter().map(|byte| byte.wrapping_sub(b'0')).take_while(|d| *d < 10) {
            n = n.checked_mul(10)?.checked_add(digit.into())?;
            len += 1;
        }
        self.at += len;
        let starts_well = len == 1 || text.first().is_some_and(|b| *b != b'0');
        (len > 0 && starts_well).then_some(n)
    }

    fn shape(&mut self, dims: &mut Vec<u64>) -> Option<()> {
        dims.clear();
        self.take(b'[')?;
        let mut ended = self.take(b']').is_some();
        while !ended {
            if dims.len() == MAX_DIMS {
                return None;
            }
            dims.push(self.integer()?);
            ended = self.ends(b']')?;
        }
        Some(())
    }

    fn range(&mut self) -> Option<(u64, u64)> {
        self.take(b'[')?;
        let begin = self.integer()?;
        self.take(b',')?;
        let end = self.integer()?;
        self.take(b']')?;
        (begin <= end).then_some((begin, end))
    }

    fn dtype(&mut self, before: Option<Dtype>) -> Option<Dtype> {
        let name = self.string()?;
        before.filter(|d| d.name() == name).or_else(|| Dtype::from_safetensors(&name))
    }

    fn entry(&mut self, name: &str, room: &mut Room) -> Option<Entry> {
        let (mut dtype, mut has_shape, mut range) = (None, false, None);
        self.take(b'{')?;
        for last in [false, false, true] {
            self.take(b'"')?;
            if dtype.is_none() && self.word(b"dtype\"").is_some() {
                self.take(b':')?;
                dtype = Some(self.dtype(room.dtype)?);
            } else if !has_shape && self.word(b"shape\"").is_some() {
                self.take(b':')?;
                self.shape(&mut room.dims)?;
                has_shape = true;
            } else if range.is_none() && self.word(b"data_offsets\"").is_some() {
                self.take(b':')?;
                range = Some(self.range()?);
            } else {
                return None;
            }
            self.take(if last { b'}' } else { b',' })?;
        }
        // Three keys, and none twice: all are there.
        let (dtype, (begin, end)) = (dtype?, range?);
        room.dtype = Some(dtype);
        Fields { dtype, begin, end }.entry(name, &room.dims).ok()
    }

    fn metadata(&mut self, raw: &mut Raw) -> Option<()> {
        self.take(b'{')?;
        let mut ended = self.take(b'}').is_some();
        while !ended {
            let (key, value) = (self.key()?.into_owned(), self.string()?.into_owned());
            if raw.metadata.insert(key, value).is_some() {
                return None;
            }
            ended = self.ends(b'}')?;
        }
        Some(())
    }
}

/// How many bytes come before the first quote, backslash or control character; eight are looked at
/// at once.
fn plain_bytes(text: &[u8]) -> usize {
    const EACH: u64 = u64::MAX / 0xFF;
    // Sets the high bit of a byte that is less than `bound`, which no byte above ASCII is. Of several
    // bytes the lowest is right: a borrow goes only to those above.
    let below = |word: u64, bound: u64| word.wrapping_sub(EACH * bound) & !word;
    let mut rest = text;
    while let Some((word, after)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        // This puts the quote where the space is, next to the control characters.
        let quote_or_control = below(word ^ (EACH * u64::from(b'"' ^ b' ')), 0x21);
        let escape = below(word ^ (EACH * u64::from(b'\\')), 1);
        let stops = (quote_or_control | escape) & (EACH * 0x80);
        if stops != 0 {
            return text.len() - rest.len() + stops.trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    let stop = |b: &u8| matches!(b, b'"' | b'\\' | 0..0x20);
    text.len() - rest.len() + rest.iter().position(stop).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_ends_at_the_first_byte_that_is_not_plain() {
        for len in 0..20 {
            for at in 0..=len {
                for byte in 0..=u8::MAX {
                    let mut text = vec![0xFF; len];
                    text[at..].fill(b'"');
                    text.iter_mut().skip(at).take(1).for_each(|b| *b = byte);
                    let stops = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
                    let expected = text.iter().position(stops).unwrap_or(len);
                    assert_eq!(plain_bytes(&text), expected, "{text:?}");
                }
            }
        }
    }
}
