//! Reads what torch.save has written, in every form, without Python and without running code.

mod container;
mod detect;
mod export;
mod file;
mod flatten;
mod legacy;
mod numpy;
pub mod pickle;
mod place;
mod rebuild;
mod storage;
mod tar_era;
mod text;
pub mod value;
mod zip;

pub use container::Container;
pub use file::{OpenOptions, TensorEntry, TorchFile, Verified};
pub use pickle::{Graph, NodeId, NodeRef};
pub use rebuild::TensorKind;
pub use value::Value;
