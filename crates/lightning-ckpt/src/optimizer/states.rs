//! The optimizer states of a checkpoint, as far as names are concerned.

use std::collections::{HashMap, HashSet};

use ckptkit_core::{Error, Key, Result, ResultExt, Tensor};
use torch_save::pickle::{Kind, NodeId, NodeRef};

use super::{Parameter, StateTensor};

/// Containers within the state of one parameter that are entered.
const MAX_DEPTH: usize = 16;

/// An optimizer as the checkpoint has it.
pub(super) struct Stored {
    /// Group by group.
    pub(super) parameters: Vec<Parameter>,
    /// The names that its groups record, in the order of the parameters.
    pub(super) recorded: Option<Vec<String>>,
    /// The states are kept by these names.
    pub(super) by_name: bool,
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

/// The tensor that a node is.
pub(super) type TensorAt<'l, 'a> = &'l dyn Fn(NodeId) -> Option<&'a Tensor>;

pub(super) fn read(node: NodeRef<'_>, tensor_at: TensorAt<'_, '_>) -> Result<Stored> {
    let groups = node
        .get("param_groups")
        .ok_or_else(|| Error::malformed("the optimizer's state has no `param_groups`"))?;
    let state = node.get("state");
    let mut by_key = HashMap::new();
    for (key, value) in state.map(NodeRef::pairs).unwrap_or_default() {
        by_key.insert(Id::of(key), value);
    }
    let mut parameters = Vec::new();
    let mut recorded = Vec::new();
    let mut by_name = true;
    let (mut seen, mut entered) = (HashSet::new(), HashSet::new());
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
                // Sharded checkpoints key their states by names.
                Id::Name(_) => parameters.len() as u64,
                Id::Other => {
                    return Err(Error::malformed("a parameter is neither an integer nor a name"))
                        .within(place);
                }
            };
            if !seen.insert(id.clone()) {
                return Err(Error::malformed("a parameter is in the groups twice")
                    .within(format_args!("parameter {}", param.key_text()))
                    .within(place()));
            }
            let found = by_key.get(&id).or_else(|| by_key.get(&id.as_text()?));
            let tensors = found.map(|s| tensors(tensor_at, *s, &mut entered)).unwrap_or_default();
            by_name &= matches!(id, Id::Name(_));
            let shape = shape(&tensors);
            recorded.push(match id {
                Id::Name(name) => Some(name),
                _ => names.get(i).and_then(|n| n.as_str()).map(str::to_owned),
            });
            parameters.push(Parameter { integer, group, name: None, shape, tensors });
        }
    }
    let recorded = recorded.into_iter().collect::<Option<Vec<_>>>().filter(|r| !r.is_empty());
    let by_name = by_name && recorded.is_some();
    Ok(Stored { parameters, recorded, by_name })
}

/// What a state is keyed by.
#[derive(Clone, PartialEq, Eq, Hash)]
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

    /// An integer as the text that it is after torch has flattened it.
    fn as_text(&self) -> Option<Self> {
        match self {
            Self::Integer(n) => Some(Self::Name(n.to_string())),
            _ => None,
        }
    }
}

/// The tensors in a parameter's state; numbers beside them say nothing here. A container that several parameters share is the first one's.
fn tensors(
    tensor_at: TensorAt<'_, '_>,
    state: NodeRef<'_>,
    entered: &mut HashSet<NodeId>,
) -> Vec<StateTensor> {
    let mut out = Vec::new();
    let mut pending = vec![(Vec::new(), state)];
    while let Some((path, node)) = pending.pop() {
        if let Some(tensor) = tensor_at(node.id()).filter(|_| !path.is_empty()) {
            out.push(StateTensor {
                key: ckptkit_core::join(&path),
                name: tensor.name().to_owned(),
                shape: tensor.shape().to_vec(),
            });
            continue;
        }
        if path.len() == MAX_DEPTH || !entered.insert(node.id()) {
            continue;
        }
        let pairs = node.pairs().into_iter().map(|(key, value)| (key.as_key(), value));
        let items = match node.kind() {
            Kind::List | Kind::Tuple(_) => node.items(),
            _ => Vec::new(),
        };
        let items = (0..).zip(items).map(|(i, item)| (Key::Index(i), item));
        let from = pending.len();
        for (key, child) in pairs.chain(items) {
            let mut path = path.clone();
            path.push(key);
            pending.push((path, child));
        }
        pending[from..].reverse();
    }
    out
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
