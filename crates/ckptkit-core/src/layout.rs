//! Every byte of the output, before any is written.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use crate::entry_path::EntryPath;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::parts::Parts;
use crate::section::Section;
use crate::tensor::{Tensor, TensorBytes};

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
    /// One byte, repeated: padding that costs no memory.
    Fill {
        /// The byte.
        byte: u8,
        /// How often it is there.
        len: u64,
    },
    /// Files one after the other, which are laid out when they are written.
    Parts(Arc<dyn Parts>),
}

impl Segment {
    /// Its length in the output, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Literal(bytes) => bytes.len() as u64,
            Self::Section(section) => section.len(),
            Self::Tensor(tensor) => tensor.byte_len(),
            Self::Fill { len, .. } => *len,
            Self::Parts(parts) => parts.total_bytes(),
        }
    }

    /// Whether it adds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A CRC-32 that is known when its stretch of the file has been written; see
/// [`OutputFile::checksum`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum(usize);

/// One output file: its segments, one after the other.
#[derive(Clone, Debug, Default)]
pub struct OutputFile {
    segments: Vec<(u64, Segment)>,
    len: u64,
    /// Stretches of which the CRC-32 is wanted, in order, none over another.
    sums: Vec<Range<u64>>,
    /// (where four bytes wait for it, which one), in order.
    places: Vec<(u64, Checksum)>,
    /// Behind the last of [`Segment::Parts`]; 0 where there are none.
    parts_end: u64,
}

impl OutputFile {
    /// An empty file with room for so many segments.
    #[must_use]
    pub fn with_capacity(segments: usize) -> Self {
        Self { segments: Vec::with_capacity(segments), ..Self::default() }
    }

    /// Appends a segment; empty ones are dropped. A tensor that is deferred is not resolved.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a tensor without bytes,
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) for an expand bomb or a file that
    /// would be longer than files can be: all before anything is written.
    pub fn push(&mut self, segment: Segment) -> Result<()> {
        if let Segment::Tensor(tensor) = &segment {
            tensor.check_expansion(&Limits::default())?;
            if !matches!(tensor.bytes(), TensorBytes::Deferred(_)) {
                // Refuses a tensor without bytes, with the reason that it gives.
                tensor.read_into(0, &mut [])?;
            }
        }
        if segment.is_empty() {
            return Ok(());
        }
        let start = self.grow(segment.len())?;
        if matches!(segment, Segment::Parts(_)) {
            self.parts_end = self.len;
        }
        match (self.segments.last_mut(), segment) {
            // A file of many small members has many headers between them.
            (Some((_, Segment::Literal(last))), Segment::Literal(more)) => last.extend(more),
            (_, segment) => self.segments.push((start, segment)),
        }
        Ok(())
    }

    /// Makes room for `more` bytes; gives where they start.
    fn grow(&mut self, more: u64) -> Result<u64> {
        let end = self.len.checked_add(more).filter(|e| i64::try_from(*e).is_ok());
        let end =
            end.ok_or_else(|| Error::limit("the output would be longer than a file can be"))?;
        Ok(std::mem::replace(&mut self.len, end))
    }

    /// Asks for the CRC-32 (that of zip and gzip) of the bytes from `from`, an offset in this file,
    /// to its present end. It is computed while they are written; [`OutputFile::push_checksum`]
    /// says where it goes.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a stretch that another one, the
    /// place of a checksum, or a part that is laid out later lies in.
    pub fn checksum(&mut self, from: u64) -> Result<Checksum> {
        let after_sums = self.sums.last().is_none_or(|last| last.end <= from);
        let after_places = self.places.last().is_none_or(|(at, _)| at + 4 <= from);
        let after_parts = self.parts_end <= from;
        if from > self.len || !after_sums || !after_places || !after_parts {
            return Err(Error::invalid("a checksum cannot be of bytes that hold another one"));
        }
        self.sums.push(from..self.len);
        Ok(Checksum(self.sums.len() - 1))
    }

    /// Appends four bytes that become the checksum, least significant byte first.
    ///
    /// # Errors
    /// As [`OutputFile::push`]; `InvalidArgument` for a checksum of another file.
    pub fn push_checksum(&mut self, sum: Checksum) -> Result<()> {
        if sum.0 >= self.sums.len() {
            return Err(Error::invalid("the checksum is one of another file"));
        }
        let at = self.len;
        self.push(Segment::Literal(vec![0; 4]))?;
        self.places.push((at, sum));
        Ok(())
    }

    /// Appends all of another file, its checksums included: an archive in an archive.
    ///
    /// # Errors
    /// As [`OutputFile::push`].
    pub fn append(&mut self, file: Self) -> Result<()> {
        let (base, first) = (self.len, self.sums.len());
        for (_, segment) in file.segments {
            self.push(segment)?;
        }
        self.sums.extend(file.sums.into_iter().map(|sum| sum.start + base..sum.end + base));
        let places = file.places.into_iter();
        self.places.extend(places.map(|(at, sum)| (at + base, Checksum(sum.0 + first))));
        Ok(())
    }

    /// The same file with other segments in place of its own, of the same lengths: what is laid out
    /// once serves for every tensor of one shape. Checksums are those of the new bytes.
    ///
    /// # Errors
    /// Those of `replace` and of [`OutputFile::push`];
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a segment of another length.
    pub fn map(self, mut replace: impl FnMut(Segment) -> Result<Segment>) -> Result<Self> {
        let mut out = Self::with_capacity(self.segments.len());
        for (start, segment) in self.segments {
            let len = segment.len();
            out.push(replace(segment)?)?;
            if out.len != start + len {
                return Err(Error::invalid(format!(
                    "{} bytes were put in the place of {len}",
                    out.len - start
                )));
            }
        }
        Ok(Self { sums: self.sums, places: self.places, ..out })
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

    /// The stretches that checksums are wanted of, in order.
    pub(crate) fn sums(&self) -> &[Range<u64>] {
        &self.sums
    }

    /// (offset of four bytes, position in [`OutputFile::sums`]), in order: those of which a byte
    /// lies in the range.
    pub(crate) fn places(&self, range: Range<u64>) -> impl Iterator<Item = (u64, usize)> + '_ {
        let first = self.places.partition_point(|(at, _)| at + 4 <= range.start);
        let places = self.places[first..].iter().take_while(move |(at, _)| *at < range.end);
        places.map(|(at, sum)| (*at, sum.0))
    }

    /// Behind the last part that is laid out later; 0 where there is none.
    pub(crate) fn parts_end(&self) -> u64 {
        self.parts_end
    }
}

/// The files of an output: one without a name, or named ones in a directory.
#[derive(Clone, Debug)]
pub struct Layout {
    pub(crate) files: Vec<(Option<EntryPath>, OutputFile)>,
    names: HashSet<EntryPath>,
}

impl Layout {
    /// One file.
    #[must_use]
    pub fn file(file: OutputFile) -> Self {
        Self { files: vec![(None, file)], names: HashSet::new() }
    }

    /// An empty directory, to which files are added.
    #[must_use]
    pub fn directory() -> Self {
        Self { files: Vec::new(), names: HashSet::new() }
    }

    /// Adds a file to a directory.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) when the name is taken or this is
    /// the layout of one file.
    pub fn add(&mut self, path: EntryPath, file: OutputFile) -> Result<()> {
        if !self.is_directory() || !self.names.insert(path.clone()) {
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
