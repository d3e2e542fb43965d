//! One checkpoint, whatever its format.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ckptkit_core::{Error, Result, Tensor, TensorInfo, TensorSource, no_such_tensor};

#[cfg(feature = "torch")]
use crate::Value;
use crate::format::{Detected, Format};
#[cfg(feature = "torch")]
use crate::opened::Whole;
use crate::opened::{Artifact, Config, Entry, OpenOptions, Opened};
use crate::training::Training;
use crate::weights::{self, Weights};

impl OpenOptions {
    /// Opens what a path holds.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Checkpoint> {
        Checkpoint::open_inner(path.as_ref(), self)
    }
}

/// A checkpoint of any format. Opening reads metadata only; tensors are read when asked for.
pub struct Checkpoint {
    path: PathBuf,
    opened: Opened,
    /// Made when the first is looked up.
    by_name: OnceLock<HashMap<Arc<str>, usize>>,
}

impl Checkpoint {
    /// Opens what a path holds: a file, or a directory; the content decides how.
    ///
    /// ```no_run
    /// let checkpoint = ckptkit::Checkpoint::open("model.nemo")?;
    /// for tensor in checkpoint.tensors() {
    ///     println!("{} {} {:?}", tensor.name(), tensor.dtype(), tensor.shape());
    /// }
    /// # Ok::<(), ckptkit::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound), [`Io`](ckptkit_core::ErrorKind::Io); [`Malformed`](ckptkit_core::ErrorKind::Malformed)
    /// when it is no checkpoint or a damaged one; [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for a
    /// format that this build leaves out.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::default().open(path)
    }

    fn open_inner(path: &Path, options: &OpenOptions) -> Result<Self> {
        let detected = Detected::of(path, options.mapped)?;
        let mut opened =
            crate::reader::open(path, detected, options).map_err(|e| e.in_file(path))?;
        let failures = std::mem::take(&mut opened.failures).into_iter();
        opened.failures = failures.map(|(name, e)| (name, e.in_file(path))).collect();
        Ok(Self { path: path.to_path_buf(), opened, by_name: OnceLock::new() })
    }

    /// The path as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.opened.format
    }

    /// Which form of the format: `zip`, `legacy`, `tar`, `sharded`, `megatron`, …
    #[must_use]
    pub fn variant(&self) -> &str {
        &self.opened.variant
    }

    /// What wrote it, where the file says: `NeMo 2.5.0`, `Lightning 2.6.6`.
    #[must_use]
    pub fn writer(&self) -> Option<&str> {
        self.opened.writer.as_deref()
    }

    /// Every tensor, in the order of the file.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.opened.entries.iter().map(|e| &e.tensor)
    }

    /// Every tensor with its path.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.opened.entries
    }

    /// Looks a tensor up by its name.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound), with near names; for an entry that is malformed beyond
    /// having a shape, its error.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let by_name = self.by_name.get_or_init(|| {
            let names = self.tensors().map(|t| t.info().shared_name());
            names.zip(0..).collect()
        });
        if let Some(&i) = by_name.get(name) {
            return Ok(self.opened.entries[i].tensor.clone());
        }
        match self.opened.failures.iter().find(|(n, _)| n == name) {
            Some((_, e)) => Err(e.clone()),
            None => Err(no_such_tensor(name, self.tensors().map(Tensor::name)).in_file(&self.path)),
        }
    }

    /// The model's state dict, with its prefix removed: the same names in every format.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) when no rule picks one, listing the
    /// candidates for [`Checkpoint::weights_under`].
    pub fn weights(&self) -> Result<Weights> {
        weights::find(&self.opened, None).map_err(|e| e.in_file(&self.path))
    }

    /// The tensors under a key (`ema`, `app.model`; the empty key is the root), with it removed
    /// from their names.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) when there are none.
    pub fn weights_under(&self, key: &str) -> Result<Weights> {
        weights::find(&self.opened, Some(key)).map_err(|e| e.in_file(&self.path))
    }

    /// A value that is no tensor, by its dotted path: a hyper-parameter, a config key. The empty
    /// path is the whole.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound);
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for a value too large to be made plain at once.
    #[cfg(feature = "torch")]
    pub fn value(&self, path: &str) -> Result<Value> {
        self.opened.values.lookup(path).map_err(|e| e.in_file(&self.path))
    }

    /// The keys at the root under which anything stands that is no tensor.
    #[must_use]
    pub fn value_keys(&self) -> Vec<String> {
        self.opened.values.top()
    }

    /// The configuration, where the format carries one.
    ///
    /// # Errors
    /// [`Malformed`](ckptkit_core::ErrorKind::Malformed) when it cannot be parsed.
    pub fn config(&self) -> Result<Option<Config>> {
        self.opened.values.config().map_err(|e| e.in_file(&self.path))
    }

    /// The files that it carries.
    #[must_use]
    pub fn artifacts(&self) -> &[Artifact] {
        &self.opened.artifacts
    }

    /// The torch file that all its tensors are in, under the names that they have here: for
    /// Lightning's and torch's own files, and `.nemo` archives with one file of weights. Where a
    /// sidecar keeps the whole object, it is the file that the object would be, written nowhere.
    #[cfg(feature = "torch")]
    #[must_use]
    pub fn torch_file(&self) -> Option<&torch_save::TorchFile> {
        self.opened.torch.as_ref()
    }

    /// The NeMo archive that it is.
    #[cfg(feature = "nemo")]
    pub(crate) fn nemo(&self) -> Option<&nemo_archive::NemoArchive> {
        self.opened.nemo.as_ref()
    }

    /// The distributed checkpoint that it is.
    #[cfg(feature = "distcp")]
    pub(crate) fn distributed(&self) -> Option<&distcp::DistCheckpoint> {
        self.opened.distributed.as_ref()
    }

    /// The whole object, to be changed and written by [`torch_save`]: that of its file, or where
    /// it comes from another format, its tensors under their names.
    ///
    /// # Errors
    /// As [`TorchFile::edit`](torch_save::TorchFile::edit) and
    /// [`Document::tensors`](torch_save::Document::tensors).
    #[cfg(feature = "torch")]
    pub fn document(&self) -> Result<torch_save::Document> {
        self.whole().map(|whole| whole.document)
    }

    /// The document and the nodes of the tensors.
    #[cfg(feature = "torch")]
    pub(crate) fn whole(&self) -> Result<Whole> {
        let found = self.opened.values.whole();
        let found = found.and_then(|whole| match whole {
            Some(whole) => Ok(whole),
            None => {
                let tensors: Vec<Tensor> = self.tensors().cloned().collect();
                let mut document = torch_save::Document::new();
                let root = document.state_dict(&tensors)?;
                document.set_root(root);
                let values = document.root().pairs().into_iter().map(|(_, value)| value.id());
                let nodes = tensors.iter().map(|t| t.name().to_owned()).zip(values).collect();
                Ok(Whole { document, nodes })
            }
        });
        found.map_err(|e| e.in_file(&self.path))
    }

    /// The tensors under the names that they have in the whole object. A distributed checkpoint
    /// may have others for them.
    #[cfg(feature = "torch")]
    pub(crate) fn tensors_of_whole(&self) -> Vec<Tensor> {
        match self.torch_file() {
            Some(file) => file.tensors().iter().map(|e| e.tensor().clone()).collect(),
            None => self.tensors().cloned().collect(),
        }
    }

    /// Looks one of them up.
    #[cfg(feature = "torch")]
    pub(crate) fn tensor_of_whole(&self, name: &str) -> Result<Tensor> {
        match self.torch_file().and_then(|file| file.entry(name)) {
            Some(entry) => Ok(entry.tensor().clone()),
            None => self.tensor(name),
        }
    }

    /// The `__metadata__` of a safetensors checkpoint.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.opened.metadata
    }

    /// The files that hold tensors.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.opened.shards
    }

    /// The state of the training run, where there is one.
    #[must_use]
    pub fn training(&self) -> Option<&Training> {
        self.opened.training.as_ref()
    }

    /// The format of the object that it keeps whole: another one's, where a sidecar stands beside
    /// its tensors.
    pub(crate) fn kept_format(&self) -> Format {
        self.opened.kept.unwrap_or(self.opened.format)
    }

    /// What a sidecar made of it names as the format of its object.
    #[cfg(feature = "torch")]
    pub(crate) fn source_format(&self) -> Format {
        self.sidecar().unwrap_or(self.opened.format)
    }

    /// The format that the object came from which a sidecar ([`sidecar`](crate::sidecar)) keeps;
    /// `None` where there is none, or none that belongs to the tensors.
    #[must_use]
    pub fn sidecar(&self) -> Option<Format> {
        self.opened.sidecar
    }

    /// Whether it holds more of a training run than weights.
    pub(crate) fn is_training(&self) -> bool {
        self.kept_format() == Format::LightningCkpt
            || (self.format() == Format::Distcp
                && self.weights().is_ok_and(|w| {
                    w.tensors.len() < self.opened.entries.len() || !self.value_keys().is_empty()
                }))
    }

    /// What is strange about it without keeping it from being read.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.opened.notes
    }

    /// The tensors of which a part is stored nowhere and is read as zeros: name and number of
    /// elements. Empty without [`OpenOptions::allow_partial`].
    ///
    #[cfg_attr(feature = "distcp", doc = "```")]
    #[cfg_attr(not(feature = "distcp"), doc = "```ignore")]
    /// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/hostile/dcp_chunk_missing");
    /// let mut options = ckptkit::OpenOptions::new();
    /// options.allow_partial = true;
    /// let checkpoint = options.open(path)?;
    /// assert_eq!(checkpoint.filled()["layer.weight"], 6);
    /// # Ok::<(), ckptkit::Error>(())
    /// ```
    #[must_use]
    pub fn filled(&self) -> BTreeMap<String, u64> {
        self.opened.values.filled()
    }

    /// Entries that are tensors, but so malformed that they cannot be listed: (name, why).
    #[must_use]
    pub fn failures(&self) -> &[(String, Error)] {
        &self.opened.failures
    }
}

impl TensorSource for Checkpoint {
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        Box::new(self.tensors().map(Tensor::info))
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        Self::tensor(self, name)
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Checkpoint({}, {} {}, {} tensors)",
            self.path.display(),
            self.format(),
            self.variant(),
            self.opened.entries.len()
        )
    }
}
