//! Reads what `torch.save` has written, in every form, changes it and writes it again, without
//! Python and without running code.
//!
//! # The formats
//! `torch.save` pickles one object and puts the bytes of its tensors beside the pickle, where a
//! *persistent id* names each *storage*: `('storage', FloatStorage, '0', 'cpu', 24)`. The container
//! around the two has changed over the years. Since torch 1.6 it is a zip archive whose members
//! are stored, not compressed, and aligned:
//!
//! ```text
//! archive/data.pkl             the pickle
//! archive/byteorder            "little" or "big"            (and some small ones more)
//! archive/data/0               the bytes of storage '0', at a multiple of 64 bytes
//! archive/data/1               …
//! archive/version              "3"
//! central directory, end records
//! ```
//!
//! Before that, and still with `_use_new_zipfile_serialization=False`, it was a stream:
//!
//! ```text
//! pickle 0x1950a86a20f9469cfc6c │ pickle 1001 │ pickle {little_endian, type_sizes, …}
//! pickle OBJECT │ pickle ['94258477618704', …]          the keys of the storages, sorted
//! i64 elements, raw bytes │ i64 elements, raw bytes …   one storage after another
//! ```
//!
//! and before 0.1.10 a tar archive of `sys_info`, `pickle`, `storages` and `tensors`.
//!
//! # What is supported
//! | | |
//! | --- | --- |
//! | containers | zip, legacy stream, tar, plain pickles, TorchScript (its tensors), torch.export (feature `export`), re-zipped archives with deflated members (feature `deflate`); told apart by content |
//! | pickles | protocols 0 to 5, every opcode whose meaning lies in the file |
//! | tensors | every construction from 0.1 to 2.15: strided views, parameters, buffers, conjugate and negative bits, quantized, sparse, nested, meta, DTensor shards, subclasses; all dtypes; ties |
//! | values | everything else in the object, down to OmegaConf, dataclasses, NumPy: [`Value`]; in the caller's types with the feature `serde` |
//! | big-endian files | swapped as torch does |
//! | writing | zip archives as torch 2.15 lays them out, byte for byte, past 4 GiB too; objects changed and written with everything else as it was ([`Document`]); state dicts from any tensors ([`layout_state_dict`]). Not TorchScript and torch.export |
//! | `weights_only=True` | what it refuses, and why: [`weights_only`]; made plain, with a report: [`sanitize`] |
//!
//! Opening reads the pickle and the directory. A [`Tensor`](ckptkit_core::Tensor) is an address:
//! its bytes are read when asked for, from any number of threads. A file inside another one (a
//! `.nemo` archive, an item of a distributed checkpoint) opens from its
//! [`Section`](ckptkit_core::Section) in place.
//!
//! # Example
//! ```
//! use ckptkit_core::{Section, TensorSource};
//! use torch_save::{Container, TorchFile};
//!
//! # fn main() -> ckptkit_core::Result<()> {
//! // A plain pickle; for a path there is TorchFile::open("model.pt").
//! let pickle = b"\x80\x02}(X\x05\0\0\0epochK\x03X\x05\0\0\0betasG?\xd0\0\0\0\0\0\0G?\xe0\0\0\0\0\0\0\x86u.";
//! let file = TorchFile::from_section(&Section::from_bytes(*pickle, "small.pkl"))?;
//! assert_eq!(file.container(), Container::Pickle);
//! assert_eq!(file.lookup("epoch")?.as_int(), Some(3));
//! assert_eq!(file.lookup("betas.1")?.as_f64(), Some(0.5));
//! for info in file.infos() {
//!     let tensor = file.tensor(info.name())?; // nothing is read …
//!     let bytes = tensor.read()?; // … before this
//!     println!("{} {} {:?}: {} bytes", info.name(), info.dtype(), info.shape(), bytes.len());
//! }
//! assert!(file.notes().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # Writing
//! A writer decides every byte before it writes one. [`Document::layout`] and
//! [`layout_state_dict`] give an [`OutputFile`](ckptkit_core::OutputFile), which can be written by
//! itself or become a member of an archive; storages are copied as ranges of their files, and only
//! their checksums are made on the way, where they are not known. Files load with `weights_only`,
//! `mmap` and computed storage offsets; equal input gives equal bytes.
//!
//! # Names
//! A tensor is called by the keys that lead to it, joined with dots: `state_dict.encoder.0.weight`,
//! `optimizer_states.0.state.3.exp_avg`. Inside an object its attributes are the keys, and an
//! `nn.Module` is named as its `state_dict()` would be. What a tensor is made of is listed under it:
//! `NAME.indices`, `NAME.values`, `NAME.scales`, `NAME.local`. A tensor that is the whole file is
//! called `tensor`. A container that several paths reach is entered once, under the first.
//!
//! # Limits
//! [`OpenOptions::limits`] bounds what a file may ask for. Beyond that, values nest at most 256 deep
//! in [`TorchFile::value`], which asks for a longer path otherwise; the graph itself may nest and
//! share as it likes. What is malformed in one tensor fails that tensor alone, when it is read.
//! Opening ten thousand tensors takes about 20 ms and some hundred bytes of memory each.
//!
//! # Safety
//! A pickle is a program; here it is data. Nothing that it names is imported, resolved or called:
//! [`pickle::Graph`] keeps the calls that Python would make as nodes, and tensors are *recognised*
//! among them. No `unsafe`. Bytes from a file never cause a panic, an endless loop, a stack that
//! overflows, or an allocation larger than the file justifies; the tests flip every kind of bit.
//!
//! # Source of truth
//! torch 2.15: `torch/serialization.py` (`_save`, `_load`, `_legacy_load`), `torch/_utils.py`
//! (`_rebuild_*`), `torch/_tensor.py` (`__reduce_ex__`), `torch/_weights_only_unpickler.py`,
//! `caffe2/serialize/inline_container.cc`; CPython's `pickle.py`. `docs/formats/torch.md` in the repository collects what was observed.
#![cfg_attr(docsrs, feature(doc_auto_cfg))]

mod container;
mod detect;
mod document;
mod export;
mod file;
mod flatten;
mod legacy;
mod listing;
mod numpy;
pub mod pickle;
mod place;
mod rebuild;
pub mod sanitize;
mod single;
mod storage;
mod storage_ids;
mod tar_era;
mod text;
mod trail;
pub mod value;
pub mod weights_only;
mod write;
mod zip;

pub use container::Container;
pub use document::{Document, StorageView, View};
pub use file::{OpenOptions, TensorEntry, TorchFile, Verified};
pub use pickle::{Graph, NodeId, NodeRef};
pub use rebuild::TensorKind;
pub use single::TensorArchives;
pub use value::Value;
pub use write::{WriteOptions, layout_state_dict};
