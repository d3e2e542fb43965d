//! Where nodes went.

use super::graph::NodeId;
use super::paged::Paged;

const ABSENT: u32 = u32::MAX;

/// A map from the nodes of one graph to those of another. A graph that goes over whole costs four
/// bytes a node, a few nodes of a large one cost little.
#[derive(Clone, Debug)]
pub struct NodeMap(Paged<u32>);

impl Default for NodeMap {
    fn default() -> Self {
        Self::new()
    }
}

impl NodeMap {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(Paged::new(ABSENT))
    }

    /// Where a node went.
    #[must_use]
    pub fn get(&self, from: NodeId) -> Option<NodeId> {
        Some(self.0.get(from.index())).filter(|to| *to != ABSENT).map(NodeId)
    }

    /// Says where a node went, in place of what was said before.
    pub fn insert(&mut self, from: NodeId, to: NodeId) {
        *self.0.get_mut(from.index()) = to.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many() {
        let mut map = NodeMap::new();
        assert_eq!(map.get(NodeId(0)), None);
        map.insert(NodeId(5_000_000), NodeId(7));
        assert_eq!(map.get(NodeId(5_000_000)), Some(NodeId(7)));
        assert_eq!(map.get(NodeId(5_000_001)), None);
        assert_eq!(map.get(NodeId(u32::MAX - 1)), None);
        for i in (0..3000).rev() {
            map.insert(NodeId(i), NodeId(i + 1));
        }
        map.insert(NodeId(3), NodeId(0));
        assert_eq!([2, 3, 2999].map(|i| map.get(NodeId(i))), [3, 0, 3000].map(|i| Some(NodeId(i))));
    }
}
