//! Memory-mapped files: the one place with `unsafe`.
#![allow(unsafe_code, reason = "a mapping is the only way to lend a file's bytes without a copy")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::read_at::ReadAt;
use crate::section::Section;

impl Section {
    /// Opens a local file through a memory mapping, so that [`Section::as_slice`] gives its bytes
    /// without a copy. Only for files that nobody changes meanwhile: a file that is cut short
    /// under a mapping ends the process.
    ///
    /// # Errors
    /// As [`Section::open`].
    pub fn open_mapped(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(Arc::new(MappedFile::open(path.as_ref())?)))
    }
}

struct MappedFile {
    map: memmap2::Mmap,
    file: File,
    name: String,
}

impl MappedFile {
    fn open(path: &Path) -> Result<Self> {
        let fail = |doing: &str, e| Error::io(doing, e).in_file(path);
        let file = File::open(path).map_err(|e| fail("open the file", e))?;
        // SAFETY: the mapping is private to this value, read-only, and lives as long as every slice
        // borrowed from it. What no code here can rule out is another process changing the file
        // meanwhile; `Section::open_mapped` passes that condition on to its caller, and nothing in
        // the workspace maps a file unless it was asked to.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| fail("map the file", e))?;
        Ok(Self { map, file, name: path.display().to_string() })
    }
}

impl ReadAt for MappedFile {
    fn size(&self) -> u64 {
        self.map.len() as u64
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let found = self.as_slice(offset..offset.saturating_add(out.len() as u64));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn as_slice(&self, range: Range<u64>) -> Option<&[u8]> {
        self.map.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn file(&self) -> Option<&File> {
        Some(&self.file)
    }
}
