//! Reads `torch.distributed.checkpoint` directories.

mod assemble;
mod item;
mod layout;
mod listing;
mod megatron;
mod metadata;
mod part;
mod read;
mod region;
mod safetensors;
mod storage;
mod transform;
mod tree;
mod variant;
mod verify;

pub use read::{ChunkInfo, DistCheckpoint, OpenOptions};
pub use storage::StorageReader;
pub use verify::Report;
