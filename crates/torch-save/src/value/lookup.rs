//! Looking a value up by its dotted path.

use ckptkit_core::{Error, Result};

use super::{Context, Value};
use crate::file::TorchFile;
use crate::pickle::{Kind, NodeRef};
use crate::text;

impl Value {
    /// What stands under a dotted path: keys of dicts, positions in lists, attributes of objects.
    /// Keys may contain dots themselves, plain or escaped (`a\.b`); the longest key that fits wins.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Self> {
        if path.is_empty() {
            return Some(self);
        }
        let mut best: Option<(usize, &Self)> = None;
        for (key, value) in self.children() {
            for key in [key.replace('.', "\\."), key] {
                let Some(rest) = path.strip_prefix(key.as_str()) else { continue };
                let rest = match rest.strip_prefix('.') {
                    Some(rest) => rest,
                    None if rest.is_empty() => rest,
                    None => continue,
                };
                if best.is_none_or(|(len, _)| key.len() > len) {
                    if let Some(found) = value.get(rest) {
                        best = Some((key.len(), found));
                    }
                }
            }
        }
        best.map(|(_, found)| found)
    }

    /// What it holds, each under the text of its key.
    fn children(&self) -> Vec<(String, &Self)> {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Set(items) | Self::FrozenSet(items) => {
                items.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect()
            }
            Self::Dict(pairs) => pairs.iter().map(|(k, v)| (k.key_text(), v)).collect(),
            Self::Object(object) => {
                let mut out = object.value.as_ref().map(Self::children).unwrap_or_default();
                out.extend(object.extra.iter().map(|(k, v)| ((*k).to_owned(), v)));
                if let Some(args) = &object.args {
                    out.extend(args.iter().enumerate().map(|(i, v)| (i.to_string(), v)));
                }
                out
            }
            _ => Vec::new(),
        }
    }

    /// A key as paths spell it.
    #[must_use]
    pub fn key_text(&self) -> String {
        match self {
            Self::None => "None".into(),
            Self::Bool(true) => "True".into(),
            Self::Bool(false) => "False".into(),
            Self::Int(i) => i.to_string(),
            Self::BigInt(s) | Self::Str(s) | Self::Global(s) => s.clone(),
            Self::Float(f) => text::float(*f),
            Self::Surrogates(b) => text::lossy(b),
            Self::Bytes(b) => text::bytes(b),
            Self::Tuple(items) => {
                let quoted = |v: &Self| match v {
                    Self::Str(s) => format!("'{s}'"),
                    v => v.key_text(),
                };
                let inner: Vec<String> = items.iter().map(quoted).collect();
                if inner.len() == 1 {
                    format!("({},)", inner[0])
                } else {
                    format!("({})", inner.join(", "))
                }
            }
            _ => "…".into(),
        }
    }
}

impl TorchFile {
    /// The plain value of a node of [`TorchFile::graph`]; tensors in it by their names.
    ///
    /// # Errors
    /// [`LimitExceeded`](ckptkit_core::ErrorKind::LimitExceeded) when it nests more than some
    /// hundred deep or has millions of parts: ask for a part of it.
    pub fn value(&self, node: NodeRef<'_>) -> Result<Value> {
        self.value_under(node, &[])
    }

    /// As [`TorchFile::value`], of a node that stands under these keys.
    fn value_under(&self, node: NodeRef<'_>, base: &[String]) -> Result<Value> {
        let name = |id, keys: &[String]| {
            self.tensor_under(id, base, keys).map(|e| e.tensor().name().to_owned())
        };
        Context::new(node.graph(), &name).value(node).map_err(|e| e.in_file(self.section().name()))
    }

    /// The value under a dotted path from the root; the empty path is the whole object. Plain
    /// containers on the way are walked, not converted.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound), naming the keys that are there; and as
    /// [`TorchFile::value`].
    pub fn lookup(&self, path: &str) -> Result<Value> {
        let mut node = self.root();
        let mut rest = path;
        let mut keys = Vec::new();
        while let Some((key, child, after)) = step(node, rest) {
            (node, rest) = (child, after);
            keys.push(key);
        }
        // What a plain dict does not have need not be looked for in the values under it.
        if !rest.is_empty() && matches!(node.kind(), Kind::Dict) && node.attributes().is_empty() {
            let held = node.pairs().into_iter().map(|(k, _)| ckptkit_core::join(&[text::key(k)]));
            return Err(self.absent(path, rest, held.collect()));
        }
        let value = self.value_under(node, &keys)?;
        value.get(rest).cloned().ok_or_else(|| {
            let held = value.children().into_iter().map(|(key, _)| key);
            self.absent(path, rest, held.collect())
        })
    }

    /// The error for a path of which `rest` leads nowhere.
    fn absent(&self, path: &str, rest: &str, mut held: Vec<String>) -> Error {
        held.truncate(12);
        let at = path.strip_suffix(rest).unwrap_or("").trim_end_matches('.');
        let place = if at.is_empty() { "the root".to_owned() } else { format!("{at:?}") };
        let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
        Error::not_found(format!("there is no value {path:?}"))
            .in_file(self.section().name())
            .hint(format!("{place} holds: {held}"))
    }
}

/// One step into a dict by the longest key that starts the path; `None` where the walk ends.
fn step<'a, 'p>(node: NodeRef<'a>, path: &'p str) -> Option<(String, NodeRef<'a>, &'p str)> {
    if path.is_empty() || !matches!(node.kind(), Kind::Dict) {
        return None;
    }
    let mut best: Option<(String, NodeRef<'a>, &'p str)> = None;
    for (key, value) in node.pairs() {
        let key = ckptkit_core::join(&[text::key(key)]);
        for spelled in [key.replace('.', "\\."), key.clone()] {
            let rest = match path.strip_prefix(spelled.as_str()) {
                Some("") => "",
                Some(rest) => match rest.strip_prefix('.') {
                    Some(rest) => rest,
                    None => continue,
                },
                None => continue,
            };
            if best.as_ref().is_none_or(|(best, ..)| key.len() > best.len()) {
                best = Some((key.clone(), value, rest));
            }
        }
    }
    best
}
