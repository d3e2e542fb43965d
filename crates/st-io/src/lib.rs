//! Reads and writes safetensors: single files, the sharded directories of Hugging Face libraries,
//! and the files of pieces that torch's distributed checkpoint writes.
//!
//! safetensors is the format in which model weights are published: a list of tensors with names,
//! dtypes and shapes, then their bytes. It holds no code, no objects and no compression, so a
//! tensor is a byte range of the file and reading one needs nothing of the others.
//!
//! ```text
//! offset 0          8          8 + N                                  8 + N + B
//!        ├──────────┼──────────┼──────────────────────────────────────┤
//!        │ N, u64   │ header   │ data: tensors end to end,            │ end of file
//!        │ little   │ N bytes  │ little-endian, row-major,            │
//!        │ endian   │ of JSON  │ no gaps, no byte shared by two names │
//!        └──────────┴──────────┴──────────────────────────────────────┘
//!                    {"__metadata__":{"format":"pt"},
//!                     "w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}   + spaces
//!
//! model-00001-of-00002.safetensors   ┐ each a whole file as above
//! model-00002-of-00002.safetensors   ┘
//! model.safetensors.index.json         {"metadata":{…},"weight_map":{"w":"model-00001-of-…",…}}
//! ```
//!
//! # What is supported
//! | | read | write |
//! | --- | --- | --- |
//! | one file, all 22 dtypes, any header padding and tensor order | [`StFile`] | [`layout_file`] |
//! | shards and their index, variants (`fp16`), older diffusers names | [`ShardedSt`] | [`layout_sharded`] |
//! | numbered shards without an index | [`OpenOptions::without_index`] | |
//! | pieces written by torch's `HuggingFaceStorageWriter`, put together | [`DcpShards`] | |
//! | any of these, by path | [`StCheckpoint`] | |
//! | names that were dropped because they are tied | [`StFile::aliases`] | [`WriteOptions::aliases`] |
//! | rows and boxes of a tensor | [`slice_rows`], [`slice_region`] | |
//!
//! Opening reads headers only; a [`Tensor`](ckptkit_core::Tensor) is an address and is read when
//! asked. Writing makes a [`Layout`](ckptkit_core::Layout), in which every byte has its place
//! before one is written, so that memory does not grow with the checkpoint.
//!
//! ```
//! use std::collections::BTreeMap;
//! use ckptkit_core::{CopyOptions, Dtype, Existing, Section, Tensor, TensorBytes, TensorInfo};
//! use st_io::{StCheckpoint, WriteOptions, layout_sharded, parse_size};
//!
//! # fn main() -> ckptkit_core::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("model");
//! let tensor = |name: &str, values: [u8; 4]| {
//!     let info = TensorInfo::new(name, Dtype::F32, [1])?;
//!     Tensor::new(info, TensorBytes::Range(Section::from_bytes(values, "memory")))
//! };
//! let tensors = [tensor("a", 1_f32.to_le_bytes())?, tensor("b", 2_f32.to_le_bytes())?];
//! let mut options = WriteOptions::new();
//! options.max_shard_bytes = parse_size("4B")?;
//! let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
//! layout_sharded(&tensors, &metadata, &options)?
//!     .write(&path, Existing::Refuse, &CopyOptions::default())?;
//!
//! let checkpoint = StCheckpoint::open(&path)?;
//! assert_eq!(checkpoint.variant().to_string(), "sharded");
//! assert_eq!(checkpoint.shards().len(), 2);
//! for info in checkpoint.infos() {
//!     println!("{} {:?} {}", info.dtype(), info.shape(), info.name());
//! }
//! assert_eq!(checkpoint.tensor("b")?.read()?, 2_f32.to_le_bytes());
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//! * A header has at most 100 000 000 bytes, by the format; [`Limits`](ckptkit_core::Limits) can
//!   lower that, and bounds indexes too. Memory is a small multiple of the header.
//! * The format has no complex128, no quantized and no sparse types, and cannot share bytes
//!   between names. Writing refuses such dtypes; tied names are the caller's choice, see
//!   [`WriteOptions::aliases`].
//! * A tensor has at most 64 dimensions and an element count that fits `i64`, as in torch.
//! * F4 and F6 elements are packed: a tensor has a whole number of bytes, and can be cut at whole
//!   bytes only.
//!
//! # Safety
//! No `unsafe`, no panic, no allocation that the file's own length does not justify. The header is
//! checked before a tensor is shown: the tensors tile the data exactly, shapes match offsets, the
//! file has the length that follows. Where readers differ in what they make of a file (a name
//! twice, `4.0` for `4`, a key twice in an entry), it is refused. An index may name plain files
//! beside it and nothing else; links that leave the directory are refused, but for those of the
//! Hugging Face cache. The exception to strictness is a dtype that is not known: such entries are
//! listed ([`StFile::entries`]) and noted, and only reading them fails. `verify()` fails for them.
//!
//! # Features
//! None by default: `ckptkit-core`, `serde` and `serde_json` are all that is needed. `mmap` maps
//! files, so that tensors have [`as_slice`](ckptkit_core::Tensor::as_slice). `safetensors` adds
//! `bridge`, conversions to and from that crate's types.
//!
//! # Source of truth
//! The crate `safetensors` 0.8.0 (`tensor.rs`), whose writer's bytes are reproduced and whose
//! reader accepts whatever is accepted here; `split_state_dict_into_shards_factory` of
//! `huggingface_hub`; the index writer of `transformers` 5; `torch.distributed.checkpoint` 2.15.
#![cfg_attr(docsrs, feature(doc_auto_cfg))]

#[cfg(feature = "safetensors")]
pub mod bridge;
mod checkpoint;
mod dcp;
mod directory;
mod file;
mod header;
mod index;
mod json;
mod names;
mod options;
mod sharded;
mod size;
mod slice;
mod split;
mod tiling;
mod write;

pub use checkpoint::{StCheckpoint, Variant};
pub use dcp::DcpShards;
pub use file::StFile;
pub use header::{Entry, Header, MAX_HEADER_BYTES, REMOTE_HEADER_BYTES, StDtype};
pub use options::OpenOptions;
pub use sharded::{Shard, ShardedSt};
pub use size::parse_size;
pub use slice::{slice_region, slice_rows};
pub use split::split;
pub use write::{Order, Plan, WriteOptions, layout_file, layout_sharded, plan_file, plan_sharded};
