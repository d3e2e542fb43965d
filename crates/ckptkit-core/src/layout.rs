//! Every byte of the output, before any is written.

use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::section::Section;
use crate::tensor::Tensor;

/// What a stretch of an output file is made of.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Segment {
    /// These bytes.
    Literal(Vec<u8>),
    /// Bytes of a source, unchanged.
    Section(Section),
    /// A tensor's values: row-major, little-endian, contiguous.
    Tensor(Tensor),
}

impl Segment {
    /// Its length in the output, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Literal(bytes) => bytes.len() as u64,
            Self::Section(section) => section.len(),
            Self::Tensor(tensor) => tensor.byte_len(),
        }
    }

    /// Whether it adds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One output file: its segments, one after the other.
#[derive(Clone, Debug, Default)]
pub struct OutputFile {
    segments: Vec<(u64, Segment)>,
    len: u64,
}

impl OutputFile {
    /// Appends a segment; empty ones are dropped.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a tensor without bytes,
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) for an expand bomb or a file that
    /// would be longer than files can be: all before anything is written.
    pub fn push(&mut self, segment: Segment) -> Result<()> {
        if let Segment::Tensor(tensor) = &segment {
            tensor.check_expansion(&Limits::default())?;
            // Refuses a tensor without bytes, with the reason that it gives.
            tensor.read_into(0, &mut [])?;
        }
        if !segment.is_empty() {
            let end = self.len.checked_add(segment.len()).filter(|e| i64::try_from(*e).is_ok());
            let start = std::mem::replace(
                &mut self.len,
                end.ok_or_else(|| Error::limit("the output would be longer than a file can be"))?,
            );
            self.segments.push((start, segment));
        }
        Ok(())
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// (offset in the file, segment), in order.
    #[must_use]
    pub fn segments(&self) -> &[(u64, Segment)] {
        &self.segments
    }
}

/// The files of an output: one without a name, or named ones in a directory.
#[derive(Clone, Debug)]
pub struct Layout {
    pub(crate) files: Vec<(Option<EntryPath>, OutputFile)>,
}

impl Layout {
    /// One file.
    #[must_use]
    pub fn file(file: OutputFile) -> Self {
        Self { files: vec![(None, file)] }
    }

    /// An empty directory, to which files are added.
    #[must_use]
    pub fn directory() -> Self {
        Self { files: Vec::new() }
    }

    /// Adds a file to a directory.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) when the name is taken or this is
    /// the layout of one file.
    pub fn add(&mut self, path: EntryPath, file: OutputFile) -> Result<()> {
        if self.files.iter().any(|(p, _)| p.as_ref().is_none_or(|p| *p == path)) {
            return Err(Error::invalid(format!("two output files would be called {path}")));
        }
        self.files.push((Some(path), file));
        Ok(())
    }

    /// The files and their names; the only file of a one-file output has none.
    pub fn files(&self) -> impl Iterator<Item = (Option<&EntryPath>, &OutputFile)> {
        self.files.iter().map(|(p, f)| (p.as_ref(), f))
    }

    /// Whether the output is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.files.first().is_none_or(|(p, _)| p.is_some())
    }

    /// Bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|(_, f)| f.len).sum()
    }
}
