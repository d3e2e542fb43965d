//! The object of a file, as long as nothing of it was changed.

use std::sync::{Arc, OnceLock};

use super::import::{Import, storage_of};
use super::{Document, Stored};
use crate::file::TorchFile;
use crate::pickle::{Builder, Graph, Kind, NodeRef};
use crate::storage_ids::StorageIds;

/// A file whose graph is that of a document: nothing of it is copied until something is changed,
/// and then all of it, so that every node keeps its id.
pub(super) struct Untouched {
    file: TorchFile,
    ids: StorageIds,
    /// The storages by their numbers, found together when the first is wanted.
    stored: OnceLock<Vec<Stored>>,
}

impl Untouched {
    /// `None` for a file whose persistent ids mean more than storages of their own.
    pub(super) fn of(file: &TorchFile) -> Option<Self> {
        let ids = StorageIds::of(file.graph()).filter(|ids| ids.plain)?;
        Some(Self { file: file.clone(), ids, stored: OnceLock::new() })
    }

    pub(super) fn file(&self) -> &TorchFile {
        &self.file
    }

    pub(super) fn graph(&self) -> &Graph {
        self.file.graph()
    }

    pub(super) fn ids(&self) -> &StorageIds {
        &self.ids
    }

    /// How many storages there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn stored(&self) -> &[Stored] {
        self.stored.get_or_init(|| {
            let mut located = self.file.opened().locate(0);
            let mut location: Arc<str> = "cpu".into();
            let refs = self.ids.refs(self.graph());
            refs.map(|wanted| {
                if *location != *wanted.location {
                    location = (&*wanted.location).into();
                }
                storage_of(&self.file, &wanted, &location, &mut located)
            })
            .collect()
        })
    }

    /// The storage that a node refers to.
    pub(super) fn stored_at(&self, node: NodeRef<'_>) -> Option<(usize, &Stored)> {
        let number = self.ids.number(node)?;
        Some((number, self.stored().get(number)?))
    }

    /// A copy to be changed, in which persistent ids are the numbers of storages.
    fn apart(self) -> (Builder, Vec<Stored>, Import) {
        self.stored();
        let graph = self.file.graph();
        let mut builder = Builder::of(graph);
        let numbers: Vec<_> = (0..self.len() as u64).map(|number| builder.uint(number)).collect();
        for node in graph.nodes().filter(|node| matches!(node.kind(), Kind::PersId(_))) {
            if let Some(number) = self.ids.number(node) {
                builder.set_persistent(node.id(), numbers[number]);
            }
        }
        (builder, self.stored.into_inner().unwrap_or_default(), Import::whole(&self.file))
    }
}

impl Document {
    /// Makes the object the document's own, before something is changed.
    pub(super) fn own(&mut self) {
        self.unchanged = None;
        if let Some(untouched) = self.untouched.take() {
            let (builder, stored, import) = untouched.apart();
            self.builder = builder;
            self.stored = stored;
            self.imports.push(import);
        }
    }
}
