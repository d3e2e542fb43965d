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
    pub(crate) node: NodeId,
    pub(crate) spec: Result<Spec<'a>>,
    /// It is a part of the tensor that was found as this one, counted from 0.
    pub(crate) part_of: Option<usize>,
}

/// What is said of a graph beside its tensors.
pub(crate) struct Walk {
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

/// What is left to visit of a container.
struct Frame<'a> {
    children: std::vec::IntoIter<(Key, NodeRef<'a>)>,
    /// The step to the container.
    at: usize,
    /// The tensor that it is a part of.
    owner: Option<usize>,
}

/// Gives every tensor to `take`; `prefix` stands before every path.
pub(crate) fn walk<'a>(
    graph: &'a Graph,
    prefix: &[Key],
    recognise: &dyn Fn(NodeRef<'a>) -> Option<Result<Spec<'a>>>,
    take: &mut dyn FnMut(Found<'a>),
) -> Walk {
    let mut steps: Vec<Step> = Vec::new();
    let mut entered: HashMap<NodeId, usize> = HashMap::new();
    let mut again: Vec<(NodeId, usize)> = Vec::new();
    // The containers that hold tensors themselves.
    let mut holders: Vec<usize> = Vec::new();
    let mut count = 0;
    let mut keys = Vec::new();
    let mut frames: Vec<Frame<'a>> = Vec::new();
    let size = graph.len().saturating_add(graph.edge_count());
    let mut budget = size.saturating_mul(MAX_REPEATS).saturating_add(FREE_WORK);
    let mut stopped = None;
    let mut next = Some((None, graph.root(), ROOT, None));
    while let Some((key, node, parent, part_of)) = next.take().or_else(|| child(&mut frames)) {
        let own = match &key {
            Some(Key::Str(s) | Key::Other(s)) => 1 + s.len() / NAME_UNIT,
            _ => 1,
        };
        let cost = own.saturating_add(steps.get(parent).map_or(0, |s| s.cost));
        budget = budget.saturating_sub(own);
        let step = |key: Option<Key>| key.map(|key| Step { parent, key, node: node.id(), cost });
        let (children, at, owner);
        if let Some(spec) = recognise(node) {
            budget = budget.saturating_sub(cost);
            if budget == 0 {
                stopped = Some(too_much(key.as_ref()));
                break;
            }
            let parts = spec.as_ref().map(|s| s.parts.clone()).unwrap_or_default();
            // The parts of a tensor that is the root itself are named after it.
            let key = key.or_else(|| prefix.is_empty().then(|| Key::Str("tensor".into())));
            keys.extend(key.clone());
            back_to_root(&steps, parent, prefix, &mut keys);
            let path = keys.drain(..).rev().collect();
            take(Found { path, node: node.id(), spec, part_of });
            if holders.last() != Some(&parent) {
                holders.push(parent);
            }
            owner = Some(count);
            count += 1;
            if parts.is_empty() {
                continue;
            }
            at = enter(&mut steps, step(key));
            // A tensor object that several names share is listed under each, its parts once.
            children = if entered.insert(node.id(), at).is_none() { parts } else { Vec::new() };
            holders.push(at);
        } else if is_container(node) {
            at = enter(&mut steps, step(key));
            if entered.contains_key(&node.id()) {
                again.push((node.id(), at));
                continue;
            }
            entered.insert(node.id(), at);
            children = children_of(node);
            owner = part_of;
        } else {
            continue;
        }
        budget = budget.saturating_sub(1 + children.len());
        if budget == 0 {
            stopped = Some(too_much(steps.get(at).map(|s| &s.key)));
            break;
        }
        frames.push(Frame { children: children.into_iter(), at, owner });
    }
    let notes = repeated(&steps, &holders, &again, &entered, prefix);
    Walk { notes, stopped }
}

/// Where a step is, the root being none.
fn enter(steps: &mut Vec<Step>, step: Option<Step>) -> usize {
    match step {
        Some(step) => {
            steps.push(step);
            steps.len() - 1
        }
        None => ROOT,
    }
}

type Visit<'a> = (Option<Key>, NodeRef<'a>, usize, Option<usize>);

/// The next thing to visit, in the order of the file.
fn child<'a>(frames: &mut Vec<Frame<'a>>) -> Option<Visit<'a>> {
    loop {
        let frame = frames.last_mut()?;
        match frame.children.find(|(_, child)| is_container(*child)) {
            Some((key, child)) => return Some((Some(key), child, frame.at, frame.owner)),
            None => drop(frames.pop()),
        }
    }
}

/// The keys from a place to the root, and those before it.
fn back_to_root(steps: &[Step], mut at: usize, prefix: &[Key], keys: &mut Vec<Key>) {
    while at != ROOT {
        keys.push(steps[at].key.clone());
        at = steps[at].parent;
    }
    keys.extend(prefix.iter().rev().cloned());
}

fn too_much(key: Option<&Key>) -> (String, Error) {
    let place = match key {
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
    holders: &[usize],
    again: &[(NodeId, usize)],
    entered: &HashMap<NodeId, usize>,
    prefix: &[Key],
) -> Vec<String> {
    if again.is_empty() {
        return Vec::new();
    }
    let mut with_tensors: HashSet<NodeId> = HashSet::new();
    for &holder in holders {
        let mut at = holder;
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
