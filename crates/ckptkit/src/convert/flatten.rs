//! A tree of values as the entries of a flat state dict, as torch flattens it.
//!
//! Source of truth: `torch/distributed/checkpoint/_traverse.py` and `_nested_dict.py` of torch 2.15
//! (the same since 2.4): mappings are entered, keys through `str()`; a list is entered where it holds
//! a tensor or a mapping at some depth of lists; everything else is an object of its own.

use std::collections::HashMap;

use ckptkit_core::{Error, Key, Result, Tensor, join};
use distcp::Entry;
use torch_save::pickle::{Kind, NodeId, NodeRef};
use torch_save::{Document, WriteOptions};

/// Deeper paths are written by nobody: what is below is an object.
const MAX_DEPTH: usize = 200;
/// Entries beside some times the nodes of the graph: containers can be shared by many.
const FREE_ENTRIES: usize = 1_000_000;

/// Flattens a document. Tensors are known by their nodes.
pub(super) struct Flattener<'a> {
    pub(super) document: &'a Document,
    pub(super) tensors: HashMap<NodeId, Tensor>,
    /// Nodes that others stand for.
    pub(super) instead: HashMap<NodeId, NodeId>,
    pub(super) options: &'a WriteOptions,
    pub(super) entries: Vec<Entry>,
    pub(super) entered: Entered,
    budget: usize,
}

/// What the entries are of the object.
#[derive(Default)]
pub(super) struct Entered {
    /// Names and nodes of tensors.
    pub(super) tensors: Vec<(String, NodeId)>,
    /// Names of objects.
    pub(super) objects: Vec<String>,
}

impl<'a> Flattener<'a> {
    pub(super) fn new(
        document: &'a Document,
        tensors: HashMap<NodeId, Tensor>,
        options: &'a WriteOptions,
    ) -> Self {
        let budget = FREE_ENTRIES + 4 * tensors.len();
        let (instead, entries, entered) = (HashMap::new(), Vec::new(), Entered::default());
        Self { document, tensors, instead, options, entries, entered, budget }
    }

    /// Adds what stands at `node` under a path.
    pub(super) fn add(&mut self, path: &mut Vec<Key>, node: NodeId) -> Result<()> {
        let node = self.instead.get(&node).copied().unwrap_or(node);
        let at = self.document.node(node);
        if let Some(tensor) = self.tensors.get(&node) {
            self.entries.push(Entry::tensor(path.clone(), tensor.clone()));
            self.entered.tensors.push((join(path), node));
            return self.spend();
        }
        if path.len() < MAX_DEPTH && is_mapping(at) {
            for (key, value) in at.pairs() {
                let key = match key.as_key() {
                    Key::Index(i) => Key::Str(i.to_string().into()),
                    Key::Other(text) => Key::Str(text),
                    key => key,
                };
                path.push(key);
                self.add(path, value.id())?;
                path.pop();
            }
            return self.spend();
        }
        if path.len() < MAX_DEPTH && self.is_entered(at, 0) {
            for (i, item) in (0..).zip(at.items()) {
                path.push(Key::Index(i));
                self.add(path, item.id())?;
                path.pop();
            }
            return self.spend();
        }
        let archive = self.document.layout_of(node, self.options)?;
        self.entries.push(Entry::bytes(path.clone(), archive));
        self.entered.objects.push(join(path));
        self.spend()
    }

    fn spend(&mut self) -> Result<()> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            Error::limit("its containers share so much that flattening it would not end")
                .hint("write it as a torch file instead")
        })?;
        Ok(())
    }

    /// Whether a list holds a tensor or a mapping, at some depth of lists.
    fn is_entered(&self, node: NodeRef<'_>, depth: usize) -> bool {
        matches!(node.kind(), Kind::List)
            && depth < MAX_DEPTH
            && node.iter_items().any(|item| {
                self.tensors.contains_key(&item.id())
                    || is_mapping(item)
                    || self.is_entered(item, depth + 1)
            })
    }
}

/// Whether Python would call it a mapping, as far as its class is known.
fn is_mapping(node: NodeRef<'_>) -> bool {
    const MAPPINGS: [&str; 3] = ["OrderedDict", "defaultdict", "Counter"];
    matches!(node.kind(), Kind::Dict)
        || node.class().is_some_and(|g| g.module == "collections" && MAPPINGS.contains(&g.name))
}
