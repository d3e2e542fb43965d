//! A directory of shards and the index that lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ckptkit_core::{
    Error, Limits, Result, ResultExt, Section, Tensor, TensorInfo, TensorSource, no_such_tensor,
};

use crate::dcp::SHARDING_INFO;
use crate::directory::{Directory, Found, check_present, some};
use crate::file::{StFile, aliases};
use crate::header::Entry;
use crate::index::Index;
use crate::names::NameIndex;
use crate::options::OpenOptions;

use agree::{check_numbers, claimed_twice, match_names};

mod agree;

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shard {
    /// Its path, or its name where it is no file of its own.
    pub path: PathBuf,
    /// Its length, header included.
    pub bytes: u64,
}

/// A Hugging Face sharded checkpoint: several safetensors files and the index that says which
/// tensor is in which. Cheap to clone; keeps every shard open.
#[derive(Clone)]
pub struct ShardedSt(Arc<Inner>);

struct Inner {
    directory: Option<Directory>,
    index_metadata: BTreeMap<String, String>,
    metadata: BTreeMap<String, String>,
    total_size: Option<u64>,
    shards: Vec<(String, StFile)>,
    /// (shard, entry), in the order of the index.
    order: Vec<(u32, u32)>,
    names: NameIndex,
    notes: Vec<String>,
}

impl ShardedSt {
    /// Opens a directory with an index, or the index itself. Reads the index and the header of
    /// every shard, each of which is opened once.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) listing every missing shard;
    /// [`Denied`](ckptkit_core::ErrorKind::Denied) for shards that lie elsewhere;
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) where index and shards contradict each
    /// other or one of them is damaged; [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument)
    /// where a directory holds several checkpoints or one that is not sharded.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// As [`ShardedSt::open`], with options.
    ///
    /// # Errors
    /// As [`ShardedSt::open`].
    pub fn open_with(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        fn inner(path: &Path, options: &OpenOptions) -> Result<ShardedSt> {
            if !path.is_dir() {
                return ShardedSt::open_index(path, &options.open(path)?, options);
            }
            let directory = Directory::scan(path, options)?;
            let mut notes = Vec::new();
            match directory.choose(&mut notes)? {
                Found::Index(name) => {
                    let index = directory.open(&name)?;
                    ShardedSt::from_index(directory, &name, &index, options, notes)
                }
                Found::Numbered(names) => {
                    ShardedSt::from_numbered(directory, &names, options, notes)
                }
                Found::Single(name) => Err(Error::invalid(format!("{name} is not sharded"))
                    .in_file(path)
                    .hint("open it as a file")),
                Found::Dcp(_) => Err(Error::invalid(
                    "these are pieces written by torch's \
                     distributed checkpoint, not the shards of an index",
                )
                .in_file(path)
                .hint("open the directory as a checkpoint")),
            }
        }
        inner(path.as_ref(), options)
    }

    /// Opens an index and its shards wherever they lie, such as in an archive; each shard comes
    /// with the name that the index gives it.
    ///
    /// # Errors
    /// As [`ShardedSt::open`].
    pub fn from_sections(
        index: &Section,
        shards: impl IntoIterator<Item = (String, Section)>,
        limits: &Limits,
    ) -> Result<Self> {
        let index = Index::read(index, limits)?;
        let mut given: BTreeMap<String, Section> = shards.into_iter().collect();
        let missing: Vec<&str> =
            index.shards.iter().map(String::as_str).filter(|n| !given.contains_key(*n)).collect();
        if !missing.is_empty() {
            return Err(Error::not_found(format!("missing shards: {}", missing.join(", "))));
        }
        let mut files = Vec::with_capacity(index.shards.len());
        for name in &index.shards {
            if let Some(section) = given.remove(name) {
                let file = StFile::from_section_with(section, limits)
                    .within(|| format!("shard {name}"))?;
                files.push((name.clone(), file));
            }
        }
        let left: Vec<&str> = given.keys().map(String::as_str).collect();
        let mut notes = Vec::new();
        note_extra(&left, &mut notes);
        Self::assemble(None, index, files, notes)
    }

    /// The index at `path`, which is open already.
    pub(crate) fn open_index(path: &Path, index: &Section, options: &OpenOptions) -> Result<Self> {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let directory = Directory::scan(parent.unwrap_or(Path::new(".")), options)?;
        let name = path.file_name().and_then(|n| n.to_str()).filter(|n| directory.contains(n));
        match name {
            Some(name) => Self::from_index(directory, name, index, options, Vec::new()),
            None => Err(Error::not_found("there is no such index").in_file(path)),
        }
    }

    pub(crate) fn from_index(
        directory: Directory,
        name: &str,
        index: &Section,
        options: &OpenOptions,
        mut notes: Vec<String>,
    ) -> Result<Self> {
        let path = directory.path().join(name);
        let index = Index::read(index, &options.limits)?;
        check_present(&directory, &index.shards)?;
        let claimed: BTreeSet<&str> = index.shards.iter().map(String::as_str).collect();
        let extra: Vec<&str> = directory.tensor_files().filter(|n| !claimed.contains(n)).collect();
        note_extra(&extra, &mut notes);
        let files = open_all(&directory, &index.shards, options)?;
        Self::assemble(Some(directory), index, files, notes).in_file(path)
    }

    pub(crate) fn from_numbered(
        directory: Directory,
        names: &[String],
        options: &OpenOptions,
        mut notes: Vec<String>,
    ) -> Result<Self> {
        check_numbers(&directory, names)?;
        notes.push("no index: the shards are taken as they are numbered".into());
        let files = open_all(&directory, names, options)?;
        let mut weight_map = Vec::new();
        for (shard, (_, file)) in (0..).zip(&files) {
            weight_map.extend(file.entries().iter().map(|e| (e.name().to_owned(), shard)));
        }
        let at = |i: u32| weight_map[i as usize].0.as_str();
        let found = NameIndex::new(weight_map.iter().map(|(n, _)| n.as_str()), at);
        let found = found.map_err(|(a, b)| {
            let shard = |i: u32| &names[weight_map[i as usize].1 as usize];
            claimed_twice(at(a), shard(a), shard(b)).in_file(directory.path())
        })?;
        let index = Index {
            metadata: BTreeMap::new(),
            has_metadata: true,
            weight_map,
            shards: names.to_vec(),
            names: found,
        };
        Self::assemble(Some(directory), index, files, notes)
    }

    fn assemble(
        directory: Option<Directory>,
        index: Index,
        shards: Vec<(String, StFile)>,
        mut notes: Vec<String>,
    ) -> Result<Self> {
        let order = match_names(&index, &shards)?;
        if !index.has_metadata {
            notes.push("the index has no metadata, without which transformers refuses it".into());
        }
        let bytes: u64 = shards.iter().map(|(_, f)| f.header().data_bytes()).sum();
        match (index.total_size(), index.metadata.get("total_size")) {
            (Some(size), _) if size != bytes => notes
                .push(format!("total_size in the index is {size}, the tensors have {bytes} bytes")),
            (None, Some(text)) => notes.push(format!("total_size in the index is {text}")),
            _ => {}
        }
        let mut metadata = BTreeMap::new();
        for (name, file) in &shards {
            // Where pieces begin is a matter of each file: with an index, all begin at 0.
            for (key, value) in file.metadata().iter().filter(|(k, _)| *k != SHARDING_INFO) {
                let kept = metadata.entry(key.clone()).or_insert_with(|| value.clone());
                if kept != value {
                    notes.push(format!(
                        "shard {name}: metadata {key:?} differs from an earlier shard's"
                    ));
                }
            }
            notes.extend(file.header().notes().iter().map(|note| format!("shard {name}: {note}")));
        }
        Ok(Self(Arc::new(Inner {
            directory,
            total_size: index.total_size(),
            index_metadata: index.metadata,
            metadata,
            shards,
            order,
            names: index.names,
            notes,
        })))
    }

    fn entry(&self, (shard, entry): (u32, u32)) -> (&StFile, &Entry) {
        let file = &self.0.shards[shard as usize].1;
        (file, &file.entries()[entry as usize])
    }

    fn position(&self, name: &str) -> Option<(u32, u32)> {
        let at = |i: u32| self.entry(self.0.order[i as usize]).1.name();
        self.0.names.find(name, at).map(|i| self.0.order[i as usize])
    }

    /// What the tensors are, in the order of the index, without those of an unknown dtype.
    pub fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.entries().filter_map(Entry::info)
    }

    /// The lazy tensors, in the order of the index, without those of an unknown dtype.
    ///
    /// # Errors
    /// Each as [`ShardedSt::tensor`].
    pub fn tensors(&self) -> impl Iterator<Item = Result<Tensor>> + '_ {
        let all = self.0.order.iter().map(|at| self.entry(*at));
        all.filter(|(_, e)| e.info().is_some()).map(|(file, e)| file.at(e))
    }

    /// Looks a tensor up. Reads nothing of it.
    ///
    /// # Errors
    /// As [`StFile::tensor`].
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        match self.position(name) {
            Some(at) => {
                let (file, entry) = self.entry(at);
                file.at(entry)
            }
            None => Err(no_such_tensor(name, self.entries().map(Entry::name))),
        }
    }

    /// Every entry, in the order of the index.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.order.iter().map(|at| self.entry(*at).1)
    }

    /// The shards, in the order in which the index first names them.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + '_ {
        let root = self.0.directory.as_ref().map(Directory::path).unwrap_or(Path::new(""));
        (self.0.shards.iter())
            .map(move |(n, f)| Shard { path: root.join(n), bytes: f.section().len() })
    }

    /// The name of the shard that holds a tensor.
    #[must_use]
    pub fn shard_of(&self, name: &str) -> Option<&str> {
        self.position(name).map(|(shard, _)| self.0.shards[shard as usize].0.as_str())
    }

    /// The opened shards and their names.
    pub fn files(&self) -> impl Iterator<Item = (&str, &StFile)> {
        self.0.shards.iter().map(|(n, f)| (n.as_str(), f))
    }

    /// `__metadata__` of the shards, put together; where they differ, the first.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.0.metadata
    }

    /// `metadata` of the index: strings as they are, other plain values as JSON text.
    #[must_use]
    pub fn index_metadata(&self) -> &BTreeMap<String, String> {
        &self.0.index_metadata
    }

    /// `total_size` of the index, if it is an integer. Wrong in some files: only information.
    #[must_use]
    pub fn total_size(&self) -> Option<u64> {
        self.0.total_size
    }

    /// Removed name → kept name, from the index (as `huggingface_hub` writes them) and the shards.
    #[must_use]
    pub fn aliases(&self) -> BTreeMap<String, String> {
        let is_tensor = |name: &str| self.position(name).is_some();
        let mut all = aliases(&self.0.metadata, is_tensor);
        all.extend(aliases(&self.0.index_metadata, is_tensor));
        all
    }

    /// `config.json` beside the index.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn config(&self) -> Result<Option<Section>> {
        self.0.directory.as_ref().map_or(Ok(None), Directory::config)
    }

    /// The other files beside the index, such as `tokenizer.json`, by name: none that hold
    /// weights, none that are hidden.
    ///
    /// # Errors
    /// Those of opening them.
    pub fn artifacts(&self) -> Result<Vec<(String, Section)>> {
        self.0.directory.as_ref().map_or(Ok(Vec::new()), Directory::artifacts)
    }

    /// What is legal but strange.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// [`StFile::verify`] of every shard. (Index and shards were compared when they were opened.)
    ///
    /// # Errors
    /// The first thing found.
    pub fn verify(&self) -> Result<()> {
        self.0.shards.iter().try_for_each(|(_, f)| f.verify())
    }
}

fn note_extra(extra: &[&str], notes: &mut Vec<String>) {
    if !extra.is_empty() {
        notes.push(format!("not in the index and not read: {}", some(extra.iter().copied())));
    }
}

fn open_all(
    directory: &Directory,
    names: &[String],
    options: &OpenOptions,
) -> Result<Vec<(String, StFile)>> {
    let open = |name: &String| {
        let file = StFile::from_section_with(directory.open(name)?, &options.limits)?;
        Ok((name.clone(), file))
    };
    names.iter().map(open).collect()
}

impl TensorSource for ShardedSt {
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        Box::new(self.infos())
    }
    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.tensor(name)
    }
}

impl std::fmt::Debug for ShardedSt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShardedSt({} shards, {} tensors)", self.0.shards.len(), self.0.order.len())
    }
}
