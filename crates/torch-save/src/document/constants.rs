//! What the calls of all tensors have in common, as one node each: a million tensors take half as
//! many nodes.

use std::collections::HashMap;

use crate::pickle::{Builder, NodeId};

/// Sizes and offsets of so many elements are hardly met twice.
const LARGE: u64 = 1 << 16;

/// Nodes of a builder that nothing happens to, and that pickles spell wherever they are met.
#[derive(Default)]
pub(super) struct Constants {
    numbers: HashMap<u64, NodeId>,
    no: Option<NodeId>,
    yes: Option<NodeId>,
    nothing: Option<NodeId>,
}

impl Constants {
    pub(super) fn number(&mut self, b: &mut Builder, n: u64) -> NodeId {
        if n >= LARGE {
            return b.uint(n);
        }
        *self.numbers.entry(n).or_insert_with(|| b.uint(n))
    }

    pub(super) fn bool(&mut self, b: &mut Builder, value: bool) -> NodeId {
        let slot = if value { &mut self.yes } else { &mut self.no };
        *slot.get_or_insert_with(|| b.bool(value))
    }

    /// A new `OrderedDict`.
    pub(super) fn ordered_dict(&mut self, b: &mut Builder) -> NodeId {
        let class = b.global("collections", "OrderedDict");
        let nothing = *self.nothing.get_or_insert_with(|| b.tuple(&[]));
        b.reduce(class, nothing)
    }
}
