//! Objects that cannot change, and are parts of themselves all the same.
//!
//! A tuple in a list in that tuple is legal Python. Pickles make such a tuple twice and throw one
//! of the two away, with opcodes that torch does not know. Where the list comes first there is no
//! such need.

use std::collections::HashMap;

use crate::pickle::{Kind, Mut, NodeId, NodeRef};

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its parts are being made.
    Begun,
    /// It can be referred to.
    Made,
}

enum Task {
    Visit(NodeId),
    Made(NodeId),
}

/// The tuples, and calls, that are met again while their parts are made, in the order in which a
/// pickle is written.
pub(crate) fn immutable_in_itself(root: NodeRef<'_>) -> Vec<NodeId> {
    let mut states: HashMap<NodeId, State> = HashMap::new();
    let mut tasks = vec![Task::Visit(root.id())];
    let mut found = Vec::new();
    while let Some(task) = tasks.pop() {
        let (id, made) = match task {
            Task::Visit(id) => (id, false),
            Task::Made(id) => (id, true),
        };
        let node = root.other(id);
        let parts: Vec<NodeId> = match node.kind() {
            _ if made => Vec::new(),
            Kind::Tuple(items) | Kind::FrozenSet(items) => items.to_vec(),
            Kind::Reduce { callable, args } => vec![callable, args],
            Kind::NewObj { class, args } => vec![class, args],
            Kind::NewObjEx { class, args, kwargs } => vec![class, args, kwargs],
            Kind::PersId(inner) => vec![inner],
            // Atoms need no entry.
            Kind::List | Kind::Dict | Kind::Set => Vec::new(),
            _ if node.muts().next().is_none() => continue,
            _ => Vec::new(),
        };
        if !made {
            match states.get(&id) {
                Some(State::Made) => continue,
                Some(State::Begun) => {
                    found.push(id);
                    continue;
                }
                None => {}
            }
        }
        if !parts.is_empty() {
            states.insert(id, State::Begun);
            tasks.push(Task::Made(id));
            tasks.extend(parts.into_iter().rev().map(Task::Visit));
            continue;
        }
        states.insert(id, State::Made);
        let before = tasks.len();
        for change in node.muts() {
            match change {
                Mut::Build(state) => tasks.push(Task::Visit(state)),
                Mut::Append(ids) | Mut::AddItems(ids) | Mut::SetItems(ids) => {
                    tasks.extend(ids.iter().map(|&id| Task::Visit(id)))
                }
            }
        }
        tasks[before..].reverse();
    }
    found
}
