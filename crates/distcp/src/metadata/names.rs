//! Which entry a name is that of.

use std::hash::BuildHasher;

use ckptkit_core::hash::HashMap;

use super::Entry;

/// Positions of entries by the bytes of their names. The names themselves are not kept again.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// By the hash of a name, or the next free number after it.
    by_hash: HashMap<u64, u32>,
    /// By the bytes of names that are no UTF-8.
    strange: HashMap<Box<[u8]>, u32>,
    /// The same, as they are escaped.
    escaped: HashMap<String, u32>,
}

impl Names {
    pub(super) fn reserve(&mut self, more: usize) {
        self.by_hash.reserve(more);
    }

    /// Names the entry at `index`, which need not be there yet; `fqn` is `raw` with escapes.
    pub(super) fn insert(&mut self, raw: &[u8], fqn: &str, index: u32, entries: &[Entry]) {
        if fqn.as_bytes() != raw {
            self.strange.insert(raw.into(), index);
            self.escaped.insert(fqn.to_owned(), index);
            return;
        }
        let mut hash = self.by_hash.hasher().hash_one(raw);
        while let Some(known) = self.by_hash.get_mut(&hash) {
            if entries.get(*known as usize).is_some_and(|e| e.is_called(raw)) {
                *known = index;
                return;
            }
            hash = hash.wrapping_add(1);
        }
        self.by_hash.insert(hash, index);
    }

    pub(super) fn find(&self, raw: &[u8], entries: &[Entry]) -> Option<u32> {
        let mut hash = self.by_hash.hasher().hash_one(raw);
        while let Some(&index) = self.by_hash.get(&hash) {
            if entries.get(index as usize).is_some_and(|e| e.is_called(raw)) {
                return Some(index);
            }
            hash = hash.wrapping_add(1);
        }
        self.strange.get(raw).copied()
    }

    /// Whether every entry's name is UTF-8, so that none is escaped.
    pub(super) fn are_plain(&self) -> bool {
        self.strange.is_empty()
    }

    pub(super) fn escaped(&self, fqn: &str) -> Option<u32> {
        self.escaped.get(fqn).copied()
    }
}
