//! JSON read value by value, with the place of everything that is wrong in it.
//!
//! `serde_json` would swallow repeated keys, read integers beyond 64 bits as floats, and say
//! nothing of the path.

use std::borrow::Cow;
use std::fmt::Write as _;

use ckptkit_core::{Error, Result};

/// Encoders stay below 100.
const MAX_DEPTH: usize = 128;
/// Characters of a key that an error shows.
const SHOWN: usize = 80;

/// A value that is complete, or the start of one that holds others.
#[derive(Debug, PartialEq)]
pub(super) enum Token<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Cow<'a, str>),
    /// [`Reader::item`] goes on.
    Array,
    /// [`Reader::key`] goes on.
    Object,
}

impl Token<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Str(_) => "text",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

enum Open<'a> {
    /// How many items were begun.
    Array(u64),
    /// The key of the present member.
    Object(Option<Cow<'a, str>>),
}

pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Where the last token starts.
    token_at: usize,
    open: Vec<Open<'a>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(json: &'a [u8]) -> Result<Self> {
        let text = std::str::from_utf8(json)
            .map_err(|e| Error::malformed("not UTF-8").at(e.valid_up_to() as u64))?;
        Ok(Self { text, at: 0, token_at: 0, open: Vec::new() })
    }

    /// Where the last token starts, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.token_at as u64
    }

    /// Where the reader is, as a JSON pointer.
    pub(super) fn path(&self) -> String {
        let mut out = String::new();
        for open in &self.open {
            match open {
                Open::Array(count) => _ = write!(out, "/{}", count.saturating_sub(1)),
                Open::Object(None) => {}
                Open::Object(Some(key)) => {
                    let shown: String = key.chars().take(SHOWN).collect();
                    let cut = if shown.len() < key.len() { "…" } else { "" };
                    _ = write!(out, "/{}{cut}", shown.replace('~', "~0").replace('/', "~1"));
                }
            }
        }
        out
    }

    /// Adds to an error where the reader stands.
    pub(super) fn placed(&self, e: Error) -> Error {
        let e = e.at(self.offset());
        match self.path() {
            path if path.is_empty() => e,
            path => e.within(path),
        }
    }

    /// The next value, or its start.
    pub(super) fn token(&mut self) -> Result<Token<'a>> {
        self.skip_space();
        self.token_at = self.at;
        let token = match self.peek() {
            Some(b'{') => Token::Object,
            Some(b'[') => Token::Array,
            Some(b'"') => return Ok(Token::Str(self.string()?)),
            Some(b'-' | b'0'..=b'9') => return self.number(),
            Some(b'n') => return self.word("null", Token::Null),
            Some(b't') => return self.word("true", Token::Bool(true)),
            Some(b'f') => return self.word("false", Token::Bool(false)),
            Some(_) => return Err(Error::malformed("no JSON value stands here")),
            None => return Err(ended()),
        };
        self.at += 1;
        if self.open.len() >= MAX_DEPTH {
            return Err(Error::limit(format!("values nest more than {MAX_DEPTH} deep")));
        }
        self.open.push(match token {
            Token::Array => Open::Array(0),
            _ => Open::Object(None),
        });
        Ok(token)
    }

    /// Whether another item follows in the innermost array; its end closes the array.
    pub(super) fn item(&mut self) -> Result<bool> {
        let Some(Open::Array(count)) = self.open.last_mut() else {
            return Err(Error::malformed("no array is open"));
        };
        let first = *count == 0;
        *count += 1;
        self.more(b']', first)
    }

    /// The next key of the innermost object; its end closes the object.
    pub(super) fn key(&mut self) -> Result<Option<Cow<'a, str>>> {
        let Some(Open::Object(last)) = self.open.last() else {
            return Err(Error::malformed("no object is open"));
        };
        let first = last.is_none();
        if !self.more(b'}', first)? {
            return Ok(None);
        }
        self.skip_space();
        self.token_at = self.at;
        if self.peek() != Some(b'"') {
            return Err(Error::malformed("a member's key is no text"));
        }
        let key = self.string()?;
        self.skip_space();
        if self.peek() != Some(b':') {
            return Err(self.unexpected("':'"));
        }
        self.at += 1;
        if let Some(Open::Object(last)) = self.open.last_mut() {
            *last = Some(key.clone());
        }
        Ok(Some(key))
    }

    /// After the outermost value.
    pub(super) fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.at == self.text.len() {
            return Ok(());
        }
        self.token_at = self.at;
        Err(Error::malformed("there is more behind the end"))
    }

    fn more(&mut self, close: u8, first: bool) -> Result<bool> {
        self.skip_space();
        match self.peek() {
            Some(b) if b == close => {
                self.at += 1;
                self.open.pop();
                Ok(false)
            }
            Some(_) if first => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.unexpected("',' or the end of what is open")),
        }
    }

    fn unexpected(&mut self, expected: &str) -> Error {
        self.token_at = self.at;
        match self.peek() {
            Some(_) => Error::malformed(format!("expected {expected}")),
            None => ended(),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Error::malformed("no JSON value stands here"));
        }
        self.at += word.len();
        Ok(token)
    }

    fn number(&mut self) -> Result<Token<'a>> {
        let start = self.at;
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while matches!(reader.peek(), Some(b'0'..=b'9')) {
                reader.at += 1;
            }
            reader.at - from
        };
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let whole = digits(self);
        let mut legal = whole > 0 && !(leading_zero && whole > 1);
        let mut float = false;
        if self.peek() == Some(b'.') {
            float = true;
            self.at += 1;
            legal &= digits(self) > 0;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            float = true;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            legal &= digits(self) > 0;
        }
        let text = &self.text[start..self.at];
        if !legal {
            return Err(Error::malformed("this is no number of JSON"));
        }
        if !float {
            return text.parse().map(Token::Int).map_err(|_| {
                Error::malformed("an integer that does not fit 64 bits")
                    .hint(r#"it is written as {"$type":"int","value":"DIGITS"}"#)
            });
        }
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Token::Float(value)),
            _ => Err(Error::malformed("a float beyond the range of 64 bits")),
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>> {
        self.at += 1;
        let start = self.at;
        let mut out: Option<String> = None;
        let mut copied = start;
        loop {
            match self.peek() {
                None => return Err(ended()),
                Some(b'"') => {
                    let rest = &self.text[copied..self.at];
                    self.at += 1;
                    return Ok(match out {
                        None => Cow::Borrowed(rest),
                        Some(mut out) => {
                            out.push_str(rest);
                            Cow::Owned(out)
                        }
                    });
                }
                Some(b'\\') => {
                    let so_far = &self.text[copied..self.at];
                    let out = out.get_or_insert_with(String::new);
                    out.push_str(so_far);
                    let c = self.escape()?;
                    out.push(c);
                    copied = self.at;
                }
                Some(0..=0x1F) => {
                    self.token_at = self.at;
                    return Err(Error::malformed("a control character in text"));
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        self.token_at = self.at;
        let letter = self.text.as_bytes().get(self.at + 1).copied().ok_or_else(ended)?;
        self.at += 2;
        Ok(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut code = self.hex()?;
                if (0xD800..0xDC00).contains(&code)
                    && self.text.as_bytes()[self.at..].starts_with(b"\\u")
                {
                    self.at += 2;
                    let low = self.hex()?;
                    if (0xDC00..0xE000).contains(&low) {
                        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                    }
                }
                char::from_u32(code).ok_or_else(|| {
                    Error::malformed("half of a surrogate pair in text")
                        .hint(r#"such text is written as {"$type":"str","base64":"…"}"#)
                })?
            }
            _ => return Err(Error::malformed("no escape of JSON")),
        })
    }

    fn hex(&mut self) -> Result<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or_else(ended)?;
        let value = digits
            .iter()
            .try_fold(0, |value, &b| char::from(b).to_digit(16).map(|digit| value << 4 | digit));
        self.at += 4;
        value.ok_or_else(|| Error::malformed("no escape of JSON"))
    }
}

fn ended() -> Error {
    Error::malformed("the text ends too early").hint("the file was cut: copy it again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The text as `serde_json` would give it.
    fn value(reader: &mut Reader<'_>) -> Result<Value> {
        Ok(match reader.token()? {
            Token::Null => Value::Null,
            Token::Bool(b) => b.into(),
            Token::Int(i) => i.into(),
            Token::Float(f) => f.into(),
            Token::Str(s) => s.into(),
            Token::Array => {
                let mut items = Vec::new();
                while reader.item()? {
                    items.push(value(reader)?);
                }
                items.into()
            }
            Token::Object => {
                let mut members = serde_json::Map::new();
                while let Some(key) = reader.key()? {
                    members.insert(key.into_owned(), value(reader)?);
                }
                members.into()
            }
        })
    }

    fn read(json: &[u8]) -> Result<Value> {
        let mut reader = Reader::new(json)?;
        value(&mut reader).and_then(|v| reader.end().map(|()| v)).map_err(|e| reader.placed(e))
    }

    #[test]
    fn agrees_with_serde_json() {
        let mut refused = 0;
        for json in [
            r#"{"a":[1,-2.5e+3,true,false,null,"x\n\u00e9\ud83d\ude00é"],"":{"b":{}},"c":[]}"#,
            " [ 1 , 2 ]\n",
            "-0.0",
            "1E5",
            "9223372036854775807",
            "-9223372036854775808",
            "5e-324",
            "\"\\\"\\\\\\/\\b\\f\\r\\t\"",
            "",
            "[1,]",
            "[1 2]",
            "{\"a\" 1}",
            "{a:1}",
            "{\"a\":1,}",
            "[",
            "\"a",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\udc00x\"",
            "\"\\ud800\\u0041\"",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "1e400",
            "nul",
            "[]]",
            "tru",
            "-",
            "\"\\u00",
        ] {
            let expected = serde_json::from_str::<Value>(json);
            let found = read(json.as_bytes());
            match (expected, found) {
                (Ok(expected), Ok(found)) => assert_eq!(expected, found, "{json}"),
                (Err(_), Err(_)) => refused += 1,
                (expected, found) => panic!("{json}: {expected:?}, {found:?}"),
            }
        }
        assert_eq!(refused, 25);
        // What it reads as floats.
        assert!(read(b"9223372036854775808").is_err());
        assert_eq!(read(b"-0").unwrap(), Value::from(0));
    }

    #[test]
    fn errors_have_a_place() {
        for (json, place) in [
            (r#"{"a":[1,{"b/c~":tru}]}"#, "/a/1/b~1c~0: at offset 16: "),
            (r#"{"a":1 "b":2}"#, "/a: at offset 7: "),
            ("[[1,2", "/0/2: at offset 5: "),
            ("x", "at offset 0: "),
        ] {
            let e = read(json.as_bytes()).unwrap_err().to_string();
            assert!(e.starts_with(place), "{e}");
        }
        assert!(read(b"\xFF").is_err());
        let deep = "[".repeat(1_000_000);
        assert_eq!(
            read(deep.as_bytes()).unwrap_err().kind(),
            ckptkit_core::ErrorKind::LimitExceeded
        );
    }
}
