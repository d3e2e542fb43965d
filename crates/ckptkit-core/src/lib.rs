//! The vocabulary of ckptkit's checkpoint formats: element types, shapes, windows on bytes, lazy
//! tensors, and the one way bytes are written.
//!
//! A checkpoint is a tree of values whose leaves are tensors, and a tensor is a list of byte ranges
//! in some files. A format crate opens its files as [`Section`]s and describes what it found as
//! [`Tensor`]s, which are addresses: nothing is read until someone asks. A writer turns tensors
//! into a [`Layout`], in which the place of every output byte is known, and the layout writes
//! itself through a bounded buffer, so that it appears whole or not at all.
//!
//! ```
//! use ckptkit_core::{CopyOptions, Dtype, Existing, Layout, OutputFile, Section, Segment, Tensor, TensorBytes, TensorInfo};
//!
//! # fn main() -> ckptkit_core::Result<()> {
//! let storage = Section::from_bytes([1_u8, 2, 3, 4, 5, 6], "memory");
//! let info = TensorInfo::new("weight", Dtype::U8, [2, 2])?;
//! let tensor = Tensor::new(info, TensorBytes::Range(storage.slice(2, 4)?))?;
//! assert_eq!(tensor.read()?, [3, 4, 5, 6]);
//!
//! let mut file = OutputFile::default();
//! file.push(Segment::Literal(b"head".to_vec()))?;
//! file.push(Segment::Tensor(tensor))?;
//! assert_eq!(Layout::file(file).total_bytes(), 8);
//! # Ok(())
//! # }
//! ```
//!
//! # Safety
//! `unsafe` is denied everywhere but in the module behind the feature `mmap`, which maps files on
//! request. Bytes from a file never cause a panic, an endless loop, or an allocation larger than
//! the file justifies; offsets are computed in checked arithmetic, bounds are in [`Limits`].
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "sizes in tests are small"))]

mod atomic;
mod cast;
mod contents;
mod copy;
mod dims;
mod dtype;
mod entry_path;
mod error;
mod file_source;
mod gather;
pub mod hash;
mod layout;
mod limits;
#[cfg(feature = "mmap")]
mod mmap;
mod parts;
mod path;
mod positions;
mod progress;
mod read;
mod read_at;
mod region;
mod section;
mod sequential;
pub mod shape;
mod source;
mod tensor;
mod unwritten;

pub use atomic::{Existing, Output};
pub use copy::CopyOptions;
pub use dtype::{Dtype, DtypeClass};
pub use entry_path::EntryPath;
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use layout::{Checksum, Layout, OutputFile, Segment};
pub use limits::Limits;
pub use parts::Parts;
pub use path::{Key, are_unique, join, joined, unique_names};
pub use positions::Positions;
pub use progress::{CopyReport, Observer, Progress, Unobserved};
pub use read_at::ReadAt;
pub use section::{Section, SectionReader};
pub use sequential::Sequential;
pub use shape::Region;
pub use source::{TensorSource, no_such_tensor};
pub use tensor::{
    Chunk, Deferred, Resolve, StorageId, Strided, Tensor, TensorBytes, TensorInfo, Transform,
};
