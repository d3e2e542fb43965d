//! The safe pickle machine: bytes to an object graph and back. Nothing is imported, resolved or
//! called.

mod bigint;
mod build;
mod emit;
mod graph;
mod machine;
mod node;
mod node_map;
mod opcodes;
mod paged;
mod pickler;
#[cfg(test)]
mod tests;
mod text;

pub use bigint::decimal;
pub(crate) use bigint::from_decimal;
pub use build::Builder;
pub(crate) use emit::{Root, StorageId, emit};
pub use graph::{Global, Graph, Kind, Mut, NodeId};
pub use node::NodeRef;
pub use node_map::NodeMap;
pub use pickler::{Memo, Pickler};
