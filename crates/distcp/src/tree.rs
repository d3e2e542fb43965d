//! The tree of values that was saved, put together again.

use ckptkit_core::{Error, Key, Result, ResultExt};
use torch_save::{TorchFile, Value};

use crate::listing::Holder;
use crate::metadata::{EntryKind, most_positions};
use crate::read::DistCheckpoint;
use crate::slots::{Slot, insert};

impl DistCheckpoint {
    /// The state dict as it was before it was flattened: string keys in dicts, positions in lists,
    /// tensors by their names. Keys of `meta.pt` join at the root, `common.pt` stands under
    /// `common`. An object that cannot be read is left out and told in
    /// [`DistCheckpoint::notes`]. Opens all byte items.
    ///
    /// # Errors
    /// `Malformed` when paths contradict each other: one ends where another goes on, or a list
    /// has a position far beyond its items.
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// use torch_save::Value;
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/nested"))?;
    /// let tree = checkpoint.tree()?;
    /// assert!(matches!(tree.get("model.list"), Some(Value::List(items)) if items.len() == 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn tree(&self) -> Result<Value> {
        let mut root = self.subtree("")?.unwrap_or(Value::Dict(Vec::new()));
        if let Value::Dict(pairs) = &mut root {
            if let Some(meta) = self.meta()? {
                let value = self.side_value(&meta, Holder::Meta)?;
                if let Value::Dict(more) = value {
                    for (key, value) in more {
                        if !pairs.iter().any(|(k, _)| *k == key) {
                            pairs.push((key, value));
                        }
                    }
                }
            }
            if let Some(common) = self.common()? {
                let value = self.side_value(&common, Holder::Common)?;
                pairs.push((Value::Str("common".into()), value));
            }
        }
        Ok(root)
    }

    /// The value under a dotted path of [`DistCheckpoint::tree`]; opens only the items that it is
    /// made of.
    ///
    /// # Errors
    /// `NotFound`; and as [`DistCheckpoint::tree`].
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/nested"))?;
    /// assert_eq!(checkpoint.value("optim.param_groups.0.lr")?.as_f64(), Some(0.1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn value(&self, path: &str) -> Result<Value> {
        if path.is_empty() {
            return self.tree();
        }
        if let Some(value) = self.subtree(path)? {
            return Ok(value);
        }
        // Inside an object: the longest entry that the path begins with.
        let entries = self.opened.tables.entries.iter().zip(0..);
        let holder = entries
            .filter(|(e, _)| matches!(e.kind, EntryKind::Bytes(_)))
            .filter_map(|(e, index)| {
                let name = ckptkit_core::join(&self.opened.tables.path(e));
                let rest = path.strip_prefix(&name)?.strip_prefix('.')?.to_owned();
                Some((name.len(), index, rest))
            })
            .max();
        if let Some((_, index, rest)) = holder {
            if let Some(found) = self.entry_value(index)?.get(&rest) {
                return Ok(found.clone());
            }
        }
        if let Some(common) = self.common()? {
            if let Some(rest) = path.strip_prefix("common") {
                if let Some(rest) = rest.strip_prefix('.').or((rest.is_empty()).then_some("")) {
                    let value = common.lookup(rest)?;
                    return Ok(self.listing().name_tensors(value, Holder::Common));
                }
            }
        }
        if let Some(meta) = self.meta()? {
            let value = meta.lookup(path)?;
            return Ok(self.listing().name_tensors(value, Holder::Meta));
        }
        Err(Error::not_found(format!("there is no value {path:?}"))
            .in_file(self.opened.storage.name()))
    }

    fn side_value(&self, file: &TorchFile, holder: Holder) -> Result<Value> {
        Ok(self.listing().name_tensors(file.value(file.root())?, holder))
    }

    /// The tree of the entries at or below a dotted path; `None` where there are none.
    fn subtree(&self, under: &str) -> Result<Option<Value>> {
        let tables = &self.opened.tables;
        let mut root = None;
        let mut padding = most_positions(tables.entries.len());
        for (entry, index) in tables.entries.iter().zip(0..) {
            let path = tables.path(entry);
            let Some(skip) = below(&path, under) else { continue };
            let value = match &entry.kind {
                EntryKind::Tensor(_) => match self.listing().info_of(index) {
                    Some(info) => Value::Tensor(info.name().to_owned()),
                    None => continue,
                },
                EntryKind::Bytes(_) => match self.entry_value(index) {
                    Ok(value) => value,
                    Err(e) if skip == path.len() => return Err(e),
                    Err(_) => continue,
                },
                EntryKind::Unknown => continue,
            };
            let keys = &path[skip..];
            let within = || format!("entry {}", entry.fqn);
            insert(&mut root, keys, value, &mut padding)
                .within(within)
                .in_file(self.opened.storage.name())?;
        }
        Ok(root.map(into_value))
    }
}

/// How many keys of `path` spell the dotted `under`; `None` where it does not stand there.
fn below(path: &[Key], under: &str) -> Option<usize> {
    if under.is_empty() {
        return Some(0);
    }
    (1..=path.len()).find(|&n| ckptkit_core::join(&path[..n]) == under)
}

pub(crate) fn into_value(slot: Slot<Value>) -> Value {
    let value = |slot: Option<Slot<Value>>| slot.map_or(Value::None, into_value);
    match slot {
        Slot::Leaf(value) => value,
        Slot::Map(pairs, _) => {
            Value::Dict(pairs.into_iter().map(|(k, v)| (Value::Str(k), value(v))).collect())
        }
        Slot::List(items) => Value::List(items.into_iter().map(value).collect()),
    }
}
