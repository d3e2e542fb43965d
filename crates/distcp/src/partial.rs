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
        if self.listing().find(&self.0.tables, name).is_some()
            && self.listing().origin(&self.0.tables, name).is_none()
        {
            return Ok(Vec::new());
        }
        let entry = &self.0.tables.entries[self.entry_index(name)? as usize];
        self.filled_of(entry)
            .within(|| format!("tensor {}", entry.fqn))
            .in_file(self.0.storage.name())
    }

    fn filled_of(&self, entry: &Entry) -> Result<Vec<Region>> {
        match (&entry.kind, &entry.fault) {
            (_, Some(e)) => Err(e.clone()),
            (EntryKind::Tensor(row), None) if self.0.rules.partial => {
                assemble::check(&self.0.tables, row, self.0.rules)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// One line for each tensor that is filled up.
    pub(crate) fn partial_notes(&self) -> &[String] {
        self.0.partial.get_or_init(|| {
            let mut notes = Vec::new();
            if !self.0.rules.partial {
                return notes;
            }
            let mut more = 0_usize;
            for entry in &self.0.tables.entries {
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
                    shape::numel(self.0.tables.size(row)).unwrap_or_default(),
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

    /// What says that the items of a tensor are believed, where they are.
    pub(crate) fn believed(&self, entry: &Entry) -> Option<(ckptkit_core::Dtype, String)> {
        let EntryKind::Tensor(row) = &entry.kind else { return None };
        if !self.0.rules.item_dtypes || entry.fault.is_some() {
            return None;
        }
        let dtype = assemble::dtype_of_items(&self.0.tables, &self.0.items, entry)?;
        let note = format!(
            "{}: its items hold {dtype} elements, the metadata says {}; the items are believed",
            entry.fqn, row.dtype
        );
        Some((dtype, note))
    }
}

/// How many elements boxes hold that do not overlap.
pub(crate) fn elements(boxes: &[Region]) -> u64 {
    boxes.iter().map(|b| shape::numel(&b.sizes).unwrap_or_default()).sum()
}
