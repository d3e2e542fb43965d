//! An object on its way into a file: made from nothing, or read and changed.

mod constants;
mod import;
mod opened;
mod path;
mod storages;
mod tensors;
mod untouched;
mod value;
mod view;

pub use storages::StorageView;
pub use view::View;

use std::collections::HashMap;
use std::sync::Arc;

use ckptkit_core::{
    Dtype, Error, OutputFile, Result, ResultExt, Section, Segment, Tensor, TensorBytes, TensorInfo,
    Transform,
};

use crate::container::Container;
use crate::file::TorchFile;
use crate::pickle::{self, Builder, Graph, Kind, NodeId, NodeRef, Root, StorageId};
use crate::storage;
use crate::write::{WriteOptions, lay_out};
use crate::zip::layout::NewMember;

use constants::Constants;
use untouched::Untouched;

/// A storage that the object refers to, by its position in the list of them.
#[derive(Clone)]
pub(crate) struct Stored {
    dtype: Option<Dtype>,
    location: Arc<str>,
    /// Elements, or bytes where there is no dtype or it is packed.
    numel: u64,
    body: Result<Body>,
}

#[derive(Clone)]
enum Body {
    /// These bytes, and their CRC-32 where it is known.
    Section(Section, Option<u32>),
    /// The values of tensors, one after the other.
    Tensors(Vec<Tensor>),
}

/// An object as a pickle, and the storages that it numbers, by their positions in the list.
struct Written {
    pickle: Vec<u8>,
    order: Vec<usize>,
}

/// An object graph together with the storages that its tensors lie in, ready to be changed and
/// laid out as a file that torch loads.
///
/// [`TorchFile::edit`] gives the document of a file. What is not touched comes out as it went in:
/// classes nobody here knows, shared objects, the order of keys, views and ties of storages. A
/// document that nothing was changed in keeps the very bytes of the pickle.
///
/// ```
/// use torch_save::{Document, TorchFile, WriteOptions};
/// use ckptkit_core::{CopyOptions, Existing, Layout, TensorSource};
///
/// # fn main() -> ckptkit_core::Result<()> {
/// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
/// # let dir = tempfile::tempdir().unwrap();
/// # let smaller = dir.path().join("smaller.ckpt");
/// let file = TorchFile::open(format!("{fixtures}/lightning/adam.ckpt"))?;
/// let mut document = file.edit()?;
/// document.remove("optimizer_states")?;
/// document.rename("hyper_parameters", "hparams")?;
/// let epoch = document.builder().int(0);
/// document.set("epoch", epoch)?;
/// let layout = Layout::file(document.layout(&WriteOptions::default())?);
/// layout.write(&smaller, Existing::Refuse, &CopyOptions::default())?;
///
/// let smaller = TorchFile::open(&smaller)?;
/// assert_eq!(smaller.lookup("epoch")?.as_int(), Some(0));
/// assert!(smaller.lookup("optimizer_states").is_err());
/// # Ok(())
/// # }
/// ```
pub struct Document {
    builder: Builder,
    /// Nodes of the builder.
    constants: Constants,
    root: NodeId,
    stored: Vec<Stored>,
    imports: Vec<import::Import>,
    /// The file that this is, as long as nothing was changed.
    unchanged: Option<TorchFile>,
    /// The file whose graph this has, with another root at most: then there is nothing in the
    /// builder, no storage and no import.
    untouched: Option<Untouched>,
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let storages = self.untouched.as_ref().map_or(self.stored.len(), Untouched::len);
        write!(f, "Document({:?}, {storages} storages)", self.root())
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

impl Document {
    /// A document whose object is `None`.
    #[must_use]
    pub fn new() -> Self {
        let mut builder = Builder::new();
        let root = builder.none();
        let (stored, imports) = (Vec::new(), Vec::new());
        let constants = Constants::default();
        Self { builder, constants, root, stored, imports, unchanged: None, untouched: None }
    }

    /// Makes and changes nodes. What is made here becomes part of the object when it is put into
    /// it. The first time it is asked for, the document of a file takes a copy of the file's graph.
    pub fn builder(&mut self) -> &mut Builder {
        self.own();
        &mut self.builder
    }

    fn graph(&self) -> &Graph {
        self.untouched.as_ref().map_or_else(|| self.builder.graph(), Untouched::graph)
    }

    /// The object as it stands.
    #[must_use]
    pub fn root(&self) -> NodeRef<'_> {
        self.graph().node(self.root)
    }

    /// Makes `node` the object.
    pub fn set_root(&mut self, node: NodeId) {
        self.unchanged = None;
        self.root = node;
    }

    /// A node, to look at.
    #[must_use]
    pub fn node(&self, id: NodeId) -> NodeRef<'_> {
        self.graph().node(id)
    }

    /// The file as torch lays it out: every byte is decided, none of a tensor is read.
    ///
    /// # Errors
    /// Whatever keeps a storage that the object still refers to from being read, naming it;
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for options that do not fit;
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for an object that is too large for a pickle.
    pub fn layout(&self, options: &WriteOptions) -> Result<OutputFile> {
        match self.copy_layout(options)? {
            Some(layout) => Ok(layout),
            None => self.layout_of(self.root, options),
        }
    }

    /// As [`Document::layout`], for a document that is not needed any more: a large object is gone
    /// before the archive around it is laid out.
    ///
    /// # Errors
    /// As [`Document::layout`].
    pub fn into_layout(mut self, options: &WriteOptions) -> Result<OutputFile> {
        if let Some(layout) = self.copy_layout(options)? {
            return Ok(layout);
        }
        let written = self.write(Root::Node(self.root))?;
        (self.builder, self.imports) = (Builder::new(), Vec::new());
        self.archive(written, options)
    }

    /// The layout of a file that nothing was changed in.
    fn copy_layout(&self, options: &WriteOptions) -> Result<Option<OutputFile>> {
        let Some(file) = &self.unchanged else { return Ok(None) };
        file.copy_layout(self.untouched.as_ref().map(Untouched::ids), options)
    }

    /// As [`Document::layout`], with `node` as the object of the file.
    ///
    /// # Errors
    /// As [`Document::layout`].
    pub fn layout_of(&self, node: NodeId, options: &WriteOptions) -> Result<OutputFile> {
        self.layout_from(Root::Node(node), options)
    }

    /// As [`Document::layout`], with a dict of these keys and values as the object of the file:
    /// a part of an object, without a change to the whole.
    ///
    /// # Errors
    /// As [`Document::layout`].
    pub fn layout_of_pairs(
        &self,
        pairs: &[(NodeId, NodeId)],
        options: &WriteOptions,
    ) -> Result<OutputFile> {
        self.layout_from(Root::Dict(pairs), options)
    }

    fn layout_from(&self, root: Root<'_>, options: &WriteOptions) -> Result<OutputFile> {
        self.archive(self.write(root)?, options)
    }

    fn write(&self, root: Root<'_>) -> Result<Written> {
        self.builder.check()?;
        let mut order: Vec<usize> = Vec::new();
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let graph = self.graph();
        let mut spell = |node| {
            let Some((index, stored)) = self.stored_at(node) else {
                return Err(Error::invalid(
                    "a persistent id is no storage of this document, which torch would not load",
                ));
            };
            let number = *numbers.entry(index).or_insert_with(|| {
                order.push(index);
                order.len() - 1
            });
            Ok(StorageId {
                class: storage::class_of(stored.dtype),
                key: number.to_string(),
                location: &stored.location,
                numel: stored.numel,
            })
        };
        let pickle = pickle::emit(graph, root, Some(&mut spell))?;
        Ok(Written { pickle, order })
    }

    /// The archive of an object that was written, and of its storages.
    fn archive(&self, object: Written, options: &WriteOptions) -> Result<OutputFile> {
        let stored = self.untouched.as_ref().map_or(&self.stored[..], Untouched::stored);
        let count = object.order.len();
        let storages = object.order.into_iter().enumerate().map(|(number, index)| {
            let (body, crc) = stored[index].body()?;
            Ok(NewMember::storage(&number.to_string(), body, crc))
        });
        lay_out(NewMember::bytes("data.pkl", object.pickle)?, storages, count, true, options)
    }

    /// The storage that a persistent id of this document is.
    fn stored_at(&self, node: NodeRef<'_>) -> Option<(usize, &Stored)> {
        if let Some(untouched) = &self.untouched {
            return untouched.stored_at(node);
        }
        let Kind::PersId(id) = node.kind() else { return None };
        let index = usize::try_from(node.other(id).as_u64()?).ok()?;
        Some((index, self.stored.get(index)?))
    }

    /// Adds a storage; gives the node that refers to it.
    fn store(&mut self, stored: Stored) -> NodeId {
        self.own();
        self.stored.push(stored);
        let index = self.builder.uint(self.stored.len() as u64 - 1);
        self.builder.persistent(index)
    }
}

impl Stored {
    fn body(&self) -> Result<(OutputFile, Option<u32>)> {
        let mut file = OutputFile::default();
        let crc = match &self.body {
            Ok(Body::Section(section, crc)) => {
                file.push(Segment::Section(section.clone()))?;
                *crc
            }
            Ok(Body::Tensors(tensors)) => {
                for tensor in tensors {
                    file.push(Segment::Tensor(tensor.clone()))?;
                }
                None
            }
            Err(e) => return Err(e.clone()),
        };
        Ok((file, crc))
    }
}

impl Body {
    /// The bytes of a big-endian storage, turned around.
    fn swapped(section: Section, dtype: Dtype) -> Result<Self> {
        let unit = dtype.element_bytes().unwrap_or(1);
        let info = TensorInfo::new("storage", dtype, [section.len() / unit])?;
        let transform = Transform { swap: true, ..Transform::default() };
        let tensor = Tensor::with_transform(info, TensorBytes::Range(section), transform)?;
        Ok(Self::Tensors(vec![tensor]))
    }
}

impl TorchFile {
    /// The file's object and storages, to be changed and written again. The result is a zip
    /// archive whatever the file's container is. Until something is changed, the document of a zip
    /// archive shares the file's graph, and costs some bytes a storage.
    ///
    /// # Errors
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for TorchScript and torch.export
    /// archives, whose code cannot be written: their tensors can, with
    /// [`layout_state_dict`](crate::layout_state_dict); `Unsupported` too for objects that refer
    /// to what is no storage.
    pub fn edit(&self) -> Result<Document> {
        match self.container() {
            Container::TorchScript | Container::TorchExport => {
                return Err(Error::unsupported(format!(
                    "a {} archive holds a program beside its tensors, which is not written",
                    self.container().name()
                ))
                .in_file(self.section().name())
                .hint("write its tensors as a state dict instead"));
            }
            _ => {}
        }
        let mut document = Document::new();
        document.untouched = Untouched::of(self);
        document.root = match document.untouched {
            Some(_) => self.root().id(),
            None => document.import(self, self.root()).in_file(self.section().name())?,
        };
        document.unchanged = Some(self.clone());
        Ok(document)
    }
}
