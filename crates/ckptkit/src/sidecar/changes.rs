//! What an object is made of, and what happened to it afterwards, as few steps as say the same.

use std::borrow::Cow;

use torch_save::pickle::{Kind, Mut};
use torch_save::{NodeId, NodeRef};

/// What was done, in the order in which Python's `__reduce__` has it done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Action {
    Append,
    Set,
    Add,
    Build,
}

impl Action {
    /// The member that says it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Set => "set",
            Self::Add => "add",
            Self::Build => "build",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Append, Self::Set, Self::Add, Self::Build].into_iter().find(|a| a.name() == name)
    }
}

pub(super) struct Change<'a> {
    pub(super) action: Action,
    /// Items; key, value, key, value; or one state.
    pub(super) nodes: Cow<'a, [NodeId]>,
}

/// The changes of a node in order; what was added in several goes is one.
pub(super) fn changes(node: NodeRef<'_>) -> Vec<Change<'_>> {
    let mut out: Vec<Change<'_>> = Vec::new();
    for change in node.muts() {
        let (action, nodes) = match change {
            Mut::Append(nodes) => (Action::Append, Cow::Borrowed(nodes)),
            Mut::SetItems(nodes) => (Action::Set, Cow::Borrowed(nodes)),
            Mut::AddItems(nodes) => (Action::Add, Cow::Borrowed(nodes)),
            Mut::Build(state) => (Action::Build, Cow::Owned(vec![state])),
            // A change that this does not know is one that the graph does not have yet.
            _ => continue,
        };
        match out.last_mut() {
            Some(last) if last.action == action && action != Action::Build => {
                last.nodes.to_mut().extend_from_slice(&nodes);
            }
            _ => out.push(Change { action, nodes }),
        }
    }
    out
}

/// The nodes that must be there before a node can be made.
pub(super) fn parts(node: NodeRef<'_>) -> Cow<'_, [NodeId]> {
    match node.kind() {
        Kind::Tuple(parts) | Kind::FrozenSet(parts) => Cow::Borrowed(parts),
        Kind::Reduce { callable, args } => Cow::Owned(vec![callable, args]),
        Kind::NewObj { class, args } => Cow::Owned(vec![class, args]),
        Kind::NewObjEx { class, args, kwargs } => Cow::Owned(vec![class, args, kwargs]),
        _ => Cow::Borrowed(&[]),
    }
}
