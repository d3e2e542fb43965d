//! The states of optimizers by the names of their parameters.
//!
//! Source of truth: what `get_optimizer_state_dict` of `torch/distributed/checkpoint/state_dict.py`
//! gives and `set_optimizer_state_dict` takes (torch 2.15), which is what Lightning's
//! `ModelParallelStrategy` saves and loads under `optimizer_N`: `state` keyed by the names that
//! `named_parameters()` has, and the same names as `params` of the groups. Everything else of a
//! group stays, `param_names` among it.

mod file;
mod find;
mod rename;

use std::collections::{HashMap, HashSet};

use ckptkit_core::{Error, ErrorKind, Result, Tensor};
use lightning_ckpt::optimizer::{NameSource, OptimizerView, ParameterNames, views};
use torch_save::Document;
use torch_save::pickle::{NodeId, NodeRef};

use super::job::Job;
use super::target::Target;
use super::wish::Convert;
use crate::checkpoint::Checkpoint;
use crate::format::Format;
use file::Given;

/// Parameters that a note tells of.
const TOLD: usize = 3;

/// The tensors of the object that is converted, by their nodes.
pub(super) type Tensors = HashMap<NodeId, Tensor>;

/// An optimizer of the object.
struct Optimizer {
    node: NodeId,
    view: OptimizerView,
}

/// Refuses names and wishes for names where nothing would take them.
pub(super) fn check(wish: &Convert, whole: bool, checkpoint: &Checkpoint) -> Result<()> {
    let sharded = wish.target == Target::Distcp;
    let directory = wish.target == Target::SafetensorsDirectory;
    if wish.optimizer_names && !(whole && (directory || sharded)) {
        return Err(Error::invalid(
            "the states of optimizers get names where the whole of a checkpoint goes to a directory",
        )
        .hint("give the name of a directory and --all, or leave out --optimizer-names"));
    }
    if wish.param_names.is_none() {
        return Ok(());
    }
    if !whole || !(sharded || wish.optimizer_names) {
        return Err(Error::invalid("this conversion names no parameters of optimizers").hint(
            "leave out --param-names; --all --to distcp takes names, and --all --optimizer-names",
        ));
    }
    // It is cut anew without looking at what its names mean.
    if sharded && checkpoint.format() == Format::Distcp {
        return Err(Error::invalid("a distributed checkpoint keeps the names that it has")
            .hint("leave out --param-names, or write a .ckpt and name its parameters"));
    }
    Ok(())
}

/// What stands for the optimizers with numbers when the object is flattened: nodes by those that
/// they replace. The object itself stays what it is.
pub(super) fn by_name(
    job: &mut Job<'_>,
    document: &mut Document,
    tensors: &Tensors,
) -> Result<HashMap<NodeId, NodeId>> {
    let mut instead = HashMap::new();
    for optimizer in read(job, document, tensors)? {
        if !optimizer.view.is_named() || !rename::has_numbers(document.node(optimizer.node)) {
            continue;
        }
        let new = rename::renamed(document, optimizer.node, &optimizer.view);
        instead.insert(optimizer.node, new);
    }
    Ok(instead)
}

/// New names for the tensors of the states: `optimizer.exp_avg.encoder.weight`, and for further
/// optimizers `optimizer_1.…`, by the names that they have.
pub(super) fn tensor_names(
    job: &mut Job<'_>,
    document: &Document,
    tensors: &Tensors,
) -> Result<HashMap<String, String>> {
    let mut names = HashMap::new();
    for (i, optimizer) in read(job, document, tensors)?.into_iter().enumerate() {
        if !optimizer.view.is_named() {
            continue;
        }
        let prefix = if i == 0 { "optimizer".to_owned() } else { format!("optimizer_{i}") };
        let renamed = optimizer.view.renamed(&prefix).filter(|(tensor, new)| tensor.name != *new);
        names.extend(renamed.map(|(tensor, new)| (tensor.name.clone(), new)));
    }
    let all = job.checkpoint.tensors_of_whole();
    let all: Vec<&str> = all.iter().map(Tensor::name).collect();
    let mut taken: HashSet<&str> =
        all.iter().copied().filter(|name| !names.contains_key(*name)).collect();
    for old in all {
        if let Some(new) = names.get(old) {
            if !taken.insert(new) {
                return Err(Error::invalid(format!(
                    "tensor {old:?} would be called {new:?}, and so is another one"
                ))
                .hint("leave out --optimizer-names"));
            }
        }
    }
    Ok(names)
}

/// The optimizers, named as far as can be; the report says of which the names are not known.
fn read(job: &mut Job<'_>, document: &Document, tensors: &Tensors) -> Result<Vec<Optimizer>> {
    let found = find::optimizers(job.checkpoint, document);
    if found.is_empty() {
        return match job.wish.param_names {
            None => Ok(Vec::new()),
            Some(_) => Err(Error::invalid("names are given, and there are no optimizer states")
                .hint("leave out --param-names")),
        };
    }
    let given = job.wish.param_names.as_deref().map(file::read).transpose()?;
    // Where it is not clear which tensors are the weights, names can still be recorded.
    let (weights, unclear) = match find::state_dict(job, document, tensors) {
        Ok(weights) => (weights, None),
        Err(e) => (Vec::new(), Some(e)),
    };
    if let (Some(_), Some(e)) = (&given, unclear) {
        return Err(e);
    }
    let weights: Vec<(&str, &Tensor)> = weights.iter().map(|(n, t)| (n.as_str(), t)).collect();
    if let Some(given) = &given {
        given.check(&weights.iter().map(|(name, _)| *name).collect::<Vec<_>>())?;
    }
    let names = given.as_ref().map_or(&ParameterNames::Find, |given| &given.names);
    let nodes: Vec<NodeRef<'_>> = found.iter().map(|(_, node)| document.node(*node)).collect();
    let views = match views(&nodes, &weights, &|node| tensors.get(&node), names) {
        Ok(views) => views,
        // What is no optimizer's state is converted as it is.
        Err(e) if e.kind() == ErrorKind::Malformed => {
            job.report.notes.push(format!("the states of optimizers keep their numbers: {e}"));
            return Ok(Vec::new());
        }
        Err(e) => return Err(given.as_ref().map_or(e.clone(), |given| given.blame(e))),
    };
    let mut out = Vec::with_capacity(views.len());
    for ((place, node), view) in found.into_iter().zip(views) {
        if !view.is_named() {
            job.report.notes.push(without_names(&place, &view, given.as_ref()));
        }
        out.push(Optimizer { node, view });
    }
    Ok(out)
}

/// Why an optimizer's parameters stay numbers, and what to do.
fn without_names(place: &str, view: &OptimizerView, given: Option<&Given>) -> String {
    let why = match view.source() {
        NameSource::Ambiguous { ways, examples } => {
            let ways = match ways {
                None | Some(u64::MAX) => "too many ways to count".to_owned(),
                Some(ways) => format!("{ways} ways"),
            };
            format!("their shapes and order leave {ways} to name them ({})", told(examples))
        }
        _ => "no names of weights fit their shapes and order".to_owned(),
    };
    let way_out = match given.map(|given| &given.names) {
        None => "--param-names FILE names them",
        Some(_) => "a JSON list of lists in --param-names FILE names those of every optimizer",
    };
    format!("{place} keeps the numbers of its parameters: {why}; {way_out}")
}

/// What the ways differ in, for the first numbers.
fn told(examples: &[Vec<(u64, String)>]) -> String {
    let Some(first) = examples.first() else { return "no example".into() };
    let mut parts: Vec<String> = Vec::new();
    for (i, (number, _)) in first.iter().take(TOLD).enumerate() {
        let mut names: Vec<&str> = Vec::new();
        for name in examples.iter().filter_map(|e| Some(e.get(i)?.1.as_str())) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        parts.push(format!("{number} is {}", names.join(" or ")));
    }
    parts.join(", ")
}
