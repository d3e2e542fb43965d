//! How the objects of a graph were reached: the parts of an object with what leads to each, and
//! paths that are spelled only when someone asks.

use ckptkit_core::Key;

use crate::pickle::{Kind, Mut, NodeId, NodeRef};
use crate::text;

/// What leads from an object to one of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A position.
    Index(u32),
    /// A key of a dict, or an attribute.
    Key(NodeId),
    /// A part that no key leads to.
    Word(&'static str),
    /// Nothing that a path would name.
    Nothing,
}

struct Step {
    parent: u32,
    by: By,
    /// Steps from the root, and the one of them that a long path begins with.
    depth: u32,
    head: u32,
}

/// The steps that lead to every object that was reached.
#[derive(Default)]
pub(crate) struct Trail {
    steps: Vec<Step>,
}

/// The place of the root.
pub(crate) const ROOT: u32 = u32::MAX;
/// Keys that are spelled of a longer path at either end, and characters of a longer key.
const MAX_KEYS: u32 = 64;
const MAX_KEY: usize = 200;

impl Trail {
    /// One step further; the path stays the same where nothing leads there.
    pub(crate) fn step(&mut self, from: u32, by: By) -> u32 {
        if by == By::Nothing {
            return from;
        }
        let index = u32::try_from(self.steps.len()).unwrap_or(ROOT);
        let before = self.steps.get(from as usize).map(|step| (step.depth, step.head));
        let (depth, head) = match before {
            Some((depth, head)) if depth >= MAX_KEYS => (depth.saturating_add(1), head),
            Some((depth, _)) => (depth + 1, index),
            None => (1, index),
        };
        self.steps.push(Step { parent: from, by, depth, head });
        index
    }

    /// What holds the object at the end of the trail, where it is one of a row.
    pub(crate) fn row(&self, at: u32) -> Option<u32> {
        let step = self.steps.get(at as usize)?;
        matches!(step.by, By::Index(_)).then_some(step.parent)
    }

    /// The keys from the root, joined with dots; keys are nodes of `graph`. Of a long path both ends.
    pub(crate) fn path(&self, at: u32, graph: NodeRef<'_>) -> String {
        let mut path: Vec<Key> = Vec::new();
        if let Some(step) = self.steps.get(at as usize).filter(|s| s.depth > 2 * MAX_KEYS) {
            path.extend(self.last(step.head, MAX_KEYS, graph));
            path.push(Key::Other("…".into()));
            path.extend(self.last(at, MAX_KEYS, graph));
        } else {
            path.extend(self.last(at, 2 * MAX_KEYS, graph));
        }
        ckptkit_core::join(&path)
    }

    /// The last keys that lead to a place.
    fn last(&self, mut at: u32, most: u32, graph: NodeRef<'_>) -> Vec<Key> {
        let mut keys = Vec::new();
        for _ in 0..most {
            let Some(step) = self.steps.get(at as usize) else { break };
            keys.push(spell(step.by, graph));
            at = step.parent;
        }
        keys.reverse();
        keys
    }
}

fn spell(by: By, graph: NodeRef<'_>) -> Key {
    match by {
        By::Index(i) => Key::Index(u64::from(i)),
        By::Word(word) => Key::Other(word.into()),
        By::Nothing => Key::Other("".into()),
        By::Key(id) => match text::key(graph.other(id)) {
            Key::Str(s) if s.len() > MAX_KEY => {
                Key::Other(s.chars().take(MAX_KEY).chain(['…']).collect::<String>().into())
            }
            key => key,
        },
    }
}

/// Every part of an object, in the order of the file.
pub(crate) fn parts<'a>(node: NodeRef<'a>, to: &mut dyn FnMut(By, NodeRef<'a>)) {
    let index = |i: usize| By::Index(u32::try_from(i).unwrap_or(u32::MAX));
    match node.kind() {
        Kind::Tuple(items) | Kind::FrozenSet(items) => {
            items.iter().enumerate().for_each(|(i, &id)| to(index(i), node.other(id)));
        }
        Kind::Reduce { callable, args } | Kind::NewObj { class: callable, args } => {
            called(node, callable, args, to);
        }
        Kind::NewObjEx { class, args, kwargs } => {
            called(node, class, args, to);
            to(By::Nothing, node.other(kwargs));
        }
        Kind::PersId(id) => to(By::Nothing, node.other(id)),
        _ => {}
    }
    let mut appended = 0;
    for change in node.muts() {
        match change {
            Mut::Append(items) | Mut::AddItems(items) => {
                for &id in items {
                    to(index(appended), node.other(id));
                    appended += 1;
                }
            }
            Mut::SetItems(flat) => {
                for pair in flat.chunks_exact(2) {
                    to(By::Key(pair[0]), node.other(pair[0]));
                    to(By::Key(pair[0]), node.other(pair[1]));
                }
            }
            Mut::Build(state) => {
                let state = node.other(state);
                let by = match state.kind() {
                    Kind::Dict => By::Nothing,
                    _ => By::Word("state"),
                };
                to(by, state);
            }
        }
    }
}

/// Whether it is a number, a text or `None`, which holds nothing and which everything takes.
pub(crate) fn is_atom(node: NodeRef<'_>) -> bool {
    matches!(node.kind(), Kind::None | Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) | Kind::Str(_))
        && node.muts().next().is_none()
}

fn called<'a>(
    node: NodeRef<'a>,
    callable: NodeId,
    args: NodeId,
    to: &mut dyn FnMut(By, NodeRef<'a>),
) {
    // The name that is called is judged with the call.
    let callable = node.other(callable);
    if callable.as_global().is_none() {
        to(By::Word("callable"), callable);
    }
    to(By::Nothing, node.other(args));
}
