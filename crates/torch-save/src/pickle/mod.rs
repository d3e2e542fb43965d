//! The safe pickle machine: bytes to an object graph. Nothing is imported, resolved or called.

mod bigint;
mod graph;
mod machine;
mod node;
#[cfg(test)]
mod tests;
mod text;

pub use bigint::decimal;
pub use graph::{Global, Graph, Kind, Mut, NodeId};
pub use node::NodeRef;
