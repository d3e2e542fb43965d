//! The names that tensors get from where they stand in an object.

use std::collections::{HashMap, HashSet};

use ckptkit_core::{Key, unique_names};
use torch_save::Document;
use torch_save::pickle::{Kind, NodeId, NodeRef};

/// Deeper tensors are found by nobody's name.
const MAX_DEPTH: usize = 200;

/// For tensors known by other names the names that a reader of the file will have for them. What
/// stands in an object of a class is not looked for.
pub(super) fn names(document: &Document, nodes: &[(String, NodeId)]) -> HashMap<String, String> {
    let by_node: HashMap<NodeId, &str> =
        nodes.iter().map(|(name, node)| (*node, name.as_str())).collect();
    let mut found: Vec<(&str, Vec<Key>)> = Vec::new();
    walk(document.root(), MAX_DEPTH, &mut |path, node| {
        let name = by_node.get(&node.id());
        found.extend(name.map(|name| (*name, path.to_vec())));
        name.is_some()
    });
    let names = unique_names(found.iter().map(|(_, path)| path.as_slice()));
    let mut out = HashMap::with_capacity(found.len());
    for ((name, _), new) in found.iter().zip(names) {
        out.entry((*name).to_owned()).or_insert_with(|| new.to_string());
    }
    out
}

/// Visits what plain containers hold, below `root` and in its order, each container once; what the
/// visitor takes is not entered.
pub(super) fn walk<'a>(
    root: NodeRef<'a>,
    deepest: usize,
    take: &mut dyn FnMut(&[Key], NodeRef<'a>) -> bool,
) {
    let mut entered = HashSet::new();
    let mut pending = vec![(Vec::new(), root)];
    while let Some((path, node)) = pending.pop() {
        if take(&path, node) {
            continue;
        }
        let plain = is_mapping(node) || matches!(node.kind(), Kind::List | Kind::Tuple(_));
        if !plain || path.len() == deepest || !entered.insert(node.id()) {
            continue;
        }
        let pairs = node.pairs().into_iter().map(|(key, value)| (key.as_key(), value));
        let items = (0..).zip(node.items()).map(|(i, item)| (Key::Index(i), item));
        let from = pending.len();
        for (key, child) in pairs.chain(items) {
            let mut path = path.clone();
            path.push(key);
            pending.push((path, child));
        }
        pending[from..].reverse();
    }
}

pub(super) fn is_mapping(node: NodeRef<'_>) -> bool {
    matches!(node.kind(), Kind::Dict) || node.class().is_some_and(|g| g.module == "collections")
}
