//! How checkpoints are opened.

use std::path::Path;

use ckptkit_core::{Limits, Result, Section};

/// How [`StCheckpoint`](crate::StCheckpoint) and [`ShardedSt`](crate::ShardedSt) are opened.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Bounds on headers and indexes.
    pub limits: Limits,
    /// Take numbered shards (`model-00001-of-00003.safetensors`) that no index lists. Whether all
    /// tensors are there can then not be checked, only whether all numbers are.
    pub without_index: bool,
    /// Which of several checkpoints in one directory: the name of its file or of its index.
    pub select: Option<String>,
    /// Follow symbolic links that leave the directory. The layout of the Hugging Face cache
    /// (`snapshots/…` linking to `blobs/…`) is followed without it.
    pub follow_links: bool,
    /// Map the files, so that tensors have [`as_slice`](ckptkit_core::Tensor::as_slice). Only for
    /// files that nobody changes meanwhile.
    #[cfg(feature = "mmap")]
    pub mapped: bool,
}

impl OpenOptions {
    pub(crate) fn open(&self, path: &Path) -> Result<Section> {
        #[cfg(feature = "mmap")]
        if self.mapped {
            return Section::open_mapped(path);
        }
        Section::open(path)
    }
}
