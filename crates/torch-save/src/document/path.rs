//! Changing what stands under a path.

use ckptkit_core::{Error, Result, Tensor};

use super::Document;
use crate::pickle::{Kind, Mut, NodeId, NodeRef};
use crate::text;

/// Where a value stands in what holds it.
#[derive(Clone, Copy)]
enum Slot {
    /// The value of the pair with this position of a dict.
    Pair(NodeId, usize),
    /// The item with this position of a list.
    Item(NodeId, usize),
    /// The item with this position of a tuple.
    Part(NodeId, usize),
}

/// Names nest in real files as deep as objects do; a path is short.
const MAX_STEPS: usize = 256;
/// Tensors are wrapped in a few calls at most.
const MAX_WRAPPERS: usize = 16;

impl Document {
    /// The node under a dotted path: keys of dicts, positions in lists and tuples, attributes of
    /// objects, as [`TorchFile::lookup`](crate::TorchFile::lookup) finds them. The empty path is
    /// the object.
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound), naming the keys that are there.
    pub fn at(&self, path: &str) -> Result<NodeId> {
        if path.is_empty() {
            return Ok(self.root);
        }
        self.find(path).map(|(_, node)| node)
    }

    /// Takes the value under a path out of the dict or list that holds it.
    ///
    /// # Errors
    /// `NotFound`; [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for an item of a
    /// tuple and for the whole object.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        match self.find(path)?.0 {
            Slot::Pair(holder, at) => {
                let mut pairs = self.pairs(holder);
                pairs.remove(at);
                self.builder().replace_pairs(holder, &pairs);
            }
            Slot::Item(holder, at) => {
                let mut items = self.items(holder);
                items.remove(at);
                self.builder().replace_items(holder, &items);
            }
            Slot::Part(..) => {
                return Err(Error::invalid(format!("{path:?} is an item of a tuple"))
                    .hint("replace the tuple as a whole"));
            }
        }
        Ok(())
    }

    /// Keeps of a dict, or of an object with items, under `path` those pairs for which `keep` says
    /// so, given the text of the key.
    ///
    /// # Errors
    /// As [`Document::at`].
    pub fn retain(
        &mut self,
        path: &str,
        mut keep: impl FnMut(&str, NodeRef<'_>) -> bool,
    ) -> Result<()> {
        let holder = self.at(path)?;
        let before = self.pairs(holder);
        let mut pairs = before.clone();
        pairs.retain(|&(k, v)| keep(&self.key_text(k), self.node(v)));
        if pairs.len() != before.len() {
            self.builder().replace_pairs(holder, &pairs);
        }
        Ok(())
    }

    /// Gives the value under a path another key in the dict that holds it. Its position stays.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where it is not in a dict, or the key is taken.
    pub fn rename(&mut self, path: &str, key: &str) -> Result<()> {
        let Slot::Pair(holder, at) = self.find(path)?.0 else {
            return Err(Error::invalid(format!("{path:?} stands in no dict, it has no key")));
        };
        let mut pairs = self.pairs(holder);
        let taken = pairs.iter().enumerate().any(|(i, (k, _))| i != at && self.key_text(*k) == key);
        if taken {
            return Err(Error::invalid(format!("the key {key:?} is taken"))
                .hint("remove the value under it first"));
        }
        pairs[at].0 = self.builder().str(key);
        self.builder().replace_pairs(holder, &pairs);
        Ok(())
    }

    /// Puts `value` under a path, in place of what stands there; or as a new key of the dict that
    /// the path but for its last key leads to.
    ///
    /// # Errors
    /// `NotFound` where neither is there.
    pub fn set(&mut self, path: &str, value: NodeId) -> Result<()> {
        if path.is_empty() {
            self.set_root(value);
            return Ok(());
        }
        match self.find(path) {
            Ok((Slot::Pair(holder, at), _)) => {
                let mut pairs = self.pairs(holder);
                pairs[at].1 = value;
                self.builder().replace_pairs(holder, &pairs);
            }
            Ok((Slot::Item(holder, at), _)) => {
                let mut items = self.items(holder);
                items[at] = value;
                self.builder().replace_items(holder, &items);
            }
            Ok((Slot::Part(holder, at), _)) => self.builder().replace_part(holder, at, value),
            Err(missing) => {
                let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
                let holder = self.at(parent)?;
                if !is_dict(self.node(holder)) {
                    return Err(missing);
                }
                let key = self.builder().str(key);
                self.builder().set_items(holder, &[(key, value)]);
            }
        }
        Ok(())
    }

    /// Replaces the tensor under a path, wherever it is referred to. A parameter stays one, a
    /// tensor of a class keeps its class.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` where no tensor stands there, or one that is made of others;
    /// as [`Document::tensors`].
    pub fn replace_tensor(&mut self, path: &str, tensor: &Tensor) -> Result<()> {
        let node = self.at(path)?;
        let inner = self.innermost(node).ok_or_else(|| {
            Error::invalid(format!("{path:?} is no tensor that others are not part of"))
        })?;
        let new = self.tensor(tensor)?;
        self.builder().replace(inner, new);
        Ok(())
    }

    /// The call that makes a tensor of a storage, inside those that wrap it.
    pub fn innermost(&self, mut node: NodeId) -> Option<NodeId> {
        for _ in 0..MAX_WRAPPERS {
            let (callable, args) = self.node(node).callable()?;
            let name = callable.as_global()?;
            match (name.module, name.name) {
                (
                    "torch._utils",
                    "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3",
                ) => {
                    return Some(node);
                }
                (
                    "torch._utils",
                    "_rebuild_parameter"
                    | "_rebuild_parameter_with_state"
                    | "_rebuild_device_tensor_from_cpu_tensor",
                )
                | ("torch.nn.parameter", "Parameter" | "Buffer") => {
                    node = args.iter_items().next()?.id();
                }
                _ => return None,
            }
        }
        None
    }

    fn pairs(&self, holder: NodeId) -> Vec<(NodeId, NodeId)> {
        self.node(holder).pairs().iter().map(|(k, v)| (k.id(), v.id())).collect()
    }

    fn items(&self, holder: NodeId) -> Vec<NodeId> {
        self.node(holder).iter_items().map(NodeRef::id).collect()
    }

    fn key_text(&self, key: NodeId) -> String {
        ckptkit_core::join(&[text::key(self.node(key))])
    }

    fn find(&self, path: &str) -> Result<(Slot, NodeId)> {
        if path.is_empty() {
            return Err(Error::invalid("the whole object has no place that holds it"));
        }
        self.find_from(self.root, path, 0).ok_or_else(|| {
            let mut held: Vec<String> =
                self.slots(self.root).into_iter().map(|(key, ..)| key).collect();
            held.truncate(12);
            Error::not_found(format!("there is no value {path:?}"))
                .hint(format!("the root holds: {}", held.join(", ")))
        })
    }

    /// The longest key that leads to the end of the path wins.
    fn find_from(&self, node: NodeId, path: &str, depth: usize) -> Option<(Slot, NodeId)> {
        if depth > MAX_STEPS {
            return None;
        }
        let mut fits: Vec<(usize, &str, Slot, NodeId)> = Vec::new();
        for (key, slot, value) in self.slots(node) {
            for spelled in [key.replace('.', "\\."), key] {
                let Some(rest) = path.strip_prefix(spelled.as_str()) else { continue };
                match rest.strip_prefix('.') {
                    Some(rest) => fits.push((spelled.len(), rest, slot, value)),
                    None if rest.is_empty() => fits.push((spelled.len(), "", slot, value)),
                    None => {}
                }
            }
        }
        fits.sort_by_key(|(len, ..)| std::cmp::Reverse(*len));
        fits.into_iter().find_map(|(_, rest, slot, value)| {
            if rest.is_empty() {
                return Some((slot, value));
            }
            self.find_from(value, rest, depth + 1)
        })
    }

    /// What a node holds, each under the text of its key.
    fn slots(&self, id: NodeId) -> Vec<(String, Slot, NodeId)> {
        let node = self.node(id);
        let mut out = Vec::new();
        let pairs_of = |holder: NodeRef<'_>, out: &mut Vec<(String, Slot, NodeId)>| {
            for (i, (key, value)) in holder.pairs().into_iter().enumerate() {
                out.push((self.key_text(key.id()), Slot::Pair(holder.id(), i), value.id()));
            }
        };
        pairs_of(node, &mut out);
        if let Kind::Tuple(parts) = node.kind() {
            out.extend(
                parts.iter().enumerate().map(|(i, &p)| (i.to_string(), Slot::Part(id, i), p)),
            );
        } else if node.muts().any(|m| matches!(m, Mut::Append(_))) {
            let items = node.iter_items().enumerate();
            out.extend(items.map(|(i, v)| (i.to_string(), Slot::Item(id, i), v.id())));
        }
        for change in node.muts() {
            let Mut::Build(state) = change else { continue };
            let state = node.other(state);
            match state.kind() {
                Kind::Dict => pairs_of(state, &mut out),
                Kind::Tuple(&[dict, slots]) => {
                    pairs_of(node.other(dict), &mut out);
                    pairs_of(node.other(slots), &mut out);
                }
                _ => {}
            }
        }
        out
    }
}

fn is_dict(node: NodeRef<'_>) -> bool {
    matches!(node.kind(), Kind::Dict)
        || node.muts().any(|m| matches!(m, Mut::SetItems(_)))
        || node.class().is_some_and(|g| g.is("collections", "OrderedDict"))
}
