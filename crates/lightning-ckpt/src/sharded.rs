//! A sharded checkpoint of Lightning's as the one file that it would have been.
//!
//! Source of truth: `save_checkpoint` of `lightning/pytorch/strategies/model_parallel.py` and
//! `fsdp.py` (Lightning 2.6): `optimizer_N` stands for the items of `optimizer_states`, FSDP keeps
//! the weights under `model`; `Optimizer.load_state_dict` of torch wants parameters by number, in
//! the order of the groups.

use std::collections::HashMap;

use ckptkit_core::{Error, Result, ResultExt};
use torch_save::Document;
use torch_save::pickle::{Builder, NodeId};

/// Gives the root of a sharded checkpoint, put together, the keys of a single file: weights under
/// `state_dict`, the optimizers in `optimizer_states`, their states by the numbers of parameters.
///
/// # Errors
/// [`Malformed`](ckptkit_core::ErrorKind::Malformed) for the state of a parameter that no group
/// names, and where optimizers are missing in between.
pub fn from_sharded(document: &mut Document) -> Result<()> {
    let mut pairs = Vec::new();
    let mut optimizers: Vec<(usize, NodeId)> = Vec::new();
    let has_state_dict = document.root().get("state_dict").is_some();
    let found: Vec<(Option<String>, NodeId, NodeId)> = document
        .root()
        .pairs()
        .into_iter()
        .map(|(key, value)| (key.as_str().map(str::to_owned), key.id(), value.id()))
        .collect();
    for (name, key, value) in found {
        let number = name.as_deref().and_then(|n| n.strip_prefix("optimizer_")?.parse().ok());
        match (number, name.as_deref()) {
            (Some(number), _) => optimizers.push((number, value)),
            (None, Some("state_dict")) => pairs.push((key, ordered(document, value))),
            (None, Some("model")) if !has_state_dict => {
                let weights = ordered(document, value);
                pairs.push((document.builder().str("state_dict"), weights));
            }
            _ => pairs.push((key, value)),
        }
    }
    optimizers.sort_by_key(|(number, _)| *number);
    if let Some((i, (number, _))) =
        optimizers.iter().enumerate().find(|(i, (number, _))| i != number)
    {
        return Err(Error::malformed(format!(
            "there is an optimizer_{number}, but no optimizer_{i}"
        )));
    }
    let mut states = Vec::with_capacity(optimizers.len());
    for (number, optimizer) in optimizers {
        let state = numbered(document, optimizer).within(|| format!("optimizer_{number}"))?;
        states.push(state);
    }
    let b = document.builder();
    let list = b.list();
    b.append(list, &states);
    if !states.is_empty() {
        pairs.push((b.str("optimizer_states"), list));
    }
    let root = b.dict();
    b.set_items(root, &pairs);
    document.set_root(root);
    Ok(())
}

/// A mapping as the `OrderedDict` that a module's state dict is.
fn ordered(document: &mut Document, mapping: NodeId) -> NodeId {
    let pairs: Vec<(NodeId, NodeId)> =
        document.node(mapping).pairs().iter().map(|(k, v)| (k.id(), v.id())).collect();
    let b = document.builder();
    let dict = b.call("collections", "OrderedDict", &[]);
    b.set_items(dict, &pairs);
    dict
}

/// An optimizer's state dict with parameters as numbers.
fn numbered(document: &mut Document, optimizer: NodeId) -> Result<NodeId> {
    let node = document.node(optimizer);
    let mut numbers: HashMap<String, i64> = HashMap::new();
    let mut groups = Vec::new();
    for group in node.get("param_groups").map(|g| g.items()).unwrap_or_default() {
        let params = group.get("params").map(|p| p.items()).unwrap_or_default();
        let mut of_group = Vec::with_capacity(params.len());
        for param in params {
            let next = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
            // A parameter that is a number keeps it.
            let number = param.as_int().unwrap_or(next);
            let name = ckptkit_core::join(&[param.as_key()]);
            of_group.push(*numbers.entry(name).or_insert(number));
        }
        let rest: Vec<(NodeId, NodeId)> = group
            .pairs()
            .iter()
            .filter(|(key, _)| key.as_str() != Some("params"))
            .map(|(key, value)| (key.id(), value.id()))
            .collect();
        groups.push((of_group, rest));
    }
    let mut states = Vec::new();
    for (key, value) in node.get("state").map(|s| s.pairs()).unwrap_or_default() {
        let name = ckptkit_core::join(&[key.as_key()]);
        let number = *numbers.get(&name).ok_or_else(|| {
            Error::malformed(format!("there is a state for {name}, which no group names"))
        })?;
        states.push((number, value.id()));
    }
    states.sort_by_key(|(number, _)| *number);
    let further: Vec<(NodeId, NodeId)> = node
        .pairs()
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), Some("state" | "param_groups")))
        .map(|(key, value)| (key.id(), value.id()))
        .collect();

    let b = document.builder();
    let state = b.dict();
    let pairs: Vec<_> = states.into_iter().map(|(number, value)| (b.int(number), value)).collect();
    b.set_items(state, &pairs);
    let list = b.list();
    let groups: Vec<NodeId> =
        groups.into_iter().map(|(params, rest)| group_of(b, &params, &rest)).collect();
    b.append(list, &groups);
    let dict = b.dict();
    let (state_key, groups_key) = (b.str("state"), b.str("param_groups"));
    b.set_items(dict, &[(state_key, state), (groups_key, list)]);
    b.set_items(dict, &further);
    Ok(dict)
}

fn group_of(b: &mut Builder, params: &[i64], rest: &[(NodeId, NodeId)]) -> NodeId {
    let dict = b.dict();
    b.set_items(dict, rest);
    let list = b.list();
    let numbers: Vec<NodeId> = params.iter().map(|&number| b.int(number)).collect();
    b.append(list, &numbers);
    let key = b.str("params");
    b.set_items(dict, &[(key, list)]);
    dict
}
