//! Opens, inspects and converts model checkpoints of every format.

mod checkpoint;
mod convert;
mod digest;
mod format;
mod inspect;
mod json;
mod reader;
mod select;
mod training;
mod weights;

pub use checkpoint::{Artifact, Checkpoint, Config, Entry, OpenOptions};
pub use ckptkit_core as core;
pub use ckptkit_core::{
    CopyOptions, Dtype, Error, ErrorKind, Existing, Limits, Observer, Progress, Result, Section,
    Tensor, TensorInfo, TensorSource,
};
pub use convert::{Aliases, Convert, Kind, LeftOut, Plan, Report, Target};
pub use digest::{Digest, TensorDigest, digest};
pub use format::Format;
pub use inspect::{ArtifactSummary, Summary};
pub use json::Json;
pub use regex::Regex;
pub use select::{Glob, Selection};
pub use torch_save::Value;
pub use training::Training;
pub use weights::Weights;

#[cfg(feature = "distcp")]
pub use distcp;
#[cfg(feature = "lightning")]
pub use lightning_ckpt as lightning;
#[cfg(feature = "nemo")]
pub use nemo_archive as nemo;
#[cfg(feature = "safetensors")]
pub use st_io as safetensors;
#[cfg(feature = "torch")]
pub use torch_save as torch;
