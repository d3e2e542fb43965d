//! A distributed checkpoint in the folder `model_weights/`, read where it lies.

use std::collections::HashMap;

use ckptkit_core::{EntryPath, Error, Result, ResultExt, Section, TensorSource};
use distcp::{DistCheckpoint, StorageReader};

use super::Weights;
use super::layout::FOLDER;
use crate::entry::Entry;
use crate::index::Index;

/// The members of the folder, by their names in it.
struct Members {
    files: HashMap<String, Entry>,
    name: String,
}

impl StorageReader for Members {
    fn open(&self, relative: &str) -> Result<Section> {
        let path = EntryPath::new(relative)?;
        let entry = self.files.get(path.as_str()).ok_or_else(|| {
            Error::not_found("there is no such member")
                .within(format_args!("member {FOLDER}{path}"))
                .in_file(&self.name)
        })?;
        entry.section()
    }

    fn list(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self.files.keys().cloned().collect();
        names.sort();
        Ok(names)
    }
}

pub(super) fn load(weights: &mut Weights, index: &Index) -> Result<()> {
    let files: HashMap<String, Entry> = index
        .files()
        .filter_map(|e| Some((e.path().as_str().strip_prefix(FOLDER)?.to_owned(), e.clone())))
        .collect();
    if files.keys().any(|name| name.ends_with("/.zarray")) {
        return Err(Error::unsupported("the weights are a zarr checkpoint, one array a tensor")
            .within("member model_weights")
            .hint("convert it with NeMo to the torch_dist backend"));
    }
    let members = Members { files, name: index.name.clone() };
    let checkpoint =
        DistCheckpoint::with_storage(Box::new(members)).within(|| "member model_weights")?;
    let names: Vec<String> = checkpoint.infos().map(|i| i.name().to_owned()).collect();
    for name in names {
        weights.tensors.push(checkpoint.tensor(&name)?);
    }
    weights.notes.extend(checkpoint.notes().iter().cloned());
    Ok(())
}
