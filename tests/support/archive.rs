//! Documents as the archives that are written of them.

use std::collections::HashMap;
use std::path::Path;

use ckptkit::core::Layout;
use ckptkit::torch::pickle::{Kind, NodeMap};
use ckptkit::torch::{Document, NodeId, WriteOptions};
use ckptkit::{CopyOptions, Existing};

/// Writes the archive of a document; gives its bytes.
#[must_use]
pub fn archive(document: &Document, at: &Path) -> Vec<u8> {
    let layout = Layout::file(document.layout(&WriteOptions::default()).unwrap());
    layout.write(at, Existing::Replace, &CopyOptions::default()).unwrap();
    std::fs::read(at).unwrap()
}

/// The document in which equal texts, and equal names of classes, are one node, as they are in
/// what a sidecar gives: the only thing that it forgets.
pub fn with_one_node_a_word(document: &mut Document) {
    let source = document.builder().clone();
    let root = source.node(document.root().id());
    let mut words: HashMap<Vec<u8>, NodeId> = HashMap::new();
    let copied = document.builder().import(root, &mut NodeMap::new(), &mut |b, node| {
        if node.muts().next().is_some() {
            return Ok(None);
        }
        Ok(match node.kind() {
            Kind::Str(text) => Some(*words.entry(text.to_vec()).or_insert_with(|| b.wtf8(text))),
            Kind::Global(_) => node.spelled_global().map(|g| b.global(g.module, g.name)),
            _ => None,
        })
    });
    document.set_root(copied.unwrap());
}
