//! A conversion as it is wished for.

use std::path::PathBuf;

use ckptkit_core::Dtype;

use super::target::Target;
use crate::select::Selection;

/// What becomes of names that share one tensor, in a format that cannot tie them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aliases {
    /// The alphabetically first name is written, the others are recorded in the metadata. A format
    /// that can tie names keeps them tied.
    #[default]
    Drop,
    /// Each name is written with its own bytes, in every format.
    Copy,
    /// Refuse.
    Error,
}

/// How much of a checkpoint is converted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// The weights; or everything, where the target has a place for it and nothing was selected or
    /// renamed: a training checkpoint stays one.
    #[default]
    Auto,
    /// The model's weights, under their weight names.
    Weights,
    /// The whole tree, under its full names.
    All,
}

/// A conversion as it is wished for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Convert {
    /// What is written.
    pub target: Target,
    /// How much of the source is.
    pub scope: Scope,
    /// Which tensors, and under what names.
    pub selection: Selection,
    /// The key of the weights, where the rules should not decide.
    pub weights_key: Option<String>,
    /// The type that floating-point weights are cast to; others stay what they are, and so do the
    /// states of optimizers.
    pub dtype: Option<Dtype>,
    /// What becomes of tied names.
    pub aliases: Aliases,
    /// The YAML file that becomes the config of a `.nemo` archive, instead of the source's.
    pub config: Option<PathBuf>,
    /// The `.nemo` archive of the ASR model that the run of a SpeechLM2 model began with: it
    /// completes the config in a directory, whose checkpoint does not hold that of the encoder.
    pub asr: Option<PathBuf>,
    /// The `.nemo` archive that everything but the weights is taken from.
    pub like: Option<PathBuf>,
    /// Bytes of tensors that one shard of a directory may hold.
    pub max_shard_bytes: u64,
    /// Tensors' data starts at a multiple of this many bytes: of a safetensors file the first
    /// tensor's (default 8), of a torch archive every storage's, of a distributed checkpoint every
    /// item's (default 64).
    pub align: Option<u64>,
    /// Ranks that a distributed checkpoint is cut for.
    pub ranks: u32,
    /// The mesh that the ranks make; empty is one dimension of all.
    pub mesh: Vec<u32>,
    /// What a distributed checkpoint is made of.
    #[cfg(feature = "distcp")]
    pub form: distcp::Form,
    /// Whether the whole of a checkpoint in a directory has the tensors of optimizer states as
    /// `optimizer.exp_avg.encoder.weight`, those of further optimizers as
    /// `optimizer_1.exp_avg.encoder.weight`, as far as the names of the parameters are known. A
    /// distributed checkpoint has them by name in any case, as its loaders want it.
    pub optimizer_names: bool,
    /// A file with the names of the parameters whose states a checkpoint numbers, where it does not
    /// record them and their shapes leave more than one way: one name a line, all parameters of the
    /// model in the order of `named_parameters()`, blank lines and those that start with `#` aside;
    /// or JSON, a list of these names, or a list of lists, for every optimizer the names of its
    /// parameters in the order of its numbers.
    pub param_names: Option<PathBuf>,
    /// Whether tensors keep the order of the source, which reads it from front to back.
    pub source_order: bool,
}

impl Convert {
    /// Converts the weights, all of them, under their names.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            scope: Scope::default(),
            selection: Selection::new(),
            weights_key: None,
            dtype: None,
            aliases: Aliases::default(),
            config: None,
            asr: None,
            like: None,
            max_shard_bytes: 5_000_000_000,
            align: None,
            ranks: 1,
            mesh: Vec::new(),
            #[cfg(feature = "distcp")]
            form: distcp::Form::default(),
            optimizer_names: false,
            param_names: None,
            source_order: false,
        }
    }
}
