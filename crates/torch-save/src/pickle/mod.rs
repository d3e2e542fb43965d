//! The safe pickle machine: bytes to an object graph. Nothing is imported, resolved or called.

mod bigint;
mod graph;
mod machine;
mod text;

pub use bigint::decimal;
pub use graph::{Global, Graph, Kind, Mut, NodeId, NodeRef};
