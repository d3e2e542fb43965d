//! All storages that a pickle refers to, each once.

use std::hash::BuildHasher;

use ckptkit_core::Positions;
use ckptkit_core::hash::RandomState;

use crate::pickle::{Graph, Kind, NodeId, NodeRef};
use crate::storage::{self, StorageRef};

/// The storages of a graph by their keys, numbered in the order in which the pickle names them
/// first: four bytes each and a table of positions, since the graph says everything else.
#[derive(Clone)]
pub(crate) struct StorageIds {
    /// The persistent id that names each first.
    first: Vec<NodeId>,
    positions: Positions,
    hasher: RandomState,
    /// Whether every persistent id is a tuple that nothing happened to, nor to what it stands for.
    pub(crate) plain: bool,
}

impl StorageIds {
    /// `None` for a graph with a persistent id that is no whole storage, or is spelled as text.
    pub(crate) fn of(graph: &Graph) -> Option<Self> {
        let persistent = || graph.nodes().filter(|node| matches!(node.kind(), Kind::PersId(_)));
        let mut ids = Self {
            first: Vec::new(),
            positions: Positions::with_capacity(persistent().count()),
            hasher: RandomState::default(),
            plain: true,
        };
        for node in persistent() {
            let Kind::PersId(id) = node.kind() else { continue };
            let id = graph.node(id);
            let wanted = storage::parse(id)?.ok()?;
            if wanted.view.is_some() || matches!(id.kind(), Kind::Str(_)) {
                return None;
            }
            ids.plain &= node.muts().next().is_none() && id.plain_tuple().is_some();
            let next = u32::try_from(ids.first.len()).ok()?;
            let first = &ids.first;
            let same = |i: u32| key(graph, first[i as usize]).is_some_and(|k| k == wanted.key);
            if ids.positions.insert(ids.hasher.hash_one(&*wanted.key), next, same).is_none() {
                ids.first.push(id.id());
            }
        }
        ids.first.shrink_to_fit();
        Some(ids)
    }

    /// How many storages there are.
    pub(crate) fn len(&self) -> usize {
        self.first.len()
    }

    /// What is said of each where it is named first, in order.
    pub(crate) fn refs<'a>(&'a self, graph: &'a Graph) -> impl Iterator<Item = StorageRef<'a>> {
        self.first.iter().filter_map(|id| storage::parse(graph.node(*id))?.ok())
    }

    /// The number of the storage that a node of the graph refers to.
    pub(crate) fn number(&self, node: NodeRef<'_>) -> Option<usize> {
        let Kind::PersId(id) = node.kind() else { return None };
        let wanted = storage::parse(node.other(id))?.ok()?;
        let hash = self.hasher.hash_one(&*wanted.key);
        let same =
            |i: u32| key(node.graph(), self.first[i as usize]).is_some_and(|k| k == wanted.key);
        self.positions.find(hash, same).map(|i| i as usize)
    }
}

fn key(graph: &Graph, id: NodeId) -> Option<std::borrow::Cow<'_, str>> {
    Some(storage::parse(graph.node(id))?.ok()?.key)
}
