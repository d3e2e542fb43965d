//! An optimizer's state dict with names in the place of numbers.

use lightning_ckpt::optimizer::OptimizerView;
use torch_save::Document;
use torch_save::pickle::{Builder, NodeId, NodeRef};

/// Whether the groups number their parameters.
pub(super) fn has_numbers(optimizer: NodeRef<'_>) -> bool {
    let groups = optimizer.get("param_groups").map(NodeRef::items).unwrap_or_default();
    groups.into_iter().filter_map(|group| group.get("params")).any(|params| {
        let mut params = params.iter_items();
        params.any(|param| param.as_u64().is_some())
    })
}

/// A key or an item, by its new name where it has one.
struct Named {
    name: Option<String>,
    old: NodeId,
}

impl Named {
    fn new(node: NodeRef<'_>, view: &OptimizerView) -> Self {
        // Torch's flattening has made text of the keys.
        let number = node.as_u64().or_else(|| node.as_str()?.parse().ok());
        let name = number.and_then(|number| view.name(number)).map(str::to_owned);
        Self { name, old: node.id() }
    }

    fn node(self, b: &mut Builder) -> NodeId {
        self.name.map_or(self.old, |name| b.str(&name))
    }
}

/// The same state dict with its parameters by name: new containers, the same nodes in them.
pub(super) fn renamed(document: &mut Document, optimizer: NodeId, view: &OptimizerView) -> NodeId {
    let node = document.node(optimizer);
    let pairs = |key| node.get(key).map(NodeRef::pairs).unwrap_or_default();
    let states: Vec<(Named, NodeId)> =
        pairs("state").into_iter().map(|(k, v)| (Named::new(k, view), v.id())).collect();
    let groups = node.get("param_groups").map(NodeRef::items).unwrap_or_default();
    let groups: Vec<(Vec<Named>, Vec<Member>)> = groups
        .into_iter()
        .map(|group| {
            let params = group.get("params").map(NodeRef::items).unwrap_or_default();
            (params.into_iter().map(|p| Named::new(p, view)).collect(), members(group))
        })
        .collect();
    let of_optimizer = members(node);

    let b = document.builder();
    let states: Vec<(NodeId, NodeId)> =
        states.into_iter().map(|(key, value)| (key.node(b), value)).collect();
    let state = b.dict();
    b.set_items(state, &states);
    let mut new_groups = Vec::with_capacity(groups.len());
    for (params, group) in groups {
        let names: Vec<NodeId> = params.into_iter().map(|name| name.node(b)).collect();
        let list = b.list();
        b.append(list, &names);
        new_groups.push(with(b, group, &[("params", list)]));
    }
    let list = b.list();
    b.append(list, &new_groups);
    with(b, of_optimizer, &[("state", state), ("param_groups", list)])
}

/// A key, as text where it is, and the pair that it is of.
type Member = (Option<String>, NodeId, NodeId);

fn members(node: NodeRef<'_>) -> Vec<Member> {
    let member =
        |(k, v): (NodeRef<'_>, NodeRef<'_>)| (k.as_str().map(str::to_owned), k.id(), v.id());
    node.pairs().into_iter().map(member).collect()
}

/// A dict of these members, some of them with other values.
fn with(b: &mut Builder, members: Vec<Member>, values: &[(&str, NodeId)]) -> NodeId {
    let pairs: Vec<(NodeId, NodeId)> = members
        .into_iter()
        .map(|(key, node, value)| {
            let new = values.iter().find(|(k, _)| key.as_deref() == Some(k));
            (node, new.map_or(value, |(_, new)| *new))
        })
        .collect();
    let dict = b.dict();
    b.set_items(dict, &pairs);
    dict
}
