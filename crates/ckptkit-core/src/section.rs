//! Windows on bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file_source::FileSource;
use crate::read_at::ReadAt;

struct MemorySource {
    bytes: Vec<u8>,
    name: String,
}

impl ReadAt for MemorySource {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let found = self.as_slice(offset..offset.saturating_add(out.len() as u64));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn as_slice(&self, range: Range<u64>) -> Option<&[u8]> {
        self.bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A window on a [`ReadAt`] that can be windowed again: a storage in a zip in a tar in a file is
/// only an offset and a length. Cheap to clone; keeps its source open.
#[derive(Clone)]
pub struct Section {
    source: Arc<dyn ReadAt>,
    offset: u64,
    len: u64,
}

impl Section {
    /// Opens a local file. It is read by position and never mapped.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) or [`Io`](crate::ErrorKind::Io); `Io` too for a
    /// directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        fn inner(path: &Path) -> Result<Section> {
            let fail = |doing: &str, e| Error::io(doing, e).in_file(path);
            let file = File::open(path).map_err(|e| fail("open the file", e))?;
            let meta = file.metadata().map_err(|e| fail("read the file's size", e))?;
            if meta.is_dir() {
                return Err(Error::new(crate::ErrorKind::Io, "is a directory, expected a file")
                    .in_file(path));
            }
            Section::from_file(file, path.display().to_string())
        }
        inner(path.as_ref())
    }

    /// The whole of a file that is open already, a temporary one without a name for instance;
    /// `name` is what messages call it.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) when its size cannot be read.
    pub fn from_file(file: File, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let meta =
            file.metadata().map_err(|e| Error::io("read the file's size", e).in_file(&name))?;
        Ok(Self::new(Arc::new(FileSource::new(file, meta.len(), name))))
    }

    /// The whole of a source.
    #[must_use]
    pub fn new(source: Arc<dyn ReadAt>) -> Self {
        Self { offset: 0, len: source.size(), source }
    }

    /// Bytes in memory; `name` is what messages call them.
    #[must_use]
    pub fn from_bytes(bytes: impl Into<Vec<u8>>, name: impl Into<String>) -> Self {
        Self::new(Arc::new(MemorySource { bytes: bytes.into(), name: name.into() }))
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the window starts in its source, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The source that is windowed.
    #[must_use]
    pub fn source(&self) -> &Arc<dyn ReadAt> {
        &self.source
    }

    /// What messages call the source.
    #[must_use]
    pub fn name(&self) -> &str {
        self.source.name()
    }

    /// A window on `len` bytes from `offset` of this one.
    ///
    /// # Errors
    /// [`Malformed`](crate::ErrorKind::Malformed) when it reaches past the end: positions come
    /// from files.
    pub fn slice(&self, offset: u64, len: u64) -> Result<Self> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => {
                Ok(Self { source: Arc::clone(&self.source), offset: self.offset + offset, len })
            }
            _ => Err(Error::malformed(format!(
                "{len} bytes from offset {offset} reach past the end, only {} bytes are there",
                self.len
            ))
            .in_file(self.name())
            .hint("the file is cut short or damaged: copy it again")),
        }
    }

    /// Fills `out` from `offset` of this window.
    ///
    /// # Errors
    /// `Malformed` past the end, [`Io`](crate::ErrorKind::Io) from the source, also when a file
    /// became shorter since it was opened.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let wanted = self.slice(offset, out.len() as u64)?;
        self.source.read_exact_at(wanted.offset, out).map_err(|e| {
            let e = match e.kind() {
                io::ErrorKind::UnexpectedEof => {
                    Error::new(crate::ErrorKind::Io, "the file became shorter while it was read")
                }
                _ => Error::io(format_args!("read {} bytes", out.len()), e),
            };
            e.at(wanted.offset).in_file(self.name())
        })
    }

    /// Up to `N` bytes from the start: what a format is recognised by.
    ///
    /// # Errors
    /// Those of [`Section::read_at`].
    pub fn head<const N: usize>(&self) -> Result<Vec<u8>> {
        let len = usize::try_from(self.len).unwrap_or(N).min(N);
        let mut head = vec![0; len];
        self.read_at(0, &mut head)?;
        Ok(head)
    }

    /// All bytes, if they are at most `limit`.
    ///
    /// # Errors
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) above it; those of [`Section::read_at`].
    pub fn read(&self, limit: u64) -> Result<Vec<u8>> {
        if self.len > limit {
            return Err(Error::limit(format!(
                "{} bytes are more than the limit of {limit} bytes",
                self.len
            ))
            .in_file(self.name())
            .hint("raise the limit if the file is to be trusted"));
        }
        let len = usize::try_from(self.len)
            .map_err(|_| Error::limit("more bytes than this machine can address"))?;
        let mut bytes = vec![0; len];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes without a copy, where the source holds them in memory (a mapping, a buffer).
    #[must_use]
    pub fn as_slice(&self) -> Option<&[u8]> {
        self.source.as_slice(self.offset..self.offset + self.len)
    }

    /// Reads the window from its start; for libraries that want a stream.
    #[must_use]
    pub fn reader(&self) -> SectionReader {
        SectionReader { section: self.clone(), position: 0 }
    }
}

impl std::fmt::Debug for Section {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Section({} [{}..+{}])", self.name(), self.offset, self.len)
    }
}

/// A position in a [`Section`]; see [`Section::reader`]. Not buffered.
#[derive(Clone, Debug)]
pub struct SectionReader {
    section: Section,
    position: u64,
}

impl SectionReader {
    /// Where the next read starts, in bytes from the start of the section.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl Read for SectionReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.section.len().saturating_sub(self.position);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        self.section.source.read_exact_at(self.section.offset + self.position, &mut out[..len])?;
        self.position += len as u64;
        Ok(len)
    }
}

impl Seek for SectionReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(p) => Some(p),
            SeekFrom::End(d) => self.section.len().checked_add_signed(d),
            SeekFrom::Current(d) => self.position.checked_add_signed(d),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_nest() {
        let s = Section::from_bytes((0..100).collect::<Vec<u8>>(), "m");
        let w = s.slice(10, 50).unwrap().slice(5, 10).unwrap();
        assert_eq!(w.offset(), 15);
        assert_eq!(w.read(10).unwrap(), (15..25).collect::<Vec<u8>>());
        assert_eq!(w.as_slice().unwrap()[0], 15);
        assert!(w.slice(5, 6).is_err());
        assert!(w.slice(u64::MAX, 2).is_err());
        assert_eq!(w.read(9).unwrap_err().kind(), crate::ErrorKind::LimitExceeded);
    }

    #[test]
    fn reader_stops_at_the_window() {
        let w = Section::from_bytes((0..100).collect::<Vec<u8>>(), "m").slice(90, 4).unwrap();
        let mut r = w.reader();
        let mut all = Vec::new();
        r.read_to_end(&mut all).unwrap();
        assert_eq!(all, [90, 91, 92, 93]);
        assert_eq!(r.seek(SeekFrom::End(-1)).unwrap(), 3);
    }
}
