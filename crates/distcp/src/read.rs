//! An opened checkpoint.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ckptkit_core::{
    Error, ErrorKind, Region, Result, ResultExt, Section, Tensor, TensorInfo, TensorSource,
    no_such_tensor,
};
use torch_save::{TorchFile, Value};

use crate::item::ByteItem;
use crate::layout;
use crate::listing::{Holder, Listing, Origin};
use crate::metadata::EntryKind;
use crate::opened::Opened;
use crate::variant::Variant;
use crate::{assemble, part};

/// A distributed checkpoint. Cheap to clone, shareable between threads, keeps its files open.
#[derive(Clone)]
pub struct DistCheckpoint {
    pub(crate) opened: Arc<Opened>,
    lists: Arc<Lists>,
}

/// What is made when it is first asked for.
#[derive(Default)]
struct Lists {
    listing: OnceLock<Listing>,
    /// Notes on tensors that are filled with zeros.
    partial: OnceLock<Vec<String>>,
}

/// One stored box of a tensor: where it lies in the tensor and in which file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkInfo {
    /// The box, in elements of the tensor as it is stored.
    pub region: Region,
    /// The data file, relative to the checkpoint.
    pub file: String,
    /// Where the item starts in the file, in bytes.
    pub offset: u64,
    /// The item's bytes, its archive's overhead included.
    pub length: u64,
    /// The transforms that the item went through, as the metadata names them.
    pub transforms: Vec<String>,
}

impl DistCheckpoint {
    pub(crate) fn new(opened: Opened) -> Self {
        Self { opened: Arc::new(opened), lists: Arc::default() }
    }

    /// Whether the names of a directory's files are those of a distributed checkpoint.
    ///
    /// ```
    /// assert!(distcp::DistCheckpoint::detect(["__0_0.distcp", ".metadata"]));
    /// assert!(!distcp::DistCheckpoint::detect(["model.safetensors"]));
    /// ```
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
        layout::detect(names)
    }

    /// Which kind of checkpoint it is: `dcp`, `rank-local`, `lightning` or `megatron`.
    #[must_use]
    pub fn variant(&self) -> &'static str {
        self.opened.variant.name()
    }

    /// The directory, where it is one; inside the path that was opened when that is a parent.
    #[must_use]
    pub fn dir(&self) -> Option<&Path> {
        self.opened.found.as_ref().map(|f| f.dir.as_path())
    }

    /// What is strange about it without keeping it from being read. Opens all byte items.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.opened.notes.clone();
        notes.extend_from_slice(&self.listing().notes);
        notes.extend_from_slice(self.partial_notes());
        notes
    }

    /// The number of ranks that stored something, as the file names show it; ranks that own no
    /// chunk leave no trace.
    #[must_use]
    pub fn ranks(&self) -> usize {
        if self.opened.variant == Variant::RankLocal {
            return self.opened.metadata_ranks;
        }
        let ranks: std::collections::HashSet<u32> =
            self.files().iter().filter_map(|f| layout::data_rank(f)).collect();
        ranks.len()
    }

    /// The data files that hold something, relative to the checkpoint, in the order in which the
    /// metadata first mentions them; Megatron's objects in files of their own come last.
    #[must_use]
    pub fn files(&self) -> &[String] {
        self.opened.items.files.names()
    }

    /// All files beside the metadata, as far as the storage lists them.
    #[must_use]
    pub fn listed_files(&self) -> &[String] {
        &self.opened.names
    }

    /// The keys from the root to each tensor, in the order of
    /// [`infos`](TensorSource::infos): the path that was flattened into its name.
    pub fn paths(&self) -> impl Iterator<Item = Vec<ckptkit_core::Key>> + '_ {
        self.listing().paths(&self.opened.tables)
    }

    /// Every tensor, in the order of [`infos`](TensorSource::infos), as
    /// [`tensor`](TensorSource::tensor) gives it.
    pub fn tensors(&self) -> impl Iterator<Item = Result<Tensor>> + '_ {
        self.listing().all().map(|(info, origin)| match origin {
            Origin::Entry(index) => self.entry_tensor(*index, info),
            Origin::Inside(tensor) => Ok(tensor.clone()),
        })
    }

    /// Entries that cannot be listed, because not even a shape is known or their object cannot be
    /// read: (name, why). Opens all byte items.
    #[must_use]
    pub fn failures(&self) -> &[(String, ckptkit_core::Error)] {
        &self.listing().failures
    }

    /// Which torch wrote it, as far as the metadata shows: `torch 2.15 or later`.
    #[must_use]
    pub fn writer(&self) -> &'static str {
        crate::variant::writer(&self.opened.tables.traits)
    }

    /// The version that the metadata itself gives (`1.0.0` since torch 2.9).
    #[must_use]
    pub fn metadata_version(&self) -> Option<&str> {
        self.opened.tables.traits.version.as_deref()
    }

    /// The number of chunks of all tensors.
    #[must_use]
    pub fn chunk_count(&self) -> usize {
        self.opened.tables.chunk_count()
    }

    /// The chunks of a tensor, by its name or FQN, in the order of the metadata; those without
    /// elements that were not stored are left out.
    ///
    /// # Errors
    /// `NotFound`; and the tensor's own error where nothing is known of it.
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/tp_2"))?;
    /// let chunks = checkpoint.chunks("rows")?;
    /// assert_eq!(chunks.len(), 2);
    /// assert_eq!(chunks[1].region.offsets, [4, 0]);
    /// assert_eq!(chunks[1].file, "__1_0.distcp");
    /// # Ok(())
    /// # }
    /// ```
    pub fn chunks(&self, fqn: &str) -> Result<Vec<ChunkInfo>> {
        let entry = self.entry(fqn)?;
        let row = match (&entry.kind, &entry.fault) {
            (EntryKind::Tensor(row), _) => row,
            (_, Some(e)) => return Err(e.clone().within(format_args!("entry {fqn}"))),
            _ => {
                return Err(Error::invalid(format!("{fqn} is an object, it has no chunks"))
                    .hint("ask for its value"));
            }
        };
        let items = &self.opened.items;
        let stored = self.opened.tables.chunks(row).filter(|c| c.item.is_stored());
        Ok(stored
            .map(|c| ChunkInfo {
                region: Region { offsets: c.offsets.to_vec(), sizes: c.sizes.to_vec() },
                file: items.files.name(c.item.file).to_owned(),
                offset: c.item.offset,
                length: c.item.length,
                transforms: items.transforms_of(c.item).to_vec(),
            })
            .collect())
    }

    /// The FQNs of the objects that are no tensors, in the order of the metadata.
    pub fn byte_items(&self) -> impl Iterator<Item = &str> {
        let entries = self.opened.tables.entries.iter();
        entries.filter(|e| matches!(e.kind, EntryKind::Bytes(_))).map(|e| e.fqn.as_str())
    }

    /// The object under an FQN; tensors in it by their names in the checkpoint. What a custom
    /// planner wrote without torch.save is its bytes.
    ///
    /// # Errors
    /// `NotFound` for no object's name; those of reading its item.
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// use torch_save::Value;
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/objects"))?;
    /// assert_eq!(checkpoint.item_value("int")?, Value::Int(17));
    /// let pair = checkpoint.item_value("with_tensors")?;
    /// assert_eq!(pair.get("0"), Some(&Value::Tensor("with_tensors.0".into())));
    /// # Ok(())
    /// # }
    /// ```
    pub fn item_value(&self, fqn: &str) -> Result<Value> {
        let index = self.entry_index(fqn)?;
        self.entry_value(index)
    }

    pub(crate) fn entry_value(&self, index: u32) -> Result<Value> {
        let entry = &self.opened.tables.entries[index as usize];
        let value = match (&entry.kind, &entry.fault) {
            (EntryKind::Bytes(_), Some(e)) => Err(e.clone()),
            (EntryKind::Bytes(at), None) => match self.opened.items.bytes(*at) {
                Ok(ByteItem::Torch(file)) => file
                    .value(file.root())
                    .map(|v| self.listing().name_tensors(v, Holder::Entry(index))),
                Ok(ByteItem::Raw(section)) => {
                    section.read(self.opened.limits.decompressed_bytes).map(Value::Bytes)
                }
                Err(e) => Err(e),
            },
            _ => Err(Error::invalid("it is a tensor, not an object").hint("read the tensor")),
        };
        value.within(|| format!("entry {}", entry.fqn)).in_file(self.opened.storage.name())
    }

    /// The archive of an object under an FQN, for its graph; `None` for one that a custom planner
    /// wrote without torch.save.
    ///
    /// # Errors
    /// As [`DistCheckpoint::item_value`].
    pub fn item(&self, fqn: &str) -> Result<Option<TorchFile>> {
        let entry = self.entry(fqn)?;
        let EntryKind::Bytes(at) = entry.kind else {
            return Err(Error::invalid(format!("{fqn} is a tensor, not an object")));
        };
        if let Some(e) = &entry.fault {
            return Err(e.clone().within(format_args!("entry {fqn}")));
        }
        match self.opened.items.bytes(at).within(|| format!("entry {fqn}"))? {
            ByteItem::Torch(file) => Ok(Some(file)),
            ByteItem::Raw(_) => Ok(None),
        }
    }

    /// Lightning's `meta.pt`: epoch, loops, callbacks, hyper-parameters. `None` where there is
    /// none.
    ///
    /// # Errors
    /// Those of reading it.
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/lightning.ckpt"))?;
    /// let meta = checkpoint.meta()?.unwrap();
    /// assert_eq!(meta.lookup("epoch")?.as_int(), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn meta(&self) -> Result<Option<TorchFile>> {
        self.opened.meta()
    }

    /// Megatron's `common.pt`: iteration, arguments, everything that is not sharded. `None` where
    /// there is none.
    ///
    /// # Errors
    /// Those of reading it.
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/megatron"))?;
    /// let common = checkpoint.common()?.unwrap();
    /// assert_eq!(common.lookup("iteration")?.as_int(), Some(12));
    /// # Ok(())
    /// # }
    /// ```
    pub fn common(&self) -> Result<Option<TorchFile>> {
        self.opened.common()
    }

    /// Any other file beside the metadata, by its name; the metadata itself as `.metadata`. `None`
    /// where there is none.
    ///
    /// # Errors
    /// [`Io`](ckptkit_core::ErrorKind::Io); [`Denied`](ckptkit_core::ErrorKind::Denied) for a link
    /// that leads out of the checkpoint.
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/megatron"))?;
    /// assert!(checkpoint.beside("metadata.json")?.is_some());
    /// assert!(checkpoint.beside("README.md")?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn beside(&self, name: &str) -> Result<Option<Section>> {
        let listed = self.opened.names.iter().any(|n| n == name);
        if !listed && name != ".metadata" {
            return Ok(None);
        }
        match self.opened.storage.open(name) {
            Ok(section) => Ok(Some(section)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.in_file(self.opened.storage.name())),
        }
    }

    /// The files of NeMo's `context/` beside the weights: configuration, tokenizer. Empty where
    /// there is no such directory.
    ///
    /// # Errors
    /// `Io`.
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/nemo2"))?;
    /// assert!(checkpoint.context()?.iter().any(|file| file.ends_with("context/model.yaml")));
    /// # Ok(())
    /// # }
    /// ```
    pub fn context(&self) -> Result<Vec<PathBuf>> {
        match self.opened.found.as_ref().and_then(|f| f.context.as_deref()) {
            Some(context) => layout::files_below(context),
            None => Ok(Vec::new()),
        }
    }

    /// Fills `out` with the box of a tensor that starts at `offsets` and has `sizes` elements in
    /// every dimension: row-major, little-endian. Opens the items that the box meets and reads no
    /// more of them than that takes.
    ///
    /// # Errors
    /// `InvalidArgument` for a box that leaves the tensor or does not have the length of `out`;
    /// those of [`TensorSource::tensor`] and of reading.
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/tp_2"))?;
    /// let mut last_column = [0; 8 * 4];
    /// checkpoint.read_region("rows", &[0, 2], &[8, 1], &mut last_column)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_region(
        &self,
        fqn: &str,
        offsets: &[u64],
        sizes: &[u64],
        out: &mut [u8],
    ) -> Result<()> {
        part::read(&self.tensor(fqn)?, offsets, sizes, out).in_file(self.opened.storage.name())
    }

    /// Notes on tensors that are filled with zeros, made once.
    pub(crate) fn partial_notes_or(&self, make: impl FnOnce() -> Vec<String>) -> &[String] {
        self.lists.partial.get_or_init(make)
    }

    pub(crate) fn listing(&self) -> &Listing {
        self.lists.listing.get_or_init(|| Listing::make(&self.opened))
    }

    pub(crate) fn entry_index(&self, fqn: &str) -> Result<u32> {
        if let Some(index) = self.opened.tables.index_of(fqn) {
            return Ok(index);
        }
        if let Some(index) = self.listing().origin(&self.opened.tables, fqn) {
            return Ok(index);
        }
        let names = self.opened.tables.entries.iter().map(|e| e.fqn.as_str());
        Err(no_such_tensor(fqn, names).in_file(self.opened.storage.name()))
    }

    fn entry(&self, fqn: &str) -> Result<&crate::metadata::Entry> {
        Ok(&self.opened.tables.entries[self.entry_index(fqn)? as usize])
    }

    fn entry_tensor(&self, index: u32, info: &TensorInfo) -> Result<Tensor> {
        let entry = &self.opened.tables.entries[index as usize];
        match &entry.kind {
            EntryKind::Tensor(row) => assemble::tensor(&self.opened, index, row, info),
            _ => Err(Error::invalid(format!("{} is no tensor", entry.fqn))),
        }
    }
}

impl TensorSource for DistCheckpoint {
    /// In the order of the metadata; tensors inside objects where the object stands, those of
    /// `meta.pt` and `common.pt` last. The first call opens all byte items.
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        Box::new(self.listing().infos.iter())
    }

    /// Looks a tensor up by its name, or by its FQN where that is another. Checks that its chunks
    /// tile it, which costs `n log n` in their number; opens no item but those that are too short
    /// to hold their chunk as it is. A tensor that cannot be read is given as one whose bytes are
    /// [`TensorBytes::Broken`](ckptkit_core::TensorBytes::Broken).
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let listing = self.listing();
        if let Some((info, origin)) = listing.find(&self.opened.tables, name) {
            return match origin {
                Origin::Entry(index) => self.entry_tensor(*index, info),
                Origin::Inside(tensor) => Ok(tensor.clone()),
            };
        }
        if let Some((_, e)) = listing.failures.iter().find(|(n, _)| n == name) {
            return Err(e.clone());
        }
        // By FQN, where the name is another.
        if let Some(index) = self.opened.tables.index_of(name) {
            if let Some(info) = listing.info_of(index) {
                return self.entry_tensor(index, info);
            }
        }
        Err(no_such_tensor(name, self.infos().map(TensorInfo::name))
            .in_file(self.opened.storage.name()))
    }
}

impl std::fmt::Debug for DistCheckpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "DistCheckpoint({}, {}, {} entries, {} chunks)",
            self.opened.storage.name(),
            self.variant(),
            self.opened.tables.entries.len(),
            self.chunk_count()
        )
    }
}
