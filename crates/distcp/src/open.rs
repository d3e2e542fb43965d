//! Opening: metadata files to tables, data files looked at.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use ckptkit_core::{Error, Limits, Result, ResultExt};
use torch_save::Graph;

use crate::item::Items;
use crate::layout;
use crate::metadata::{Decoder, Entry, EntryKind, narrow};
use crate::objects;
use crate::opened::Opened;
use crate::read::DistCheckpoint;
use crate::rules::Rules;
use crate::storage::{Directory, Files, StorageReader};
use crate::variant::Variant;

/// How a checkpoint is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    limits: Limits,
    rules: Rules,
}

impl OpenOptions {
    /// The bounds that hold.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Reads what no chunk holds as zeros, where it is an error otherwise: the way to what is left
    /// of a checkpoint whose other part is lost. [`DistCheckpoint::filled`] tells for each tensor
    /// what was filled, [`DistCheckpoint::notes`] for all. (torch leaves such regions
    /// uninitialised.) Chunks that overlap, that lie outside or whose item is damaged stay errors,
    /// as does a tensor of which next to nothing is stored
    /// ([`Limits::expansion`](ckptkit_core::Limits::expansion)).
    ///
    /// ```
    /// use ckptkit_core::TensorSource;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let hostile = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/hostile");
    /// # let dir = format!("{hostile}/dcp_chunk_missing");
    /// let checkpoint = distcp::OpenOptions::default().allow_partial(true).open(dir)?;
    /// let weight = checkpoint.tensor("layer.weight")?.read()?;
    /// let filled = checkpoint.filled("layer.weight")?;
    /// assert_eq!((&filled[0].offsets[..], &filled[0].sizes[..]), (&[2, 0][..], &[2, 3][..]));
    /// assert_eq!(weight[24..], [0; 24]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn allow_partial(mut self, yes: bool) -> Self {
        self.rules.partial = yes;
        self
    }

    /// Believes the items of a tensor where all of them hold the same other dtype than the metadata
    /// says, which is an error otherwise. Listing then opens every item.
    /// [`DistCheckpoint::notes`] tells where it was so. (torch casts to what the metadata says.)
    ///
    /// ```
    /// use ckptkit_core::{Dtype, TensorSource};
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let hostile = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/hostile");
    /// # let dir = format!("{hostile}/dcp_item_dtype");
    /// assert!(distcp::DistCheckpoint::open(&dir)?.tensor("layer.weight")?.read().is_err());
    /// let checkpoint = distcp::OpenOptions::default().item_dtypes(true).open(dir)?;
    /// assert_eq!(checkpoint.tensor("layer.weight")?.dtype(), Dtype::F32);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn item_dtypes(mut self, yes: bool) -> Self {
        self.rules.item_dtypes = yes;
        self
    }

    /// Opens a directory; see [`DistCheckpoint::open`].
    ///
    /// # Errors
    /// As [`DistCheckpoint::open`].
    pub fn open(&self, dir: impl AsRef<Path>) -> Result<DistCheckpoint> {
        self.open_path(dir.as_ref())
    }

    fn open_path(&self, path: &Path) -> Result<DistCheckpoint> {
        let found = layout::find(path)?;
        let directory = Directory::new(&found.dir)?;
        build(Arc::new(directory), self, Some(found))
    }

    /// Opens what a storage holds; see [`DistCheckpoint::with_storage`].
    ///
    /// # Errors
    /// As [`DistCheckpoint::with_storage`].
    pub fn with_storage(&self, storage: Box<dyn StorageReader>) -> Result<DistCheckpoint> {
        build(Arc::from(storage), self, None)
    }
}

impl DistCheckpoint {
    /// Opens a directory that is a checkpoint, or holds exactly one: NeMo's directory around
    /// `weights/`, Megatron's around `iter_…/`, torchtitan's around `step-…/`.
    ///
    /// Reads the metadata and looks at the length of every data file; opens none of them. Costs
    /// time and memory linear in the number of chunks.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) when there is no checkpoint, and one error
    /// for all data files that are missing;
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument), naming them, when several
    /// checkpoints lie inside; [`Malformed`](ckptkit_core::ErrorKind::Malformed) for an unfinished
    /// save, damaged metadata, or a data file that is too short;
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) for metadata that points out of the directory;
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported), naming it, for a class that is
    /// needed and not known; [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded).
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/nemo2"))?;
    /// assert!(checkpoint.dir().unwrap().ends_with("nemo2/weights"));
    ///
    /// let several = DistCheckpoint::open(format!("{fixtures}/steps")).unwrap_err();
    /// assert!(several.to_string().contains("step-20 (the latest)"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::default().open(dir)
    }

    /// Opens a checkpoint that lies in something else: an archive, an object store.
    ///
    /// # Errors
    /// As [`DistCheckpoint::open`].
    ///
    /// ```
    /// use std::collections::BTreeMap;
    ///
    /// use ckptkit_core::{Error, Result, Section};
    /// use distcp::{DistCheckpoint, StorageReader};
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// /// Members of an archive, here in memory.
    /// struct Members(BTreeMap<String, Vec<u8>>);
    ///
    /// impl StorageReader for Members {
    ///     fn open(&self, relative: &str) -> Result<Section> {
    ///         let bytes = self.0.get(relative).ok_or_else(|| Error::not_found("no such member"))?;
    ///         Ok(Section::from_bytes(bytes.clone(), relative))
    ///     }
    ///     fn list(&self) -> Result<Vec<String>> {
    ///         Ok(self.0.keys().cloned().collect())
    ///     }
    /// }
    ///
    /// # let mut members = BTreeMap::new();
    /// # for name in [".metadata", "__0_0.distcp", "__1_0.distcp"] {
    /// #     members.insert(name.to_string(), std::fs::read(format!("{fixtures}/tp_2/{name}")).unwrap());
    /// # }
    /// let checkpoint = DistCheckpoint::with_storage(Box::new(Members(members)))?;
    /// assert_eq!(checkpoint.ranks(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_storage(storage: Box<dyn StorageReader>) -> Result<Self> {
        OpenOptions::default().with_storage(storage)
    }
}

fn build(
    storage: Arc<dyn StorageReader>,
    options: &OpenOptions,
    found: Option<layout::Found>,
) -> Result<DistCheckpoint> {
    let limits = &options.limits;
    let names = storage.list()?;
    let ranks = metadata_files(&names)
        .map_err(|e| other_backend(&*storage, &names).unwrap_or(e))
        .in_file(storage.name())?;
    let mut decoder = Decoder::new();
    for file in &ranks {
        let graph = storage
            .open(file)
            .and_then(|pickle| Graph::read_compact(&pickle, limits))
            .within(|| file.clone())
            .in_file(storage.name())?;
        decoder.absorb(&graph).within(|| file.clone()).in_file(storage.name())?;
    }
    let mut tables = decoder.finish();
    let mut notes = std::mem::take(&mut tables.notes);
    let variant = Variant::of(&names, &tables, ranks[0] != METADATA);
    if names.iter().any(|n| n == METADATA) && names.iter().any(|n| layout::local_rank(n).is_some())
    {
        notes
            .push("__N.metadata files of another save lie beside .metadata and are ignored".into());
    }
    if names.iter().any(|n| n == ".metadata.tmp") {
        notes.push("a later save into the same directory was not finished (.metadata.tmp)".into());
    }
    for entry in tables.entries.iter().filter(|e| e.fqn.ends_with("_flat_param")) {
        notes.push(format!(
            "{} holds several parameters in one (FSDP1's local state dict): their names and shapes are not stored",
            entry.fqn
        ));
    }
    let mut ends: Vec<(u64, Option<&Entry>)> = vec![(0, None); tables.files.len()];
    let mut behind_bytes = vec![0; tables.files.len()];
    for (entry, item) in tables.items() {
        let end = item.offset + item.length;
        if let (EntryKind::Bytes(_), Some(last)) =
            (&entry.kind, behind_bytes.get_mut(item.file as usize))
        {
            *last = end.max(*last);
        }
        if let Some(slot) = ends.get_mut(item.file as usize).filter(|slot| slot.0 < end) {
            *slot = (end, Some(entry));
        }
    }
    let of = |entry: Option<&Entry>| entry.map(|e| format!("the item of {}", e.fqn));
    let ends: Vec<(u64, String)> =
        ends.into_iter().map(|(end, entry)| (end, of(entry).unwrap_or_default())).collect();
    let first_object = narrow(tables.files.len());
    let mut objects_fault = None;
    if objects::expected(&names, &tables) {
        if let Err(e) = objects::add(&*storage, &names, &mut tables, &mut notes) {
            let e = e.within("objects in files of their own").in_file(storage.name());
            notes.push(format!("left out: {e}"));
            objects_fault = Some(e);
        }
    }
    let files = std::mem::take(&mut tables.files);
    let files = Files::new(Arc::clone(&storage), files, &ends)?;
    let transforms = std::mem::take(&mut tables.transforms);
    let blobs = ends.iter().map(|_| OnceLock::new()).collect();
    let limits_of = limits.clone();
    let items = Items { files, transforms, limits: limits_of, behind_bytes, blobs, first_object };
    let items = Arc::new(items);
    Ok(DistCheckpoint::new(Opened {
        tables,
        items,
        storage,
        limits: limits.clone(),
        rules: options.rules,
        objects_fault,
        variant,
        notes,
        found,
        names,
        metadata_ranks: ranks.len(),
        meta: OnceLock::new(),
        common: OnceLock::new(),
    }))
}

/// What a directory without metadata is instead, where it says so.
fn other_backend(storage: &dyn StorageReader, names: &[String]) -> Option<Error> {
    let name = names.iter().find(|n| *n == "metadata.json")?;
    let json = storage.open(name).and_then(|s| s.read(1 << 20)).ok()?;
    layout::other_backend(&json)
}

const METADATA: &str = ".metadata";

/// The metadata files to read, in order of rank.
fn metadata_files(names: &[String]) -> Result<Vec<String>> {
    if names.iter().any(|n| n == METADATA) {
        return Ok(vec![METADATA.to_owned()]);
    }
    let mut ranks: Vec<(u32, &String)> =
        names.iter().filter_map(|n| Some((layout::local_rank(n)?, n))).collect();
    ranks.sort_unstable();
    if ranks.is_empty() {
        if names.iter().any(|n| n == ".metadata.tmp") {
            return Err(Error::malformed(
                "an unfinished save: there is .metadata.tmp, but no .metadata",
            )
            .hint("the program that saved it was stopped; use an earlier checkpoint"));
        }
        return Err(Error::not_found("there is no .metadata: no distributed checkpoint"));
    }
    let last = ranks.last().map_or(0, |r| r.0);
    let mut expected = 0;
    let mut missing = Vec::new();
    for &(rank, name) in &ranks {
        if rank < expected {
            return Err(Error::malformed(format!(
                "{name} gives rank {rank} a second metadata file"
            )));
        }
        while expected < rank && missing.len() < 20 {
            missing.push(format!("__{expected}.metadata"));
            expected += 1;
        }
        expected = rank.saturating_add(1);
    }
    if !missing.is_empty() {
        return Err(Error::not_found(format!(
            "of {} ranks, the metadata of some is missing: {}",
            u64::from(last) + 1,
            missing.join(", ")
        ))
        .hint("copy the files of every rank into one directory"));
    }
    Ok(ranks.into_iter().map(|(_, name)| name.clone()).collect())
}
