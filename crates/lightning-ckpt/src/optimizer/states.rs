//! The optimizer states of a checkpoint, as far as names are concerned.

use ckptkit_core::{Error, Result, ResultExt};
use torch_save::pickle::{Kind, NodeRef};

use super::{Parameter, StateTensor};
use crate::LightningCkpt;
use crate::version::OPTIMIZER_STATES;

/// An optimizer as the checkpoint has it.
pub(super) struct Stored {
    /// Group by group.
    pub(super) parameters: Vec<Parameter>,
    /// The names that its groups record, in the order of the parameters.
    pub(super) recorded: Option<Vec<String>>,
}

/// States that have the shape of their parameter in every optimizer that has them.
const FULL: [&str; 20] = [
    "exp_avg",
    "exp_avg_sq",
    "max_exp_avg_sq",
    "exp_inf",
    "momentum_buffer",
    "square_avg",
    "grad_avg",
    "acc_delta",
    "sum",
    "ax",
    "prev",
    "step_size",
    "variance",
    "state1",
    "state2",
    "exp_avg_diff",
    "exp_avg_slow",
    "neg_pre_grad",
    "slow_buffer",
    "mom",
];

pub(super) fn read(ckpt: &LightningCkpt) -> Result<Vec<Stored>> {
    let Some(states) = ckpt.node(OPTIMIZER_STATES) else { return Ok(Vec::new()) };
    let each = states.iter_items().enumerate();
    each.map(|(i, state)| optimizer(ckpt, state).within(|| format!("{OPTIMIZER_STATES}.{i}")))
        .collect()
}

fn optimizer(ckpt: &LightningCkpt, node: NodeRef<'_>) -> Result<Stored> {
    let groups = node
        .get("param_groups")
        .ok_or_else(|| Error::malformed("the optimizer's state has no `param_groups`"))?;
    let state = node.get("state");
    let mut by_key = std::collections::HashMap::new();
    for (key, value) in state.map(NodeRef::pairs).unwrap_or_default() {
        by_key.insert(Id::of(key), value);
    }
    let mut parameters = Vec::new();
    let mut recorded = Vec::new();
    for (group, node) in groups.iter_items().enumerate() {
        let place = || format!("param_groups.{group}");
        let params = node
            .get("params")
            .ok_or_else(|| Error::malformed("the group has no `params`"))
            .within(place)?;
        let names = node.get("param_names").map(NodeRef::items).unwrap_or_default();
        for (i, param) in params.iter_items().enumerate() {
            let id = Id::of(param);
            let integer = match &id {
                Id::Integer(n) => *n,
                // FSDP keys its states by names.
                Id::Name(_) => parameters.len() as u64,
                Id::Other => {
                    return Err(Error::malformed("a parameter is neither an integer nor a name"))
                        .within(place);
                }
            };
            let tensors = by_key.get(&id).map(|s| tensors(ckpt, *s)).unwrap_or_default();
            let shape = shape(&tensors);
            recorded.push(match id {
                Id::Name(name) => Some(name),
                _ => names.get(i).and_then(|n| n.as_str()).map(str::to_owned),
            });
            parameters.push(Parameter { integer, group, name: None, shape, tensors });
        }
    }
    let recorded = recorded.into_iter().collect::<Option<Vec<_>>>().filter(|r| !r.is_empty());
    Ok(Stored { parameters, recorded })
}

/// What a state is keyed by.
#[derive(PartialEq, Eq, Hash)]
enum Id {
    Integer(u64),
    Name(String),
    Other,
}

impl Id {
    fn of(node: NodeRef<'_>) -> Self {
        match (node.as_u64(), node.kind()) {
            (Some(n), _) => Self::Integer(n),
            (None, Kind::Str(_)) => Self::Name(node.as_str().unwrap_or_default().to_owned()),
            _ => Self::Other,
        }
    }
}

/// The tensors in a parameter's state; numbers beside them say nothing here.
fn tensors(ckpt: &LightningCkpt, state: NodeRef<'_>) -> Vec<StateTensor> {
    let pairs = state.pairs().into_iter();
    pairs
        .filter_map(|(key, value)| {
            let entry = ckpt.file.tensor_at(value.id())?;
            Some(StateTensor {
                key: key.as_str()?.to_owned(),
                name: entry.tensor().name().to_owned(),
                shape: entry.tensor().shape().to_vec(),
            })
        })
        .collect()
}

/// The parameter's shape, as far as its state tells.
fn shape(tensors: &[StateTensor]) -> Option<Vec<u64>> {
    let of = |key: &str| tensors.iter().find(|t| t.key == key).map(|t| &t.shape[..]);
    if let Some(shape) = FULL.iter().find_map(|key| of(key)) {
        return Some(shape.to_vec());
    }
    // Adafactor keeps means over rows and over columns.
    if let (Some(rows), Some([.., last])) = (of("exp_avg_sq_row"), of("exp_avg_sq_col")) {
        return Some([rows, &[*last]].concat());
    }
    if let (Some(rows), Some(columns)) = (of("row_var"), of("col_var")) {
        let shape = rows.iter().zip(columns).map(|(a, b)| *a.max(b));
        return (rows.len() == columns.len()).then(|| shape.collect());
    }
    None
}
