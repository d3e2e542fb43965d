//! The archive that torch.save writes today, from a pickle and storages.

use ckptkit_core::{Error, OutputFile, Result, ResultExt, Segment, Tensor};

use crate::container::Container;
use crate::document::Document;
use crate::file::TorchFile;
use crate::storage_ids::StorageIds;
use crate::zip::layout::{NewMember, layout};

/// How a file is laid out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WriteOptions {
    /// Storages start at a multiple of this many bytes: a power of two. Default 64, as torch; with
    /// 4096 file systems can share blocks between files.
    pub align: u64,
    /// The archive's top folder. Default `archive`, as torch writes to a stream; for a path torch
    /// takes the file's stem, which means nothing to any loader.
    pub root: String,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { align: 64, root: "archive".into() }
    }
}

impl WriteOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn check(&self) -> Result<()> {
        let plain = !self.root.is_empty()
            && !self.root.contains(['/', '\\', '\0'])
            && self.root != "."
            && self.root != "..";
        if plain {
            return Ok(());
        }
        Err(Error::invalid(format!("{:?} is no name of a folder in an archive", self.root)))
    }
}

/// Lays out a state dict: an `OrderedDict` of these tensors under their names. Reads no tensor.
///
/// ```
/// use ckptkit_core::{CopyOptions, Dtype, Existing, Layout, Section, Tensor, TensorBytes, TensorInfo};
/// use ckptkit_core::TensorSource;
/// use torch_save::{TorchFile, WriteOptions, layout_state_dict};
///
/// # fn main() -> ckptkit_core::Result<()> {
/// let info = TensorInfo::new("w", Dtype::U8, [2])?;
/// let w = Tensor::new(info, TensorBytes::Range(Section::from_bytes([7, 9], "memory")))?;
/// let layout = Layout::file(layout_state_dict(&[w], &WriteOptions::new())?);
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("w.pt");
/// layout.write(&path, Existing::Refuse, &CopyOptions::default())?;
/// assert_eq!(TorchFile::open(&path)?.tensor("w")?.read()?, [7, 9]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`Document::tensors`] and [`Document::layout`];
/// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) when two tensors have one name.
pub fn layout_state_dict(tensors: &[Tensor], options: &WriteOptions) -> Result<OutputFile> {
    let mut names = std::collections::HashSet::new();
    if let Some(twice) = tensors.iter().find(|t| !names.insert(t.name())) {
        return Err(Error::invalid("two tensors have this name")
            .within(format_args!("tensor {}", twice.name()))
            .hint("rename one of them"));
    }
    let mut document = Document::new();
    let root = document.state_dict(tensors)?;
    document.set_root(root);
    document.into_layout(options)
}

/// Lays out an archive of a pickle and its storages, of which there are `count`. Torch can compute
/// where these lie, and is told so, where they are `numbered` by their positions.
pub(crate) fn lay_out(
    pickle: NewMember,
    storages: impl Iterator<Item = Result<NewMember>>,
    count: usize,
    numbered: bool,
    options: &WriteOptions,
) -> Result<OutputFile> {
    options.check()?;
    let mut first = vec![Ok(pickle)];
    if numbered {
        first.push(NewMember::bytes(".format_version", *b"1"));
        first.push(NewMember::bytes(".storage_alignment", options.align.to_string()));
    }
    first.push(NewMember::bytes("byteorder", *b"little"));
    let last = NewMember::bytes("version", *b"3\n");
    let count = first.len() + count + 1;
    let members = first.into_iter().chain(storages).chain([last]);
    layout(&options.root, members, count, options.align)
}

impl TorchFile {
    /// The file as it is, its pickle byte for byte; `None` where the pickle would not be right for
    /// an archive of today. `ids` are those of its graph, where they are known.
    pub(crate) fn copy_layout(
        &self,
        ids: Option<&StorageIds>,
        options: &WriteOptions,
    ) -> Result<Option<OutputFile>> {
        let opened = self.opened();
        let (Container::Zip, Some(_), false) =
            (self.container(), opened.archive(), opened.big_endian)
        else {
            return Ok(None);
        };
        let made;
        let ids = match ids {
            Some(ids) => ids,
            None => {
                let Some(ids) = StorageIds::of(self.graph()) else { return Ok(None) };
                made = ids;
                &made
            }
        };
        let mut body = OutputFile::default();
        body.push(Segment::Section(opened.pickle.clone()))?;
        let pickle = NewMember { name: "data.pkl".to_owned(), body, crc: None };
        let numbered = ids.refs(self.graph()).enumerate().all(|(i, s)| *s.key == *i.to_string());
        let mut located = opened.locate(0);
        let mut sections = Vec::with_capacity(ids.len());
        for storage in ids.refs(self.graph()) {
            let section = opened
                .storage(0, &storage.key, &mut located)
                .within(|| format!("storage {}", storage.key))
                .in_file(self.section().name())?;
            if storage.byte_len() != Some(section.len()) {
                return Ok(None);
            }
            sections.push(section);
        }
        drop(located);
        let members = ids.refs(self.graph()).zip(sections).map(|(storage, section)| {
            let mut body = OutputFile::default();
            body.push(Segment::Section(section))?;
            Ok(NewMember::storage(&storage.key, body, opened.crc(0, &storage.key)))
        });
        lay_out(pickle, members, ids.len(), numbered, options).map(Some)
    }
}
