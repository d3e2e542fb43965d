//! Reads `torch.distributed.checkpoint` directories.

mod assemble;
mod handles;
mod item;
mod layout;
mod listing;
mod megatron;
mod metadata;
mod open;
mod part;
mod read;
mod region;
mod safetensors;
mod storage;
mod transform;
mod tree;
mod variant;
mod verify;

pub use open::OpenOptions;
pub use read::{ChunkInfo, DistCheckpoint};
pub use storage::StorageReader;
pub use verify::Report;
