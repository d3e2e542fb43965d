//! The bytes of a pickle, of which a window is held at a time: a large one is mostly opcodes, which
//! nobody asks for again.

use ckptkit_core::{Error, Result, Section};

/// The first reads are short, since many pickles are.
const FIRST: u64 = 4 << 10;
/// The longest read; a longer text is read into its place at once.
const LONGEST: u64 = 256 << 10;

pub(crate) struct Input<'a> {
    window: Vec<u8>,
    /// The next byte in the window.
    at: usize,
    /// Where the window starts in the pickle.
    base: u64,
    /// Where the bytes behind the window are, by their offsets in the pickle.
    section: Option<&'a Section>,
    /// The length of the pickle and of what follows it.
    len: u64,
    /// The most bytes that a pickle may have.
    most: u64,
    next_read: u64,
    longest_read: u64,
}

impl<'a> Input<'a> {
    /// Bytes that are at hand.
    pub(crate) fn bytes(bytes: Vec<u8>, most: u64) -> Self {
        let len = bytes.len() as u64;
        Self {
            window: bytes,
            at: 0,
            base: 0,
            section: None,
            len,
            most,
            next_read: 0,
            longest_read: 0,
        }
    }

    /// Bytes that are read as they are needed.
    pub(crate) fn of(section: &'a Section, most: u64) -> Self {
        Self {
            window: Vec::new(),
            at: 0,
            base: 0,
            section: Some(section),
            len: section.len(),
            most,
            next_read: FIRST,
            longest_read: LONGEST,
        }
    }

    /// As [`Input::of`], by reads of so many bytes.
    #[cfg(test)]
    pub(in super::super) fn by(section: &'a Section, most: u64, bytes: u64) -> Self {
        Self { next_read: bytes, longest_read: bytes, ..Self::of(section, most) }
    }

    /// The length of the pickle and of what follows it.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The offset of the next byte.
    #[inline]
    pub(super) fn position(&self) -> u64 {
        self.base + self.at as u64
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Result<u8> {
        match self.window.get(self.at) {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None => self.take_next().map(|[byte]| byte),
        }
    }

    #[inline(always)]
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.window.get(self.at..).and_then(|held| held.first_chunk()) {
            Some(&bytes) => {
                self.at += N;
                Ok(bytes)
            }
            None => self.take_next(),
        }
    }

    /// What the window does not hold.
    #[cold]
    fn take_next<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.fill(N as u64)?;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.window[..N]);
        self.at = N;
        Ok(bytes)
    }

    /// Refuses a length that reaches behind the end.
    pub(super) fn check(&self, wanted: u64) -> Result<()> {
        let left = self.len - self.position();
        if wanted > left {
            return Err(truncated(wanted, left));
        }
        if self.position() + wanted > self.most {
            return Err(Error::limit(format!(
                "the pickle has more than {} bytes, which is the limit",
                self.most
            )));
        }
        Ok(())
    }

    /// Moves the next `len` bytes to the end of `to`.
    #[inline]
    pub(super) fn append_to(&mut self, to: &mut Vec<u8>, len: u64) -> Result<()> {
        let held = &self.window[self.at..];
        match usize::try_from(len).ok().and_then(|len| held.get(..len)) {
            Some(bytes) => {
                to.extend_from_slice(bytes);
                self.at += bytes.len();
                Ok(())
            }
            None => self.read_to(to, len),
        }
    }

    #[cold]
    fn read_to(&mut self, to: &mut Vec<u8>, len: u64) -> Result<()> {
        if len <= self.longest_read || self.section.is_none() {
            self.fill(len)?;
            return self.append_to(to, len);
        }
        self.check(len)?;
        let end = self.position() + len;
        let held = &self.window[self.at..];
        to.extend_from_slice(held);
        let start = to.len();
        let missing = usize::try_from(len).unwrap_or(usize::MAX) - held.len();
        to.resize(start + missing, 0);
        if let Some(section) = self.section {
            section.read_at(end - missing as u64, &mut to[start..])?;
        }
        (self.base, self.at) = (end, 0);
        self.window.clear();
        Ok(())
    }

    /// The next `len` bytes, where the window holds them.
    #[inline]
    pub(super) fn held(&self, len: u64) -> Option<&[u8]> {
        self.window[self.at..].get(..usize::try_from(len).ok()?)
    }

    /// Passes bytes that are held.
    #[inline]
    pub(super) fn pass(&mut self, len: usize) {
        self.at += len;
    }

    /// The next two lines, where the window holds them, without their line feeds, and the length of
    /// both with them.
    pub(super) fn held_lines(&self) -> Option<([&[u8]; 2], usize)> {
        let held = &self.window[self.at..];
        let first = held.iter().position(|&b| b == b'\n')?;
        let rest = &held[first + 1..];
        let second = rest.iter().position(|&b| b == b'\n')?;
        Some(([&held[..first], &rest[..second]], first + second + 2))
    }

    /// Moves the bytes before the next line feed to the end of `to`, and passes it.
    pub(super) fn line_to(&mut self, to: &mut Vec<u8>) -> Result<()> {
        let mut seen = 0;
        loop {
            let held = &self.window[self.at..];
            if let Some(more) = held[seen..].iter().position(|&b| b == b'\n') {
                to.extend_from_slice(&held[..seen + more]);
                self.at += seen + more + 1;
                return Ok(());
            }
            seen = held.len();
            self.fill(seen as u64 + 1)?;
        }
    }

    /// Reads on until the window holds the next `wanted` bytes.
    #[cold]
    fn fill(&mut self, wanted: u64) -> Result<()> {
        self.check(wanted)?;
        self.window.drain(..self.at);
        (self.base, self.at) = (self.base + self.at as u64, 0);
        let held = self.window.len();
        let from = self.base + held as u64;
        let more = (self.next_read).max(wanted - held as u64).min(self.len.min(self.most) - from);
        self.next_read = (self.next_read * 4).min(self.longest_read);
        if let Some(section) = self.section {
            self.window.resize(held + usize::try_from(more).unwrap_or(usize::MAX), 0);
            section.read_at(from, &mut self.window[held..])?;
        }
        Ok(())
    }
}

#[cold]
fn truncated(wanted: u64, left: u64) -> Error {
    Error::malformed(format!("the pickle ends early: {wanted} bytes are wanted, {left} are left"))
        .hint("the file is cut short or damaged: copy it again")
}
