//! Which tensors are the model's weights.

use std::borrow::Cow;
use std::sync::Arc;

use ckptkit_core::{Error, ErrorKind, Key, Result, Tensor, TensorBytes, join};

use crate::opened::{Entry, Opened, Rule};

/// Under one of these keys people keep a model's state dict.
const KEYS: [&str; 12] = [
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "ema",
    "ema_state_dict",
    "ema_model",
    "model_ema",
    "net",
    "network",
    "weights",
    "generator",
];

/// The model's state dict.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Weights {
    /// The key that they stood under, `None` for the root.
    pub key: Option<String>,
    /// The tensors under their names without the key, in the order of the file.
    pub tensors: Vec<Tensor>,
    /// The names that the same tensors have in the whole checkpoint, in the same order.
    pub full_names: Vec<Arc<str>>,
}

pub(crate) fn find(opened: &Opened, key: Option<&str>) -> Result<Weights> {
    match (key, &opened.weights) {
        (Some(""), _) | (None, Rule::Root) => Ok(root(opened, &[])),
        (Some(key), _) => under(opened, key),
        (None, Rule::RootExcept(others)) => Ok(root(opened, others)),
        (None, Rule::Key(key)) => under(opened, key).or_else(|e| match e.kind() {
            // The format keeps them there, and there are none.
            ErrorKind::NotFound => {
                Ok(Weights { key: Some(key.clone()), tensors: Vec::new(), full_names: Vec::new() })
            }
            _ => Err(e),
        }),
        (None, Rule::Search { object }) => search(opened, *object),
    }
}

fn root(opened: &Opened, except: &[String]) -> Weights {
    let is_other = |e: &&Entry| {
        !except.iter().any(|p| {
            e.tensor.name().starts_with(p.as_str())
                || matches!(e.path().first(), Some(Key::Str(k)) if **k == **p)
        })
    };
    let entries: Vec<&Entry> = opened.entries.iter().filter(is_other).collect();
    Weights {
        key: None,
        full_names: entries.iter().map(|e| e.tensor.info().shared_name()).collect(),
        tensors: entries.into_iter().map(|e| e.tensor.clone()).collect(),
    }
}

/// The number of keys of `path` that spell `key`, where they do.
fn prefix_len(path: &[Key], key: &str) -> Option<usize> {
    (1..path.len()).find(|&n| join(&path[..n]) == key)
}

fn under(opened: &Opened, key: &str) -> Result<Weights> {
    let dotted = format!("{key}.");
    let mut out =
        Weights { key: Some(key.to_owned()), tensors: Vec::new(), full_names: Vec::new() };
    let mut paths: Vec<Cow<'_, [Key]>> = Vec::new();
    for entry in &opened.entries {
        let rest = match prefix_len(entry.path(), key) {
            Some(n) => Cow::Borrowed(&entry.path()[n..]),
            // A flat name that begins with the key: distributed checkpoints without paths.
            None => match entry.tensor.name().strip_prefix(&dotted) {
                Some(rest) if entry.path().len() == 1 => Cow::Owned(vec![Key::Str(rest.into())]),
                _ => continue,
            },
        };
        paths.push(rest);
        out.full_names.push(entry.tensor.info().shared_name());
        out.tensors.push(entry.tensor.clone());
    }
    if out.tensors.is_empty() {
        let keys = holders(opened).join(", ");
        return Err(Error::not_found(format!("there are no tensors under the key {key:?}"))
            .hint(format!("keys that hold tensors: {keys}")));
    }
    let names = ckptkit_core::unique_names(paths.iter().map(|path| &**path));
    for (tensor, name) in out.tensors.iter_mut().zip(names) {
        *tensor = tensor.renamed(name);
    }
    Ok(out)
}

/// The keys at the root that hold tensors, in order.
fn holders(opened: &Opened) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for entry in opened.entries.iter().filter(|e| e.path().len() > 1) {
        let key = join(&entry.path()[..1]);
        if !out.contains(&key) {
            out.push(key);
        }
    }
    out
}

fn search(opened: &Opened, object: bool) -> Result<Weights> {
    let holders = holders(opened);
    if object {
        return Ok(root(opened, &[]));
    }
    let mut candidates: Vec<String> =
        holders.iter().filter(|k| KEYS.contains(&k.as_str())).cloned().collect();
    if candidates.is_empty() {
        candidates = inside_wrappers(opened);
    }
    match &candidates[..] {
        [key] => under(opened, key),
        [] if opened.entries.iter().all(|e| e.path().len() > 1) && !opened.entries.is_empty() => {
            Err(ambiguous("no key of the usual names holds the weights", &holders))
        }
        [] => Ok(root(opened, &[])),
        several => Err(ambiguous("several keys could hold the weights", several)),
    }
}

/// Keys such as `app.model`, one level down.
fn inside_wrappers(opened: &Opened) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for entry in opened.entries.iter().filter(|e| e.path().len() > 2) {
        let wrapper = join(&entry.path()[..1]);
        let key = join(&entry.path()[1..2]);
        if !KEYS.contains(&key.as_str()) || wrapper.starts_with("optim") {
            continue;
        }
        let both = format!("{wrapper}.{key}");
        if !out.contains(&both) {
            out.push(both);
        }
    }
    out
}

fn ambiguous(what: &str, candidates: &[String]) -> Error {
    let first = candidates.first().map_or("KEY", String::as_str);
    let plain = |c: char| c.is_alphanumeric() || "._-/".contains(c);
    let first = if first.chars().all(plain) {
        first.to_owned()
    } else {
        format!("'{}'", first.replace('\'', "'\\''"))
    };
    Error::invalid(format!("{what}: {}", candidates.join(", ")))
        .hint(format!("choose one with --weights-key, such as --weights-key {first}"))
}

/// Elements of all weights, tied ones once.
pub(crate) fn parameters(weights: &Weights) -> u64 {
    let mut seen = std::collections::HashSet::new();
    weights
        .tensors
        .iter()
        .filter(|t| match (t.info().storage(), t.bytes()) {
            (Some(id), TensorBytes::Range(s)) => seen.insert((id, s.offset(), t.shape().to_vec())),
            (Some(id), TensorBytes::Strided(s)) => seen.insert((id, s.offset, t.shape().to_vec())),
            _ => true,
        })
        .map(|t| t.info().numel())
        .sum()
}
