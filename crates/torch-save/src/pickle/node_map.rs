//! Where nodes went.

use super::graph::NodeId;

/// Entries that are kept together.
const PAGE: usize = 1024;
const ABSENT: u32 = u32::MAX;

/// A map from the nodes of one graph to those of another. A graph that goes over whole costs four
/// bytes a node, a few nodes of a large one cost little.
#[derive(Clone, Debug, Default)]
pub struct NodeMap {
    pages: Vec<Option<Box<[u32; PAGE]>>>,
}

impl NodeMap {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a node went.
    #[must_use]
    pub fn get(&self, from: NodeId) -> Option<NodeId> {
        let page = self.pages.get(from.index() / PAGE)?.as_ref()?;
        Some(page[from.index() % PAGE]).filter(|to| *to != ABSENT).map(NodeId)
    }

    /// Says where a node went, in place of what was said before.
    pub fn insert(&mut self, from: NodeId, to: NodeId) {
        let at = from.index() / PAGE;
        if self.pages.len() <= at {
            self.pages.resize(at + 1, None);
        }
        let page = self.pages[at].get_or_insert_with(|| Box::new([ABSENT; PAGE]));
        page[from.index() % PAGE] = to.0;
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
        assert_eq!([2, 3].map(|i| map.get(NodeId(i))), [3, 0].map(|i| Some(NodeId(i))));
    }
}
