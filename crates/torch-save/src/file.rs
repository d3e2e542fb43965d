//! An opened file: its object graph and its tensors.

use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use ckptkit_core::hash::HashMap;
use ckptkit_core::{
    Error, Key, Limits, Result, ResultExt, Section, Tensor, TensorBytes, TensorInfo, TensorSource,
    no_such_tensor, unique_names,
};

use crate::container::{self, Container, Opened};
use crate::listing::Listing;
use crate::pickle::{Graph, NodeId, NodeRef};
use crate::rebuild::TensorKind;

/// A tensor of a file: where it stands in the object, what it is, and its lazy bytes.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    pub(crate) path: Arc<[Key]>,
    pub(crate) tensor: Tensor,
    pub(crate) node: NodeId,
    pub(crate) kind: TensorKind,
    pub(crate) requires_grad: bool,
    pub(crate) class: Option<Arc<str>>,
    pub(crate) location: Option<Arc<str>>,
    pub(crate) part_of: Option<usize>,
}

impl TensorEntry {
    /// The keys from the root to it.
    #[must_use]
    pub fn path(&self) -> &[Key] {
        &self.path
    }

    /// The keys, to be kept without a copy.
    #[must_use]
    pub fn shared_path(&self) -> Arc<[Key]> {
        Arc::clone(&self.path)
    }

    /// The tensor.
    #[must_use]
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Its node in the graph.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What kind of entry it is.
    #[must_use]
    pub fn kind(&self) -> TensorKind {
        self.kind
    }

    /// Whether it was saved with `requires_grad`.
    #[must_use]
    pub fn requires_grad(&self) -> bool {
        self.requires_grad
    }

    /// The class that it is cast to, where that is not one of torch's plain ones.
    #[must_use]
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// The device that it was saved from: `cpu`, `cuda:0`, …
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// The position, in [`TorchFile::tensors`], of the tensor that it is a part of.
    #[must_use]
    pub fn part_of(&self) -> Option<usize> {
        self.part_of
    }
}

/// How a file is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    limits: Limits,
}

impl OpenOptions {
    /// The bounds that hold.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Opens what a section holds.
    ///
    /// # Errors
    /// As [`TorchFile::open`].
    pub fn open(&self, section: &Section) -> Result<TorchFile> {
        TorchFile::build(section, &self.limits).in_file(section.name())
    }
}

/// The entries of the first object by the tensor objects that they are.
#[derive(Default)]
struct ByNode {
    first: HashMap<NodeId, usize>,
    /// The other entries of tensor objects that several names share.
    others: HashMap<NodeId, Vec<usize>>,
}

impl ByNode {
    fn new(entries: &[TensorEntry]) -> Self {
        let mut found = Self::default();
        for (at, entry) in entries.iter().enumerate() {
            match found.first.entry(entry.node) {
                Entry::Vacant(slot) => {
                    slot.insert(at);
                }
                Entry::Occupied(_) => found.others.entry(entry.node).or_default().push(at),
            }
        }
        found
    }
}

/// What torch.save has written. Opening reads the object, never the tensors. Cheap to clone.
#[derive(Clone)]
pub struct TorchFile(Arc<Inner>);

struct Inner {
    opened: Opened,
    entries: Vec<TensorEntry>,
    /// How many of them, the first ones, are tensors of the first object.
    of_root: usize,
    /// Made when the first is looked up.
    by_name: OnceLock<HashMap<Arc<str>, usize>>,
    by_node: OnceLock<ByNode>,
    failures: Vec<(String, Error)>,
    notes: Vec<String>,
    section: Section,
}

impl TorchFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) when it is nothing that torch.save has
    /// written, or damaged; [`NotFound`](ckptkit_core::ErrorKind::NotFound) and
    /// [`Io`](ckptkit_core::ErrorKind::Io) from the file system;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_section(&Section::open(path)?)
    }

    /// Opens a file through a memory mapping, so that [`Tensor::as_slice`] lends its bytes; see
    /// [`Section::open_mapped`] for what that asks of the file.
    ///
    /// # Errors
    /// As [`TorchFile::open`].
    #[cfg(feature = "mmap")]
    pub fn open_mapped(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_section(&Section::open_mapped(path)?)
    }

    /// Opens what a section holds: a member of an archive, an item of a larger file, memory.
    ///
    /// # Errors
    /// As [`TorchFile::open`].
    pub fn from_section(section: &Section) -> Result<Self> {
        OpenOptions::default().open(section)
    }

    fn build(section: &Section, limits: &Limits) -> Result<Self> {
        Self::of(container::open(section, limits)?, section)
    }

    pub(crate) fn of(mut opened: Opened, section: &Section) -> Result<Self> {
        let raw = std::mem::take(&mut opened.raw);
        let mut listing = Listing::new(&opened, &raw, None, section.name());
        if !listing.has_unique_names() {
            let names = unique_names(listing.paths());
            listing = Listing::new(&opened, &raw, Some(&names), section.name());
        }
        let Listing { entries, of_root, failures, notes, .. } = listing;
        Ok(Self(Arc::new(Inner {
            opened,
            entries,
            of_root,
            by_name: OnceLock::new(),
            by_node: OnceLock::new(),
            failures: failures.into_iter().map(|f| (f.name.to_string(), f.error)).collect(),
            notes,
            section: section.clone(),
        })))
    }

    pub(crate) fn opened(&self) -> &Opened {
        &self.0.opened
    }

    /// Whether both are one opened file.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Which of torch's containers it is.
    #[must_use]
    pub fn container(&self) -> Container {
        self.0.opened.container
    }

    /// The object that was saved. A torch.export archive holds none; its graph is `None`.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.0.opened.objects[0].graph
    }

    /// The object's root.
    #[must_use]
    pub fn root(&self) -> NodeRef<'_> {
        self.graph().root()
    }

    /// The tensors, in the order of the file.
    #[must_use]
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.0.entries
    }

    /// Looks an entry up by its tensor's name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&TensorEntry> {
        let names = || self.0.entries.iter().map(|e| e.tensor.info().shared_name());
        let by_name = self.0.by_name.get_or_init(|| names().zip(0..).collect());
        by_name.get(name).map(|&i| &self.0.entries[i])
    }

    /// The tensor that a node of [`TorchFile::graph`] is.
    #[must_use]
    pub fn tensor_at(&self, node: NodeId) -> Option<&TensorEntry> {
        self.by_node().first.get(&node).map(|&i| &self.0.entries[i])
    }

    fn by_node(&self) -> &ByNode {
        self.0.by_node.get_or_init(|| ByNode::new(&self.0.entries[..self.0.of_root]))
    }

    /// The tensor that a node is, by the name that it has under `base` and `keys` where it has
    /// several. The base may lack its beginning.
    pub(crate) fn tensor_under(
        &self,
        node: NodeId,
        base: &[String],
        keys: &[String],
    ) -> Option<&TensorEntry> {
        let first = self.tensor_at(node)?;
        let Some(others) = self.by_node().others.get(&node) else { return Some(first) };
        let others = others.iter().map(|&i| &self.0.entries[i]);
        let stands_there = |entry: &&TensorEntry| {
            let mut path = entry.path.iter().rev();
            keys.iter().rev().chain(base.iter().rev()).all(|key| {
                path.next().is_some_and(|step| match step {
                    Key::Str(s) | Key::Other(s) => **s == **key,
                    Key::Index(i) => i.to_string() == *key,
                    _ => false,
                })
            })
        };
        std::iter::once(first).chain(others).find(stands_there).or(Some(first))
    }

    /// Entries that are tensors, but so malformed that not even a shape is known: (name, why).
    #[must_use]
    pub fn failures(&self) -> &[(String, Error)] {
        &self.0.failures
    }

    /// What is strange about the file without keeping it from being read.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// The bytes it was opened from.
    #[must_use]
    pub fn section(&self) -> &Section {
        &self.0.section
    }

    /// The pickle of the object as it lies in an archive: what says everything but the bytes of
    /// tensors. `None` for files that are no archive of one object.
    ///
    /// # Errors
    /// Whatever keeps it from being read.
    ///
    /// ```
    /// use torch_save::TorchFile;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/torch");
    /// let file = TorchFile::open(format!("{fixtures}/train_sgd.pt"))?;
    /// assert!(file.pickle()?.unwrap().starts_with(b"\x80\x02"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn pickle(&self) -> Result<Option<Vec<u8>>> {
        let opened = self.opened();
        let in_archive = opened.archive().is_some() && !opened.pickle.is_empty();
        let read = || opened.pickle.read(u64::MAX);
        in_archive.then(read).transpose().in_file(self.section().name())
    }

    /// Checks every recorded CRC-32 by reading the whole file; members without one are counted.
    ///
    /// # Errors
    /// `Malformed`, naming the first member whose bytes differ from its checksum, and the first
    /// tensor that cannot be read.
    pub fn verify(&self) -> Result<Verified> {
        let mut verified = self.0.opened.verify().in_file(self.0.section.name())?;
        for entry in &self.0.entries {
            if let TensorBytes::Broken(e) = entry.tensor.bytes() {
                return Err(e.clone());
            }
        }
        if let Some((_, e)) = self.0.failures.first() {
            return Err(e.clone());
        }
        verified.tensors = self.0.entries.len();
        Ok(verified)
    }
}

/// What [`TorchFile::verify`] looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Tensors whose geometry was checked.
    pub tensors: usize,
    /// Archive members whose checksum was right.
    pub checksums: usize,
    /// Archive members without a checksum.
    pub unchecked: usize,
}

impl TensorSource for TorchFile {
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        Box::new(self.0.entries.iter().map(|e| e.tensor.info()))
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        match self.entry(name) {
            Some(entry) => Ok(entry.tensor.clone()),
            None => match self.0.failures.iter().find(|(n, _)| n == name) {
                Some((_, e)) => Err(e.clone()),
                None => Err(no_such_tensor(name, self.infos().map(TensorInfo::name))
                    .in_file(self.0.section.name())),
            },
        }
    }
}

impl std::fmt::Debug for TorchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "TorchFile({}, {:?}, {} tensors)",
            self.0.section.name(),
            self.container(),
            self.0.entries.len()
        )
    }
}
