//! Objects of other files.

use std::collections::HashMap;
use std::sync::Arc;

use ckptkit_core::{Error, Result, ResultExt};

use super::{Body, Document, Stored};
use crate::container::{Container, Located};
use crate::file::TorchFile;
use crate::pickle::{Builder, Kind, NodeId, NodeMap, NodeRef};
use crate::storage::{self, StorageRef};

/// A file that objects were taken from, and what became of them.
pub(super) struct Import {
    file: TorchFile,
    /// All of its nodes are here, under their own ids.
    whole: bool,
    /// Where its nodes went.
    nodes: NodeMap,
    /// The nodes that refer to its storages.
    storages: HashMap<String, NodeId>,
    /// Persistent ids of parts of storages, as old streams have them: where the part starts, in
    /// elements.
    views: HashMap<NodeId, u64>,
    /// Where the archive's members lie, found together.
    located: Located,
    /// Where its storages lived, mostly all in one place.
    location: Arc<str>,
}

impl Document {
    /// Takes an object of a file, `node` of its graph, with the storages that it refers to; gives
    /// the node that it is here. What objects share that are taken from one file, storages
    /// included, they share here.
    ///
    /// # Errors
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for objects that refer to what is
    /// neither a storage nor a class.
    pub fn import(&mut self, file: &TorchFile, node: NodeRef<'_>) -> Result<NodeId> {
        if let Some(there) = self.same(file, node.id()) {
            return Ok(there);
        }
        self.own();
        let at = match self.imports.iter().position(|i| i.file.is(file)) {
            Some(at) => at,
            None => {
                let import = self.start(file)?;
                self.imports.push(import);
                self.imports.len() - 1
            }
        };
        let mut import = self.imports.swap_remove(at);
        let Import { nodes, storages, views, located, location, .. } = &mut import;
        let stored = &mut self.stored;
        let taken = self.builder.import(node, nodes, &mut |builder, node| {
            let Kind::PersId(id) = node.kind() else { return Ok(None) };
            let id = node.other(id);
            if let Some(class) = module_class(id) {
                return Ok(Some(builder.global(class.module, class.name)));
            }
            let wanted = storage::parse(id).unwrap_or_else(|| {
                Err(Error::unsupported(format!(
                    "a persistent id is neither a storage nor a class: {}",
                    crate::text::repr(id)
                )))
            })?;
            if let Some((start, _)) = wanted.view {
                views.insert(node.id(), start);
            }
            if let Some(&there) = storages.get(&*wanted.key) {
                return Ok(Some(there));
            }
            let index = builder.uint(stored.len() as u64);
            let there = builder.persistent(index);
            storages.insert(wanted.key.clone().into_owned(), there);
            if **location != *wanted.location {
                *location = (&*wanted.location).into();
            }
            stored.push(storage_of(file, &wanted, location, located));
            Ok(Some(there))
        });
        let patched = taken.inspect(|_| {
            shift_views(&mut self.builder, node, nodes, views);
        });
        self.imports.push(import);
        patched
    }

    /// Where a node of a file's graph went that this document was made from, or took objects from.
    #[must_use]
    pub fn imported(&self, file: &TorchFile, node: NodeId) -> Option<NodeId> {
        let found = || self.imports.iter().find(|i| i.file.is(file))?.nodes.get(node);
        self.same(file, node).or_else(found)
    }

    /// The node itself, where the document has the file's whole graph.
    fn same(&self, file: &TorchFile, node: NodeId) -> Option<NodeId> {
        let untouched = self.untouched.as_ref().is_some_and(|u| u.file().is(file));
        let whole = untouched || self.imports.iter().any(|i| i.whole && i.file.is(file));
        (whole && node.index() < file.graph().len()).then_some(node)
    }

    fn start(&mut self, file: &TorchFile) -> Result<Import> {
        let mut import = Import::new(file);
        if file.container() == Container::TarEra {
            // Tensors are no calls there: each persistent id stands for a whole one.
            let entries: Vec<_> =
                file.tensors().iter().filter(|e| e.tensor().has_bytes()).collect();
            let tensors: Vec<_> = entries.iter().map(|e| e.tensor().clone()).collect();
            for (entry, node) in entries.iter().zip(self.tensors(&tensors)?) {
                if matches!(file.graph().node(entry.node()).kind(), Kind::PersId(_)) {
                    import.nodes.insert(entry.node(), node);
                }
            }
            return Ok(import);
        }
        import.located = file.opened().locate(0);
        Ok(import)
    }
}

impl Import {
    fn new(file: &TorchFile) -> Self {
        Self {
            file: file.clone(),
            whole: false,
            nodes: NodeMap::new(),
            storages: HashMap::new(),
            views: HashMap::new(),
            located: Located::default(),
            location: "cpu".into(),
        }
    }

    /// Of a file whose graph the document has a copy of.
    pub(super) fn whole(file: &TorchFile) -> Self {
        Self { whole: true, ..Self::new(file) }
    }
}

pub(super) fn storage_of(
    file: &TorchFile,
    wanted: &StorageRef<'_>,
    location: &Arc<str>,
    located: &mut Located,
) -> Stored {
    if let Some(stored) = file.opened().stored(&wanted.key) {
        return stored.clone();
    }
    let find = || {
        let opened = file.opened();
        let section = opened.storage(0, &wanted.key, located)?;
        if wanted.byte_len() != Some(section.len()) {
            return Err(Error::malformed(format!(
                "{} bytes are stored, the tensor says {} elements of {} bytes",
                section.len(),
                wanted.numel,
                wanted.unit_bytes()
            ))
            .hint("the file is damaged, or was made to mislead torch"));
        }
        match wanted.dtype {
            Some(dtype) if opened.big_endian => Body::swapped(section, dtype),
            _ => Ok(Body::Section(section, opened.crc(0, &wanted.key))),
        }
    };
    let mut find = find;
    let body = find()
        .within(|| format!("storage {}", wanted.key))
        .map_err(|e| e.in_file(file.section().name()));
    let location = Arc::clone(location);
    Stored { dtype: wanted.dtype, location, numel: wanted.numel, body }
}

/// `('module', class, source file, source)`: old streams keep the source of pickled modules.
fn module_class(id: NodeRef<'_>) -> Option<crate::pickle::Global<'_>> {
    let fields: Vec<_> = id.iter_items().take(2).collect();
    match fields[..] {
        [tag, class] if tag.as_str() == Some("module") => class.as_global(),
        _ => None,
    }
}

/// Makes the tensors of parts of storages count from the start of the whole.
fn shift_views(
    builder: &mut Builder,
    root: NodeRef<'_>,
    nodes: &NodeMap,
    views: &mut HashMap<NodeId, u64>,
) {
    if views.is_empty() {
        return;
    }
    for node in root.graph().nodes() {
        let Kind::Tuple(&[storage, offset, ..]) = node.kind() else { continue };
        let (Some(&start), Some(offset), Some(tuple)) =
            (views.get(&storage), node.other(offset).as_u64(), nodes.get(node.id()))
        else {
            continue;
        };
        let offset = builder.uint(offset.saturating_add(start));
        builder.replace_part(tuple, 1, offset);
    }
    views.clear();
}
