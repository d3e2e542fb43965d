//! A document as the file that it would be.

use std::collections::BTreeMap;

use ckptkit_core::{Result, Section};

use super::{Body, Document, Stored, storages};
use crate::container::Opened;
use crate::file::TorchFile;
use crate::pickle::Kind;
use crate::storage;

impl Document {
    /// The file that the document would be, without writing it: its values and tensors are looked
    /// up in the same way, and its nodes are those of the document. `name` is what messages call
    /// it. Reads nothing.
    ///
    /// ```
    /// use torch_save::{Document, TorchFile};
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
    /// let file = TorchFile::open(format!("{fixtures}/lightning/adam.ckpt"))?;
    /// let mut document = file.edit()?;
    /// let epoch = document.builder().int(7);
    /// document.set("epoch", epoch)?;
    /// let changed = document.into_file("changed")?;
    /// assert_eq!(changed.lookup("epoch")?.as_int(), Some(7));
    /// assert_eq!(changed.tensors().len(), file.tensors().len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) for an object that is too large.
    pub fn into_file(mut self, name: &str) -> Result<TorchFile> {
        self.own();
        let Self { mut builder, root, stored, .. } = self;
        // The nodes that say which storage is meant, each once.
        let mut places = BTreeMap::new();
        for node in builder.graph().nodes() {
            let Kind::PersId(id) = node.kind() else { continue };
            let index = node.other(id).as_u64().and_then(|index| usize::try_from(index).ok());
            places.extend(index.filter(|index| *index < stored.len()).map(|index| (id, index)));
        }
        for (place, index) in places {
            let Stored { dtype, location, numel, .. } = &stored[index];
            let (module, class) = storage::class_of(*dtype);
            let parts = [
                builder.str("storage"),
                builder.global(module, class),
                builder.str(&index.to_string()),
                builder.str(location),
                builder.uint(*numel),
            ];
            let id = builder.tuple(&parts);
            builder.replace(place, id);
        }
        let graph = builder.finish(root)?;
        let keys = (0..stored.len()).map(|index| index.to_string());
        let section = Section::from_bytes([], name);
        let opened = Opened::of_document(graph, keys.zip(stored).collect(), &section);
        TorchFile::of(opened, &section)
    }
}

impl Stored {
    /// Its bytes.
    pub(crate) fn section(&self) -> Result<Section> {
        match &self.body {
            Ok(Body::Section(section, _)) => Ok(section.clone()),
            Ok(Body::Tensors(tensors)) => storages::joined(tensors),
            Err(e) => Err(e.clone()),
        }
    }
}
