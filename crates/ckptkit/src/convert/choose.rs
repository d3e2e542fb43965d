//! Which tensors are written, and under what names.

use std::collections::{HashMap, HashSet};

use ckptkit_core::{Error, Result, Tensor, TensorBytes};

use super::job::{Chosen, Job, Object};
use super::report::Kind;
#[cfg(feature = "torch")]
use super::torch;
use crate::select::Glob;
use crate::weights::Weights;

/// Tensors that one error tells how to do without.
const NAMED: usize = 16;

/// The tensors that are wanted; the others go into the report.
pub(super) fn choose(job: &mut Job<'_>, weights: &Weights) -> Result<Vec<Chosen>> {
    let (wish, checkpoint) = (job.wish, job.checkpoint);
    let mut chosen = Vec::with_capacity(weights.tensors.len());
    let mut refused: Vec<(&str, Error)> = Vec::new();
    let mut origin: HashMap<String, &str> = HashMap::new();
    let filled = checkpoint.filled();
    for (tensor, full) in weights.tensors.iter().zip(&weights.full_names) {
        if let Some(why) = wish.selection.leaves_out(tensor.name()) {
            job.left_out(full, Kind::Tensor, why);
            continue;
        }
        let object = match job.object(full) {
            Object::Whole => true,
            Object::Part(whole) if job.takes(weights, &whole) => continue,
            _ => false,
        };
        let wanted = if object {
            match tensor.bytes() {
                TensorBytes::Broken(e) => Err(e.clone()),
                _ => Ok(tensor.clone()),
            }
        } else {
            cast(job, tensor).and_then(|t| writable(job, &t).map(|()| t))
        };
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(e) => {
                refused.push((tensor.name(), e));
                continue;
            }
        };
        let name = wish.selection.renamed(tensor.name());
        if let Some(other) = origin.insert(name.clone(), tensor.name()) {
            return Err(Error::invalid(format!(
                "{other:?} and {:?} would both be called {name:?}",
                tensor.name()
            ))
            .hint("change the renaming, or leave one out with --exclude"));
        }
        if wanted.dtype() != tensor.dtype() {
            let dtypes = [tensor.dtype(), wanted.dtype()].map(|d| d.name().to_owned());
            job.report.cast.insert(name.clone(), dtypes.into());
        }
        if let Some(&elements) = filled.get(&**full) {
            job.report.filled.insert(name.clone(), elements);
        }
        let tensor = if name == tensor.name() {
            wanted
        } else {
            job.report.renamed.insert(tensor.name().to_owned(), name.clone());
            wanted.renamed(name)
        };
        chosen.push(Chosen { tensor, full: full.clone(), object });
    }
    if let Some(error) = all_refused(refused) {
        return Err(error.in_file(checkpoint.path()));
    }
    if chosen.is_empty() && (wish.selection.selects() || !weights.tensors.is_empty()) {
        let names: Vec<&str> = weights.tensors.iter().map(Tensor::name).take(3).collect();
        return Err(Error::invalid("no tensor is selected").in_file(checkpoint.path()).hint(
            format!(
                "the weights have {} tensors with names such as {}",
                weights.tensors.len(),
                names.join(", ")
            ),
        ));
    }
    let taken: HashSet<&str> = weights.full_names.iter().map(|full| &**full).collect();
    for tensor in checkpoint.tensors().filter(|t| !taken.contains(t.name())) {
        job.left_out(tensor.name(), Kind::Tensor, "not one of the model's weights");
    }
    for (full, e) in checkpoint.failures() {
        let name = match &weights.key {
            Some(key) => full.strip_prefix(key.as_str()).and_then(|n| n.strip_prefix('.')),
            None => Some(full.as_str()),
        };
        match name {
            Some(name) if wish.selection.leaves_out(name).is_none() => {
                return Err(e.clone().hint(way_out(&[name])));
            }
            _ => job.left_out(full, Kind::Tensor, e.message()),
        }
    }
    Ok(chosen)
}

/// The tensor as it is written: cast, where that is wished for and it is of floating point.
fn cast(job: &Job<'_>, tensor: &Tensor) -> Result<Tensor> {
    match job.wish.dtype {
        Some(target) if tensor.dtype().is_castable() && tensor.has_bytes() => tensor.cast(target),
        _ => Ok(tensor.clone()),
    }
}

/// Whether the target can hold a tensor.
fn writable(job: &Job<'_>, tensor: &Tensor) -> Result<()> {
    let place = format!("tensor {}", tensor.name());
    match tensor.bytes() {
        TensorBytes::None(why) => {
            let message = format!("there are no bytes to write: {why}");
            return Err(Error::unsupported(message).within(place));
        }
        TensorBytes::Broken(e) => return Err(e.clone().within(place)),
        _ => {}
    }
    if let Some(format) = job.wish.target.lacks(tensor.dtype()) {
        let message = format!("{format} has no dtype {}", tensor.dtype());
        return Err(Error::unsupported(message).within(place));
    }
    tensor.check_expansion(&ckptkit_core::Limits::default())
}

/// How to do without tensors, in words that a shell takes whatever their names have in them.
fn way_out(names: &[&str]) -> String {
    let exclude =
        |name: &&str| format!("--exclude '{}'", Glob::escape(name).replace('\'', "'\\''"));
    let flags: Vec<String> = names.iter().take(NAMED).map(exclude).collect();
    let it = if names.len() == 1 { "it" } else { "them" };
    format!("leave {it} out with {}", flags.join(" "))
}

/// One error for every tensor that the target cannot hold.
fn all_refused(refused: Vec<(&str, Error)>) -> Option<Error> {
    let names: Vec<&str> = refused.iter().map(|(name, _)| *name).collect();
    let (_, first) = refused.into_iter().next()?;
    let error = match names.len() - 1 {
        0 => first,
        1 => Error::new(first.kind(), format!("{first}; {} cannot be written either", names[1])),
        n => {
            Error::new(first.kind(), format!("{first}; {n} more tensors cannot be written either"))
        }
    };
    Some(error.hint(way_out(&names)))
}

impl Job<'_> {
    /// What a tensor is in the torch file that it comes from, for a target that can hold it.
    fn object(&self, full: &str) -> Object {
        #[cfg(feature = "torch")]
        if let (true, Some(file)) = (self.wish.target.holds_objects(), self.checkpoint.torch_file())
        {
            return torch::object(file, full, &self.attributes);
        }
        Object::No
    }

    /// Whether one of the weights, by its full name, is written.
    fn takes(&self, weights: &Weights, full: &str) -> bool {
        let position = weights.full_names.iter().position(|n| **n == *full);
        position
            .is_some_and(|i| self.wish.selection.leaves_out(weights.tensors[i].name()).is_none())
    }
}
