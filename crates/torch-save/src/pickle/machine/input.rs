//! Reading from the pickle's bytes: every length is checked before anything is taken.

use ckptkit_core::{Error, Result};

use super::super::graph::{Repr, Span};
use super::super::{bigint, text};
use super::{Machine, narrow};

impl Machine<'_> {
    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8> {
        match self.graph.heap.get(self.at) {
            Some(&byte) if self.at < self.end => {
                self.at += 1;
                Ok(byte)
            }
            _ => Err(self.truncated(1)),
        }
    }

    #[inline]
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes =
            self.graph.heap[..self.end].get(self.at..self.at + N).and_then(|b| b.try_into().ok());
        let bytes = bytes.ok_or_else(|| self.truncated(N as u64))?;
        self.at += N;
        Ok(bytes)
    }

    #[inline]
    pub(super) fn span(&mut self, len: u64) -> Result<Span> {
        if len > (self.end - self.at) as u64 {
            return Err(self.truncated(len));
        }
        let span = Span { start: narrow(self.at), len: narrow(usize::try_from(len).unwrap_or(0)) };
        self.at += span.len as usize;
        Ok(span)
    }

    pub(super) fn sized<const N: usize>(&mut self, make: fn(Span) -> Repr) -> Result<Repr> {
        let mut len = [0; 8];
        len[..N].copy_from_slice(&self.take::<N>()?);
        let span = self.span(u64::from_le_bytes(len))?;
        Ok(make(span))
    }

    #[inline]
    pub(super) fn text(&mut self, len: u64) -> Result<Span> {
        let span = self.span(len)?;
        if text::is_wtf8(self.graph.slice(span)) { Ok(span) } else { Err(not_text()) }
    }

    pub(super) fn line(&mut self) -> Result<Span> {
        let rest = &self.graph.heap[self.at..self.end];
        let len = rest
            .iter()
            .position(|&b| b == b'\n')
            .ok_or_else(|| self.truncated(rest.len() as u64 + 1))?;
        let span = self.span(len as u64)?;
        self.at += 1;
        Ok(match self.graph.slice(span) {
            [.., b'\r'] => Span { len: span.len - 1, ..span },
            _ => span,
        })
    }

    pub(super) fn decode(
        &mut self,
        line: Span,
        decode: fn(&[u8], &mut Vec<u8>) -> Option<()>,
        what: &str,
    ) -> Result<Span> {
        let mut out = Vec::new();
        decode(self.graph.slice(line), &mut out)
            .ok_or_else(|| Error::malformed(format!("{what} is not well-formed")))?;
        self.append(&out)
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<Span> {
        if bytes.is_empty() {
            // Not where the heap ends: that may be cut off when the pickle is done.
            return Ok(Span { start: 0, len: 0 });
        }
        let start = self.graph.heap.len();
        if u32::try_from(start + bytes.len()).is_err() {
            return Err(Error::limit("decoded text does not fit"));
        }
        self.graph.heap.extend_from_slice(bytes);
        Ok(Span { start: narrow(start), len: narrow(bytes.len()) })
    }

    /// Python 2's `str`: text where it is UTF-8, bytes elsewhere.
    pub(super) fn python2_string(&self, span: Span) -> Repr {
        if std::str::from_utf8(self.graph.slice(span)).is_ok() {
            Repr::Str(span)
        } else {
            Repr::Bytes(span)
        }
    }

    pub(super) fn long(&mut self, len: u64) -> Result<Repr> {
        let mut span = self.span(len)?;
        span.len = narrow(bigint::significant(self.graph.slice(span)));
        Ok(bigint::to_i64(self.graph.slice(span)).map_or(Repr::BigInt(span), Repr::int))
    }

    pub(super) fn number_text(&mut self, opcode: u8) -> Result<Repr> {
        let line = self.line()?;
        let text = std::str::from_utf8(self.graph.slice(line)).unwrap_or("").trim().to_owned();
        let bad = || Error::malformed(format!("{text:?} is no number"));
        match (opcode, text.as_str()) {
            (b'I', "00") => return Ok(Repr::Bool(false)),
            (b'I', "01") => return Ok(Repr::Bool(true)),
            (b'F', t) => return t.parse().map(Repr::float).map_err(|_| bad()),
            _ => {}
        }
        let digits = text.strip_suffix('L').unwrap_or(&text);
        if let Ok(i) = digits.parse() {
            return Ok(Repr::int(i));
        }
        let bytes = bigint::from_decimal(digits).ok_or_else(bad)?;
        let span = self.append(&bytes)?;
        Ok(bigint::to_i64(&bytes).map_or(Repr::BigInt(span), Repr::int))
    }

    #[cold]
    pub(super) fn truncated(&self, wanted: u64) -> Error {
        self.needs.set(Some((self.at as u64).saturating_add(wanted)));
        let left = self.end - self.at;
        Error::malformed(format!(
            "the pickle ends early: {wanted} bytes are wanted, {left} are left"
        ))
        .hint("the file is cut short or damaged: copy it again")
    }
}

#[cold]
fn not_text() -> Error {
    Error::malformed("text is not UTF-8")
}
