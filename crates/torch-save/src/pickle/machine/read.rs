//! Operands: every length is checked before anything is taken, and text goes to the graph's heap.

use ckptkit_core::{Error, Result};

use super::super::graph::{Repr, Span};
use super::super::{bigint, text};
use super::{Machine, narrow};

impl Machine<'_, '_> {
    /// The next `len` bytes, in the heap.
    #[inline]
    pub(super) fn span(&mut self, len: u64) -> Result<Span> {
        let heap = &mut self.graph.heap;
        let start = heap.len();
        if (start as u64).saturating_add(len) > u64::from(u32::MAX) {
            self.input.check(len)?;
            return Err(too_much());
        }
        self.input.append_to(heap, len)?;
        Ok(Span { start: narrow(start), len: narrow(heap.len() - start) })
    }

    pub(super) fn sized<const N: usize>(&mut self, make: fn(Span) -> Repr) -> Result<Repr> {
        let mut len = [0; 8];
        len[..N].copy_from_slice(&self.input.take::<N>()?);
        let span = self.span(u64::from_le_bytes(len))?;
        Ok(make(span))
    }

    #[inline]
    pub(super) fn text(&mut self, len: u64) -> Result<Span> {
        let span = self.span(len)?;
        if text::is_wtf8(self.graph.slice(span)) { Ok(span) } else { Err(not_text()) }
    }

    pub(super) fn line(&mut self) -> Result<Span> {
        let heap = &mut self.graph.heap;
        let start = heap.len();
        self.input.line_to(heap)?;
        if heap[start..].ends_with(b"\r") {
            heap.pop();
        }
        if u32::try_from(heap.len()).is_err() {
            return Err(too_much());
        }
        Ok(Span { start: narrow(start), len: narrow(heap.len() - start) })
    }

    /// Forgets what was last read into the heap, from `span` on.
    pub(super) fn forget(&mut self, span: Span) {
        self.graph.heap.truncate(span.start as usize);
    }

    /// A line, decoded.
    pub(super) fn decoded_line(
        &mut self,
        decode: fn(&[u8], &mut Vec<u8>) -> Option<()>,
        what: &str,
    ) -> Result<Span> {
        let line = self.line()?;
        let mut out = Vec::new();
        decode(self.graph.slice(line), &mut out)
            .ok_or_else(|| Error::malformed(format!("{what} is not well-formed")))?;
        self.forget(line);
        self.append(&out)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<Span> {
        let start = self.graph.heap.len();
        if u32::try_from(start + bytes.len()).is_err() {
            return Err(too_much());
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
        let fits = |bytes: &[u8]| bigint::to_i64(&bytes[..bigint::significant(bytes)]);
        if let Some(i) = self.input.held(len).and_then(fits) {
            self.input.pass(usize::try_from(len).unwrap_or(0));
            return Ok(Repr::int(i));
        }
        let mut span = self.span(len)?;
        span.len = narrow(bigint::significant(self.graph.slice(span)));
        Ok(match bigint::to_i64(self.graph.slice(span)) {
            Some(i) => {
                self.forget(span);
                Repr::int(i)
            }
            None => Repr::BigInt(span),
        })
    }

    pub(super) fn number_text(&mut self, opcode: u8) -> Result<Repr> {
        let line = self.line()?;
        let text = std::str::from_utf8(self.graph.slice(line)).unwrap_or("").trim().to_owned();
        self.forget(line);
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
        match bigint::to_i64(&bytes) {
            Some(i) => Ok(Repr::int(i)),
            None => Ok(Repr::BigInt(self.append(&bytes)?)),
        }
    }
}

#[cold]
fn not_text() -> Error {
    Error::malformed("text is not UTF-8")
}

#[cold]
fn too_much() -> Error {
    Error::limit("more text than a graph can hold")
}
