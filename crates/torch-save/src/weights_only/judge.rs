//! Whether `weights_only=True` builds one object, taken by itself: its parts are judged on their
//! own.
//!
//! Source of truth: `torch/_weights_only_unpickler.py` (`Unpickler.load`) of torch 2.15, and the
//! signatures of the functions on its list.

use std::collections::HashSet;

use super::RefusalKind;
use super::globals::{Standing, standing};
use super::signatures::{arguments_fit, is_state, is_storage};
use crate::pickle::{Global, Kind, Mut, NodeId, NodeRef};
use crate::storage;

/// What is refused, and why.
pub(crate) type Refused = (RefusalKind, String, String);
type Verdict = Result<(), Refused>;

/// The lists whose items were looked at already: calls may share them.
pub(crate) type Checked = HashSet<NodeId>;

/// `LONG1` counts its bytes in one; `LONG4` is refused.
const MAX_INTEGER_BYTES: usize = 255;
/// Keys of tuples of tuples are looked at so far.
const MAX_KEY_PARTS: usize = 256;
/// No call on the list takes more arguments; a hostile tuple may be long and shared.
pub(super) const MAX_ARGUMENTS: usize = 16;

/// What can have become of an object that is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Made {
    /// Items can be set on it.
    Mapping,
    /// Items can be appended to it.
    List,
    /// It takes a state.
    Object,
    /// Nothing can be done to it.
    Closed,
    /// A class that torch checks no further.
    Trusted,
}

pub(crate) fn judge(node: NodeRef<'_>, checked: &mut Checked) -> Verdict {
    let made = match node.kind() {
        Kind::BigInt(bytes) if bytes.len() > MAX_INTEGER_BYTES => {
            return refuse(
                RefusalKind::Integer,
                "int",
                format!("it has {} bytes, of which torch reads {MAX_INTEGER_BYTES}", bytes.len()),
            );
        }
        // Protocol 2 spells these by calls, and empty ones by calls that are not on the list.
        Kind::Bytes([]) => return unlisted("builtins.bytes", "function"),
        Kind::FrozenSet(_) => return unlisted("builtins.frozenset", "class"),
        Kind::ByteArray([]) => return unlisted("builtins.bytes", "function"),
        Kind::Global(g) => {
            return match standing(g) {
                Standing::Blocked => {
                    refuse(RefusalKind::Global, g.to_string(), "its module is blocked")
                }
                s if s.is_allowed() => after(node, Made::Closed),
                _ => unlisted(&g.to_string(), "name"),
            };
        }
        Kind::PersId(id) => {
            persistent(node.other(id))?;
            Made::Closed
        }
        Kind::List => Made::List,
        Kind::Dict => Made::Mapping,
        Kind::Set => {
            hashable_items(node.iter_items())?;
            return match node.muts().find(|m| !matches!(m, Mut::AddItems(_))) {
                Some(change) => changed("set", change),
                None => Ok(()),
            };
        }
        Kind::Reduce { callable, args } => called(node, callable, args, checked)?,
        Kind::NewObj { class, args } => constructed(node, class, args)?,
        Kind::NewObjEx { .. } => {
            return refuse(
                RefusalKind::Call,
                what(node),
                "it is made with keyword arguments, which torch does not take",
            );
        }
        _ => Made::Closed,
    };
    after(node, made)
}

fn refuse(kind: RefusalKind, what: impl Into<String>, why: impl Into<String>) -> Verdict {
    Err((kind, what.into(), why.into()))
}

fn unlisted(name: &str, word: &str) -> Verdict {
    refuse(RefusalKind::Global, name, format!("the {word} is not on the list"))
}

/// What to call an object: its class, or what it is.
pub(crate) fn what(node: NodeRef<'_>) -> String {
    match node.kind() {
        Kind::None => "None".into(),
        Kind::Bool(_) => "bool".into(),
        Kind::Int(_) | Kind::BigInt(_) => "int".into(),
        Kind::Float(_) => "float".into(),
        Kind::Str(_) => "str".into(),
        Kind::Bytes(_) => "bytes".into(),
        Kind::ByteArray(_) => "bytearray".into(),
        Kind::Tuple(_) => "tuple".into(),
        Kind::List => "list".into(),
        Kind::Dict => "dict".into(),
        Kind::Set => "set".into(),
        Kind::FrozenSet(_) => "frozenset".into(),
        Kind::Global(g) => g.to_string(),
        Kind::PersId(_) => "persistent id".into(),
        _ => node.class().map_or_else(|| "object".into(), |g| g.to_string()),
    }
}

/// What happened to an object after it was made.
fn after(node: NodeRef<'_>, made: Made) -> Verdict {
    for change in node.muts() {
        let fits = match (made, change) {
            (Made::Trusted, _) => true,
            (Made::List, Mut::Append(_)) => true,
            (Made::Mapping, Mut::SetItems(flat)) => {
                let keys = flat.chunks_exact(2).map(|pair| node.other(pair[0]));
                hashable_items(keys)?;
                true
            }
            // A plain dict takes no state, the classes above it do.
            (Made::Mapping, Mut::Build(state)) if !matches!(node.kind(), Kind::Dict) => {
                attributes(node, node.other(state))?;
                true
            }
            (Made::Object, Mut::Build(state)) => {
                let state = node.other(state);
                if !state_fits(node, state) {
                    return refuse(RefusalKind::State, what(node), "its state is no tensor's");
                }
                true
            }
            _ => false,
        };
        if !fits {
            return changed(&what(node), change);
        }
    }
    Ok(())
}

fn changed(what: &str, change: Mut<'_>) -> Verdict {
    match change {
        Mut::Build(_) => refuse(RefusalKind::State, what, "it takes no state"),
        Mut::SetItems(_) => refuse(RefusalKind::Items, what, "no items can be set on it"),
        _ => refuse(RefusalKind::Items, what, "no items can be added to it"),
    }
}

/// `OrderedDict.__dict__.update(state)`, and `Counter`'s.
fn attributes(node: NodeRef<'_>, state: NodeRef<'_>) -> Verdict {
    let mapping = match state.kind() {
        Kind::Dict => true,
        Kind::List => {
            let mut pairs = state.iter_items().take(MAX_ARGUMENTS + 1);
            pairs.by_ref().take(MAX_ARGUMENTS).all(|p| parts(p) == Some(2))
                && pairs.next().is_none()
        }
        Kind::None => node.class().is_some_and(|g| g.name == "Counter"),
        Kind::Tuple(parts) => {
            let slots = parts.iter().map(|&id| node.other(id).kind());
            parts.is_empty()
                || node.class().is_some_and(|g| g.name == "Counter")
                    && parts.len() == 2
                    && slots.clone().all(|k| matches!(k, Kind::Dict | Kind::None))
        }
        _ => is_mapping(state),
    };
    if mapping {
        return Ok(());
    }
    refuse(RefusalKind::State, what(node), format!("its state is a {}, no dict", what(state)))
}

/// `set_(storage, offset, size, stride)` of a tensor, and what a parameter of torch 0.3 has:
/// `(requires_grad, volatile, hooks)`.
fn state_fits(node: NodeRef<'_>, state: NodeRef<'_>) -> bool {
    let Some(class) = node.class() else { return false };
    let fields: Vec<NodeRef<'_>> = state.iter_items().take(MAX_ARGUMENTS).collect();
    match (class.module, class.name) {
        ("torch.storage", _) => is_state(state),
        ("torch.nn.parameter", _) | ("torch._utils", "_rebuild_parameter") => {
            matches!(fields[..], [grad, _, _] if matches!(grad.kind(), Kind::Bool(_)))
        }
        _ => parts(state).is_some() && fields.first().is_none_or(|s| is_storage(*s)),
    }
}

pub(super) fn is_mapping(node: NodeRef<'_>) -> bool {
    matches!(node.kind(), Kind::Dict)
        || node.class().is_some_and(|g| {
            g.module == "collections" && matches!(g.name, "OrderedDict" | "Counter")
        })
}

/// The length of a list or tuple.
pub(super) fn parts(node: NodeRef<'_>) -> Option<usize> {
    match node.kind() {
        Kind::Tuple(items) => Some(items.len()),
        Kind::List => Some(node.iter_items().take(MAX_ARGUMENTS).count()),
        _ => None,
    }
}

pub(super) fn hashable_items<'a>(items: impl Iterator<Item = NodeRef<'a>>) -> Verdict {
    for item in items {
        if let Some(inner) = unhashable(item) {
            return refuse(RefusalKind::Key, what(inner), "it cannot be hashed, so it is no key");
        }
    }
    Ok(())
}

/// The part of a key that Python cannot hash.
pub(crate) fn unhashable(key: NodeRef<'_>) -> Option<NodeRef<'_>> {
    let mut pending = vec![key];
    let mut budget = MAX_KEY_PARTS;
    while let Some(node) = pending.pop() {
        budget = budget.checked_sub(1)?;
        match node.kind() {
            Kind::List | Kind::Dict | Kind::Set | Kind::ByteArray(_) => return Some(node),
            Kind::Tuple(items) => {
                pending.extend(items.iter().take(MAX_KEY_PARTS).map(|&id| node.other(id)))
            }
            Kind::Reduce { .. } | Kind::NewObj { .. } => {
                let class = node.class()?;
                let mutable = is_mapping(node)
                    || class.module == "builtins" && matches!(class.name, "set" | "bytearray");
                if mutable {
                    return Some(node);
                }
            }
            _ => {}
        }
    }
    None
}

/// `('storage', class, key, location, elements)`, with a view behind it in streams. The positions
/// by which a document knows its storages are spelled so when it is written.
fn persistent(id: NodeRef<'_>) -> Verdict {
    let wrong = |why: &str| refuse(RefusalKind::PersistentId, "persistent id", why);
    match id.kind() {
        Kind::Int(_) => return Ok(()),
        Kind::Tuple(fields) if matches!(fields.len(), 5 | 6) => {
            if let Some(class) = id.other(fields[1]).as_global() {
                if !standing(class).is_allowed() {
                    return unlisted(&class.to_string(), "class");
                }
            }
        }
        _ => return wrong("it is no tuple of a storage"),
    }
    match storage::parse(id) {
        Some(Ok(_)) => Ok(()),
        _ => wrong("it is no storage"),
    }
}

/// `callable(*args)`.
fn called(
    node: NodeRef<'_>,
    callable: NodeId,
    args: NodeId,
    checked: &mut Checked,
) -> Result<Made, Refused> {
    let (callable, args) = (node.other(callable), node.other(args));
    let Some(g) = callable.as_global() else {
        refuse(RefusalKind::Call, what(callable), "it is called, and no name")?;
        return Ok(Made::Closed);
    };
    listed(g)?;
    let list = arguments(node, args)?;
    if matches!(g.module, "torch._utils" | "torch._tensor") {
        // The classes of tensors, and the functions that make them.
        list.iter().filter_map(|arg| arg.as_global()).try_for_each(listed)?;
    }
    if !arguments_fit(g, &list, checked) {
        refuse(
            RefusalKind::Call,
            g.to_string(),
            format!("it is not called with such arguments: {}", crate::text::repr(args)),
        )?;
    }
    Ok(result_of(g))
}

/// `class.__new__(class, *args)`; a parameter is called.
fn constructed(node: NodeRef<'_>, class: NodeId, args: NodeId) -> Result<Made, Refused> {
    let (class, args) = (node.other(class), node.other(args));
    let Some(g) = class.as_global() else {
        refuse(RefusalKind::Call, what(class), "it is no class, and an object of it is made")?;
        return Ok(Made::Closed);
    };
    listed(g)?;
    arguments(node, args)?;
    if !is_class(g) {
        refuse(RefusalKind::Call, g.to_string(), "it is no class, and an object of it is made")?;
    }
    Ok(result_of(g))
}

fn listed(g: Global<'_>) -> Verdict {
    match standing(g) {
        Standing::Blocked => refuse(RefusalKind::Global, g.to_string(), "its module is blocked"),
        s if s.is_allowed() => Ok(()),
        _ => unlisted(&g.to_string(), "class or function"),
    }
}

fn arguments<'a>(node: NodeRef<'a>, args: NodeRef<'a>) -> Result<Vec<NodeRef<'a>>, Refused> {
    if parts(args).is_none() {
        refuse(RefusalKind::Call, what(node), "its arguments are no tuple")?;
    }
    Ok(args.iter_items().take(MAX_ARGUMENTS + 1).collect())
}

fn is_dtype_like(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
}

fn is_class(g: Global<'_>) -> bool {
    match (g.module, g.name) {
        ("torch", "Size" | "Tensor" | "device") => true,
        ("_codecs" | "torch._utils" | "torch._tensor" | "torch.serialization", _) => false,
        // Of storages only these two are classes there, the others stand for their element type.
        ("torch.storage", _) => true,
        (_, name) => !name.ends_with("Storage") && (g.module != "torch" || !is_dtype_like(name)),
    }
}

fn result_of(g: Global<'_>) -> Made {
    match (g.module, g.name) {
        ("collections", _) => Made::Mapping,
        ("torch.distributed.device_mesh", _) => Made::Trusted,
        (module, _)
            if module.starts_with("torch.distributed.tensor")
                || module == "torch.distributed._mesh_layout" =>
        {
            Made::Trusted
        }
        ("torch", "Size" | "device") | ("builtins" | "_codecs" | "torch.serialization", _) => {
            Made::Closed
        }
        _ => Made::Object,
    }
}
