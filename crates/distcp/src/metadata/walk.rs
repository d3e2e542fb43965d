//! Reading Python objects off the pickle's graph, without allocating for each.

use std::borrow::Cow;

use ckptkit_core::{Error, Result};
use torch_save::pickle::{Kind, Mut, NodeId, NodeRef};

const DCP: [&str; 2] =
    ["torch.distributed.checkpoint.metadata", "torch.distributed._shard.checkpoint.metadata"];
const FILESYSTEM: [&str; 2] =
    ["torch.distributed.checkpoint.filesystem", "torch.distributed._shard.checkpoint.filesystem"];
const SHARDED_TENSOR: &str = "torch.distributed._shard.sharded_tensor.metadata";
const MEGATRON: &str = "megatron.core.dist_checkpointing.strategies.torch";

/// The classes that the tables are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Metadata,
    MCoreMetadata,
    Tensor,
    Bytes,
    Chunk,
    Properties,
    ShardProperties,
    Index,
    StorageInfo,
}

/// Which class the node is an object of.
///
/// # Errors
/// `Unsupported`, naming module and qualified name, for any other; `Malformed` for no object.
pub(super) fn class(node: NodeRef<'_>, wanted: &'static str) -> Result<Class> {
    let (Kind::NewObj { class, .. }
    | Kind::NewObjEx { class, .. }
    | Kind::Reduce { callable: class, .. }) = node.kind()
    else {
        return Err(Error::malformed(format!("{} stands where {wanted} should", describe(node))));
    };
    let Kind::Global(global) = node.other(class).kind() else {
        return Err(Error::malformed(format!("the class of {wanted} is no plain name")));
    };
    let dcp = || DCP.contains(&global.module);
    match global.name {
        "ChunkStorageMetadata" if dcp() => Ok(Class::Chunk),
        "MetadataIndex" if dcp() => Ok(Class::Index),
        "_StorageInfo" if FILESYSTEM.contains(&global.module) => Ok(Class::StorageInfo),
        "TensorStorageMetadata" if dcp() => Ok(Class::Tensor),
        "TensorProperties" if dcp() => Ok(Class::Properties),
        "TensorProperties" if global.module == SHARDED_TENSOR => Ok(Class::ShardProperties),
        "BytesStorageMetadata" if dcp() => Ok(Class::Bytes),
        "Metadata" if dcp() => Ok(Class::Metadata),
        "MCoreMetadata" if global.module == MEGATRON => Ok(Class::MCoreMetadata),
        _ => Err(unknown_global(node, wanted)),
    }
}

/// The error for an object whose class is off the table where its value is needed.
pub(super) fn unknown_global(node: NodeRef<'_>, wanted: &str) -> Error {
    match node.class() {
        Some(global) => Error::unsupported(format!(
            "{wanted} is made by {global}, which this reader does not know and does not call"
        )),
        None => Error::malformed(format!("{} stands where {wanted} should", describe(node))),
    }
}

/// What a node is, for messages.
pub(super) fn describe(node: NodeRef<'_>) -> String {
    if let Some(class) = node.class() {
        return format!("an object of {class}");
    }
    match node.kind() {
        Kind::None => "None".into(),
        Kind::Bool(b) => if b { "True" } else { "False" }.into(),
        Kind::Int(i) => i.to_string(),
        Kind::BigInt(_) => "a huge integer".into(),
        Kind::Float(f) => f.to_string(),
        Kind::Str(s) => format!("{:?}", shorten(s)),
        Kind::Bytes(_) | Kind::ByteArray(_) => "bytes".into(),
        Kind::Tuple(_) => "a tuple".into(),
        Kind::List => "a list".into(),
        Kind::Dict => "a dict".into(),
        Kind::Set | Kind::FrozenSet(_) => "a set".into(),
        Kind::Global(g) => g.to_string(),
        Kind::PersId(_) => "a persistent id".into(),
        _ => "an object".into(),
    }
}

fn shorten(text: &[u8]) -> String {
    let text = escaped(text);
    if text.chars().count() <= 80 { text } else { text.chars().take(80).chain(['…']).collect() }
}

/// Text whose lone surrogates are written as `\udc80`.
pub(super) fn escaped(text: &[u8]) -> String {
    readable(text).into_owned()
}

/// As [`escaped`], borrowed where nothing is.
pub(super) fn readable(text: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        match std::str::from_utf8(rest) {
            Ok(text) => {
                out.push_str(text);
                break;
            }
            Err(e) => {
                let (good, bad) = rest.split_at(e.valid_up_to());
                out.push_str(std::str::from_utf8(good).unwrap_or_default());
                // A surrogate is three bytes: ED, A0 to BF, 80 to BF.
                if let [0xED, b @ 0xA0..=0xBF, c @ 0x80..=0xBF, after @ ..] = bad {
                    let unit = 0xD000 | u32::from(b & 0x3F) << 6 | u32::from(c & 0x3F);
                    out.push_str(&format!("\\u{unit:04x}"));
                    rest = after;
                } else {
                    let (first, after) = bad.split_at(1);
                    out.push_str(&format!("\\x{:02x}", first[0]));
                    rest = after;
                }
            }
        }
    }
    Cow::Owned(out)
}

/// The named attributes of an object; those that are `None` count as absent.
pub(super) fn fields<'a, const N: usize>(
    node: NodeRef<'a>,
    names: [&str; N],
) -> [Option<NodeRef<'a>>; N] {
    let mut out = [None; N];
    let mut take = |dict: NodeRef<'a>| {
        for m in dict.muts() {
            let Mut::SetItems(flat) = m else { continue };
            for pair in flat.chunks_exact(2) {
                let Kind::Str(key) = dict.other(pair[0]).kind() else { continue };
                if let Some(i) = names.iter().position(|n| n.as_bytes() == key) {
                    let value = dict.other(pair[1]);
                    out[i] = (!value.is_none()).then_some(value);
                }
            }
        }
    };
    for m in node.muts() {
        let Mut::Build(state) = m else { continue };
        let state = node.other(state);
        match state.kind() {
            Kind::Tuple(&[dict, slots]) => {
                take(node.other(dict));
                take(node.other(slots));
            }
            _ => take(state),
        }
    }
    out
}

/// Calls `f` with every key and value of a mapping; the flag says that an earlier mapping of a
/// `ChainMap` may hide it.
///
/// # Errors
/// Those of `f`, and when the node is no mapping.
pub(super) fn each_pair<'a>(
    node: NodeRef<'a>,
    wanted: &'static str,
    f: &mut dyn FnMut(NodeRef<'a>, NodeRef<'a>, bool) -> Result<()>,
) -> Result<()> {
    let mut set_items = |node: NodeRef<'a>, hidden: bool| {
        for m in node.muts() {
            let Mut::SetItems(flat) = m else { continue };
            for pair in flat.chunks_exact(2) {
                f(node.other(pair[0]), node.other(pair[1]), hidden)?;
            }
        }
        Ok(())
    };
    if matches!(node.kind(), Kind::Dict) {
        return set_items(node, false);
    }
    let Some(class) = node.class() else { return Err(unknown_global(node, wanted)) };
    match (class.module, class.name) {
        ("collections", "ChainMap") => {
            let [maps] = fields(node, ["maps"]);
            let maps = match maps {
                Some(maps) => maps.items(),
                None => node.call().map(|(_, args)| args).unwrap_or_default(),
            };
            for (i, map) in maps.into_iter().enumerate() {
                if !matches!(map.kind(), Kind::Dict) {
                    return Err(unknown_global(map, wanted));
                }
                set_items(map, i > 0)?;
            }
            Ok(())
        }
        ("collections", "OrderedDict" | "defaultdict") | ("builtins", "dict") => {
            set_items(node, false)?;
            // OrderedDict([[key, value], …]), as old protocols write it.
            let args = node.call().map(|(_, args)| args).unwrap_or_default();
            for pair in args.first().map(|a| a.items()).unwrap_or_default() {
                match pair.items()[..] {
                    [key, value] => f(key, value, false)?,
                    _ => return Err(unknown_global(pair, wanted)),
                }
            }
            Ok(())
        }
        _ => Err(unknown_global(node, wanted)),
    }
}

/// How many pairs a dict was given.
pub(super) fn pair_count(dict: NodeRef<'_>) -> usize {
    let lens = dict.muts().map(|m| if let Mut::SetItems(flat) = m { flat.len() / 2 } else { 0 });
    lens.sum()
}

/// The items of a list or tuple.
pub(super) fn items<'a>(node: NodeRef<'a>, wanted: &'static str) -> Result<Cow<'a, [NodeId]>> {
    let ids = |node: NodeRef<'a>| node.iter_items().map(NodeRef::id).collect::<Vec<_>>();
    match node.kind() {
        Kind::Tuple(items) if node.muts().next().is_none() => Ok(Cow::Borrowed(items)),
        Kind::List => {
            let mut added = node.muts();
            match (added.next(), added.next()) {
                (None, _) => Ok(Cow::Borrowed(&[])),
                (Some(Mut::Append(items)), None) => Ok(Cow::Borrowed(items)),
                _ => Ok(Cow::Owned(ids(node))),
            }
        }
        Kind::Tuple(_) => Ok(Cow::Owned(ids(node))),
        _ => match node.class() {
            Some(class) if class.is("builtins", "list") => {
                let mut all = Vec::new();
                if let Some(arg) = node.call().and_then(|(_, args)| args.first().copied()) {
                    all = ids(arg);
                }
                all.extend(ids(node));
                Ok(Cow::Owned(all))
            }
            _ => Err(unknown_global(node, wanted)),
        },
    }
}

/// Appends the numbers of a `torch.Size` (or a plain tuple or list) to `out`; says how many.
///
/// # Errors
/// For what is no number from 0 to 2⁶³-1, and for more than 64 of them.
pub(super) fn dims(node: NodeRef<'_>, wanted: &'static str, out: &mut Vec<u64>) -> Result<u8> {
    let inner = match node.kind() {
        Kind::Reduce { callable, args } | Kind::NewObj { class: callable, args } => {
            if !node.other(callable).as_global().is_some_and(|g| g.is("torch", "Size")) {
                return Err(unknown_global(node, wanted));
            }
            match node.other(args).kind() {
                Kind::Tuple(&[one]) => node.other(one),
                Kind::Tuple([]) => node.other(args),
                _ => return Err(unknown_global(node, wanted)),
            }
        }
        _ => node,
    };
    let ids = match inner.kind() {
        Kind::Tuple(ids) => Cow::Borrowed(ids),
        Kind::List => items(inner, wanted)?,
        _ => return Err(unknown_global(inner, wanted)),
    };
    let rank = u8::try_from(ids.len())
        .ok()
        .filter(|&r| usize::from(r) <= ckptkit_core::shape::MAX_DIMS)
        .ok_or_else(|| {
            Error::malformed(format!(
                "{wanted} has {} dimensions, at most {} are possible",
                ids.len(),
                ckptkit_core::shape::MAX_DIMS
            ))
        })?;
    for &id in ids.iter() {
        out.push(count(inner.other(id), wanted)?);
    }
    Ok(rank)
}

/// A number from 0 to 2⁶³-1.
pub(super) fn count(node: NodeRef<'_>, wanted: &str) -> Result<u64> {
    match node.kind() {
        Kind::Int(i) => u64::try_from(i)
            .map_err(|_| Error::malformed(format!("{wanted} has the negative number {i}"))),
        Kind::BigInt(b) => Err(Error::malformed(format!(
            "{wanted} has the number {}, more than an i64 can hold",
            if b.len() > 64 {
                "of hundreds of digits".into()
            } else {
                torch_save::pickle::decimal(b)
            }
        ))),
        _ => Err(Error::malformed(format!("{wanted} has {} for a number", describe(node)))),
    }
}
