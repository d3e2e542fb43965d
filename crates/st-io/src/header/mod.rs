//! The header: strict, in one pass, in the order of the file.

use std::collections::BTreeMap;
use std::fmt;

use crate::names::NameIndex;
use ckptkit_core::{Dtype, Error, Limits, Result, Section, TensorInfo};

use parse::Raw;

mod parse;
mod plain;
#[cfg(test)]
mod tests;

/// The longest header that the format allows, in bytes.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;
/// The longest header that tools which read it over the network accept, in bytes.
pub const REMOTE_HEADER_BYTES: u64 = 25_000_000;

/// A tensor as the header lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    what: What,
    begin: u64,
    end: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Known(TensorInfo),
    Unknown { name: String, dtype: String, shape: Vec<u64> },
}

/// The element type of an [`Entry`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StDtype<'a> {
    /// One of the format's types.
    Known(Dtype),
    /// A name that the format does not define, as the file spells it.
    Unknown(&'a str),
}

impl fmt::Display for StDtype<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Known(dtype) => dtype.name(),
            Self::Unknown(name) => name,
        })
    }
}

impl Entry {
    /// The name, any text.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.what {
            What::Known(info) => info.name(),
            What::Unknown { name, .. } => name,
        }
    }

    /// The element type, known or not.
    #[must_use]
    pub fn dtype(&self) -> StDtype<'_> {
        match &self.what {
            What::Known(info) => StDtype::Known(info.dtype()),
            What::Unknown { dtype, .. } => StDtype::Unknown(dtype),
        }
    }

    /// Elements in every dimension; empty for a scalar.
    #[must_use]
    pub fn shape(&self) -> &[u64] {
        match &self.what {
            What::Known(info) => info.shape(),
            What::Unknown { shape, .. } => shape,
        }
    }

    /// `data_offsets`: the first byte and the one after the last, from the start of the data.
    #[must_use]
    pub fn data_offsets(&self) -> (u64, u64) {
        (self.begin, self.end)
    }

    /// Bytes of data.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.end - self.begin
    }

    /// What the tensor is, where its dtype is known.
    #[must_use]
    pub fn info(&self) -> Option<&TensorInfo> {
        match &self.what {
            What::Known(info) => Some(info),
            What::Unknown { .. } => None,
        }
    }

    pub(crate) fn unknown_dtype(&self) -> Error {
        Error::unsupported(format!(
            "{} is not a dtype of the safetensors format, {} bytes of it cannot be read",
            self.dtype(),
            self.byte_len()
        ))
        .within(format_args!("tensor {}", self.name()))
        .hint("leave this tensor out")
    }
}

/// A parsed and checked header; see [`Header::parse`].
pub struct Header {
    entries: Vec<Entry>,
    metadata: BTreeMap<String, String>,
    notes: Vec<String>,
    names: NameIndex,
    header_bytes: u64,
    data_bytes: u64,
}

impl Header {
    /// Reads and checks the header of a whole file, its length included. Reads 8 + N bytes,
    /// allocates them and a small multiple.
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) for everything that contradicts the
    /// format, [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for a header longer than
    /// [`Limits::header_bytes`], and those of reading.
    pub fn read(section: &Section, limits: &Limits) -> Result<Self> {
        Self::read_inner(section, limits).map_err(|e| e.in_file(section.name()))
    }

    fn read_inner(section: &Section, limits: &Limits) -> Result<Self> {
        let file_bytes = section.len();
        if file_bytes < 10 {
            return Err(Error::malformed(format!(
                "the file has {file_bytes} bytes, a safetensors file has at least 10"
            ))
            .hint("the file is cut short or is something else"));
        }
        let mut prefix = [0; 8];
        section.read_at(0, &mut prefix)?;
        let n = u64::from_le_bytes(prefix);
        check_header_len(n, prefix, file_bytes, limits)?;
        let json = section.slice(8, n)?.read(MAX_HEADER_BYTES)?;
        let header = Self::parse(&json)?;
        let expected = 8 + n + header.data_bytes;
        if file_bytes != expected {
            let (what, hint) = if file_bytes < expected {
                ("is cut short", "copy or download it again")
            } else {
                ("has trailing bytes", "it was padded, or another file was appended")
            };
            return Err(Error::malformed(format!(
                "the file {what}: it has {file_bytes} bytes, 8 for the length, {n} of header and \
                 {} of tensors make {expected}",
                header.data_bytes
            ))
            .hint(hint));
        }
        Ok(header)
    }

    /// Parses and checks the JSON text of a header (what follows the eight bytes of its length),
    /// for instance one that was fetched over a network. Everything is checked but the length of
    /// the file, which must be 8 + `json.len()` + [`Header::data_bytes`].
    ///
    /// # Errors
    /// `Malformed`, with the tensor's name and the offset in the file where it was seen.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(json).map_err(|e| {
            Error::malformed("the header is not UTF-8 text").at(8 + e.valid_up_to() as u64)
        })?;
        let raw = plain::read(text).map_or_else(|| parse::read(text), Ok)?;
        let Raw { entries, metadata, unknown_keys, null_metadata } = raw;
        let at = |i: u32| entries[i as usize].name();
        let names = NameIndex::new(entries.iter().map(Entry::name), at).map_err(|(a, _)| {
            Error::malformed(format!("two tensors are called {:?}", at(a)))
                .hint("readers differ in which of the two they take: write the file again")
        })?;
        let data_bytes = check_tiling(&entries)?;

        let mut notes = Vec::new();
        let unknown: Vec<&Entry> = entries.iter().filter(|e| e.info().is_none()).collect();
        if let Some(first) = unknown.first() {
            notes.push(format!(
                "{} of {} tensors have a dtype that the format does not define and cannot be \
                 read, the first is {:?} ({})",
                unknown.len(),
                entries.len(),
                first.name(),
                first.dtype()
            ));
        }
        if let Some((tensor, key)) = unknown_keys {
            notes.push(format!("unknown keys are ignored, the first is {key:?} of {tensor:?}"));
        }
        if null_metadata {
            notes.push("__metadata__ is null, which reads as absent".into());
        }
        if json.len() as u64 > REMOTE_HEADER_BYTES {
            notes.push(long_header(json.len() as u64));
        }
        Ok(Self { header_bytes: json.len() as u64, entries, metadata, notes, names, data_bytes })
    }

    /// Every tensor, in the order of the file's JSON.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry called `name`.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.position(name).map(|i| &self.entries[i as usize])
    }

    pub(crate) fn position(&self, name: &str) -> Option<u32> {
        self.names.find(name, |i| self.entries[i as usize].name())
    }

    /// `__metadata__`, empty where there is none.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// What is legal but strange.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// N: the length of the JSON with its padding, in bytes.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        self.header_bytes
    }

    /// The length of the data, in bytes.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }
}

pub(crate) fn long_header(n: u64) -> String {
    format!(
        "the header has {n} bytes: hubs and viewers that fetch only the header stop at \
         {REMOTE_HEADER_BYTES}"
    )
}

fn check_header_len(n: u64, prefix: [u8; 8], file_bytes: u64, limits: &Limits) -> Result<()> {
    let refuse = |why: String| {
        let error = Error::malformed(why).at(0);
        Err(if prefix.starts_with(b"PK\x03\x04") {
            error.hint("this is a zip archive: torch.save writes such files, whatever their name")
        } else if prefix[0] == 0x80 && (1..=5).contains(&prefix[1]) {
            error.hint("this looks like a pickle, not like safetensors")
        } else if prefix.starts_with(b"version ") {
            error.hint("this is a Git LFS pointer: fetch the file itself with git lfs pull")
        } else {
            error.hint("the file is damaged or is not a safetensors file")
        })
    };
    if n > MAX_HEADER_BYTES {
        return refuse(format!(
            "the header length is {n} bytes, the format allows {MAX_HEADER_BYTES}"
        ));
    }
    if n < 2 {
        return refuse(format!("the header length is {n} bytes, the shortest header is {{}}"));
    }
    if n > file_bytes - 8 {
        return refuse(format!(
            "the header length is {n} bytes, only {} are left in the file",
            file_bytes - 8
        ));
    }
    if n > limits.header_bytes {
        return Err(Error::limit(format!(
            "the header has {n} bytes, the limit is {}",
            limits.header_bytes
        )));
    }
    Ok(())
}

/// Checks that the tensors lie end to end; gives the length of the data.
fn check_tiling(entries: &[Entry]) -> Result<u64> {
    if entries.is_sorted_by_key(Entry::data_offsets) {
        return check_tiling_in_order(entries);
    }
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_unstable_by_key(|e| e.data_offsets());
    check_tiling_in_order(order)
}

fn check_tiling_in_order<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<u64> {
    let mut cursor = 0;
    let mut before: Option<&Entry> = None;
    for entry in entries {
        let (begin, end) = entry.data_offsets();
        if begin != cursor {
            let error = match before {
                Some(b) if b.data_offsets() == (begin, end) => Error::malformed(format!(
                    "data_offsets [{begin}, {end}] are those of tensor {:?} too",
                    b.name()
                ))
                .hint(
                    "the format cannot share bytes between names: write one and record the alias",
                ),
                Some(b) if begin < cursor => Error::malformed(format!(
                    "data_offsets [{begin}, {end}] overlap those of tensor {:?}, [{}, {}]",
                    b.name(),
                    b.begin,
                    b.end
                )),
                _ => Error::malformed(format!(
                    "data_offsets [{begin}, {end}] leave a hole: bytes {cursor} to {begin} belong \
                     to no tensor, expected the tensor to begin at {cursor}"
                )),
            };
            return Err(error.within(format_args!("tensor {}", entry.name())));
        }
        cursor = end;
        before = Some(entry);
    }
    Ok(cursor)
}
