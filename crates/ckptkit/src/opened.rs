//! What a format's reader finds: the same for every format.

use std::collections::BTreeMap;
use std::sync::Arc;

use ckptkit_core::{Error, Key, Limits, Result, Section, Tensor};

#[cfg(feature = "torch")]
use crate::Value;
use crate::format::Format;
use crate::training::Training;

/// How a checkpoint is opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// The bounds that hold.
    pub limits: Limits,
    /// Map local files, so that [`Tensor::as_slice`] lends their bytes; only for files that nobody
    /// changes meanwhile. Without the feature `mmap` it changes nothing.
    pub mapped: bool,
    /// Read what no chunk of a distributed checkpoint holds as zeros instead of refusing it;
    /// [`Checkpoint::filled`](crate::Checkpoint::filled) tells where that was. One inside a
    /// `.nemo` archive is read so too; other formats have no such regions.
    pub allow_partial: bool,
}

impl OpenOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// A tensor of a checkpoint and where it stands.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) tensor: Tensor,
    place: Place,
}

/// The keys from the root to a tensor. Most tensors have one key, which needs no allocation.
#[derive(Clone, Debug)]
enum Place {
    Flat(Key),
    Nested(Arc<[Key]>),
}

impl Entry {
    /// A tensor whose name is its place.
    pub(crate) fn flat(tensor: Tensor) -> Self {
        Self { place: Place::Flat(Key::Str(tensor.info().shared_name())), tensor }
    }

    #[cfg(feature = "torch")]
    pub(crate) fn nested(path: Arc<[Key]>, tensor: Tensor) -> Self {
        Self { place: Place::Nested(path), tensor }
    }

    /// The tensor; its name is unique in the checkpoint.
    #[must_use]
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The keys from the root to it.
    #[must_use]
    pub fn path(&self) -> &[Key] {
        match &self.place {
            Place::Flat(key) => std::slice::from_ref(key),
            Place::Nested(path) => path,
        }
    }
}

/// A file that a checkpoint carries beside its tensors: a tokenizer, a word list.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its bytes.
    pub section: Section,
}

/// The configuration that a checkpoint carries.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name of the file or key that it came from: `model_config.yaml`, `config.json`,
    /// `hyper_parameters`.
    pub origin: String,
    /// The values, of plain types.
    #[cfg(feature = "torch")]
    pub value: Value,
    /// The text that it came from, where it was text.
    pub text: Option<String>,
}

/// The values of a checkpoint that are no tensors; each format has its own way to hold them.
pub(crate) trait Values: Send + Sync {
    /// The value under a dotted path.
    #[cfg(feature = "torch")]
    fn lookup(&self, path: &str) -> Result<Value>;
    /// The keys at the root under which anything stands that is no tensor.
    fn top(&self) -> Vec<String>;
    /// The tensors of which a part is stored nowhere and read as zeros: how many elements.
    fn filled(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
    fn config(&self) -> Result<Option<Config>>;
    /// The object that all of it is, where the format keeps one.
    #[cfg(feature = "torch")]
    fn whole(&self) -> Result<Option<Whole>> {
        Ok(None)
    }
}

/// All of a checkpoint as one object, and the nodes of its tensors by their names.
#[cfg(feature = "torch")]
pub(crate) struct Whole {
    pub(crate) document: torch_save::Document,
    pub(crate) nodes: Vec<(String, torch_save::NodeId)>,
}

/// What a format's reader found.
pub(crate) struct Opened {
    pub(crate) format: Format,
    pub(crate) variant: String,
    pub(crate) entries: Vec<Entry>,
    /// Entries that are tensors but not even their shape is known.
    pub(crate) failures: Vec<(String, Error)>,
    pub(crate) notes: Vec<String>,
    pub(crate) artifacts: Vec<Artifact>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) shards: usize,
    pub(crate) training: Option<Training>,
    pub(crate) values: Box<dyn Values>,
    /// How the model's weights are found.
    pub(crate) weights: Rule,
    /// What wrote it, where the file says.
    pub(crate) writer: Option<String>,
    /// The torch file that all tensors are in, under their names here.
    #[cfg(feature = "torch")]
    pub(crate) torch: Option<torch_save::TorchFile>,
    /// The format of the object that is kept whole, where it is another one.
    pub(crate) kept: Option<Format>,
    /// The format that the object came from which a sidecar keeps; it is read as the torch file.
    pub(crate) sidecar: Option<Format>,
    /// The archive that it is.
    #[cfg(feature = "nemo")]
    pub(crate) nemo: Option<nemo_archive::NemoArchive>,
    /// The distributed checkpoint that it is.
    #[cfg(feature = "distcp")]
    pub(crate) distributed: Option<distcp::DistCheckpoint>,
}

/// How a format's weights are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Every tensor is one.
    Root,
    /// Everything at the root, except under these keys and names with these beginnings.
    RootExcept(Vec<String>),
    /// Under this key.
    Key(String),
    /// The general rule.
    Search {
        /// The root is an object (a pickled module), whose attributes are all its own.
        object: bool,
    },
}

/// The kind of error that look-ups of a path turn into the next place to look.
#[cfg(feature = "torch")]
pub(crate) fn is_absent(error: &Error) -> bool {
    error.kind() == ckptkit_core::ErrorKind::NotFound
}
