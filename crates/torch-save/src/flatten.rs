//! Walks an object graph and finds its tensors, in file order, with their paths.
//!
//! A container that several paths reach is entered once, under the first; so the walk is linear in
//! the file however the graph shares, and needs no stack of its own depth.

use std::sync::Arc;

use ckptkit_core::hash::{HashMap, HashMapExt, HashSet, HashSetExt};
use ckptkit_core::{Error, Key, Result};

use crate::pickle::{Global, Graph, Kind, Mut, NodeId, NodeRef};
use crate::rebuild::Spec;
use crate::text;

/// A tensor and where it stands.
pub(crate) struct Found<'a> {
    pub(crate) path: Arc<[Key]>,
    /// The step that led to it.
    at: usize,
    pub(crate) node: NodeId,
    pub(crate) spec: Result<Spec<'a>>,
    /// It is a part of the tensor with this position in the list.
    pub(crate) part_of: Option<usize>,
}

/// Everything that one graph holds.
pub(crate) struct Walk<'a> {
    pub(crate) found: Vec<Found<'a>>,
    pub(crate) notes: Vec<String>,
    /// Where and why it ended before everything was seen.
    pub(crate) stopped: Option<(String, Error)>,
}

/// One step from a container to what it holds; paths share their beginnings.
struct Step {
    parent: usize,
    key: Key,
    node: NodeId,
    /// What spelling the path from the root costs, in units of work.
    cost: usize,
}

const ROOT: usize = usize::MAX;
/// More repeated containers than this are counted, not named.
const MAX_NOTES: usize = 10;
/// Work that a graph may cost beside some times its size. Arguments, states and long paths can be
/// shared by everything in a hostile file, so that listing it all would take the square of its size.
const FREE_WORK: usize = 1_000_000;
const MAX_REPEATS: usize = 4;
/// Bytes of a name that count as one unit of work.
const NAME_UNIT: usize = 32;

/// `prefix` stands before every path.
pub(crate) fn walk<'a>(
    graph: &'a Graph,
    prefix: &[Key],
    recognise: &dyn Fn(NodeRef<'a>) -> Option<Result<Spec<'a>>>,
) -> Walk<'a> {
    let mut steps: Vec<Step> = Vec::new();
    let mut entered: HashMap<NodeId, usize> = HashMap::new();
    let mut again: Vec<(NodeId, usize)> = Vec::new();
    let mut found: Vec<Found<'a>> = Vec::new();
    let mut keys = Vec::new();
    let mut pending: Vec<(NodeRef<'a>, usize, Option<usize>)> = vec![(graph.root(), ROOT, None)];
    let size = graph.len().saturating_add(graph.edge_count());
    let mut budget = size.saturating_mul(MAX_REPEATS).saturating_add(FREE_WORK);
    let mut stopped = None;
    while let Some((node, at, part_of)) = pending.pop() {
        let mut children: Vec<(Key, NodeRef<'a>)> = Vec::new();
        let mut owner = part_of;
        if let Some(spec) = recognise(node) {
            budget = budget.saturating_sub(steps.get(at).map_or(0, |s| s.cost));
            if budget == 0 {
                stopped = Some(too_much(&steps, at));
                break;
            }
            back_to_root(&steps, at, prefix, &mut keys);
            if keys.is_empty() {
                keys.push(Key::Str("tensor".into()));
            }
            let path = keys.drain(..).rev().collect();
            owner = Some(found.len());
            let parts = spec.as_ref().map(|s| s.parts.clone()).unwrap_or_default();
            found.push(Found { path, at, node: node.id(), spec, part_of });
            // A tensor object that several names share is listed under each, its parts once.
            if parts.is_empty() || entered.insert(node.id(), at).is_none() {
                children = parts;
            }
        } else if is_container(node) {
            if entered.contains_key(&node.id()) {
                again.push((node.id(), at));
                continue;
            }
            entered.insert(node.id(), at);
            children = children_of(node);
        }
        budget = budget.saturating_sub(1 + children.len());
        if budget == 0 {
            stopped = Some(too_much(&steps, at));
            break;
        }
        let root_tensor = at == ROOT && owner.is_some();
        for (key, child) in children.into_iter().rev() {
            if !is_container(child) {
                continue;
            }
            let parent = if root_tensor && prefix.is_empty() {
                let key = Key::Str("tensor".into());
                steps.push(Step { parent: ROOT, key, node: node.id(), cost: 1 });
                steps.len() - 1
            } else {
                at
            };
            let own = match &key {
                Key::Str(s) | Key::Other(s) => 1 + s.len() / NAME_UNIT,
                _ => 1,
            };
            budget = budget.saturating_sub(own);
            let cost = own.saturating_add(steps.get(parent).map_or(0, |s| s.cost));
            steps.push(Step { parent, key, node: child.id(), cost });
            pending.push((child, steps.len() - 1, owner));
        }
    }
    let notes = repeated(&steps, &found, &again, &entered, prefix);
    Walk { found, notes, stopped }
}

/// The keys from a place to the root, and those before it.
fn back_to_root(steps: &[Step], mut at: usize, prefix: &[Key], keys: &mut Vec<Key>) {
    while at != ROOT {
        keys.push(steps[at].key.clone());
        at = steps[at].parent;
    }
    keys.extend(prefix.iter().rev().cloned());
}

fn too_much(steps: &[Step], at: usize) -> (String, Error) {
    let place = match steps.get(at).map(|s| &s.key) {
        Some(Key::Str(s) | Key::Other(s)) => s.chars().take(NAME_UNIT).collect(),
        Some(Key::Index(i)) => i.to_string(),
        _ => "tensor".into(),
    };
    let error = Error::limit(
        "its objects share so much, or nest so deep, that not every tensor can be listed",
    )
    .hint("torch.save writes no such file of itself; look at its values instead");
    (place, error)
}

/// What is said of containers with tensors that were reached again.
fn repeated(
    steps: &[Step],
    found: &[Found<'_>],
    again: &[(NodeId, usize)],
    entered: &HashMap<NodeId, usize>,
    prefix: &[Key],
) -> Vec<String> {
    if again.is_empty() {
        return Vec::new();
    }
    let mut with_tensors: HashSet<NodeId> = HashSet::new();
    for found in found {
        let mut at = found.at;
        while at != ROOT && with_tensors.insert(steps[at].node) {
            at = steps[at].parent;
        }
    }
    let name = |at: usize| {
        let mut path = Vec::new();
        back_to_root(steps, at, prefix, &mut path);
        path.reverse();
        if path.is_empty() { "the root".to_owned() } else { ckptkit_core::join(&path) }
    };
    let mut notes: Vec<String> = again
        .iter()
        .filter(|(node, _)| with_tensors.contains(node))
        .map(|(node, at)| {
            format!(
                "{} is the same object as {}; its tensors are listed there",
                name(*at),
                name(entered[node])
            )
        })
        .collect();
    if notes.len() > MAX_NOTES {
        let more = notes.len() - MAX_NOTES;
        notes.truncate(MAX_NOTES);
        notes.push(format!("{more} more objects are reached by several paths"));
    }
    notes
}

/// Whether anything could be inside.
fn is_container(node: NodeRef<'_>) -> bool {
    match node.kind() {
        Kind::List | Kind::Dict | Kind::Set | Kind::PersId(_) => true,
        Kind::Tuple(items) | Kind::FrozenSet(items) => !items.is_empty(),
        Kind::Reduce { .. } | Kind::NewObj { .. } | Kind::NewObjEx { .. } => true,
        _ => node.muts().next().is_some(),
    }
}

/// What a container holds: items by position, pairs by key, attributes by name; a module's
/// parameters, buffers and submodules as its `state_dict()` would name them.
fn children_of<'a>(node: NodeRef<'a>) -> Vec<(Key, NodeRef<'a>)> {
    let mut out = Vec::new();
    let node = scripted(node);
    if let Some((callable, args)) = node.call() {
        if is_leaf_class(callable) {
            return out;
        }
        if let Some(module) = module_children(node) {
            return module;
        }
        let mapping =
            callable.as_global().is_some_and(|g| g.module == "collections" && g.name != "deque");
        for (i, arg) in args.into_iter().enumerate() {
            match arg.kind() {
                // `OrderedDict([(key, value), …])`, `Counter({…})`.
                Kind::List if mapping => {
                    for pair in arg.items() {
                        if let [key, value] = pair.items()[..] {
                            out.push((text::key(key), value));
                        }
                    }
                }
                Kind::Dict if mapping => {
                    out.extend(arg.pairs().into_iter().map(|(k, v)| (text::key(k), v)))
                }
                _ => out.push((Key::Index(i as u64), arg)),
            }
        }
    }
    out.extend(node.items().into_iter().enumerate().map(|(i, item)| (Key::Index(i as u64), item)));
    out.extend(node.pairs().into_iter().map(|(key, value)| (text::key(key), value)));
    for m in node.muts() {
        if let Mut::Build(state) = m {
            let state = node.other(state);
            let plain = match state.kind() {
                Kind::Dict => true,
                Kind::Tuple(&[a, b]) => [a, b]
                    .iter()
                    .all(|&id| matches!(node.other(id).kind(), Kind::Dict | Kind::None)),
                _ => false,
            };
            if !plain {
                out.extend(
                    state
                        .items()
                        .into_iter()
                        .enumerate()
                        .map(|(i, item)| (Key::Index(i as u64), item)),
                );
            }
        }
    }
    out.extend(node.attributes().into_iter().map(|(key, value)| (text::key(key), value)));
    out
}

/// The list or dict inside the call that TorchScript puts around one to keep its type.
pub(crate) fn scripted(mut node: NodeRef<'_>) -> NodeRef<'_> {
    /// Real files have one; a call around itself must end.
    const MAX_CALLS: usize = 4;
    for _ in 0..MAX_CALLS {
        match node.call() {
            Some((callable, args)) if callable.as_global().is_some_and(is_type_tag) => {
                node = args.first().copied().unwrap_or(node);
            }
            _ => break,
        }
    }
    node
}

fn is_type_tag(g: Global<'_>) -> bool {
    g.module == "torch.jit._pickle"
        && (g.name == "restore_type_tag"
            || g.name.starts_with("build_") && g.name.ends_with("list"))
}

/// Constructions that are one value each.
fn is_leaf_class(callable: NodeRef<'_>) -> bool {
    callable.as_global().is_some_and(|g| {
        g.module == "numpy"
            || g.module.starts_with("numpy.")
            || matches!(g.module, "_codecs" | "datetime" | "decimal" | "uuid")
            || g.is("torch", "Size")
            || g.is("torch", "device")
    })
}

/// `_parameters`, `_buffers` (but not the ones that `state_dict()` leaves out) and `_modules` of an
/// `nn.Module`; `None` when the object is none.
fn module_children<'a>(node: NodeRef<'a>) -> Option<Vec<(Key, NodeRef<'a>)>> {
    let (parameters, modules) = (node.attribute("_parameters")?, node.attribute("_modules")?);
    let transient: Vec<&str> = node
        .attribute("_non_persistent_buffers_set")
        .map(|set| {
            let mut items = set.items();
            // `set([…])` by a call, as protocols below 4 write it.
            items.extend(
                set.call().into_iter().flat_map(|(_, args)| args).flat_map(|list| list.items()),
            );
            items.into_iter().filter_map(NodeRef::as_str).collect()
        })
        .unwrap_or_default();
    let buffers = node.attribute("_buffers").map(NodeRef::pairs).unwrap_or_default();
    let kept =
        buffers.into_iter().filter(|(k, _)| k.as_str().is_none_or(|k| !transient.contains(&k)));
    let all = parameters.pairs().into_iter().chain(kept).chain(modules.pairs());
    Some(all.map(|(k, v)| (text::key(k), v)).collect())
}
