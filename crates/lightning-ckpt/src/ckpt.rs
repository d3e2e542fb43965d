//! An opened checkpoint: telling that it is one, its weights and its counters.

use std::path::Path;

use ckptkit_core::{
    Error, Key, Result, ResultExt, Section, Tensor, TensorInfo, TensorSource, no_such_tensor,
};
use torch_save::pickle::{Kind, NodeRef};
use torch_save::{TorchFile, Value};

use crate::version::{self, Version};

/// A Lightning checkpoint. Cheap to clone; see the [crate's page](crate).
#[derive(Clone)]
pub struct LightningCkpt {
    pub(crate) file: TorchFile,
}

impl LightningCkpt {
    /// Opens a file: reads its pickle, and no tensor.
    ///
    /// # Errors
    /// As [`TorchFile::open`]; [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for what torch
    /// has written and Lightning has not.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_torch(TorchFile::open(path)?)
    }

    /// Opens a file through a memory mapping, so that [`Tensor::as_slice`] lends its bytes; see
    /// [`Section::open_mapped`] for what that asks of the file.
    ///
    /// # Errors
    /// As [`LightningCkpt::open`].
    #[cfg(feature = "mmap")]
    pub fn open_mapped(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_torch(TorchFile::open_mapped(path)?)
    }

    /// Opens what a section holds: a member of an archive, memory.
    ///
    /// # Errors
    /// As [`LightningCkpt::open`].
    pub fn from_section(section: &Section) -> Result<Self> {
        Self::from_torch(TorchFile::from_section(section)?)
    }

    /// Takes a file that is open already. Reads nothing.
    ///
    /// # Errors
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) when it is no Lightning checkpoint.
    pub fn from_torch(file: TorchFile) -> Result<Self> {
        if Self::detect(&file) {
            return Ok(Self { file });
        }
        Err(Error::unsupported(
            "this is no Lightning checkpoint: there is neither `pytorch-lightning_version` at its \
             root, nor `state_dict` with `epoch` and `global_step`",
        )
        .hint("open it as what torch.save has written")
        .in_file(file.section().name()))
    }

    /// Whether a file is a Lightning checkpoint: a dict with `pytorch-lightning_version`, or, as
    /// the first releases wrote it, with `state_dict`, `epoch` and `global_step`. Training scripts of
    /// all kinds keep a `state_dict` and an `epoch`, so these two alone do not tell.
    #[must_use]
    pub fn detect(file: &TorchFile) -> bool {
        let root = file.root();
        let is_dict = matches!(root.kind(), Kind::Dict)
            || root.class().is_some_and(|g| g.is("collections", "OrderedDict"));
        let has = |key| root.get(key).is_some();
        is_dict
            && (has(version::VERSION)
                || [version::STATE_DICT, version::EPOCH, version::GLOBAL_STEP].into_iter().all(has))
    }

    /// The file as torch sees it.
    #[must_use]
    pub fn torch(&self) -> &TorchFile {
        &self.file
    }

    pub(crate) fn node(&self, key: &str) -> Option<NodeRef<'_>> {
        self.file.root().get(key).filter(|node| !node.is_none())
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.node(key)?.as_u64()
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.node(key)?.as_str()
    }

    /// The value of a key at the top, `None` where it is missing or `None`.
    ///
    /// # Errors
    /// As [`TorchFile::lookup`], but a missing key is no error.
    pub fn value(&self, key: &str) -> Result<Option<Value>> {
        match self.node(key) {
            None => Ok(None),
            Some(_) => {
                let escaped = key.replace('.', "\\.");
                self.file.lookup(&escaped).within(|| key.to_owned()).map(Some)
            }
        }
    }

    /// The release that wrote it, as it calls itself; missing before 1.0.
    #[must_use]
    pub fn lightning_version(&self) -> Option<&str> {
        self.text(version::VERSION)
    }

    /// The release that wrote it, as numbers.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        Version::parse(self.lightning_version()?)
    }

    /// The epoch that was running, counted from 0. Releases before 1.6 count the next one when an
    /// epoch had ended.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.number(version::EPOCH)
    }

    /// The steps that were taken: calls of optimizers since 1.6, batches before it.
    #[must_use]
    pub fn global_step(&self) -> Option<u64> {
        self.number(version::GLOBAL_STEP)
    }

    /// The weights: the names that the model knows, without `state_dict.`, and the tensors, in the
    /// order of the file. Nothing is read.
    pub fn state_dict(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.file.tensors().iter().filter_map(|entry| {
            let is_weight = entry.path().len() > 1
                && matches!(entry.path().first(), Some(Key::Str(key)) if **key == *version::STATE_DICT);
            let tensor = entry.tensor();
            let name = tensor.name().strip_prefix(version::STATE_DICT)?.strip_prefix('.')?;
            is_weight.then_some((name, tensor))
        })
    }

    /// One of the weights, by the name that the model knows.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound), with the names that are near.
    pub fn weight(&self, name: &str) -> Result<Tensor> {
        self.file.tensor(&format!("{}.{name}", version::STATE_DICT)).map_err(|e| match e.kind() {
            ckptkit_core::ErrorKind::NotFound => {
                no_such_tensor(name, self.state_dict().map(|(name, _)| name))
                    .in_file(self.file.section().name())
            }
            _ => e,
        })
    }
}

impl TensorSource for LightningCkpt {
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_> {
        self.file.infos()
    }

    fn tensor(&self, name: &str) -> Result<Tensor> {
        self.file.tensor(name)
    }
}

impl std::fmt::Debug for LightningCkpt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "LightningCkpt({}, version {:?}, epoch {:?}, {} tensors)",
            self.file.section().name(),
            self.lightning_version(),
            self.epoch(),
            self.file.tensors().len()
        )
    }
}
