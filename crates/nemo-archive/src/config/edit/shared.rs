//! Values that stand in more than one place, through anchors.

use ckptkit_core::{Error, Result};

use super::super::tree::{Kind, NodeId, Tree};

/// Refuses a way that leads through an alias or a merge key, or to what an alias refers to: such an
/// edit would change more than it says. The way may go on to keys that are not there yet.
pub(super) fn refuse_detours(
    tree: &Tree,
    text: &str,
    trail: &[NodeId],
    goes_on: bool,
) -> Result<()> {
    let last = trail.last().map(|&id| &tree.nodes[id].kind);
    if let (Some(Kind::Alias(target)), true) = (last, goes_on) {
        return Err(elsewhere(tree, text, *target));
    }
    for step in trail.windows(2) {
        match &tree.nodes[step[0]].kind {
            Kind::Alias(target) => return Err(elsewhere(tree, text, *target)),
            Kind::Map(pairs) if pairs.iter().any(|p| p.value == step[1] && p.merged) => {
                let holds = |id: &NodeId| match &tree.nodes[*id].kind {
                    Kind::Map(pairs) => pairs.iter().any(|p| p.value == step[1] && !p.merged),
                    _ => false,
                };
                let source = (0..tree.nodes.len()).find(holds).unwrap_or(step[0]);
                return Err(elsewhere(tree, text, source));
            }
            _ => {}
        }
    }
    let shared_node = tree.nodes.iter().find_map(|node| match node.kind {
        Kind::Alias(target) => trail.contains(&target).then_some(target),
        _ => None,
    });
    shared_node.map_or(Ok(()), |target| Err(shared(tree, text, target)))
}

/// Refuses where a value that goes away takes anchors with it that are used elsewhere.
pub(super) fn refuse_anchors_inside(tree: &Tree, text: &str, id: NodeId) -> Result<()> {
    let mut inside = vec![false; tree.nodes.len()];
    let mut pending = vec![id];
    while let Some(id) = pending.pop() {
        inside[id] = true;
        match (&tree.nodes[id].kind, tree.written.get(&id)) {
            (Kind::List(items), _) => pending.extend(items),
            (Kind::Map(_), Some(written)) => {
                pending.extend(written.iter().flat_map(|&(k, v)| [k, v]));
            }
            (Kind::Map(pairs), None) => pending.extend(pairs.iter().flat_map(|p| [p.key, p.value])),
            _ => {}
        }
    }
    for (node, is_inside) in tree.nodes.iter().zip(&inside) {
        match node.kind {
            Kind::Alias(target) if inside[target] && !is_inside => {
                return Err(shared(tree, text, target));
            }
            _ => {}
        }
    }
    Ok(())
}

fn elsewhere(tree: &Tree, text: &str, target: NodeId) -> Error {
    Error::denied(format!("its value stands at the anchor {}", anchor_of(tree, text, target)))
        .hint("edit the text of the config by hand, and give it as a whole")
}

fn shared(tree: &Tree, text: &str, target: NodeId) -> Error {
    let anchor = anchor_of(tree, text, target);
    Error::denied(format!("other values refer to it by the anchor {anchor}"))
        .hint("edit the text of the config by hand, and give it as a whole")
}

/// The name of the anchor of a node, `&` included.
fn anchor_of(tree: &Tree, text: &str, id: NodeId) -> String {
    let node = &tree.nodes[id];
    let mut words = text[node.outer..].split_ascii_whitespace();
    let own = words.clone().take_while(|w| w.starts_with(['&', '!'])).find(|w| w.starts_with('&'));
    // Those of a block of text stand above it.
    let above = || text[..node.span.start].rfind('&').map(|at| &text[at..]);
    let name = own.or_else(above).or_else(|| words.next()).unwrap_or_default();
    let stop = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}');
    name.split(stop).next().unwrap_or_default().to_owned()
}
