//! `planner_data` and `mcore_data`: where an entry stands in the tree, and the shape that Megatron
//! would give it.

use std::borrow::Cow;

use ckptkit_core::{Error, Key, Result};
use torch_save::pickle::{Kind, NodeId, NodeRef};

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
        let Some(index) = self.named(raw) else { return Ok(()) };
        let ids = walk::items(value, "a path in planner_data")?;
        let first_part = self.tables.parts.len();
        let named = self.parts(index, value, &ids);
        let fqn = &self.tables.entries[index as usize].fqn;
        let path = match named {
            Ok(Some(_)) if ids.is_empty() => {
                let note = format!("planner_data has an empty path for {fqn}");
                self.tables.notes.push(note);
                None
            }
            Ok(None) => None,
            Ok(Some(_)) if !matches!(self.tables.entries[index as usize].path, PathAt::Absent) => {
                None
            }
            Ok(Some(true)) => {
                Some(PathAt::Parts { start: narrow(first_part), len: narrow(ids.len()) })
            }
            Ok(Some(false)) => Some(PathAt::Own(narrow(self.tables.own_paths.len()))),
            Err(e) => return Err(e),
        };
        if !matches!(path, Some(PathAt::Parts { .. })) {
            self.tables.parts.truncate(first_part);
        }
        if let Some(PathAt::Own(_)) = path {
            let keys = ids.iter().map(|&id| match value.other(id).kind() {
                Kind::Int(i) => Key::Index(i.unsigned_abs()),
                Kind::Str(text) => Key::Str(walk::escaped(text).into()),
                _ => Key::Str("".into()),
            });
            self.tables.own_paths.push(keys.collect());
        }
        if let Some(path) = path {
            self.tables.entries[index as usize].path = path;
        }
        Ok(())
    }

    /// Adds the lengths of a path's parts; says whether the name is these parts joined with dots,
    /// and nothing where it is no path, which is noted.
    fn parts(&mut self, index: u32, value: NodeRef<'_>, ids: &[NodeId]) -> Result<Option<bool>> {
        let most = most_positions(self.tables.entries.len()) as u64;
        let entry = &self.tables.entries[index as usize];
        // What of the name is not yet said by the parts.
        let mut rest = Some(entry.fqn.as_str()).filter(|fqn| fqn.len() < INDEX_PART as usize);
        for (n, &id) in ids.iter().enumerate() {
            let part = value.other(id);
            let (text, mark) = match part.kind() {
                Kind::Str(text) => {
                    self.path_text += text.len();
                    (walk::readable(text), 0)
                }
                Kind::Int(i) if i >= 0 => {
                    if i.unsigned_abs() >= most {
                        let e = Error::malformed(format!(
                            "planner_data puts it at position {i} of a list, in a checkpoint of {} entries",
                            self.tables.entries.len()
                        ));
                        self.fault(index, e);
                        return Ok(None);
                    }
                    (Cow::Owned(i.to_string()), INDEX_PART)
                }
                _ => {
                    let note = format!(
                        "planner_data has {} in the path of {}, which therefore stands under its own name",
                        walk::describe(part),
                        entry.fqn
                    );
                    self.tables.notes.push(note);
                    return Ok(None);
                }
            };
            self.path_text += 4;
            if self.path_text > self.budget.saturating_mul(8) {
                return Err(Error::limit(
                    "planner_data repeats its text more often than its length can hold",
                ));
            }
            let text = &*text;
            rest = rest.and_then(|rest| {
                let rest = if n == 0 { rest } else { rest.strip_prefix('.')? };
                rest.strip_prefix(text)
            });
            if rest.is_some() {
                self.tables.parts.push(narrow(text.len()) | mark);
            }
        }
        Ok(Some(rest.is_some_and(str::is_empty)))
    }

    pub(super) fn mcore(&mut self, key: NodeRef<'_>, value: NodeRef<'_>) -> Result<()> {
        let Some(index) = key.as_str().and_then(|k| self.named(k.as_bytes())) else {
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
