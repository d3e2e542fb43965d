//! Reads the directories that `torch.distributed.checkpoint` writes, and with it PyTorch Lightning's
//! sharded strategies, Megatron-Core's `torch_dist`, NeMo 2 and torchtitan; writes such directories
//! for any number of ranks.
//!
//! Every rank of a training run writes files of its own, and one pickle says how their pieces make
//! the state dict: a tensor is a list of boxes (*chunks*), each of which is an archive of
//! `torch.save` (an *item*) somewhere in a data file; everything that is no tensor is an item too.
//!
//! ```text
//! .metadata                       a pickle, the only index
//!   state_dict_metadata   fqn → dtype, global shape, chunks (offsets, sizes) | "bytes"
//!   storage_data          (fqn, offsets) → file, offset, length [, transforms]
//!   planner_data          fqn → path in the tree that was flattened
//!
//!  tensor "layer.weight", shape [4, 3]        __0_0.distcp             __1_0.distcp
//!   ┌──────────┐ offsets [0, 0]               ┌─────┬─────┬─────┐      ┌─────┬─────┐
//!   │ rank 0   │ sizes   [2, 3] ───────────── │item │item │item │   ┌─ │item │item │
//!   ├──────────┤                              └─────┴─────┴─────┘   │  └─────┴─────┘
//!   │ rank 1   │ offsets [2, 0] ────────────────────────────────────┘
//!   └──────────┘ sizes   [2, 3]               item = zip: data.pkl, data/0, version …
//! ```
//!
//! # What is supported
//! | | read | write |
//! | --- | --- | --- |
//! | `.metadata` of torch 2.0 to 2.15, of Megatron's classes and of custom planners' containers | yes | as torch 2.4 and later load it |
//! | `__N.metadata` of ranks that saved alone (torch 2.9 and later), merged | yes | no |
//! | any sharding: rows, columns, meshes, uneven, replicas, scalars, no elements | yes | [`WriteOptions`], [`Placement`] |
//! | several shards of a tensor on one rank | yes | no |
//! | any file names, gaps, order; one file a rank, several, or one an item | yes | one a rank, one an item |
//! | items compressed by the zstd extension | feature `zstd` | no |
//! | data files in `SerializationFormat.SAFETENSORS`, which torch cannot read back | feature `safetensors` | no |
//! | items that a zip tool has deflated | feature `deflate` | no |
//! | Megatron's objects in files of their own (`KEY/shard_OFFSET_SHAPE.pt`) | yes | no |
//! | regions that no chunk holds | [`allow_partial`](OpenOptions::allow_partial): zeros | no |
//! | items of another dtype than the metadata says | [`item_dtypes`](OpenOptions::item_dtypes) | no |
//! | Lightning's `meta.pt`, Megatron's `common.pt` | yes | files that are added to the [`Layout`](ckptkit_core::Layout) |
//! | Megatron's flattened optimizer shards, NeMo's `context/` | yes | no |
//! | FSDP1's `_flat_param` of a local state dict | listed as it is: what it holds is not stored | no |
//! | Megatron's `zarr` backend | refused by name | no |
//! | the Hugging Face writer's directories (`*.safetensors`, no `.metadata`) | see the crate `st-io` | feature `safetensors`, [`Form::Safetensors`] |
//!
//! [`DistCheckpoint::open`] reads metadata and looks at the length of every file; no data file is
//! opened before something in it is wanted. Tensors resolve to
//! [`TensorBytes::Chunks`](ckptkit_core::TensorBytes::Chunks) whose boxes open their item when
//! they are first read; objects become [`Value`](torch_save::Value)s; nothing of a pickle is ever
//! executed.
//!
//! ```
//! use ckptkit_core::TensorSource;
//! use distcp::DistCheckpoint;
//!
//! # fn main() -> ckptkit_core::Result<()> {
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp/tp_2");
//! let checkpoint = DistCheckpoint::open(dir)?;
//! assert_eq!((checkpoint.variant(), checkpoint.ranks()), ("dcp", 2));
//! for info in checkpoint.infos() {
//!     println!("{} {:?} {}", info.dtype(), info.shape(), info.name());
//! }
//! // Whole, from the chunks of both ranks …
//! let whole = checkpoint.tensor("rows")?.read()?;
//! assert_eq!(whole.len(), 8 * 3 * 4);
//! // … or one row, from the item that holds it.
//! let mut row = [0; 12];
//! checkpoint.read_region("rows", &[5, 0], &[1, 3], &mut row)?;
//! assert_eq!(row, whole[60..72]);
//! # Ok(())
//! # }
//! ```
//!
//! # Writing
//! [`layout`] takes entries, a path and a tensor or an archive of `torch.save` each, and says where
//! every byte goes; [`DistCheckpoint::entries`] are those of an opened checkpoint. Tensors are cut as
//! DTensor cuts them and dealt out as torch's planner does: from the state dicts of the fixtures
//! come the chunks, the files and the order of items that torch made of them.
//!
//! ```
//! use ckptkit_core::{CopyOptions, Dtype, Existing, Key, Section, Tensor, TensorBytes, TensorInfo};
//! use ckptkit_core::TensorSource;
//! use distcp::{DistCheckpoint, Entry, WriteOptions};
//!
//! # fn main() -> ckptkit_core::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("step-1");
//! let info = TensorInfo::new("weight", Dtype::U8, [5, 2])?;
//! let bytes = TensorBytes::Range(Section::from_bytes((0..10).collect::<Vec<u8>>(), "memory"));
//! let weight = Tensor::new(info, bytes)?;
//! let keys = ["model", "weight"].map(|key| Key::Str(key.into()));
//!
//! let mut options = WriteOptions::new();
//! options.ranks = 2;
//! let layout = distcp::layout(&[Entry::tensor(keys, weight)], &options)?;
//! layout.write(&path, Existing::Refuse, &CopyOptions::default())?;
//!
//! let checkpoint = DistCheckpoint::open(&path)?;
//! let rows: Vec<u64> =
//!     checkpoint.chunks("model.weight")?.iter().map(|c| c.region.sizes[0]).collect();
//! assert_eq!(rows, [3, 2]);
//! assert_eq!(checkpoint.tensor("model.weight")?.read()?[6..], [6, 7, 8, 9]);
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//! * A plan keeps some 800 bytes a chunk, and takes 1.4 kB while it is made: 80 000 chunks in a third
//!   of a second. Writing adds the buffers of the copy engine and nothing that grows.
//! * An item has 1.3 kB besides its tensor, as torch's have 1.5.
//! * Tied tensors are written once for each name, as torch writes them.
//! * An open checkpoint keeps 32 bytes a chunk and 16 for each of its dimensions; while `.metadata`
//!   is decoded, some hundred. A million chunks take about a second. A tensor that is looked up
//!   takes some hundred bytes a chunk for as long as it is kept.
//! * Listing opens all byte items: what tensors they hold is said nowhere else.
//! * What the metadata repeats by reference may not outgrow the metadata
//!   ([`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded)), and chunks cut in so many
//!   dimensions that checking them would take minutes are refused.
//! * A zstd item is decoded twice, since its frame does not say how long it is.
//! * Values that ranks held under one name without sharding them were lost when saving: only one
//!   rank's is in the checkpoint, and nothing tells.
//!
//! # Safety
//! No `unsafe`, no panic, no allocation that the files do not justify. torch leaves what no chunk
//! holds uninitialised, lets overlapping chunks overwrite each other, casts items of another dtype
//! and follows paths out of the directory. Here each of these is an error that names the tensor,
//! the item and the numbers. Paths and links may not leave the checkpoint, but for the links that
//! the Hugging Face cache is made of.
//!
//! What is wrong with one tensor stays with it: it is listed, reading it fails, all others are
//! read. Reading checks an item's structure, shape and dtype; checksums only
//! [`DistCheckpoint::verify`] computes, because they need every byte of an item where a region may
//! want few.
//!
//! # Source of truth
//! `torch/distributed/checkpoint/{metadata,filesystem,planner_helpers,default_planner,
//! _dedup_save_plans,_nested_dict,_extension,hf_storage}.py` and `torch/distributed/tensor/_utils.py`
//! of torch 2.15.0, with what 2.1.2 and 2.4.1 write; `dist_checkpointing` of Megatron-Core 0.7.0,
//! 0.12.3 and 0.16.1; Lightning 2.6.6.
#![cfg_attr(docsrs, feature(doc_auto_cfg))]

mod assemble;
mod document;
mod handles;
mod holes;
mod item;
mod layout;
mod listing;
mod megatron;
mod metadata;
mod objects;
mod open;
mod opened;
mod part;
mod partial;
mod read;
mod region;
mod rules;
mod safetensors;
mod slots;
mod storage;
mod transform;
mod tree;
mod variant;
mod verify;
mod write;
mod zeros;

pub use document::Whole;
pub use open::OpenOptions;
pub use read::{ChunkInfo, DistCheckpoint};
pub use storage::StorageReader;
pub use verify::Report;
pub use write::{Entry, Form, Placement, Plan, WriteOptions, layout, plan};
