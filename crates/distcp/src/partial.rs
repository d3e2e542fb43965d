//! What is left of a tensor, and what is filled up.

use ckptkit_core::{Region, Result, ResultExt, TensorInfo, shape};

use crate::assemble;
use crate::metadata::{Entry, EntryKind};
use crate::read::DistCheckpoint;

/// Tensors that are noted one by one.
const NAMED: usize = 100;

impl DistCheckpoint {
    /// The regions of a tensor that no chunk holds and that are therefore read as zeros, by its
    /// name or FQN, in elements of the tensor as it is stored. Empty for one that is whole, for an
    /// object, and without [`OpenOptions::allow_partial`](crate::OpenOptions::allow_partial).
    ///
    /// # Errors
    /// `NotFound`; what keeps the tensor from being read.
    pub fn filled(&self, name: &str) -> Result<Vec<Region>> {
        if self.listing().find(&self.opened.tables, name).is_some()
            && self.listing().origin(&self.opened.tables, name).is_none()
        {
            return Ok(Vec::new());
        }
        let entry = &self.opened.tables.entries[self.entry_index(name)? as usize];
        self.filled_of(entry)
            .within(|| format!("tensor {}", entry.fqn))
            .in_file(self.opened.storage.name())
    }

    fn filled_of(&self, entry: &Entry) -> Result<Vec<Region>> {
        match (&entry.kind, &entry.fault) {
            (_, Some(e)) => Err(e.clone()),
            (EntryKind::Tensor(row), None) if self.opened.rules.partial => {
                assemble::check(&self.opened.tables, row, self.opened.rules)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// One line for each tensor that is filled up.
    pub(crate) fn partial_notes(&self) -> &[String] {
        self.partial_notes_or(|| {
            let mut notes = Vec::new();
            if !self.opened.rules.partial {
                return notes;
            }
            let mut more = 0_usize;
            for entry in &self.opened.tables.entries {
                let EntryKind::Tensor(row) = &entry.kind else { continue };
                let Ok(missing) = self.filled_of(entry) else { continue };
                let Some(first) = missing.first() else { continue };
                if notes.len() == NAMED {
                    more += 1;
                    continue;
                }
                notes.push(format!(
                    "{}: no chunk holds {} of {} elements, from {:?} on; they are read as zeros",
                    entry.fqn,
                    elements(&missing),
                    shape::numel(self.opened.tables.size(row)).unwrap_or_default(),
                    first.offsets
                ));
            }
            if more > 0 {
                notes.push(format!("of {more} more tensors, a part is read as zeros"));
            }
            notes
        })
    }

    /// The name and description that the listing gives an entry.
    pub(crate) fn entry_info(&self, entry: &Entry) -> Option<&TensorInfo> {
        let index = self.entry_index(&entry.fqn).ok()?;
        self.listing().info_of(index)
    }
}

/// How many elements boxes hold that do not overlap.
pub(crate) fn elements(boxes: &[Region]) -> u64 {
    boxes.iter().map(|b| shape::numel(&b.sizes).unwrap_or_default()).sum()
}
