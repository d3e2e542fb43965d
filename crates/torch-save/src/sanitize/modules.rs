//! Pickled `nn.Module`s: their state dicts.

use std::collections::HashSet;

use ckptkit_core::{Error, Result};

use super::walk::{Form, Walk};
use crate::pickle::{NodeId, NodeRef};
use crate::text;

/// Bytes of names that a module's state dict may have, beside some times the size of the pickle.
const NAME_COST: usize = 16;

enum Task {
    Enter(NodeId, String),
    Leave(NodeId),
}

impl Walk<'_> {
    /// The form of an `nn.Module`; `None` for any other object.
    pub(super) fn module(&mut self, id: NodeId) -> Result<Option<Form>> {
        let node = self.document.node(id);
        if node.attribute("_parameters").is_none() || node.attribute("_modules").is_none() {
            return Ok(None);
        }
        if !self.options.modules {
            let name = self.callee(node).unwrap_or_else(|| "torch.nn.Module".into());
            return Ok(Some(self.description(&name, &[]).note("its weights are left out")));
        }
        let mut pairs: Vec<(String, NodeId)> = Vec::new();
        let mut open: HashSet<NodeId> = HashSet::new();
        let mut cut = false;
        let mut tasks = vec![Task::Enter(id, String::new())];
        while let Some(task) = tasks.pop() {
            let (id, prefix) = match task {
                Task::Enter(id, prefix) => (id, prefix),
                Task::Leave(id) => {
                    open.remove(&id);
                    continue;
                }
            };
            if !open.insert(id) {
                cut = true;
                continue;
            }
            self.spend(prefix.len() + NAME_COST)?;
            tasks.push(Task::Leave(id));
            let module = self.document.node(id);
            for (key, value) in own_tensors(module) {
                pairs.push((format!("{prefix}{}", name_of(key)), value.id()));
            }
            let children = module.attribute("_modules").map(NodeRef::pairs).unwrap_or_default();
            for (key, child) in children.into_iter().rev().filter(|(_, c)| !c.is_none()) {
                let name = format!("{prefix}{}", name_of(key));
                if child.attribute("_parameters").is_some() {
                    tasks.push(Task::Enter(child.id(), format!("{name}.")));
                } else {
                    pairs.push((name, child.id()));
                }
            }
            if pairs.len() > self.document.root().graph().len().saturating_mul(4) {
                return Err(Error::limit(
                    "its modules share so much that they cannot all be named",
                ));
            }
        }
        let bytes = pairs.iter().map(|(name, _)| name.len()).sum();
        self.spend(bytes)?;
        let b = self.document.builder();
        let dict = b.call("collections", "OrderedDict", &[]);
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (b.str(name), *value)).collect();
        b.set_items(dict, &pairs);
        let note = if cut {
            "its other attributes are left out, and a module that holds itself is cut"
        } else {
            "its other attributes are left out"
        };
        Ok(Some(Form::new(dict, "state dict").note(note)))
    }
}

/// Parameters, and the buffers that `state_dict()` keeps.
fn own_tensors(module: NodeRef<'_>) -> Vec<(NodeRef<'_>, NodeRef<'_>)> {
    let transient: HashSet<&str> = module
        .attribute("_non_persistent_buffers_set")
        .map(|set| {
            let of_call = set.arguments(1).into_iter().flat_map(NodeRef::iter_items);
            set.iter_items().chain(of_call).filter_map(NodeRef::as_str).collect()
        })
        .unwrap_or_default();
    let pairs = |name| module.attribute(name).map(NodeRef::pairs).unwrap_or_default();
    let buffers = pairs("_buffers");
    let kept =
        buffers.into_iter().filter(|(k, _)| k.as_str().is_none_or(|k| !transient.contains(k)));
    pairs("_parameters").into_iter().chain(kept).filter(|(_, v)| !v.is_none()).collect()
}

fn name_of(key: NodeRef<'_>) -> String {
    key.as_str().map_or_else(|| text::repr(key), str::to_owned)
}
