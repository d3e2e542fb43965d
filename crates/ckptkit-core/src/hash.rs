//! Maps for names and numbers from files: hashed fast, with a seed that is another in every run, so
//! that no file can be made whose names all collide.
//!
//! Listing a checkpoint is mostly looking names up, and with the standard library's hasher most of
//! that is hashing.

pub use foldhash::fast::RandomState;
pub use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
