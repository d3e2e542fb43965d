//! The whole object that a sidecar keeps beside the tensors of a checkpoint. Such a checkpoint is
//! read as the torch file that would hold the object, whose storages lie in those tensors.

#[cfg(feature = "distcp")]
use std::collections::HashMap;

use ckptkit_core::{Limits, Result, Section, Tensor};
#[cfg(feature = "distcp")]
use ckptkit_core::{StorageId, TensorInfo};
#[cfg(feature = "distcp")]
use torch_save::TensorEntry;
use torch_save::TorchFile;

use super::torch::{TorchValues, is_lightning, training};
use crate::format::Format;
#[cfg(feature = "distcp")]
use crate::opened::Entry;
use crate::opened::Rule;
use crate::sidecar::{Header, Sidecar};
use crate::training::Training;

/// A sidecar that is one, and its object where the tensors are those that it speaks of.
pub(super) struct Kept {
    pub(super) header: Header,
    pub(super) file: Result<TorchFile>,
}

impl Kept {
    /// Reads no tensor.
    ///
    /// # Errors
    /// Those of [`Sidecar::parse`]; what is wrong with the tensors is an error of the file.
    pub(super) fn read(
        section: &Section,
        tensors: &dyn Fn(&str) -> Option<Tensor>,
        limits: &Limits,
    ) -> Result<Self> {
        let json = section.read(limits.pickle_bytes)?;
        let sidecar = Sidecar::parse(&json, limits).map_err(|e| e.in_file(section.name()))?;
        drop(json);
        let header = sidecar.header().clone();
        let file =
            sidecar.document(tensors).and_then(|document| document.into_file(section.name()));
        Ok(Self { header, file: file.map_err(|e| e.in_file(section.name())) })
    }

    /// The format that the object came from, where its tensors are there.
    pub(super) fn sidecar(&self) -> Option<Format> {
        self.file.is_ok().then(|| self.format().unwrap_or(Format::Torch))
    }

    pub(super) fn writer(&self) -> String {
        self.header.writer.clone()
    }

    pub(super) fn format(&self) -> Option<Format> {
        Format::from_name(&self.header.source_format)
    }

    /// How the weights are found in the object.
    pub(super) fn weights(&self) -> Rule {
        match self.header.weights_key.as_deref() {
            None => Rule::Search { object: false },
            Some("") => Rule::Root,
            Some(key) => Rule::Key(key.to_owned()),
        }
    }

    pub(super) fn training(&self) -> Option<Training> {
        self.file.as_ref().ok().filter(|file| is_lightning(file)).map(training)
    }

    pub(super) fn values(&self) -> Option<TorchValues> {
        self.file.as_ref().ok().map(|file| TorchValues::new(file.clone()))
    }
}

/// The sidecar beside a distributed checkpoint, `tensors` being those of the checkpoint.
///
/// # Errors
/// Why there is one that cannot be used: it is damaged, or the checkpoint is not the one that it
/// was written with.
#[cfg(feature = "distcp")]
pub(super) fn beside<'a>(
    checkpoint: &distcp::DistCheckpoint,
    tensors: impl Iterator<Item = &'a Tensor>,
    limits: &Limits,
) -> Result<Option<Kept>> {
    use crate::sidecar::{FILE_NAME, STORAGES_NAME};

    let Some(section) = checkpoint.beside(FILE_NAME)? else { return Ok(None) };
    let mut found: HashMap<String, Tensor> =
        tensors.map(|tensor| (tensor.name().to_owned(), tensor.clone())).collect();
    if let Some(storages) = checkpoint.beside(STORAGES_NAME)? {
        for tensor in st_io::StFile::from_section_with(storages, limits)?.tensors() {
            let tensor = tensor?;
            found.insert(tensor.name().to_owned(), tensor);
        }
    }
    let kept = Kept::read(&section, &|name| found.get(name).cloned(), limits)?;
    belongs(checkpoint, &kept.header, limits)?;
    if let Err(e) = &kept.file {
        return Err(e.clone());
    }
    Ok(Some(kept))
}

/// Lists tensors that share a storage in the object as the ties and views that they are there. A
/// distributed checkpoint has an entry for each, which `entries` are by the same names.
#[cfg(feature = "distcp")]
pub(super) fn tie(entries: &mut [Entry], file: &TorchFile) {
    let storages = || file.tensors().iter().filter_map(|e| e.tensor().info().storage());
    let mut count: HashMap<StorageId, usize> = HashMap::new();
    for id in storages() {
        *count.entry(id).or_default() += 1;
    }
    for entry in entries {
        let Some(found) = file.entry(entry.tensor.name()).map(TensorEntry::tensor) else {
            continue;
        };
        let shares = found.info().storage().is_some_and(|id| count[&id] > 1);
        let same =
            |a: &TensorInfo, b: &TensorInfo| (a.dtype(), a.shape()) == (b.dtype(), b.shape());
        if shares && same(found.info(), entry.tensor.info()) {
            entry.tensor = found.clone();
        }
    }
}

/// What is said of one that cannot be used.
#[cfg(feature = "distcp")]
pub(super) fn ignored(why: &ckptkit_core::Error) -> String {
    format!("{} is ignored: {why}", crate::sidecar::FILE_NAME)
}

/// Whether a checkpoint is the one that its sidecar was written with.
#[cfg(feature = "distcp")]
fn belongs(checkpoint: &distcp::DistCheckpoint, header: &Header, limits: &Limits) -> Result<()> {
    use ckptkit_core::Error;

    use crate::sidecar::identity;

    if !header.written_with.contains_key(".metadata") {
        return Err(Error::malformed("it was not written beside a distributed checkpoint"));
    }
    for (name, expected) in &header.written_with {
        let content = match name.as_str() {
            "meta.pt" => checkpoint.meta()?.map(|file| file.pickle()).transpose()?.flatten(),
            name => {
                checkpoint.beside(name)?.map(|file| file.read(limits.pickle_bytes)).transpose()?
            }
        };
        if content.is_none_or(|content| identity(&content) != *expected) {
            return Err(Error::malformed(format!(
                "{name} is not the one that it was written with, as after a later save into the \
                 directory"
            )));
        }
    }
    Ok(())
}
