//! `.metadata`: the pickle that says where everything is.
//!
//! Source of truth: `torch/distributed/checkpoint/metadata.py` and `filesystem.py` of torch 2.15.
//! Class names and states are those that torch 2.4 and later load: the state of `TensorProperties`
//! has five parts, since the sixth, which torch 2.15 adds, is one that older ones refuse.

use ckptkit_core::hash::{HashMap, HashMapExt};
use ckptkit_core::{Dtype, Error, Key, Result};
use torch_save::NodeId;
use torch_save::pickle::Builder;

use super::Planned;
use super::data::Data;
use super::entry::EntryKind;
use super::split::torch_shape;

const METADATA: &str = "torch.distributed.checkpoint.metadata";
const FILESYSTEM: &str = "torch.distributed.checkpoint.filesystem";

pub(super) fn pickle(planned: &Planned<'_>, data: &Data) -> Result<Vec<u8>> {
    let mut writer = Writer::new();
    let fqns: Vec<NodeId> = planned.names.iter().map(|name| writer.b.str(name)).collect();
    // Chunks of a tensor stand in the order of the ranks that store them.
    let mut stored: Vec<Vec<usize>> = vec![Vec::new(); fqns.len()];
    for item in &data.items {
        stored[item.share.entry].push(item.share.chunk);
    }
    let entries = writer.entries(planned, &fqns, &stored)?;
    let paths = writer.paths(planned, &fqns);
    let storage = writer.storage(planned, data, &fqns);
    let storage_meta = writer.storage_meta();
    let version = writer.b.str("1.0.0");
    let root = writer.object(
        METADATA,
        "Metadata",
        [
            ("state_dict_metadata", entries),
            ("planner_data", paths),
            ("storage_data", storage),
            ("storage_meta", storage_meta),
            ("version", version),
        ],
    );
    writer.b.finish(root)?.to_pickle()
}

/// Makes nodes; what is immutable and occurs often is made once.
struct Writer {
    b: Builder,
    words: HashMap<String, NodeId>,
    /// The words of this file, by where they stand in the program.
    fixed: Vec<(&'static str, NodeId)>,
    /// Likewise the classes.
    classes: Vec<(&'static str, NodeId)>,
    sizes: HashMap<Vec<u64>, NodeId>,
    properties: HashMap<Dtype, NodeId>,
    no_arguments: NodeId,
    none: NodeId,
}

impl Writer {
    fn new() -> Self {
        let mut b = Builder::new();
        let (no_arguments, none) = (b.tuple(&[]), b.none());
        Self {
            b,
            words: HashMap::new(),
            fixed: Vec::new(),
            classes: Vec::new(),
            sizes: HashMap::new(),
            properties: HashMap::new(),
            no_arguments,
            none,
        }
    }

    fn word(&mut self, text: &str) -> NodeId {
        if let Some(&known) = self.words.get(text) {
            return known;
        }
        let node = self.b.str(text);
        self.words.insert(text.to_owned(), node);
        node
    }

    /// A dataclass: made without arguments, its fields set as its state.
    fn object<const N: usize>(
        &mut self,
        module: &'static str,
        class: &'static str,
        fields: [(&'static str, NodeId); N],
    ) -> NodeId {
        let class = known(&self.classes, class).unwrap_or_else(|| {
            let node = self.b.global(module, class);
            self.classes.push((class, node));
            node
        });
        let object = self.b.new_obj(class, self.no_arguments);
        let pairs = fields.map(|(key, value)| (self.fixed(key), value));
        if !pairs.is_empty() {
            let state = self.b.dict();
            self.b.set_items(state, &pairs);
            self.b.build(object, state);
        }
        object
    }

    fn fixed(&mut self, text: &'static str) -> NodeId {
        known(&self.fixed, text).unwrap_or_else(|| {
            let node = self.word(text);
            self.fixed.push((text, node));
            node
        })
    }

    /// `torch.Size`.
    fn size(&mut self, dims: &[u64]) -> NodeId {
        if let Some(&known) = self.sizes.get(dims) {
            return known;
        }
        let parts: Vec<NodeId> = dims.iter().map(|&d| self.b.uint(d)).collect();
        let parts = self.b.tuple(&parts);
        let size = self.b.call("torch", "Size", &[parts]);
        self.sizes.insert(dims.to_vec(), size);
        size
    }

    /// The state of `TensorProperties`: (dtype, layout, `requires_grad`, memory format,
    /// `pin_memory`).
    fn properties(&mut self, dtype: Dtype) -> Result<NodeId> {
        let state = match self.properties.get(&dtype) {
            Some(&known) => known,
            None => {
                let name = dtype
                    .torch_name()
                    .ok_or_else(|| Error::unsupported(format!("torch has no dtype {dtype}")))?;
                let b = &mut self.b;
                let (strided, contiguous) = (b.str("torch.strided"), b.int(0));
                let parts = [
                    b.global("torch", name),
                    b.call("torch.serialization", "_get_layout", &[strided]),
                    b.bool(false),
                    b.call(METADATA, "_MEM_FORMAT_ENCODING", &[contiguous]),
                    b.bool(false),
                ];
                let state = b.tuple(&parts);
                self.properties.insert(dtype, state);
                state
            }
        };
        let class = self.b.global(METADATA, "TensorProperties");
        let properties = self.b.new_obj(class, self.no_arguments);
        self.b.build(properties, state);
        Ok(properties)
    }

    /// `state_dict_metadata`, in the order of the entries: torch makes the state dict again in
    /// this order where nobody gives it one.
    fn entries(
        &mut self,
        planned: &Planned<'_>,
        fqns: &[NodeId],
        stored: &[Vec<usize>],
    ) -> Result<NodeId> {
        let mut pairs = Vec::with_capacity(fqns.len());
        for (i, entry) in planned.entries.iter().enumerate() {
            let value = match entry.kind() {
                EntryKind::Bytes(_) => self.object(METADATA, "BytesStorageMetadata", []),
                EntryKind::Tensor(tensor) => {
                    let properties = self.properties(tensor.dtype())?;
                    let size = self.size(&torch_shape(tensor));
                    let mut chunks = Vec::with_capacity(stored[i].len());
                    for &chunk in &stored[i] {
                        let region = &planned.parts[i].split.chunks[chunk].region;
                        let fields = [
                            ("offsets", self.size(&region.offsets)),
                            ("sizes", self.size(&region.sizes)),
                        ];
                        chunks.push(self.object(METADATA, "ChunkStorageMetadata", fields));
                    }
                    let list = self.b.list();
                    self.b.append(list, &chunks);
                    let fields = [("properties", properties), ("size", size), ("chunks", list)];
                    self.object(METADATA, "TensorStorageMetadata", fields)
                }
            };
            pairs.push((fqns[i], value));
        }
        Ok(self.dict(&pairs))
    }

    /// `planner_data`: the path of every entry.
    fn paths(&mut self, planned: &Planned<'_>, fqns: &[NodeId]) -> NodeId {
        let mut pairs = Vec::with_capacity(fqns.len());
        for (entry, &fqn) in planned.entries.iter().zip(fqns) {
            let parts: Vec<NodeId> = entry
                .path()
                .iter()
                .map(|key| match key {
                    Key::Index(i) => self.b.uint(*i),
                    Key::Str(text) | Key::Other(text) => self.word(text),
                    _ => self.none,
                })
                .collect();
            pairs.push((fqn, self.b.tuple(&parts)));
        }
        self.dict(&pairs)
    }

    /// `storage_data`, in the order in which items lie in the files.
    fn storage(&mut self, planned: &Planned<'_>, data: &Data, fqns: &[NodeId]) -> NodeId {
        let files: Vec<NodeId> = data.files.iter().map(|(name, _)| self.b.str(name)).collect();
        let mut counts = vec![0_u64; fqns.len()];
        let mut pairs = Vec::with_capacity(data.items.len());
        for item in &data.items {
            let entry = item.share.entry;
            let index = match planned.entries[entry].kind() {
                EntryKind::Bytes(_) => {
                    let fields = [("fqn", fqns[entry]), ("index", self.none)];
                    self.object(METADATA, "MetadataIndex", fields)
                }
                EntryKind::Tensor(_) => {
                    let region = &planned.parts[entry].split.chunks[item.share.chunk].region;
                    let offset = self.size(&region.offsets);
                    let index = self.b.uint(counts[entry]);
                    counts[entry] += 1;
                    let fields = [("fqn", fqns[entry]), ("index", index), ("offset", offset)];
                    self.object(METADATA, "MetadataIndex", fields)
                }
            };
            let fields = [
                ("relative_path", files[item.file]),
                ("offset", self.b.uint(item.offset)),
                ("length", self.b.uint(item.length)),
            ];
            pairs.push((index, self.object(FILESYSTEM, "_StorageInfo", fields)));
        }
        self.dict(&pairs)
    }

    fn storage_meta(&mut self) -> NodeId {
        let modules = self.b.list();
        let fields = [
            ("checkpoint_id", self.none),
            ("save_id", self.none),
            ("load_id", self.none),
            ("modules", modules),
        ];
        self.object(METADATA, "StorageMeta", fields)
    }

    fn dict(&mut self, pairs: &[(NodeId, NodeId)]) -> NodeId {
        let dict = self.b.dict();
        self.b.set_items(dict, pairs);
        dict
    }
}

/// The node of the very text, which costs less to find out than what the text is.
fn known(nodes: &[(&'static str, NodeId)], text: &'static str) -> Option<NodeId> {
    nodes.iter().find(|(known, _)| std::ptr::eq(*known, text)).map(|&(_, node)| node)
}
