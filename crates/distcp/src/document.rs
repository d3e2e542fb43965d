//! The object that was saved, ready to be written as one file.

use ckptkit_core::{Error, Result, ResultExt, Tensor, TensorSource};
use torch_save::Document;
use torch_save::pickle::NodeId;

use crate::metadata::{EntryKind, most_positions};
use crate::read::DistCheckpoint;
use crate::slots::{Slot, insert};

/// The object of a distributed checkpoint, and where its tensors are in it.
#[non_exhaustive]
pub struct Whole {
    /// The object.
    pub document: Document,
    /// The node of each tensor of the metadata, by its name. Those inside objects came with them.
    pub tensors: Vec<(String, NodeId)>,
}

impl DistCheckpoint {
    /// The state dict as it was before it was flattened (see [`DistCheckpoint::tree`]), with its
    /// tensors and objects, to be changed and written by `torch_save`: what `dcp_to_torch_save`
    /// makes, in bounded memory. Opens all byte items and no tensor.
    ///
    /// ```
    /// use ckptkit_core::{CopyOptions, Existing, Layout};
    /// use distcp::DistCheckpoint;
    /// use torch_save::{TorchFile, WriteOptions};
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("whole.pt");
    /// let whole = DistCheckpoint::open(format!("{fixtures}/nested"))?.whole()?;
    /// let layout = Layout::file(whole.document.layout(&WriteOptions::new())?);
    /// layout.write(&path, Existing::Refuse, &CopyOptions::default())?;
    /// assert_eq!(TorchFile::open(&path)?.lookup("optim.param_groups.0.lr")?.as_f64(), Some(0.1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`DistCheckpoint::tree`]; whatever keeps an object from being read;
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported), naming it, for an object that was not
    /// written by torch.save and for a tensor that torch cannot hold.
    pub fn whole(&self) -> Result<Whole> {
        let tables = &self.opened.tables;
        let mut document = Document::new();
        let mut root = None;
        let mut padding = most_positions(tables.entries.len());
        let mut tensors: Vec<Tensor> = Vec::new();
        let mut places = Vec::new();
        for (entry, index) in tables.entries.iter().zip(0..) {
            let path = tables.path(entry);
            let within = || format!("entry {}", entry.fqn);
            let node = match &entry.kind {
                EntryKind::Tensor(_) => {
                    let Some(info) = self.listing().info_of(index) else {
                        let why = self.failures().iter().find(|(n, _)| *n == entry.fqn);
                        return Err(why.map_or_else(
                            || Error::malformed("it cannot be read").within(within()),
                            |(_, e)| e.clone(),
                        ));
                    };
                    tensors.push(self.tensor(info.name())?);
                    // All are made together further down, so that their place is kept till then.
                    let place = document.builder().none();
                    places.push(place);
                    place
                }
                EntryKind::Bytes(_) => {
                    let file = self.item(&entry.fqn)?.ok_or_else(|| {
                        Error::unsupported("the object was not written by torch.save")
                            .within(within())
                    })?;
                    document.import(&file, file.root()).within(within)?
                }
                EntryKind::Unknown => continue,
            };
            insert(&mut root, &path, node, &mut padding)
                .within(within)
                .in_file(self.opened.storage.name())?;
        }
        let nodes = document.tensors(&tensors).in_file(self.opened.storage.name())?;
        for (place, node) in places.iter().zip(nodes) {
            document.builder().replace(*place, node);
        }
        let root = match root {
            Some(root) => build(&mut document, root),
            None => document.builder().dict(),
        };
        self.add_sides(&mut document, root)?;
        document.set_root(root);
        let names = tensors.iter().map(|t| t.name().to_owned());
        Ok(Whole { tensors: names.zip(places).collect(), document })
    }

    /// Adds what stands beside the metadata: `meta.pt` at the root, `common.pt` under its key.
    fn add_sides(&self, document: &mut Document, root: NodeId) -> Result<()> {
        if let Some(meta) = self.meta()? {
            let meta = document.import(&meta, meta.root())?;
            let taken: Vec<String> = document
                .node(root)
                .pairs()
                .iter()
                .filter_map(|(k, _)| k.as_str().map(str::to_owned))
                .collect();
            let pairs: Vec<(NodeId, NodeId)> = document
                .node(meta)
                .pairs()
                .iter()
                .filter(|(k, _)| k.as_str().is_none_or(|k| taken.iter().all(|t| t != k)))
                .map(|(k, v)| (k.id(), v.id()))
                .collect();
            document.builder().set_items(root, &pairs);
        }
        if let Some(common) = self.common()? {
            let common = document.import(&common, common.root())?;
            let key = document.builder().str("common");
            document.builder().set_items(root, &[(key, common)]);
        }
        Ok(())
    }
}

/// The containers of the tree; it is as deep as paths may be long.
fn build(document: &mut Document, slot: Slot<NodeId>) -> NodeId {
    match slot {
        Slot::Leaf(node) => node,
        Slot::Map(pairs, _) => {
            let dict = document.builder().dict();
            let pairs: Vec<(NodeId, NodeId)> = pairs
                .into_iter()
                .map(|(key, value)| {
                    let key = document.builder().str(&key);
                    (key, child(document, value))
                })
                .collect();
            document.builder().set_items(dict, &pairs);
            dict
        }
        Slot::List(items) => {
            let list = document.builder().list();
            let items: Vec<NodeId> = items.into_iter().map(|item| child(document, item)).collect();
            document.builder().append(list, &items);
            list
        }
    }
}

fn child(document: &mut Document, slot: Option<Slot<NodeId>>) -> NodeId {
    match slot {
        Some(slot) => build(document, slot),
        None => document.builder().none(),
    }
}
