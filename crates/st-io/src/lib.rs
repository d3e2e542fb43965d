//! Reads and writes safetensors.
mod checkpoint;
mod dcp;
mod directory;
mod file;
mod header;
mod index;
mod json;
mod names;
mod options;
mod packed;
mod sharded;
mod size;
mod slice;
mod split;
mod tiling;
mod write;

#[cfg(feature = "safetensors")]
pub mod bridge;

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
