//! Which arguments the functions on the list take: number and kind, as far as it can be told before
//! anything is built.

use super::globals::standing;
use super::judge::{Checked, MAX_ARGUMENTS, hashable_items, is_mapping, parts, unhashable};
use crate::numpy;
use crate::pickle::{Global, Kind, NodeRef};

pub(super) fn is_storage(node: NodeRef<'_>) -> bool {
    matches!(node.kind(), Kind::PersId(_))
        || node.class().is_some_and(|g| g.is("torch.storage", "TypedStorage"))
}

/// A tuple or list of integers, or a `torch.Size`. What is no number yet may become one.
fn is_dims(node: NodeRef<'_>) -> bool {
    let is_number = |n: NodeRef<'_>| {
        !matches!(n.kind(), Kind::Float(_) | Kind::Str(_) | Kind::None | Kind::List | Kind::Dict)
    };
    match node.kind() {
        Kind::Tuple(_) | Kind::List => node.iter_items().take(MAX_ARGUMENTS).all(is_number),
        _ => node.class().is_some_and(|g| g.is("torch", "Size")),
    }
}

/// Whether something may turn out to be a tensor.
fn may_be_tensor(node: NodeRef<'_>) -> bool {
    node.callable().is_some() && numpy::array(node).is_none()
        || matches!(node.kind(), Kind::PersId(_))
}

pub(super) fn is_state(node: NodeRef<'_>) -> bool {
    match node.kind() {
        Kind::None | Kind::Dict => true,
        Kind::Tuple(&[a, b]) => {
            [a, b].iter().all(|&id| matches!(node.other(id).kind(), Kind::Dict | Kind::None))
        }
        _ => is_mapping(node),
    }
}

fn is_iterable(node: NodeRef<'_>) -> bool {
    matches!(node.kind(), Kind::Tuple(_) | Kind::List | Kind::Set | Kind::Dict | Kind::Str(_))
        || node.callable().is_some()
}

fn is_text(node: NodeRef<'_>) -> bool {
    matches!(node.kind(), Kind::Str(_))
}

fn is_real(node: NodeRef<'_>) -> bool {
    matches!(node.kind(), Kind::Int(_) | Kind::BigInt(_) | Kind::Float(_) | Kind::Bool(_))
}

/// Whether a function on the list takes these arguments.
pub(super) fn arguments_fit(g: Global<'_>, args: &[NodeRef<'_>], checked: &mut Checked) -> bool {
    let n = args.len();
    match (g.module, g.name) {
        ("collections", "OrderedDict") => match args {
            [] => true,
            [pairs] => match pairs.kind() {
                Kind::List | Kind::Tuple(_) if checked.insert(pairs.id()) => {
                    let is_pair = |pair: NodeRef<'_>| {
                        parts(pair).is_none_or(|n| n == 2)
                            && pair.iter_items().next().is_none_or(|key| unhashable(key).is_none())
                    };
                    pairs.iter_items().all(is_pair)
                }
                _ => is_iterable(*pairs),
            },
            _ => false,
        },
        ("collections", _) => match args {
            [] => true,
            [of] => is_iterable(*of) || of.is_none(),
            _ => false,
        },
        ("builtins", "set") => match args {
            [] => true,
            [items] => {
                is_iterable(*items)
                    && (!checked.insert(items.id()) || hashable_items(items.iter_items()).is_ok())
            }
            _ => false,
        },
        ("builtins", "bytearray") => match args {
            [] => true,
            [one] => !is_text(*one),
            [text, ..] => n <= 3 && is_text(*text),
        },
        ("builtins", "complex") => match args {
            [] => true,
            [one] => is_real(*one) || is_text(*one) || one.callable().is_some(),
            [re, im] => [re, im].iter().all(|n| is_real(**n) || n.callable().is_some()),
            _ => false,
        },
        ("_codecs", "encode") => match args {
            [text, more @ ..] => more.len() <= 2 && is_text(*text) && is_latin(*text, more),
            [] => false,
        },
        ("torch", "Size") => match args {
            [] => true,
            [dims] => is_dims(*dims),
            _ => false,
        },
        ("torch", "device") => matches!(n, 1 | 2) && (is_text(args[0]) || n == 1),
        ("torch.serialization", _) => {
            const LAYOUTS: [&str; 8] = [
                "strided",
                "sparse_coo",
                "sparse_csr",
                "sparse_csc",
                "sparse_bsr",
                "sparse_bsc",
                "_mkldnn",
                "jagged",
            ];
            let name = args.first().and_then(|n| n.as_str()).and_then(|n| n.strip_prefix("torch."));
            n == 1 && name.is_some_and(|name| LAYOUTS.contains(&name))
        }
        ("torch._utils" | "torch._tensor", function) => tensor_fits(function, args),
        ("torch.nn.parameter", _) => n <= 2 && args.first().is_none_or(|d| may_be_tensor(*d)),
        ("torch", name) => name.ends_with("Tensor"),
        (module, name) => !name.ends_with("Storage") || module == "torch.storage",
    }
}

/// Whether `latin1`, the one codec that pickles name, can encode a text.
fn is_latin(text: NodeRef<'_>, more: &[NodeRef<'_>]) -> bool {
    let codec = more.first().and_then(|n| n.as_str());
    !matches!(codec, Some("latin1" | "latin-1"))
        || text.as_str().is_some_and(|t| t.chars().all(|c| u32::from(c) < 0x100))
}

/// The functions that rebuild tensors (`torch/_utils.py`).
fn tensor_fits(function: &str, args: &[NodeRef<'_>]) -> bool {
    let n = args.len();
    let placed = |args: &[NodeRef<'_>]| {
        let is_offset = args[1].as_u64().is_some() || args[1].callable().is_some();
        is_storage(args[0]) && is_offset && is_dims(args[2]) && is_dims(args[3])
    };
    match function {
        "_rebuild_tensor" => n == 4 && placed(args),
        "_rebuild_tensor_v2" => matches!(n, 6 | 7) && placed(args),
        "_rebuild_tensor_v3" => matches!(n, 7 | 8) && placed(args),
        "_rebuild_qtensor" => n == 7 && placed(args),
        "_rebuild_parameter" => n == 3 && (may_be_tensor(args[0]) || args[0].is_none()),
        "_rebuild_parameter_with_state" => {
            n == 4 && (may_be_tensor(args[0]) || args[0].is_none()) && is_state(args[3])
        }
        "_rebuild_sparse_tensor" => n == 2 && parts(args[1]).is_some_and(|n| matches!(n, 3 | 4)),
        "_rebuild_meta_tensor_no_storage" => n == 4 && is_dims(args[1]) && is_dims(args[2]),
        "_rebuild_wrapper_subclass" => n == 8,
        "_rebuild_device_tensor_from_cpu_tensor" => n == 4 && may_be_tensor(args[0]),
        // It takes NumPy arrays, which nothing on the list makes.
        "_rebuild_device_tensor_from_numpy" => false,
        "_rebuild_from_type_v2" => {
            let makes_tensor = |g: Global<'_>| {
                g.module == "torch._utils" || g.name.ends_with("Tensor") || g.name == "Parameter"
            };
            n == 4
                && args[0].as_global().is_some_and(makes_tensor)
                && args[1].as_global().is_some_and(|g| standing(g).is_allowed())
                && parts(args[2]).is_some()
        }
        _ => true,
    }
}
