//! A distributed checkpoint in the folder `model_weights/`, read where it lies.

use std::collections::HashMap;

use ckptkit_core::{EntryPath, Error, Result, ResultExt, Section, TensorSource};
use distcp::StorageReader;

use super::Weights;
use super::layout::FOLDER;
use crate::entry::Entry;
use crate::index::Index;
use crate::options::OpenOptions;

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

    fn size(&self, relative: &str) -> Result<Option<u64>> {
        let path = EntryPath::new(relative)?;
        Ok(self.files.get(path.as_str()).map(Entry::size))
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

pub(super) fn load(weights: &mut Weights, index: &Index, options: &OpenOptions) -> Result<()> {
    let files: HashMap<String, Entry> = index
        .files()
        .filter_map(|e| Some((e.path().as_str().strip_prefix(FOLDER)?.to_owned(), e.clone())))
        .collect();
    if files.keys().any(|name| name.ends_with(".zarray")) {
        return Err(Error::unsupported("the weights are a zarr checkpoint, one array a tensor")
            .within("member model_weights")
            .hint("save the model again with NeMo's torch_dist backend"));
    }
    let members = Members { files, name: index.name.clone() };
    let checkpoint = distcp::OpenOptions::default()
        .limits(options.torch_limits.clone())
        .allow_partial(options.allow_partial)
        .with_storage(Box::new(members))
        .within(|| "member model_weights")?;
    for info in checkpoint.infos() {
        weights.tensors.push(checkpoint.tensor(info.name())?);
    }
    for (name, error) in checkpoint.failures() {
        weights.fail(name.clone(), error.clone());
    }
    let notes = checkpoint.notes();
    weights.notes.extend(notes.into_iter().map(|n| format!("member model_weights: {n}")));
    weights.distributed = Some(checkpoint);
    Ok(())
}
