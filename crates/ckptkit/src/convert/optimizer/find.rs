//! Where in an object optimizers and the weights stand.

use ckptkit_core::{Error, ErrorKind, Result, Tensor, join};
use torch_save::Document;
use torch_save::pickle::{NodeId, NodeRef};

use super::super::job::Job;
use super::super::places::{is_mapping, walk};
use super::Tensors;
use crate::checkpoint::Checkpoint;
use crate::format::Format;

/// Scripts keep their optimizers within this many containers.
const MAX_DEPTH: usize = 8;

/// The state dicts of the optimizers and their places: Lightning's by their positions, others in
/// the order in which they stand.
pub(super) fn optimizers(checkpoint: &Checkpoint, document: &Document) -> Vec<(String, NodeId)> {
    if checkpoint.kept_format() == Format::LightningCkpt {
        return of_lightning(document.root());
    }
    let mut found = Vec::new();
    walk(document.root(), MAX_DEPTH, &mut |path, node| {
        let is = is_optimizer(node);
        if is {
            found.push((join(path), node.id()));
        }
        is
    });
    found
}

/// In one file a list, in a sharded checkpoint a key each.
fn of_lightning(root: NodeRef<'_>) -> Vec<(String, NodeId)> {
    let mut found = Vec::new();
    for (key, value) in root.pairs() {
        match key.as_str() {
            Some("optimizer_states") => {
                let items = value.items().into_iter().enumerate();
                found.extend(items.map(|(i, o)| (i, format!("optimizer_states.{i}"), o)));
            }
            Some(key) => {
                let number = key.strip_prefix("optimizer_").and_then(|n| n.parse().ok());
                found.extend(number.map(|number| (number, key.to_owned(), value)));
            }
            None => {}
        }
    }
    found.retain(|(_, _, node)| is_optimizer(*node));
    found.sort_by_key(|(number, ..)| *number);
    found.into_iter().map(|(_, place, node)| (place, node.id())).collect()
}

/// Whether it is what `Optimizer.state_dict()` gives. An empty state is lost in flattening.
fn is_optimizer(node: NodeRef<'_>) -> bool {
    let is_group = |group: &NodeRef<'_>| group.get("params").is_some();
    is_mapping(node)
        && node.get("state").is_none_or(is_mapping)
        && node.get("param_groups").is_some_and(|groups| {
            let groups = groups.items();
            !groups.is_empty() && groups.iter().all(is_group)
        })
}

/// The weights in the order of their state dict, as they are in the source: what is cast does not
/// tell any more what it is tied with.
pub(super) fn state_dict(
    job: &Job<'_>,
    document: &Document,
    tensors: &Tensors,
) -> Result<Vec<(String, Tensor)>> {
    let key = match &job.wish.weights_key {
        Some(key) => key.clone(),
        None => job.checkpoint.weights()?.key.unwrap_or_default(),
    };
    let node = document.at(&key).map_err(|e| match e.kind() {
        ErrorKind::NotFound => Error::not_found(format!("there is nothing under the key {key:?}")),
        _ => e,
    })?;
    let pairs = document.node(node).pairs();
    let weight = |(key, value): (NodeRef<'_>, NodeRef<'_>)| {
        let tensor = job.checkpoint.tensor_of_whole(tensors.get(&value.id())?.name()).ok()?;
        Some((key.as_str()?.to_owned(), tensor))
    };
    Ok(pairs.into_iter().filter_map(weight).collect())
}
