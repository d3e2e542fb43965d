//! Reads NVIDIA NeMo archives (`.nemo`) where they lie: config, artifacts and tensors, without
//! Python and without unpacking. Writes and edits them without touching what stays.
//!
//! # The format
//! A `.nemo` is a tar of one flat folder. There is no manifest and no version: the config names the
//! files, and the files are what the config says.
//!
//! ```text
//! offset
//!      0  header  ./                            a directory, or nothing
//!    512  header  ./0f3a…_tokenizer.model       artifacts: 32 random hex digits and a name
//!   1024  bytes, padded to 512                  named in the config as nemo:0f3a…_tokenizer.model
//!         header  ./model_config.yaml           the arguments of the model's class (OmegaConf YAML)
//!         bytes, padded to 512
//!         header  ./model_weights.ckpt          a torch checkpoint: one flat state dict
//!         ┌ zip ──────────────────────────────┐
//!         │ model_weights/data.pkl            │ names, dtypes, shapes
//!         │ model_weights/data/0              │ ◀─ a tensor: a window of the archive, since both
//!         │ model_weights/data/1 …            │    tar and zip store it as it is
//!         └───────────────────────────────────┘
//!         two blocks of zeros, padding
//! ```
//!
//! # What is read
//! * **Containers**: plain tar (NeMo since 1.7), tar inside gzip (before 1.7, and diarizers; with
//!   the feature `gzip`), unpacked directories; every dialect of tar headers (v7, ustar, PAX, GNU).
//! * **Weights**: one file; a folder for each model-parallel rank (`mp_rank_00/NAME`,
//!   `tp_rank_00_pp_rank_000/NAME`); a distributed checkpoint in a folder (with the feature
//!   `distcp`); the modules of NeMo 0.11 (`JasperEncoder/NAME`); a diarizer without weights of its
//!   own lists those of the models inside it (`speaker_model/NAME`); a quantized export for
//!   TensorRT-LLM (`.qnemo`, with the feature `safetensors`) has a safetensors file a rank
//!   (`rank1/NAME`, plain names where it has one rank). Slices of ranks are never put together:
//!   which axis they were cut along is known to the model's code only.
//! * **Config**: by the rules of OmegaConf's loader, with the bytes that spell each value, and
//!   references (`${a.b}`) followed on request.
//!
//! Not read: NeMo 2 directories (their `weights/` is a distributed checkpoint), zarr folders.
//!
//! # What is written
//! With the feature `write`, a new archive is a layout: the headers of the tar, what is new, and
//! ranges of the source for all that stays. Its bytes depend on its content alone.
//!
//! * `Editor`: an archive or unpacked directory with values of the config set or deleted, artifacts
//!   replaced, added or removed, other weights, another tokenizer.
//! * `Config::set` and `Config::delete`: the config's text with one value changed. Comments, order,
//!   quotes, anchors and line breaks elsewhere stay as they are.
//! * `Builder`: an archive from a config, artifacts and weights.
//! * `pack` and `NemoArchive::unpack`: from and to a directory.
//! * `NewArchive::write_gzip`: inside gzip, for releases before 1.7 (with the feature `gzip`).
//! * `TarLayout`: the tar itself. `SentencePieceModel`: the pieces of a `tokenizer.model`, and the
//!   files that are derived from it.
//!
//! Config edits go through an own emitter, since a YAML library would write the whole text anew and
//! knows YAML 1.2 only: a text that some reader of YAML takes for a number, a date or a boolean is
//! quoted. After each edit the text is parsed again, and refused where anything but the one value
//! has changed.
//!
//! # Example
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ckptkit_core::Section;
//! use nemo_archive::{OpenOptions, Value};
//!
//! let config = b"target: nemo.collections.asr.models.EncDecCTCModel\n\
//!                decoder: {labels: [a, 'n', ' ']}\n\
//!                tokenizer: {model_path: 'nemo:tok.model'}\n";
//! let mut tar = tar::Builder::new(Vec::new());
//! for (name, bytes) in [("model_config.yaml", &config[..]), ("tok.model", b"...")] {
//!     let mut header = tar::Header::new_ustar();
//!     header.set_size(bytes.len() as u64);
//!     tar.append_data(&mut header, name, bytes)?;
//! }
//!
//! // This one has no weights; `NemoArchive::open("model.nemo")` wants some.
//! let section = Section::from_bytes(tar.into_inner()?, "model.nemo");
//! let archive = OpenOptions::new().members_only(true).open_section(section)?;
//! assert_eq!(archive.config()?.target(), Some("nemo.collections.asr.models.EncDecCTCModel"));
//! assert_eq!(archive.config()?.get("decoder.labels.1"), Some(Value::Str("n".into())));
//! let artifacts = archive.artifacts()?;
//! assert_eq!(artifacts[0].name(), "tok.model");
//! assert_eq!(artifacts[0].keys(), ["tokenizer.model_path"]);
//! assert!(archive.weights().is_err());
//! # Ok(())
//! # }
//! ```
//!
//! Tensors come through [`TensorSource`](ckptkit_core::TensorSource), which [`NemoArchive`] and
//! [`Weights`] implement: `archive.infos()` lists them, `archive.tensor(name)?.read()` reads one.
//!
//! # Limits
//! [`ArchiveLimits`] bounds members, config size, nesting, alias expansion and gzip ratio;
//! [`OpenOptions::torch_limits`] bounds the pickles inside. Opening costs one read for each
//! member's header, the config, and the pickles of the weights; memory grows with the number of
//! tensors, not with their size. A gzip archive costs its decompressed size in a temporary file
//! that has no name and is gone with the last handle.
//!
//! # Features
//! None is on by default, which reads plain tars and directories with 14 crates from outside the
//! workspace. `write` makes and edits archives (`sha2` and what it needs); `gzip` reads archives of
//! NeMo before 1.7 and diarizers (11 crates more, for `flate2` and `tempfile`), and writes them; `distcp` reads distributed checkpoints inside; `safetensors` quantized exports;
//! `deflate` weights that a zip tool has repacked; `mmap` lends tensors without a copy. What a build cannot read it refuses with
//! the name of the feature.
//!
//! # Safety
//! No `unsafe`; pickles go through `torch_save`, which runs nothing; names of classes in the config
//! are texts. Members that could leave the archive (absolute names, `..`, links, devices), two
//! members of one name, headers that contradict each other and references like `nemo:../x` are
//! refused with the member's name; NeMo skips some of these with a warning, and some not at all.
//! A file that is strange but readable gives its content and [`NemoArchive::notes`]. What is written
//! holds to the same rules; nothing appears until all of it is there.
//!
//! # Source of truth
//! `nemo/core/connectors/save_restore_connector.py` of NeMo 1.4 to 3.0, Python's `tarfile`,
//! OmegaConf 2.3 and 2.4 with PyYAML 6.0 (`tests/data/scalars.tsv` and `edits.tsv` are what they
//! say), sentencepiece 0.2. The facts are collected in `docs/formats/nemo.md`.
#![cfg_attr(docsrs, feature(doc_auto_cfg))]

mod archive;
mod artifact;
mod config;
mod detect;
mod directory;
#[cfg(feature = "write")]
mod edit;
mod entry;
#[cfg(feature = "gzip")]
mod gzip;
mod index;
mod limits;
mod notes;
mod options;
#[cfg(feature = "write")]
mod pack;
mod plain_names;
mod tar_walk;
#[cfg(feature = "write")]
mod tokenizer;
#[cfg(feature = "write")]
mod unpack;
mod weights;
#[cfg(feature = "write")]
mod write;

pub use archive::NemoArchive;
pub use artifact::Artifact;
#[cfg(feature = "write")]
pub use config::to_yaml;
pub use config::{Config, Value};
#[cfg(feature = "write")]
pub use edit::{Editor, Replace, WeightsDifference, compare_weights};
pub use entry::Entry;
pub use index::Variant;
pub use limits::ArchiveLimits;
pub use options::OpenOptions;
#[cfg(feature = "write")]
pub use pack::{PackOptions, pack};
#[cfg(feature = "write")]
pub use tokenizer::{Piece, PieceKind, SentencePieceModel, Swap, TokenizerFiles};
#[cfg(feature = "write")]
pub use unpack::{UnpackOptions, Unpacked};
pub use weights::{Weights, WeightsFile, WeightsLayout};
#[cfg(feature = "write")]
pub use write::{Builder, Change, NewArchive, TarLayout, WriteOptions, source_date_epoch};
