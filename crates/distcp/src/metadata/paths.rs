//! `planner_data` and `mcore_data`: where an entry stands in the tree, and the shape that Megatron
//! would give it.

use ckptkit_core::{Error, Key, Result};
use torch_save::pickle::{Kind, NodeRef};

use super::decode::{Decoder, narrow};
use super::{EntryKind, INDEX_PART, PathAt, walk};

/// List positions that a checkpoint may make up: empty containers vanish when a list is flattened,
/// so some may be missing, but not without bound.
pub(crate) fn most_positions(entries: usize) -> usize {
    2 * entries + 1024
}

impl Decoder {
    pub(super) fn path(&mut self, key: NodeRef<'_>, value: NodeRef<'_>) -> Result<()> {
        let (Kind::Str(raw) | Kind::Bytes(raw)) = key.kind() else { return Ok(()) };
        let Some(&index) = self.tables.by_fqn.get(raw) else { return Ok(()) };
        let parts = walk::items(value, "a path in planner_data")?;
        let mut keys = Vec::with_capacity(parts.len());
        for part in &parts {
            keys.push(match part.kind() {
                Kind::Str(text) => {
                    self.path_text += text.len();
                    Key::Str(walk::escaped(text).into())
                }
                Kind::Int(i) if i >= 0 => {
                    let most = most_positions(self.tables.entries.len()) as u64;
                    if i.unsigned_abs() >= most {
                        let e = Error::malformed(format!(
                            "planner_data puts it at position {i} of a list, in a checkpoint of {} entries",
                            self.tables.entries.len()
                        ));
                        self.fault(index, e);
                        return Ok(());
                    }
                    Key::Index(i.unsigned_abs())
                }
                _ => {
                    let fqn = &self.tables.entries[index as usize].fqn;
                    let note = format!(
                        "planner_data has {} in the path of {fqn}, which therefore stands under its own name",
                        walk::describe(*part)
                    );
                    self.tables.notes.push(note);
                    return Ok(());
                }
            });
            self.path_text += 4;
            if self.path_text > self.budget.saturating_mul(8) {
                return Err(Error::limit(
                    "planner_data repeats its text more often than its length can hold",
                ));
            }
        }
        let tables = &mut self.tables;
        let entry = &mut tables.entries[index as usize];
        if keys.is_empty() {
            let note = format!("planner_data has an empty path for {}", entry.fqn);
            tables.notes.push(note);
            return Ok(());
        }
        if !matches!(entry.path, PathAt::Absent) {
            return Ok(());
        }
        if ckptkit_core::join(&keys) == entry.fqn && entry.fqn.len() < INDEX_PART as usize {
            let start = narrow(tables.parts.len());
            tables.parts.extend(keys.iter().map(|key| match key {
                Key::Index(i) => narrow(i.to_string().len()) | INDEX_PART,
                Key::Str(s) | Key::Other(s) => narrow(s.len()),
                _ => 0,
            }));
            entry.path = PathAt::Parts { start, len: narrow(keys.len()) };
        } else {
            entry.path = PathAt::Own(narrow(tables.own_paths.len()));
            tables.own_paths.push(keys);
        }
        Ok(())
    }

    pub(super) fn mcore(&mut self, key: NodeRef<'_>, value: NodeRef<'_>) -> Result<()> {
        let Some(&index) = key.as_str().and_then(|k| self.tables.by_fqn.get(k.as_bytes())) else {
            return Ok(());
        };
        let shape = value
            .get("nd_reformulated_orig_global_shape")
            .or_else(|| walk::fields(value, ["nd_reformulated_orig_global_shape"])[0]);
        let Some(shape) = shape.filter(|s| !s.is_none()) else { return Ok(()) };
        let mut dims = Vec::new();
        let read = walk::dims(shape, "nd_reformulated_orig_global_shape", &mut dims);
        match (read, &mut self.tables.entries[index as usize].kind) {
            (Ok(_), EntryKind::Tensor(row)) => row.reformulated = Some(dims),
            (Err(e), EntryKind::Tensor(_)) => self.fault(index, e),
            _ => {}
        }
        Ok(())
    }
}
