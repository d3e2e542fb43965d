//! One file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ckptkit_core::{
    Error, Limits, Result, Section, Tensor, TensorBytes, TensorInfo, TensorSource, no_such_tensor,
};

use crate::header::{Entry, Header, MAX_HEADER_BYTES};

/// How many bytes of whitespace may stand before the header for [`StFile::detect`].
const SNIFF: u64 = 64 << 10;

/// An open safetensors file. Cheap to clone; keeps the file open.
///
/// ```
/// use ckptkit_core::Section;
/// use st_io::StFile;
///
/// # fn main() -> ckptkit_core::Result<()> {
/// let header = br#"{"w":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]}}"#;
/// let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
/// bytes.extend_from_slice(header);
/// bytes.extend_from_slice(&[1, 2, 3, 4]);
///
/// let file = StFile::from_section(Section::from_bytes(bytes, "memory"))?;
/// assert_eq!(file.tensor("w")?.read()?, [1, 2, 3, 4]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StFile(Arc<Inner>);

struct Inner {
    section: Section,
    header: Header,
    notes: Vec<String>,
}

impl StFile {
    /// Opens a local file: reads and checks its header, no tensor.
    ///
    /// # Errors
    /// Those of [`Section::open`] and [`Header::read`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_section(Section::open(path)?)
    }

    /// Opens a local file through a memory mapping, so that [`Tensor::as_slice`] gives the bytes
    /// without a copy. Only for files that nobody changes meanwhile; see [`Section::open_mapped`].
    ///
    /// # Errors
    /// As [`StFile::open`].
    #[cfg(feature = "mmap")]
    pub fn open_mapped(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_section(Section::open_mapped(path)?)
    }

    /// Opens bytes wherever they lie: a file, a member of an archive, memory.
    ///
    /// # Errors
    /// Those of [`Header::read`].
    pub fn from_section(section: Section) -> Result<Self> {
        Self::from_section_with(section, &Limits::default())
    }

    /// As [`StFile::from_section`], with other limits.
    ///
    /// # Errors
    /// Those of [`Header::read`].
    pub fn from_section_with(section: Section, limits: &Limits) -> Result<Self> {
        let header = Header::read(&section, limits)?;
        let mut notes = header.notes().to_vec();
        if header.metadata().contains_key(crate::dcp::SHARDING_INFO) {
            notes.push(
                "written by torch's distributed checkpoint: tensors may be pieces of larger ones, \
                 which opening the directory puts together"
                    .into(),
            );
        }
        Ok(Self(Arc::new(Inner { section, header, notes })))
    }

    /// Whether this looks like a safetensors file: a plausible header length, and a `{` where the
    /// header starts. Nothing else that holds checkpoints looks so: in a zip archive, a pickle
    /// and a tar archive those eight bytes are a huge number, or a NUL follows them. (The first
    /// byte alone does not tell: a header of 128 bytes starts with the pickle's `0x80`.)
    #[must_use]
    pub fn detect(section: &Section) -> bool {
        let mut prefix = [0; 8];
        if section.len() < 10 || section.read_at(0, &mut prefix).is_err() {
            return false;
        }
        let n = u64::from_le_bytes(prefix);
        if !(2..=MAX_HEADER_BYTES).contains(&n) || n > section.len() - 8 {
            return false;
        }
        let mut at = 0;
        while at < n.min(SNIFF) {
            let mut bytes = [0; 64];
            let len = usize::try_from(n - at).unwrap_or(64).min(64);
            if section.read_at(8 + at, &mut bytes[..len]).is_err() {
                return false;
            }
            match bytes[..len].iter().find(|b| !b" \t\r\n".contains(b)) {
                Some(first) => return *first == b'{',
                None => at += len as u64,
            }
        }
        false
    }

    /// What the tensors are, in the order of the header. Entries of an unknown dtype are left out;
    /// [`StFile::entries`] has them.
    pub fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.0.header.entries().iter().filter_map(Entry::info)
    }

    /// The lazy tensors, in the order of the header, without those of an unknown dtype.
    ///
    /// # Errors
    /// Each as [`StFile::tensor`].
    pub fn tensors(&self) -> impl Iterator<Item = Result<Tensor>> + '_ {
        self.0.header.entries().iter().filter(|e| e.info().is_some()).map(|e| self.at(e))
    }

    /// Looks a tensor up. Reads nothing of it.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound), or
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) where the dtype is unknown.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        match self.0.header.entry(name) {
            Some(entry) => self.at(entry),
            None => Err(no_such_tensor(name, self.entries().iter().map(Entry::name))
                .in_file(self.0.section.name())),
        }
    }

    pub(crate) fn at(&self, entry: &Entry) -> Result<Tensor> {
        let info = entry
            .info()
            .ok_or_else(|| entry.unknown_dtype().in_file(self.0.section.name()))?
            .clone();
        let start = self.data_offset() + entry.data_offsets().0;
        Tensor::new(info, TensorBytes::Range(self.0.section.slice(start, entry.byte_len())?))
    }

    /// Every entry of the header in its order, those of an unknown dtype too.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        self.0.header.entries()
    }

    /// The parsed header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// `__metadata__`, empty where there is none.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        self.0.header.metadata()
    }

    /// Removed name → kept name: the metadata entries whose key is no tensor and whose value is
    /// one, which is how `safetensors.torch.save_model` records tied weights.
    #[must_use]
    pub fn aliases(&self) -> BTreeMap<String, String> {
        aliases(self.metadata(), |name| self.0.header.entry(name).is_some())
    }

    /// N: the length of the header's JSON with its padding, in bytes.
    #[must_use]
    pub fn header_bytes(&self) -> u64 {
        self.0.header.header_bytes()
    }

    /// Where the data starts: 8 + N. Tensors need not be aligned in it.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        8 + self.header_bytes()
    }

    /// The whole file.
    #[must_use]
    pub fn section(&self) -> &Section {
        &self.0.section
    }

    /// What is legal but strange.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// The strict check: what opening tolerates is an error here (a dtype that the format lacks),
    /// and the file must still have the length that it had. Reads one byte.
    ///
    /// # Errors
    /// The first thing found.
    pub fn verify(&self) -> Result<()> {
        let section = &self.0.section;
        if let Some(entry) = self.entries().iter().find(|e| e.info().is_none()) {
            return Err(entry.unknown_dtype().in_file(section.name()));
        }
        section.read_at(section.len().saturating_sub(1), &mut [0])?;
        let now = section.source().file().and_then(|f| f.metadata().ok()).map(|m| m.len());
        match now {
            Some(now) if now != section.source().size() => Err(Error::new(
                ckptkit_core::ErrorKind::Io,
                format!("the file had {} bytes, now {now}", section.source().size()),
            )
            .in_file(section.name())
            .hint("something writes to it: wait for that and open it again")),
            _ => Ok(()),
        }
    }
}

/// The entries of `metadata` whose key is absent as a tensor and whose value names one.
pub(crate) fn aliases(
    metadata: &BTreeMap<String, String>,
    is_tensor: impl Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let tie = |(k, v): &(&String, &String)| !is_tensor(k) && is_tensor(v);
    metadata.iter().filter(tie).map(|(k, v)| (k.clone(), v.clone())).collect()
}

impl TensorSource for StFile {
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        Box::new(self.infos())
    }
    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.tensor(name)
    }
}

impl std::fmt::Debug for StFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StFile({}, {} tensors)", self.0.section.name(), self.entries().len())
    }
}
