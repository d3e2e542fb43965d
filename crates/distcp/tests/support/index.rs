//! What a `.metadata` says, as it says it.

use std::collections::BTreeMap;

use ckptkit_core::Limits;
use torch_save::pickle::{Graph, NodeRef};

type Dims = Vec<u64>;

/// The tables of a checkpoint, without the places of bytes in files.
#[derive(Debug, PartialEq, Eq)]
pub struct Index {
    /// Offsets and sizes of the chunks of each tensor, in order; nothing for an object.
    pub chunks: BTreeMap<String, Vec<(Dims, Dims)>>,
    /// The items of each file, in the order in which they lie in it.
    pub files: BTreeMap<String, Vec<(String, Option<Dims>)>>,
    pub paths: BTreeMap<String, Vec<String>>,
}

fn dims(size: NodeRef<'_>) -> Dims {
    let (_, args) = size.call().unwrap();
    args[0].items().iter().map(|d| d.as_u64().unwrap()).collect()
}

fn text(node: NodeRef<'_>) -> String {
    node.as_str().unwrap().to_owned()
}

/// The tables, and the names in the order of `planner_data`, which is that of the state dict.
pub fn index(pickle: Vec<u8>) -> (Index, Vec<String>) {
    let graph = Graph::parse(pickle, &Limits::default()).unwrap();
    let root = graph.root();
    let pairs = |name: &str| root.attribute(name).unwrap().pairs();
    let mut chunks = BTreeMap::new();
    for (fqn, entry) in pairs("state_dict_metadata") {
        let boxes = entry.attribute("chunks").map(|list| list.items()).unwrap_or_default();
        let boxes = boxes.iter().map(|chunk| {
            let part = |name| dims(chunk.attribute(name).unwrap());
            (part("offsets"), part("sizes"))
        });
        chunks.insert(text(fqn), boxes.collect::<Vec<_>>());
    }
    let mut places: BTreeMap<String, BTreeMap<u64, (String, Option<Dims>)>> = BTreeMap::new();
    for (at, place) in pairs("storage_data") {
        let fqn = text(at.attribute("fqn").unwrap());
        let offset = at.attribute("offset").map(dims);
        if let Some(offset) = &offset {
            let hint = at.attribute("index").unwrap().as_u64().unwrap();
            assert_eq!(&chunks[&fqn][usize::try_from(hint).unwrap()].0, offset, "{fqn}");
        }
        let file = text(place.attribute("relative_path").unwrap());
        let start = place.attribute("offset").unwrap().as_u64().unwrap();
        assert!(places.entry(file).or_default().insert(start, (fqn, offset)).is_none());
    }
    let files = places.into_iter().map(|(file, items)| (file, items.into_values().collect()));
    let mut order = Vec::new();
    let mut paths = BTreeMap::new();
    for (fqn, path) in pairs("planner_data") {
        let parts = path.items();
        let parts = parts
            .iter()
            .map(|p| p.as_str().map_or_else(|| format!("{:?}", p.as_int()), str::to_owned));
        order.push(text(fqn));
        paths.insert(text(fqn), parts.collect());
    }
    (Index { chunks, files: files.collect(), paths }, order)
}
