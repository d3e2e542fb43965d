//! Opens, inspects and converts model checkpoints: `.nemo` archives, Lightning `.ckpt`, everything
//! else that torch.save has written, safetensors files and directories, distributed checkpoints.
//!
//! A checkpoint is a tree of values whose leaves are tensors, and a tensor is the address of bytes
//! in some file. [`Checkpoint::open`] finds the format by content and reads that tree; no tensor
//! is read until someone asks for it.
//!
#![cfg_attr(all(feature = "nemo", feature = "safetensors"), doc = "```")]
#![cfg_attr(not(all(feature = "nemo", feature = "safetensors")), doc = "```ignore")]
//! use ckptkit::{Checkpoint, Convert, CopyOptions, Existing, Target};
//!
//! # fn main() -> ckptkit::Result<()> {
//! # let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/nemo/ctc_char.nemo");
//! # let dir = tempfile::tempdir().unwrap();
//! # let destination = dir.path().join("out");
//! let checkpoint = Checkpoint::open(file)?;
//! println!("{} ({})", checkpoint.format(), checkpoint.variant());
//! for tensor in checkpoint.weights()?.tensors.iter().take(3) {
//!     println!("{} {} {:?}", tensor.name(), tensor.dtype(), tensor.shape());
//! }
//! let sample_rate = checkpoint.value("preprocessor.sample_rate")?;
//! assert_eq!(sample_rate.as_int(), Some(16_000));
//!
//! let plan = Convert::new(Target::SafetensorsDirectory).plan(&checkpoint, &destination)?;
//! assert!(plan.report().left_out.is_empty());
//! plan.write(Existing::Refuse, &CopyOptions::default())?;
//! # Ok(())
//! # }
//! ```
//!
//! # Formats and features
//! Each format is a feature, all on by default, and re-exported under a short name:
//! `safetensors` ([`safetensors`]), `torch` ([`torch`]), `lightning` ([`lightning`]), `nemo`
//! ([`nemo`]), `distcp` ([`distcp`]); the last three bring `torch`. Conversion wants
//! `safetensors`, values want `torch`. `mmap` adds zero-copy views,
//! `kernel` (on by default) what Linux can do for copies.
//!
//! # Whole checkpoints without a pickle
//! [`sidecar`] writes everything of an object that is no tensor as one JSON file, and makes the
//! object again from it and the tensors: types, order, ties, optimizer states, classes that nobody
//! knows.
//!
//! # Names
//! A tensor's name is its path joined with dots. [`Checkpoint::weights`] gives the model's state
//! dict with its prefix removed: the same names in every format.
//!
//! # Limits and safety
//! No code from a file is run: what a pickle would call is kept as data. Bounds on what a file may
//! ask are in [`Limits`]. Outputs appear whole or not at all.
//!
//! # Source of truth
//! Each format crate names the files and versions of the libraries that it follows. What those
//! libraries wrote, and read, is what the tests compare with.
#![cfg_attr(
    not(all(
        feature = "safetensors",
        feature = "torch",
        feature = "lightning",
        feature = "nemo",
        feature = "distcp"
    )),
    allow(
        dead_code,
        unused_imports,
        unused_variables,
        reason = "a build with fewer formats uses less of what they share"
    ),
    allow(rustdoc::broken_intra_doc_links, reason = "the page names every format")
)]

mod checkpoint;
mod convert;
mod digest;
#[cfg(feature = "torch")]
pub mod elements;
mod format;
mod inspect;
#[cfg(feature = "torch")]
mod json;
mod opened;
mod reader;
mod select;
#[cfg(feature = "torch")]
pub mod sidecar;
mod training;
mod weights;

pub use checkpoint::Checkpoint;
pub use ckptkit_core as core;
pub use ckptkit_core::{
    CopyOptions, CopyReport, Dtype, Error, ErrorKind, Existing, Limits, Observer, Progress, Result,
    Section, Tensor, TensorInfo, TensorSource,
};
pub use convert::{Aliases, Convert, Kind, LeftOut, Plan, Report, Scope, Target};
pub use digest::{Digest, TensorDigest, digest};
pub use format::Format;
pub use inspect::{ArtifactSummary, Summary};
#[cfg(feature = "torch")]
pub use json::Json;
pub use opened::{Artifact, Config, Entry, OpenOptions};
pub use regex::Regex;
pub use select::{Glob, Selection};
#[cfg(feature = "torch")]
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
